"""`mechanism = "probe"`: a VM leaves rotation by closing, and nothing is written to the network."""

from controller.simulator.services.http_values import Service
from tests.support.in_process_set import NEVER_S, InProcessSet
from tests.support.probed_vm import probed_vm


async def test_a_vm_is_drained_by_its_own_probe_answer(bench: InProcessSet) -> None:
    """Record, close, refuse real probes, acknowledge; open and forget: and no write at all."""
    bench.fault(Service.ARM, path_contains="/health", status=403)  # so only the responder is proof
    async with probed_vm(bench, "web-2") as vm:
        await bench.lead("web-1", overrides=vm.overrides())
        await bench.stand_by("web-2", overrides=vm.overrides())
        assert await vm.probe() == 200
        event = await bench.announce("web-2", started_s=NEVER_S)
        await bench.until("closed", vm.flag.exists)
        assert bench.ledger()["entries"][0].get("out_at") is None, "no probe was refused yet"
        assert await vm.probe() == 503
        await vm.until("out", lambda: bench.ledger()["entries"][0].get("out_at"))
        await vm.until("acknowledged", lambda: bench.world.changes("event_acknowledged"))
        assert len(bench.inside("web-2")) == 1, "it stays in its pool"
        bench.world.events.complete(event)
        await bench.server.notify()
        await bench.until("over", lambda: not bench.ledger()["entries"])
        assert not vm.flag.exists()
        assert await vm.probe() == 200
        assert bench.writes() == []


async def test_a_vm_without_agent_is_held(bench: InProcessSet) -> None:
    """Nothing else can take it out: the hold states what to do, and nothing is acknowledged."""
    async with probed_vm(bench, "web-2") as vm:
        await bench.lead("web-1", overrides=vm.overrides())
        await bench.announce("web-2", started_s=NEVER_S)
        await bench.until("recorded", lambda: bench.ledger()["entries"])
        bench.clock.ahead_s += 10
        await bench.until("held", lambda: bench.ledger()["holds"])
        (hold,) = bench.ledger()["holds"]
        assert (hold["subject"], hold["reason"]) == ("web-2", "vm_not_closed")
        assert "start lb-drain on web-2" in hold["message"]
        assert bench.writes() == []
        assert not bench.world.changes("event_acknowledged")
