"""The true state of a set while its history is replayed, change by change.

Built from the history alone: what the simulated Azure did, and, where the history has them, the
requests and replies with the instants at which they left and arrived. Laws read it; it judges
nothing. A history without requests leaves `Write.polls` empty, and takes what was true when Azure
accepted a write for what was true when the write left.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.simulator.world.access import OPERATOR
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.history import Change
from controller.simulator.world.world import World
from tests.laws.closed_vms import ClosedVms
from tests.laws.conditions import Conditions
from tests.laws.ledger_document import (
    OPERATOR_BLOBS,
    epoch_of,
    held_by_floor,
    held_by_state,
    identity,
    is_ledger,
    is_ledger_write,
    members_of,
    parsed,
    recorded,
    seconds_of,
    states_without_identity,
)

PEOPLE = frozenset(
    {
        "add_address",
        "delete_pool",
        "delete_vm",
        "join_pool",
        "leave_pool",
        "put_back",
        "recreate_balancer",
        "recreate_nic",
        "recreate_pool",
        "recreate_vm",
    }
)
"""Acts by which people decide which VMs are in a pool."""
ADMIN_STATE = "adminState of "
PLATFORM = "platform policy"
SET_CHANGES = ("converted to a scale set", "turned into an availability set")
"""What the simulated Azure records when a set becomes another one."""
LEASE_REFUSED = (404, 409, 412)
"""Replies that mean to a holder that its lease is gone; any other may be a passing fault."""
READ_WITHIN_S = 13.0
"""An agent has read after this time what another client changed in a pool, of a VM that is out."""
ARM_TIMEOUT_S = 15.0
"""How long an agent waits for a reply of Resource Manager."""
ABSENCE_PROVEN_S = 125.0
"""How long a leader needs to believe that a pool was deleted: 404 alone can be a lagging reply."""
RECORDED_WITHIN_S = 10.0
"""What a leader reads is in the ledger after this time."""
VIEW_AGE_S = 2.0
"""How long before a write its agent has read what it changes."""
PREDECESSOR_S = 60.0
"""How long an edit by people cannot be distinguished from a late write of a former leader."""


@dataclass(slots=True, kw_only=True)
class Event:
    """One scheduled event as the platform has it."""

    ids: set[str]
    event_type: str
    resources: frozenset[str]
    """Folded names."""
    published_at: float
    not_before: float
    source: str
    duration_s: int
    started_first: bool
    acknowledged_at: float | None = None
    acknowledged_by: str = ""
    started_at: float | None = None
    over_at: float | None = None
    inside_at_start: frozenset[str] = frozenset()
    """Its VMs that truly were in a pool when it started."""
    inside_later: frozenset[str] = frozenset()
    """VMs that came back into a pool between its start and its end."""
    inside_for_long: frozenset[str] = frozenset()
    """Those of them that had been there long enough for an agent to read it."""
    reader: tuple[str, float] = ("", -math.inf)
    """Which leader has read it as started first, and when."""
    read: bool = False
    """Whether an agent that led has read it."""
    read_started: bool = False
    """Whether an agent that led has read that it started."""
    proven_out: frozenset[str] = frozenset()
    """Its VMs of which the ledger recorded, when it started, that they were seen out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """The reply that one agent received to one poll."""

    at: float
    good: bool
    events: Mapping[str, str] = field(default_factory=dict[str, str])
    """Status by folded id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A request that writes, with what was true when it left its agent."""

    vm: str
    sent_at: float
    ledger: Json
    down: Mapping[str, float]
    """Since when VMs were down, as Compute reports it where the history has requests."""
    replaced: Json = field(default_factory=dict[str, object])
    """The ledger that another client replaced so recently that no renewal had to show it yet."""
    polls: tuple[Poll, ...] = ()
    announced: tuple[Event, ...] = ()
    """Without requests: the visible events."""
    accepted_at: float = math.nan
    """Without requests: when Azure accepted it."""
    carries: "Write | None" = None
    """A write of an earlier leader that had not taken effect yet: its resource shows what that
    asked for, and this write sends it again."""

    def restores(self, vm: str) -> bool:
        """Return whether the ledger recorded that the VM was being restored."""
        return any(
            entry["vm"].casefold() == vm.casefold() and entry.get("restoring_at")
            for entry in self.ledger.get("entries", [])
        )

    def because_of(self, vm: str, event_id: str) -> bool:
        """Return whether the ledger recorded that the VM is out because of this event."""
        return any(
            reference["event_id"] == event_id
            for entry in self.ledger.get("entries", [])
            if entry["vm"].casefold() == vm
            for reference in entry["events"]
        )


