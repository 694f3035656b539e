"""What Azure asks to wait for holds for every sender of the same request."""

import asyncio

import pytest

from controller.azure.http.request_waits import RequestWaits
from controller.errors import Throttled
from tests.support.clocks import StoppedClock

ARM = "https://management.azure.com"
POOL = f"{ARM}/subscriptions/s/loadBalancers/lb/backendAddressPools/app"
NIC = f"{ARM}/subscriptions/s/networkInterfaces/web-1-nic"


class Sender:
    """Sends requests whose replies a test chooses."""

    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.waits = RequestWaits(self.clock)
        self.sent: list[str] = []

    async def send(
        self, method: str = "GET", url: str = POOL, *, status: int = 200, wait: str = ""
    ) -> None:
        """Send a request; its reply comes later."""
        async with self.waits.turn(method, url):
            self.sent.append(f"{method} {url}")
            await asyncio.sleep(0)
            self.waits.heard(method, url, status, {"Retry-After": wait} if wait else {})


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.mark.parametrize("status", [429, 409, 503])
async def test_a_refused_request_is_not_sent_again_before_its_time(
    sender: Sender, status: int
) -> None:
    """H1: until Retry-After has passed, the error of the next sender states what is left."""
    await sender.send(status=status, wait="9")
    sender.clock.move(4)
    with pytest.raises(Throttled, match="GET app is not sent: Azure asks to wait 5 s") as caught:
        await sender.send()
    assert caught.value.retry_after_s == pytest.approx(5)
    assert caught.value.status == 429
    assert len(sender.sent) == 1
    sender.clock.move(5)
    await sender.send()
    assert len(sender.sent) == 2


@pytest.mark.parametrize("url", [f"{POOL}?api-version=2025-05-01", POOL.replace("app", "APP")])
async def test_query_and_case_make_no_other_request(sender: Sender, url: str) -> None:
    """H1: the clients write the same resource in several ways."""
    await sender.send(status=429, wait="9")
    with pytest.raises(Throttled):
        await sender.send(url=url)


async def test_another_method_and_another_resource_do_not_wait(sender: Sender) -> None:
    """Another kind of request has a limit of its own."""
    await sender.send(status=429, wait="9")
    await sender.send("PUT")
    await sender.send(url=NIC)
    assert len(sender.sent) == 3


async def test_a_write_waits_as_well(sender: Sender) -> None:
    """H1: a refused PUT is not sent again, by this tenure or the next."""
    await sender.send("PUT", NIC, status=409, wait="9")
    with pytest.raises(Throttled):
        await sender.send("PUT", NIC)


async def test_the_pace_of_an_operation_is_no_refusal(sender: Sender) -> None:
    """A Retry-After of 202 is between polls of an operation; other requests may be sent."""
    await sender.send("PUT", NIC, status=202, wait="10")
    await sender.send("PUT", NIC)
    await sender.send(status=429)
    await sender.send()
    assert len(sender.sent) == 4


async def test_two_reads_in_one_instant_do_not_both_meet_a_refusal(sender: Sender) -> None:
    """H1: what Azure has just refused is not sent again, however close the two reads are."""
    reads = (sender.send(status=429, wait="9"), sender.send(status=429, wait="9"))
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(each) for each in results] == [type(None), Throttled]
    assert len(sender.sent) == 1


async def test_only_reads_of_one_resource_follow_each_other(sender: Sender) -> None:
    """L2: a read that hangs delays no other resource and no write; cancelled, it delays nothing."""
    async with sender.waits.turn("GET", POOL):
        await sender.send(url=NIC)
        await sender.send("PUT")
        second = asyncio.create_task(sender.send())
        await asyncio.sleep(0)
        assert len(sender.sent) == 2
    await second
    assert len(sender.sent) == 3
