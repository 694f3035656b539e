"""The laws of safety, S1 to S6, and H2: each is one function over a history and its replay.

A law sees every change before the replay has followed it. It yields what is wrong, in words;
`judge.violations` adds the law, the instant and the change. Agents are judged by what they could
know: a request by the instant at which it left, knowledge by the replies that had arrived. Where
the history has no requests, `Conditions` bounds by time what an agent could know.
"""

import math
from collections.abc import Iterator, Mapping

from controller.simulator.world.access import OPERATOR
from controller.simulator.world.bodies import key
from controller.simulator.world.history import Change
from tests.laws.closed_vms import REPORTED_S
from tests.laws.ledger_document import (
    OPERATOR_BLOBS,
    epoch_of,
    identity,
    is_ledger_write,
    is_report,
    members_of,
    parsed,
    recorded,
)
from tests.laws.replay import PLATFORM, Event, Poll, Replay, Write, by_agent, in_doubt, names

KNOWN_AFTER_S = 3.0
"""Within this time an agent knows everything that it polls for, clock corrections included."""
VIEW_S = 10.0 + KNOWN_AFTER_S
"""No removal is decided on a view of NICs and pools older than ten seconds."""
ACKNOWLEDGED_VIEW_S = 10.5
"""An acknowledgement leaves at most ten seconds after the reads that show its VMs out."""
ON_ITS_WAY_S = 0.01
"""A reply handled so recently may not have arrived."""
SILENCE_S = 5.5
RETURNS_FOR_S = 3600.0 - 60.0
"""A VM returns between two maintenances for an hour, by a clock that can be a minute off."""
POWER_VIEW_S = 12.0
"""An agent acts on a power state of up to 10 s ago, read over the network."""
BAD_IN_A_LOG = (
    "Traceback",
    "never retrieved",
    "was never awaited",
    "Unclosed",
    "exception in callback",
    "eyJ",
    "Bearer ",
    "SharedKey ",
)
"""Signs of a bug, a leak or a secret (law H2)."""


# --- S1


def s1_ack(replay: Replay, change: Change) -> Iterator[str]:
    """An event is acknowledged once all its VMs are out of all pools, before it starts."""
    if change.kind != "event_acknowledged" or not by_agent(change):
        return
    event, write = replay.event(change.subject), replay.write_of(change)
    if write is None:
        return
    policy, peers = replay.conditions.policy, replay.conditions.peers
    if event is not None:
        if not replay.impacting(event):
            if not policy.get("acknowledge_ignored"):
                yield "acknowledged although policy ignores it"
            return
        if not policy.get("acknowledge", True) or event.event_type in ("Preempt", "Terminate"):
            yield "acknowledged against policy"
        if _known_started(replay, event, write):
            yield "acknowledged although its agent knew that it had started"
    for vm in sorted(names(change)):
        if vm not in peers and not policy.get("acknowledge_unmanaged"):
            yield f"acknowledged although {vm} is no peer"
        for pool, member in replay.inside(vm):
            # Policy decides about VMs outside of the set, and no read shows the last seconds.
            recent = member.moved_at > write.sent_at - ACKNOWLEDGED_VIEW_S
            unread = member.in_by == "people" and (recent or replay.conditions.stale_reads)
            unknown = vm not in peers or vm in replay.gone or unread
            unknown = unknown or _is_proven_closed(replay, vm, write)
            if not (replay.conditions.requests_recorded and unknown):
                yield f"acknowledged while {vm} is in {_name(pool)}"


def _is_proven_closed(replay: Replay, vm: str, write: Write) -> bool:
    """Return whether a VM was closed and quiet, and the load balancer had noticed it by then.

    A reboot, or the end of its agent's service, opens a VM at once; the leader learns it from the
    next report, or from its absence. The responder refuses probes meanwhile. A restart by an event
    that the agent has read as started is no news to it.
    """
    at = write.sent_at
    if not replay.conditions.policy.get("close"):
        return False
    if replay.conditions.policy.get("acknowledge_when", "closed") != "closed":
        return False
    opened_at, state = replay.closed.opened_alone.get(vm, (-math.inf, None))
    excused = opened_at >= at - REPORTED_S and not _known_restart(replay, vm, write)
    if not excused or replay.closed.closed.get(vm):
        state = replay.closed.closed.get(vm)
    if state is None or state.quiet_at > at:
        return False
    return state.noticed_at <= at or state.since < replay.closed.health_read_at < at


