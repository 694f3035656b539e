"""Long-running operations of Resource Manager: send once, follow to the end, tell how it ended."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from azure.core.exceptions import HttpResponseError
from azure.core.polling.base_polling import BadResponse

from controller.azure.arm import Json, as_object, json_of
from controller.azure.failures import Caller
from controller.clock import Clock
from controller.errors import (
    Conflict,
    ContractViolation,
    ControllerError,
    Denied,
    OutcomeUnknown,
    ServiceFault,
    told_s,
)

T = TypeVar("T")
_ENDED_BADLY = (Conflict, Denied, ServiceFault)


class Poller(Protocol):
    """The part of the SDK's `AsyncLROPoller` used here."""

    async def result(self) -> object:
        """Poll until the operation has ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The last reply of an operation that succeeded."""

    body: Json
    from_get: bool
    """Whether it is the resource read after the operation, and not the reply to the PUT."""


def final(pipeline_response: Any, _model: object, _headers: object) -> object:
    """Return the last reply as it came; for the SDK's `cls` argument.

    After an operation with `Azure-AsyncOperation` the SDK reads the resource once; a PUT that was
    answered synchronously it does not follow at all. The method tells which it was.
    """
    response = pipeline_response.http_response
    return str(response.request.method), json_of(response, "the reply")


async def run(
    caller: Caller,
    clock: Clock,
    operation: str,
    begin: Callable[[], Awaitable[Poller]],
    *,
    deadline_s: float,
) -> Final:
    """Send a write and follow it until it has ended, all within `deadline_s`.

    Once the PUT has left, only Azure's own verdict on it counts. Trouble while following it says
    nothing about the write, so it becomes `OutcomeUnknown`, whatever kind of trouble it is.
    """

    def read(last: object) -> Final:
        if last is None:  # a PUT answered 200 with nothing: the SDK never asks `final`
            raise ContractViolation(f"{operation}: a reply without a body")
        method, body = cast("tuple[str, object]", last)
        return Final(body=as_object(body, operation), from_get=method == "GET")

    return await _follow(caller, clock, operation, begin, read, deadline_s=deadline_s)


async def act(
    caller: Caller,
    clock: Clock,
    operation: str,
    begin: Callable[[], Awaitable[Poller]],
    *,
    deadline_s: float,
) -> None:
    """Send a POST and follow it in the same way; its replies have no body that matters."""

    def read(_last: object) -> None:
        """The SDK has looked at the status already."""

    await _follow(caller, clock, operation, begin, read, deadline_s=deadline_s)


async def _follow(
    caller: Caller,
    clock: Clock,
    operation: str,
    begin: Callable[[], Awaitable[Poller]],
    read: Callable[[object], T],
    *,
    deadline_s: float,
) -> T:
    started = clock.monotonic()
    try:
        async with caller.call(operation, deadline_s):
            poller = await begin()
    except ContractViolation as error:
        raise OutcomeUnknown(f"sent, but the answer makes no sense: {error}") from error
    left_s = max(0.0, deadline_s - (clock.monotonic() - started))
    try:
        async with caller.call(f"{operation}_wait", left_s):
            return read(await poller.result())
    except ControllerError as error:
        if isinstance(error, _ENDED_BADLY) and _is_verdict(error.__cause__):
            raise
        raise OutcomeUnknown(
            f"accepted, but not followed to its end: {error}", retry_after_s=told_s(error)
        ) from error


def _is_verdict(cause: BaseException | None) -> bool:
    """Tell an operation that ended badly (reported with status 200) from a poll that failed."""
    return (
        isinstance(cause, HttpResponseError)
        and (cause.status_code or 0) in range(200, 300)
        and not isinstance(cause.inner_exception, BadResponse)
    )
