"""Whatever goes wrong on the way to Azure, as one of the errors in `controller.errors`.

The SDK's own classes do not say what the caller may do next: a failed operation arrives as an
error with status 200, a 409 as "resource exists", and a connection that was reset *after* the
request left as the same `ServiceRequestError` that means "never sent" (azure-core's aiohttp
transport turns every `aiohttp.ClientError` into it). So the cause is looked at, not the class.
"""

import asyncio
import json
import re
import traceback
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, cast

import aiohttp
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
)
from azure.core.polling.base_polling import BadResponse

from controller import errors
from controller.clock import Clock
from controller.errors import ControllerError
from controller.logs import redact

Observer = Callable[[str, str, str, float], None]
"""Called after every call with service, operation, outcome and duration in seconds."""

OUTCOMES: Mapping[type[ControllerError], str] = {
    errors.Busy: "busy",
    errors.ConfigError: "config_error",
    errors.Conflict: "conflict",
    errors.ContractViolation: "contract_violation",
    errors.Denied: "denied",
    errors.LeaseHeld: "lease_held",
    errors.LeaseLost: "lease_lost",
    errors.NotFound: "not_found",
    errors.NotSent: "not_sent",
    errors.OutcomeUnknown: "unknown",
    errors.ServiceFault: "service_fault",
    errors.Throttled: "throttled",
}
"""The closed enumeration of outcomes, with `ok`, `cancelled` and `bug`."""

_ANSWERS = frozenset({"ok", "busy", "conflict", "lease_held", "lease_lost", "not_found"})

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "imds": ("instance", "poll", "acknowledge"),
    "compute": (
        "vm_get",
        "vm_list",
        "availability_set_get",
        "vm_maintain",
        "vm_maintain_wait",
    ),
    "network": (
        "load_balancer_get",
        "nic_get",
        "nic_list",
        "nic_put",
        "nic_put_wait",
        "pool_get",
        "pool_put",
        "pool_put_wait",
    ),
    "blob": ("create", "read", "peek", "acquire", "renew", "release", "write"),
}
"""Every operation a `Caller` names, per service: the labels of the request metrics."""

EXCERPT_CHARACTERS = 300
NAME_CHARACTERS = 100
"""Of a code or an id; the real ones have 40 or so."""
MAX_RETRY_AFTER_S = 3600.0

_BUSY = {
    "anotheroperationinprogress",
    "referencedresourcenotprovisioned",
    "retryableerrordueanotheroperation",
    "retryableerrorduetoanotheroperation",
}
_SUPERSEDED = {"canceled", "canceledandsupersededduetoanotheroperation", "operationpreempted"}
_DENIED_CODES = {"authorizationfailed", "linkedauthorizationfailed"}
_DENIAL = re.compile(
    r"does not have (?:authorization|permission) to perform action '([^']*)' "
    r"(?:over|on) (?:the linked )?scope(?:\(s\))? '([^']*)'"
)
_RETRY_TEXT = re.compile(r"retried (?:in|after) (\d+(?:\.\d+)?) second", re.IGNORECASE)
# What Python raises when code that trusts its input meets another.
_STUMBLES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, zlib.error)
# What aiohttp raises before a byte of the request has left; all else may have had its effect.
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


def answers(service: str, outcome: str) -> bool:
    """Tell whether a service that ends a request like this works for us.

    Everything we ask IMDS for is there as long as the service works; elsewhere things get deleted.
    """
    return outcome in _ANSWERS and (service, outcome) != ("imds", "not_found")


