"""Logging: JSON lines, text lines for a terminal, or journal entries with fields; no secrets.

Redaction happens last, so it covers messages, fields, exceptions and lines of libraries alike.

Under systemd, stderr is the journal, and each line becomes an entry with fields. Syslog has no
fields: rsyslog, and with it the Azure Monitor agent, receives only the message. Therefore the
message ends with the fields, each as one word: `web-2: out of rotation  event=out  vm=web-2`.
An entry that the journal does not accept goes to stderr as JSON. If stderr would block as well, the
line is dropped and counted, and the count is logged later. A drain never waits for its log.

On Windows, the agent writes to the event log (`windows_event_log`), with the same text. A line that
the event log refuses goes to stderr as JSON, after one line that states why.
"""

import json
import logging
import os
import select
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO, TypedDict, Unpack

from controller.core.printable import printable
from controller.core.redaction import MAX_SCANNED, redact_start
from controller.observability.journald import SOCKET, Journal, leads_to_journal
from controller.observability.message_ids import LogEvent, StepEvent, kind_of
from controller.observability.windows_event_log import EventLog, open_event_log

IDENTIFIER = "lb-drain"
"""SYSLOG_IDENTIFIER in the journal, ProcessName in Azure's table Syslog."""
PARENT = "lbdrain"
"""The parent of every logger of this program. Each has a short fixed name below it, for example
`lbdrain.election`, that does not follow the module; lines show it without the parent. Loggers of
libraries keep their names."""
DAEMON = "3"
"""The syslog facility, the same that systemd gives to the stderr of services."""
WARNING = "4"
PRIORITIES = (
    (logging.CRITICAL, "2"),
    (logging.ERROR, "3"),
    (logging.WARNING, WARNING),
    (logging.INFO, "6"),
)
MAX_VALUE = 2000
"""Maximum characters of a logged value; a body of megabytes must not fill the journal."""
MAX_TRACEBACK = 20_000


class Fields(TypedDict, total=False):
    """The fields of a log line besides its message. None omits a field."""

    event: LogEvent | StepEvent | None
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


def _capped(text: str, limit: int = MAX_VALUE) -> str:
    """Redact before cutting: a secret that is cut might no longer match a pattern."""
    shown = redact_start(text)
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


def _logger_of(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{PARENT}.")


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
            "logger": _logger_of(record),
            "message": _capped(record.getMessage()),
            **dict(_fields_of(record)),
        }
        if trace := self.trace(record):
            line["exception"] = trace
        return json.dumps(line)


class TextFormatter(_Formatter):
    """A line for a terminal: time, level, message, then the fields that are set."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {name}={printable(str(v))}" for name, v in _fields_of(record))
        message = printable(_capped(record.getMessage()))
        line = f"{_time_of(record)} {record.levelname:<7} {message}{fields}"
        trace = self.trace(record)
        return f"{line}\n{trace}" if trace else line


class _Handler(logging.StreamHandler[TextIO]):
    """Marks the handlers of `setup`, so that a second call replaces them."""


class _JournalHandler(_Handler):
    """Writes to the journal, and to the stream what the journal does not accept."""

    def __init__(self, stream: TextIO, journal: Journal) -> None:
        super().__init__(stream)
        self._journal, self._dropped = journal, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record without blocking."""
        try:
            entry = _entry_of(record)
        except Exception:  # like every handler: a malformed line must not raise in the caller
            self.handleError(record)
            return
        if self._journal.send(entry):
            if self._dropped:
                self._report_dropped()
        elif _takes_a_line(self.stream):
            super().emit(record)
        else:
            self._dropped += 1

    def close(self) -> None:
        """Close the socket."""
        self._journal.close()
        super().close()

    def _report_dropped(self) -> None:
        message = f"{self._dropped} log lines were dropped: the journal did not keep up"
        if self._journal.send(_common(message, WARNING, "logs")):
            self._dropped = 0


class _EventLogHandler(_Handler):
    """Writes to the event log of Windows, and to the stream what the event log refuses."""

    def __init__(self, stream: TextIO, events: EventLog) -> None:
        super().__init__(stream)
        self._events, self._refused = events, False

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        try:
            entry = _entry_of(record)
        except Exception:  # like every handler: a malformed line must not raise in the caller
            self.handleError(record)
            return
        if self._events.write(record.levelno, entry.get("MESSAGE_ID", ""), entry["MESSAGE"]):
            self._refused = False
            return
        if not self._refused:
            self._refused = True
            super().emit(self._notice())
        super().emit(record)

    def close(self) -> None:
        """Release the event log."""
        self._events.close()
        super().close()

    def _notice(self) -> logging.LogRecord:
        message = f"the event log refuses lines ({self._events.problem}); they follow here"
        return logging.LogRecord(f"{PARENT}.logs", logging.WARNING, "", 0, message, None, None)


def _takes_a_line(stream: TextIO) -> bool:
    """Return whether a write would not block, as far as the kernel knows."""
    poll, writable = getattr(select, "poll", None), getattr(select, "POLLOUT", 0)
    if poll is None:
        return True
    try:
        waiting = poll()
        waiting.register(stream.fileno(), writable)
        return any(found & writable for _, found in waiting.poll(0))
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
    # One word each, so that a search in the text knows where a value ends.
    words = "".join(f"  {name}={'_'.join(printable(v).split())}" for name, v in fields.items())
    message = printable(_capped(record.getMessage())) + words
    if trace := _Formatter().trace(record):
        message += f"\n{trace}"
    priority = next((digit for level, digit in PRIORITIES if record.levelno >= level), "7")
    entry = _common(message, priority, _logger_of(record))
    if kind := kind_of(fields.get("event", ""), fields.get("outcome", "")):
        entry["MESSAGE_ID"] = kind.message_id
    return entry | {f"LB_DRAIN_{name.upper()}": value for name, value in fields.items()}


def setup(
    level: int = logging.INFO,
    stream: TextIO | None = None,
    *,
    journal: Path = SOCKET,
    events: EventLog | None = None,
    as_text: bool = False,
) -> None:
    """Send all logging to `stream` (stderr): as text to a terminal, else as JSON.

    If the stream is the journal, entries go to the socket `journal` instead. On Windows, what is
    not text goes to `events`, by default the event log. With `as_text`, for commands that people
    read, it is text wherever it goes.
    """
    target: TextIO = sys.stderr if stream is None else stream
    handler, text = _Handler(target), as_text or target.isatty()
    if leads_to_journal(target, os.environ):
        handler = _JournalHandler(target, Journal(journal))
    elif not text and (found := events or open_event_log(IDENTIFIER)):
        handler = _EventLogHandler(target, found)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for library in ("azure", "aiohttp", "msal"):
        # They log every request at INFO; the agent logs what the requests mean.
        logging.getLogger(library).setLevel(logging.WARNING)
