"""Every adapter call over real sockets and TLS against the simulated Azure."""

import asyncio
import copy
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from controller import errors
from controller.azure.http import arm_action, long_running
from controller.azure.http.error_mapping import refused
from controller.azure.http.session import Azure, open_azure
from controller.azure.http.write_guard import WriteGuard
from controller.clock import SystemClock
from controller.config.schema import Settings
from controller.core.azure_names import fold, load_balancer_of
from controller.core.events import EventStatus
from controller.core.resources import (
    AddressMembership,
    Membership,
    MembershipKey,
    Nic,
    NicMembership,
    PoolKind,
    PowerState,
)
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.access import RULE_HEALTH
from controller.simulator.world.builder import build_world
from controller.simulator.world.world import World
from tests.conftest import OpenSet
from tests.support.clocks import StoppedClock
from tests.support.write_guards import OPEN_GUARD, open_guard


@dataclass
class Adapters:
    """The adapters of one agent of an in-process set, and the world they talk to."""

    world: World
    server: SimulatorServer
    azure: Azure
    observed: list[tuple[str, str, str]] = field(default_factory=list)

    def vm(self, name: str = "web-1") -> str:
        return self.world.vm(name).resource_id

    def nic_id(self, name: str = "web-1") -> str:
        return self.world.vm(name).nic_ids[0]

    def stored(self, name: str = "web-1") -> dict[str, Any]:
        """Return the NIC as the simulated Azure holds it, without what each write changes."""
        return without_etags(copy.deepcopy(self.world.nic(self.nic_id(name))))

    async def memberships(self, name: str = "web-1") -> tuple[NicMembership, ...]:
        return memberships_of(await self.azure.network.nic(self.nic_id(name)))


def memberships_of(nic: Nic) -> tuple[NicMembership, ...]:
    return tuple(
        NicMembership(
            pool_id=pool_id,
            nic_id=nic.nic_id,
            ip_configuration=configuration.name,
            position=position,
        )
        for configuration in nic.ip_configurations
        for position, pool_id in enumerate(configuration.pool_ids)
    )


def without_etags(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_etags(item) for key, item in value.items() if key != "etag"}
    if isinstance(value, list):
        return [without_etags(item) for item in value]
    return value


def settings_for(server: SimulatorServer, vm: str = "web-1", **azure: Any) -> Settings:
    return Settings.model_validate(
        {
            "backend_pools": [{"id": server.world.pool_id("app")}],
            "election": {
                "container_url": server.container_url("lb-drain"),
                "request_timeout_s": 10,
            },
            "watch": {"first_timeout_s": 30, "timeout_s": 20},
            "azure": {
                "resource_manager_endpoint": server.arm_url,
                "imds_endpoint": server.imds_url(vm),
                "ca_file": str(server.ca_file),
                "poll_fallback_s": 0.02,
            }
            | azure,
        }
    )


@pytest.fixture
async def bench(open_set: OpenSet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Adapters]:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    observed: list[tuple[str, str, str]] = []
    async with (
        open_set(pools=("app", "admin"), ip_pools=("cache",)) as opened,
        open_azure(
            settings_for(opened.server),
            opened.clock,
            os.environ,
            observer=lambda service, call, outcome, _s: observed.append((service, call, outcome)),
        ) as azure,
    ):
        yield Adapters(opened.world, opened.server, azure, observed)


# --- who we are ----------------------------------------------------------------------------------


async def test_instance_and_set_are_discovered(bench: Adapters) -> None:
    """IMDS and two ARM reads return the VM, its availability set and its peers."""
    instance = await bench.azure.imds.instance()
    assert instance.name == "web-1"
    found = await bench.azure.compute.discover(instance.vm_id)
    assert found.set_id.casefold() == bench.world.availability_set_id.casefold()
    assert {vm_id.rsplit("/", 1)[1].casefold() for vm_id in found.vm_ids} == {
        "web-1",
        "web-2",
        "web-3",
    }


async def test_members_show_nics_and_power_over_many_pages(bench: Adapters) -> None:
    """Peers are found on every page of the VM list, with ids in any case."""
    bench.world.settings.list_page_size = 1
    bench.world.set_vm_state("web-2", "deallocated")
    members = await bench.azure.compute.members(bench.world.availability_set_id.upper())
    by_name = {vm.name.casefold(): vm for vm in members}
    assert set(by_name) == {"web-1", "web-2", "web-3"}
    assert by_name["web-1"].power is PowerState.RUNNING
    assert by_name["web-2"].power is PowerState.NOT_RUNNING
    assert by_name["web-3"].nic_ids[0].casefold() == bench.nic_id("web-3").casefold()


