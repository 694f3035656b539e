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
from controller.azure.failures import refused
from controller.azure.session import Azure, open_azure
from controller.clock import SystemClock
from controller.config import Settings
from controller.core.model import (
    AddressMembership,
    EventStatus,
    Membership,
    Nic,
    NicMembership,
    PoolKind,
    PowerState,
)
from controller.simulator.faults import Effect, Fault
from controller.simulator.server import SimulatorServer
from controller.simulator.settings import WorldSettings
from controller.simulator.wire import Service
from controller.simulator.world import World, build_world


def no_fence(_spared: tuple[Membership, ...] = ()) -> None:
    """Let every write pass."""


@dataclass
class Bench:
    """One agent's adapters and the world they talk to."""

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
            "election": {"container_url": server.container_url("lb-drain"), "request_timeout_s": 3},
            "watch": {"first_timeout_s": 5, "timeout_s": 2},
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
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    clock = SystemClock()
    world = build_world(
        now=clock.now().timestamp(),
        pools=("app", "admin"),
        ip_pools=("cache",),
        settings=WorldSettings(
            operation_latency_s=0.1, pool_operation_latency_s=0.1, imds_limit=False
        ),
    )
    observed: list[tuple[str, str, str]] = []
    async with (
        SimulatorServer(world, tmp_path / "pki") as server,
        open_azure(
            settings_for(server),
            clock,
            os.environ,
            observer=lambda service, call, outcome, _s: observed.append((service, call, outcome)),
        ) as azure,
    ):
        yield Bench(world, server, azure, observed)


# --- who we are ----------------------------------------------------------------------------------


async def test_instance_and_set_are_discovered(bench: Bench) -> None:
    """The metadata service and two ARM reads tell the VM, its set and its peers."""
    instance = await bench.azure.imds.instance()
    assert instance.name == "web-1"
    found = await bench.azure.compute.discover(instance.vm_id)
    assert found.availability_set_id.casefold() == bench.world.availability_set_id.casefold()
    assert {vm_id.rsplit("/", 1)[1].casefold() for vm_id in found.vm_ids} == {
        "web-1",
        "web-2",
        "web-3",
    }


async def test_members_show_nics_and_power_over_many_pages(bench: Bench) -> None:
    """Peers are found on every page of the VM list, whatever case their ids come in."""
    bench.world.settings.list_page_size = 1
    bench.world.set_vm_state("web-2", "deallocated")
    members = await bench.azure.compute.members(bench.world.availability_set_id.upper())
    by_name = {vm.name.casefold(): vm for vm in members}
    assert set(by_name) == {"web-1", "web-2", "web-3"}
    assert by_name["web-1"].power is PowerState.RUNNING
    assert by_name["web-2"].power is PowerState.NOT_RUNNING
    assert by_name["web-3"].nic_ids[0].casefold() == bench.nic_id("web-3").casefold()


async def test_a_vm_is_gone_only_after_two_404(bench: Bench) -> None:
    """One 404 is raised as NotFound; one that still stands a second later means GONE."""

    class Stepping(SystemClock):
        offset = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + Stepping.offset

    compute = bench.azure.compute
    compute._clock = Stepping()  # time is the test's
    vm_id = bench.vm("web-3")
    assert await compute.power(vm_id) is PowerState.RUNNING
    bench.world.delete_vm("web-3")
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            await compute.power(vm_id)
    Stepping.offset = 1.5
    assert await compute.power(vm_id) is PowerState.GONE


async def test_a_vm_outside_a_set_is_a_configuration_error(tmp_path: Path) -> None:
    """A VM without an availability set is told so, with what to do."""
    world = build_world(now=SystemClock().now().timestamp(), foreign_vms=1)
    async with (
        SimulatorServer(world, tmp_path) as server,
        open_azure(settings_for(server, "other-1"), SystemClock(), os.environ) as azure,
    ):
        with pytest.raises(errors.ConfigError, match="availability set"):
            await azure.compute.discover(world.vm("other-1").resource_id)


# --- NIC-based pools -----------------------------------------------------------------------------


async def test_load_balancer_shows_kinds_and_members(bench: Bench) -> None:
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


