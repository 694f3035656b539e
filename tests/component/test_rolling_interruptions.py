"""Rolling runs that are interrupted, resumed, or lose a reply: what stays out, and what is said."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.core.drain_requests import RollingRun
from controller.errors import NotDone, NotSent, OutcomeUnknown
from controller.operator.drain_client import DrainClient
from controller.operator.rolling import RollingRunner, abandon
from controller.operator.rolling_task import NothingStarted, Task
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from tests.component.conftest import OpenClient
from tests.component.test_manual_drain import blob
from tests.support.in_process_set import InProcessSet


async def nothing(_vm: str) -> None:
    return


async def fails(_vm: str) -> None:
    raise NotDone("half done")


async def starts_nothing(_vm: str) -> None:
    raise NothingStarted("refused")


def patching(work: Callable[[str], Awaitable[None]] = nothing) -> Task:
    return Task(what="patch", work=work, wait_until_healthy=nothing)


async def failed_at_web_2(client: DrainClient) -> None:
    with pytest.raises(NotDone, match="half done"):
        await RollingRunner(client, patching(fails), for_s=600).begin(("web-2",))


def active(bench: InProcessSet) -> list[str]:
    return [each["vm"] for each in blob(bench)["requests"] if not each.get("ended_at")]


async def test_half_done_work_stays_out_when_its_resume_is_interrupted(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """The resume has not begun its own work, but the attempt before it may have left a half."""
    await bench.lead("web-1")
    async with clients() as client, clients() as again:
        await failed_at_web_2(client)
        policy = again.settings.policy.model_copy(update={"connection_drain_s": 600})
        again.settings = again.settings.model_copy(update={"policy": policy})
        reported.clear()
        resumed = asyncio.create_task(
            RollingRunner(again, patching(), for_s=600).resume(), name="resume"
        )
        await bench.until("requested again", lambda: len(blob(bench)["requests"]) == 2)
        await bench.requests(3, "requests.json", "HEAD")
        resumed.cancel()
        await asyncio.gather(resumed, return_exceptions=True)
    assert active(bench) == ["web-2"]
    assert bench.inside("web-2") == []
    assert any("web-2 stays out of rotation until" in line for line in reported)


async def test_half_done_work_stays_out_when_its_resume_starts_nothing(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """That nothing was started now says nothing about the attempt before."""
    await bench.lead("web-1")
    async with clients() as client, clients() as again:
        await failed_at_web_2(client)
        with pytest.raises(NotDone, match="refused"):
            await RollingRunner(again, patching(starts_nothing), for_s=600).resume()
    assert active(bench) == ["web-2"]


async def test_a_request_whose_write_was_interrupted_is_withdrawn(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """^C while the write is on its way: storage may have it, and the leader would drain the VM."""
    async with clients() as client:

        def delay(text: str) -> None:
            if text == "web-2: drain requested":
                bench.fault(
                    Service.BLOB,
                    Effect.DELAY,
                    method="PUT",
                    path_contains="requests",
                    delay_s=600,
                    times=1,
                )

        client.report = delay
        rolling = asyncio.create_task(
            RollingRunner(client, patching(), for_s=600).begin(("web-2",))
        )
        await bench.until("written", lambda: blob(bench).get("requests"))
        rolling.cancel()
        await asyncio.gather(rolling, return_exceptions=True)
    assert active(bench) == []
    assert blob(bench)["roll"]["failed"].endswith("interrupted")


def lose_a_reply(client: DrainClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next write of this client gets no reply, and neither does the read that follows it."""
    store = client.requests._blob

    async def replaced(body: bytes, etag: str) -> str:
        monkeypatch.undo()
        await store.replace(body, etag)
        monkeypatch.setattr(store, "read_properties", unreachable)
        raise OutcomeUnknown("reset")

    async def unreachable() -> None:
        monkeypatch.undo()
        raise NotSent("refused")

    monkeypatch.setattr(store, "replace", replaced)


@pytest.mark.parametrize("at", ["restore requested", ": in service"])
async def test_a_write_whose_reply_was_lost_does_not_fail_the_run(
    bench: InProcessSet, clients: OpenClient, at: str
) -> None:
    """The run finds what it has written itself, not the work of another operator."""
    await bench.lead("web-1")
    async with clients() as client:
        with pytest.MonkeyPatch.context() as patched:

            def lose(text: str) -> None:
                if text.endswith(at):
                    lose_a_reply(client, patched)

            client.report = lose
            await RollingRunner(client, patching(), for_s=600).begin(("web-2",))
    assert blob(bench)["roll"]["ended_at"]
    assert not blob(bench)["roll"]["failed"]


RUN = RollingRun(
    run_id="1",
    what="patch",
    vms=("web-2",),
    done=(),
    by="ann",
    at=datetime(2026, 1, 5, tzinfo=UTC),
    process_id="1",
    failed="interrupted",
)


async def stopped_run(client: DrainClient) -> None:
    """Leave a run behind that has failed before its first VM."""
    await client.requests.change(lambda requests: replace(requests, roll=RUN))


async def test_a_run_that_was_resumed_meanwhile_is_not_abandoned(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VM that its new process works on must not be restored under the work."""
    async with clients() as client, clients() as other:
        await stopped_run(client)

        async def resumed(*_: object) -> None:
            await other.requests.change(
                lambda known: replace(
                    known, roll=replace(known.roll or RUN, process_id="2", failed="")
                )
            )

        monkeypatch.setattr("controller.operator.rolling._wait_until_stopped", resumed)
        with pytest.raises(NotDone, match="another process has continued"):
            await abandon(client)
    assert not blob(bench)["roll"].get("ended_at")


async def test_a_run_that_ended_meanwhile_is_not_called_in_progress(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no process that the operator could end."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.3)
    async with clients() as client, clients() as other:
        await stopped_run(client)
        await other.requests.change(
            lambda known: replace(known, roll=replace(known.roll or RUN, failed=""))
        )
        giving_up = asyncio.create_task(abandon(client))
        await bench.requests(2, "requests.json", "HEAD")
        await other.requests.change(
            lambda known: replace(known, roll=replace(known.roll or RUN, ended_at=other.now()))
        )
        with pytest.raises(NotDone, match="has ended meanwhile"):
            await giving_up


async def test_a_run_that_stops_because_of_a_withdrawal_records_that(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record states why the run stopped, not that it was interrupted."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.1)
    await bench.lead("web-1")
    async with clients() as client, clients() as eve:
        eve.requester = "eve"

        async def work(vm: str) -> None:
            await eve.restore(vm)
            await asyncio.Event().wait()

        with pytest.raises(NotDone, match="withdrawn by eve"):
            await RollingRunner(client, patching(work), for_s=600).begin(("web-2",))
    assert blob(bench)["roll"]["failed"] == (
        "web-2: its drain was withdrawn by eve while the run worked on it"
    )


async def test_a_run_is_not_resumed_for_other_vms(bench: InProcessSet, clients: OpenClient) -> None:
    """A command that names one VM does not do the work on all that remain."""
    async with clients() as client, clients() as other:
        await stopped_run(client)
        with pytest.raises(NotDone, match="is for other VMs: web-2; remaining: web-2"):
            await RollingRunner(other, patching(), for_s=600).resume(("web-3",))
        resumed = asyncio.create_task(
            RollingRunner(other, patching(), for_s=600).resume(("WEB-2",))
        )
        await bench.until("resumed", lambda: blob(bench)["roll"]["runner"] != "1")
        resumed.cancel()
        await asyncio.gather(resumed, return_exceptions=True)
