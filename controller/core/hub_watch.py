"""Which changes of the updates of an Azure Stack Hub are news, and what the newest run came to.

Everything follows from `Memory`, which is stored between polls, and from one poll. A failed poll is
news of nothing: it changes no run, and the outcome is not that of the poll before it.

- Each change of a run or an update is reported once. The first poll reports the newest run, so that
  a memory that was lost costs a repetition, and never the end of a run.
- An unfinished run that two polls in a row lack has disappeared: one reply can be incomplete.
- After `alarm_after` failed polls in a row the state is unknown. That alarm is sent once, and the
  privileged endpoints are asked then and after each further `alarm_after` failed polls.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from controller.core.azure_names import fold
from controller.core.hub_status import EndpointStatus
from controller.core.hub_updates import (
    HubUpdates,
    RunState,
    Update,
    UpdateRun,
    duration_text,
    run_state,
)
from controller.core.notices.notice import Notice, NoticeKind, notice_id, utc_text
from controller.core.printable import excerpt

MISSING_POLLS = 2
"""An unfinished run that this many polls in a row lack has disappeared."""
MAX_RUNS = 500
"""How many runs are remembered; a Hub has a few for each update."""
MAX_UNDELIVERED = 50
"""How many notices are kept that no channel has accepted."""
_NO_ANSWER = "no answer"
_ECHOES = {
    "installing": RunState.IN_PROGRESS,
    "installed": RunState.SUCCEEDED,
    "installationfailed": RunState.FAILED,
}
"""States of an update that repeat the state of its newest run."""


class Outcome(Enum):
    """What the newest run came to, as far as it is known."""

    NO_RUN = "no update has run"
    SUCCEEDED = "the newest run has succeeded"
    IN_PROGRESS = "the newest run is in progress"
    FAILED = "the newest run has failed"
    UNKNOWN = "the state of the update is unknown"
    POLL_FAILED = "the last poll failed, so nothing is known of the time since"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRun:
    """A run as it was last seen."""

    update: str
    name: str
    state: str
    started_at: datetime
    """When it was first seen, if the Hub does not report its start."""
    overdue: bool = False
    """It was reported that it takes too long."""
    missing: int = 0
    """How many polls in a row lack it."""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the run among all runs."""
        return fold(self.update), fold(self.name)

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return run_state(self.state) in {RunState.SUCCEEDED, RunState.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered from poll to poll."""

    polled: bool = False
    """Whether a poll has ever succeeded."""
    runs: tuple[KnownRun, ...] = ()
    updates: tuple[Update, ...] = ()
    failed_polls: int = 0
    """In a row."""
    failing_since: datetime | None = None
    alarmed: bool = False
    """It was reported that the state is unknown, since the last poll that succeeded."""
    second_path: str = ""
    """The last status that was reported of the privileged endpoints in this time."""
    undelivered: tuple[Notice, ...] = ()
    """Notices that no channel has accepted yet."""

    @property
    def newest(self) -> KnownRun | None:
        """The run that started last; of several, the one that the Hub lists last."""
        order = range(len(self.runs))
        latest = max(order, key=lambda n: (self.runs[n].started_at, n), default=None)
        return None if latest is None else self.runs[latest]

    def keeping(self, notices: Sequence[Notice]) -> "Memory":
        """Return this with the notices that are still to be delivered."""
        return replace(self, undelivered=tuple(notices[-MAX_UNDELIVERED:]))


News = tuple[Memory, tuple[Notice, ...]]
"""The next memory, and what is to be reported now."""


def outcome(memory: Memory) -> Outcome:
    """Return what the newest run came to."""
    newest = memory.newest
    if memory.failed_polls:
        return Outcome.UNKNOWN if memory.alarmed else Outcome.POLL_FAILED
    if newest is None:
        return Outcome.NO_RUN
    if newest.missing:
        return Outcome.UNKNOWN
    return {
        RunState.IN_PROGRESS: Outcome.IN_PROGRESS,
        RunState.SUCCEEDED: Outcome.SUCCEEDED,
        RunState.FAILED: Outcome.FAILED,
        RunState.UNKNOWN: Outcome.UNKNOWN,
    }[run_state(newest.state)]


def run_ended(before: Memory, after: Memory) -> bool:
    """Return whether the newest run has ended between two polls."""
    newest = after.newest
    if newest is None or not newest.finished or not before.polled:
        return False
    return all(known.key != newest.key or not known.finished for known in before.runs)


def should_ask(memory: Memory, alarm_after: int) -> bool:
    """Return whether the privileged endpoints are asked after this failed poll."""
    return memory.alarmed and memory.failed_polls % alarm_after == 0


# --- a poll that succeeded ---


def after_poll(memory: Memory, seen: HubUpdates, now: datetime, *, long_run_s: float) -> News:
    """Return what a poll changes. A run that lasts longer than `long_run_s` is reported once."""
    runs = _followed(memory, seen, now, long_run_s)
    after = Memory(polled=True, runs=runs, updates=seen.updates, undelivered=memory.undelivered)
    notices = (
        *_answers_again(memory, now),
        *_run_notices(memory, after, seen, now),
        *_missing_notices(after, now),
        *_update_notices(memory, seen, now),
    )
    return after, notices


def _followed(
    memory: Memory, seen: HubUpdates, now: datetime, long_run_s: float
) -> tuple[KnownRun, ...]:
    before = {known.key: known for known in memory.runs}
    found: dict[tuple[str, str], KnownRun] = {}
    for run in seen.runs:
        known = before.get(run.key)
        first_seen = known.started_at if known else now
        started_at = run.started_at or first_seen
        lasts_s = run.duration_s or (now - started_at).total_seconds()
        overdue = run_state(run.state) is RunState.IN_PROGRESS and lasts_s > long_run_s
        now_known = KnownRun(
            update=run.update,
            name=run.name,
            state=run.state,
            started_at=started_at,
            overdue=overdue,
        )
        if known is not None and known.overdue and not now_known.finished:
            # It was reported, also if its state was unknown or the clock was set back since.
            now_known = replace(now_known, overdue=True)
        found[run.key] = now_known
    latest = max((run.started_at for run in found.values()), default=None)
    for key, known in before.items():
        superseded = latest is not None and latest > known.started_at
        if key not in found and not known.finished and not superseded:
            found[key] = replace(known, missing=known.missing + 1)
    return tuple(sorted(found.values(), key=lambda run: run.started_at))[-MAX_RUNS:]


def _answers_again(memory: Memory, now: datetime) -> Iterator[Notice]:
    if memory.alarmed:
        yield _notice(
            NoticeKind.UPDATE_KNOWN,
            f"the administrator endpoint answers again, after {memory.failed_polls} failed polls"
            f"{_since(memory)}: {outcome(replace(memory, failed_polls=0)).value} as last known",
            now,
        )


def _run_notices(
    memory: Memory, after: Memory, seen: HubUpdates, now: datetime
) -> Iterator[Notice]:
    before = {known.key: known for known in memory.runs}
    reported = {run.key: run for run in seen.runs}
    for run in after.runs:
        known = before.get(run.key)
        if run.missing:
            continue
        if known is None or fold(known.state) != fold(run.state):
            if memory.polled or run == after.newest:
                yield _changed(reported[run.key], known, memory.runs, now)
        elif known.missing >= MISSING_POLLS:
            text = f"{_name(run)} is listed again, in the state {_shown(run.state)}"
            yield _notice(NoticeKind.UPDATE_CHANGED, text, now, *run.key)
        if run.overdue and not (known and known.overdue):
            since = duration_text((now - run.started_at).total_seconds())
            text = f"{_name(run)} is still in progress after {since}: check it in the portal"
            yield _notice(NoticeKind.UPDATE_CHANGED, text, now, *run.key, problem=True)


def _changed(
    run: UpdateRun, known: KnownRun | None, others: tuple[KnownRun, ...], now: datetime
) -> Notice:
    """Return the notice about a run in a state that was not reported before."""
    update, state = excerpt(run.update, limit=120), run_state(run.state)
    started = f", started {utc_text(run.started_at)}" if run.started_at else ""
    took = f", took {duration_text(run.duration_s)}" if run.duration_s is not None else ""
    facts = f"run {excerpt(run.name, limit=60)}{started}"
    match state:
        case RunState.IN_PROGRESS:
            kind = NoticeKind.UPDATE_STARTED
            text = f"update {update} {_again(run, known, others)}is in progress: {facts}"
        case RunState.SUCCEEDED:
            kind = NoticeKind.UPDATE_SUCCEEDED
            text = f"update {update} has succeeded: {facts}{took}"
        case RunState.FAILED:
            kind = NoticeKind.UPDATE_FAILED
            step = f", at the step {excerpt(run.step, limit=120)}" if run.step else ""
            problem = f": {excerpt(run.problem)}" if run.problem else ""
            text = f"update {update} has failed: {facts}{took}{step}{problem}"
        case RunState.UNKNOWN:
            kind = NoticeKind.UPDATE_CHANGED
            text = (
                f"update {update} is in the state {_shown(run.state)}, which shows neither success "
                f"nor failure: {facts}. Check it in the portal"
            )
    return _notice(
        kind, text, now, *run.key, run.state, problem=state in {RunState.FAILED, RunState.UNKNOWN}
    )


def _again(run: UpdateRun, known: KnownRun | None, others: tuple[KnownRun, ...]) -> str:
    """Return whether a run resumes or repeats one that has failed, in words."""
    if known is not None and run_state(known.state) is RunState.FAILED:
        return "was resumed and "
    failed = (fold(each.update) for each in others if run_state(each.state) is RunState.FAILED)
    return "was started again and " if fold(run.update) in failed else ""


def _missing_notices(after: Memory, now: datetime) -> Iterator[Notice]:
    for run in after.runs:
        if run.missing == MISSING_POLLS:
            text = (
                f"{_name(run)} has disappeared from the list; it was in the state "
                f"{_shown(run.state)}. Whether it has ended is unknown: check it in the portal"
            )
            yield _notice(NoticeKind.UPDATE_UNKNOWN, text, now, *run.key, problem=True)


def _update_notices(memory: Memory, seen: HubUpdates, now: datetime) -> Iterator[Notice]:
    """Report the states of updates, but not those that repeat the state of a run."""
    if not memory.polled:
        return
    before = {fold(each.name): each.state for each in memory.updates}
    newest = {
        fold(run.update): run_state(run.state)
        for run in sorted(seen.runs, key=lambda run: run.started_at or now)
    }
    for update in seen.updates:
        key, was = fold(update.name), before.get(fold(update.name))
        if was is not None and fold(was) == fold(update.state):
            continue
        echo = _ECHOES.get(fold(update.state))
        if echo is not None and newest.get(key) is echo:
            continue
        failed = fold(update.state).endswith("failed")
        changed = f"changed from {_shown(was)} to" if was is not None else "is new, in the state"
        yield _notice(
            NoticeKind.UPDATE_FAILED if failed else NoticeKind.UPDATE_CHANGED,
            f"update {excerpt(update.name, limit=120)} {changed} {_shown(update.state)}",
            now,
            key,
            update.state,
            problem=failed,
        )


# --- a poll that failed, and the second path ---


def after_failure(memory: Memory, reason: str, now: datetime, *, alarm_after: int) -> News:
    """Return what a failed poll changes: the count, and the alarm after `alarm_after` polls."""
    failed = memory.failed_polls + 1
    after = replace(
        memory,
        failed_polls=failed,
        failing_since=memory.failing_since or now,
        alarmed=memory.alarmed or failed >= alarm_after,
    )
    if memory.alarmed or not after.alarmed:
        return after, ()
    last = outcome(replace(memory, failed_polls=0)).value
    text = (
        f"the state of the update is unknown: {failed} polls in a row have failed{_since(after)}. "
        f"The last one: {excerpt(reason)}. As last known, {last}"
    )
    return after, (_notice(NoticeKind.UPDATE_UNKNOWN, text, now, problem=True),)


def after_answer(
    memory: Memory,
    endpoint: str,
    status: EndpointStatus | None,
    problems: Sequence[str],
    now: datetime,
) -> News:
    """Return what the privileged endpoints change. The same status is reported once.

    Args:
        memory: what is remembered.
        endpoint: the endpoint that has answered.
        status: its answer; None if no endpoint has answered.
        problems: why the others have not, one text for each.
        now: wall clock.
    """
    word = status.status if status else _NO_ANSWER
    after = replace(memory, second_path=word)
    if fold(memory.second_path) == fold(word):
        return after, ()
    if status is None:
        text = f"no privileged endpoint has an answer: {'; '.join(problems)}"
        return after, (_notice(NoticeKind.UPDATE_UNKNOWN, text, now, problem=True),)
    kind = {
        # Without a run in progress, the newest update can be one that ended long ago.
        RunState.SUCCEEDED: NoticeKind.UPDATE_SUCCEEDED
        if outcome(replace(memory, failed_polls=0)) is Outcome.IN_PROGRESS
        else NoticeKind.UPDATE_CHANGED,
        RunState.FAILED: NoticeKind.UPDATE_FAILED,
        RunState.IN_PROGRESS: NoticeKind.UPDATE_CHANGED,
        RunState.UNKNOWN: NoticeKind.UPDATE_UNKNOWN,
    }[status.state]
    step = f", step {status.step}" if status.step else ""
    text = (
        f"the privileged endpoint {endpoint} reports {_shown(status.status)} for the newest update"
        f"{step}; the administrator endpoint still does not answer"
    )
    return after, (_notice(kind, text, now, word, problem=kind in _ALARMING),)


_ALARMING = {NoticeKind.UPDATE_FAILED, NoticeKind.UPDATE_UNKNOWN}


# --- texts ---


def _notice(
    kind: NoticeKind, text: str, now: datetime, *about: str, problem: bool = False
) -> Notice:
    ident = notice_id(kind, *about, now.isoformat())
    return Notice(kind=kind, id=ident, at=now, text=text, problem=problem)


def _name(run: KnownRun) -> str:
    return f"run {excerpt(run.name, limit=60)} of update {excerpt(run.update, limit=120)}"


def _shown(state: str) -> str:
    return excerpt(state, limit=60) or "(none)"


def _since(memory: Memory) -> str:
    return f" since {utc_text(memory.failing_since)}" if memory.failing_since else ""