async def test_nics_are_listed_over_many_pages(bench: Bench) -> None:
    """The NICs asked for are found on every page, and come without body."""
    bench.world.settings.list_page_size = 1
    nics = await bench.azure.network.nics_in([bench.nic_id("web-1").upper(), bench.nic_id("web-3")])
    assert {nic.nic_id for nic in nics} == {bench.nic_id("web-1"), bench.nic_id("web-3")}
    assert all(nic.body is None for nic in nics)


async def test_removal_and_restore_leave_the_nic_as_it_was(bench: Bench) -> None:
    """After a round trip through no pool at all, only etags differ (S3 exact)."""
    before = bench.stored()
    memberships = await bench.memberships()
    assert len(memberships) == 2
    removed = await bench.azure.network.remove_from_nic(
        None, bench.nic_id().upper(), memberships, no_fence
    )
    assert memberships_of(removed) == ()
    assert not any(
        "web-1" in bench.world.rotation(bench.world.pool_id(p)) for p in ("app", "admin")
    )
    restored = await bench.azure.network.restore_to_nic(bench.nic_id(), memberships, no_fence)
    assert memberships_of(restored) == memberships
    assert bench.stored() == before


async def test_one_removal_costs_one_put_and_one_get(bench: Bench) -> None:
    """With the NIC at hand a removal is one PUT, the polls of its operation, and one GET."""
    nic = await bench.azure.network.nic(bench.nic_id())
    bench.observed.clear()
    before = bench.world.request_counts.copy()
    await bench.azure.network.remove_from_nic(nic, nic.nic_id, memberships_of(nic), no_fence)
    assert [call for _, call, _ in bench.observed] == ["nic_put", "nic_put_wait"]
    spent = bench.world.request_counts - before
    assert sum(count for key, count in spent.items() if "PUT" in key) == 1


async def test_what_is_not_there_is_not_written(bench: Bench) -> None:
    """Removing what an operator removed before sends no PUT."""
    memberships = await bench.memberships()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, no_fence)
    bench.observed.clear()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, no_fence)
    assert ("network", "nic_put", "ok") not in bench.observed


async def test_concurrent_edit_is_a_conflict(bench: Bench) -> None:
    """A NIC that changed since it was read is not overwritten."""
    nic = await bench.azure.network.nic(bench.nic_id())
    bench.world.edit_tags(bench.nic_id(), {"owner": "somebody"})
    with pytest.raises(errors.Conflict):
        await bench.azure.network.remove_from_nic(nic, nic.nic_id, memberships_of(nic), no_fence)
    assert "web-1" in bench.world.rotation(bench.world.pool_id("app"))
    assert bench.world.nic(bench.nic_id())["tags"]["owner"] == "somebody"


async def test_position_in_the_pool_list_is_restored(bench: Bench) -> None:
    """A membership comes back at the position it was taken from, ids in any case."""
    memberships = await bench.memberships()
    first = replace(memberships[0], pool_id=memberships[0].pool_id.upper())
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), (first,), no_fence)
    after = await bench.azure.network.restore_to_nic(bench.nic_id(), (memberships[0],), no_fence)
    assert memberships_of(after) == memberships


async def test_unknown_ip_configuration_is_spared_by_a_restore(bench: Bench) -> None:
    """A membership whose ipConfiguration is gone is told to the fence, the others are restored."""
    memberships = await bench.memberships()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, no_fence)
    gone = replace(memberships[0], ip_configuration="old")
    spared: list[tuple[Membership, ...]] = []
    write = await bench.azure.network.restore_to_nic(
        bench.nic_id(), (gone, memberships[1]), spared.append
    )
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
async def test_operations_that_end_badly(
    bench: Bench, outcome: Any, expected: type[Exception]
) -> None:
    """Failed, canceled and ineffective operations are told apart although all answer 200."""
    bench.world.plan_outcome(bench.nic_id(), outcome, 0.05)
    with pytest.raises(expected):
        await bench.azure.network.remove_from_nic(
            None, bench.nic_id(), await bench.memberships(), no_fence
        )