def described(bench: Adapters, name: str) -> dict[str, Any]:
    """Return the body of a VM as a list shows it."""
    interfaces = [{"id": nic_id} for nic_id in bench.world.vm(name).nic_ids]
    return {
        "id": bench.vm(name),
        "properties": {
            "networkProfile": {"networkInterfaces": interfaces},
            "instanceView": {"statuses": [{"code": "PowerState/running"}]},
        },
    }


def answer(bench: Adapters, path: str, body: object) -> None:
    """Let Resource Manager answer so to requests with this path."""
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            path_contains=path,
            effect=Effect.REPLY,
            status=200,
            body=json.dumps(body),
        )
    )


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {}},
        {"properties": {"networkProfile": 5}},
        {"properties": {"networkProfile": {"networkInterfaces": [{"id": None}]}}},
        {"properties": None},
        {"id": 5},
    ],
    ids=str,
)
async def test_a_vm_that_cannot_be_parsed_is_set_aside(
    bench: Adapters, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """L2: a VM whose body cannot be used hides no other VM, and is reported once."""
    odd = described(bench, "web-3") | change
    answer(bench, "/virtualMachines/web-3", odd)
    page = [odd, {"id": 7}, described(bench, "web-1"), described(bench, "web-2")]
    answer(bench, "/virtualMachines", {"value": page})
    for _ in range(2):
        members = await bench.azure.compute.members(bench.world.availability_set_id)
        by_name = {vm.name.casefold(): vm for vm in members}
        assert [by_name[name].problem for name in ("web-1", "web-2")] == ["", ""]
        assert by_name["web-1"].power is PowerState.RUNNING
        assert by_name["web-3"].problem
        assert by_name["web-3"].nic_ids == ()
    reported = [record for record in caplog.records if "is set aside" in record.getMessage()]
    assert ["web-3" in record.getMessage() for record in reported] == [True]


async def test_a_vm_that_cannot_be_parsed_in_the_list_is_read_again(bench: Adapters) -> None:
    """A VM that can only be parsed when it is read by its id is used like any other."""
    odd = described(bench, "web-3") | {"properties": {}}
    page = [odd, described(bench, "web-1"), described(bench, "web-2")]
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            path_contains="/virtualMachines",
            effect=Effect.REPLY,
            status=200,
            body=json.dumps({"value": page}),
            times=1,
        )
    )
    members = await bench.azure.compute.members(bench.world.availability_set_id)
    assert [vm.problem for vm in members] == ["", "", ""]
    assert all(vm.nic_ids for vm in members)


@pytest.mark.parametrize("status", [403, 500])
async def test_a_vm_that_cannot_be_read_is_set_aside(bench: Adapters, status: int) -> None:
    """L2: a refusal for one VM that the list leaves out does not end the inventory."""
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            path_contains="/virtualMachines/web-3",
            effect=Effect.REPLY,
            status=status,
        )
    )
    page = [described(bench, "web-1"), described(bench, "web-2")]
    answer(bench, "/virtualMachines", {"value": page})
    members = await bench.azure.compute.members(bench.world.availability_set_id)
    assert [bool(vm.problem) for vm in sorted(members, key=lambda vm: vm.name)] == [
        False,
        False,
        True,
    ]


async def test_a_vm_is_gone_only_after_two_404(bench: Adapters) -> None:
    """One 404 is raised as NotFound; another one a second later means GONE."""
    compute = bench.azure.compute
    compute._clock = clock = StoppedClock()
    vm_id = bench.vm("web-3")
    assert await compute.power(vm_id) is PowerState.RUNNING
    bench.world.delete_vm("web-3")
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            await compute.power(vm_id)
    clock.move(1.5)
    assert await compute.power(vm_id) is PowerState.GONE


async def test_a_vm_outside_a_set_is_named_with_the_fix(tmp_path: Path) -> None:
    """The error for a VM without an availability set names the fix."""
    world = build_world(now=SystemClock().now().timestamp(), foreign_vms=1)
    async with (
        SimulatorServer(world, tmp_path) as server,
        open_azure(settings_for(server, "other-1"), SystemClock(), os.environ) as azure,
    ):
        with pytest.raises(errors.SetupError, match="availability set"):
            await azure.compute.discover(world.vm("other-1").resource_id)


# --- NIC-based pools -----------------------------------------------------------------------------


async def test_load_balancer_shows_kinds_and_members(bench: Adapters) -> None:
    """One read shows every pool with its kind, its members and the SKU."""
    public = await bench.azure.network.load_balancer(
        bench.world.pool_id("app").split("/backend")[0]
    )
    internal = await bench.azure.network.load_balancer(
        bench.world.pool_id("cache").split("/backend")[0]
    )
    assert public.sku == "Standard"
    assert {pool.kind for pool in public.pools} == {PoolKind.NIC}
    assert [len(pool.members) for pool in public.pools] == [3, 3]
    assert [pool.kind for pool in internal.pools] == [PoolKind.ADDRESS]
    assert all(member.address is not None for member in internal.pools[0].members)


