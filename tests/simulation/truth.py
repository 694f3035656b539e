"""The true state of the world while its history is replayed, entry by entry.

Built from nothing but the history: what the simulated Azure did, and what was seen on the wires at
which true instant. Laws ask it; it judges nothing.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.simulator.access import OPERATOR
from controller.simulator.bodies import Json, key
from controller.simulator.history import Change
from controller.simulator.world import World

from .scenario import Scenario

PEOPLE = frozenset({"leave_pool", "join_pool", "add_address", "delete_pool", "delete_vm"})
"""Acts by which people decide who is in a pool."""
PLATFORM = "platform policy"
LEASE_REFUSED = (404, 409, 412)
"""Answers that tell a holder that its lease is gone; any other may be the weather."""
PREDECESSOR_S = 60.0
"""For so long nobody can tell what people do from a late write of a former leader."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What one agent was told by one poll."""

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
    polls: tuple[Poll, ...]
    people_at: float
    """When people last decided who is in a pool."""

    def because_of(self, vm: str, event_id: str) -> bool:
        """Tell whether the ledger said that the VM is out because of this."""
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
    """Who put it in last: a VM name, "people", or nothing for how the world began."""
    out_by: str = ""
    """Who took it out last."""
    wanted: bool = True
    """Whether people want it in."""
    moved_at: float = 0.0
    doubtful: bool = False
    """Whether people took it out when a removal of ours could have taken effect already."""
    epoch: int = 0
    """Of the ledger that had it recorded when people took it out: who leads in a later one cannot
    know that it was not the predecessor."""