def _known_restart(replay: Replay, vm: str, write: Write) -> bool:
    """Return whether the agent had read that an event restarts a VM."""
    return any(
        vm in event.resources
        and event.event_type != "Freeze"
        and event.over_at is None
        and _known_started(replay, event, write)
        for event in replay.events
    )


def _known_started(replay: Replay, event: Event, write: Write) -> bool:
    if not replay.conditions.requests_recorded:
        known_s = replay.conditions.blind_s
        return event.started_at is not None and write.sent_at > event.started_at + known_s
    seen = [poll for poll in write.polls if poll.good and poll.at < write.sent_at - ON_ITS_WAY_S]
    polled = bool(seen) and any(seen[-1].events.get(name) == "Started" for name in event.ids)
    overdue = event.started_at is not None and event.not_before + KNOWN_AFTER_S < write.sent_at
    return polled or overdue


# --- S2


def s2_floor(replay: Replay, change: Change) -> Iterator[str]:
    """No write of an agent takes a healthy member from a pool at its floor."""
    if change.kind != "member_out" or (write := replay.write_behind(change)) is None:
        return
    if replay.conditions.stale_reads:
        return
    pool, name = key(change.subject), identity(change)
    gone = replay.pools.get(pool, {}).get(name)
    if gone is not None and replay.stopped.get(gone.vm, math.inf) < write.sent_at:
        return  # it served no client
    unhealthy = _unhealthy(replay, write)
    view_s = VIEW_S if replay.conditions.requests_recorded else 0.0
    before, after = set[str](), set[str]()
    for other, member in replay.pools.get(pool, {}).items():
        # The agent could not know what people took out since it last had to read the pool.
        late = member.out_by == "people" and member.moved_at > write.sent_at - view_s
        down = replay.down_since.get((pool, member.vm), math.inf) < write.sent_at - view_s
        if (member.inside or (view_s and late)) and member.vm not in unhealthy and not down:
            before.add(replay.machine(other, member))
            if other != name:
                after.add(replay.machine(other, member))
    if len(after) < len(before) and len(after) < replay.floor(pool):
        yield f"leaves {sorted(after)}, the floor is {replay.floor(pool)}"


def _unhealthy(replay: Replay, write: Write) -> set[str]:
    """Return the VMs of which the agent had to know that they do not serve.

    An event that was announced long enough shows it at once; that people stopped a VM the agent
    learns with the next inventory, minutes later. An event that the document of the agent does not
    show counts once the ledger records it. Without requests every VM that is down counts.
    """
    if not replay.conditions.requests_recorded:
        return set(replay.down)
    recorded = {each["event_id"].casefold() for each in write.ledger.get("events", [])}
    shows = replay.conditions.shows
    return {
        vm
        for event in replay.events
        if shows(write.vm, event.resources) or not recorded.isdisjoint(event.ids)
        if replay.impacting(event) and event.started_at is not None and event.over_at is None
        if event.started_at < write.sent_at - 2 * KNOWN_AFTER_S
        if any(poll.good and poll.at > event.started_at for poll in write.polls[-2:])
        for vm in event.resources & replay.conditions.peers - replay.gone
    }


# --- S3


def s3_exact(replay: Replay, change: Change) -> Iterator[str]:
    """No member comes back but those that an agent took out; those of other sets stay."""
    if change.kind == "evicted":
        yield f"{change.detail['ip_configuration']} left out of a list of members"
    moved = change.kind in ("member_in", "member_out") and replay.write_behind(change) is not None
    if moved and change.detail["vm"] in replay.conditions.others:
        yield f"{change.detail['vm']} is of another availability set"
    if change.kind == "member_in" and (write := replay.write_behind(change)) is not None:
        member = replay.pools.get(key(change.subject), {}).get(identity(change))
        doubt = member is not None and (member.renewed or in_doubt(member, write))
        if member is None or not (member.wanted or doubt):
            yield f"{write.vm} added what people had removed, or what never was there"
        if member is not None and member.held_down:
            state, before = change.detail.get("state"), member.before_down
            # What people chose comes back, although a write of the whole list has replaced it.
            chosen = replay.overwritten.get((key(change.subject), identity(change)), before)
            if before and state is not None and state not in (before, chosen):
                yield f"its adminState was {before}, and is {state}"


