"""Texts from a blob: cut and printable in every value that is made of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.blob_limits import MAX_MESSAGE_CHARACTERS, MAX_TEXT_CHARACTERS, cut
from controller.core.drain_history import Step, Transition
from controller.core.drain_requests import DrainRequest, ForgetRequest, RollingRun
from controller.core.event_record import EventVerdict, WatchedEvent, WatchedVm
from controller.core.ledger import CLOCK_SKEW, Entry, Hold, Ledger

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
ESCAPES = "ok\x1b[2J\x1b]0;owned\x07\nleader: web-9\u202e\ud800"
SHOWN = "ok\\x1b[2J\\x1b]0;owned\\x07\\nleader: web-9\\u202e\\ud800"


@pytest.mark.parametrize("text", ["", "größer 💣", "x" * MAX_TEXT_CHARACTERS])
def test_a_short_text_stays(text: str) -> None:
    """What is printable and short is shown as it is."""
    assert cut(text) == text


@pytest.mark.parametrize("text", ["x" * 301, "💣" * 400_000, "\x1b" * 299, ESCAPES * 99])
def test_a_long_text_is_cut_once(text: str) -> None:
    """The result has at most the limit, and cutting it again changes nothing."""
    assert len(cut(text)) == MAX_TEXT_CHARACTERS
    assert cut(text).endswith("...")
    assert cut(cut(text)) == cut(text)


VALUES: dict[str, tuple[object, tuple[str, ...]]] = {
    "hold": (
        Hold(subject=ESCAPES, reason=ESCAPES, message=ESCAPES, since=NOW),
        ("subject", "reason", "message"),
    ),
    "transition": (
        Transition(at=NOW, vm=ESCAPES, step=ESCAPES, detail=ESCAPES),
        ("vm", "step", "detail"),
    ),
    "request": (
        DrainRequest(
            request_id="r",
            vm=ESCAPES,
            reason=ESCAPES,
            by=ESCAPES,
            at=NOW,
            until=NOW,
            ended_by=ESCAPES,
        ),
        ("vm", "reason", "by", "ended_by"),
    ),
    "forget": (ForgetRequest(vm=ESCAPES, recorded_at=NOW, by=ESCAPES, at=NOW), ("vm", "by")),
    "roll": (
        RollingRun(
            run_id="r",
            what=ESCAPES,
            vms=(),
            done=(),
            by=ESCAPES,
            at=NOW,
            process_id="p",
            failed=ESCAPES,
        ),
        ("what", "by", "failed"),
    ),
    "watched": (WatchedVm(vm=ESCAPES, place=ESCAPES, why=ESCAPES), ("vm", "place", "why")),
    "verdict": (
        EventVerdict(
            at=NOW, vm=ESCAPES, event_id="e", event_type="Reboot", verdict=ESCAPES, why=ESCAPES
        ),
        ("vm", "verdict", "why"),
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_hold_nothing_that_reaches_a_terminal(name: str) -> None:
    """K6: every text for people is data, in whichever way the value is made."""
    value, texts = VALUES[name]
    assert {getattr(value, text) for text in texts} == {SHOWN}


def test_a_message_may_be_longer() -> None:
    """The message of a hold names what to do, which takes some words."""
    hold = Hold(subject="s", reason="r", message="x" * 9999, since=NOW)
    assert len(hold.message) == MAX_MESSAGE_CHARACTERS
    assert replace(hold) == hold


# --- instants ---

LATER = NOW + timedelta(hours=1)


def ledger(at: datetime) -> Ledger:
    entry = Entry(
        vm="web-1",
        vm_id="/vm/web-1",
        events=(),
        memberships=(),
        recorded_at=at,
        out_at=at,
        restoring_at=at,
        closed_at=at,
        unread_at=at,
        restored_at=at,
    )
    event = WatchedEvent(
        event_id="E",
        event_type="Reboot",
        first_seen_at=at,
        watched_at=at,
        not_before=LATER,
        started_at=at,
        gone_at=at,
        vms=(WatchedVm(vm="web-1", out_at=at),),
    )
    return Ledger(
        leader_since=LATER,
        entries=(entry,),
        holds=(Hold(subject="s", reason="r", message="m", since=at),),
        transitions=(Transition(at=LATER, vm="web-1", step=Step.OUT),),
        events=(event,),
    )


def test_instants_in_the_future_are_clamped() -> None:
    """K6: a wrong clock or a forged instant is not waited for."""
    assert ledger(LATER).clamped(NOW) == ledger(NOW)


@pytest.mark.parametrize("at", [NOW - timedelta(days=400), NOW, NOW + CLOCK_SKEW])
def test_other_instants_stay(at: datetime) -> None:
    """The clocks of two agents differ a little, and a ledger is not written for that."""
    known = ledger(at)
    assert known.clamped(NOW) is known
    assert Ledger().clamped(NOW) == Ledger()