def ignore(service: str, operation: str, outcome: str, duration_s: float) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Puts a deadline, the translation of errors and an observation around every call."""

    service: str
    clock: Clock
    observer: Observer = ignore

    @asynccontextmanager
    async def call(self, operation: str, deadline_s: float) -> AsyncGenerator[None]:
        """Run the body within `deadline_s`, token acquisition included."""
        started = self.clock.monotonic()
        outcome = "bug"
        try:
            async with asyncio.timeout(deadline_s):
                yield
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as error:
            translated = translate(error, f"{self.service} {operation}")
            if translated is None:
                raise
            translated.service = translated.service or self.service
            outcome = OUTCOMES.get(type(translated), "bug")
            if translated is error:
                raise
            raise translated from error
        finally:
            self.observer(self.service, operation, outcome, self.clock.monotonic() - started)


def translate(error: Exception, what: str) -> ControllerError | None:
    """Return the error of our tree that `error` stands for; None when it is a bug of ours."""
    reason = cap(str(error) or repr(error))
    translated: ControllerError | None = None
    if isinstance(error, ControllerError):
        translated = error
    elif isinstance(error, aiohttp.ClientError):
        never_sent = isinstance(error, _NEVER_SENT)
        kind = errors.NotSent if never_sent else errors.OutcomeUnknown
        translated = kind(f"{what}: {reason}")
    elif isinstance(error, AzureError):
        translated = _from_azure(error, what)
    elif isinstance(error, TimeoutError):
        translated = errors.OutcomeUnknown(f"{what}: no answer within the deadline")
    elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        translated = errors.ContractViolation(f"{what}: the reply is not JSON ({reason})")
    elif isinstance(error, OSError):
        translated = errors.OutcomeUnknown(f"{what}: {reason}")
    elif isinstance(error, _STUMBLES) and _raised_below_us(error):
        named = f"{type(error).__name__}: {reason}"
        translated = errors.ContractViolation(f"{what}: the reply cannot be read ({named})")
    return translated


def refused(error: ControllerError) -> bool:
    """Tell whether the service itself answered that it did not do what a request asked for.

    An operation that began and ended badly is no such answer: that comes with status 200.
    """
    cause = error.__cause__
    return isinstance(cause, HttpResponseError) and (cause.status_code or 0) in range(400, 500)


def _raised_below_us(error: Exception) -> bool:
    """Tell whether a library stumbled over what it was sent, rather than we over ourselves.

    The SDK trusts its services: a header that is no number, or a body that is a list, ends in
    whatever Python raises for it. Such an error was raised by, or below, the library that our
    innermost frame had called. One that our own lines raised is a bug and stays one.
    """
    modules = [
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = [index for index, module in enumerate(modules) if module == __name__.partition(".")[0]]
    return bool(ours) and modules[ours[-1] + 1 : ours[-1] + 2] in (["azure"], ["aiohttp"])


def _from_azure(error: AzureError, what: str) -> ControllerError:
    reason = _message(error)
    if isinstance(error, ClientAuthenticationError):
        return _from_authentication(error, what)
    if isinstance(error, DecodeError) and not isinstance(error, IncompleteReadError):
        return errors.ContractViolation(f"{what}: the reply cannot be read ({reason})")
    if isinstance(error, HttpResponseError) and not isinstance(error, IncompleteReadError):
        return _from_response(error, what)
    if isinstance(error, ServiceRequestError):
        inner = cast("object", error.inner_exception)
        if isinstance(inner, aiohttp.ClientError):
            return translate(inner, what) or errors.OutcomeUnknown(f"{what}: {reason}")
        return errors.NotSent(f"{what}: {reason}")
    return errors.OutcomeUnknown(f"{what}: {reason}")


def _message(error: AzureError) -> str:
    """Return what the SDK says; its `message` is whatever JSON a storage error reply had there."""
    return cap(str(cast("object", error.message)))


def _from_authentication(error: ClientAuthenticationError, what: str) -> ControllerError:
    """Tell a refused identity from an identity service that is away for a moment.

    azure-identity reports both as the same class. While it is away no request of ours was sent;
    Azure documents 404, 410, 429 and 5xx of the token endpoint as worth another try (Microsoft
    docs, Instance Metadata Service; managed identities, error handling).
    """
    response = _response_of(error)
    cause = error.__cause__
    if response is None and isinstance(cause, HttpResponseError):
        response = _response_of(cause)
    if response is None:
        if cause is not None:
            return _no_token(f"{what}: no token ({_message(error)})")
        return errors.Denied(f"{what}: {_message(error)}")
    status = response.status
    unreachable = status == 403 and "unreachable" in _message(error)
    if response.is_identity and (status in {404, 410, 429} or status >= 500 or unreachable):
        return _no_token(f"{what}: no token, identity service answered {status}")
    if response.is_identity:
        return errors.Denied(
            f"{what}: the VM has no usable managed identity ({_message(error)}). Assign one, "
            "or correct azure.client_id"
        )
    return from_status(response.status, response.headers, response.body, what)


def _no_token(message: str) -> errors.NotSent:
    """Return the error of a request that waits for the metadata service, where tokens come from."""
    error = errors.NotSent(message)
    error.service = "imds"
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes
    is_identity: bool


def _response_of(error: HttpResponseError) -> _Response | None:
    response = cast("Any", error.response)  # its annotation lacks half of its attributes
    if response is None:
        return None
    try:
        body = str(response.text()).encode()
    except (AzureError, UnicodeError, LookupError):
        body = b""  # never read, or not text
    url = str(getattr(response.request, "url", ""))
    return _Response(
        status=int(response.status_code or 0),
        headers={str(key).casefold(): str(value) for key, value in response.headers.items()},
        body=body,
        is_identity="/metadata/identity/" in url,
    )


def _from_response(error: HttpResponseError, what: str) -> ControllerError:
    response = _response_of(error)
    if response is None:
        return errors.OutcomeUnknown(f"{what}: {_message(error)}")
    if isinstance(error.inner_exception, BadResponse):
        return errors.ContractViolation(
            f"{what}: {_message(error)}: {cap(response.body.decode(errors='replace'))}"
        )
    return from_status(response.status, response.headers, response.body, what)


def from_status(status: int, headers: Mapping[str, str], body: bytes, what: str) -> ControllerError:
    """Return the error for a reply that reports one. Header names are lower case."""
    report = _Report.read(body, headers)
    text = f"{what}: {report.summary(status)}"
    retry_after_s = retry_after(headers, report.text)
    error: ControllerError
    if status < 300:
        error = _from_operation(report, text, retry_after_s)
    elif report.codes & _BUSY and status in {409, 429}:
        error = errors.Busy(text, retry_after_s=retry_after_s)
    elif status == 429:
        error = errors.Throttled(text, retry_after_s=retry_after_s)
    elif status in {409, 412}:
        error = errors.Conflict(text, retry_after_s=retry_after_s)
    elif status in {401, 403}:
        error = _denied(report, text)
    elif status == 404:
        error = errors.NotFound(text)
    elif status >= 500 or status in {408, 410} or report.codes:
        # A 4xx with a code is a request Azure understood and refuses in the present state.
        error = errors.ServiceFault(text, retry_after_s=retry_after_s)
    else:
        error = errors.ContractViolation(text)
    return error


def _from_operation(report: "_Report", text: str, retry_after_s: float | None) -> ControllerError:
    """Translate a long-running operation that ended badly: those replies have status 200."""
    if report.codes & _BUSY:
        return errors.Busy(text, retry_after_s=retry_after_s)
    if report.operation_status == "canceled" or report.codes & _SUPERSEDED:
        return errors.Conflict(text, retry_after_s=retry_after_s)
    if report.codes & _DENIED_CODES:
        return _denied(report, text)
    return errors.ServiceFault(text, retry_after_s=retry_after_s)


def _denied(report: "_Report", text: str) -> errors.Denied:
    match = _DENIAL.search(report.text)
    if match is None:
        return errors.Denied(text)
    action, scope = (cap(each) for each in match.groups())
    return errors.Denied(
        f"{text.split(': ', 1)[0]}: the managed identity lacks {action} on {scope} (or that "
        "resource does not exist). Grant it; new role assignments take some minutes",
        action=action,
        scope=scope,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What an error body says, in whichever of Azure's envelopes it came."""

    codes: frozenset[str]
    text: str
    first_code: str = ""
    operation_status: str = ""
    request_id: str = ""

    @classmethod
    def read(cls, body: bytes, headers: Mapping[str, str]) -> "_Report":
        request_id = headers.get("x-ms-request-id", "")
        codes: list[str] = []
        messages: list[str] = []
        status = ""
        if header_code := headers.get("x-ms-error-code"):
            codes.append(header_code)
        try:
            parsed: object = json.loads(body) if body.strip() else None
        except (ValueError, RecursionError):
            parsed = None
            messages.append(body.decode(errors="replace"))
        if isinstance(parsed, dict):
            envelope = cast("dict[str, object]", parsed)
            status = str(envelope.get("status", "")).casefold()
            for code, message in _walk(envelope.get("error", envelope), depth=4):
                codes.append(code)
                messages.append(message)
        named = [code for code in codes if code]
        return cls(
            codes=frozenset(code.casefold() for code in named),
            text=" ".join(message for message in messages if message),
            first_code=named[-1] if named else "",
            operation_status=status,
            request_id=request_id,
        )

    def summary(self, status: int) -> str:
        named = (cap(name, NAME_CHARACTERS) for name in (self.operation_status, self.first_code))
        parts = [str(status), *named, cap(self.text)]
        if self.request_id:
            parts.append(f"(request {cap(self.request_id, NAME_CHARACTERS)})")
        return " ".join(part for part in parts if part)


