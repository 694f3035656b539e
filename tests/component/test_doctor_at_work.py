"""The doctor with running agents, roles and faulty services, against the simulated Azure."""

import pytest

from controller.doctor.report import Result
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Request, Service
from tests.conftest import OpenSet
from tests.deploy.test_roles import as_documented, refer_to_everything
from tests.support.doctor_rig import of, run_doctor
from tests.support.in_process_set import InProcessSet


@pytest.mark.parametrize("effect", [Effect.GARBAGE, Effect.EMPTY_200, Effect.RESET_BEFORE])
@pytest.mark.parametrize("service", Service)
async def test_any_reply_ends_in_a_report(
    open_set: OpenSet, service: Service, effect: Effect
) -> None:
    """A service with unusable, empty or missing replies is a finding in a complete report."""
    async with open_set(ip_pools=("cache",)) as bench:
        bench.fault(service, effect)
        report = await run_doctor(bench)
        assert report.worst in {Result.WARN, Result.FAIL}
        assert of(report, "configuration").result is Result.PASS


async def test_a_nic_of_another_shape_is_a_finding(bench: InProcessSet) -> None:
    """A NIC that breaks the documented shape is a failure, and dependent checks are skipped."""
    properties = bench.world.nic("web-2-nic")["properties"]["ipConfigurations"][0]["properties"]
    properties["publicIPAddress"] = ["not an object"]
    report = await run_doctor(bench)
    assert of(report, "nics").result is Result.FAIL
    assert of(report, "outbound").result is Result.SKIP


async def test_a_leader_is_named(bench: InProcessSet) -> None:
    """The doctor names the leader, and does not change lease and ledger."""
    await bench.lead("web-2")
    before = bench.ledger()
    found = of(await run_doctor(bench), "agents")
    assert found.result is Result.PASS
    assert found.message.startswith("web-2 leads for ")
    assert "in epoch 1" in found.message
    assert bench.ledger() == before


async def test_a_drained_vm_is_not_probed(bench: InProcessSet) -> None:
    """The doctor sends no write to the NIC of a drained VM."""
    await bench.lead("web-1")
    await bench.announce("web-2", started_s=600)
    await bench.until(
        "web-2 is recorded as out",
        lambda: any(each["out_at"] for each in bench.ledger().get("entries", [])),
    )
    written: list[str] = []

    def note(request: Request, _reply: object) -> None:
        if request.method == "PUT" and "/networkInterfaces/" in request.path:
            written.append(request.path.rsplit("/", 1)[-1])

    bench.server.observers.append(note)
    report = await run_doctor(bench)
    assert sorted(written) == ["web-1-nic", "web-3-nic"]
    assert of(report, "write-nics").result is Result.PASS
    assert of(report, "unmanaged-vms").result is Result.PASS
    assert "out of rotation: web-2" in of(report, "agents").message


async def test_a_nic_that_is_being_written_is_not_probed(bench: InProcessSet) -> None:
    """A NIC in provisioningState Updating is not probed, which is a warning."""
    bench.world.nic("web-2-nic")["properties"]["provisioningState"] = "Updating"
    found = of(await run_doctor(bench), "write-nics")
    assert (found.result, found.subject) == (Result.WARN, "web-2-nic")


async def test_a_condition_that_azure_ignores_is_reported(open_set: OpenSet) -> None:
    """If Azure ignores If-Match, the probe is written, reported, and changes nothing."""
    async with open_set(settings={"if_match_on_nic": False}) as bench:
        before = bench.inside("web-1")
        report = await run_doctor(bench)
        reported = [each for each in report.findings if each.check == "write-nics"]
        assert {each.result for each in reported} == {Result.WARN}
        assert bench.inside("web-1") == before


async def test_members_of_other_sets_are_reported(open_set: OpenSet) -> None:
    """Members of other sets are named, because they do not count for the floor by themselves."""
    async with open_set(foreign_vms=1) as bench:
        found = of(await run_doctor(bench), "members")
        assert found.result is Result.FAIL
        assert "other-1-nic" in found.message


async def test_a_proxy_is_not_used_for_imds(bench: InProcessSet) -> None:
    """A proxy in the environment is not used for IMDS, and the finding states that."""
    report = await run_doctor(bench, environ={"http_proxy": "http://127.0.0.1:9", "no_proxy": "*"})
    found = of(report, "imds")
    assert found.result is Result.PASS
    assert "http_proxy is for Resource Manager and storage only" in found.message


@pytest.mark.parametrize(
    ("pool_role", "pools", "ip_pools"),
    [("nic-pools", ("app", "admin"), ()), ("ip-pools", (), ("cache", "search"))],
)
async def test_every_missing_action_of_the_roles_is_reported(
    open_set: OpenSet, pool_role: str, pools: tuple[str, ...], ip_pools: tuple[str, ...]
) -> None:
    """The roles in `deploy` are sufficient for the doctor, and each missing action is reported."""
    async with open_set(pools=pools, ip_pools=ip_pools, network_group="net-rg") as bench:
        refer_to_everything(bench.world)
        assigned = as_documented(bench.world, pool_role)
        report = await run_doctor(bench)
        assert not report.failed, [each for each in report.findings if each.fix]
        missed: set[str] = set()
        for action in sorted(assigned):
            bench.world.roles.revoke("web-1", action)
            report = await run_doctor(bench)
            bench.world.roles.reinstate("web-1", action)
            reported = " ".join(
                f"{each.message} {each.fix}".casefold()
                for each in report.findings
                if each.result is Result.FAIL
            )
            blob = "/blobs/" in action and "lb-drain ledger " in reported
            if action in reported or blob:
                missed.add(action)
    assert missed == assigned
