"""Several ways to read one thing, tried in their order.

What Azure asks to wait for is one kind of request: another one has a limit of its own. So a way
that has failed waits as long as Azure asked, and the next way is tried at once.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from controller.agent.retry_schedule import BackoffTable
from controller.core.action_keys import ActionKey, action_key
from controller.core.observation import Deferral
from controller.errors import ControllerError, InvariantViolation, NotFound, Throttled

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Way(Generic[T]):
    """One way to read something."""

    key: ActionKey
    """What its back-off is kept by."""
    what: str
    """What it reads, for logs and messages: "read web-1"."""
    read: Callable[[], Awaitable[T]]


def request_key(resource_id: str, request: str) -> ActionKey:
    """Return the key of one kind of request about a resource, which has a back-off of its own."""
    return action_key("read", f"{resource_id}?{request}")


async def first_that_works(
    ways: Sequence[Way[T]], retries: BackoffTable, now: Callable[[], datetime]
) -> T:
    """Return what the first way returns that works and is not deferred.

    Raises:
        NotFound: the thing does not exist; no other way is tried.
        ControllerError: no way works. Its `retry_after_s` is the time until a way may be tried
            again.
    """
    problem: ControllerError | None = None
    for way in ways:
        try:
            return await _read(way, retries)
        except (InvariantViolation, NotFound):
            raise
        except ControllerError as error:
            problem = problem or error
    if problem is None:
        raise InvariantViolation("there is no way to read")
    problem.retry_after_s = _shortest_wait_s((way.key for way in ways), retries.active, now())
    raise problem


async def _read(way: Way[T], retries: BackoffTable) -> T:
    waiting = retries.active.get(way.key)
    if waiting is not None:
        raise _deferred(way, waiting)
    try:
        found = await way.read()
    except (InvariantViolation, NotFound):
        raise
    except ControllerError as error:
        retries.failed(way.key, error, what=way.what, hold=False)
        raise
    retries.clear(way.key)
    return found


def _deferred(way: Way[T], deferral: Deferral) -> ControllerError:
    error = Throttled(f"{way.what}: {why_deferred(deferral)}")
    error.status = 429  # nothing was sent: as if Azure had refused it once more
    return error


def why_deferred(deferral: Deferral) -> str:
    """Return why a request is not sent now."""
    if deferral.asked:
        return f"Azure asks to wait until {deferral.until:%H:%M:%S} UTC"
    return "the last attempt has failed, and the next one is due soon"


def _shortest_wait_s(
    keys: Iterable[ActionKey], active: Mapping[ActionKey, Deferral], now: datetime
) -> float | None:
    waits = [(active[key].until - now).total_seconds() for key in keys if key in active]
    return max(0.0, min(waits)) if waits else None