async def test_a_nic_in_doubt_is_written_again(bench: Bench) -> None:
    """A NIC in state Failed is written although its body says that it need not be."""
    bench.world.settings.failed_write_keeps_body = True
    network, nic_id, memberships = bench.azure.network, bench.nic_id(), await bench.memberships()
    for change in (
        lambda: network.remove_from_nic(None, nic_id, memberships, no_fence),
        lambda: network.restore_to_nic(nic_id, memberships, no_fence),
    ):
        standing = set(bench.world.members(memberships[0].pool_id))
        bench.world.plan_outcome(nic_id, "failed", 0.02)
        with pytest.raises(errors.ServiceFault):
            await change()
        assert (await network.nic(nic_id)).failed
        assert set(bench.world.members(memberships[0].pool_id)) == standing
        assert not (await change()).failed
        assert set(bench.world.members(memberships[0].pool_id)) != standing


async def test_a_pool_in_doubt_is_written_again(bench: Bench) -> None:
    """A pool in state Failed is written although its body says that it need not be."""
    bench.world.settings.failed_write_keeps_body = True
    network, pool_id = bench.azure.network, bench.world.pool_id("cache")
    address = (await network.pool(pool_id)).members[0].address
    assert address is not None
    for change in (
        lambda: network.remove_from_pool(pool_id, (address,), no_fence),
        lambda: network.restore_to_pool(pool_id, (address,), no_fence),
    ):
        standing = set(bench.world.members(pool_id))
        bench.world.plan_outcome(pool_id, "failed", 0.02)
        with pytest.raises(errors.ServiceFault):
            await change()
        assert (await network.pool(pool_id)).failed
        assert set(bench.world.members(pool_id)) == standing
        assert not (await change()).failed
        assert set(bench.world.members(pool_id)) != standing


@pytest.mark.parametrize("status", [409, 412, 429])
async def test_a_refused_write_is_told_from_an_accepted_one(bench: Bench, status: int) -> None:
    """S3: a PUT that was refused did nothing; one that failed later, or was lost sight of, may."""

    async def failure() -> errors.ControllerError:
        with pytest.raises(errors.ControllerError) as caught:
            await bench.azure.network.remove_from_nic(
                None, bench.nic_id(), await bench.memberships(), no_fence
            )
        return caught.value

    put = Fault(service=Service.ARM, method="PUT", effect=Effect.REPLY, status=status, times=1)
    bench.server.faults.add(put)
    assert refused(await failure())
    bench.world.plan_outcome(bench.nic_id(), "failed", 0.05)
    assert not refused(await failure())
    bench.server.faults.add(replace(put, method="GET", path_contains="/operations/"))
    assert not refused(await failure())


@pytest.mark.parametrize("status", [429, 409])
async def test_busy_nic_tells_how_long(bench: Bench, status: Any) -> None:
    """A NIC refused because of another operation is Busy, with the seconds from the text."""
    bench.world.settings.conflict_mode = "serial"
    bench.world.settings.busy_status = status
    bench.world.settings.operation_latency_s = 5
    first = asyncio.create_task(
        bench.azure.network.remove_from_nic(
            None, bench.nic_id("web-2"), await bench.memberships("web-2"), no_fence
        )
    )
    await bench.server.wait_until(lambda: bool(bench.world.in_flight))
    with pytest.raises(errors.Busy) as caught:
        await bench.azure.network.remove_from_nic(
            None, bench.nic_id(), await bench.memberships(), no_fence
        )
    assert caught.value.retry_after_s is not None
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_missing_permission_names_action_and_scope(bench: Bench) -> None:
    """A refusal says which action on which resource to grant."""
    memberships = await bench.memberships()
    bench.world.roles.revoke("web-1", "Microsoft.Network/networkInterfaces/write")
    with pytest.raises(errors.Denied, match=r"networkInterfaces/write on .*/web-1"):
        await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, no_fence)


async def test_missing_linked_permission_names_action_and_scope(bench: Bench) -> None:
    """A refusal over a resource that the NIC refers to names that resource."""
    memberships = await bench.memberships()
    await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, no_fence)
    join = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
    bench.world.roles.revoke("web-1", join)
    with pytest.raises(errors.Denied, match=f"{join} on .*/backendAddressPools/"):
        await bench.azure.network.restore_to_nic(bench.nic_id(), memberships, no_fence)


