"""Safeguards that can be switched off, to show that something notices.

Every switch patches the product for the length of a block; the product knows nothing of it. Beside
each stands the law that has to break within a few hundred seeds: a safeguard that nothing misses is
untested, or not needed.
"""

import asyncio
import math
import sys
from collections.abc import Container, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from azure.core import MatchConditions

from controller.agent import (
    acknowledger,
    assembly,
    election_state,
    inventory_reader,
    leader_election,
    nic_reader,
    read_ways,
    reconciler,
    startup,
    vm_reader,
)
from controller.agent.ability_watch import AbilityWatch
from controller.agent.election_state import ElectionState
from controller.agent.event_watcher import EventWatcher
from controller.agent.leader_election import LeaderElection
from controller.agent.ledger_place import LedgerPlace
from controller.agent.single_reads import SingleReads
from controller.azure import admin_states, network, network_bodies
from controller.azure.blob import StateBlob
from controller.azure.event_acknowledgement import EventAcknowledgement
from controller.azure.http import error_mapping, request_waits
from controller.azure.http.long_running import Check
from controller.azure.http.write_guard import WriteGuard
from controller.azure.network import Network
from controller.core import azure_names, blob_limits, second_source
from controller.core import closing as core_closing
from controller.core.acknowledge_channel import Channel
from controller.core.azure_names import load_balancer_of
from controller.core.blob_owner import BlobOwner
from controller.core.drain_history import Step
from controller.core.drain_requests import DrainRequest, DrainRequests
from controller.core.events import EventDocument
from controller.core.ledger import Entry
from controller.core.old_replies import ShownEtags
from controller.core.planning import (
    acknowledgement,
    admin_state,
    portions,
    requests_in_force,
    restoration,
    rotation_watch,
)
from controller.core.planning import closing as planning_closing
from controller.core.planning.actions import Plan
from controller.core.planning.floors import Floors
from controller.core.planning.pool_membership import PoolMembership
from controller.core.planning.shared_floor import SharedFloor
from controller.core.planning.steps import Forget, Record, Steps
from controller.core.resources import MembershipKey, NicMembership
from controller.errors import LeaseLost
from controller.storage import ledger_json
from controller.storage.ledger_store import LedgerStore, ledger_blob_name
from controller.vm_side import closing_side

Block = AbstractContextManager[object]


@dataclass(frozen=True, slots=True)
class Safeguard:
    """One safeguard: the law that needs it, and how to do without."""

    law: str
    off: Any
    """Makes the block in which it is off."""


def _returning(value: object) -> Any:
    def constant(*_arguments: object, **_options: object) -> object:
        return value

    return constant


def _never(where: Any, name: str, value: object) -> Any:
    return lambda: patch.object(where, name, _returning(value))


def _answering_yes(where: Any, name: str) -> Any:
    """Switch off an `Inquiry` of the planner: it asks for no read, and its answer is yes."""

    def answer(*_arguments: object, **_options: object) -> Generator[object, None, bool]:
        yield from ()
        return True

    return lambda: patch.object(where, name, answer)


def _without_reads_while_out() -> Block:
    """A VM that was seen out is out: nothing is read again before the next inventory."""
    return _all(
        _answering_yes(acknowledgement, "_seen_out")(),
        _never(rotation_watch, "steps", ())(),
    )


def _without_if_match(kind: str) -> Any:
    real = network._options

    def options(resource_id: str, *arguments: Any) -> dict[str, Any]:
        given = real(resource_id, *arguments)
        if kind in resource_id.casefold():
            given["headers"] = {}
        return given

    return lambda: patch.object(network, "_options", options)


def _ledger_without_if_match() -> Block:
    real = StateBlob.write

    async def write(
        self: StateBlob, body: bytes, etag: str, lease_id: str, guard: WriteGuard
    ) -> str:
        return await real(self, body, "*", lease_id, guard)

    return patch.object(StateBlob, "write", write)


