"""The laws, judged by what truly happened in a world and never by what an agent believed.

`violations` replays a history from its beginning. Every broken law is one line that names the law,
the instant and the subject; an empty list is a good case.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.simulator.access import OPERATOR
from controller.simulator.bodies import Json, key
from controller.simulator.history import Change
from controller.simulator.world import World

POLL_GRACE_S = 3.0
"""A leader polls once a second: what was announced so recently it may not have seen yet."""


# --- what the bodies say ---


def bodies_of(world: World) -> dict[str, Json]:
    """Return every NIC, and every pool with addresses, without what each write changes."""
    found: dict[str, Json] = {str(nic["id"]): nic for nic in world.nics.values()}
    for pool_id in world.pool_ids():
        pool = world.find_pool(pool_id)
        if pool is not None:
            found[pool_id] = pool
    images = {name: _image(body) for name, body in found.items()}
    for image in images.values():
        addresses = image["properties"].get("loadBalancerBackendAddresses")
        if addresses:
            # Azure lists members in any order, so the order says nothing.
            addresses.sort(key=lambda entry: str(entry["name"]))
    return images


def _image(value: Any) -> Any:
    if isinstance(value, dict):
        volatile = ("etag", "provisioningState")
        return {name: _image(part) for name, part in value.items() if name not in volatile}
    return [_image(part) for part in value] if isinstance(value, list) else copy.deepcopy(value)


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield a line per difference between two JSON values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted({*expected, *found}):
            where = f"{path}/{name}"
            if name not in found:
                yield f"{where} is gone: {expected[name]!r}"
            elif name not in expected:
                yield f"{where} was added: {found[name]!r}"
            else:
                yield from differences(expected[name], found[name], where)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for order, (left, right) in enumerate(zip(expected, found, strict=True)):
            yield from differences(left, right, f"{path}[{order}]")
    elif expected != found:
        yield f"{path} was {expected!r} and is {found!r}"


# --- the replay ---


@dataclass(slots=True, kw_only=True)
class _Event:
    event_id: str
    resources: frozenset[str]
    published_at: float
    started_at: float | None = None

    @property
    def started(self) -> bool:
        return self.started_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Write:
    """An accepted PUT, with what was known at that instant."""

    by: str
    at: float
    ledger: Json
    announced: tuple[_Event, ...]
    down: frozenset[str]


@dataclass(slots=True, kw_only=True)
class _Tenure:
    """For how long storage took somebody for the holder of the lease."""

    holder: str
    since: float
    until: float


def _on_arrival(change: Change) -> float:
    return change.at


@dataclass(slots=True, kw_only=True)
class Replay:
    """The world while its history is replayed."""

    lease_s: float
    floors: Mapping[str, int]
    """Members that every pool has to keep, by folded pool id."""
    members: dict[str, dict[str, str]]
    """VM by member, by folded pool id: the data plane."""
    left_at: Callable[[Change], float] = _on_arrival
    """The earliest instant at which what arrived may have left its agent."""
    blind_s: float = 0.0
    """How long an agent may act in good faith on a document it cannot read again."""
    down: set[str] = field(default_factory=set[str])
    tenures: list[_Tenure] = field(default_factory=list[_Tenure])
    ledger: Json = field(default_factory=dict[str, Any])
    events: list[_Event] = field(default_factory=list[_Event])
    writes: dict[str, _Write] = field(default_factory=dict[str, _Write])
    operator_at: float = -1.0

    @classmethod
    def starting(cls, world: World, *, lease_s: float, floor: int) -> "Replay":
        """Return the beginning: the members as the data plane has them now."""
        return cls(
            lease_s=lease_s,
            floors={key(pool_id): floor for pool_id in world.pool_ids()},
            members={
                key(pool_id): {member.identity: member.vm for member in world.members(pool_id)}
                for pool_id in world.pool_ids()
            },
        )

    def serving(self, pool: str) -> set[str]:
        """Return the VMs that answer requests to this pool."""
        return set(self.members.get(pool, {}).values()) - self.down

    def follow(self, change: Change) -> None:
        """Take one change in."""
        kind, subject, detail = change.kind, change.subject, change.detail
        if kind in {"lease_acquire", "lease_renew", "lease_release"}:
            self._lease(kind, str(detail["by"]), change.at)
        elif kind == "blob_written" and not _asks(change):
            self.ledger = _parsed(str(detail["body"]))
        elif kind == "write":
            self.writes[key(subject)] = _Write(
                by=str(detail["by"]),
                at=change.at,
                ledger=self.ledger,
                announced=tuple(self.events),
                down=frozenset(self.down),
            )
        elif kind == "operator":
            self.operator_at = change.at
        elif kind in {"member_in", "member_out"}:
            held = self.members.setdefault(key(subject), {})
            if kind == "member_in":
                held[_identity(change)] = str(detail["vm"])
            else:
                held.pop(_identity(change), None)
        elif kind == "vm_up":
            self.down.discard(subject)
        elif kind == "vm_down":
            self.down.add(subject)
        elif kind.startswith("event_"):
            self._event(change)

    def _lease(self, kind: str, by: str, at: float) -> None:
        last = self.tenures[-1] if self.tenures else None
        if kind != "lease_release" and last and last.holder == by and at <= last.until:
            last.until = at + self.lease_s
            return
        if last:
            last.until = min(last.until, at)
        if kind != "lease_release":
            self.tenures.append(_Tenure(holder=by, since=at, until=at + self.lease_s))

    def held(self, by: str, *, left_at: float, arrived_at: float) -> bool:
        """Tell whether somebody held the lease when something of theirs may have left."""
        return any(
            tenure.holder == by and tenure.since <= arrived_at and left_at <= tenure.until
            for tenure in self.tenures
        )

    def event(self, event_id: str) -> _Event | None:
        """Return a visible event."""
        return next((each for each in self.events if each.event_id == event_id), None)

    def _event(self, change: Change) -> None:
        resources = frozenset(str(change.detail["resources"]).split(","))
        if change.kind == "event_published":
            self.events.append(
                _Event(event_id=change.subject, resources=resources, published_at=change.at)
            )
        elif change.kind == "event_started":
            # Its id may have changed just now.
            started = self.event(change.subject) or next(
                each for each in self.events if each.resources == resources and not each.started
            )
            self.events.remove(started)
            self.events.append(
                _Event(
                    event_id=change.subject,
                    resources=resources,
                    published_at=started.published_at,
                    started_at=change.at,
                )
            )
        elif change.kind in {"event_gone", "event_cancelled"}:
            self.events = [each for each in self.events if each.event_id != change.subject]


def _parsed(body: str) -> Json:
    try:
        parsed = json.loads(body or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _identity(change: Change) -> str:
    configuration = str(change.detail["ip_configuration"])
    return key(configuration) if configuration else str(change.detail["address"])


def _write_behind(replay: Replay, change: Change) -> _Write | None:
    """Return the agent's write that moved a member; None when an operator moved it."""
    if change.at == replay.operator_at:
        return None
    write = replay.writes.get(key(str(change.detail["nic"]) or change.subject))
    return None if write is None or write.by == OPERATOR else write


