"""The loop below the simulation, and the wires on it: time jumps, processes die and freeze."""

import asyncio
import ssl

import pytest
from aiohttp import web

from controller.azure.http.session import SessionOptions, TrafficKind
from tests.simulation.loop import DeadlockError, Process, VirtualLoop
from tests.simulation.memory_transport import Passage, Wires


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


def test_a_request_of_a_dead_process_is_handled_before_its_reset_arrives() -> None:
    """What was held up by a cut arrives piece by piece, and each comes to rest before the next."""
    loop, seen = VirtualLoop(1), list[str]()
    cut = False

    async def handle(_request: web.BaseRequest) -> web.StreamResponse:
        seen.append("begun")
        for _ in range(10):
            await asyncio.sleep(0)
        seen.append("done")
        return web.Response()

    async def ask(wires: Wires, process: Process) -> None:
        nonlocal cut
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        options = SessionOptions(traffic=TrafficKind.BLOB, tls=tls, trust_env=False)
        async with wires.sessions(process, "web-1")(options) as session:
            await session.get("https://127.0.0.1:8003/first")
            seen.append("answered")
            cut = True
            await session.get("https://127.0.0.1:8003/second")

    async def play() -> None:
        wires = Wires(
            loop,
            handlers=lambda _service, _vm: handle,
            leaving=lambda _departure: Passage(0.01, 0.01),
            cut_until=lambda _vm, _service: 5.0 if cut and loop.now < 5 else None,
        )
        process = Process(loop, "web-1")
        process.start(ask(wires, process))
        await asyncio.sleep(1)
        wires.kill(process)
        assert seen == ["begun", "done", "answered"]
        await asyncio.sleep(9)
        assert seen[3:] == ["begun", "done"]
        wires.closed = True
        process.exhume()
        await asyncio.sleep(1)
        await wires.close()

    loop.run_until_complete(play())
    loop.close()