class Truth:
    """Replays a history."""

    def __init__(self, scenario: Scenario, start: World, world: World) -> None:
        self.scenario = scenario
        self.start, self.world = start, world
        """As it began, and as it is in the end."""
        self.lease_s = float(str(scenario.election.get("lease_duration_s", 30)))
        self.request_timeout_s = float(str(scenario.election.get("request_timeout_s", 4)))
        self.peers = frozenset(vm.name for vm in start.peers())
        self.pools: dict[str, dict[str, Member]] = {
            key(pool_id): {
                member.identity: Member(vm=member.label, inside=True)
                for member in start.members(pool_id)
            }
            for pool_id in start.pool_ids()
        }
        self.floors = {
            key(pool): scenario.floors.get(pool.rsplit("/", 1)[-1], 1) for pool in start.pool_ids()
        }
        self.events: list[Event] = []
        self.down: dict[str, float] = {}
        """Since when VMs do not answer."""
        self.stopped: dict[str, float] = {}
        """Since when Compute says of a VM that it does not run; a freeze it does not notice."""
        self.gone: set[str] = set()
        self.deleted_pools: set[str] = set()
        self.holder, self.held_until = "", -math.inf
        self.broken_holder, self.break_told_at = "", -math.inf
        self.ledger: Json = {}
        self.ledger_sent_at = -math.inf
        self.sent: dict[str, Write] = {}
        self.arrived: Change | None = None
        self.writes: dict[str, Write] = {}
        self.unanswered: dict[str, set[str]] = {}
        """Serials of PUTs by resource that were not refused: they may have had their effect."""
        self.polls: dict[str, list[Poll]] = {}
        self.born_at: dict[str, float] = {}
        self.act, self.act_text = "", ""
        self.released_at: dict[str, float] = {}
        """When the ledger last said no more that the floor keeps a VM in."""
        self.asked: dict[str, tuple[str, float]] = {}
        """The request by which a VM was last asked for, and until when."""
        self.people_at = -math.inf
        self.calm_at = math.inf
        self.converged_at = math.inf
        self.parting = False
        self.idle_reads = 0
        self.told_to_wait: dict[tuple[str, str, str], float] = {}
        """Until when requests of a VM, by method and path, were told to wait."""
        self.tags: dict[str, Json] = {}
        """The tags that people gave a NIC, by folded id."""
        self.deletions: set[tuple[float, str]] = set()

    # --- asking

    def event(self, event_id: str) -> Event | None:
        """Return the event that has, or had, this id."""
        wanted = event_id.casefold()
        return next((each for each in self.events if wanted in each.ids), None)

    def inside(self, vm: str) -> list[tuple[str, Member]]:
        """Return where a VM truly stands."""
        return [
            (pool, member)
            for pool, members in self.pools.items()
            for member in members.values()
            if member.inside and member.vm.casefold() == vm.casefold()
        ]

    def impacting(self, event: Event) -> bool:
        """Tell whether the default policy, which every scenario has, acts on an event."""
        return event.event_type != "Freeze" or not 0 <= event.duration_s < 5

    def write_behind(self, change: Change) -> Write | None:
        """Return the agent's write that moved a member; None when somebody else moved it."""
        if self.act in PEOPLE or (change.at, str(change.detail["vm"])) in self.deletions:
            return None
        return self.writes.get(key(str(change.detail["nic"]) or change.subject))

    def floor(self, pool: str) -> int:
        """Return how many machines a pool must keep."""
        floor = self.floors.get(pool, 0)
        if isinstance(floor, int):
            return floor
        full = {
            member.vm if member.vm in self.peers - self.gone else name
            for name, member in self.pools[pool].items()
            if member.wanted and (member.inside or member.vm not in self.gone)
        }
        return -(-int(floor.removesuffix("%")) * len(full) // 100)

    def needed_s(self, event: Event) -> float:
        """Return how long the writes for an event take at the worst, one after the other."""
        knobs = self.scenario.settings
        slowest_s = max(
            float(str(knobs.get(name, default)))
            for name, default in (("operation_latency_s", 10), ("pool_operation_latency_s", 5))
        ) + float(str(knobs.get("operation_jitter_s", 0)))
        busy = sum(1 for each in self.events if each.over_at is None)
        writes = len(event.resources) * self.scenario.nics_per_vm + len(self.scenario.ip_pools)
        drain_s = float(str(self.scenario.policy.get("connection_drain_s", 30)))
        return (writes + 2 * busy) * (slowest_s + 3.0) + drain_s

    def unmanaged(self, vm: str) -> bool:
        """Tell whether people want a VM in no pool."""
        return not any(
            member.wanted and member.vm.casefold() == vm
            for members in self.pools.values()
            for member in members.values()
        )

    # --- following

    def follow(self, change: Change) -> None:
        """Take one change in."""
        kind, detail = change.kind, change.detail
        match kind:
            case "sent":
                self._sent(change)
            case "arrived":
                self.arrived = change
            case "request":
                self._polled(change)
                self._told(change)
                self.arrived = None
            case "write":
                if (write := self.write_of(change)) is not None:
                    self.writes[key(change.subject)] = write
            case "blob_written":
                before, self.ledger = self.ledger, parsed(str(detail["body"])) or self.ledger
                self._recorded_too_late(before)
                for vm in _held_in(before) - _held_in(self.ledger):
                    self.released_at[vm] = change.at
                if detail["body"] and self.arrived is not None:
                    self.ledger_sent_at = float(str(self.arrived.detail["sent_at"]))
            case "member_in" | "member_out":
                self._moved(change)
            case "vm_down" | "vm_up" | "vm_state":
                self._vm(change)
            case "operator" if detail["what"] == "tags" and self.act == "edit_tags":
                name = f"edit-{self.act_text.rpartition('value=')[2]}"
                self.tags.setdefault(key(change.subject), {})[name] = "by hand"
            case "act":
                self.act, self.act_text = change.subject, str(detail["text"])
                self._asked(change)
                if self.act in PEOPLE:
                    self.people_at = change.at
            case "act_over":
                if self.act == "delete_pool":
                    self.people_at = change.at
                self.act = ""
            case "operator" if detail["what"] == "deleted":
                self.deleted_pools.add(key(change.subject))
                for member in self.pools.get(key(change.subject), {}).values():
                    member.wanted = False
            case "agent_started":
                self.born_at[change.subject] = change.at
                self.polls[change.subject] = []
                self._forget_waits(change.subject)
            case "calm":
                self.calm_at = change.at
            case "converged":
                # Who waits for a VM that does not run is not idle.
                idle = not self.ledger.get("entries")
                self.converged_at = change.at if idle else math.inf
            case "goodbye":
                self.parting = True
            case _:
                self._lease(change)
                self._event(change)

    def _asked(self, change: Change) -> None:
        if self.act not in {"ask", "withdraw"}:
            return
        given = dict(each.split("=") for each in self.act_text.split()[1:])
        request_id, until = self.asked.get(given["vm"], ("", 0.0))
        if self.act == "ask":
            until, request_id = change.at + float(given["for_s"]), given["request_id"]
        else:
            until = min(until, change.at)
        self.asked[given["vm"]] = (request_id, until)

    def write_of(self, _change: Change) -> Write | None:
        """Return the request that is being handled, as it was when it left."""
        if self.arrived is None:
            return None
        return self.sent.get(str(self.arrived.detail["serial"]))

    def _told(self, change: Change) -> None:
        status = int(str(change.detail["status"]))
        # A 5xx to a write tells nothing: it may have had its effect.
        told_no = change.detail["delivery"] == "normal" and 400 <= status < 500
        if told_no and self.arrived is not None:
            serial = str(self.arrived.detail["serial"])
            self.unanswered.get(key(change.subject), set()).discard(serial)
            renewal = change.detail["query"] == "renew"
            if renewal and status in LEASE_REFUSED and change.detail["vm"] == self.broken_holder:
                # Whatever comes after the time-out is not heard.
                heard_until = float(str(self.arrived.detail["sent_at"])) + self.request_timeout_s
                if change.at < heard_until:
                    self.break_told_at = min(self.break_told_at, heard_until)
        wait = str(change.detail["wait"])
        if wait.isdecimal() and change.detail["service"] == "arm":
            vm, method = str(change.detail["vm"]), str(change.detail["method"])
            asked = (vm, method, change.subject.casefold())
            self.told_to_wait[asked] = change.at + float(wait)

    def _forget_waits(self, vm: str) -> None:
        self.told_to_wait = {
            asked: until for asked, until in self.told_to_wait.items() if asked[0] != vm
        }

    def _sent(self, change: Change) -> None:
        if change.at > self.converged_at and change.detail["service"] == "arm":
            self.idle_reads += 1
        if change.detail["method"] == "PUT" and change.detail["service"] == "arm":
            self.unanswered.setdefault(key(change.subject), set()).add(str(change.detail["serial"]))
        if change.detail["method"] in ("PUT", "POST"):
            vm = str(change.detail["vm"])
            self.sent[str(change.detail["serial"])] = Write(
                vm=vm,
                sent_at=change.at,
                ledger=self.ledger,
                down=dict(self.stopped),
                polls=tuple(self.polls.get(vm, ())[-6:]),
                people_at=self.people_at,
            )

    def _polled(self, change: Change) -> None:
        said = str(change.detail["said"])
        if said and self._heard(change):
            found = (entry.rpartition(":") for entry in said.split(",")[1:])
            poll = Poll(
                at=change.at,
                good=said.startswith("!"),
                events={event_id.casefold(): status for event_id, _, status in found},
            )
            self.polls.setdefault(str(change.detail["vm"]), []).append(poll)

    def _heard(self, change: Change) -> bool:
        """Tell whether who asked still listens: a reply may come when a frozen VM goes on."""
        if self.arrived is None:
            return True
        timeout_s = float(str(self.scenario.watch.get("timeout_s", 5)))
        first_s = float(str(self.scenario.watch.get("first_timeout_s", 130)))
        asked_at = float(str(self.arrived.detail["sent_at"]))
        vm = str(change.detail["vm"])
        return change.at < asked_at + (timeout_s if self.polls.get(vm) else max(first_s, timeout_s))

    def _moved(self, change: Change) -> None:
        members = self.pools.setdefault(key(change.subject), {})
        name = identity(change)
        vm = str(change.detail["vm"]) or str(change.detail["address"])
        member = members.setdefault(name, Member(vm=vm, inside=False, wanted=False))
        write, came = self.write_behind(change), change.kind == "member_in"
        who = write.vm if write is not None else "people"
        member.inside, member.moved_at = came, change.at
        if came:
            member.in_by = who
        else:
            member.out_by = who
        if came and write is not None and not member.wanted and in_doubt(member, write):
            member.wanted = True
        if write is None:
            member.wanted = came
            member.epoch = epoch_of(self.ledger) if recorded(self.ledger, change) else 0
            resource = key(str(change.detail["nic"]) or change.subject)
            inherited = self._inherited(change)
            member.doubtful = bool(member.epoch) and bool(
                self.unanswered.get(resource) or inherited
            )

    def _recorded_too_late(self, before: Json) -> None:
        """Note what was recorded from a view in which people had not taken it out yet.

        Its leader drops it as soon as it looks again; a successor takes it for removed by that one.
        """
        known = {name for entry in before.get("entries", []) for name in members_of(entry)}
        for entry in self.ledger.get("entries", []):
            for pool, name in set(members_of(entry)) - known:
                member = self.pools.get(pool, {}).get(name)
                if member is not None and not member.wanted and not member.epoch:
                    member.epoch = epoch_of(self.ledger)

    def _inherited(self, change: Change) -> bool:
        """Tell whether a predecessor, whose writes may still land, has recorded this member."""
        since = self.ledger.get("leader_since")
        if since is None or change.at - _epoch_s(since) > PREDECESSOR_S:
            return False
        return any(
            _epoch_s(entry["recorded_at"]) < _epoch_s(since)
            for entry in self.ledger.get("entries", [])
            if (key(change.subject), identity(change)) in members_of(entry)
        )

    def _vm(self, change: Change) -> None:
        vm, state = change.subject, str(change.detail.get("state", ""))
        if change.kind == "vm_up":
            self.down.pop(vm, None)
            self.stopped.pop(vm, None)
        elif change.kind == "vm_down":
            self.down.setdefault(vm, change.at)
            if state != "frozen":
                self.stopped.setdefault(vm, change.at)
            if state == "deleted":
                self.gone.add(vm)

    def _lease(self, change: Change) -> None:
        match change.kind:
            case "lease_acquire" | "lease_renew":
                if change.kind == "lease_acquire":
                    self._forget_waits(str(change.detail["by"]))  # a tenure starts from nothing
                self.holder, self.held_until = str(change.detail["by"]), change.at + self.lease_s
            case "lease_release":
                self.holder = ""
            case "lease_broken":
                # Only the reply to its next renewal tells the holder, or the end of its own count.
                self.broken_holder, self.break_told_at = self.holder, change.at + self.lease_s
                self.held_until = min(
                    self.held_until, change.at + float(str(change.detail["period"]))
                )
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
            case "event_gone" | "event_cancelled":
                event = self.event(change.subject)
                if event is not None:
                    event.over_at = change.at
            case _:
                pass

    def event_of(self, change: Change) -> Event | None:
        """Return the event of which a change tells; some get another id when they start."""
        return self.event(change.subject) or self.event(str(change.detail.get("was", "")))


def in_doubt(member: Member, write: Write) -> bool:
    """Tell whether the agent could not know that people had taken a member out."""
    return member.doubtful or member.epoch not in (0, epoch_of(write.ledger))


def _held_in(ledger: Json) -> set[str]:
    """Return the VMs, folded, that a ledger says the floor keeps in."""
    holds = ledger.get("holds", [])
    return {hold["subject"].casefold() for hold in holds if hold["reason"] == "floor"}


def _epoch_s(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def epoch_of(ledger: Json) -> int:
    """Return the epoch of a ledger; 0 for none."""
    return int(ledger.get("epoch", 0))


def members_of(entry: Json) -> Iterator[tuple[str, str]]:
    """Yield (pool, identity) of what an entry of a ledger has recorded."""
    for membership in entry["memberships"]:
        pool = key(membership["pool_id"])
        if membership["kind"] == "address":
            yield pool, membership["ip_address"]
        else:
            name = membership["ip_configuration"]
            yield pool, key(f"{membership['nic_id']}/ipConfigurations/{name}")


def recorded(ledger: Json, change: Change) -> bool:
    """Tell whether a ledger says that this member is out, or about to be."""
    wanted = (key(change.subject), identity(change))
    return any(
        wanted in members_of(entry)
        for entry in ledger.get("entries", [])
        if not entry.get("restored_at")
    )


def names(change: Change) -> frozenset[str]:
    """Return the folded names of an event's resources."""
    return frozenset(name.casefold() for name in str(change.detail["resources"]).split(","))


def identity(change: Change) -> str:
    """Return what tells the member of a move from others."""
    configuration = str(change.detail["ip_configuration"])
    return key(configuration) if configuration else str(change.detail["address"])


def parsed(body: str) -> Json:
    """Return a ledger as JSON; empty when it is none."""
    try:
        found: Any = json.loads(body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def by_agent(change: Change) -> bool:
    """Tell whether an agent did this, and neither the platform nor a person."""
    return str(change.detail.get("by", "")) not in ("", OPERATOR, PLATFORM)