async def test_fence_stops_the_write_at_the_last_moment(bench: Bench) -> None:
    """The fence is asked after the token, once, and its refusal leaves Azure untouched (S4)."""
    memberships = await bench.memberships()
    asked: list[str] = []

    def closed(_spared: tuple[Membership, ...]) -> None:
        asked.append("asked")
        raise errors.LeaseLost("expired")

    before = bench.stored()
    with pytest.raises(errors.LeaseLost):
        await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, closed)
    assert asked == ["asked"]
    assert bench.stored() == before
    assert ("network", "nic_put", "lease_lost") in bench.observed


async def test_fence_stops_the_ledger_at_the_last_moment(bench: Bench) -> None:
    """S4: a connection can take longer to open than the lease has left."""
    blob, mine = bench.azure.ledger("web.json"), str(uuid.uuid4())
    await blob.create()
    await blob.acquire(mine, 15)
    before = await blob.read()
    asked: list[str] = []

    def closed() -> None:
        asked.append("asked")
        raise errors.LeaseLost("expired")

    with pytest.raises(errors.LeaseLost, match="expired"):
        await blob.write(b"{}", before.etag, mine, closed)
    assert asked == ["asked"]
    assert await blob.read() == before


async def test_fence_stops_the_acknowledgement_at_the_last_moment(bench: Bench) -> None:
    """S4: whoever lost the lease meanwhile lets no event start."""
    event_id = bench.world.schedule_event("Reboot", "web-1").event_id

    def closed() -> None:
        raise errors.LeaseLost("expired")

    with pytest.raises(errors.LeaseLost, match="expired"):
        await bench.azure.imds.acknowledge([event_id], closed)
    assert (await bench.azure.imds.poll()).document.events[0].status == EventStatus.SCHEDULED


async def test_a_write_leaves_once_even_when_its_connection_breaks(bench: Bench) -> None:
    """A PUT whose reply is lost is not repeated below us: its outcome is unknown."""
    memberships = await bench.memberships()
    bench.server.faults.add(
        Fault(service=Service.ARM, method="PUT", effect=Effect.RESET_AFTER, times=1)
    )
    passed: list[str] = []
    with pytest.raises(errors.OutcomeUnknown):
        await bench.azure.network.remove_from_nic(
            None, bench.nic_id(), memberships, lambda _spared: passed.append("put")
        )
    assert passed == ["put"]
    assert await bench.memberships() == ()


async def test_a_failed_poll_is_not_the_end_of_the_write(bench: Bench) -> None:
    """Trouble while an accepted write is followed leaves its outcome unknown."""
    memberships = await bench.memberships()
    bench.server.faults.add(
        Fault(service=Service.ARM, path_contains="/operations/", effect=Effect.REPLY, status=503)
    )
    with pytest.raises(errors.OutcomeUnknown, match="503"):
        await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, no_fence)


@pytest.mark.parametrize(
    "body", ["", "[]", "null", '"x"', '{"id": 5}', '{"id":"/x","properties":[]}']
)
async def test_bodies_that_break_the_shape_are_violations(bench: Bench, body: str) -> None:
    """A 200 that is not a NIC is never taken for one."""
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


async def test_without_an_etag_nothing_is_written(bench: Bench) -> None:
    """A write that could not be made conditional is not made."""
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
        await bench.azure.network.remove_from_nic(None, bench.nic_id(), memberships, no_fence)
    assert not [call for _, call, _ in bench.observed if call == "nic_put"]


async def test_links_to_elsewhere_are_not_followed(bench: Bench) -> None:
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


# --- IP-based pools ------------------------------------------------------------------------------


async def test_address_round_trip(bench: Bench) -> None:
    """An address leaves a pool and comes back as the same entry; the others never move."""
    pool_id = bench.world.pool_id("cache")
    before = await bench.azure.network.pool(pool_id)
    target = before.members[1].address
    assert isinstance(target, AddressMembership)
    removed = await bench.azure.network.remove_from_pool(pool_id, (target,), no_fence)
    assert len(removed.members) == len(before.members) - 1
    restored = await bench.azure.network.restore_to_pool(pool_id, (target,), no_fence)
    assert addresses(restored) == addresses(before)