async def test_nics_are_listed_over_many_pages(bench: Adapters) -> None:
    """The requested NICs are found on every page, and have no body."""
    bench.world.settings.list_page_size = 1
    nics = await bench.azure.network.nics_in([bench.nic_id("web-1").upper(), bench.nic_id("web-3")])
    assert {nic.nic_id for nic in nics} == {bench.nic_id("web-1"), bench.nic_id("web-3")}
    assert all(nic.body is None for nic in nics)


async def test_removal_and_restore_leave_the_nic_as_it_was(bench: Adapters) -> None:
    """After a round trip through no pool at all, only etags differ (S3 exact)."""
    before = bench.stored()
    memberships = await bench.memberships()
    assert len(memberships) == 2
    removed = await bench.azure.network.remove_from_nic(
        None, bench.nic_id().upper(), memberships, open_guard
    )
    assert memberships_of(removed) == ()
    assert not any(
        "web-1" in bench.world.rotation(bench.world.pool_id(p)) for p in ("app", "admin")
    )
    restored = await bench.azure.network.restore_to_nic(bench.nic_id(), memberships, open_guard)
    assert memberships_of(restored) == memberships
    assert bench.stored() == before


async def test_one_removal_costs_one_put_and_one_get(
    bench: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal with a known NIC is one PUT, the polls of its operation, and one GET."""
    monkeypatch.setattr(long_running, "FIRST_CHECK_S", 3600)
    nic = await bench.azure.network.nic(bench.nic_id())
    bench.observed.clear()
    before = bench.world.request_counts.copy()
    await bench.azure.network.remove_from_nic(nic, nic.nic_id, memberships_of(nic), open_guard)
    assert [call for _, call, _ in bench.observed] == ["nic_put", "nic_put_wait"]
    spent = bench.world.request_counts - before
    assert sum(count for key, count in spent.items() if "PUT" in key) == 1


async def test_an_absent_membership_is_not_written(bench: Adapters) -> None:
    """Removing what an operator removed before sends no PUT."""
    memberships = await bench.memberships()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, open_guard)
    bench.observed.clear()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, open_guard)
    assert ("network", "nic_put", "ok") not in bench.observed


async def test_concurrent_edit_is_a_conflict(bench: Adapters) -> None:
    """A NIC that changed since it was read is not overwritten."""
    nic = await bench.azure.network.nic(bench.nic_id())
    bench.world.edit_tags(bench.nic_id(), {"owner": "somebody"})
    with pytest.raises(errors.Conflict):
        await bench.azure.network.remove_from_nic(nic, nic.nic_id, memberships_of(nic), open_guard)
    assert "web-1" in bench.world.rotation(bench.world.pool_id("app"))
    assert bench.world.nic(bench.nic_id())["tags"]["owner"] == "somebody"


async def test_position_in_the_pool_list_is_restored(bench: Adapters) -> None:
    """A membership is restored at its old position, with ids in any case."""
    memberships = await bench.memberships()
    first = replace(memberships[0], pool_id=memberships[0].pool_id.upper())
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), (first,), open_guard)
    after = await bench.azure.network.restore_to_nic(bench.nic_id(), (memberships[0],), open_guard)
    assert memberships_of(after) == memberships


async def test_a_restore_skips_an_unknown_ip_configuration(bench: Adapters) -> None:
    """The guard receives a membership without ipConfiguration, and the others are restored."""
    memberships = await bench.memberships()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, open_guard)
    gone = replace(memberships[0], ip_configuration="old")
    spared: list[tuple[Membership, ...]] = []

    def guard(skipped: tuple[Membership, ...]) -> WriteGuard:
        spared.append(skipped)
        return OPEN_GUARD

    write = await bench.azure.network.restore_to_nic(bench.nic_id(), (gone, memberships[1]), guard)
    assert spared == [(gone,)]
    assert [item.pool_id for item in memberships_of(write)] == [memberships[1].pool_id]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("canceled", errors.Conflict),
        ("failed", errors.ServiceFault),
        ("no_effect", errors.ServiceFault),
    ],
)
async def test_operations_that_fail(
    bench: Adapters, outcome: Any, expected: type[Exception]
) -> None:
    """Failed, canceled and ineffective operations differ, although all have status 200."""
    bench.world.writes.plan(bench.nic_id(), outcome, 0.05)
    with pytest.raises(expected):
        await bench.azure.network.remove_from_nic(
            None, bench.nic_id(), await bench.memberships(), open_guard
        )


async def test_a_failed_nic_is_written_again(bench: Adapters) -> None:
    """A NIC in provisioningState Failed is written, although its body is already right."""
    bench.world.settings.failed_write_keeps_body = True
    network, nic_id, memberships = bench.azure.network, bench.nic_id(), await bench.memberships()
    for change in (
        lambda: network.remove_from_nic(None, nic_id, memberships, open_guard),
        lambda: network.restore_to_nic(nic_id, memberships, open_guard),
    ):
        standing = set(bench.world.members(memberships[0].pool_id))
        bench.world.writes.plan(nic_id, "failed", 0.02)
        with pytest.raises(errors.ServiceFault):
            await change()
        assert (await network.nic(nic_id)).failed
        assert set(bench.world.members(memberships[0].pool_id)) == standing
        assert not (await change()).failed
        assert set(bench.world.members(memberships[0].pool_id)) != standing


async def test_a_nic_that_stays_updating_is_written_again(bench: Adapters) -> None:
    """A NIC in Updating whose body is already right is written to repair it, and only then."""
    bench.world.settings.nic_put_conflict = "supersede"
    network, nic_id, memberships = bench.azure.network, bench.nic_id(), await bench.memberships()
    for change in (
        lambda **how: network.remove_from_nic(None, nic_id, memberships, open_guard, **how),
        lambda **how: network.restore_to_nic(nic_id, memberships, open_guard, **how),
    ):
        await change()
        bench.world.writes.stick(nic_id)
        written = len(bench.world.changes("write"))
        for repairs, writes in ((False, 0), (True, 1), (True, 1)):
            nic = await change(repairs=repairs)
            assert (nic.updating, len(bench.world.changes("write"))) == (
                not repairs,
                written + writes,
            )


async def test_a_failed_pool_is_written_again(bench: Adapters) -> None:
    """A pool in provisioningState Failed is written, although its body is already right."""
    bench.world.settings.failed_write_keeps_body = True
    network, pool_id = bench.azure.network, bench.world.pool_id("cache")
    address = (await network.pool(pool_id)).members[0].address
    assert address is not None
    for change in (
        lambda: network.remove_from_pool(pool_id, (address,), open_guard),
        lambda: network.restore_to_pool(pool_id, (address,), open_guard),
    ):
        standing = set(bench.world.members(pool_id))
        bench.world.writes.plan(pool_id, "failed", 0.02)
        with pytest.raises(errors.ServiceFault):
            await change()
        assert (await network.pool(pool_id)).failed
        assert set(bench.world.members(pool_id)) == standing
        assert not (await change()).failed
        assert set(bench.world.members(pool_id)) != standing


@pytest.mark.parametrize("status", [409, 412, 429])
async def test_a_refused_write_differs_from_an_accepted_one(bench: Adapters, status: int) -> None:
    """S3: a refused PUT has no effect; an accepted PUT that fails later may have one."""

    async def failure() -> errors.ControllerError:
        with pytest.raises(errors.ControllerError) as caught:
            await bench.azure.network.remove_from_nic(
                None, bench.nic_id(), await bench.memberships(), open_guard
            )
        return caught.value

    put = Fault(service=Service.ARM, method="PUT", effect=Effect.REPLY, status=status, times=1)
    bench.server.faults.add(put)
    assert refused(await failure())
    bench.world.writes.plan(bench.nic_id(), "failed", 0.05)
    assert not refused(await failure())
    bench.server.faults.add(replace(put, method="GET", path_contains="/operations/"))
    assert not refused(await failure())


@pytest.mark.parametrize("status", [429, 409])
async def test_a_busy_nic_has_a_wait(bench: Adapters, status: Any) -> None:
    """A NIC refused because of another operation is Busy, with the seconds from the text."""
    bench.world.settings.conflict_mode = "serial"
    bench.world.settings.busy_status = status
    bench.world.settings.operation_latency_s = 3600
    first = asyncio.create_task(
        bench.azure.network.remove_from_nic(
            None, bench.nic_id("web-2"), await bench.memberships("web-2"), open_guard
        )
    )
    await bench.server.wait_until(lambda: bool(bench.world.writes.in_flight))
    with pytest.raises(errors.Busy) as caught:
        await bench.azure.network.remove_from_nic(
            None, bench.nic_id(), await bench.memberships(), open_guard
        )
    assert caught.value.retry_after_s is not None
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_refused_read_is_not_sent_again_by_a_write(bench: Adapters) -> None:
    """H1: a write of a pool starts from a read, which Azure may have asked another to delay."""
    network, pool_id = bench.azure.network, bench.world.pool_id("cache")
    address = (await network.pool(pool_id)).members[0].address
    assert address is not None
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            effect=Effect.REPLY,
            method="GET",
            status=429,
            headers=(("retry-after", "3000"),),
            times=1,
        )
    )
    with pytest.raises(errors.Throttled, match="429"):
        await network.pool(pool_id)
    arrived: list[str] = []
    bench.server.observers.append(lambda request, _reply: arrived.append(request.path))
    with pytest.raises(errors.Throttled, match="GET cache is not sent"):
        await network.remove_from_pool(pool_id, (address,), open_guard)
    assert arrived == []
    await network.nic(bench.nic_id())


async def test_missing_permission_names_action_and_scope(bench: Adapters) -> None:
    """A refusal names the missing action and its resource."""
    memberships = await bench.memberships()
    bench.world.roles.revoke("web-1", "Microsoft.Network/networkInterfaces/write")
    with pytest.raises(errors.Denied, match=r"networkInterfaces/write on .*/web-1"):
        await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, open_guard)


async def test_missing_linked_permission_names_action_and_scope(bench: Adapters) -> None:
    """A refusal over a resource that the NIC refers to names that resource."""
    memberships = await bench.memberships()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, open_guard)
    join = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
    bench.world.roles.revoke("web-1", join)
    with pytest.raises(errors.Denied, match=f"{join} on .*/backendAddressPools/"):
        await bench.azure.network.restore_to_nic(bench.nic_id(), memberships, open_guard)


async def test_the_guard_stops_a_write_right_before_it_is_sent(bench: Adapters) -> None:
    """The guard is checked once, after the token, and nothing is written if it raises (S4)."""
    memberships = await bench.memberships()
    asked: list[str] = []

    def closed() -> None:
        asked.append("asked")
        raise errors.LeaseLost("expired")

    guard = WriteGuard(check=closed, sent=lambda: asked.append("sent"))
    before = bench.stored()
    with pytest.raises(errors.LeaseLost):
        await bench.azure.network.remove_from_nic(
            None, bench.nic_id(), memberships, lambda _skipped: guard
        )
    assert asked == ["asked"]
    assert bench.stored() == before
    assert ("network", "nic_put", "lease_lost") in bench.observed


async def test_the_guard_stops_a_ledger_write_right_before_it_is_sent(bench: Adapters) -> None:
    """S4: opening a connection can take longer than the lease has left."""
    blob, mine = bench.azure.state_blob("web.json"), str(uuid.uuid4())
    await blob.create()
    await blob.acquire(mine, 15)
    before = await blob.read()
    asked: list[str] = []

    def closed() -> None:
        asked.append("asked")
        raise errors.LeaseLost("expired")

    with pytest.raises(errors.LeaseLost, match="expired"):
        await blob.write(b"{}", before.etag, mine, WriteGuard(check=closed))
    assert asked == ["asked"]
    assert await blob.read() == before


async def test_the_guard_stops_an_acknowledgement_right_before_it_is_sent(bench: Adapters) -> None:
    """S4: an agent that has lost the lease acknowledges no event."""
    event_id = bench.world.events.schedule("Reboot", "web-1").event_id

    def closed() -> None:
        raise errors.LeaseLost("expired")

    with pytest.raises(errors.LeaseLost, match="expired"):
        await bench.azure.imds.acknowledge([event_id], WriteGuard(check=closed))
    assert (await bench.azure.imds.poll()).document.events[0].status == EventStatus.SCHEDULED


async def test_a_write_is_sent_once_when_its_connection_breaks(bench: Adapters) -> None:
    """The HTTP client does not repeat a PUT without a reply: its outcome is unknown."""
    memberships = await bench.memberships()
    bench.server.faults.add(
        Fault(service=Service.ARM, method="PUT", effect=Effect.RESET_AFTER, times=1)
    )
    passed: list[str] = []
    guard = WriteGuard(
        check=lambda: passed.append("checked"), sent=lambda: passed.append("recorded")
    )
    with pytest.raises(errors.OutcomeUnknown):
        await bench.azure.network.remove_from_nic(
            None, bench.nic_id(), memberships, lambda _skipped: guard
        )
    assert passed == ["checked", "recorded"]
    assert await bench.memberships() == ()


async def test_a_failed_poll_is_not_the_end_of_the_write(bench: Adapters) -> None:
    """If an accepted write cannot be followed, its outcome is unknown."""
    memberships = await bench.memberships()
    bench.server.faults.add(
        Fault(service=Service.ARM, path_contains="/operations/", effect=Effect.REPLY, status=503)
    )
    with pytest.raises(errors.OutcomeUnknown, match="503"):
        await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, open_guard)


@pytest.mark.parametrize(
    "body", ["", "[]", "null", '"x"', '{"id": 5}', '{"id":"/x","properties":[]}']
)
async def test_bodies_that_break_the_shape_are_violations(bench: Adapters, body: str) -> None:
    """A reply with status 200 that is not a NIC is a contract violation."""
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            path_contains="networkInterfaces",
            effect=Effect.REPLY,
            status=200,
            body=body,
            headers=(("content-type", "application/json"),),
        )
    )
    with pytest.raises(errors.ContractViolation):
        await bench.azure.network.nic(bench.nic_id())
    with pytest.raises(errors.ContractViolation):
        await bench.azure.network.nics_in([bench.nic_id()])


async def test_without_an_etag_nothing_is_written(bench: Adapters) -> None:
    """A write that cannot have a condition is not sent."""
    memberships = await bench.memberships()
    body = {key: value for key, value in bench.world.nic(bench.nic_id()).items() if key != "etag"}
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            method="GET",
            path_contains="networkInterfaces",
            effect=Effect.REPLY,
            status=200,
            body=json.dumps(body),
        )
    )
    with pytest.raises(errors.ContractViolation, match="etag"):
        await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, open_guard)
    assert not [call for _, call, _ in bench.observed if call == "nic_put"]


async def test_links_to_another_host_are_not_followed(bench: Adapters) -> None:
    """A nextLink to another host does not get the token."""
    port = bench.server.arm_url.rsplit(":", 1)[1]
    elsewhere = {"value": [], "nextLink": f"https://elsewhere.invalid:{port}/next"}
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            path_contains="networkInterfaces",
            effect=Effect.REPLY,
            status=200,
            body=json.dumps(elsewhere),
        )
    )
    with pytest.raises(errors.ContractViolation, match="elsewhere"):
        await bench.azure.network.nics_in([bench.nic_id()])


# --- the health of rules -------------------------------------------------------------------------


@pytest.fixture
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for results often."""
    monkeypatch.setattr(arm_action, "POLL_S", 0.5)


async def health_of(bench: Adapters, *pools: str) -> dict[str, frozenset[MembershipKey]]:
    """Return the members that the rules report as down, by the name of the pool."""
    pool_ids = [bench.world.pool_id(name) for name in pools]
    load_balancer = await bench.azure.network.load_balancer(load_balancer_of(pool_ids[0]))
    found = await bench.azure.network.rule_health.of_pools(load_balancer.rules, pool_ids)
    return {each.pool_id.rsplit("/", 1)[-1]: each.down for each in found}


@pytest.mark.usefixtures("quick_polls")
async def test_the_health_of_a_rule_shows_who_fails_the_probe(bench: Adapters) -> None:
    """Members that fail the probe are named as the pool names them, for both kinds of pools."""
    scope = f"/subscriptions/{bench.world.subscription}"
    bench.world.roles.assign("web-1", RULE_HEALTH, scope)
    bench.world.failing_probes.add("web-2")
    nic = await bench.azure.network.nic(bench.nic_id("web-2"))
    keys = {m.key for m in memberships_of(nic)}
    found = await health_of(bench, "app", "admin")
    assert {key for down in found.values() for key in down if key[1] != "address"} == keys
    ip = nic.ip_configurations[0].private_ip
    pool_id = fold(bench.world.pool_id("cache"))
    assert await health_of(bench, "cache") == {"cache": {(pool_id, "address", ip)}}
    assert ("network", "rule_health", "ok") in bench.observed


async def test_a_role_that_does_not_read_health_is_no_failure(bench: Adapters) -> None:
    """Without the permission the read is denied; metrics do not count that."""
    with pytest.raises(errors.Denied, match="health/action"):
        await health_of(bench, "app")
    assert not [call for _, call, _ in bench.observed if call == "rule_health"]


@pytest.mark.usefixtures("quick_polls")
@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ((), "202 without Location"),
        ((("Location", "https://elsewhere.invalid/result"),), "elsewhere"),
    ],
)
async def test_a_result_elsewhere_is_not_followed(
    bench: Adapters, headers: tuple[tuple[str, str], ...], problem: str
) -> None:
    """The token is sent only to Resource Manager."""
    bench.server.faults.add(
        Fault(
            service=Service.ARM,
            path_contains="/health",
            effect=Effect.REPLY,
            status=202,
            headers=headers,
            body="",
        )
    )
    with pytest.raises(errors.ContractViolation, match=problem):
        await health_of(bench, "app")


