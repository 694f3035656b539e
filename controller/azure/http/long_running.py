"""Long-running operations of Resource Manager: send once, follow to the end, return the result.

Azure can ask for 10 s between two polls of an operation (Azure/azure-powershell#14460), which may
end right after one. The resource itself may be read at any time: it shows `Updating` while the
operation runs, and `Succeeded` at its end. So both are followed, and the first result counts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from azure.core.exceptions import HttpResponseError
from azure.core.polling.base_polling import BadResponse

from controller.azure.http.call import Caller
from controller.azure.http.json_reader import Json, as_object, child, json_of, text
from controller.clock import Clock
from controller.errors import (
    Conflict,
    ContractViolation,
    ControllerError,
    Denied,
    InvariantViolation,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
    retry_after_of,
)

T = TypeVar("T")
FIRST_CHECK_S = 0.5
"""The resource is read this long after the write, when it shows that its operation runs."""
CHECK_EVERY_S = 2.0
_OPERATION_FAILED = (Conflict, Denied, ServiceFault)


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
    """Whether it is the resource as read after the operation, and not the reply to the PUT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How the resource itself shows that an operation has succeeded."""

    read: Callable[[], Awaitable[Json]]
    """Reads the resource."""
    shows: Callable[[Json], bool]
    """Returns whether a body is what was written, and not what was there before."""

    async def wait(self) -> Json:
        """Return the body that shows the end of the operation; do not return if none does.

        The state proves the end only if it has shown that the operation was running: some resources
        are `Succeeded` at once. A failed read proves nothing; a throttled one is not repeated.
        """
        ran, wait_s, state = False, FIRST_CHECK_S, ""
        while True:
            await asyncio.sleep(wait_s)
            wait_s = CHECK_EVERY_S
            try:
                body = await self.read()
                state = text(child(body, "properties", "a resource"), "provisioningState")
                if ran and state.casefold() == "succeeded" and self.shows(body):
                    return body
            except InvariantViolation:
                raise
            except Throttled:
                await asyncio.Event().wait()
            except ControllerError:
                continue
            ran = ran or state.casefold() == "updating"


def final(pipeline_response: Any, _model: object, _headers: object) -> object:
    """Return the method and body of the last reply; for the SDK's `cls` argument.

    After an operation with `Azure-AsyncOperation` the SDK reads the resource once. It does not
    read after a PUT with a synchronous reply. The method distinguishes the two.
    """
    response = pipeline_response.http_response
    return str(response.request.method), json_of(response, "the reply")


async def put(
    caller: Caller,
    clock: Clock,
    operation: str,
    begin: Callable[[], Awaitable[Poller]],
    *,
    check: Check,
    deadline_s: float,
) -> Final:
    """Send a write and follow it until it has ended, all within `deadline_s` seconds.

    The end is what the operation reports, or what `check` finds, whichever comes first.

    After the PUT is sent, only Azure's result of the operation counts. A failed request while
    following it proves nothing about the write, so it becomes `OutcomeUnknown`.
    """

    def read(last: object) -> Final:
        if last is None:  # 200 with an empty body: the SDK does not call `final`
            raise ContractViolation(f"{caller.name_of(operation)}: the reply has no body")
        method, body = cast("tuple[str, object]", last)
        return Final(body=as_object(body, caller.name_of(operation)), from_get=method == "GET")

    async def follow(poller: Poller) -> Final:
        found = await _first(_result(poller), check.wait())
        return found if isinstance(found, Final) else read(found)

    return await _follow(caller, clock, operation, begin, follow, deadline_s=deadline_s)


async def post(
    caller: Caller,
    clock: Clock,
    operation: str,
    begin: Callable[[], Awaitable[Poller]],
    *,
    deadline_s: float,
) -> None:
    """Send a POST and follow it in the same way; the bodies of its replies do not matter."""

    async def follow(poller: Poller) -> None:
        """Return nothing; the SDK has checked the status."""
        await poller.result()

    await _follow(caller, clock, operation, begin, follow, deadline_s=deadline_s)


async def _follow(
    caller: Caller,
    clock: Clock,
    operation: str,
    begin: Callable[[], Awaitable[Poller]],
    follow: Callable[[Poller], Awaitable[T]],
    *,
    deadline_s: float,
) -> T:
    started = clock.monotonic()
    try:
        async with caller.call(operation, deadline_s):
            poller = await begin()
    except ContractViolation as error:
        raise OutcomeUnknown(f"sent, but the reply cannot be used: {error}") from error
    left_s = max(0.0, deadline_s - (clock.monotonic() - started))
    try:
        async with caller.call(f"{operation}_wait", left_s):
            return await follow(poller)
    except ControllerError as error:
        if isinstance(error, _OPERATION_FAILED) and _is_result(error.__cause__):
            raise
        raise OutcomeUnknown(
            f"accepted, but not followed to its end: {error}", retry_after_s=retry_after_of(error)
        ) from error


async def _result(poller: Poller) -> object:
    return await poller.result()


async def _first(
    following: Coroutine[Any, Any, object], checking: Coroutine[Any, Any, Json]
) -> object:
    """Return the result of the operation, or as `Final` what a check found before."""
    operation, check = asyncio.create_task(following), asyncio.create_task(checking)
    try:
        await asyncio.wait({operation, check}, return_when=asyncio.FIRST_COMPLETED)
        if operation.done():
            return operation.result()
        return Final(body=check.result(), from_get=True)
    finally:
        for task in (operation, check):
            task.cancel()
        await asyncio.gather(operation, check, return_exceptions=True)


def _is_result(cause: BaseException | None) -> bool:
    """Return whether this is a failed operation (status 200), and not a failed poll."""
    return (
        isinstance(cause, HttpResponseError)
        and (cause.status_code or 0) in range(200, 300)
        and not isinstance(cause.inner_exception, BadResponse)
    )
