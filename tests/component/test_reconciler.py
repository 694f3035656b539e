"""The reconciler, pass by pass, on a clock of the test, against the simulated Azure over sockets.

Polls, turns of the election and passes are taken by hand: the tasks around them only wait.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from controller.agent.ability_watch import AbilityWatch
from controller.agent.context import AgentContext
from controller.agent.event_watcher import EventWatcher
from controller.agent.inventory_schedule import HOLE_S
from controller.agent.leader_election import LeaderElection
from controller.agent.operator_blobs import OperatorBlobs
from controller.agent.overrides import OverridesInForce
from controller.agent.present_set import PresentSet
from controller.agent.read_ways import request_key
from controller.agent.reconciler_assembly import assemble_reconciler
from controller.agent.startup import AgentIdentity
from controller.azure.http.session import Azure, open_azure
from controller.azure.imds_document import Instance
from controller.clock import CorrectedClock
from controller.config.in_force import ConfigurationInForce
from controller.config.schema import Settings
from controller.core.ability import UNABLE_AFTER_S
from controller.core.drain_requests import DrainRequest as ByHand
from controller.core.lease import ReasonsNotToLead
from controller.core.planning.closing import SEEN_WITHIN_S
from controller.core.planning.views import FRESH_S
from controller.errors import LeaseLost
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Request, Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.storage.annotations import LedgerAnnotations
from controller.storage.controls_store import ControlsStore, ControlsWatch
from controller.storage.drain_request_store import DrainRequestStore, DrainRequestWatch
from controller.storage.ledger_store import LedgerStore
from tests.support.clocks import StoppedClock
from tests.support.held_replies import held_replies

MOST_PASSES = 20
BACK_OFF_S = 1.1
"""After this long what failed once is tried again."""
CONNECTION_DRAIN_S = 30.0
"""As long as policy lets connections drain before an event is acknowledged."""
MAINTENANCE_S = 120.0
"""Longer than a connection drain, and than a late write may take to show."""


class RecordingElection(LeaderElection):
    """An election that counts how often it was woken."""

    woken = 0

    def wake(self) -> None:
        self.woken += 1
        super().wake()


class Leader:
    """The parts of the agent on web-1 that lead, and the simulated Azure they talk to."""

    def __init__(
        self,
        server: SimulatorServer,
        clock: StoppedClock,
        azure: Azure,
        settings: Settings,
        **parts: Any,
    ) -> None:
        self.server, self.world, self.clock = server, server.world, clock
        blob = azure.state_blob("web.json")
        self.watcher = EventWatcher(
            imds=azure.imds, clock=CorrectedClock(clock), leader_poll_s=1, standby_poll_s=15
        )
        self.asked_for = DrainRequestStore(azure.state_blob("web.requests.json"))
        self.requests = DrainRequestWatch(
            DrainRequestStore(azure.state_blob("web.requests.json")),
            clock=clock,
            poll_s=5,
            leading=lambda: True,
            changed=lambda: None,
        )
        self.controls = ControlsWatch(
            ControlsStore(azure.state_blob("web.controls.json")),
            clock=clock,
            poll_s=5,
            leading=lambda: True,
            changed=lambda: None,
        )
        self.reasons_not_to_lead = ReasonsNotToLead()
        self.election = RecordingElection(
            blob=blob,
            clock=clock,
            entropy=random.Random(1),
            lease_duration_s=30,
            renew_period_s=8,
            yield_s=5,
            peers=3,
            reasons=lambda: self.reasons_not_to_lead,
            refresh=self._nothing,
        )
        self.store, self.ability = LedgerStore(blob), AbilityWatch(clock)
        context = AgentContext(
            azure=azure,
            identity=AgentIdentity(
                instance=Instance(
                    name="web-1",
                    vm_id=self.world.vm("web-1").vm_id,
                    subscription_id=self.world.subscription,
                    resource_group=self.world.resource_group,
                    location="",
                    environment="",
                ),
                set_id=self.world.availability_set_id,
                vms=("web-1", "web-2", "web-3"),
                ledger_name="web.json",
                owner_id=self.world.availability_set_id,
            ),
            present_set=PresentSet(self.world.availability_set_id),
            configuration=ConfigurationInForce(settings),
            clock=CorrectedClock(clock),
            entropy=random.Random(0),
            annotations=LedgerAnnotations(),
            woken=asyncio.Event(),
            **parts,
        )
        self.reconciler = assemble_reconciler(
            context,
            store=self.store,
            election=self.election,
            watcher=self.watcher,
            operator=OperatorBlobs(
                self.requests,
                self.controls,
                OverridesInForce(context.configuration, self.controls),
            ),
            ability=self.ability,
        )
        self.asked: Counter[str] = Counter()
        server.observers.append(lambda request, _: self._note(request))

    async def _nothing(self) -> None:
        """The event document is not read again before the lease is acquired."""

    def _note(self, request: Request) -> None:
        self.asked[f"{request.method} {request.path.rsplit('/', 1)[-1]}"] += 1

    async def turn(self) -> None:
        """Take part in the election once."""
        await self.election.turn()

    async def round(self) -> None:
        """Poll, and take passes until one starts nothing; time stands still meanwhile."""
        await self.turn()
        for _ in range(MOST_PASSES):
            await self.watcher.poll()
            await self.reconciler.step()
            if not self.reconciler.in_flight:
                return
            await self.reconciler.wait_until_idle()
        raise AssertionError("the passes do not come to an end")

    async def until_write(self, *, every_s: float = 0) -> None:
        """Take passes until a write is under way; let time pass before each."""
        for _ in range(MOST_PASSES):
            self.clock.move(every_s)
            await self.server.notify()
            await self.turn()
            await self.watcher.poll()
            await self.reconciler.step()
            if any(target.kind == "write" for target in self.reconciler.in_flight):
                return
            await self.reconciler.wait_until_idle()
        raise AssertionError("no write begins")

    async def after(self, seconds: float) -> None:
        """Let time pass, then take a round."""
        self.clock.move(seconds)
        await self.server.notify()
        await self.round()

    async def ask(self, vm: str) -> None:
        """Ask for a VM by hand, and let the leader read that."""
        now = self.clock.now()
        asked = ByHand(
            request_id="R", vm=vm, reason="", by="ann", at=now, until=now + timedelta(minutes=30)
        )
        await self.asked_for.change(lambda requests: requests.adding(asked))
        await self.requests.refresh(no_older_than_s=0)

    async def announce(self, *vms: str) -> str:
        """Announce a reboot."""
        event = self.world.events.schedule("Reboot", *vms, notice_s=600)
        await self.server.notify()
        return event.event_id

    async def maintain(self, event_id: str) -> None:
        """Let the event that was announced come to nothing, and everything be put back."""
        await self.after(MAINTENANCE_S)
        self.world.events.cancel(event_id)
        for _ in range(4):
            await self.after(MAINTENANCE_S)
        assert self.recorded() == []

    def recorded(self) -> list[str]:
        """Return the VMs that the ledger has an entry of."""
        return [entry.vm for entry in self.reconciler.ledger.entries]

    def inside(self, pool: str) -> list[str]:
        """Return who is in rotation in a pool."""
        return sorted(self.world.rotation(self.world.pool_id(pool)))

    def fault(self, effect: Effect = Effect.REPLY, **options: Any) -> None:
        """Add a fault of Resource Manager."""
        self.server.faults.add(Fault(service=Service.ARM, effect=effect, **options))

    def operator_removes(self, vm: str, pool: str) -> None:
        """Take a VM out of a pool behind the agent's back."""
        world, pool_id = self.world, self.world.pool_id(pool)
        found = world.find_pool(pool_id)
        assert found is not None
        if pool in {"app", "admin"}:
            world.remove_membership(pool_id, world.vm(vm).nic_ids[0])
        else:
            addresses = found["properties"]["loadBalancerBackendAddresses"]
            world.set_addresses(pool_id, [each for each in addresses if each["name"] != vm])