# --- IP-based pools ------------------------------------------------------------------------------


async def test_address_round_trip(bench: Adapters) -> None:
    """An address is removed and restored as the same entry; the other entries stay."""
    pool_id = bench.world.pool_id("cache")
    before = await bench.azure.network.pool(pool_id)
    target = before.members[1].address
    assert isinstance(target, AddressMembership)
    removed = await bench.azure.network.remove_from_pool(pool_id, (target,), open_guard)
    assert len(removed.members) == len(before.members) - 1
    restored = await bench.azure.network.restore_to_pool(pool_id, (target,), open_guard)
    assert addresses(restored) == addresses(before)


def addresses(pool: Any) -> set[tuple[str, str]]:
    return {(m.address.name, m.address.ip_address) for m in pool.members}


async def test_a_pool_write_without_effect_is_a_fault(bench: Adapters) -> None:
    """A reported success without effect is detected by comparing the whole list."""
    pool_id = bench.world.pool_id("cache")
    target = (await bench.azure.network.pool(pool_id)).members[0].address
    assert target is not None
    bench.world.writes.plan(pool_id, "no_effect", 0.02)
    with pytest.raises(errors.ServiceFault, match="1 unexpected"):
        await bench.azure.network.remove_from_pool(pool_id, (target,), open_guard)