# --- S4


def s4_fence(replay: Replay, change: Change) -> Iterator[str]:
    """No write leaves an agent whose lease has expired; no old epoch is written."""
    if is_ledger_write(change) and change.detail["body"]:
        epoch, before = epoch_of(parsed(str(change.detail["body"]))), epoch_of(replay.last_ledger)
        if epoch < before:
            yield f"epoch {epoch} follows epoch {before}"
    written = _written(replay, change)
    if written is None:
        return
    by, left_at = written
    if replay.held(by, left_at=left_at, arrived_at=change.at):
        return
    if replay.holder == by:
        yield f"sent by {by} {left_at - replay.held_until:.2f} s after its lease expired"
    else:
        holder = replay.holder if left_at < replay.held_until else ""
        yield f"sent by {by} while {holder or 'no agent'} holds the lease"


def _written(replay: Replay, change: Change) -> tuple[str, float] | None:
    """Return which agent sent a write, and when; None if the change is no write of an agent."""
    detail = change.detail
    if replay.conditions.requests_recorded:
        if change.kind != "sent":
            return None
        acknowledges = change.subject.endswith("/acknowledge") and detail["method"] == "POST"
        writes = (acknowledges or _is_write(detail)) and not is_report(change.subject)
        if writes and not _of_command(replay, change):
            return str(detail["vm"]), change.at
        return None
    created = change.kind == "blob_written" and not detail["body"]
    created = created or is_report(change.subject)
    kinds = change.kind in {"write", "event_acknowledged"} or is_ledger_write(change)
    if not kinds or created or detail["by"] in {OPERATOR, PLATFORM}:
        return None
    return str(detail["by"]), replay.conditions.left_at(change)


def _of_command(replay: Replay, change: Change) -> bool:
    """Return whether a command wrote requests or controls: the one write without a lease."""
    edited = change.subject.endswith(OPERATOR_BLOBS)
    return edited and change.detail["vm"] not in replay.conditions.peers


def _is_write(detail: Mapping[str, object]) -> bool:
    match detail["service"]:
        case "arm":
            return detail["method"] == "PUT"
        case "imds":
            return detail["method"] == "POST"
        case _:
            lease = "comp=lease" in str(detail["query"])
            return detail["method"] == "PUT" and not lease and not detail["create"]


# --- S5


def s5_write_ahead(replay: Replay, change: Change) -> Iterator[str]:
    """The ledger records a removal before it is sent, and drops it only when it is undone."""
    write = replay.write_behind(change) if change.kind == "member_out" else None
    if write is not None and not any(
        recorded(each, change) for each in (write.ledger, write.replaced)
    ):
        yield f"removed by {write.vm} without a ledger entry for it"
    if not is_ledger_write(change) or not change.detail["body"]:
        return
    if replay.arrived is not None:
        sent_at = float(str(replay.arrived.detail["sent_at"]))
        if sent_at < replay.ledger_sent_at:
            yield "an older ledger replaces a newer one"
    after = parsed(str(change.detail["body"]))
    kept = {name for entry in after.get("entries", []) for name in members_of(entry)}
    for entry in replay.last_ledger.get("entries", []):
        for pool, name in members_of(entry):
            member = replay.pools.get(pool, {}).get(name)
            if (pool, name) in kept or member is None:
                continue
            lost = member.wanted and not member.inside
            if lost and member.out_by != "people" and not member.renewed:
                yield f"drops {entry['vm']} in {_name(pool)}, which is not back"


# --- S6


