"""The laws S1 to H2, each one small function over a history and the truth behind it.

A law sees every entry of the history before the truth has followed it. It yields what is wrong, in
words; `violations` adds the law, the instant and the entry. Agents are judged by what they could
know: a request by the instant at which it left, knowledge by the replies that had arrived.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.simulator.bodies import key
from controller.simulator.history import Change

from . import end, patience
from .truth import (
    Event,
    Poll,
    Truth,
    Write,
    by_agent,
    identity,
    in_doubt,
    members_of,
    parsed,
    recorded,
)

KNOWN_AFTER_S = 3.0
"""Within so long everything that an agent polls for is known to it, clock corrections included."""
LOOKED_S = 10.0 + KNOWN_AFTER_S
"""No removal is decided on a view of NICs and pools older than ten seconds."""
ON_ITS_WAY_S = 0.01
"""A reply handled so recently may not have arrived."""
SILENCE_S = 5.5
POWER_VIEW_S = 12.0
"""An agent goes by a power state of up to 10 s ago, read over the network."""
SECRETS = ("eyJ", "Bearer ", "SharedKey ")
GARBAGE = ("never retrieved", "was never awaited", "Unclosed", "exception in callback")

Law = Callable[[Truth, Change], Iterator[str]]


# --- S1


def s1_ack(truth: Truth, change: Change) -> Iterator[str]:
    """Acknowledged only once all resources are out of all pools, and before the start."""
    if change.kind != "event_acknowledged" or not by_agent(change):
        return
    event, write = truth.event(change.subject), truth.write_of(change)
    if event is None or write is None:
        return
    policy = truth.scenario.policy
    if not truth.impacting(event):
        if not policy.get("acknowledge_ignored"):
            yield "acknowledged although policy ignores it"
        return
    if not policy.get("acknowledge", True) or event.event_type in ("Preempt", "Terminate"):
        yield "acknowledged against policy"
    if _known_started(event, write):
        yield "acknowledged although its agent knew that it had started"
    for vm in sorted(event.resources):
        strange = vm not in truth.peers or vm in truth.gone
        if strange and not policy.get("acknowledge_unmanaged"):
            if vm not in truth.peers:
                yield f"acknowledged although {vm} is no peer"
            continue
        for pool, member in truth.inside(vm):
            # Somebody may have put it back since it was observed out.
            if not strange and member.in_by != "people":
                yield f"acknowledged while {vm} stands in {_name(pool)}"


def _known_started(event: Event, write: Write) -> bool:
    seen = [poll for poll in write.polls if poll.good and poll.at < write.sent_at - ON_ITS_WAY_S]
    told = bool(seen) and any(seen[-1].events.get(name) == "Started" for name in event.ids)
    overdue = event.started_at is not None and event.not_before + KNOWN_AFTER_S < write.sent_at
    return told or overdue


# --- S2


def s2_floor(truth: Truth, change: Change) -> Iterator[str]:
    """No write of an agent takes a healthy member from a pool at its floor."""
    if change.kind != "member_out" or (write := truth.write_behind(change)) is None:
        return
    if any(storm.kind == "arm stale" for storm in truth.scenario.storms):
        return  # whoever is shown an old world cannot count
    pool, name = key(change.subject), identity(change)
    unhealthy = _unhealthy(truth, write)
    before, after = set[str](), set[str]()
    for other, member in truth.pools[pool].items():
        # What people took out since the agent last had to look counts for it: nobody could know.
        late = member.out_by == "people" and member.moved_at > write.sent_at - LOOKED_S
        # A machine counts once, a stranger as often as it has NICs: nobody knows whose they are.
        who = member.vm if member.vm in truth.peers - truth.gone else other
        if (member.inside or late) and member.vm not in unhealthy:
            before.add(who)
            if other != name:
                after.add(who)
    if len(after) < len(before) and len(after) < truth.floor(pool):
        yield f"leaves {sorted(after)}, the floor is {truth.floor(pool)}"


def _unhealthy(truth: Truth, write: Write) -> set[str]:
    """Return the VMs of which the agent had to know that they do not serve.

    An event that was announced long enough tells it at once; that somebody stopped a VM it learns
    with the next inventory, minutes later.
    """
    return {
        vm
        for event in truth.events
        if truth.impacting(event) and event.started_at is not None and event.over_at is None
        if event.started_at < write.sent_at - 2 * KNOWN_AFTER_S
        if any(poll.good and poll.at > event.started_at for poll in write.polls[-2:])
        for vm in event.resources & truth.peers - truth.gone
    }


# --- S3


def s3_exact(truth: Truth, change: Change) -> Iterator[str]:
    """Nothing comes back but what an agent took out; all comes back as it was."""
    if change.kind == "member_in" and (write := truth.write_behind(change)) is not None:
        member = truth.pools.get(key(change.subject), {}).get(identity(change))
        if member is None or (not member.wanted and not in_doubt(member, write)):
            yield f"{write.vm} added what people had removed, or never put there"
    if change.kind == "converged":
        yield from end.differences(truth)


# --- S4


def s4_fence(truth: Truth, change: Change) -> Iterator[str]:
    """No write leaves an agent whose lease has expired; no old epoch is written."""
    if change.kind == "blob_written" and change.detail["body"]:
        epoch = int(parsed(str(change.detail["body"])).get("epoch", 0))
        before = int(truth.ledger.get("epoch", 0))
        if epoch < before:
            yield f"epoch {epoch} follows epoch {before}"
    if change.kind != "sent" or not _is_write(change):
        return
    vm = str(change.detail["vm"])
    if vm == truth.holder and change.at < truth.held_until:
        return
    unaware = vm == truth.broken_holder and change.at < truth.break_told_at
    if not unaware:
        yield f"sent by {vm} while {truth.holder or 'nobody'} holds the lease until " + _clock(
            truth.held_until
        )


def _is_write(change: Change) -> bool:
    detail = change.detail
    match detail["service"]:
        case "arm":
            return detail["method"] == "PUT"
        case "imds":
            return detail["method"] == "POST"
        case _:
            lease = "comp=lease" in str(detail["query"])
            return detail["method"] == "PUT" and not lease and not detail["create"]


# --- S5


def s5_write_ahead(truth: Truth, change: Change) -> Iterator[str]:
    """The ledger says it before it is done, and forgets it only when it is undone."""
    write = truth.write_behind(change) if change.kind == "member_out" else None
    if write is not None and not recorded(write.ledger, change):
        yield f"removed by {write.vm} without a ledger entry that says so"
    if change.kind != "blob_written" or not change.detail["body"]:
        return
    if truth.arrived is not None:
        sent_at = float(str(truth.arrived.detail["sent_at"]))
        if sent_at < truth.ledger_sent_at:
            yield "an older ledger replaces a newer one"
    after = parsed(str(change.detail["body"]))
    kept = {name for entry in after.get("entries", []) for name in members_of(entry)}
    for entry in truth.ledger.get("entries", []):
        for pool, name in members_of(entry):
            member = truth.pools.get(pool, {}).get(name)
            if (pool, name) in kept or member is None or pool in truth.deleted_pools:
                continue
            lost = member.wanted and not member.inside and entry["vm"] not in truth.gone
            if lost and member.out_by != "people":
                yield f"forgets {entry['vm']} in {_name(pool)}, which is not back"


# --- S6


def s6_no_early_return(truth: Truth, change: Change) -> Iterator[str]:
    """Restored only after two clean polls without the event, when the VM runs."""
    if change.kind != "member_in" or (write := truth.write_behind(change)) is None:
        return
    vm = str(change.detail["vm"])
    polls = [poll for poll in write.polls if _known(poll, write)][-2:]
    if len(polls) < 2 or not all(poll.good for poll in polls):
        yield f"{vm} restored by {write.vm} without two good polls"
    for poll in polls:
        for event_id in poll.events:
            event = truth.event(event_id)
            if event and truth.impacting(event) and vm.casefold() in event.resources:
                yield f"{vm} restored by {write.vm}, whom a poll told of event {event_id}"
    request_id, until = truth.asked.get(vm, ("", 0.0))
    if until > write.sent_at + KNOWN_AFTER_S and write.because_of(vm, request_id):
        yield f"{vm} restored while somebody wants it out until {_clock(until)}"
    since = write.down.get(vm)
    if since is not None and since < write.sent_at - POWER_VIEW_S:
        yield f"{vm} restored while it was down since {_clock(since)}"


def _known(poll: Poll, write: Write) -> bool:
    """Tell whether the agent knew how a poll had ended; a silence it notices by its time-out."""
    return poll.at < write.sent_at - (ON_ITS_WAY_S if poll.good else SILENCE_S)


# --- H2


def h2_clean(_truth: Truth, change: Change) -> Iterator[str]:
    """Nothing leaks, nothing ends in an exception, no secret is logged."""
    detail = change.detail
    match change.kind:
        case "leaked":
            yield f"{change.subject} left behind {detail['task']}"
        case "complaint":
            yield str(detail["message"])
        case "agent_ended" if detail["error"]:
            yield f"the agent ended: {detail['error']}"
        case "log":
            message = str(detail["message"])
            if detail["trace"] or any(sign in message for sign in (*SECRETS, *GARBAGE)):
                yield f"logged {message[:200]}"
        case _:
            pass


LAWS: Mapping[str, Law] = {
    "S1 ack": s1_ack,
    "S2 floor": s2_floor,
    "S3 exact": s3_exact,
    "S4 fence": s4_fence,
    "S5 write-ahead": s5_write_ahead,
    "S6 no early return": s6_no_early_return,
    "S7 in time": patience.s7_in_time,
    "L1 converge": patience.l1_converge,
    "L2 progress": patience.l2_progress,
    "H1 quiet": patience.h1_quiet,
    "H2 clean": h2_clean,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One law, broken by one entry."""

    law: str
    at: float
    number: int
    """Of the entry in the history."""
    entry: Change
    what: str

    def __str__(self) -> str:
        return f"{self.law}: at {_clock(self.at)}, {self.entry.kind}: {self.what}"


def violations(truth: Truth, history: Sequence[Change]) -> list[Violation]:
    """Return every broken law; `truth` is the beginning of the history, and is used up."""
    truth.deletions = {
        (change.at, change.subject)
        for change in history
        if change.kind == "vm_down" and change.detail.get("state") == "deleted"
    }
    found: list[Violation] = []
    for number, change in enumerate(history):
        for name, law in LAWS.items():
            found += [
                Violation(name, change.at, number, change, what) for what in law(truth, change)
            ]
        truth.follow(change)
    return found


def _name(pool: str) -> str:
    return pool.rsplit("/", 1)[-1]


def _clock(at: float) -> str:
    return f"{at % 100_000:.2f}"
