"""The event log of Windows, by pywin32. Nothing here raises.

An event has a level, a number and texts. The number of a kind of log lines is the first four
digits of its MESSAGE_ID as a decimal number: 40333 for `held`, 9d8d.... The number of all other
lines is 1. Event Viewer shows the text without a remark if the source was registered with a file
that has messages for all numbers, as New-EventLog does.
https://learn.microsoft.com/en-us/windows/win32/api/winbase/nf-winbase-reporteventw
https://learn.microsoft.com/en-us/powershell/module/microsoft.powershell.management/new-eventlog

The call goes to a local service and has no deadline. It is made where the line is logged, so that
the last lines of an agent that ends are written.

Event Viewer has no fields. Therefore the text ends with the fields, as in the journal.
"""

import contextlib
import importlib
import logging
import sys
from typing import Protocol, cast

LEVELS = ((logging.ERROR, 1), (logging.WARNING, 2), (logging.NOTSET, 4))
"""EVENTLOG_ERROR_TYPE, EVENTLOG_WARNING_TYPE and EVENTLOG_INFORMATION_TYPE."""
NO_KIND = 1
"""The number of a line that belongs to no kind. No MESSAGE_ID begins with 0001 (a test checks)."""
MAX_CHARACTERS = 31_000
"""Windows refuses a text of more than 31,839 characters."""


class Win32EventLog(Protocol):
    """What is used of pywin32's module `win32evtlog`. Every call raises `pywintypes.error`."""

    def RegisterEventSource(self, server: str | None, source: str) -> object:  # noqa: N802
        """Return a handle for a source on this machine."""
        ...

    def ReportEvent(  # noqa: N802, PLR0917
        self,
        handle: object,
        level: int,
        category: int,
        number: int,
        user: object,
        texts: tuple[str, ...],
        data: bytes | None,
    ) -> None:
        """Write one event."""
        ...

    def DeregisterEventSource(self, handle: object) -> None:  # noqa: N802
        """Release the handle."""
        ...


class EventLog:
    """Writes events of one source.

    Args:
        win32: the module `win32evtlog`.
        source: the name of the source.
    """

    def __init__(self, win32: Win32EventLog, source: str) -> None:
        self._win32, self._source = win32, source
        self._handle: object = None
        self.problem = ""
        """Why the newest event was not written; empty if it was."""

    def write(self, level: int, message_id: str, text: str) -> bool:
        """Write one event; return False if the event log refuses it.

        Args:
            level: of `logging`.
            message_id: of the kind of the line; empty for none.
            text: the message.
        """
        kind = next(number for least, number in LEVELS if level >= least)
        try:
            if self._handle is None:
                self._handle = self._win32.RegisterEventSource(None, self._source)
            # A text with a NUL character would end there.
            shown = text.replace("\0", "\\0")[:MAX_CHARACTERS]
            self._win32.ReportEvent(
                self._handle, kind, 0, event_number(message_id), None, (shown,), None
            )
        except Exception as error:
            # pywintypes.error is no OSError: full, no permission, the service is stopped.
            self.close()  # a handle does not outlast a restart of the service
            self.problem = str(getattr(error, "strerror", None) or error)
            return False
        self.problem = ""
        return True

    def close(self) -> None:
        """Release the event log."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(Exception):
                self._win32.DeregisterEventSource(handle)


def event_number(message_id: str) -> int:
    """Return the number of the events of a kind; a kind keeps it for ever, as it keeps its id."""
    return int(message_id[:4], 16) if message_id else NO_KIND


def open_event_log(source: str) -> EventLog | None:
    """Return the event log; None on other systems, and where pywin32 is not installed."""
    if sys.platform != "win32":
        return None
    return event_log_of(source)


def event_log_of(source: str) -> EventLog | None:
    """Return the event log by pywin32; None if it is not installed or does not load."""
    try:
        module = importlib.import_module("win32evtlog")
    except (ImportError, OSError):  # not installed; a DLL is missing
        return None
    return EventLog(cast("Win32EventLog", module), source)
