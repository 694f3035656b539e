"""The steps of a drain and the episodes that they form."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core import drain_history
from controller.core.drain_history import (
    ENDS,
    Episode,
    Step,
    Transition,
    connections_cut,
    cut_text,
    episodes,
    step_text,
)
from controller.core.ledger import Entry, EventReference, Ledger
from controller.storage.ledger_json import decode_ledger, encode_ledger

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
STORED = {
    "requested",
    "recorded",
    "closed",
    "out",
    "put back",
    "acknowledged",
    "restoring",
    "partly restored",
    "restored",
    "opened",
    "in service",
    "forgotten",
    "gone",
    "exists again",
    "membership dropped",
    "out again",
    "recovered",
    "leads",
    "membership lost",
    "place exists again",
    "announced",
    "started",
    "completed",
    "cancelled",
    "end reported",
}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def lines(*steps: str, vm: str = "web-2", first_s: float = 0) -> tuple[Transition, ...]:
    """Return transitions of one VM, one second apart."""
    return tuple(
        Transition(at=at(first_s + number), vm=vm, step=step) for number, step in enumerate(steps)
    )


def test_the_stored_strings_do_not_change() -> None:
    """The values of the steps are exactly the strings that are in the ledgers of every version."""
    assert {step.value for step in Step} == STORED


def test_the_table_names_every_step() -> None:
    """The module's table has one row for each step, in the order of the enum."""
    rows = re.findall(r"^\| `([^`]+)`", drain_history.__doc__ or "", re.MULTILINE)
    assert rows == [step.value for step in Step]


def test_a_step_that_only_a_newer_version_knows_is_kept() -> None:
    """An unknown step is read, belongs to its episode and is written back unchanged."""
    written = encode_ledger(Ledger(transitions=lines("recorded", "paused", "out")))
    ledger = decode_ledger(written)
    assert [line.step for line in ledger.transitions] == ["recorded", "paused", "out"]
    assert encode_ledger(ledger) == written
    [episode] = episodes(ledger.transitions, "web-2")
    assert len(episode.lines) == 3


def test_an_episode_ends_in_service_or_forgotten() -> None:
    """Only these two steps end an episode, and the next step of that VM begins another one."""
    assert {"in service", "forgotten"} == ENDS
    first, second, third = (
        lines("recorded", "out", "restored", "in service"),
        lines("recorded", "forgotten", first_s=10),
        lines("recorded", "gone", "exists again", "out again", first_s=20),
    )
    found = episodes((*first, *second, *third), "web-2")
    assert found == (Episode(first), Episode(second), Episode(third))
    assert [episode.over for episode in found] == [True, True, False]


def test_an_episode_is_of_one_vm_in_any_spelling() -> None:
    """Transitions of other VMs, and that an agent leads, belong to no episode of this VM."""
    mine = lines("recorded", vm="WEB-2")
    others = (*lines("recorded", "in service", vm="web-3"), *lines("leads", vm="web-2"))
    assert episodes((*others, *mine, *others), "web-2") == (Episode(mine),)
    assert episodes(others, "web-2") == ()


def test_the_first_time_of_a_step() -> None:
    """The first one counts, or the first one at or after an instant."""
    episode = Episode(lines("recorded", "out", "recorded", "out"))
    assert episode.first(Step.OUT) == at(1)
    assert episode.first(Step.OUT, since=at(1)) == at(1)
    assert episode.first(Step.OUT, since=at(2)) == at(3)
    assert episode.first(Step.OUT, since=at(4)) is None
    assert episode.first(Step.GONE) is None


def test_the_last_time_of_a_step() -> None:
    """The last one counts, of several steps, or with a detail in any spelling."""
    noted = lines("recorded", "acknowledged", "acknowledged", "out again")
    first, second = replace(noted[1], detail="E-1"), replace(noted[2], detail="E-3")
    episode = Episode((noted[0], first, second, noted[3]))
    assert episode.last(Step.ACKNOWLEDGED) == at(2)
    assert episode.last(Step.OUT_AGAIN) == at(3)
    assert episode.last(Step.ACKNOWLEDGED, detail="e-1") == at(1)
    assert episode.last(Step.ACKNOWLEDGED, detail="E-2") is None
    assert episode.last(Step.RECORDED, Step.OUT_AGAIN) == at(3)
    assert episode.last(Step.RESTORED) is None


def test_acknowledged_events() -> None:
    """An event is acknowledged by history or by an entry, in any spelling; no other step counts."""
    events = (
        EventReference(event_id="E-2", event_type="Reboot", acknowledged_at=T0),
        EventReference(event_id="E-3", event_type="Reboot"),
    )
    entry = Entry(vm="web-2", vm_id="/vm/2", events=events, memberships=(), recorded_at=T0)
    ledger = Ledger().with_entry(entry).noting(at=T0, vm="web-1", step=Step.OUT, detail="E-4")
    ledger = ledger.noting(at=T0, vm="web-1", step=Step.ACKNOWLEDGED, detail="E-1")
    assert set(ledger.acknowledged_at()) == {"e-1", "e-2"}


def test_every_step_has_a_text() -> None:
    """People read another text than the stored one; an unknown step is shown as it is stored."""
    texts = [step_text(step) for step in Step]
    assert len(set(texts)) == len(Step)
    assert step_text(Step.RECORDED) == "drain started"
    assert step_text("paused") == "paused"


@pytest.mark.parametrize("detail", ["{}", "Reboot E-1, {}", "its removal had not ended; {}"])
def test_a_detail_states_the_connections_that_were_cut(detail: str) -> None:
    """The number is read back from the end of the detail that it was written to."""
    assert connections_cut(detail.format(cut_text(12))) == 12


@pytest.mark.parametrize("detail", ["", "app", "12 connections left", "xconnections cut: 3"])
def test_other_details_state_no_cut_connections(detail: str) -> None:
    """Only the text of `cut_text` counts, and none is written for none."""
    assert connections_cut(detail) == 0
    assert cut_text(0) == ""
