"""Whether a VM closes, opens or stays open: laws S8 and S9."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core.closing import (
    ANNOUNCED_S,
    CLOSE_ALONE_S,
    OPENS_WITHIN_S,
    STORAGE_SILENT_S,
    Known,
    Wish,
    wish,
)
from controller.core.event_progress import SeenEvent
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.policy import Floor, Policy
from controller.core.vm_report import VmState
from tests.support.planner_scenario import APP, at, event, membership, started, vm_id
from tests.support.policies import make_policy

OPEN_AFTER_S = 3600.0
SILENT = STORAGE_SILENT_S + 1


def entry(vm: str = "web-1", **changes: Any) -> Entry:
    """Return an entry as the leader records it."""
    reference = EventReference(event_id="E-1", event_type="Reboot", not_before=at(600))
    recorded = Entry(
        vm=vm,
        vm_id=vm_id(vm),
        events=(reference,),
        memberships=(membership(vm),),
        recorded_at=at(0),
    )
    return replace(recorded, **changes)


def policy(floor: int = 1) -> Policy:
    """Return a policy with this floor."""
    return make_policy(pools={APP: Floor(number=floor)}, close=True)


def known(
    *events: ScheduledEvent,
    ledger: Ledger | None = None,
    age_s: float = 0,
    now: float = 0,
    **fields: Any,
) -> Known:
    """Return what the agent of web-1 knows."""
    return Known(
        vm="web-1",
        peers=("web-1", "web-2", "web-3"),
        ledger=ledger,
        ledger_age_s=age_s,
        silent_s=fields.pop("silent_s", age_s),
        document=EventDocument(incarnation=1, events=events),
        now=at(now),
        **fields,
    )


def state(known: Known, *, floor: int = 1) -> VmState:
    """Return what the VM should be."""
    return wish(known, policy(floor), open_after_s=OPEN_AFTER_S).state


# --- S8: closed only by proof ---


def test_a_vm_closes_because_an_entry_names_it() -> None:
    """S8: the durable entry is the wish, and the wish names its drain and its event."""
    own = event("WEB-1")
    found = wish(known(own, ledger=Ledger(entries=(entry("Web-1"),))), policy(), open_after_s=60)
    assert found == Wish(
        state=VmState.CLOSED, drain=at(0), event=own, reason="Reboot", announced=True
    )


def test_an_event_alone_closes_nothing() -> None:
    """S8: while storage answers, an announced event without an entry is left to the leader."""
    soon = event("web-1", not_before=5)
    assert state(known(soon, ledger=Ledger())) is VmState.OPEN
    assert state(known(soon, ledger=Ledger(entries=(entry("web-2"),)))) is VmState.OPEN


@pytest.mark.parametrize(
    ("announced", "age_s", "expected"),
    [
        (event("web-1", not_before=CLOSE_ALONE_S - 1), SILENT, VmState.CLOSED),
        (event("web-1", not_before=CLOSE_ALONE_S + 1), SILENT, VmState.OPEN),
        (event("web-1", not_before=CLOSE_ALONE_S - 1), STORAGE_SILENT_S - 1, VmState.OPEN),
        (started("web-1"), SILENT, VmState.CLOSED),
        (event("web-2", not_before=5), SILENT, VmState.OPEN),
        (event("web-1", not_before=5, event_type="Freeze", duration_s=2), SILENT, VmState.OPEN),
    ],
)
def test_a_vm_closes_alone_only_for_its_own_near_event(
    announced: ScheduledEvent, age_s: float, expected: VmState
) -> None:
    """S8: without storage a VM closes shortly before its own impacting event, and never else."""
    assert state(known(announced, ledger=Ledger(), age_s=age_s)) is expected


def test_one_lost_reply_after_an_idle_time_closes_nothing() -> None:
    """S8: the ledger was read long ago, because nothing was announced."""
    soon = event("web-1", not_before=5)
    idle = known(soon, ledger=Ledger(), age_s=600, silent_s=2)
    assert state(idle) is VmState.OPEN
    assert state(replace(idle, silent_s=SILENT)) is VmState.CLOSED


def test_a_vm_whose_drain_is_paused_does_not_close_alone() -> None:
    """A pause that the last ledger shows is obeyed while storage does not answer."""

    def paused(vm: str, reason: str = "paused") -> Ledger:
        return Ledger(holds=(Hold(subject=vm, reason=reason, message="", since=at(0)),))

    soon = event("web-1", not_before=5)
    assert state(known(soon, ledger=paused("WEB-1"), age_s=SILENT)) is VmState.OPEN
    assert state(known(soon, ledger=paused("web-2"), age_s=SILENT)) is VmState.CLOSED
    assert state(known(soon, ledger=paused("web-1", "floor"), age_s=SILENT)) is VmState.CLOSED


@pytest.mark.parametrize(
    "own_event",
    [
        event("web-1", not_before=20),
        event("web-1", not_before=5),
        started("web-1"),
    ],
    ids=["later", "earlier", "started"],
)
def test_vms_with_near_events_close_alone_if_the_floor_allows_all_of_them(
    own_event: ScheduledEvent,
) -> None:
    """S8: any of them may have closed already, whatever the order of their events is now."""
    other = event("web-2", not_before=10, event_id="E-2")
    silent = known(other, own_event, ledger=Ledger(), age_s=SILENT)
    for vm in ("web-1", "web-2"):
        assert state(replace(silent, vm=vm), floor=1) is VmState.CLOSED
        assert state(replace(silent, vm=vm), floor=2) is VmState.OPEN


def test_an_event_that_is_far_ahead_counts_for_no_floor() -> None:
    """S8: a VM with such an event does not close alone."""
    events = (event("web-2", not_before=600, event_id="E-2"), event("web-1", not_before=20))
    silent = known(*events, ledger=Ledger(), age_s=SILENT)
    assert state(silent, floor=2) is VmState.CLOSED


@pytest.mark.parametrize("before_s", [-5, 20, OPENS_WITHIN_S - 1, OPENS_WITHIN_S + 1])
@pytest.mark.parametrize("event_type", ["Terminate", "Freeze"])
def test_a_vm_whose_event_is_over_may_still_be_closed(before_s: float, event_type: str) -> None:
    """S8: without storage it cannot show that it has opened, nor its agent read that it may."""
    over = event("web-2", event_id="E-2", event_type=event_type, duration_s=2)
    gone = SeenEvent(event=over, first_seen_at=None, gone=True, gone_at=at(-SILENT - before_s))
    soon = event("web-1", not_before=5)
    silent = known(soon, ledger=Ledger(), age_s=SILENT, seen=(gone,))
    expected = VmState.OPEN
    if before_s > OPENS_WITHIN_S or event_type == "Freeze":
        expected = VmState.CLOSED
    assert state(silent, floor=2) is expected
    assert state(silent, floor=1) is VmState.CLOSED


def test_names_in_another_spelling_are_the_same_vm() -> None:
    """S8: Azure spells one VM in several ways."""
    soon = event("web-1", not_before=5)
    silent = known(soon, ledger=Ledger(), age_s=SILENT)
    assert state(replace(silent, vm="WEB-1")) is VmState.CLOSED


def test_vms_that_are_out_already_do_not_count_for_the_floor() -> None:
    """S8: what the last ledger recorded as out is out for the floor of a VM that closes alone."""
    soon = event("web-1", not_before=5)
    for out in (entry("web-3", out_at=at(-60)), entry("web-3", restored_at=at(-5))):
        silent = known(soon, ledger=Ledger(entries=(out,)), age_s=SILENT)
        assert state(silent, floor=1) is VmState.CLOSED
        assert state(silent, floor=2) is VmState.OPEN


@pytest.mark.parametrize("announced", [event("web-1", not_before=5), started("web-1")])
@pytest.mark.parametrize("floor", [0, 1])
def test_an_agent_that_has_read_no_ledger_closes_nothing(
    announced: ScheduledEvent, floor: int
) -> None:
    """S8: it cannot know which VMs are out already, so no floor allows it to close."""
    unknown = known(announced, age_s=float("inf"))
    assert state(unknown, floor=floor) is VmState.OPEN
    assert state(replace(unknown, ledger=Ledger()), floor=floor) is VmState.CLOSED


@pytest.mark.parametrize("announced", [event("web-1", not_before=5), started("web-1")])
def test_an_event_of_an_old_document_closes_nothing(announced: ScheduledEvent) -> None:
    """S8: an agent that cannot read events does not know whether it is still announced."""
    silent = known(announced, ledger=Ledger(), age_s=SILENT, document_age_s=ANNOUNCED_S)
    assert state(silent) is VmState.CLOSED
    assert state(replace(silent, document_age_s=ANNOUNCED_S + 1)) is VmState.OPEN


def test_a_vm_that_closed_alone_waits_for_its_record_when_storage_answers() -> None:
    """S8: no leader has recorded it yet, and it would open for seconds just before its event."""
    soon = event("web-1", not_before=20)
    answers = known(soon, ledger=Ledger(), closed_alone=True)
    assert state(answers) is VmState.CLOSED
    assert state(replace(answers, now=at(-100))) is VmState.OPEN, "the event was postponed"
    assert state(replace(answers, document=EventDocument(incarnation=2))) is VmState.OPEN
    assert state(answers, floor=3) is VmState.OPEN


@pytest.mark.parametrize("reason", ["floor", "paused"])
def test_a_vm_that_closed_alone_opens_if_the_leader_holds_its_drain(reason: str) -> None:
    """S2: no record follows."""
    hold = Hold(subject="WEB-1", reason=reason, message="", since=at(0))
    soon = event("web-1", not_before=20)
    assert state(known(soon, ledger=Ledger(holds=(hold,)), closed_alone=True)) is VmState.OPEN


# --- opening ---


def test_a_vm_opens_when_its_memberships_are_back() -> None:
    """The entry stays until the VM is open; it asks to open once everything is restored."""
    restored = entry(restored_at=at(300))
    found = wish(known(ledger=Ledger(entries=(restored,))), policy(), open_after_s=OPEN_AFTER_S)
    assert (found.state, found.drain) == (VmState.OPENING, at(0))


@pytest.mark.parametrize(
    ("restoring_s", "expected"), [(1, VmState.OPENING), (60, VmState.CLOSED), (-1, VmState.CLOSED)]
)
def test_a_vm_opens_while_one_pool_refuses_it(restoring_s: float, expected: VmState) -> None:
    """L2: it serves in the pools that it is back in; not if it was recorded again since."""
    ledger = Ledger().with_entry(entry(restoring_at=at(restoring_s)))
    assert state(known(ledger=ledger, now=100)) is expected
    own = event("web-1", not_before=400)
    assert state(known(own, ledger=ledger, now=100)) is VmState.CLOSED


def test_a_vm_opens_when_its_entry_is_gone_or_parked() -> None:
    """What is not being drained is open."""
    assert state(known(ledger=Ledger())) is VmState.OPEN
    parked = entry(memberships=(), lost=(membership("web-1"),))
    assert state(known(ledger=Ledger(entries=(parked,)))) is VmState.OPEN


# --- S9: open by default ---


def test_without_news_a_closed_vm_opens() -> None:
    """S9: an agent that hears nothing from storage for open_after_s opens its VM."""
    ledger = Ledger(entries=(entry(),))
    assert state(known(ledger=ledger, age_s=OPEN_AFTER_S - 1)) is VmState.CLOSED
    assert state(known(ledger=ledger, age_s=OPEN_AFTER_S + 1)) is VmState.OPEN


def test_without_news_a_vm_whose_event_is_announced_stays_closed() -> None:
    """S9: its own event is still announced, so the VM is still about to go down."""
    ledger = Ledger(entries=(entry(),))
    waiting = known(event("web-1"), ledger=ledger, age_s=OPEN_AFTER_S + 1)
    assert state(waiting) is VmState.CLOSED
    assert state(replace(waiting, document_age_s=ANNOUNCED_S + 1)) is VmState.OPEN


def test_without_news_a_vm_opens_though_an_event_is_announced_a_week_ahead() -> None:
    """S9, S6: a leader would restore it until then."""
    week_s = 7 * 86400.0
    later, own = event("web-1", not_before=week_s, event_id="E-2"), entry(recorded_at=at(0))
    silent = known(later, ledger=Ledger(entries=(own,)), age_s=OPEN_AFTER_S + 1)
    assert state(silent) is VmState.OPEN
    assert state(replace(silent, now=at(week_s - 1200))) is VmState.CLOSED
    because_of_it = replace(later, event_id="E-1")
    assert state(known(because_of_it, ledger=silent.ledger, age_s=OPEN_AFTER_S + 1)) is (
        VmState.CLOSED
    )
    found = Wish(state=VmState.CLOSED, drain=at(0), reason="Reboot")
    fresh = known(later, age_s=float("inf"), found=found, found_age_s=OPEN_AFTER_S + 1)
    assert state(fresh) is VmState.OPEN


def test_an_agent_that_starts_while_storage_is_silent_keeps_the_flag_it_found() -> None:
    """A crash of the agent does not open a VM in the middle of its drain, nor close it for good."""
    found = Wish(state=VmState.CLOSED, drain=at(0), reason="Reboot")
    fresh = known(age_s=float("inf"), found=found, found_age_s=10)
    assert wish(fresh, policy(), open_after_s=60) == found
    assert state(replace(fresh, found_age_s=OPEN_AFTER_S + 1)) is VmState.OPEN
    assert state(replace(fresh, ledger=Ledger(), ledger_age_s=0)) is VmState.OPEN


def test_without_document_and_ledger_a_vm_is_open() -> None:
    """S9: an agent that knows nothing leaves its VM open."""
    nothing = replace(known(age_s=float("inf")), document=None)
    assert state(nothing) is VmState.OPEN
    later = replace(nothing, now=at(0) + timedelta(days=1))
    assert state(later) is VmState.OPEN