async def test_a_nic_based_pool_is_never_written(bench: Adapters) -> None:
    """Addresses are not written to a pool that holds NICs."""
    pool_id = bench.world.pool_id("app")
    address = AddressMembership(pool_id=pool_id, name="a", ip_address="10.0.0.4", body="{}")
    with pytest.raises(errors.Conflict):
        await bench.azure.network.remove_from_pool(pool_id, (address,), open_guard)


async def test_missing_resources_are_not_found(bench: Adapters) -> None:
    """404 is NotFound for NIC, load balancer and pool."""
    network = bench.azure.network
    with pytest.raises(errors.NotFound):
        await network.nic(bench.nic_id() + "x")
    with pytest.raises(errors.NotFound):
        await network.pool(bench.world.pool_id("app") + "x")


# --- scheduled events ----------------------------------------------------------------------------


async def test_event_is_seen_and_acknowledged(bench: Adapters) -> None:
    """An event is polled with all its fields, acknowledged twice without harm, and starts."""
    event_id = bench.world.events.schedule("Reboot", "web-1").event_id
    poll = await bench.azure.imds.poll()
    (event,) = poll.document.events
    assert (event.event_id, event.status) == (event_id, EventStatus.SCHEDULED)
    assert event.not_before is not None
    assert poll.date is not None
    await bench.azure.imds.acknowledge([event_id], OPEN_GUARD)
    await bench.azure.imds.acknowledge([event_id], OPEN_GUARD)
    with pytest.raises(errors.Conflict):
        await bench.azure.imds.acknowledge([str(uuid.uuid4())], OPEN_GUARD)