@asynccontextmanager
async def leading(
    directory: Path,
    *pools: str,
    policy: Mapping[str, object] = MappingProxyType({}),
    world_settings: Mapping[str, Any] = MappingProxyType({}),
    **parts: Any,
) -> AsyncIterator[Leader]:
    """Serve a set with `app` and `admin` (NICs) and `cache` (addresses); lead it for `pools`.

    `policy` goes to the configuration, `world_settings` to the world, `parts` to `AgentContext`.
    """
    clock = StoppedClock(float(int(time.time())))
    world = build_world(
        now=clock.azure(),
        pools=("app", "admin"),
        ip_pools=("cache",),
        settings=WorldSettings(
            operation_latency_s=0,
            pool_operation_latency_s=0,
            imds_limit=False,
            lro_retry_after_s=None,
            **world_settings,
        ),
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            SimulatorServer(world, directory / "pki", clock=clock.azure)
        )
        settings = Settings.model_validate(
            {
                "backend_pools": [{"id": world.pool_id(pool)} for pool in pools],
                "policy": {"max_parallel_writes": 4, "close": False, **policy},
                "election": {"container_url": server.container_url("lb-drain")},
                "azure": {
                    "resource_manager_endpoint": server.arm_url,
                    "imds_endpoint": server.imds_url("web-1"),
                    "ca_file": str(server.ca_file),
                    "poll_fallback_s": 0.02,
                },
            }
        )
        azure = await stack.enter_async_context(open_azure(settings, clock, {}))
        leader = Leader(server, clock, azure, settings, **parts)
        await azure.state_blob("web.json").create()
        async with leader.reconciler:
            await leader.round()
            assert leader.election.leading
            yield leader
            await leader.reconciler.quiesce()


