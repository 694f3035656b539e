"""The doctor beside agents, roles and services that misbehave, against the simulated Azure."""

import pytest

from controller.doctor.findings import Verdict
from controller.simulator.faults import Effect
from controller.simulator.wire import Request, Service

from .clinic import consult, of
from .conftest import OpenBench
from .in_process import Bench
from .test_roles import as_documented, refer_to_everything


@pytest.mark.parametrize("effect", [Effect.GARBAGE, Effect.EMPTY_200, Effect.RESET_BEFORE])
@pytest.mark.parametrize("service", Service)
async def test_whatever_comes_back_is_a_report(
    open_set: OpenBench, service: Service, effect: Effect
) -> None:
    """A service that answers nonsense, nothing or not at all is a finding, not the end."""
    async with open_set(ip_pools=("cache",)) as bench:
        bench.fault(service, effect)
        report = await consult(bench)
        assert report.worst in {Verdict.WARN, Verdict.FAIL}
        assert of(report, "configuration").verdict is Verdict.PASS


async def test_a_nic_of_another_shape_is_a_finding(bench: Bench) -> None:
    """A NIC in which something is not what Azure documents is not looked at any further."""
    properties = bench.world.nic("web-2-nic")["properties"]["ipConfigurations"][0]["properties"]
    properties["publicIPAddress"] = ["not an object"]
    report = await consult(bench)
    assert of(report, "nics").verdict is Verdict.FAIL
    assert of(report, "way-out").verdict is Verdict.SKIP


async def test_a_leader_is_named(bench: Bench) -> None:
    """Where agents run, the doctor says who leads, and leaves lease and ledger alone."""
    await bench.lead("web-2")
    before = bench.ledger()
    found = of(await consult(bench), "agents")
    assert found.verdict is Verdict.PASS
    assert found.what.startswith("web-2 leads for ")
    assert "in epoch 1" in found.what
    assert bench.ledger() == before


async def test_nothing_is_tried_on_a_vm_that_is_out(bench: Bench) -> None:
    """The NIC of a VM that agents have taken out is theirs: no write goes to it."""
    await bench.lead("web-1")
    await bench.announce("web-2", started_s=600)
    await bench.until("web-2 is out", lambda: bench.inside("web-2") == [])
    written: list[str] = []

    def note(request: Request, _reply: object) -> None:
        if request.method == "PUT" and "/networkInterfaces/" in request.path:
            written.append(request.path.rsplit("/", 1)[-1])

    bench.server.observers.append(note)
    report = await consult(bench)
    assert sorted(written) == ["web-1-nic", "web-3-nic"]
    assert of(report, "write-nics").verdict is Verdict.PASS
    assert of(report, "left-out").verdict is Verdict.PASS
    assert "out of rotation: web-2" in of(report, "agents").what


async def test_nothing_is_tried_on_a_nic_that_is_being_written(bench: Bench) -> None:
    """A NIC in provisioningState Updating is left alone, and that is a warning."""
    bench.world.nic("web-2-nic")["properties"]["provisioningState"] = "Updating"
    found = of(await consult(bench), "write-nics")
    assert (found.verdict, found.subject) == (Verdict.WARN, "web-2-nic")


async def test_a_condition_that_azure_ignores_is_told(open_set: OpenBench) -> None:
    """Where If-Match is not honoured the trial is written, says so, and changes nothing."""
    async with open_set(settings={"if_match_on_nic": False}) as bench:
        before = bench.inside("web-1")
        report = await consult(bench)
        told = [each for each in report.findings if each.check == "write-nics"]
        assert {each.verdict for each in told} == {Verdict.WARN}
        assert bench.inside("web-1") == before


async def test_strangers_are_told(open_set: OpenBench) -> None:
    """Members that are no VM of the set are named: they serve, and nobody drains them."""
    async with open_set(foreign_vms=1) as bench:
        found = of(await consult(bench), "members")
        assert found.verdict is Verdict.WARN
        assert "other-1-nic" in found.what


async def test_a_proxy_does_not_get_in_the_way(bench: Bench) -> None:
    """A proxy in the environment is not used for IMDS, which is said."""
    report = await consult(bench, environ={"http_proxy": "http://127.0.0.1:9", "no_proxy": "*"})
    found = of(report, "imds")
    assert found.verdict is Verdict.PASS
    assert "http_proxy is for Resource Manager and storage only" in found.what


@pytest.mark.parametrize(
    ("pool_role", "pools", "ip_pools"),
    [("nic-pools", ("app", "admin"), ()), ("ip-pools", (), ("cache", "search"))],
)
async def test_every_action_of_the_roles_is_missed(
    open_set: OpenBench, pool_role: str, pools: tuple[str, ...], ip_pools: tuple[str, ...]
) -> None:
    """The roles in `deploy` are enough for the doctor, and each action taken away is told."""
    async with open_set(pools=pools, ip_pools=ip_pools, network_group="net-rg") as bench:
        refer_to_everything(bench.world)
        assigned = as_documented(bench.world, pool_role)
        report = await consult(bench)
        assert not report.failed, [each for each in report.findings if each.mend]
        missed: set[str] = set()
        for action in sorted(assigned):
            bench.world.roles.revoke("web-1", action)
            report = await consult(bench)
            bench.world.roles.reinstate("web-1", action)
            told = " ".join(
                f"{each.what} {each.mend}".casefold()
                for each in report.findings
                if each.verdict is Verdict.FAIL
            )
            blob = "/blobs/" in action and "storage blob data contributor" in told
            if action in told or blob:
                missed.add(action)
    assert missed == assigned