@pytest.mark.parametrize("effect", [Effect.EMPTY_200, Effect.GARBAGE, Effect.OVERSIZED])
async def test_a_reply_without_an_event_document_is_a_failed_poll(
    bench: Adapters, effect: Effect
) -> None:
    """Empty, unreadable and endless replies fail the poll, and the next good one succeeds (S6)."""
    bench.server.faults.add(Fault(service=Service.IMDS, effect=effect, times=1))
    with pytest.raises(errors.ContractViolation):
        await bench.azure.imds.poll()
    assert (await bench.azure.imds.poll()).document.events == ()


# --- the ledger blob -----------------------------------------------------------------------------


async def test_lease_and_ledger(bench: Adapters) -> None:
    """A leader creates the blob, acquires the lease, writes, renews, and releases."""
    blob, rival = bench.azure.state_blob("web.json"), bench.azure.state_blob("web.json")
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())
    with pytest.raises(errors.NotFound):
        await blob.read()
    await blob.create()
    await blob.create()
    assert (await blob.read_properties()).lease_state == "available"
    await blob.acquire(mine, 15)
    await blob.acquire(mine, 15)
    await blob.create()
    with pytest.raises(errors.LeaseHeld):
        await rival.acquire(other, 15)
    empty = await blob.read()
    assert (empty.body, empty.lease_state, empty.lease_status) == (b"", "leased", "locked")
    etag = await blob.write(b"{}", empty.etag, mine, OPEN_GUARD)
    with pytest.raises(errors.Conflict):
        await blob.write(b"[]", empty.etag, mine, OPEN_GUARD)
    with pytest.raises(errors.LeaseLost):
        await rival.write(b"[]", etag, other, OPEN_GUARD)
    assert await rival.read() == replace(empty, body=b"{}", etag=etag)
    assert await blob.renew(mine) == etag
    with pytest.raises(errors.LeaseLost):
        await rival.renew(other)
    await blob.release(mine)
    with pytest.raises(errors.LeaseLost):
        await blob.renew(mine)
    await rival.acquire(other, 15)


