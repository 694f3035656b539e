"""Logging: JSON lines for machines, readable lines for people, fields for the journal; no secrets.

Redaction sits where text passes last, so that messages, fields, exceptions and lines of libraries
are covered alike.

Under systemd stderr is the journal, and entries go there with their fields. Syslog knows no fields:
what rsyslog, and with it Azure Monitor's agent, is handed is the message. So that ends with them,
each as one word: `web-2: out  event=out  vm=web-2`. What the journal does not take goes to stderr
as JSON; where even that would have to be waited for it is dropped, counted, and told of later. A
drain never waits for its log.
"""

import json
import logging
import os
import re
import select
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO, TypedDict, Unpack

from controller.journal import SOCKET, Journal, leads_to_journal
from controller.message_ids import kind_of

IDENTIFIER = "lb-drain"
"""SYSLOG_IDENTIFIER in the journal, ProcessName in Azure's table Syslog."""
DAEMON = "3"
"""The syslog facility, as systemd gives to what services write to stderr."""
WARNING = "4"
PRIORITIES = (
    (logging.CRITICAL, "2"),
    (logging.ERROR, "3"),
    (logging.WARNING, WARNING),
    (logging.INFO, "6"),
)
MAX_VALUE = 2000
"""Characters of one logged value; a body of megabytes must not end up in the journal."""
MAX_TRACEBACK = 20_000
MAX_SCANNED = 100_000
"""Characters that are searched for secrets; what follows is dropped unread."""
LONGEST_SECRET = 8192


class Fields(TypedDict, total=False):
    """The fields a log line may carry beside its message. None leaves a field out."""

    event: str | None
    """What happened, as a stable word to search for."""
    vm: str | None
    pool: str | None
    event_id: str | None
    event_type: str | None
    not_before: datetime | None
    incarnation: int | None
    epoch: int | None
    action: str | None
    outcome: str | None
    duration_s: float | None
    request_id: str | None


_FIELDS = tuple(Fields.__annotations__)


def log(logger: logging.Logger, level: int, message: str, **fields: Unpack[Fields]) -> None:
    """Log a message with typed fields."""
    logger.log(level, "%s", message, extra=fields, stacklevel=2)


# Each pattern keeps group 1 and replaces the rest.
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A whole Authorization header, as a line, in a dict or among raw header tuples.
        r"""(authorization(?:-auxiliary)?(?:["']\s*,\s*b?["']|["']?\s*[:=]\s*b?["']?))[^"'\r\n]+""",
        r"(\b(?:bearer\s+)+)[\w.~+/=-]+",
        r"(\bshared(?:key|keylite)\s+\w+:)[\w+/=]+",
        r"((?<![a-z])sig(?:=|%3d))[^&\s\"'<>;]+",
        r"""((?:account|shared_?access_?|access_?)key(?:=|["']?\s*:\s*["']?))[^;\s"'&,}]+""",
        r"""(\b(?:access|refresh|id)_token["']?\s*[:=]\s*["']?)[^\s"'&,}]+""",
        r"""(\bclient_(?:secret|assertion)["']?\s*[:=]\s*["']?)[^\s"'&,}]+""",
        r"()\beyJ[\w-]{8,}\.[\w.-]+",  # a JSON web token, wherever it stands
        r"()(?<![\w+/])[a-z0-9+/]{86}==",  # a storage account key: 64 bytes in base64
    )
)


