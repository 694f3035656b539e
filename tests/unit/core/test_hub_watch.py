"""Which changes of the updates of a Hub are reported, and what the newest run came to."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.core.hub_status import EndpointStatus
from controller.core.hub_updates import HubUpdates, Update, UpdateRun
from controller.core.hub_watch import (
    MAX_RUNS,
    MAX_UNDELIVERED,
    Memory,
    Outcome,
    after_answer,
    after_failure,
    after_poll,
    outcome,
    run_ended,
    should_ask,
)
from controller.core.notices.notice import Notice, NoticeKind

START = datetime(2030, 1, 2, 12, tzinfo=UTC)
ALARM_AFTER = 3
LONG_S = 36_000.0


def run(state: str, *, update: str = "M1", name: str = "r1", at_min: float = 0, **more: object):
    return UpdateRun(
        update=update,
        name=name,
        state=state,
        started_at=START + timedelta(minutes=at_min),
        **more,  # type: ignore[arg-type]
    )


class Watching:
    """A memory that polls change, with what was reported."""

    def __init__(self) -> None:
        self.memory, self.minutes = Memory(), 0.0
        self.notices: list[Notice] = []

    @property
    def now(self) -> datetime:
        return START + timedelta(minutes=self.minutes)

    def sees(self, *runs: UpdateRun, updates: dict[str, str] | None = None) -> list[Notice]:
        seen = HubUpdates(
            updates=tuple(Update(name=n, state=s) for n, s in (updates or {}).items()),
            runs=runs,
        )
        return self._take(after_poll(self.memory, seen, self.now, long_run_s=LONG_S))

    def fails(self, reason: str = "no answer") -> list[Notice]:
        return self._take(after_failure(self.memory, reason, self.now, alarm_after=ALARM_AFTER))

    def answers(self, status: str, step: str = "") -> list[Notice]:
        answer = EndpointStatus(status=status, step=step)
        return self._take(after_answer(self.memory, "ercs01", answer, (), self.now))

    def no_answer(self, *problems: str) -> list[Notice]:
        return self._take(after_answer(self.memory, "", None, problems, self.now))

    def _take(self, news: tuple[Memory, tuple[Notice, ...]]) -> list[Notice]:
        self.memory, notices = news
        self.minutes += 1
        self.notices += notices
        return list(notices)

    def kinds(self) -> list[NoticeKind]:
        return [each.kind for each in self.notices]

    @property
    def outcome(self) -> Outcome:
        return outcome(self.memory)


@pytest.fixture
def watching() -> Watching:
    return Watching()


# --- runs ---


def test_each_change_of_a_run_is_reported_once(watching: Watching) -> None:
    """Begun and succeeded: two notices, however often the states are seen."""
    for state in ("InProgress", "InProgress", "Succeeded", "Succeeded"):
        watching.sees(run(state, duration_s=7925.46))
    assert watching.kinds() == [NoticeKind.UPDATE_STARTED, NoticeKind.UPDATE_SUCCEEDED]
    assert watching.notices[1].text == (
        "update M1 has succeeded: run r1, started 2030-01-02 12:00:00 UTC, took 2 h 12 min"
    )
    assert watching.outcome is Outcome.SUCCEEDED


def test_a_failure_names_its_step_and_its_message(watching: Watching) -> None:
    """What an operator needs to decide about a resume is in the notice."""
    watching.sees(run("InProgress"))
    (found,) = watching.sees(run("Failed", step="Restart Storage Hosts", problem="node 3\nis off"))
    assert (found.kind, found.problem) == (NoticeKind.UPDATE_FAILED, True)
    assert "at the step Restart Storage Hosts: node 3 is off" in found.text
    assert watching.outcome is Outcome.FAILED


def test_the_first_poll_reports_the_newest_run_only(watching: Watching) -> None:
    """The history of a Hub is no news; a lost memory costs a repetition, never an end."""
    old = run("Failed", name="r0", at_min=-900)
    (found,) = watching.sees(old, run("Succeeded", update="M2"), updates={"M1": "Installed"})
    assert found.kind is NoticeKind.UPDATE_SUCCEEDED
    assert "update M2" in found.text


def test_without_a_run_there_is_nothing_to_report(watching: Watching) -> None:
    """A new Hub has no update yet."""
    assert watching.sees() == []
    assert watching.outcome is Outcome.NO_RUN


def test_a_run_between_two_polls_is_reported_by_its_end(watching: Watching) -> None:
    """A run can begin and end unseen."""
    watching.sees(run("Succeeded"))
    (found,) = watching.sees(run("Succeeded"), run("Failed", name="r2", at_min=1))
    assert found.kind is NoticeKind.UPDATE_FAILED


@pytest.mark.parametrize("state", ["Unknown", "Paused", "", "\x1b[31mSucceeded"])
def test_an_unknown_state_is_neither_success_nor_failure(watching: Watching, state: str) -> None:
    """It is reported once, as a problem, without control characters."""
    watching.sees(run("InProgress"))
    (found,) = watching.sees(run(state))
    assert (found.kind, found.problem) == (NoticeKind.UPDATE_CHANGED, True)
    assert found.text.isprintable()
    assert watching.sees(run(state)) == []
    assert watching.outcome is Outcome.UNKNOWN


def test_a_resumed_run_and_a_second_run_are_distinguished(watching: Watching) -> None:
    """The same run goes on after a failure, or the update has another one."""
    watching.sees(run("Failed"))
    (resumed,) = watching.sees(run("InProgress"))
    assert "M1 was resumed and is in progress" in resumed.text
    watching.sees(run("Failed"))
    (second,) = watching.sees(run("Failed"), run("InProgress", name="r2", at_min=5))
    assert "M1 was started again and is in progress" in second.text
    watching.sees(run("Failed"), run("Succeeded", name="r2", at_min=5))
    assert watching.outcome is Outcome.SUCCEEDED


def test_the_order_of_the_list_does_not_matter(watching: Watching) -> None:
    """The newest run is the one that started last."""
    watching.sees(run("Succeeded", name="r2", at_min=5), run("Failed"))
    assert watching.outcome is Outcome.SUCCEEDED


def test_a_run_without_a_start_counts_from_when_it_was_seen(watching: Watching) -> None:
    """The Hub can leave out the time, and ids differ in case."""
    watching.sees(run("Succeeded"))
    odd = UpdateRun(update="M2", name="R9", state="InProgress")
    watching.sees(run("Succeeded"), odd)
    assert watching.outcome is Outcome.IN_PROGRESS
    assert (
        watching.sees(run("Succeeded"), UpdateRun(update="m2", name="r9", state="inProgress")) == []
    )


def test_an_endless_run_is_reported_once(watching: Watching) -> None:
    """A run that lasts longer than the limit needs a check; the reported duration counts first."""
    watching.sees(run("InProgress", duration_s=60))
    (found,) = watching.sees(run("InProgress", duration_s=LONG_S + 1))
    assert (found.kind, found.problem) == (NoticeKind.UPDATE_CHANGED, True)
    assert "still in progress" in found.text
    assert watching.sees(run("InProgress", duration_s=LONG_S + 60)) == []
    watching.minutes = 700
    assert watching.sees(run("InProgress")) == []


def test_a_long_run_is_reported_once(watching: Watching) -> None:
    """Neither a clock that is set back nor a state that is unknown for a while repeats it."""
    watching.sees(run("InProgress"))
    reported = []
    for minutes, state in ((700, "InProgress"), (10, "InProgress"), (710, "InProgress")):
        watching.minutes = minutes
        reported += watching.sees(run(state))
    for state in ("Unknown", "InProgress"):
        reported += [each for each in watching.sees(run(state)) if "is still" in each.text]
    assert ["is still in progress" in each.text for each in reported] == [True]


def test_a_run_that_disappears_is_reported_after_two_polls(watching: Watching) -> None:
    """One list can be incomplete; whether the run has ended is not known."""
    watching.sees(run("InProgress"))
    assert watching.sees() == []
    assert watching.outcome is Outcome.UNKNOWN
    (gone,) = watching.sees()
    assert (gone.kind, gone.problem) == (NoticeKind.UPDATE_UNKNOWN, True)
    assert watching.sees() == []
    assert watching.outcome is Outcome.UNKNOWN
    (back,) = watching.sees(run("InProgress"))
    assert "is listed again" in back.text
    assert watching.outcome is Outcome.IN_PROGRESS


def test_an_old_success_does_not_stand_for_a_run_that_disappeared(watching: Watching) -> None:
    """The outcome stays unknown until a later run is there."""
    watching.sees(run("Succeeded", name="r0", at_min=-60), run("InProgress"))
    for _ in range(3):
        watching.sees(run("Succeeded", name="r0", at_min=-60))
    assert watching.outcome is Outcome.UNKNOWN
    watching.sees(run("Succeeded", name="r2", at_min=60))
    assert watching.outcome is Outcome.SUCCEEDED


def test_a_finished_run_may_leave_the_list(watching: Watching) -> None:
    """The Hub forgets its history."""
    watching.sees(run("Succeeded", name="r0", at_min=-60), run("Succeeded"))
    assert watching.sees(run("Succeeded")) == []
    assert watching.sees(run("Succeeded")) == []


def test_the_memory_is_bounded(watching: Watching) -> None:
    """Neither runs nor notices grow without end; the newest stay."""
    watching.sees(*(run("Succeeded", name=f"r{n}", at_min=n) for n in range(MAX_RUNS + 10)))
    assert len(watching.memory.runs) == MAX_RUNS
    assert watching.memory.runs[-1].name == f"r{MAX_RUNS + 9}"
    kept = watching.memory.keeping(watching.notices * 200)
    assert len(kept.undelivered) == MAX_UNDELIVERED


def test_the_same_run_twice_in_a_list_is_one_run(watching: Watching) -> None:
    """Pages can overlap."""
    watching.sees(run("InProgress"), run("InProgress"))
    assert watching.kinds() == [NoticeKind.UPDATE_STARTED]


# --- updates ---


def test_states_of_updates_that_repeat_a_run_are_not_reported(watching: Watching) -> None:
    """`Installing` beside a run in progress is no news of its own."""
    watching.sees(run("Succeeded", update="M0"), updates={"M1": "Ready"})
    watching.sees(run("InProgress"), updates={"M1": "Installing"})
    watching.sees(run("Succeeded"), updates={"M1": "Installed"})
    assert watching.kinds()[1:] == [NoticeKind.UPDATE_STARTED, NoticeKind.UPDATE_SUCCEEDED]


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("PreparationFailed", NoticeKind.UPDATE_FAILED),
        ("HealthCheckFailed", NoticeKind.UPDATE_FAILED),
        ("Downloading", NoticeKind.UPDATE_CHANGED),
        ("Hibernating", NoticeKind.UPDATE_CHANGED),
        ("", NoticeKind.UPDATE_CHANGED),
    ],
)
def test_any_other_state_of_an_update_is_reported_once(
    watching: Watching, state: str, kind: NoticeKind
) -> None:
    """Failures before there is a run, and states that are not documented."""
    watching.sees(updates={"M1": "Ready"})
    (found,) = watching.sees(updates={"M1": state})
    assert found.kind is kind
    assert "update M1 changed from Ready to" in found.text
    assert watching.sees(updates={"M1": state}) == []


def test_a_new_update_is_reported(watching: Watching) -> None:
    """An operator learns that there is something to install."""
    watching.sees()
    (found,) = watching.sees(updates={"M2": "Ready"})
    assert found.text == "update M2 is new, in the state Ready"


# --- failed polls and the second path ---


def test_the_alarm_comes_once_after_failed_polls_in_a_row(watching: Watching) -> None:
    """Before it, a failed poll is news of nothing: the outcome is not that of the last poll."""
    watching.sees(run("Succeeded"))
    watching.notices.clear()
    assert watching.fails() == watching.fails() == []
    assert watching.outcome is Outcome.POLL_FAILED
    (alarm,) = watching.fails("reset by peer")
    assert (alarm.kind, alarm.problem) == (NoticeKind.UPDATE_UNKNOWN, True)
    assert "3 polls in a row have failed since 2030-01-02 12:01:00 UTC" in alarm.text
    assert "reset by peer" in alarm.text
    assert watching.fails() == []
    assert watching.outcome is Outcome.UNKNOWN


def test_a_poll_that_succeeds_starts_the_count_again(watching: Watching) -> None:
    """Only polls in a row count."""
    for _ in range(4):
        watching.fails()
        watching.fails()
        watching.sees(run("InProgress"))
    assert watching.kinds() == [NoticeKind.UPDATE_STARTED]


def test_the_end_of_an_outage_is_reported_with_what_happened_in_it(watching: Watching) -> None:
    """First that the endpoint answers, then the change."""
    watching.sees(run("InProgress"))
    for _ in range(5):
        watching.fails()
    again, ended = watching.sees(run("Succeeded"))
    assert again.kind is NoticeKind.UPDATE_KNOWN
    assert "after 5 failed polls" in again.text
    assert ended.kind is NoticeKind.UPDATE_SUCCEEDED
    assert watching.outcome is Outcome.SUCCEEDED


def test_the_endpoints_are_asked_with_the_alarm_and_then_now_and_then(watching: Watching) -> None:
    """Each question takes a session on a machine that is busy with an update."""
    asked = []
    for count in range(1, 10):
        watching.fails()
        if should_ask(watching.memory, ALARM_AFTER):
            asked.append(count)
    assert asked == [3, 6, 9]


def test_the_answer_is_reported_once_until_it_changes(watching: Watching) -> None:
    """Steps change all the time; the status is the news."""
    watching.sees(run("InProgress"))
    watching.notices.clear()
    watching.answers("InProgress", "step 1")
    watching.answers("InProgress", "step 2")
    watching.answers("Completed")
    watching.no_answer("ercs01: did not end")
    watching.no_answer("ercs01: garbage")
    assert watching.kinds() == [
        NoticeKind.UPDATE_CHANGED,
        NoticeKind.UPDATE_SUCCEEDED,
        NoticeKind.UPDATE_UNKNOWN,
    ]
    assert (
        "ercs01 reports InProgress for the newest update, step step 1" in watching.notices[0].text
    )
    assert "ercs01: did not end" in watching.notices[2].text


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("Completed", NoticeKind.UPDATE_CHANGED),
        ("Failed", NoticeKind.UPDATE_FAILED),
        ("Sleeping", NoticeKind.UPDATE_UNKNOWN),
    ],
)
def test_an_old_success_is_no_news_of_success(
    watching: Watching, status: str, kind: NoticeKind
) -> None:
    """Without a run in progress, the newest update can have ended long ago."""
    watching.sees(run("Succeeded"))
    (found,) = watching.answers(status)
    assert found.kind is kind


def test_the_outcome_stays_unknown_whatever_the_second_path_reports(watching: Watching) -> None:
    """Its answer is in the notice; the exit code means that the administrator endpoint is gone."""
    watching.sees(run("InProgress"))
    for _ in range(3):
        watching.fails()
    watching.answers("Completed")
    assert watching.outcome is Outcome.UNKNOWN


# --- the end of a watch ---


def test_a_watch_ends_when_the_newest_run_ends() -> None:
    """Not because of a run that had ended before, nor by a failed poll."""
    watching, ends = Watching(), []
    polls = ["Failed", "InProgress", None, "Succeeded", "Succeeded"]
    for state in polls:
        before = watching.memory
        if state is None:
            watching.fails()
        else:
            watching.sees(run(state))
        ends.append(run_ended(before, watching.memory))
    assert ends == [False, False, False, True, False]


def test_notices_differ_in_their_ids() -> None:
    """A receiver drops a repetition by its id, so two changes never share one."""
    watching = Watching()
    for state in ("Failed", "InProgress", "Failed", "InProgress", "Succeeded"):
        watching.sees(run(state))
    assert len({each.id for each in watching.notices}) == 5