# --- the laws ---


def _s1_ack(replay: Replay, change: Change) -> Iterator[str]:
    """An event is acknowledged once all its resources are out of all pools, before it starts."""
    if change.kind != "event_acknowledged" or change.detail["by"] == "platform policy":
        return
    event = replay.event(change.subject)
    started_at = None if event is None else event.started_at
    if started_at is not None and replay.left_at(change) > started_at + replay.blind_s:
        yield "acknowledged after it had started"
    for vm in str(change.detail["resources"]).split(","):
        for pool, members in replay.members.items():
            if vm in members.values():
                yield f"acknowledged while {vm} stands in {pool}"


def _s2_floor(replay: Replay, change: Change) -> Iterator[str]:
    """No write of an agent takes a serving member away from a pool at its floor."""
    if change.kind != "member_out" or _write_behind(replay, change) is None:
        return
    pool = key(change.subject)
    members = dict(replay.members.get(pool, {}))
    members.pop(_identity(change), None)
    before, after = replay.serving(pool), set(members.values()) - replay.down
    if len(after) < len(before) and len(after) < replay.floors.get(pool, 0):
        yield f"leaves {len(after)} serving, the floor is {replay.floors[pool]}"


def _asks(change: Change) -> bool:
    """Tell whether somebody wrote a request: people need no lease for that."""
    return change.kind == "blob_written" and change.subject.endswith(".requests.json")


