"""What an error reply of Azure contains: codes, message, request id, and when to try again."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import cast

from controller.core.printable import excerpt

MAX_RETRY_AFTER_S = 3600.0
NAME_CHARACTERS = 100
"""Limit for a code or an id; real ones have about 40."""
_MAX_DEPTH = 4
_RETRY_TEXT = re.compile(r"retried (?:in|after) (\d+(?:\.\d+)?) second", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The content of an error body, in whichever of Azure's envelopes it came."""

    codes: frozenset[str]
    """All codes, in lower case: that of the error and those of its details."""
    text: str
    """All messages, complete."""
    innermost_code: str = ""
    operation_status: str = ""
    """Of a long-running operation, in lower case."""
    request_id: str = ""

    @classmethod
    def read(cls, body: bytes, headers: Mapping[str, str]) -> "ErrorBody":
        """Return the content of a body, which can be any bytes. Header names are lower case."""
        codes: list[str] = [headers.get("x-ms-error-code", "")]
        messages: list[str] = []
        status = ""
        try:
            parsed: object = json.loads(body) if body.strip() else None
        except (ValueError, RecursionError):
            parsed = None
            messages.append(body.decode(errors="replace"))
        if isinstance(parsed, dict):
            envelope = cast("dict[str, object]", parsed)
            status = str(envelope.get("status", "")).casefold()
            for code, message in _walk(envelope.get("error", envelope), _MAX_DEPTH):
                codes.append(code)
                messages.append(message)
        named = [code for code in codes if code]
        return cls(
            codes=frozenset(code.casefold() for code in named),
            text=" ".join(message for message in messages if message),
            innermost_code=named[-1] if named else "",
            operation_status=status,
            request_id=headers.get("x-ms-request-id", ""),
        )

    def summary(self, status: int) -> str:
        """Return one printable line with the HTTP status, the code, the message and the id."""
        names = (self.operation_status, self.innermost_code)
        shown = (excerpt(name, limit=NAME_CHARACTERS) for name in names)
        parts = [str(status), *shown, excerpt(self.text)]
        if self.request_id:
            parts.append(f"(request {excerpt(self.request_id, limit=NAME_CHARACTERS)})")
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
    """Return how long Azure asks to wait, in seconds; None when it does not ask.

    The header comes first, then "can be retried in N seconds" in the message. A date in the header
    is compared with the reply's own `Date`, so the clock of this host does not matter.
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
    """Return the seconds from one HTTP date to another; None when one is not a date."""
    try:
        first, last = (parsedate_to_datetime(each) for each in (earlier, later))
    except (ValueError, TypeError, OverflowError):
        return None
    # "-0000" is parsed as a time without zone; HTTP dates are always in GMT.
    first, last = (each if each.tzinfo else each.replace(tzinfo=UTC) for each in (first, last))
    return max(0.0, (last - first).total_seconds())
