"""Several ways to read one thing, and what each costs."""

import random
from datetime import timedelta

import pytest

from controller.agent.list_costs import ListCosts, enough_for
from controller.agent.read_ways import Way, first_that_works, request_key
from controller.agent.retry_schedule import BackoffTable
from controller.agent.single_reads import NOT_ASKED, read_each
from controller.core.action_keys import action_key
from controller.errors import ControllerError, Denied, NotFound, ServiceFault, Throttled
from tests.support.clocks import StoppedClock

GET, LIST = request_key("/vm", "get"), request_key("/vms", "list")
"""Two kinds of request."""


class Reads:
    """Answers as it is set, and counts."""

    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.retries = BackoffTable(self.clock, entropy=random.Random(1), on_failure=lambda: None)
        self.answers: dict[str, ControllerError | str] = {}
        self.asked: list[str] = []

    async def read(self, name: str) -> str:
        self.asked.append(name)
        answer = self.answers.get(name, name)
        if isinstance(answer, ControllerError):
            raise answer
        return answer

    async def either(self) -> str:
        ways = (
            Way(GET, "read it", lambda: self.read("get")),
            Way(LIST, "list it", lambda: self.read("list")),
        )
        return await first_that_works(ways, self.retries, self.clock.now)


@pytest.fixture
def reads() -> Reads:
    return Reads()


async def test_the_other_way_is_taken_at_once_and_the_refused_one_waits(reads: Reads) -> None:
    """K1: a request that Azure defers for 1200 s is not repeated, and another one answers."""
    reads.answers["get"] = Throttled("busy", retry_after_s=1200)
    assert [await reads.either() for _ in range(3)] == ["list"] * 3
    assert reads.asked == ["get", "list", "list", "list"]
    del reads.answers["get"]
    reads.clock.move(1201)
    assert await reads.either() == "get"


async def test_without_a_way_the_shortest_wait_counts(reads: Reads) -> None:
    """The error lasts as long as no way may be tried; nothing is sent meanwhile."""
    reads.answers |= {
        "get": Throttled("busy", retry_after_s=1200),
        "list": ServiceFault("fault", retry_after_s=30),
    }
    for left_s in (30, 20):
        with pytest.raises(Throttled) as refused:
            await reads.either()
        assert refused.value.retry_after_s == pytest.approx(left_s, abs=1)
        reads.clock.move(10)
    assert reads.asked == ["get", "list"]


async def test_an_absent_thing_is_an_answer(reads: Reads) -> None:
    """A 404 is not a failure of the way: no other way is asked."""
    reads.answers["get"] = NotFound("gone")
    with pytest.raises(NotFound):
        await reads.either()
    assert reads.asked == ["get"]
    assert not reads.retries.active


async def each(reads: Reads, names: list[str], *urgent: str) -> dict[str, str]:
    result = await read_each(
        reads.read, names, reads.retries, urgent=lambda name: name in urgent, hold=False
    )
    return {**result.found, **result.failed, **dict.fromkeys(result.absent, "absent")}


async def test_a_single_read_fails_alone(reads: Reads) -> None:
    """L2: a refusal, a 404 and throttling each concern one resource."""
    reads.answers |= {
        "b": Denied("no"),
        "c": NotFound("gone"),
        "d": Throttled("busy", retry_after_s=60),
    }
    found = await each(reads, ["a", "b", "c", "d", "e"])
    assert found == {"a": "a", "b": "no", "c": "absent", "d": "busy", "e": "e"}
    reads.asked.clear()
    found = await each(reads, ["a", "d"])
    assert reads.asked == ["a"]
    assert "Azure asks to wait until" in found["d"]


async def test_urgent_reads_come_first_and_are_never_left_out(reads: Reads) -> None:
    """K1: while Azure answers nothing, only the resources that matter are asked for in full."""
    names = [f"vm-{number}" for number in range(100)]
    reads.answers = {name: Throttled("busy", retry_after_s=60) for name in names}
    found = await each(reads, names, "vm-70", "vm-99")
    assert reads.asked[:2] == ["vm-70", "vm-99"]
    assert len(reads.asked) <= 2 + 8
    assert list(found.values()).count(NOT_ASKED) == 90


@pytest.mark.parametrize(
    ("pages", "missing", "wanted", "listed"),
    [(1, 0, 3, True), (3, 0, 3, False), (3, 3, 3, False), (3, 3, 200, True), (1, 0, 1, False)],
)
def test_the_cheaper_way_is_taken(pages: int, missing: int, wanted: int, listed: bool) -> None:
    """H1: a list is read only if it takes fewer requests than single reads."""
    costs = ListCosts()
    costs.learn(LIST, pages=pages, missing=missing)
    assert costs.prefers_list(LIST, wanted) is listed


def test_an_unknown_list_is_tried() -> None:
    """Nothing is known of a list that was never read, except that a page has 50 entries."""
    costs = ListCosts()
    assert [costs.prefers_list(LIST, wanted) for wanted in (1, 2, 200)] == [False, True, True]


def test_a_list_is_left_when_single_reads_cost_no_more() -> None:
    """H1: reading a list costs at most twice what the cheaper way costs."""
    enough = enough_for(["/VM/1", "/vm/2", "/vm/3"])
    page: list[tuple[dict[str, object], ...]] = [({"id": 5}, {}), ({"id": "/vm/1"},)]
    assert not enough(page[0], 2)
    assert enough(page[0], 3)
    assert enough(page[0] + page[1], 2)
    assert enough(({"id": "/vm/1"}, {"id": "/vm/2"}, {"id": "/VM/3"}), 1)


def test_a_wait_that_azure_asked_for_is_marked(reads: Reads) -> None:
    """A hold can state that Azure asked for the wait, and until when."""
    key = action_key("read", "/x")
    reads.retries.failed(key, Throttled("busy", retry_after_s=600), what="read x")
    assert reads.retries.active[key].asked
    assert reads.retries.active[key].until - reads.clock.now() >= timedelta(seconds=599)
    reads.retries.failed(key, ServiceFault("fault"), what="read x")
    assert not reads.retries.active[key].asked