async def test_a_blob_is_read_again_only_when_it_has_changed(bench: Adapters) -> None:
    """A conditional read of an unchanged blob is an answer, and no failure."""
    blob, mine = bench.azure.state_blob("web.json"), str(uuid.uuid4())
    await blob.create()
    await blob.acquire(mine, 15)
    empty = await blob.read_if_changed("")
    assert empty is not None
    assert await blob.read_if_changed(empty.etag) is None
    etag = await blob.write(b"{}", empty.etag, mine, OPEN_GUARD)
    changed = await blob.read_if_changed(empty.etag)
    assert changed is not None
    assert (changed.body, changed.etag) == (b"{}", etag)
    assert await blob.read_if_changed(etag) is None


async def test_a_connection_string_replaces_the_identity(bench: Adapters) -> None:
    """An emulator's connection string works alone, and must be for the configured account."""
    bench.server.faults.add(
        Fault(service=Service.IMDS, path_contains="identity", effect=Effect.REPLY, status=500)
    )
    key = "AccountName=lbdrainsim;AccountKey=a2V5;DefaultEndpointsProtocol=https"
    environ = {"AZURE_STORAGE_CONNECTION_STRING": f"{key};BlobEndpoint={bench.server.blob_url};"}
    settings = settings_for(bench.server)
    async with open_azure(settings, SystemClock(), environ) as azure:
        await azure.state_blob("web.json").create()
        assert (await azure.state_blob("web.json").read()).body == b""
    environ["AZURE_STORAGE_CONNECTION_STRING"] = f"{key};BlobEndpoint=https://127.0.0.1:9/other;"
    async with open_azure(settings, SystemClock(), environ) as azure:
        with pytest.raises(errors.ConfigError, match="container_url"):
            azure.state_blob("web.json")


