"""A ledger that cannot be reached for a while: who tries again, who lets others, what is told."""

from controller.simulator.wire import Service

from .in_process import QUICK, Bench


async def test_a_leader_that_cannot_open_the_ledger_leaves_it_to_others(bench: Bench) -> None:
    """It is told once, tried five times, and then the lease is given back."""
    bench.fault(Service.BLOB, method="GET", status=503)
    bench.start()
    await bench.until("told", lambda: bench.logged("the ledger cannot be opened", "WARNING"))
    await bench.until("given back", lambda: bench.logged("released the lease"))
    assert len(bench.logged("the ledger cannot be opened")) == 1
    assert bench.ledger() == {}
    bench.heal()
    bench.clock.ahead_s += 60  # past the quarantine
    await bench.until("leads", lambda: bench.ledger().get("leader") == "web-1")


async def test_a_dry_run_without_a_ledger_says_so_and_goes_on(bench: Bench) -> None:
    """Nothing is written, and what would be done is told as if nothing were out."""
    bench.fault(Service.BLOB, status=503)
    bench.start(overrides={"policy": {**QUICK["policy"], "dry_run": True}})
    await bench.until("told", lambda: bench.logged("the ledger could not be read", "WARNING"))
    await bench.announce("web-2")
    await bench.until("said", lambda: bench.logged("would"))
    assert bench.writes() == []
    assert bench.ledger() == {}


async def test_a_ledger_that_cannot_be_written_holds_the_drain(bench: Bench) -> None:
    """S5: nothing is removed until the entry is durable, and it is tried again."""
    await bench.lead()
    bench.fault(Service.BLOB, method="PUT", path_contains="web.json", status=500)
    await bench.announce("web-2")
    await bench.until("told", lambda: bench.logged("the ledger could not be written"))
    assert bench.writes() == []
    bench.heal()
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))