@dataclass(slots=True, kw_only=True)
class Member:
    """One member of one pool, in or out."""

    vm: str
    inside: bool
    in_by: str = ""
    """What put it in last: the agent of a VM, "people", or nothing for how the world began."""
    out_by: str = ""
    """What took it out last."""
    wanted: bool = True
    """Whether people want it in."""
    moved_at: float = 0.0
    doubtful: bool = False
    """Whether people took it out when a removal by an agent could have taken effect already."""
    resource: str = ""
    """The folded id of what people wrote when they took it out last."""
    crossed: set[str] = field(default_factory=set[str])
    """Unanswered writes of agents that left just after people took it out: each can have done it,
    as far as its agent knows."""
    held_down: bool = False
    """Whether an agent takes it out by adminState Down."""
    before_down: str = ""
    """The adminState that it had before; empty if that is not known."""
    edited_down: bool = False
    """Whether people have set another state while it was held Down."""
    renewed: bool = False
    """Whether its pool, NIC or VM was created again while the ledger recorded it as removed, or its
    record was lost, and no agent remembers it. The laws leave open whether it comes back."""
    epoch: int = 0
    """Of the ledger that recorded it when people took it out: a leader of a later epoch cannot
    know that its predecessor did not do it."""


@dataclass(slots=True, kw_only=True)
class Tenure:
    """How long storage took one agent for the holder of the lease."""

    holder: str
    since: float
    until: float
    released: bool = False
    opened_at: float = math.inf
    """When its agent sent the ledger first."""