# --- what an operator removes (S3) ---------------------------------------------------------------

KINDS = [("app", "networkInterfaces"), ("cache", "backendAddressPools")]


@pytest.mark.parametrize("seen_by", ["the write", "a read"])
@pytest.mark.parametrize(("pool", "path"), KINDS, ids=["nic", "pool"])
@pytest.mark.parametrize("status", [409, 412, 429])
async def test_a_refused_removal_counts_as_never_sent(
    tmp_path: Path, status: int, pool: str, path: str, seen_by: str
) -> None:
    """S3: what an operator removes after Azure has refused our removal is not put back."""
    async with leading(tmp_path, pool) as leader:
        leader.fault(method="PUT", path_contains=path, status=status, times=1)
        event_id = await leader.announce("web-2")
        await leader.round()
        assert leader.recorded() == ["web-2"]
        assert leader.inside(pool) == ["web-1", "web-2", "web-3"]
        leader.operator_removes("web-2", pool)
        await leader.after(BACK_OFF_S if seen_by == "the write" else FRESH_S + 1)
        await leader.maintain(event_id)
        assert leader.inside(pool) == ["web-1", "web-3"]


async def test_what_a_write_spares_it_did_not_take_out(tmp_path: Path) -> None:
    """S3: what an operator removed before our write is not put back because of that write."""
    async with leading(tmp_path, "app", "admin") as leader:
        leader.fault(method="PUT", path_contains="networkInterfaces", status=403, times=1)
        event_id = await leader.announce("web-2")
        await leader.round()
        leader.operator_removes("web-2", "admin")
        await leader.after(BACK_OFF_S)
        assert leader.inside("app") == ["web-1", "web-3"], "the write has been sent"
        await leader.maintain(event_id)
        assert leader.inside("app") == ["web-1", "web-2", "web-3"]
        assert leader.inside("admin") == ["web-1", "web-3"]


@pytest.mark.parametrize("pool", ["app", "cache"])
async def test_the_end_of_its_own_removal_is_proof_enough(tmp_path: Path, pool: str) -> None:
    """S1: who has followed a removal to its end need not wait to believe it."""
    async with leading(tmp_path, pool) as leader:
        await leader.announce("web-2")
        await leader.round()
        (entry,) = leader.reconciler.ledger.entries
        assert entry.out_at is not None


