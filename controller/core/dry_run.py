"""What a dry run would have come to: the ledger that a leader would have, kept in memory.

A dry run plans and writes nothing, so every pass plans the same removal again. Here a removal that
is planned counts as done at once, and `verdicts` judges the events by that.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.event_progress import SeenEvent
from controller.core.ledger import Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import Plan
from controller.core.policy import Policy
from controller.core.verdicts import with_events


def imagined(
    before: Ledger,
    planned: Plan,
    *,
    real: Ledger,
    observed: Observation,
    policy: Policy,
    now: datetime,
    seen: Iterable[SeenEvent],
) -> Ledger:
    """Return the ledger after a pass, if everything that it planned had been done.

    Args:
        before: what this function returned for the pass before.
        planned, observed, policy, now: the pass.
        real: the ledger of the real leader, if there is one.
        seen: the events that this agent has read.
    """
    wanted = real if planned.ledger is None else planned.ledger
    entries = {
        fold(entry.vm): replace(entry, out_at=entry.out_at or now)
        for entry in wanted.entries
        if not entry.over
    }
    # A VM that would be out stays out, also in a pass that has to read its NIC again first.
    pending = _pending(observed, now)
    entries |= {
        fold(entry.vm): entry
        for entry in before.entries
        if any(fold(each.event_id) in pending for each in entry.events)
    }
    ledger = replace(
        wanted,
        entries=tuple(entries.values()),
        events=before.events,
        verdicts=before.verdicts,
        transitions=before.transitions,
    )
    done = replace(planned, ledger=ledger)
    known = tuple(seen)
    judged = with_events(done, observed, ledger, policy, now, seen=known, as_recorded=True)
    after = judged.ledger or ledger
    # An agent that starts during an event does not know what it would have done before.
    missed = {
        fold(each.event.event_id)
        for each in known
        if each.absent_at is None and each.started_at == each.first_seen_at
    }
    verdicts = (each for each in after.verdicts if fold(each.event_id) not in missed)
    return replace(after, verdicts=tuple(verdicts))


def _pending(observed: Observation, now: datetime) -> frozenset[str]:
    """Return the folded ids of the events that are announced and the requests in force."""
    events = observed.document.events if observed.document else ()
    requests = (each.request_id for each in observed.requests or () if each.is_active(now))
    return frozenset(map(fold, (*(each.event_id for each in events), *requests)))
