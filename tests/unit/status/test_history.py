"""The history of a set, of one VM, and since an instant."""

import json
from datetime import UTC, datetime, timedelta

from controller.core.drain_history import Step
from controller.core.event_record import EventVerdict, Verdict
from controller.core.ledger import Ledger
from controller.status.history import History, history_in, history_of
from controller.status.overview import overview
from tests.unit.status.test_overview import leader

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def found() -> History:
    verdict = EventVerdict(
        at=NOW, vm="web-2", event_id="E-1", event_type="Reboot", verdict=Verdict.LATE
    )
    ledger = Ledger(verdicts=(verdict,))
    for minutes, vm in ((-60, "web-1"), (-30, "web-1, WEB-2"), (-1, "web-22")):
        at = NOW + timedelta(minutes=minutes)
        ledger = ledger.noting(at=at, vm=vm, step=Step.ANNOUNCED)
    return history_of(ledger, at=NOW, availability_set="/set/web")


def names(history: History) -> list[str]:
    return [line["vm"] for line in history.lines]


def test_the_newest_comes_first() -> None:
    """All of it, without a filter."""
    assert names(found().of("", None)) == ["web-22", "web-1, WEB-2", "web-1"]


def test_the_history_of_one_vm() -> None:
    """Also of the events that name others; not of a VM whose name begins alike."""
    of_two = found().of("web-2", None)
    assert (names(of_two), len(of_two.verdicts)) == (["web-1, WEB-2"], 1)
    assert (names(found().of("web-9", None)), found().of("web-9", None).verdicts) == ([], ())


def test_the_history_since_an_instant() -> None:
    """That instant included."""
    assert names(found().of("", NOW - timedelta(minutes=30))) == ["web-22", "web-1, WEB-2"]
    assert found().of("", NOW + timedelta(seconds=1)).verdicts == ()


def test_history_is_one_json_object() -> None:
    """With the version of its schema."""
    shown = json.loads(json.dumps(found().as_json()))
    assert (shown["version"], shown["availability_set"]) == (1, "/set/web")
    assert [len(shown["verdicts"]), len(shown["history"])] == [1, 3]


def test_an_agent_knows_the_same_history() -> None:
    """For when storage does not answer."""
    shown = overview(leader())
    assert history_in(shown).lines == tuple(shown["history"])
    assert history_in(shown).availability_set == "/set/web"