class Replay:
    """Replays a history that begins in the world `start`."""

    def __init__(self, conditions: Conditions, start: World) -> None:
        self.conditions = conditions
        self.pools: dict[str, dict[str, Member]] = {
            key(pool_id): {
                member.identity: Member(vm=member.label, inside=True)
                for member in start.members(pool_id)
            }
            for pool_id in start.pool_ids()
        }
        self.events: list[Event] = []
        self.down: dict[str, float] = {}
        """Since when VMs do not answer."""
        self.stopped: dict[str, float] = {}
        """Since when Compute reports that a VM does not run; it does not notice a freeze."""
        self.gone: set[str] = set()
        self.deleted_pools: set[str] = set()
        self.tenures: list[Tenure] = []
        self.broken_holder, self.break_known_at = "", -math.inf
        self.ledger: Json = {}
        """As stored."""
        self.last_ledger: Json = {}
        """The last one that could be read."""
        self.replaced_at, self.replaced = -math.inf, self.ledger
        """When another client last wrote the ledger, and what it said before."""
        self.unrecorded: dict[tuple[str, str], set[str]] = {}
        """The members of which another client has removed the record, and the VMs whose agents
        remember it."""
        self.ledger_sent_at = -math.inf
        self.sent: dict[str, Write] = {}
        self.arrived: Change | None = None
        self.writes: dict[str, Write] = {}
        self.writes_by_set: dict[tuple[str, bool], Write] = {}
        """The last write to each resource, and whether it was of another set."""
        self.unanswered: dict[str, set[str]] = {}
        """Serials of PUTs by resource that were not refused: they may have had their effect."""
        self.polls: dict[str, list[Poll]] = {}
        self.born_at: dict[str, float] = {}
        self.act, self.act_text = "", ""
        self.operator_at = -math.inf
        self.released_at: dict[str, float] = {}
        """When the ledger last ceased to record that the floor keeps a VM in rotation."""
        self.asked: dict[str, dict[str, float]] = {}
        """Until when the drain requests for a VM hold, by id."""
        self.calm_at = math.inf
        self.converged_at = math.inf
        self.parting = False
        self.idle_reads = 0
        self.doubled: set[str] = set()
        """The VMs on which a second agent ran: neither knows what the other one was asked."""
        self.wait_until: dict[tuple[str, str, str], float] = {}
        """Until when Azure asked to wait, by VM, method and path."""
        self.tags: dict[str, Json] = {}
        """The tags that people gave a NIC, by folded id."""
        self.deletions: set[tuple[float, str]] = set()
        self.accepted_at: dict[str, float] = {}
        """When Azure accepted the last write of an agent, by folded id."""
        self.stated_at: dict[tuple[str, str], float] = {}
        """When people last set the adminState of a VM, by pool."""
        self.overwritten: dict[tuple[str, str], str] = {}
        """The adminState that a write of the whole list replaced, or that a member had before its
        VM was created again unnoticed, by pool and member."""
        self.down_since: dict[tuple[str, str], float] = {}
        """Since when members have adminState Down, by folded pool id and name of the VM."""
        self.closed = ClosedVms(conditions.ledger, conditions.lease_s)
        self.renewed: set[str] = set()
        """Resources that were created again, by folded id."""
        self.conversion_unread = False
        """Whether the set became another one since the ledger last named its present set."""

    # --- questions

    @property
    def holder(self) -> str:
        """The VM whose agent holds the lease, or held it last; empty after a release."""
        last = self.tenures[-1] if self.tenures else None
        return "" if last is None or last.released else last.holder

    @property
    def held_until(self) -> float:
        """When the lease ends, or ended."""
        return self.tenures[-1].until if self.tenures else -math.inf

    def held(self, by: str, *, left_at: float, arrived_at: float) -> bool:
        """Return whether an agent held the lease when a request of it may have left."""
        if by == self.broken_holder and left_at < self.break_known_at:
            return True
        return any(
            tenure.holder == by and tenure.since <= arrived_at and left_at < tenure.until
            for tenure in self.tenures
        )

    def event(self, event_id: str) -> Event | None:
        """Return the event that has, or had, this id."""
        wanted = event_id.casefold()
        return next((each for each in self.events if wanted in each.ids), None)

    def inside(self, vm: str) -> list[tuple[str, Member]]:
        """Return the pools that truly contain a VM."""
        return [
            (pool, member)
            for pool, members in self.pools.items()
            for member in members.values()
            if member.inside and member.vm.casefold() == vm.casefold()
        ]

    def impacting(self, event: Event) -> bool:
        """Return whether the default policy, which every set has, acts on an event."""
        return event.event_type != "Freeze" or not 0 <= event.duration_s < 5

    def write_behind(self, change: Change) -> Write | None:
        """Return the agent's write that moved a member; None when people moved it."""
        by_people = (
            self.act in PEOPLE
            if self.conditions.requests_recorded
            else change.at == self.operator_at
        )
        if by_people or (change.at, str(change.detail["vm"])) in self.deletions:
            return None
        write = self._write_on(change)
        return None if write is None or write.vm == OPERATOR else write

    def _write_on(self, change: Change) -> Write | None:
        """Return the write that moved a member: of those to one pool, that of its own set.

        A write of another set to the pool carries on what its predecessor has asked for.
        """
        resource = key(str(change.detail["nic"]) or change.subject)
        latest = self.writes.get(resource)
        if not change.detail["vm"]:
            return latest  # the address of no VM is of no set
        own = self.writes_by_set.get((resource, change.detail["vm"] in self.conditions.others))
        member = self.pools.get(key(change.subject), {}).get(identity(change))
        if own is None or (member is not None and own.sent_at < member.moved_at):
            return latest
        return own

    def floor(self, pool: str) -> int:
        """Return how many machines a pool must keep."""
        floor = self.conditions.floors.get(pool, 0)
        if isinstance(floor, int):
            return floor
        full = {
            self.machine(name, member)
            for name, member in self.pools.get(pool, {}).items()
            if member.wanted and (member.inside or member.vm not in self.gone)
        }
        return -(-int(floor.removesuffix("%")) * len(full) // 100)

    def machine(self, name: str, member: Member) -> str:
        """Return what counts as one machine: a peer once, another member as often as it is listed.

        Agents cannot know which members outside of their set are the same machine.
        """
        return member.vm if member.vm in self.conditions.peers - self.gone else name

    def needed_s(self, event: Event) -> float:
        """Return the longest time that the writes for an event take."""
        busy = sum(1 for each in self.events if each.over_at is None)
        absent_s = ABSENCE_PROVEN_S if self.deleted_pools else 0.0
        return self.conditions.needed_s(vms=len(event.resources), busy=busy) + absent_s

    def unmanaged(self, vm: str) -> bool:
        """Return whether people want a VM in no pool."""
        return not any(
            member.wanted and member.vm.casefold() == vm
            for members in self.pools.values()
            for member in members.values()
        )

    def theirs(self, change: Change) -> bool:
        """Return whether a change is that of another set, which is judged by itself."""
        others, detail = self.conditions.others, change.detail
        if not others:
            return False
        match change.kind.partition("_")[0]:
            case "sent" | "arrived" | "request":
                return detail["vm"] in others
            case "write":
                return detail["by"] in others
            case "log" | "leaked" | "agent":
                return change.subject in others
            case "event":
                named, strangers = names(change), self.conditions.strangers
                return not named & self.conditions.peers and bool(named & others or not strangers)
            case "member":
                write = self.write_behind(change)
                return write is not None and write.vm in others
            case "blob" | "lease":
                own = change.subject.startswith(self.conditions.ledger.removesuffix("json"))
                stated = "/pools/" in change.subject and detail.get("by") not in others
                return not (own or stated)
            case _:
                return False

    # --- following

    def as_move(self, change: Change) -> Change:
        """Return a change of adminState that takes a member out, or back in, as such a move.

        Down is what out of rotation means there. A write of the pool moves it, and no NIC.
        """
        if change.kind != "member_state":
            return change
        before, after = (change.detail[name] == "Down" for name in ("before", "state"))
        members = self.pools.get(key(change.subject), {})
        member = members.get(identity(change))
        ours = member is not None and (member.held_down if before else True)
        known = (self.ledger, self.last_ledger, self.replaced)
        recorded_so = any(held_by_state(each, change) for each in known)
        if before == after or not ours or not (before or recorded_so):
            return change
        detail = {**change.detail, "nic": ""}
        return replace(change, kind="member_in" if before else "member_out", detail=detail)

    def follow(self, change: Change) -> None:
        """Take one change in."""
        kind, detail = change.kind, change.detail
        if self.theirs(change):
            self._follow_theirs(change)
            return
        if kind == "operator":
            self.operator_at = change.at
        match kind:
            case "sent":
                self._sent(change)
            case "arrived":
                self.arrived = change
            case "request":
                self._polled(change)
                self._answered(change)
                self.arrived = None
            case "write":
                self._wrote(change)
            case "blob_written" if is_ledger_write(change):
                self._ledger(change)
            case "blob_written" if change.subject.endswith(".requests.json"):
                self._requested(change)
            case "roll":
                self._forget_waits(change.subject)  # a new process cannot know them
            case "blob_replaced" if not change.subject.endswith(OPERATOR_BLOBS):
                # What other clients write is what the ledger says from then on.
                self.replaced_at, self.replaced = change.at, self.ledger
                body = str(detail["body"])
                self._unrecord(parsed(body))
                self.ledger = parsed(body)
                self.last_ledger = self.ledger if is_ledger(body) else self.last_ledger
            case "member_in" | "member_out":
                self._moved(change)
            case "member_state":
                self._stated(change)
            case "vm_down" | "vm_up" | "vm_state":
                self._vm(change)
            case "operator" if detail["what"] == "tags" and self.act == "edit_tags":
                name = f"edit-{self.act_text.rpartition('value=')[2]}"
                self.tags.setdefault(key(change.subject), {})[name] = "by hand"
            case "act":
                self.act, self.act_text = change.subject, str(detail["text"])
                self._drain_request(change)
            case "withdrawn":
                self.asked.setdefault(str(detail["vm"]), {})[change.subject] = change.at
            case "act_over":
                self.act = ""
            case "operator" if detail["what"] == "deleted":
                self.deleted_pools.add(key(change.subject))
                for member in self.pools.get(key(change.subject), {}).values():
                    member.wanted = False
            case "operator" if str(detail["what"]).startswith(ADMIN_STATE):
                self._admin_state(change, str(detail["what"]).removeprefix(ADMIN_STATE))
            case "operator" if detail["what"] == "created again":
                self._created_again(key(change.subject))
            case "operator" if detail["what"] in SET_CHANGES:
                self.conversion_unread = True
            case "agent_started":
                if change.subject.casefold() in self.closed.awake_since:
                    self.doubled.add(change.subject)
                self.born_at[change.subject] = change.at
                self.polls[change.subject] = []
                self._forget_waits(change.subject)
            case "agent_killed" | "agent_ended" if change.subject not in self.doubled:
                self._forget_unrecorded(change.subject.casefold())
            case "calm":
                self.calm_at = change.at
            case "converged":
                # A set that waits for a stopped VM is not idle.
                idle = not self.last_ledger.get("entries")
                self.converged_at = change.at if idle else math.inf
            case "goodbye":
                self.parting = True
            case _:
                self._lease(change)
                self._event(change)
        self.closed.follow(change, self.ledger)

    def _follow_theirs(self, change: Change) -> None:
        """Take in what another set did: of its requests, where its members are."""
        match change.kind:
            case "sent" if change.detail["method"] in ("PUT", "POST"):
                vm, serial = str(change.detail["vm"]), str(change.detail["serial"])
                self.sent[serial] = Write(vm=vm, sent_at=change.at, ledger={}, down={})
            case "arrived":
                self.arrived = change
            case "request":
                self.arrived = None
            case "write":
                self._wrote(change)
            case "member_in" | "member_out":
                self._moved(change)
            case _:
                pass

    def _wrote(self, change: Change) -> None:
        if (write := self.write_of(change)) is not None:
            resource, theirs = key(change.subject), write.vm in self.conditions.others
            write = replace(write, carries=self._carried(resource, write))
            self.writes[resource] = self.writes_by_set[resource, theirs] = write
            self.accepted_at[resource] = change.at

    def _carried(self, resource: str, write: Write) -> Write | None:
        """Return the write of another leader to a pool that has had no effect when this one left.

        A pool is written as a whole, and shows what was asked for before that has taken effect.
        """
        last, accepted_at = self.writes.get(resource), self.accepted_at.get(resource, -math.inf)
        moved_at = (member.moved_at for member in self.pools.get(resource, {}).values())
        if last is None or last.vm == write.vm or max(moved_at, default=math.inf) > accepted_at:
            return None
        return last

    def _ledger(self, change: Change) -> None:
        before, self.ledger = self.last_ledger, parsed(str(change.detail["body"]))
        self.last_ledger = self.ledger or before
        self._recorded_too_late(before)
        for entry in self.last_ledger.get("entries", []):
            for name in members_of(entry):
                self.unrecorded.pop(name, None)
        if self.last_ledger.get("converted_to") != before.get("converted_to"):
            self.conversion_unread = False
        for vm in held_by_floor(before) - held_by_floor(self.last_ledger):
            self.released_at[vm] = change.at
        if change.detail["body"] and self.arrived is not None:
            self.ledger_sent_at = float(str(self.arrived.detail["sent_at"]))
            if self.tenures and self.tenures[-1].holder == change.detail["by"]:
                last = self.tenures[-1]
                last.opened_at = min(last.opened_at, self.ledger_sent_at)

    def _drain_request(self, change: Change) -> None:
        if self.act == "ask":
            given = dict(each.split("=") for each in self.act_text.split()[1:])
            until = change.at + float(given["for_s"])
            self.asked.setdefault(given["vm"], {})[given["request_id"]] = until

    def _requested(self, change: Change) -> None:
        """Note the drain requests that a command has written."""
        for request in parsed(str(change.detail["body"])).get("requests", []):
            until = seconds_of(request["until"])
            held, request_id = self.asked.setdefault(request["vm"], {}), request["request_id"]
            ended = min(held.get(request_id, until), change.at)
            held[request_id] = ended if request.get("ended_at") else until

    def write_of(self, change: Change) -> Write | None:
        """Return the request behind a change, as it was when it left."""
        if self.conditions.requests_recorded:
            return self.sent.get(str(self.arrived.detail["serial"])) if self.arrived else None
        return Write(
            vm=str(change.detail["by"]),
            sent_at=self.conditions.left_at(change),
            ledger=self.ledger,
            down=dict(self.down),
            announced=tuple(event for event in self.events if event.over_at is None),
            accepted_at=change.at,
        )

    def _answered(self, change: Change) -> None:
        status = int(str(change.detail["status"]))
        # After a 5xx a write may still have had its effect.
        refused = change.detail["delivery"] == "normal" and 400 <= status < 500
        if refused and self.arrived is not None:
            serial = str(self.arrived.detail["serial"])
            self.unanswered.get(key(change.subject), set()).discard(serial)
            for members in self.pools.values():
                for member in members.values():
                    member.crossed.discard(serial)
            renewal = change.detail["query"] == "renew"
            if renewal and status in LEASE_REFUSED and change.detail["vm"] == self.broken_holder:
                # A reply after the time-out is not received.
                sent_at = float(str(self.arrived.detail["sent_at"]))
                received_until = sent_at + self.conditions.request_timeout_s
                if change.at < received_until:
                    self.break_known_at = min(self.break_known_at, received_until)
        wait = str(change.detail["wait"])
        if wait.isdecimal() and change.detail["service"] == "arm" and not self._too_late(change):
            vm, method = str(change.detail["vm"]), str(change.detail["method"])
            asked = (vm, method, change.subject.casefold())
            self.wait_until[asked] = change.at + float(wait)

    def _too_late(self, change: Change) -> bool:
        """Return whether a reply of Resource Manager comes when its client waits no more.

        A leader drops what it has asked in one tenure before it opens the ledger in the next.
        """
        if self.arrived is None:
            return False
        sent_at, vm = float(str(self.arrived.detail["sent_at"])), str(change.detail["vm"])
        opened_at = [each.opened_at for each in self.tenures if each.holder == vm]
        return change.at >= sent_at + ARM_TIMEOUT_S or (bool(opened_at) and sent_at < opened_at[-1])

    def _forget_waits(self, vm: str) -> None:
        self.wait_until = {
            asked: until for asked, until in self.wait_until.items() if asked[0] != vm
        }

    def _sent(self, change: Change) -> None:
        if change.at > self.converged_at and change.detail["service"] == "arm":
            self.idle_reads += 1
        if change.detail["method"] == "PUT" and change.detail["service"] == "arm":
            resource, serial = key(change.subject), str(change.detail["serial"])
            self.unanswered.setdefault(resource, set()).add(serial)
            for member in self._taken_out_just_before(resource, change.at):
                member.crossed.add(serial)
        if change.detail["method"] in ("PUT", "POST"):
            vm = str(change.detail["vm"])
            self.sent[str(change.detail["serial"])] = Write(
                vm=vm,
                sent_at=change.at,
                ledger=self.ledger,
                replaced=self.replaced if self._unseen(change.at) else {},
                down=dict(self.stopped),
                polls=tuple(self.polls.get(vm, ())[-6:]),
            )

    def _taken_out_just_before(self, resource: str, at: float) -> Iterator[Member]:
        """Yield the recorded members that people took out after the view behind a write."""
        for members in self.pools.values():
            for member in members.values():
                by_people = member.out_by == "people" and not member.inside and member.epoch
                if by_people and member.resource == resource and at <= member.moved_at + VIEW_AGE_S:
                    yield member

    def _unseen(self, at: float) -> bool:
        """Return whether a leader could still not know that another client wrote the ledger.

        The reply to its next renewal shows it, or its lease expires.
        """
        return at < self.replaced_at + self.conditions.lease_s

    def _polled(self, change: Change) -> None:
        said = str(change.detail["said"])
        if said and self._received(change):
            found = (entry.rpartition(":") for entry in said.split(",")[1:])
            poll = Poll(
                at=change.at,
                good=said.startswith("!"),
                events={event_id.casefold(): status for event_id, _, status in found},
            )
            self.polls.setdefault(str(change.detail["vm"]), []).append(poll)
            if poll.good and change.detail["vm"] == self.holder:
                self._read_by_leader(poll)

    def _read_by_leader(self, poll: Poll) -> None:
        """Note which events a leader has read as started, and lived to record."""
        for event_id, status in poll.events.items():
            event = self.event(event_id)
            if event is None:
                continue
            born_at = self.born_at.get(self.holder, -math.inf)
            led = poll.at < self.held_until and self.tenures[-1].since >= born_at
            event.read = event.read or led
            if status != "Started":
                continue
            reader, since = event.reader
            if reader != self.holder or since < self.born_at.get(reader, math.inf):
                event.reader = self.holder, poll.at
            elif poll.at > since + RECORDED_WITHIN_S:
                event.read_started = True

    def _received(self, change: Change) -> bool:
        """Return whether the agent still waits: a reply may come after a frozen VM goes on."""
        if self.arrived is None:
            return True
        timeout_s = self.conditions.poll_timeout_s
        first_s = max(self.conditions.first_poll_timeout_s, timeout_s)
        asked_at = float(str(self.arrived.detail["sent_at"]))
        polled = self.polls.get(str(change.detail["vm"]))
        return change.at < asked_at + (timeout_s if polled else first_s)

    def _moved(self, change: Change) -> None:
        members = self.pools.setdefault(key(change.subject), {})
        name = identity(change)
        vm = str(change.detail["vm"]) or str(change.detail["address"])
        member = members.setdefault(name, Member(vm=vm, inside=False, wanted=False))
        write, came, detail = self.write_behind(change), change.kind == "member_in", change.detail
        self.down_since.pop((key(change.subject), str(change.detail["vm"]).casefold()), None)
        who = write.vm if write is not None else "people"
        member.inside, member.moved_at = came, change.at
        member.held_down = not came and "state" in detail
        if member.held_down and not member.edited_down:
            # A write that is under way overwrites what people set, before an agent can read it.
            place = key(change.subject), vm.casefold()
            accepted_at = self.accepted_at.get(place[0], math.inf)
            unseen = self.stated_at.get(place, -math.inf) > accepted_at
            member.before_down = "" if unseen else str(detail["before"])
        member.edited_down = member.edited_down and not came
        if came:
            member.in_by = who
            self._back_during_events(vm)
        else:
            member.out_by = who
        if came and write is not None and not member.wanted and in_doubt(member, write):
            member.wanted = True
        if write is None:
            member.wanted = came
            known = recorded(self.last_ledger, change)
            member.epoch = epoch_of(self.last_ledger) if known else 0
            member.resource = resource = key(str(change.detail["nic"]) or change.subject)
            member.crossed.clear()
            in_flight = not self.conditions.requests_recorded or self.unanswered.get(resource)
            inherited = self._inherited(change)
            member.doubtful = bool(member.epoch) and bool(in_flight or inherited)

    def _back_during_events(self, vm: str) -> None:
        """Note that a VM came back into a pool, at the events that have begun and go on."""
        for event in self.events:
            if event.started_at is not None and event.over_at is None:
                event.inside_later |= {vm.casefold()}

    def _admin_state(self, change: Change, text: str) -> None:
        """Note the adminState of the members of a VM; a VM that is out of the pool has none."""
        vm, _, state = text.rpartition(": ")
        pool, name = key(change.subject), vm.casefold()
        self.stated_at[pool, name] = change.at
        for member in self.pools.get(pool, {}).values():
            if member.held_down and member.vm.casefold() == name and state != "Down":
                member.inside, member.held_down, member.before_down = True, False, ""
                member.edited_down = True
                member.moved_at, member.in_by = change.at, "people"
                self._back_during_events(name)
        inside = any(pool == where for where, _ in self.inside(name))
        if state == "Down" and inside:
            self.down_since.setdefault((pool, name), change.at)
        else:
            self.down_since.pop((pool, name), None)

    def _stated(self, change: Change) -> None:
        """Note an adminState that was put back after its NIC, whichever client set Down."""
        place = key(change.subject), str(change.detail["vm"]).casefold()
        if "Down" not in (change.detail["before"], change.detail["state"]):
            self.overwritten[place[0], identity(change)] = str(change.detail["before"])
        if change.detail["state"] == "Down":
            self.down_since.setdefault(place, change.at)
        else:
            self.down_since.pop(place, None)

    def _created_again(self, resource: str) -> None:
        self.deleted_pools.discard(resource)
        vm = resource.rpartition("/virtualmachines/")[2]
        self.renewed.add(resource)
        for event in self.events:
            if event.over_at is None:
                event.inside_later |= event.resources  # a new resource begins in its pools
        for entry in self.last_ledger.get("entries", []):
            if entry["vm"].casefold() == vm:
                # Without a vmId an agent cannot know that the member is another one by now.
                self.overwritten.update(states_without_identity(entry))
            for pool, name in members_of(entry):
                member = self.pools.get(pool, {}).get(name)
                touched = resource == pool or name.startswith(f"{resource}/")
                if member is not None and (touched or member.vm.casefold() == vm):
                    member.renewed = member.renewed or not member.inside

    def _recorded_too_late(self, before: Json) -> None:
        """Note what was recorded from a view in which people had not taken it out yet.

        Its leader drops it with the next read; a successor takes it for removed by that leader.
        The same holds for a member that was removed by a leader whose record of it is lost.
        """
        known = {name for entry in before.get("entries", []) for name in members_of(entry)}
        for entry in self.last_ledger.get("entries", []):
            for pool, name in set(members_of(entry)) - known:
                member = self.pools.get(pool, {}).get(name)
                if member is None:
                    continue
                if not member.wanted and not member.epoch:
                    member.epoch = epoch_of(self.last_ledger)
                hidden = self.conditions.stale_reads and member.wanted and not member.inside
                if hidden and seconds_of(entry["recorded_at"]) > member.moved_at:
                    member.renewed = True

    def _unrecord(self, after: Json) -> None:
        """Note what another client takes out of the ledger, and which agents remember it."""
        left = {name for entry in after.get("entries", []) for name in members_of(entry)}
        for entry in self.last_ledger.get("entries", []):
            for name in set(members_of(entry)) - left:
                self.unrecorded[name] = {
                    vm
                    for vm, views in self.closed.views.items()
                    for known in views[-1].get("entries", [])
                    if name in members_of(known)
                }

    def _forget_unrecorded(self, vm: str) -> None:
        """An agent that ends forgets everything; what none remembers cannot come back."""
        for (pool, name), knowing in self.unrecorded.items():
            knowing.discard(vm)
            member = self.pools.get(pool, {}).get(name)
            if not knowing and member is not None and not member.inside:
                member.renewed = True

    def _inherited(self, change: Change) -> bool:
        """Return whether a predecessor, whose writes may still land, has recorded this member."""
        since = self.last_ledger.get("leader_since")
        if since is None or change.at - seconds_of(since) > PREDECESSOR_S:
            return False
        return any(
            seconds_of(entry["recorded_at"]) < seconds_of(since)
            for entry in self.last_ledger.get("entries", [])
            if (key(change.subject), identity(change)) in members_of(entry)
        )

    def _vm(self, change: Change) -> None:
        vm, state = change.subject, str(change.detail.get("state", ""))
        if change.kind == "vm_up":
            self.down.pop(vm, None)
            self.stopped.pop(vm, None)
            self.gone.discard(vm)
        elif change.kind == "vm_down":
            self.down.setdefault(vm, change.at)
            if state == "frozen":
                self.stopped.pop(vm, None)  # a reboot is over, and Compute reports no freeze
            else:
                self.stopped.setdefault(vm, change.at)
            if state == "deleted":
                self.gone.add(vm)

    def _lease(self, change: Change) -> None:
        last = self.tenures[-1] if self.tenures else None
        match change.kind:
            case "lease_acquire" | "lease_renew":
                by = str(change.detail["by"])
                if change.kind == "lease_acquire":
                    self._forget_waits(by)  # a tenure starts from nothing
                until = change.at + self.conditions.lease_s
                if last is not None and last.holder == by and change.at <= last.until:
                    last.until, last.released = until, False
                    return
                if last is not None:
                    last.until = min(last.until, change.at)
                self.tenures.append(Tenure(holder=by, since=change.at, until=until))
            case "lease_release" if last is not None:
                last.until, last.released = min(last.until, change.at), True
            case "lease_broken" if last is not None:
                # The holder learns it from the reply to its next renewal, or by its own count.
                self.broken_holder, self.break_known_at = self.holder, last.until
                last.until = min(last.until, change.at + float(str(change.detail["period"])))
            case _:
                pass

    def _event(self, change: Change) -> None:
        detail = change.detail
        match change.kind:
            case "event_published":
                self.events.append(
                    Event(
                        ids={change.subject.casefold()},
                        event_type=str(detail["event_type"]),
                        resources=names(change),
                        published_at=change.at,
                        not_before=float(str(detail["not_before"])),
                        source=str(detail["source"]),
                        duration_s=int(str(detail["duration_s"])),
                        started_first=bool(detail["started_first"]),
                    )
                )
            case "event_acknowledged":
                event = self.event(change.subject)
                if event is not None and event.acknowledged_at is None:
                    event.acknowledged_at = change.at
                    event.acknowledged_by = str(detail["by"])
            case "event_started":
                event = self.event_of(change)
                if event is not None:
                    event.ids.add(change.subject.casefold())
                    event.started_at = change.at
                    event.inside_at_start = self._inside(event, change.at)
                    event.proven_out = frozenset(
                        entry["vm"].casefold()
                        for entry in self.last_ledger.get("entries", [])
                        if entry.get("out_at")
                    )
                    # A VM that is closed, stopped or deleted gets nothing new in its pools.
                    inside = self._inside(event, change.at - READ_WITHIN_S)
                    idle = {*self.closed.known_closed(change.at), *self.down, *self.gone}
                    # Without a leader, or by one that begins, nothing is read: a later one knows
                    # what the ledger says.
                    since = self.tenures[-1].since if self.tenures else math.inf
                    watched = self.held_until >= change.at >= since + READ_WITHIN_S
                    event.inside_for_long = inside - idle if watched else frozenset()
            case "event_gone" | "event_cancelled":
                event = self.event(change.subject)
                if event is not None:
                    event.over_at = change.at
            case _:
                pass

    def _inside(self, event: Event, since: float) -> frozenset[str]:
        """Return the VMs of an event that are in a pool, and have been since then."""
        return frozenset(
            vm
            for vm in event.resources
            if any(member.moved_at <= since for _, member in self.inside(vm))
        )

    def event_of(self, change: Change) -> Event | None:
        """Return the event that a change is about; some events get another id when they start."""
        return self.event(change.subject) or self.event(str(change.detail.get("was", "")))


def in_doubt(member: Member, write: Write) -> bool:
    """Return whether the agent could not know that people had taken a member out."""
    return (
        member.doubtful or bool(member.crossed) or member.epoch not in (0, epoch_of(write.ledger))
    )


def names(change: Change) -> frozenset[str]:
    """Return the folded names of an event's resources."""
    return frozenset(name.casefold() for name in str(change.detail["resources"]).split(","))


def by_agent(change: Change) -> bool:
    """Return whether an agent did this, and neither the platform nor a person."""
    return str(change.detail.get("by", "")) not in ("", OPERATOR, PLATFORM)