@pytest.mark.parametrize(("pool", "path"), KINDS, ids=["nic", "pool"])
@pytest.mark.parametrize("then", ["nothing", "not found"])
async def test_an_accepted_removal_counts_as_sent(
    tmp_path: Path, then: str, pool: str, path: str
) -> None:
    """S5: what an accepted write may have removed is put back, whatever later attempts met."""
    async with leading(tmp_path, pool) as leader:
        leader.fault(Effect.OPERATION, method="PUT", path_contains=path, times=1)
        event_id = await leader.announce("web-2")
        await leader.round()
        assert leader.recorded() == ["web-2"]
        assert leader.inside(pool) == ["web-1", "web-2", "web-3"]
        if then == "not found":
            leader.fault(method="GET", path_contains=path, status=404, times=1)
            await leader.after(BACK_OFF_S)
            assert leader.inside(pool) == ["web-1", "web-2", "web-3"]
        leader.operator_removes("web-2", pool)
        await leader.after(2 * BACK_OFF_S)
        await leader.maintain(event_id)
        assert leader.inside(pool) == ["web-1", "web-2", "web-3"]


async def test_what_was_sent_is_known_by_membership(tmp_path: Path) -> None:
    """S3: that a pool was written for one VM does not make what happens to another one ours."""
    async with leading(tmp_path, "cache") as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        assert leader.inside("cache") == ["web-1", "web-3"]
        leader.fault(method="PUT", path_contains="backendAddressPools", status=409, times=1)
        other_id = await leader.announce("web-3")
        await leader.round()
        assert leader.recorded() == ["web-2", "web-3"]
        leader.operator_removes("web-3", "cache")
        await leader.after(BACK_OFF_S)
        leader.world.events.cancel(other_id)
        await leader.maintain(event_id)
        assert leader.inside("cache") == ["web-1", "web-2"]


# --- what changes while a write is on its way ----------------------------------------------------


@pytest.mark.parametrize("appears", ["an event", "a request"])
async def test_a_restore_is_held_back_when_an_event_was_announced_meanwhile(
    tmp_path: Path, appears: str, caplog: pytest.LogCaptureFixture
) -> None:
    """S6: between plan and PUT an event or a request can appear, and then the VM stays out."""
    caplog.set_level("INFO")
    async with leading(tmp_path, "app") as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        leader.world.events.cancel(event_id)
        await leader.server.notify()
        await leader.until_write(every_s=10)
        leader.asked.clear()
        with held_replies(leader.server, "web-2-nic"):
            await leader.server.wait_until(lambda: leader.asked["GET web-2-nic"] > 0)
            if appears == "an event":
                await leader.announce("web-2")
            else:
                await leader.ask("web-2")
            await leader.watcher.poll()
        await leader.reconciler.wait_until_idle()
        assert leader.asked["PUT web-2-nic"] == 0
        assert leader.inside("app") == ["web-1", "web-3"]
        verb = "announced" if appears == "an event" else "requested"
        assert f"{verb} meanwhile" in caplog.text


async def test_nothing_leaves_once_the_lease_could_have_expired(tmp_path: Path) -> None:
    """S4: neither a ledger write nor an acknowledgement, although it was begun before."""
    async with leading(tmp_path, "app") as leader:
        await leader.announce("web-2")
        await leader.round()
        leader.clock.move(CONNECTION_DRAIN_S)
        await leader.server.notify()
        await leader.turn()
        await leader.watcher.poll()
        for _ in range(MOST_PASSES):
            await leader.reconciler.step()
            begun = leader.reconciler.in_flight
            if any(target.kind == "acknowledge" for target in begun):
                break
            await leader.reconciler.wait_until_idle()
        else:
            raise AssertionError("no acknowledgement begins")
        leader.clock.move(60)
        before = (leader.asked["POST scheduledevents"], leader.asked["PUT web.json"])
        await leader.reconciler.wait_until_idle()
        with pytest.raises(LeaseLost, match="could have expired"):
            await leader.store.write(leader.reconciler.ledger, leader.election)
        assert (leader.asked["POST scheduledevents"], leader.asked["PUT web.json"]) == before