def redact(text: str) -> str:
    """Replace tokens, signatures, keys and Authorization headers in a text."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1[redacted]", text)
    return text


def _capped(text: str, limit: int = MAX_VALUE) -> str:
    """Redact first, so that no secret is cut into something the patterns do not know."""
    shown = redact(text[:MAX_SCANNED])
    if len(text) > MAX_SCANNED:
        shown = shown[:-LONGEST_SECRET]  # may end in the first half of one
    if len(text) <= MAX_SCANNED and len(shown) <= limit:
        return shown
    return f"{shown[:limit]}… ({len(text)} characters)"


def _fields_of(record: logging.LogRecord) -> Iterator[tuple[str, str | int | float]]:
    for name in _FIELDS:
        value: object = getattr(record, name, None)
        if isinstance(value, datetime):
            yield name, value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        elif isinstance(value, int | float):
            yield name, round(value, 6)
        elif value is not None:
            yield name, _capped(str(value))


def _time_of(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Formatter(logging.Formatter):
    def trace(self, record: logging.LogRecord) -> str:
        """Return the traceback, if there is one."""
        if not record.exc_info:
            return ""
        return _capped(self.formatException(record.exc_info), MAX_TRACEBACK)


class JsonFormatter(_Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | int | float] = {
            "time": _time_of(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _capped(record.getMessage()),
            **dict(_fields_of(record)),
        }
        if trace := self.trace(record):
            line["exception"] = trace
        return json.dumps(line)


class TextFormatter(_Formatter):
    """A line for a person: time, level, message, then the fields that are set."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {name}={_printable(str(v))}" for name, v in _fields_of(record))
        message = _printable(_capped(record.getMessage()))
        line = f"{_time_of(record)} {record.levelname:<7} {message}{fields}"
        trace = self.trace(record)
        return f"{line}\n{trace}" if trace else line


def _printable(text: str) -> str:
    """Escape line breaks and terminal controls: a VM's name cannot forge a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Handler(logging.StreamHandler[TextIO]):
    """Marks what `setup` installed, so that a second call replaces it."""


class _JournalHandler(_Handler):
    """To the journal with fields; as lines to the stream what the journal does not take."""

    def __init__(self, stream: TextIO, journal: Journal) -> None:
        super().__init__(stream)
        self._journal, self._dropped = journal, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record, without ever waiting."""
        try:
            entry = _entry_of(record)
        except Exception:  # as every handler does: a wrong line must not end what it tells of
            self.handleError(record)
            return
        if self._journal.send(entry):
            if self._dropped:
                self._tell_dropped()
        elif _takes_a_line(self.stream):
            super().emit(record)
        else:
            self._dropped += 1

    def close(self) -> None:
        """Close the socket."""
        self._journal.close()
        super().close()

    def _tell_dropped(self) -> None:
        message = f"{self._dropped} log lines were dropped: the journal did not keep up"
        if self._journal.send(_common(message, WARNING, __name__)):
            self._dropped = 0


def _takes_a_line(stream: TextIO) -> bool:
    """Tell whether a write would not have to wait: as far as the kernel can say beforehand."""
    try:
        waiting = select.poll()
        waiting.register(stream.fileno(), select.POLLOUT)
        return any(found & select.POLLOUT for _, found in waiting.poll(0))
    except (OSError, ValueError):
        return False


def _common(message: str, priority: str, name: str) -> dict[str, str]:
    return {
        "MESSAGE": message,
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "SYSLOG_FACILITY": DAEMON,
        "LB_DRAIN_LOGGER": name,
    }


def _entry_of(record: logging.LogRecord) -> dict[str, str]:
    """Return a record as fields of the journal."""
    fields = {name: str(value) for name, value in _fields_of(record)}
    # One word each: what is searched for in the text has to end somewhere.
    words = "".join(f"  {name}={'_'.join(_printable(v).split())}" for name, v in fields.items())
    message = _printable(_capped(record.getMessage())) + words
    if trace := _Formatter().trace(record):
        message += f"\n{trace}"
    priority = next((said for level, said in PRIORITIES if record.levelno >= level), "7")
    entry = _common(message, priority, record.name)
    if kind := kind_of(fields.get("event", ""), fields.get("outcome", "")):
        entry["MESSAGE_ID"] = kind.message_id
    return entry | {f"LB_DRAIN_{name.upper()}": value for name, value in fields.items()}


def setup(
    level: int = logging.INFO, stream: TextIO | None = None, *, journal: Path = SOCKET
) -> None:
    """Send all logging to `stream` (stderr): as text to a terminal, as JSON to anything else.

    Where the stream is the journal, entries go to the socket `journal` instead.
    """
    target: TextIO = sys.stderr if stream is None else stream
    handler = _Handler(target)
    if leads_to_journal(target, os.environ):
        handler = _JournalHandler(target, Journal(journal))
    handler.setFormatter(TextFormatter() if target.isatty() else JsonFormatter())
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for library in ("azure", "aiohttp", "msal"):
        # They tell every request at INFO; the agent tells what the requests meant.
        logging.getLogger(library).setLevel(logging.WARNING)