def s6_no_early_return(replay: Replay, change: Change) -> Iterator[str]:
    """Nothing is restored while an event for the VM is announced and due, or while the VM is down.

    Due within the next hour by its lead time: a VM returns between two maintenances.

    An agent knows that an event is gone after two good polls without it.
    """
    if change.kind != "member_in" or (write := replay.write_behind(change)) is None:
        return
    vm = str(change.detail["vm"])
    if write.carries is not None and write.carries.restores(vm):
        write = write.carries
    if replay.conditions.requests_recorded:
        yield from _restored_despite_polls(replay, write, vm)
    else:
        yield from _restored_despite_announcement(replay, write, vm)
    for request_id, until in replay.asked.get(vm, {}).items():
        if until > write.sent_at + KNOWN_AFTER_S and write.because_of(vm, request_id):
            yield f"{vm} restored while a drain request holds until {_clock(until)}"
    view_s = POWER_VIEW_S if replay.conditions.requests_recorded else -math.inf
    since = write.down.get(vm)
    if since is not None and since < write.sent_at - view_s:
        yield f"{vm} restored while it was down since {_clock(since)}"


def _restored_despite_polls(replay: Replay, write: Write, vm: str) -> Iterator[str]:
    polls = [poll for poll in write.polls if _known(poll, write)][-2:]
    if len(polls) < 2 or not all(poll.good for poll in polls):
        yield f"{vm} restored by {write.vm} without two good polls"
    for poll in polls:
        for event_id in poll.events:
            event = replay.event(event_id)
            if event and keeps_out(replay, event, vm, write.sent_at):
                yield f"{vm} restored by {write.vm}, which had polled event {event_id}"


def keeps_out(replay: Replay, event: Event, vm: str, at: float) -> bool:
    """Return whether an event forbids that a VM is restored.

    A VM returns between two maintenances when the drain for the next one begins much later. An
    event that was acknowledged may start at any moment, and waits for no lead time.
    """
    if not replay.impacting(event) or vm.casefold() not in event.resources:
        return False
    policy = replay.conditions.policy
    begins_at = event.not_before - float(str(policy.get("lead_time_s", 900)))
    waits = policy.get("far_ahead", "wait") == "wait" and event.source != "User"
    # What the platform does by its own policy shows in no event document.
    by_agent = event.acknowledged_by != PLATFORM
    acknowledged_at = event.acknowledged_at if by_agent else None
    # A write that left before may take effect after.
    begun = any(each is not None and each <= at for each in (acknowledged_at, event.started_at))
    return not waits or begun or begins_at - at <= RETURNS_FOR_S


def _known(poll: Poll, write: Write) -> bool:
    """Return whether the agent knew how a poll had ended; it notices a silence by its time-out."""
    return poll.at < write.sent_at - (ON_ITS_WAY_S if poll.good else SILENCE_S)


def _restored_despite_announcement(replay: Replay, write: Write, vm: str) -> Iterator[str]:
    for event in write.announced:
        known_since = event.published_at + KNOWN_AFTER_S + replay.conditions.blind_s
        known = known_since < write.accepted_at
        if known and keeps_out(replay, event, vm, write.accepted_at):
            yield f"{vm} restored although event {', '.join(sorted(event.ids))} names it"


# --- H2


def h2_clean(_replay: Replay, change: Change) -> Iterator[str]:
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
            if detail["trace"] or is_bad_log_line(message):
                yield f"logged {message[:200]}"
        case _:
            pass


def is_bad_log_line(line: str) -> bool:
    """Return whether a log line has the sign of a bug, a leak or a secret."""
    return any(sign in line for sign in BAD_IN_A_LOG)


def log_violations(logs: Mapping[str, str]) -> list[str]:
    """Return every line of the logs of real agents, by VM, that law H2 forbids."""
    return [
        f"H2 clean: {vm} logged {line[:400]}"
        for vm, text in logs.items()
        for line in text.splitlines()
        if is_bad_log_line(line)
    ]


def _name(pool: str) -> str:
    return pool.rsplit("/", 1)[-1]


def _clock(at: float) -> str:
    return f"{at % 100_000:.2f}"