@pytest.mark.parametrize("late_s", [9.0, 11.0])
async def test_an_acknowledgement_leaves_only_on_recent_reads(
    tmp_path: Path, late_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """S1: between plan and POST the reads can grow too old; they are repeated first."""
    caplog.set_level("INFO")
    async with leading(tmp_path, "app") as leader:
        await leader.announce("web-2")
        await leader.round()
        leader.clock.move(CONNECTION_DRAIN_S)
        await leader.server.notify()
        await leader.turn()
        await leader.watcher.poll()
        for _ in range(MOST_PASSES):
            await leader.reconciler.step()
            if any(each.kind == "acknowledge" for each in leader.reconciler.in_flight):
                break
            await leader.reconciler.wait_until_idle()
        else:
            raise AssertionError("no acknowledgement begins")
        leader.clock.move(late_s)
        await leader.reconciler.wait_until_idle()
        in_time = late_s <= SEEN_WITHIN_S
        assert leader.asked["POST scheduledevents"] == (1 if in_time else 0)
        assert ("are read again first" in caplog.text) is not in_time
        await leader.after(BACK_OFF_S)
        assert leader.asked["POST scheduledevents"] == 1


async def test_what_was_read_of_requests_a_minute_ago_says_nothing(tmp_path: Path) -> None:
    """S6: while the blob cannot be read what was known counts, but not for ever."""
    async with leading(tmp_path, "app") as leader:
        await leader.ask("web-2")
        leader.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, status=503))
        for passed_s, known in ((50, True), (9, True), (2, False)):
            leader.clock.move(passed_s)
            await leader.requests.refresh(no_older_than_s=0)
            assert (leader.requests.requests is not None) is known


async def test_a_deleted_pool_keeps_nobody_out_of_the_others(tmp_path: Path) -> None:
    """L2: what Azure refuses because a pool is gone is sent again without that pool, at once."""
    async with leading(tmp_path, "app", "admin") as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        await leader.after(MAINTENANCE_S)
        assert leader.inside("app") == ["web-1", "web-3"]
        leader.world.delete_pool(leader.world.pool_id("admin"))
        leader.world.events.cancel(event_id)
        for _ in range(4):
            await leader.after(BACK_OFF_S)
        assert leader.inside("app") == ["web-1", "web-2", "web-3"]
        assert leader.recorded() == ["web-2"], "one look does not tell that a pool is gone"
        leader.clock.move(UNABLE_AFTER_S)
        assert leader.ability.inability(leader.election.tenures) is None, "a peer is refused too"
        for _ in range(4):
            await leader.after(MAINTENANCE_S)
        (entry,) = leader.reconciler.ledger.entries
        assert (entry.memberships, len(entry.lost)) == ((), 1), "kept, as lost"


async def test_a_leader_that_hands_over_begins_nothing(tmp_path: Path) -> None:
    """S7: its own VM's drain could cut it off before the lease is released for others to take."""
    async with leading(tmp_path, "app") as leader:
        await leader.announce("web-1")
        await leader.watcher.poll()
        leader.reasons_not_to_lead = ReasonsNotToLead(events=frozenset({"announced"}))
        leader.asked.clear()
        await leader.reconciler.step()
        assert leader.reconciler.in_flight == frozenset()
        assert leader.asked == {}
        assert leader.election.woken == 1
        leader.reasons_not_to_lead = ReasonsNotToLead()
        await leader.round()
        assert leader.recorded() == ["web-1"]


async def test_a_new_tenure_ends_what_the_old_one_began(tmp_path: Path) -> None:
    """S4: nothing that was begun under an old lease goes on under a new one."""
    async with leading(tmp_path, "app") as leader:
        leader.fault(Effect.HANG, method="PUT", path_contains="networkInterfaces", times=1)
        await leader.announce("web-2")
        await leader.until_write()
        await leader.server.wait_until(lambda: leader.asked["PUT web-2-nic"] == 1)
        leader.election.lost("storage said so")
        leader.clock.move(60)
        await leader.turn()
        assert leader.election.tenures == 2
        await leader.reconciler.step()
        async with asyncio.timeout(60):  # the PUT would never be answered
            await leader.reconciler.wait_until_idle()
        await leader.round()
        assert leader.inside("app") == ["web-1", "web-3"]


async def test_a_ledger_that_was_opened_can_be_written(tmp_path: Path) -> None:
    """S7: what storage asked for in an earlier tenure ends with the write that opens the ledger."""
    async with leading(tmp_path, "app") as leader:
        throttled = Fault(
            service=Service.BLOB,
            effect=Effect.REPLY,
            status=429,
            method="PUT",
            path_contains="web.json",
            headers=(("Retry-After", "1200"),),
            times=1,
        )
        leader.server.faults.add(throttled)
        await leader.announce("web-2")
        await leader.round()
        assert leader.recorded() == []
        leader.election.lost("it was given to another agent")
        leader.clock.move(60)
        await leader.turn()
        await leader.round()
        assert leader.recorded() == ["web-2"]


