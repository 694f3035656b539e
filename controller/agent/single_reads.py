"""Read resources one by one, a few at a time, the ones that matter most first.

A read that fails is deferred alone. When several fail in a row for a reason that is not theirs
(throttling, no reply), the rest is not asked: those reads would fail too, and prolong the cause.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controller.agent.read_ways import request_key, why_deferred
from controller.agent.retry_schedule import BackoffTable
from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold, short
from controller.errors import (
    ControllerError,
    InvariantViolation,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)

T = TypeVar("T")
PARALLEL_READS = 8
MOST_FAILURES = 3
"""Of resources that are not urgent, no more are read after so many failures in one group."""
NOT_ASKED = "it was not read, because Azure does not answer such reads at present"


@dataclass(slots=True)
class SingleReads(Generic[T]):
    """What single reads returned, by folded id."""

    found: dict[str, T] = field(default_factory=dict[str, T])
    absent: set[str] = field(default_factory=set[str])
    """Answered with 404."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Why a resource could not be read."""
    lasting: set[str] = field(default_factory=set[str])
    """The failed resources that another attempt does not help: refused, or not readable."""
    unread: dict[ActionKey, str] = field(default_factory=dict[ActionKey, str])
    """What operators have to know of the failed reads, by their keys."""
    requests: int = 0
    error: ControllerError | None = None
    """The first failure."""


async def read_each(
    read: Callable[[str], Awaitable[T]],
    resource_ids: Sequence[str],
    retries: BackoffTable,
    *,
    urgent: Callable[[str], bool],
    hold: bool,
) -> SingleReads[T]:
    """Read resources by their ids.

    Args:
        read: reads one.
        resource_ids: which.
        retries: keeps a back-off for each resource.
        urgent: whether a resource is read in any case, and before the others.
        hold: whether a failure is reported as a hold.
    """
    result = SingleReads[T]()
    active, asked = retries.active, list[str]()
    for resource_id in resource_ids:
        waiting = active.get(request_key(resource_id, "get"))
        if waiting is None:
            asked.append(resource_id)
        else:
            result.failed[fold(resource_id)] = waiting.message or why_deferred(waiting)
            result.unread |= retries.reported(request_key(resource_id, "get"))
    first = [each for each in asked if urgent(each)]
    others = [each for each in asked if not urgent(each)]
    stopped = False
    for group in (*_groups(first), *_groups(others)):
        if stopped and not urgent(group[0]):
            result.failed.update((fold(each), NOT_ASKED) for each in group)
            continue
        failures = await asyncio.gather(
            *(_read_one(read, each, result, retries, hold=hold) for each in group)
        )
        stopped = stopped or sum(failures) >= MOST_FAILURES
    return result


async def _read_one(
    read: Callable[[str], Awaitable[T]],
    resource_id: str,
    result: SingleReads[T],
    retries: BackoffTable,
    *,
    hold: bool,
) -> bool:
    """Read one resource; return whether it failed for a reason that may not be its own."""
    key = request_key(resource_id, "get")
    result.requests += 1
    try:
        result.found[fold(resource_id)] = await read(resource_id)
    except InvariantViolation:
        raise
    except NotFound:
        result.absent.add(fold(resource_id))
    except ControllerError as error:
        retries.failed(key, error, what=f"read {short(resource_id)}", hold=hold)
        result.unread |= retries.reported(key)
        result.failed[fold(resource_id)] = str(error)
        result.error = result.error or error
        if isinstance(error, NotSent | OutcomeUnknown | ServiceFault | Throttled):
            return True
        result.lasting.add(fold(resource_id))
    else:
        retries.clear(key)
    return False


def _groups(resource_ids: Sequence[str]) -> list[Sequence[str]]:
    steps = range(0, len(resource_ids), PARALLEL_READS)
    return [resource_ids[start : start + PARALLEL_READS] for start in steps]