def _ledger_without_lease_id() -> Block:
    async def write(
        self: StateBlob, body: bytes, etag: str, lease_id: str, guard: WriteGuard
    ) -> str:
        async with self._call("write", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            reply = await self._client.upload_blob(
                body,
                overwrite=True,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
                guard=guard,
            )
            return str(reply["etag"])

    return patch.object(StateBlob, "write", write)


def _without_write_ahead() -> Block:
    async def write(self: LedgerStore, wanted: Any, _elector: LeaderElection) -> bool:
        self.ledger = wanted
        return True

    return patch.object(LedgerStore, "write", write)


def _without_verifying() -> Block:
    real_nic, real_pool = Network._put_nic, Network._put_pool

    async def put_nic(self: Network, nic_id: str, edit: network_bodies.Edit, fence: Any) -> Any:
        await real_nic(self, nic_id, edit, fence)
        return network_bodies.parse_nic(edit.body, self._clock.now())

    async def put_pool(
        self: Network, pool_id: str, edit: network_bodies.Edit, fence: Any, *shown: Any
    ) -> Any:
        await real_pool(self, pool_id, edit, fence, *shown)
        return edit.body

    return _all(
        patch.object(Network, "_put_nic", put_nic), patch.object(Network, "_put_pool", put_pool)
    )


def _restoring_every_pool() -> Block:
    real = Network.restore_to_nic

    async def restore(
        self: Network, nic_id: str, memberships: Any, guard: Any, **options: Any
    ) -> Any:
        first = memberships[0]
        owner = load_balancer_of(first.pool_id)
        body = await self.nic_body(nic_id)
        every = {
            pool.pool_id: NicMembership(
                pool_id=pool.pool_id, nic_id=nic_id, ip_configuration=first.ip_configuration
            )
            for pool in (await self.load_balancer(owner)).pools
        }
        assert body
        known = {membership.pool_id.casefold() for membership in memberships}
        added = tuple(m for pool, m in sorted(every.items()) if pool.casefold() not in known)
        return await real(self, nic_id, (*memberships, *added), guard, **options)

    return patch.object(Network, "restore_to_nic", restore)


def _case_sensitive() -> Block:
    """Compare names and ids as they are spelled, in every module that folds them."""

    def fold(name: str) -> str:
        return name.rstrip("/")

    modules = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("controller.") and ".simulator" not in name
    ]
    return _all(
        *(
            patch.object(module, "fold", fold)
            for module in modules
            if getattr(module, "fold", None) is azure_names.fold
        )
    )


@contextmanager
def _all(*blocks: Block) -> Iterator[None]:
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block)
        yield


def _without_yielding() -> Block:
    return _all(
        patch.object(election_state, "must_yield", _returning(False)),
        patch.object(leader_election, "may_acquire", _returning(True)),
    )


def _one_way_to_read() -> Block:
    """Read each thing in the first way only, and wait when Azure refuses that one."""
    real = read_ways.first_that_works

    async def first(ways: Any, retries: Any, now: Any) -> Any:
        return await real(ways[:1], retries, now)

    readers = (inventory_reader, nic_reader, vm_reader)
    return _all(*(patch.object(reader, "first_that_works", first) for reader in readers))


def _ledger_by_name() -> Block:
    """Take the blob with the name of the set for its ledger, whatever the set was made of."""

    async def own(_azure: Any, _settings: Any, set_id: str, _vms: Any) -> LedgerPlace:
        return LedgerPlace(name=ledger_blob_name(set_id), owner_id=set_id)

    return patch.object(startup, "find_ledger", own)


def _lists_only() -> Block:
    """Read VMs and NICs by their lists alone."""

    async def read_each(*_arguments: object, **_options: object) -> SingleReads[Any]:
        return SingleReads()

    return _all(
        patch.object(nic_reader, "read_each", read_each),
        patch.object(vm_reader, "read_each", read_each),
    )


def _following_operations_alone() -> Block:
    """Believe the operation alone that it has ended, however rarely Azure lets it be polled."""

    async def wait(_self: Check) -> Any:
        await asyncio.Event().wait()

    return patch.object(Check, "wait", wait)


def _forgetting_what_is_absent() -> Block:
    """Take what Azure does not show for deleted, and drop it from the ledger."""

    def lose(entry: Entry, keys: Container[MembershipKey]) -> Steps:
        kept = tuple(each for each in entry.memberships if each.key not in keys)
        if kept:
            left = replace(entry, memberships=kept)
            yield Record(entry=left, step=Step.MEMBERSHIP_DROPPED, detail="")
        else:
            yield Forget(vm=entry.vm, step=Step.FORGOTTEN, detail="")

    return patch.object(restoration, "lose", lose)


def _one_request_for_a_vm() -> Block:
    """Let a drain request end the earlier ones for its VM."""
    real = DrainRequests.adding

    def adding(self: DrainRequests, request: DrainRequest) -> DrainRequests:
        earlier = [each.request_id for each in self.active_for(request.vm, request.at)]
        return real(self.ending(earlier, at=request.at, by=request.by), request)

    return patch.object(DrainRequests, "adding", adding)