def _s4_fence(replay: Replay, change: Change) -> Iterator[str]:
    """Only the holder of the lease writes."""
    if change.kind not in {"write", "blob_written", "event_acknowledged"} or _asks(change):
        return
    by = str(change.detail["by"])
    creates_blob = change.kind == "blob_written" and not change.detail["body"]
    if by in {OPERATOR, "platform policy"} or creates_blob:
        return
    left_at = replay.left_at(change)
    if replay.held(by, left_at=left_at, arrived_at=change.at):
        return
    last = replay.tenures[-1] if replay.tenures else None
    if last is not None and last.holder == by:
        yield f"written by {by} {left_at - last.until:.2f} s after its lease expired"
    else:
        holder = last.holder if last is not None and left_at <= last.until else "nobody"
        yield f"written by {by} while {holder} holds the lease"


def _s5_write_ahead(replay: Replay, change: Change) -> Iterator[str]:
    """When a removal is sent, the ledger says already what it removes."""
    if change.kind != "member_out":
        return
    write = _write_behind(replay, change)
    if write is not None and not _records(write.ledger, change):
        yield f"removed by {write.by} without a ledger entry that says so"


def _records(ledger: Json, change: Change) -> bool:
    vm, address = str(change.detail["vm"]), str(change.detail["address"])
    for entry in ledger.get("entries", []):
        if entry["vm"].casefold() != vm.casefold() or entry.get("restored_at"):
            continue
        for membership in entry["memberships"]:
            if key(membership["pool_id"]) != key(change.subject):
                continue
            if membership["kind"] == "address" and membership["ip_address"] == address:
                return True
            nic_id, name = membership.get("nic_id", ""), membership.get("ip_configuration", "")
            if key(f"{nic_id}/ipConfigurations/{name}") == _identity(change):
                return True
    return False


def _s6_no_early_return(replay: Replay, change: Change) -> Iterator[str]:
    """Nothing is restored while an event for the VM is announced, or while the VM is down."""
    if change.kind != "member_in":
        return
    write = _write_behind(replay, change)
    if write is None:
        return
    vm = str(change.detail["vm"])
    for event in write.announced:
        known_since = event.published_at + POLL_GRACE_S + replay.blind_s
        if vm in event.resources and known_since < write.at:
            yield f"{vm} restored although event {event.event_id} names it"
    if vm in write.down:
        yield f"{vm} restored while it was down"


def s7_in_time(replay: Replay, change: Change) -> Iterator[str]:
    """When an event starts that was announced ahead, all its resources are out of all pools.

    Not among `LAWS`: it holds for ordinary notice only, which a case may choose not to give.
    """
    if change.kind != "event_started":
        return
    event = replay.event(change.subject)
    if event is None or event.published_at == change.at:
        return
    for pool, members in replay.members.items():
        for vm in sorted(event.resources & set(members.values())):
            yield f"{vm} stood in {pool} when it started"


Law = Callable[[Replay, Change], Iterator[str]]
LAWS: Mapping[str, Law] = {
    "S1 ack": _s1_ack,
    "S2 floor": _s2_floor,
    "S4 fence": _s4_fence,
    "S5 write-ahead": _s5_write_ahead,
    "S6 no early return": _s6_no_early_return,
}


def violations(
    replay: Replay, history: Sequence[Change], laws: Mapping[str, Law] = LAWS
) -> list[str]:
    """Return every broken law of a history; `replay` is its beginning, and used up."""
    found: list[str] = []
    for change in history:
        for name, law in laws.items():
            where = f"at {change.at:.2f}, {change.kind} {change.subject}"
            found += [f"{name}: {where}: {what}" for what in law(replay, change)]
        replay.follow(change)
    return found


BAD_IN_A_LOG = ("Traceback", "never retrieved", "was never awaited", "Unclosed", "eyJ", "Bearer ")
"""Signs of a bug, a leak or a secret (law H2)."""


def log_violations(logs: Mapping[str, str]) -> list[str]:
    """Return every line of an agent's log that no log may have."""
    return [
        f"H2 clean: {vm} logged {line[:400]}"
        for vm, text in logs.items()
        for line in text.splitlines()
        if any(sign in line for sign in BAD_IN_A_LOG)
    ]
