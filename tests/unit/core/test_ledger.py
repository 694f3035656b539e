"""The ledger: entries by VM, their state, and the bounded history."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.core.drain_history import Step
from controller.core.event_record import EventVerdict
from controller.core.ledger import (
    MAX_TRANSITIONS,
    Entry,
    EventReference,
    Hold,
    Ledger,
)
from controller.core.resources import NicMembership

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
NIC = NicMembership(pool_id="p", nic_id="n", ip_configuration="c", position=2)
FULL = Ledger(
    epoch=7,
    leader="web-2",
    entries=(
        Entry(
            vm="web-1",
            vm_id="/vm/web-1",
            events=(EventReference(event_id="E", event_type="Reboot", not_before=T0),),
            memberships=(NIC,),
            recorded_at=T0,
            out_at=T0 + timedelta(seconds=1.5),
        ),
    ),
)


def test_a_removal_has_taken_effect_once_it_was_seen_or_undone() -> None:
    """S5: seen out, or sent back after it was recorded; a record of the same instant is newer."""
    entry = replace(FULL.entries[0], out_at=None)
    assert not entry.removed
    assert replace(entry, out_at=T0).removed
    assert not replace(entry, restoring_at=T0).removed
    assert replace(entry, restoring_at=T0 + timedelta(microseconds=1)).removed
    assert not replace(entry, restoring_at=T0 - timedelta(microseconds=1)).removed


def test_entries_are_sorted_without_regard_to_case() -> None:
    """The order does not depend on the writer, nor on how Azure spells the names."""
    first = FULL.entries[0]
    ledger = Ledger()
    for name in ("WEB-2", "web-1", "Web-3"):
        ledger = ledger.with_entry(replace(first, vm=name))
    assert [entry.vm for entry in ledger.entries] == ["web-1", "WEB-2", "Web-3"]


def test_a_new_ledger_holds_nothing() -> None:
    """Epochs are counted from zero, and a new ledger has no leader."""
    new = Ledger()
    assert (new.epoch, new.leader, new.leader_since, new.minor) == (0, "", None, 2)
    assert (new.entries, new.holds, new.transitions) == ((), (), ())
    assert (new.events, new.verdicts) == ((), ())


def test_transitions_are_bounded() -> None:
    """Only the latest transitions are remembered."""
    assert MAX_TRANSITIONS == 200
    ledger = Ledger()
    for number in range(MAX_TRANSITIONS + 5):
        ledger = ledger.noting(at=T0, vm="web-1", step=Step.OUT, detail=str(number))
    assert [each.detail for each in ledger.transitions] == [
        str(number) for number in range(5, MAX_TRANSITIONS + 5)
    ]
    assert len(set(ledger.transitions)) == MAX_TRANSITIONS, "transitions can be compared in sets"


def test_entries_by_vm() -> None:
    """Entries are found, replaced and forgotten by VM name without case."""
    entry = FULL.entries[0]
    other = replace(entry, vm="WEB-0")
    both = FULL.with_entry(other)
    assert [each.vm for each in both.entries] == ["WEB-0", "web-1"]
    assert both.entry("Web-1") == entry
    again = replace(entry, vm="WEB-1", gone=True)
    assert both.with_entry(again).entries == (other, again)
    assert both.without_entry("web-0") == both.without_entry("WEB-0") == FULL
    lower = replace(entry, vm="web-0", gone=True)
    assert both.with_entry(lower).entries == (lower, entry)
    assert both.pool_ids == ("p", "p")
    assert both.entry("web-9") is None
    assert entry.holds(NIC.key)
    assert not entry.holds(("x", "y", "z"))


def test_values_with_newer_fields_can_be_hashed() -> None:
    """Fields of a newer version do not count for the hash, at any level."""
    newer = {"news": ["later"]}
    plain = FULL.noting(at=T0, vm="web-1", step=Step.OUT)
    plain = replace(plain, holds=(Hold(subject="p", reason="floor", message="", since=T0),))
    entry = plain.entries[0]
    changed = replace(
        plain,
        extra=newer,
        entries=(replace(entry, extra=newer, events=(replace(entry.events[0], extra=newer),)),),
        holds=(replace(plain.holds[0], extra=newer),),
        transitions=(replace(plain.transitions[0], extra=newer),),
    )
    assert hash(changed) == hash(plain)


def test_pools_of_lost_memberships_are_known() -> None:
    """A pool stays known as long as anything is to be restored to it, lost memberships included."""
    gone = replace(NIC, pool_id="q")
    entry = replace(FULL.entries[0], lost=(gone,))
    assert replace(FULL, entries=(entry,)).pool_ids == ("p", "q")


def test_the_newest_verdict_is_found_whatever_the_case_of_names() -> None:
    """A VM and an event are spelled in any case; of several verdicts the newest one counts."""
    first = EventVerdict(at=T0, vm="Web-1", event_id="E-1", event_type="Reboot", verdict="late")
    newest = replace(first, at=T0 + timedelta(hours=1), verdict="drained")
    ledger = replace(FULL, verdicts=(first, newest))
    assert ledger.verdict("e-1", "WEB-1") == newest
    assert ledger.verdict("E-1", "Web-1", since=T0 + timedelta(hours=2)) is None
    assert ledger.verdict("E-1", "web-2") is None