def _counting_other_sets() -> Block:
    """Count every machine of another set, and state nothing to that set."""
    real = SharedFloor.__init__

    def init(self: SharedFloor, *arguments: Any) -> None:
        real(self, *arguments)
        self.shared = self.unread = False
        self.uncounted = frozenset()

    return patch.object(SharedFloor, "__init__", init)


def _unbounded_blobs() -> Block:
    """Copy texts of any length from a blob into a ledger of any length."""
    return _all(
        patch.object(blob_limits, "cut", lambda text, _limit=0: text),
        patch.object(ledger_json, "MAX_LEDGER_BYTES", sys.maxsize),
        patch.object(requests_in_force, "MAX_REQUESTS_FOR_VM", sys.maxsize),
    )


def _waiting_for_news() -> Block:
    """Keep a VM closed for as long as storage does not answer."""
    real = core_closing.wish

    def wish(known: Any, policy: Any, **_options: object) -> Any:
        return real(known, policy, open_after_s=math.inf)

    return patch.object(closing_side, "wish", wish)


def _any_report(evidence: Any, entry: Entry) -> Any:
    """Take the report of another drain, of any age."""
    seen = evidence.observed.reports.get(azure_names.fold(entry.vm))
    return seen.report if seen else None


def _believing_resource_graph() -> Block:
    """Take an event that Resource Graph calls ended for one that is not there."""
    real_assemble, real_poll = assembly._assemble_second_source, EventWatcher._succeeded

    def assemble(context: Any, reconciler: Any, election: Any, watcher: Any) -> Any:
        watch = real_assemble(context, reconciler, election, watcher)
        watcher.second_source = watch
        return watch

    def succeeded(self: EventWatcher, document: EventDocument) -> None:
        watch = getattr(self, "second_source", None)
        rows = watch.known.events if watch is not None else {}
        over = {key for key, row in rows.items() if row.status in second_source.ENDS}
        kept = (each for each in document.events if azure_names.fold(each.event_id) not in over)
        real_poll(self, replace(document, events=tuple(kept)))

    return _all(
        patch.object(assembly, "_assemble_second_source", assemble),
        patch.object(EventWatcher, "_succeeded", succeeded),
    )


def _ends_of_all() -> Block:
    """Let a row state the end of an event that is still in the document."""
    real = second_source.ends

    def ends(known: Any, _document: object) -> Any:
        return real(known, EventDocument(incarnation=None))

    return patch.object(second_source, "ends", ends)


def _unguarded_channel() -> Block:
    """Send an acknowledgement through Resource Manager as it was planned."""
    real = EventAcknowledgement.acknowledge

    async def acknowledge(
        self: EventAcknowledgement, event_id: str, targets: Any, _guard: object
    ) -> None:
        await real(self, event_id, targets, None)

    return patch.object(EventAcknowledgement, "acknowledge", acknowledge)


def _as_planned(planned: Plan, *_arguments: object, **_options: object) -> Plan:
    return planned


def _still_held(self: ElectionState) -> bool:
    return self.term is not None


def _with_ours_alone() -> Block:
    """A write of adminState has the members that it changes, and no other ones."""
    real = admin_states.with_states

    def edit(body: Any, memberships: Any, *, restore: bool) -> network_bodies.Edit:
        found = real(body, memberships, restore=restore)
        listed = found.body["properties"]["loadBalancerBackendAddresses"]
        states = {str(entry["name"]): entry for entry in listed}
        before = {
            str(entry["name"]): entry
            for entry in body["properties"]["loadBalancerBackendAddresses"]
        }
        found.body["properties"]["loadBalancerBackendAddresses"] = [
            entry for name, entry in states.items() if entry != before.get(name)
        ]
        return found

    return _all(
        patch.object(admin_states, "with_states", edit),
        patch.object(admin_states, "check_written", _returning(None)),
    )


