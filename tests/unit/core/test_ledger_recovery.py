"""When storage holds an older ledger than an agent has seen, and how the agent continues."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.blob_limits import MAX_COUNT
from controller.core.drain_history import Step
from controller.core.event_record import (
    EventVerdict,
    Place,
    Verdict,
    WatchedEvent,
    WatchedVm,
)
from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.ledger_recovery import (
    LedgerMemory,
    is_older,
    lacks_entries,
    next_epoch,
    recover,
)
from tests.support.planner_scenario import (
    API,
    PlannerScenario,
    at,
    membership,
    reasons,
    restoral,
    writes,
)


def entry(vm: str, *, recorded: float = 10) -> Entry:
    return Entry(
        vm=vm,
        vm_id=f"/vms/{vm}",
        events=(),
        memberships=(membership(vm),),
        recorded_at=at(recorded),
        out_at=at(recorded + 5),
    )


def ledger(epoch: int, *vms: str, lines: int = 1) -> Ledger:
    """Return a ledger with this many lines of its epoch, after five lines of each one before."""
    found = Ledger(epoch=epoch, entries=tuple(entry(vm) for vm in vms))
    for each in range(1, epoch + 1):
        for number in range(lines if each == epoch else 5):
            found = found.noting(at=at(100 * each + number), vm="web-1", step=Step.LEADS)
    return found


KNOWN = ledger(3, "web-2", lines=5)


@pytest.mark.parametrize(
    ("read", "older"),
    [
        (Ledger(), True),
        (ledger(2, lines=9), True),
        (ledger(3, lines=4), True),
        (KNOWN, False),
        (ledger(3, lines=6), False),
        (ledger(4), False),
        (replace(ledger(3), transitions=()), True),
        (replace(ledger(4), transitions=ledger(4).transitions[-1:]), True),
        (replace(ledger(9), transitions=()), True),
        (replace(ledger(60), transitions=ledger(60).transitions[-150:]), False),
    ],
)
def test_what_is_older(read: Ledger, older: bool) -> None:
    """The epoch decides, if the history continues what is known; it only grows, and is bounded."""
    assert is_older(read, KNOWN) is older


def test_a_history_that_was_cut_is_not_older() -> None:
    """The history is bounded: the last line that is known can have left it."""
    newer = replace(KNOWN, transitions=ledger(4, lines=3).transitions)
    assert not is_older(newer, KNOWN)


def test_a_ledger_without_history_is_never_newer_than_another_of_its_epoch() -> None:
    """Nothing is known that the other one lacks."""
    assert not is_older(Ledger(), Ledger())


def test_the_memory_keeps_the_newest() -> None:
    """An older ledger does not replace what was seen before."""
    memory = LedgerMemory()
    assert memory.newest is None
    for each in (ledger(2), KNOWN, ledger(2), Ledger()):
        memory.note(each)
    assert memory.newest == KNOWN


def test_a_ledger_that_was_deleted_continues_from_memory() -> None:
    """S5: what was recorded is recorded again, and the history names why."""
    recovered = recover(Ledger(), KNOWN, at=at(999), by="web-1")
    assert (recovered.epoch, recovered.entries) == (3, KNOWN.entries)
    *before, line = recovered.transitions
    assert tuple(before) == KNOWN.transitions
    assert (line.vm, line.step, line.at) == ("web-2", "recovered", at(999))
    assert "the agent on web-1 remembers" in line.detail


def test_a_backup_does_not_bring_back_what_has_ended() -> None:
    """S3: a VM whose drain has ended since is not in the memory, and is not recorded again."""
    backup = ledger(2, "web-2", "web-3")
    known = replace(KNOWN, transitions=(*backup.transitions, *KNOWN.transitions))
    recovered = recover(backup, known, at=at(999), by="web-1")
    assert [each.vm for each in recovered.entries] == ["web-2"]
    assert recovered.transitions == known.transitions


def test_a_new_ledger_of_another_leader_keeps_its_entries() -> None:
    """A leader without memory has begun anew: its entries and the remembered ones both count."""
    for epoch, continued in ((1, 3), (3, 3), (7, 7)):
        new = Ledger(epoch=epoch, entries=(entry("web-3", recorded=500),))
        new = new.noting(at=at(777), vm="web-3", step=Step.LEADS)
        recovered = recover(new, KNOWN, at=at(999), by="web-1")
        assert [each.vm for each in recovered.entries] == ["web-2", "web-3"]
        assert recovered.epoch == continued
    assert set(new.transitions) | set(KNOWN.transitions) < set(recovered.transitions)
    assert recovered.transitions[-1].step == "recovered"


def test_a_recovered_entry_is_reported_and_restored() -> None:
    """The hold lasts until the VM is back, and keeps nothing waiting."""
    scene = PlannerScenario(now=1000)
    scene.inside["web-2"] = []
    lost = replace(
        scene.ledger, entries=(replace(entry("web-2"), vm_id=scene.observe().vms[1].vm_id),)
    )
    scene.ledger = recover(Ledger(), lost, at=at(999), by="web-1")
    planned = scene.through()
    assert reasons(planned) == {"web-2": "ledger_recovered"}
    assert restoral("web-2") in writes(planned)


# --- another writer changes the ledger (K6) ---


def changed(**fields: Any) -> Ledger:
    """Return the known ledger with a changed entry of web-2, and a history that continues."""
    return replace(ledger(4), entries=(replace(KNOWN.entries[0], **fields),))


FORGED = {
    "entry removed": ledger(4),
    "membership removed": changed(memberships=()),
    "membership added": changed(memberships=(membership("web-2"), membership("web-3"))),
    "another place": changed(memberships=(membership("web-3"),)),
    "lost": changed(memberships=(), lost=(membership("web-2"),)),
    "restored": changed(restored_at=at(50)),
    "gone": changed(gone=True),
    "never out": changed(out_at=None),
    "another VM": changed(vm_id="/vms/other"),
    "another NIC": changed(memberships=(replace(membership("web-2"), position=7),)),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_change_without_a_step_of_the_vm_is_not_believed(case: str) -> None:
    """S3, S5: leaders write an entry and its step together; anything else is another writer."""
    read = FORGED[case]
    assert not is_older(read, KNOWN)
    assert lacks_entries(read, KNOWN)
    recovered = recover(read, KNOWN, at=at(999), by="web-1")
    assert recovered.entries == KNOWN.entries
    assert recovered.epoch == read.epoch
    assert [(line.vm, line.step) for line in recovered.transitions[-1:]] == [("web-2", "recovered")]
    memory = LedgerMemory()
    for each in (KNOWN, read, read):
        memory.note(each)
    assert memory.newest is not None
    assert memory.newest.entries == KNOWN.entries


@pytest.mark.parametrize("case", FORGED)
def test_a_change_with_a_step_of_the_vm_is_believed(case: str) -> None:
    """S3: what a leader has ended is not recorded again."""
    read = FORGED[case].noting(at=at(400), vm="WEB-2", step=Step.IN_SERVICE)
    assert not lacks_entries(read, KNOWN)
    memory = LedgerMemory()
    for each in (KNOWN, FORGED[case], read):
        memory.note(each)
    assert memory.newest == read


def test_what_leaders_change_without_a_step_is_believed() -> None:
    """Events follow the document, and identities are added to memberships of older versions."""
    identified = replace(membership("web-2"), vm_guid="g", nic_guid="h")
    read = changed(
        events=(EventReference(event_id="E", event_type="Reboot"),), memberships=(identified,)
    )
    assert not lacks_entries(read, KNOWN)
    # The known identity is not lost again.
    assert lacks_entries(replace(read, entries=KNOWN.entries), read)


def test_an_admin_state_that_people_have_set_meanwhile_is_believed() -> None:
    """S3: a leader notes it without a step, and the leader after it restores that state."""
    states = [replace(membership("web-2"), admin_state=state) for state in ("None", "Up")]
    known, read = (changed(memberships=(each,)) for each in states)
    assert not lacks_entries(read, known)
    assert recover(read, known, at=at(999), by="web-1") == read


def test_a_forged_epoch_is_not_remembered() -> None:
    """A ledger that no leader can have written does not stay in the memory of an agent."""
    memory, lines = LedgerMemory(), ledger(60).transitions[-150:]
    for read in (
        KNOWN,
        Ledger(epoch=MAX_COUNT),
        Ledger(epoch=MAX_COUNT, transitions=lines),
        Ledger(epoch=4_000_000, transitions=lines),
    ):
        memory.note(read)
        assert memory.newest == KNOWN


def test_an_epoch_that_was_forged_into_a_known_history_does_no_harm() -> None:
    """The next leader of the set is not older: its history continues what is known."""
    memory = LedgerMemory()
    forged = replace(KNOWN, epoch=MAX_COUNT)
    genuine = ledger(4, "web-2")
    for each in (KNOWN, forged, genuine):
        memory.note(each)
    assert memory.newest == genuine
    assert next_epoch(forged) == MAX_COUNT
    assert not is_older(genuine, forged)


def test_only_what_an_agent_wrote_itself_is_its_own() -> None:
    """What another agent wrote can be continued after this agent read it."""
    memory = LedgerMemory()
    memory.note(ledger(2))
    assert not memory.own
    memory.wrote(KNOWN)
    memory.note(ledger(2))
    memory.note(KNOWN)
    assert memory.own
    memory.note(ledger(4))
    assert not memory.own


# --- a leader with less memory has recovered the ledger ---


def recovered_by_another(*lines: Step) -> Ledger:
    """Return a later ledger of a leader that had not read the last known lines."""
    found = recover(
        Ledger(), replace(KNOWN, transitions=KNOWN.transitions[:-2]), at=at(700), by="b"
    )
    for number, step in enumerate(lines):
        found = found.noting(at=at(710 + number), vm="web-2", step=step)
    return replace(found, epoch=4)


def test_what_another_leader_has_recovered_is_not_lost() -> None:
    """S3: after it has ended there it is not recorded again, and no agent contests the leader."""
    memory = LedgerMemory()
    memory.note(KNOWN)
    ended = replace(recovered_by_another(Step.RESTORED, Step.IN_SERVICE), entries=())
    for each in (recovered_by_another(), ended):
        assert not is_older(each, KNOWN)
        assert not lacks_entries(each, KNOWN)
        memory.note(each)
        assert memory.newest == each
    later = ended.noting(at=at(800), vm="web-3", step=Step.RECORDED)
    memory.note(replace(later, entries=(entry("web-3"),)))
    assert memory.newest is not None
    assert [each.vm for each in memory.newest.entries] == ["web-3"]


def test_a_ledger_of_another_history_without_that_is_older() -> None:
    """S5: an entry that only ends, or changes without a step, was not recovered."""
    new = Ledger(epoch=4).noting(at=at(700), vm="web-3", step=Step.LEADS)
    ended = new.noting(at=at(710), vm="web-2", step=Step.IN_SERVICE)
    changed = replace(new, entries=(replace(KNOWN.entries[0], memberships=()),))
    for each in (new, ended, changed):
        assert is_older(each, KNOWN)
        assert recover(each, KNOWN, at=at(999), by="web-1").entries == KNOWN.entries


def test_a_new_entry_that_records_less_was_not_recovered() -> None:
    """S3: the leader that recorded the VM anew had not read what else was removed of it."""
    api, both = membership("web-1", API), (membership("web-2"), membership("web-2", API))
    known = replace(KNOWN, entries=(replace(KNOWN.entries[0], memberships=both),))
    less = replace(KNOWN.entries[0], memberships=both[:1], recorded_at=at(705))
    new = Ledger(epoch=4, entries=(less,))
    new = new.noting(at=at(705), vm="web-2", step=Step.RECORDED)
    assert lacks_entries(new, known)
    assert recover(new, known, at=at(999), by="web-1").entries == known.entries

    other = replace(less, memberships=(both[0], replace(api, nic_id="/nics/other")))
    merged = recover(replace(new, entries=(other,)), known, at=at(999), by="web-1").entries
    assert [each.key for each in merged[0].memberships] == [
        *(each.key for each in other.memberships),
        both[1].key,
    ]
    assert merged[0].out_at is None, "what was added may be in its pool"

    for step in (Step.MEMBERSHIP_DROPPED, Step.PARTLY_RESTORED):
        ended = new.noting(at=at(706), vm="web-2", step=step)
        assert not lacks_entries(ended, known)


def test_the_events_and_verdicts_of_both_ledgers_are_kept() -> None:
    """V1: an event that has a verdict gets no other one, and one that is watched gets one."""

    def watched(event_id: str, *vms: str) -> WatchedEvent:
        names = tuple(WatchedVm(vm=name) for name in vms)
        return WatchedEvent(event_id=event_id, event_type="Reboot", first_seen_at=at(5), vms=names)

    def verdict(event_id: str, seconds: float, found: Verdict) -> EventVerdict:
        return EventVerdict(
            at=at(seconds), vm="web-2", event_id=event_id, event_type="Reboot", verdict=found
        )

    drained = verdict("E-1", 600, Verdict.DRAINED)
    known = replace(
        KNOWN,
        events=(watched("E-2", "web-2", "web-3"), watched("E-3", "web-3")),
        verdicts=(drained,),
    )
    again, other = verdict("e-1", 705, Verdict.HIT_IN_ROTATION), verdict("E-2", 706, Verdict.LATE)
    new = Ledger(epoch=4, events=(watched("e-3", "web-3"),), verdicts=(again, other))
    new = new.noting(at=at(700), vm="web-3", step=Step.LEADS)
    recovered = recover(new, known, at=at(999), by="web-1")
    assert recovered.verdicts == (drained, other)
    assert [(x.event_id, [vm.place for vm in x.vms]) for x in recovered.events] == [
        ("e-3", [Place.UNKNOWN]),
        ("E-2", [Place.JUDGED, Place.UNKNOWN]),
    ]


def test_of_a_vm_that_was_recorded_anew_the_new_entry_counts() -> None:
    """A leader that began with an empty ledger has drained the VM again since."""
    again = replace(KNOWN.entries[0], recorded_at=at(705))
    new = Ledger(epoch=4, entries=(again,))
    new = new.noting(at=at(705), vm="web-2", step=Step.RECORDED)
    assert recover(new, KNOWN, at=at(999), by="web-1").entries == (again,)
