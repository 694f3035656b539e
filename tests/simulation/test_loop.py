"""The loop below the simulation: time jumps, processes die and freeze, nothing else exists."""

import asyncio

import pytest

from .loop import DeadlockError, Process, VirtualLoop


def test_waiting_takes_no_time_and_moves_the_clock() -> None:
    """A sleep of a day is over at once, and the loop's clock is a day older."""
    loop = VirtualLoop(1)
    loop.run_until_complete(asyncio.sleep(86_400))
    assert loop.time() == pytest.approx(86_400)
    loop.close()


def test_waiting_for_nothing_is_an_error() -> None:
    """Where nothing can ever happen the loop says so instead of hanging."""
    loop = VirtualLoop(1)
    with pytest.raises(DeadlockError):
        loop.run_until_complete(asyncio.Event().wait())
    loop.close()


def test_a_killed_process_never_runs_again() -> None:
    """Of a process that was killed not even a `finally` runs, until it is exhumed."""
    loop, seen = VirtualLoop(1), list[str]()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
            seen.append("worked")
        finally:
            seen.append("cleaned up")

    async def play() -> None:
        process = Process(loop, "web-1")
        process.start(work())
        await asyncio.sleep(5)
        process.kill()
        await asyncio.sleep(60)
        assert seen == []
        process.exhume()
        await asyncio.sleep(1)

    loop.run_until_complete(play())
    loop.close()
    assert seen == ["cleaned up"]


@pytest.mark.parametrize(("stands_still", "woken_at"), [(True, 27.0), (False, 25.0)])
def test_a_frozen_process_wakes_late(stands_still: bool, woken_at: float) -> None:
    """A timer that ran out in a freeze is due at its end, or has as long to go as it had before."""
    loop, seen = VirtualLoop(1), list[float]()

    async def work() -> None:
        await asyncio.sleep(7)
        seen.append(loop.time())

    async def play() -> None:
        process = Process(loop, "web-1")
        process.start(work())
        await asyncio.sleep(5)
        process.freeze()
        await asyncio.sleep(20)
        process.thaw(20, clock_stood_still=stands_still)
        await asyncio.sleep(10)

    loop.run_until_complete(play())
    loop.close()
    assert seen == [pytest.approx(woken_at, abs=1e-3)]


def test_there_are_no_threads() -> None:
    """What would leave the simulated world is refused."""
    loop = VirtualLoop(1)

    async def leave() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="threads are not simulated"):
        loop.run_until_complete(leave())
    loop.close()