SWITCHES: Mapping[str, Safeguard] = MappingProxyType(
    {
        "ability": Safeguard("S7 in time", _never(AbilityWatch, "inability", "")),
        "admin-state": Safeguard("S2 floor", _never(PoolMembership, "_admin_down", ())),
        "blob-limits": Safeguard("L2 progress", _unbounded_blobs),
        "case-folding": Safeguard("L1 converge", _case_sensitive),
        "close-by-record": Safeguard("S8 close", _never(core_closing, "_closes_alone", True)),
        "current-report": Safeguard(
            "S1 ack", lambda: patch.object(planning_closing, "current_report", _any_report)
        ),
        "date-correction": Safeguard("S7 in time", _never(EventWatcher, "_correct", None)),
        "ends-of-the-absent": Safeguard("V1 verdict", _ends_of_all),
        "floor": Safeguard("S2 floor", _never(Floors, "shortage", "")),
        "continued-ledger": Safeguard("L1 converge", _ledger_by_name),
        "early-end": Safeguard("L2 progress", _following_operations_alone),
        "fresh-acknowledgement": Safeguard("S1 ack", _without_reads_while_out),
        "guarded-channel": Safeguard("S1 ack", _unguarded_channel),
        "if-match-on-ledger": Safeguard("S5 write-ahead", _ledger_without_if_match),
        "if-match-on-nic": Safeguard("S3 exact", _without_if_match("/networkinterfaces/")),
        "if-match-on-pool": Safeguard("S3 exact", _without_if_match("/backendaddresspools/")),
        "imds-decides": Safeguard("S6 no early return", _believing_resource_graph),
        "kept-as-lost": Safeguard("S5 write-ahead", _forgetting_what_is_absent),
        "lease-deadline": Safeguard(
            "S4 fence", lambda: patch.object(ElectionState, "is_valid", _still_held)
        ),
        "lease-id-on-ledger": Safeguard("L1 converge", _ledger_without_lease_id),
        "ledger-says-what": Safeguard("S3 exact", _restoring_every_pool),
        "observed-out": Safeguard("S1 ack", _answering_yes(acknowledgement, "_ready")),
        "open-without-news": Safeguard("S9 open", _waiting_for_news),
        "portions": Safeguard(
            "L2 progress", lambda: patch.object(portions, "WHOLE_TRIES", sys.maxsize)
        ),
        "power-state": Safeguard("S6 no early return", _never(restoration, "_runs", True)),
        "proof-of-closed": Safeguard("S1 ack", _never(planning_closing, "_has_refused", True)),
        "read-ways": Safeguard("S7 in time", _one_way_to_read),
        "report-of-this-boot": Safeguard("S1 ack", _never(planning_closing, "outlasts", True)),
        "requests-as-a-set": Safeguard("S6 no early return", _one_request_for_a_vm),
        "retry-after": Safeguard(
            "H1 quiet",
            lambda: _all(
                _never(error_mapping, "retry_after", None)(),
                _never(request_waits, "retry_after", None)(),
            ),
        ),
        "old-replies": Safeguard("S5 write-ahead", _never(ShownEtags, "is_old", False)),
        "second-channel": Safeguard(
            "L2 progress", _never(acknowledger, "channel_for", Channel.IMDS)
        ),
        "set-identity": Safeguard("S5 write-ahead", _never(BlobOwner, "other_owner", "")),
        "shared-floor": Safeguard("S2 floor", _counting_other_sets),
        "shown-somewhere": Safeguard("S1 ack", _never(acknowledgement, "is_hidden", False)),
        "single-reads": Safeguard("S7 in time", _lists_only),
        "two-clean-polls": Safeguard(
            "S6 no early return", _never(restoration, "_two_clean_polls", True)
        ),
        "state-full-list": Safeguard("S3 exact", _with_ours_alone),
        "state-if-match": Safeguard("S3 exact", _without_if_match("/backendaddresspools/")),
        "state-refusal": Safeguard("S7 in time", _never(admin_state, "is_refused", False)),
        "state-verified": Safeguard(
            "S1 ack", lambda: _all(_without_verifying(), _without_reads_while_out())
        ),
        "verdicts": Safeguard(
            "V1 verdict", lambda: patch.object(reconciler, "with_events", _as_planned)
        ),
        # The reads before an acknowledgement notice the same, so both are switched off.
        "verify-by-get": Safeguard(
            "S1 ack", lambda: _all(_without_verifying(), _without_reads_while_out())
        ),
        "write-ahead": Safeguard("S5 write-ahead", _without_write_ahead),
        "yielding": Safeguard("S7 in time", _without_yielding),
    }
)


@contextmanager
def without(name: str) -> Iterator[None]:
    """Switch one safeguard off; an empty name switches none."""
    block = SWITCHES[name].off() if name else nullcontext()
    with block:
        yield