def _walk(error: object, depth: int) -> Iterator[tuple[str, str]]:
    """Yield code and message of an ARM error and of everything in its details."""
    if isinstance(error, str):
        yield "", error
    if not isinstance(error, dict) or depth == 0:
        return
    entry = cast("dict[str, object]", error)
    code, message, details = entry.get("code"), entry.get("message"), entry.get("details")
    yield code if isinstance(code, str) else "", message if isinstance(message, str) else ""
    if isinstance(details, list):
        for detail in cast("list[object]", details):
            yield from _walk(detail, depth - 1)


def retry_after(headers: Mapping[str, str], text: str = "") -> float | None:
    """Return how long Azure asks to wait: the header, else "can be retried in N seconds".

    A date is counted from the reply's own `Date`, so that no clock of this host comes into it.
    """
    value = headers.get("retry-after", "").strip()
    seconds: float | None = None
    try:
        seconds = float(value)
    except ValueError:
        if value:
            seconds = _seconds_between(headers.get("date", ""), value)
    if seconds is None and (match := _RETRY_TEXT.search(text)):
        seconds = float(match[1])
    if seconds is None or not seconds >= 0:  # the negation also catches NaN
        return None
    return min(seconds, MAX_RETRY_AFTER_S)


def _seconds_between(earlier: str, later: str) -> float | None:
    """Return the seconds from one HTTP date to another; None when one of them is none."""
    try:
        first, last = (parsedate_to_datetime(each) for each in (earlier, later))
    except (ValueError, TypeError, OverflowError):
        return None
    # "-0000" is parsed as a time without zone; HTTP knows no other than GMT.
    first, last = (each if each.tzinfo else each.replace(tzinfo=UTC) for each in (first, last))
    return max(0.0, (last - first).total_seconds())


def cap(text: str, most: int = EXCERPT_CHARACTERS) -> str:
    """Return one line of at most `most` characters, all of which a terminal and a log can hold.

    Without secrets: what an error says is shown by the server and by systemd, too, which know
    nothing of the log's redaction.
    """
    line = " ".join(redact(text[: 10 * most]).split())
    shown = "".join(each if each.isprintable() else "?" for each in line[:most])
    return shown if len(line) <= most and len(text) <= 10 * most else shown + "..."