# --- an inventory with holes (H1) ----------------------------------------------------------------

LISTS = "GET networkInterfaces"
HIDDEN = "GET web-internal"


async def test_an_inventory_with_holes_is_read_again_soon_then_ever_less_often(
    tmp_path: Path,
) -> None:
    """H1: a hole is looked at after 15 s, then after twice as long each time, and filled in."""
    async with leading(tmp_path, "app", "cache") as leader:
        full_s = leader.reconciler.inventory_period_s
        leader.fault(method="GET", path_contains="/loadBalancers", status=503)
        await leader.after(full_s)
        periods_s: list[float] = []
        for _ in range(6):
            period_s = leader.reconciler.inventory_period_s
            periods_s.append(period_s)
            leader.asked.clear()
            await leader.after(period_s - 1)
            assert leader.asked[LISTS] == 0
            await leader.after(1)
            assert leader.asked[LISTS] == 1
        assert periods_s == [HOLE_S, 2 * HOLE_S, 4 * HOLE_S, 8 * HOLE_S, 16 * HOLE_S, full_s]
        leader.server.faults.clear()
        await leader.after(full_s)
        assert leader.reconciler.inventory_period_s == full_s
        leader.fault(method="GET", path_contains="/loadBalancers", status=503)
        await leader.after(full_s)
        assert leader.reconciler.inventory_period_s == HOLE_S


async def test_an_unreadable_load_balancer_hides_no_other(tmp_path: Path) -> None:
    """L2: the pools that can be read are known, and drained from, whatever the others answer."""
    async with leading(tmp_path, "app", "cache") as leader:
        leader.fault(method="GET", path_contains="web-internal", status=503)
        leader.fault(method="GET", path_ends="/loadBalancers", status=503)
        await leader.after(leader.reconciler.inventory_period_s)
        leader.world.remove_membership(
            leader.world.pool_id("app"), leader.world.vm("web-3").nic_ids[0]
        )
        await leader.after(HOLE_S)
        (app,) = [each for each in leader.reconciler.cache.pools if each.pool_id.endswith("app")]
        assert len(app.members) == 2
        await leader.announce("web-2")
        await leader.round()
        await leader.after(1)
        assert leader.inside("app") == ["web-1"]


async def test_a_part_that_was_told_to_wait_is_left_out_until_then(tmp_path: Path) -> None:
    """H1: a Retry-After holds for the next inventories too, which count as holed meanwhile."""
    async with leading(tmp_path, "app", "cache") as leader:
        leader.fault(
            method="GET",
            path_contains="/loadBalancers",
            status=429,
            headers=(("retry-after", "100"),),
        )
        leader.asked.clear()
        await leader.after(leader.reconciler.inventory_period_s)
        assert (leader.asked[LISTS], leader.asked[HIDDEN]) == (1, 1)
        await leader.after(HOLE_S)
        await leader.after(2 * HOLE_S)
        assert (leader.asked[LISTS], leader.asked[HIDDEN]) == (3, 1)
        assert leader.reconciler.inventory_period_s == 4 * HOLE_S
        await leader.after(4 * HOLE_S)
        assert (leader.asked[LISTS], leader.asked[HIDDEN]) == (4, 2)


async def test_the_reader_of_a_written_nic_is_as_patient_as_it_was_told_to_be(
    tmp_path: Path,
) -> None:
    """H1: a Retry-After at the end of a write holds for every other GET of that NIC, too."""
    async with leading(tmp_path, "app") as leader:
        leader.fault(
            method="GET",
            path_contains="/operations/",
            status=429,
            headers=(("retry-after", "20"),),
            times=1,
        )
        await leader.announce("web-2")
        await leader.round()
        assert leader.asked["PUT web-2-nic"] == 1
        key = request_key(leader.world.vm("web-2").nic_ids[0], "get")
        assert key in leader.reconciler.observe().deferred
        leader.clock.move(20.1)
        assert key not in leader.reconciler.observe().deferred