def addresses(pool: Any) -> set[tuple[str, str]]:
    return {(m.address.name, m.address.ip_address) for m in pool.members}


async def test_a_pool_write_without_effect_is_a_fault(bench: Bench) -> None:
    """Success that did not happen is found by comparing the whole list."""
    pool_id = bench.world.pool_id("cache")
    target = (await bench.azure.network.pool(pool_id)).members[0].address
    assert target is not None
    bench.world.plan_outcome(pool_id, "no_effect", 0.02)
    with pytest.raises(errors.ServiceFault, match="1 too many"):
        await bench.azure.network.remove_from_pool(pool_id, (target,), no_fence)


async def test_a_nic_based_pool_is_never_written(bench: Bench) -> None:
    """Addresses are not written to a pool that holds NICs."""
    pool_id = bench.world.pool_id("app")
    address = AddressMembership(pool_id=pool_id, name="a", ip_address="10.0.0.4", body="{}")
    with pytest.raises(errors.Conflict):
        await bench.azure.network.remove_from_pool(pool_id, (address,), no_fence)


async def test_missing_resources_are_not_found(bench: Bench) -> None:
    """404 is NotFound for NIC, load balancer and pool."""
    network = bench.azure.network
    with pytest.raises(errors.NotFound):
        await network.nic(bench.nic_id() + "x")
    with pytest.raises(errors.NotFound):
        await network.pool(bench.world.pool_id("app") + "x")


# --- scheduled events ----------------------------------------------------------------------------


async def test_event_is_seen_and_acknowledged(bench: Bench) -> None:
    """An event is polled with all its fields, acknowledged twice without harm, and starts."""
    event_id = bench.world.schedule_event("Reboot", "web-1").event_id
    poll = await bench.azure.imds.poll()
    (event,) = poll.document.events
    assert (event.event_id, event.status) == (event_id, EventStatus.SCHEDULED)
    assert event.not_before is not None
    assert poll.date is not None
    await bench.azure.imds.acknowledge([event_id], no_fence)
    await bench.azure.imds.acknowledge([event_id], no_fence)
    with pytest.raises(errors.Conflict):
        await bench.azure.imds.acknowledge([str(uuid.uuid4())], no_fence)


@pytest.mark.parametrize("effect", [Effect.EMPTY_200, Effect.GARBAGE, Effect.OVERSIZED])
async def test_what_is_no_event_document_is_a_failed_poll(bench: Bench, effect: Effect) -> None:
    """Empty, unreadable and endless replies fail the poll, and the next good one succeeds (S6)."""
    bench.server.faults.add(Fault(service=Service.IMDS, effect=effect, times=1))
    with pytest.raises(errors.ContractViolation):
        await bench.azure.imds.poll()
    assert (await bench.azure.imds.poll()).document.events == ()


# --- the ledger blob -----------------------------------------------------------------------------


async def test_lease_and_ledger(bench: Bench) -> None:
    """Create, acquire, write, renew, be refused, release: the whole life of a leader."""
    blob, rival = bench.azure.ledger("web.json"), bench.azure.ledger("web.json")
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())
    with pytest.raises(errors.NotFound):
        await blob.read()
    await blob.create()
    await blob.create()
    assert (await blob.peek()).lease_state == "available"
    await blob.acquire(mine, 15)
    await blob.acquire(mine, 15)
    await blob.create()
    with pytest.raises(errors.LeaseHeld):
        await rival.acquire(other, 15)
    empty = await blob.read()
    assert (empty.body, empty.lease_state, empty.lease_status) == (b"", "leased", "locked")
    etag = await blob.write(b"{}", empty.etag, mine, no_fence)
    with pytest.raises(errors.Conflict):
        await blob.write(b"[]", empty.etag, mine, no_fence)
    with pytest.raises(errors.LeaseLost):
        await rival.write(b"[]", etag, other, no_fence)
    assert await rival.read() == replace(empty, body=b"{}", etag=etag)
    await blob.renew(mine)
    with pytest.raises(errors.LeaseLost):
        await rival.renew(other)
    await blob.release(mine)
    with pytest.raises(errors.LeaseLost):
        await blob.renew(mine)
    await rival.acquire(other, 15)


