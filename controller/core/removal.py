"""Taking VMs out of rotation: look, record, write, prove.

Record before Remove: a removal is planned only from an entry that is already durable (law S5), and
never when it would take a pool below its floor (law S2).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from controller.core.actions import Phase, ReadNic, Reason
from controller.core.draft import (
    FRESH_S,
    Case,
    Draft,
    address_memberships,
    nic_memberships,
    with_references,
)
from controller.core.ledger import Entry
from controller.core.model import NOTHING_EXTRA, Floor, Membership, fold, short

UNTOUCHED_S = 60.0
"""How old a view may be, when an entry is recorded, of a NIC or pool that the VM was not in."""


def take_out(draft: Draft, cases: Iterable[Case]) -> None:
    """Drain every VM whose time has come, most urgent first, as far as the floors allow.

    What is asked for by hand waits for what Azure announced.

    Of equally urgent ones those whose writes failed least: a write that hangs must not keep the
    others from the only slot (law L2).

    Recorded VMs come first: their removal may already be under way. For the same reason the floor
    never counts on them (`Draft.unhealthy`).
    """
    ordered = sorted(
        cases,
        key=lambda case: (
            not case.recorded,
            not case.due,
            case.deadline or draft.now,
            draft.attempts(case.inside, restore=False),
            fold(case.vm.name),
        ),
    )
    leaving: set[str] = set()
    for case in ordered:
        movable = tuple(m for m in case.inside if not draft.unreadable(m))
        if not case.inside:
            _stay_out(draft, case)
        elif not movable:
            draft.say(case, Phase.DRAIN_DUE, "its pools or NICs cannot be read")
            draft.refresh_pools()
        elif _floor_allows(draft, case, movable, leaving):
            leaving.add(fold(case.vm.name))
            _remove(draft, case, movable)


# --- the floor ---


def _floor_allows(
    draft: Draft, case: Case, movable: tuple[Membership, ...], leaving: set[str]
) -> bool:
    """Law S2: at least `min_in_service` healthy members must remain in every pool."""
    touched = {fold(membership.pool_id) for membership in movable}
    for pool_id, floor in draft.policy.pools.items():
        if fold(pool_id) not in touched:
            continue
        serving = draft.inventory.serving(pool_id, draft.unhealthy())
        staying = serving - leaving - {fold(case.vm.name)}
        needed = _members_needed(draft, pool_id, floor)
        if len(staying) < needed:
            message = (
                f"{case.vm.name} stays in pool {short(pool_id)}: {len(staying)} healthy members "
                f"would remain, min_in_service asks for {needed}"
            )
            draft.hold_back(case, Reason.FLOOR, message)
            for vm in draft.observed.vms:
                draft.unseen(vm)
            draft.refresh_pools()
            draft.wake_in(FRESH_S)
            return False
    return True


def _members_needed(draft: Draft, pool_id: str, floor: Floor) -> int:
    """Return the floor in members; a percentage counts the pool as it is when nothing is out."""
    ours = {
        fold(entry.vm)
        for entry in draft.durable.entries
        if not entry.gone and any(fold(m.pool_id) == fold(pool_id) for m in entry.memberships)
    }
    return floor.members(full=len(draft.inventory.members(pool_id) | ours))


# --- record, then remove ---


def _remove(draft: Draft, case: Case, movable: tuple[Membership, ...]) -> None:
    """Plan the next step of taking a VM out: look, record, or write."""
    draft.say(case, Phase.DRAIN_DUE)
    if not _views_are_fresh(draft, case):
        return
    entry = case.entry
    if entry is None or entry.restored_at or not all(entry.holds(m.key) for m in movable):
        if draft.claim(movable):
            _record(draft, case, movable)
        return
    draft.say(case, Phase.DRAINING)
    if draft.drop(case, entry, draft.never_ours(entry), "removed by an operator"):
        return  # at once: a successor could not tell any more; the next pass takes out the rest
    updated = replace(entry, events=with_references(entry, case))
    if entry.removed:
        # Whoever stands in a pool again has to empty once more, and what is sent now may be late.
        updated = replace(updated, recorded_at=draft.now, out_at=None)
        draft.note(updated, "recorded", "in a pool again")
        return
    if updated != entry:
        draft.ledger = draft.ledger.with_entry(updated)
    draft.change(movable, restore=False)


def _views_are_fresh(draft: Draft, case: Case) -> bool:
    """Plan the reads without which no removal may be decided; failed ones are waited for once."""
    draft.refresh_pools()
    fresh = not any(_old_pool(draft, membership) for membership in case.inside)
    if case.recorded:
        return fresh  # the write itself reads the NIC again if its view is old
    for nic_id in case.vm.nic_ids:
        nic = draft.inventory.nic(nic_id)
        old = nic is None or nic.body is None or draft.age_s(nic.observed_at) > FRESH_S
        if old and not draft.missing(nic_id):
            draft.actions.append(ReadNic(nic_id))
            fresh = fresh and draft.deferred(ReadNic(nic_id).target)
    return fresh


def _old_pool(draft: Draft, membership: Membership) -> bool:
    pool = draft.inventory.pool(membership.pool_id)
    old = draft.age_s(pool.observed_at if pool else None) > FRESH_S
    return old and not draft.missing(membership.pool_id) and not draft.unreadable(membership)


def _record(draft: Draft, case: Case, movable: tuple[Membership, ...]) -> None:
    """Write ahead (law S5): what is about to be removed, from where, because of what."""
    # After a finished maintenance only what stands counts: an operator may have changed the rest.
    old = case.entry if case.recorded else None
    added = tuple(m for m in movable if not (old and old.holds(m.key)))
    entry = Entry(
        vm=case.vm.name,
        vm_id=case.vm.vm_id,
        events=with_references(old, case),
        memberships=(*(old.memberships if old else ()), *added),
        recorded_at=draft.now,
        restoring_at=case.entry.restoring_at if case.entry else None,
        extra=case.entry.extra if case.entry else NOTHING_EXTRA,
    )
    pools = sorted({short(membership.pool_id) for membership in added})
    draft.note(entry, "recorded", ", ".join(pools))


# --- out ---


def _stay_out(draft: Draft, case: Case) -> None:
    """A VM that is due and stands in no managed pool."""
    # Should somebody put it back meanwhile, the next inventory shows that.
    entry = case.entry
    if entry is None and draft.unseen(case.vm):
        draft.say(case, Phase.DRAIN_DUE, "its pools or NICs were not read yet")
    elif entry is None:
        draft.say(case, Phase.UNMANAGED)
        if case.request is not None:
            message = f"{case.vm.name} is in no managed pool: a request has nothing to take it from"
            draft.hold(case.vm.name, Reason.UNMANAGED_RESOURCE, message)
    elif entry.restored_at is not None and draft.landed_late(entry):
        events = with_references(entry, case)
        draft.note(replace(entry, events=events, restored_at=None), "out again")
        draft.say(case, Phase.DRAINING)
    elif entry.restored_at is not None:
        draft.forget(case, entry, "taken out by an operator")
    elif draft.drop(case, entry, draft.never_ours(entry), "removed by an operator"):
        pass  # the next pass continues from what is left
    elif entry.out_at is None and (doubtful := draft.doubtful(entry.memberships)):
        # Never out on the word of a write that failed (law S1): it is sent again.
        draft.say(case, Phase.DRAINING)
        draft.change(doubtful, restore=False)
    elif _observed_out(draft, case, entry):
        _note_out(draft, case, entry)
    else:
        draft.say(case, Phase.DRAINING)


def _observed_out(draft: Draft, case: Case, entry: Entry) -> bool:
    """Law S1: is every view that proves absence newer than the record? If not, plan reads.

    While a restore may still land, absence is proven only by a view from after that; and in a pool
    of addresses, which shows a write before it has taken effect, only by the end of the removal.
    """
    proven = not draft.under_way(entry.memberships)
    untouched = entry.recorded_at - timedelta(seconds=UNTOUCHED_S)
    nics = {fold(m.nic_id) for m in nic_memberships(entry.memberships)}
    for nic_id in case.vm.nic_ids:
        if draft.missing(nic_id):
            continue
        nic = draft.inventory.nic(nic_id)
        since = untouched
        if fold(nic_id) in nics:
            since = entry.recorded_at
            if entry.restoring_at is not None:
                since = max(since, draft.settled_at(nic_id, since=entry.restoring_at))
        if nic is None or nic.updating or not draft.proves(nic.observed_at, since=since):
            draft.read_nic_again(nic_id, every_s=1 if since <= draft.now else FRESH_S)
            draft.wakes.append(since)
            proven = False
    pools = {fold(m.pool_id) for m in address_memberships(entry.memberships)}
    for pool_id in draft.policy.pools:
        if draft.missing(pool_id):
            continue
        pool = draft.inventory.pool(pool_id)
        since = untouched
        if fold(pool_id) in pools:
            since = draft.settled_at(pool_id, since=entry.restoring_at or entry.recorded_at)
            since = max(since, entry.recorded_at)
        if pool is None or not draft.proves(pool.observed_at, since=since):
            draft.read_pool_again(pool_id, every_s=1 if since <= draft.now else FRESH_S)
            draft.wakes.append(since)
            proven = False
    return proven


def _note_out(draft: Draft, case: Case, entry: Entry) -> None:
    noted = replace(entry, events=with_references(entry, case))
    if noted.out_at is None:
        noted = replace(noted, out_at=draft.now, restoring_at=None)
        draft.note(noted, "out")
    for event in noted.events:
        at = draft.observed.acknowledged.get(fold(event.event_id))
        if at is not None and event.acknowledged_at is None:
            events = (
                replace(each, acknowledged_at=at) if each is event else each
                for each in noted.events
            )
            noted = replace(noted, events=tuple(events))
            draft.note(noted, "acknowledged", event.event_id)
    if noted != entry:
        draft.ledger = draft.ledger.with_entry(noted)
    present = {fold(event.event_id) for event in case.events}
    if case.started:
        draft.say(case, Phase.IN_MAINTENANCE)
    elif any(e.acknowledged_at and fold(e.event_id) in present for e in noted.events):
        draft.say(case, Phase.ACKNOWLEDGED)
    else:
        draft.say(case, Phase.OUT)