async def test_missing_container_names_the_command(bench: Adapters) -> None:
    """The error for a missing container names the command that creates it."""
    bench.world.blobs.containers.clear()
    with pytest.raises(errors.SetupError, match="az storage container create"):
        await bench.azure.state_blob("web.json").create()


async def test_a_hanging_storage_ends_at_the_deadline(bench: Adapters) -> None:
    """A renewal without a reply ends at its own deadline."""
    blob = bench.azure.state_blob("web.json")
    await blob.create()
    blob._timeout_s = 0.2
    bench.server.faults.add(Fault(service=Service.BLOB, effect=Effect.HANG))
    with pytest.raises(errors.OutcomeUnknown):
        await blob.renew(str(uuid.uuid4()))


# --- identity ------------------------------------------------------------------------------------


async def test_an_unavailable_identity_service_means_not_sent(bench: Adapters) -> None:
    """Without a token no request is sent."""
    bench.server.faults.add(
        Fault(service=Service.IMDS, path_contains="identity", effect=Effect.REPLY, status=410)
    )
    with pytest.raises(errors.NotSent):
        await bench.azure.network.nic(bench.nic_id())


async def test_no_identity_is_denied(bench: Adapters) -> None:
    """The error for a VM without a managed identity names the cause."""
    bench.server.faults.add(
        Fault(
            service=Service.IMDS,
            path_contains="identity",
            effect=Effect.REPLY,
            status=400,
            body='{"error":"invalid_request","error_description":"Identity not found"}',
        )
    )
    with pytest.raises(errors.Denied, match="managed identity"):
        await bench.azure.network.nic(bench.nic_id())


async def test_an_unreachable_service_means_not_sent(bench: Adapters, tmp_path: Path) -> None:
    """A refused connection differs from a lost reply."""
    settings = settings_for(bench.server, resource_manager_endpoint="https://127.0.0.1:9")
    async with open_azure(settings, SystemClock(), os.environ) as azure:
        with pytest.raises(errors.NotSent):
            await azure.network.nic(bench.nic_id())


async def test_an_untrusted_certificate_means_not_sent(bench: Adapters) -> None:
    """Without the private CA nothing is sent."""
    async with open_azure(
        settings_for(bench.server, ca_file=""), SystemClock(), os.environ
    ) as azure:
        with pytest.raises(errors.NotSent):
            await azure.compute.discover(bench.vm())


async def test_identity_overrides_are_removed(
    bench: Adapters, caplog: pytest.LogCaptureFixture
) -> None:
    """Variables that send token requests elsewhere are removed, each with one warning."""
    environ = {"MSI_ENDPOINT": "http://127.0.0.1:9/", "AZURE_CLIENT_ID": "kept"}
    async with open_azure(settings_for(bench.server), SystemClock(), environ):
        pass
    assert "MSI_ENDPOINT" not in environ
    assert environ["AZURE_CLIENT_ID"] == "kept"
    assert [record for record in caplog.records if "MSI_ENDPOINT" in record.getMessage()]


def test_a_standby_does_not_load_the_management_sdks() -> None:
    """Importing the adapters loads none of the models that only a leader needs."""
    program = (
        "import sys, controller.azure.http.session\n"
        "sys.exit('azure.mgmt.network' in sys.modules or 'azure.mgmt.compute' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", program], check=False)
    assert finished.returncode == 0
