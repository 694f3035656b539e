"""Controls of the set: how long they are in force, and how they read."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.core.controls import (
    CLOCKS_DIFFER,
    LONGEST,
    MAX_EVENTS,
    MAX_OVERRIDES,
    NO_CONTROLS,
    Controls,
    Decision,
    EventControl,
    HandOver,
    Override,
    Pause,
)

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def pause(*, for_s: float = 7200, at: datetime = T0) -> Pause:
    return Pause(by="ann", reason="migration", at=at, until=at + timedelta(seconds=for_s))


def test_a_control_ends_by_itself() -> None:
    """It is in force until its end, not at it."""
    controls = NO_CONTROLS.with_pause(pause(for_s=60))
    assert controls.in_force(T0) == controls
    assert controls.in_force(T0 + timedelta(seconds=60) - SECOND) == controls
    assert controls.in_force(T0 + timedelta(seconds=60)) == NO_CONTROLS


def test_no_control_lasts_for_ever() -> None:
    """A forged end counts for eight days, and a beginning in the far future not at all."""
    forged = pause(for_s=9e8)
    assert forged.ends_at == T0 + LONGEST == T0 + timedelta(days=8)
    assert forged.is_active(T0 + LONGEST - SECOND)
    assert not forged.is_active(T0 + LONGEST)
    assert pause().ends_at == T0 + timedelta(hours=2)
    assert timedelta(days=1) == CLOCKS_DIFFER
    assert pause(at=T0 + CLOCKS_DIFFER).is_active(T0)
    assert not pause(at=T0 + CLOCKS_DIFFER + SECOND).is_active(T0)


def test_a_control_reads_as_a_sentence() -> None:
    """Author, end and reason; without a reason nothing is in brackets."""
    assert str(pause()) == "removals are paused by ann until 2026-01-05 14:00 UTC (migration)"
    assert replace(pause(), reason="").author == "by ann until 2026-01-05 14:00 UTC"
    assert (pause().kind, pause().subject) == ("pause", "")


def test_texts_are_short_and_printable() -> None:
    """What another writer puts into the blob is cut where people read it."""
    forged = replace(pause(), by="\x1b[31m" + "x" * 9999, reason="\n" * 9999)
    assert len(forged.by) == len(forged.reason) == 300
    assert "\x1b" not in forged.by
    assert "\n" not in forged.reason


def test_every_control_is_listed() -> None:
    """The list has what is there, and nothing of what is not."""
    assert NO_CONTROLS.listed == ()
    assert Controls(pause=pause()).listed == (pause(),)
    assert Controls(pause=pause()).with_pause(None).listed == ()


# --- decisions about an event ---


def decision(event_id: str = "E-1", decision: str = Decision.HOLD, **fields: Any) -> EventControl:
    return EventControl(
        event_id=event_id,
        decision=decision,
        by="ann",
        reason="",
        at=T0,
        until=T0 + timedelta(hours=1),
        **fields,
    )


def test_the_last_decision_about_an_event_counts() -> None:
    """Another decision replaces it, whatever the spelling; other events keep theirs."""
    controls = NO_CONTROLS.deciding(decision("E-1")).deciding(decision("E-2"))
    again = controls.deciding(decision("e-1", Decision.ACKNOWLEDGE))
    assert [(each.event_id, each.kind) for each in again.events] == [
        ("E-2", "hold"),
        ("e-1", "acknowledge"),
    ]
    assert again.of_event("E-1") == decision("e-1", Decision.ACKNOWLEDGE)
    assert again.of_event("E-3") is None
    assert again.without_decision("E-1").events == (decision("E-2"),)


def test_decisions_are_bounded() -> None:
    """The oldest one is dropped: its event is long over."""
    controls = NO_CONTROLS
    for number in range(MAX_EVENTS + 1):
        controls = controls.deciding(decision(f"E-{number}"))
    assert len(controls.events) == MAX_EVENTS == 50
    assert controls.events[0].event_id == "E-1"


def test_decisions_read_as_sentences() -> None:
    """Each states what happens, and who decided it."""
    by = "decided by ann until 2026-01-05 13:00 UTC"
    assert str(decision()) == f"event E-1 is not acknowledged, {by}"
    now = decision("E-1", Decision.ACKNOWLEDGE)
    assert str(now) == f"event E-1 is acknowledged as soon as its VMs are out, {by}"
    assert str(replace(now, forced=True)) == (
        f"event E-1 is acknowledged even while its VMs are in rotation, {by}"
    )
    assert now.subject == "E-1"


# --- hand-over ---


def hand_over(vm: str = "") -> HandOver:
    return HandOver(
        request_id="H-1",
        leader="web-1",
        vm=vm,
        by="ann",
        reason="",
        at=T0,
        until=T0 + timedelta(minutes=1),
    )


def test_whom_a_hand_over_concerns() -> None:
    """Without a target the leader alone gives way, with one every other agent does."""
    assert hand_over().concerns("WEB-1")
    assert not hand_over().concerns("web-2")
    assert hand_over("web-2").concerns("web-1")
    assert hand_over("web-2").concerns("web-3")
    assert not hand_over("web-2").concerns("WEB-2")


def test_a_hand_over_reads_as_a_sentence() -> None:
    """It names both VMs."""
    by = "requested by ann until 2026-01-05 12:01 UTC"
    assert str(hand_over()) == f"web-1 hands the lease over to any other VM, {by}"
    assert str(hand_over("web-2")) == f"web-1 hands the lease over to web-2, {by}"
    assert (hand_over("web-2").kind, hand_over("web-2").subject) == ("hand_over", "web-2")


def test_each_control_ends_by_itself() -> None:
    """The others stay in force."""
    controls = Controls(pause=pause(), events=(decision(),)).with_hand_over(hand_over())
    assert controls.listed == (pause(), hand_over(), decision())
    at_end = controls.in_force(T0 + timedelta(minutes=1))
    assert at_end.listed == (pause(), decision())
    assert controls.in_force(T0 + timedelta(hours=1)).listed == (pause(),)


# --- overrides ---


def override(key: str = "lead_time_s", value: str = "600", pool: str = "") -> Override:
    return Override(
        key=key,
        value=value,
        pool=pool,
        by="ann",
        reason="",
        at=T0,
        until=T0 + timedelta(hours=1),
    )


def test_the_last_override_of_a_setting_counts() -> None:
    """A floor is a setting of its pool."""
    controls = NO_CONTROLS.overriding(override("min_in_service", "1", "/a/app"))
    controls = controls.overriding(override("min_in_service", "2", "/a/api"))
    again = controls.overriding(override("min_in_service", "3", "/A/app"))
    assert [each.value for each in again.overrides] == ["2", "3"]
    found = again.override_of("min_in_service", "/a/APP")
    assert found is not None
    assert found.value == "3"
    assert again.override_of("lead_time_s", "") is None
    assert [
        each.value for each in again.without_override("min_in_service", "/a/app").overrides
    ] == ["2"]


def test_overrides_are_bounded() -> None:
    """The oldest one is dropped."""
    controls = NO_CONTROLS
    for number in range(MAX_OVERRIDES + 1):
        controls = controls.overriding(override(str(number)))
    assert len(controls.overrides) == MAX_OVERRIDES == 100
    assert controls.overrides[0].key == "1"


def test_an_override_reads_as_a_sentence() -> None:
    """Key, value, pool and author; a forged value is cut."""
    by = "set by ann until 2026-01-05 13:00 UTC"
    assert str(override()) == f"lead_time_s=600, {by}"
    floor = override("min_in_service", "50%", "/lb/web/pools/app")
    assert str(floor) == f"min_in_service=50% for pool app, {by}"
    assert (floor.kind, floor.subject) == ("override", "min_in_service")
    assert len(override(value="\x1b" * 9999).setting) == 300
    controls = NO_CONTROLS.overriding(override())
    assert controls.listed == (override(),)
    assert controls.in_force(T0 + timedelta(hours=1)) == NO_CONTROLS