async def test_a_connection_string_replaces_the_identity(bench: Bench) -> None:
    """An emulator's connection string works alone, and must be for the configured account."""
    bench.server.faults.add(
        Fault(service=Service.IMDS, path_contains="identity", effect=Effect.REPLY, status=500)
    )
    key = "AccountName=lbdrainsim;AccountKey=a2V5;DefaultEndpointsProtocol=https"
    environ = {"AZURE_STORAGE_CONNECTION_STRING": f"{key};BlobEndpoint={bench.server.blob_url};"}
    settings = settings_for(bench.server)
    async with open_azure(settings, SystemClock(), environ) as azure:
        await azure.ledger("web.json").create()
        assert (await azure.ledger("web.json").read()).body == b""
    environ["AZURE_STORAGE_CONNECTION_STRING"] = f"{key};BlobEndpoint=https://127.0.0.1:9/other;"
    async with open_azure(settings, SystemClock(), environ) as azure:
        with pytest.raises(errors.ConfigError, match="container_url"):
            azure.ledger("web.json")


async def test_missing_container_names_the_command(bench: Bench) -> None:
    """Without the container the operator is told the command that creates it."""
    bench.world.blobs.containers.clear()
    with pytest.raises(errors.ConfigError, match="az storage container create"):
        await bench.azure.ledger("web.json").create()


async def test_a_hanging_storage_ends_at_the_deadline(bench: Bench) -> None:
    """A renewal without an answer is given up within its own deadline."""
    blob = bench.azure.ledger("web.json")
    await blob.create()
    blob._timeout_s = 0.2
    bench.server.faults.add(Fault(service=Service.BLOB, effect=Effect.HANG))
    with pytest.raises(errors.OutcomeUnknown):
        await blob.renew(str(uuid.uuid4()))


# --- identity ------------------------------------------------------------------------------------


async def test_identity_service_away_means_not_sent(bench: Bench) -> None:
    """While no token can be had, nothing was sent."""
    bench.server.faults.add(
        Fault(service=Service.IMDS, path_contains="identity", effect=Effect.REPLY, status=410)
    )
    with pytest.raises(errors.NotSent):
        await bench.azure.network.nic(bench.nic_id())


async def test_no_identity_is_denied(bench: Bench) -> None:
    """A VM without managed identity is told so."""
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


async def test_an_unreachable_service_means_not_sent(bench: Bench, tmp_path: Path) -> None:
    """A refused connection is told apart from a lost reply."""
    settings = settings_for(bench.server, resource_manager_endpoint="https://127.0.0.1:9")
    async with open_azure(settings, SystemClock(), os.environ) as azure:
        with pytest.raises(errors.NotSent):
            await azure.network.nic(bench.nic_id())


async def test_an_untrusted_certificate_means_not_sent(bench: Bench) -> None:
    """Without the private CA nothing is sent."""
    async with open_azure(
        settings_for(bench.server, ca_file=""), SystemClock(), os.environ
    ) as azure:
        with pytest.raises(errors.NotSent):
            await azure.compute.discover(bench.vm())


async def test_hijacking_environment_is_removed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Variables that lead the identity elsewhere are removed, each with one warning."""
    environ = {"MSI_ENDPOINT": "http://127.0.0.1:9/", "AZURE_CLIENT_ID": "kept"}
    async with open_azure(settings_for(bench.server), SystemClock(), environ):
        pass
    assert "MSI_ENDPOINT" not in environ
    assert environ["AZURE_CLIENT_ID"] == "kept"
    assert [record for record in caplog.records if "MSI_ENDPOINT" in record.getMessage()]


def test_a_standby_does_not_load_the_management_sdks() -> None:
    """Importing the adapters loads none of the models that only a leader needs."""
    program = (
        "import sys, controller.azure.session\n"
        "sys.exit('azure.mgmt.network' in sys.modules or 'azure.mgmt.compute' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", program], check=False)
    assert finished.returncode == 0
