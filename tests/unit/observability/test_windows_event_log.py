"""The event log of Windows: levels, numbers, texts, and a log that refuses what it gets."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from controller.observability import logs
from controller.observability.logs import log, setup
from controller.observability.message_ids import KINDS
from controller.observability.windows_event_log import (
    MAX_CHARACTERS,
    NO_KIND,
    EventLog,
    event_log_of,
    event_number,
    open_event_log,
)

LOGGER = logging.getLogger("lbdrain.test_event_log")
CANARY = "c4n4ryC4N4RYc4n4ry"


class Refused(Exception):
    """What pywin32 raises: `pywintypes.error`, which is no OSError."""

    def __init__(self, strerror: str) -> None:
        super().__init__(5, "ReportEvent", strerror)
        self.strerror = strerror


def crash(text: str) -> None:
    """Raise something."""
    raise ValueError(text)


@dataclass
class Recorded:
    """A `win32evtlog` that keeps events, or refuses them."""

    refuses: str = ""
    unregistered: str = ""
    events: list[tuple[int, int, str]] = field(default_factory=list)
    handles: list[str] = field(default_factory=list)

    def RegisterEventSource(self, server: str | None, source: str) -> object:  # noqa: N802
        assert server is None
        if self.unregistered:
            raise Refused(self.unregistered)
        self.handles.append(source)
        return source

    def ReportEvent(  # noqa: N802
        self,
        handle: object,
        level: int,
        category: int,
        number: int,
        user: object,
        texts: tuple[str, ...],
        data: bytes | None,
    ) -> None:
        assert (handle, category, user, data) == (self.handles[-1], 0, None, None)
        if self.refuses:
            raise Refused(self.refuses)
        (text,) = texts
        self.events.append((level, number, text))

    def DeregisterEventSource(self, handle: object) -> None:  # noqa: N802
        assert handle == self.handles.pop()


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def win32() -> Recorded:
    return Recorded()


@pytest.fixture
def stream(win32: Recorded) -> io.StringIO:
    """Log to the event log, and return what goes to stderr."""
    found = io.StringIO()
    setup(logging.DEBUG, found, events=EventLog(win32, "lb-drain"))
    return found


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.CRITICAL, 1),
        (logging.ERROR, 1),
        (logging.WARNING, 2),
        (logging.INFO, 4),
        (logging.DEBUG, 4),
    ],
)
def test_levels(win32: Recorded, stream: io.StringIO, level: int, expected: int) -> None:
    """Error, warning and information are the levels of Windows."""
    log(LOGGER, level, "x")
    assert win32.events == [(expected, NO_KIND, "x")]
    assert stream.getvalue() == ""


def test_a_line_has_its_number_and_its_fields(win32: Recorded, stream: io.StringIO) -> None:
    """The text is that of the journal; the number belongs to the kind of the line."""
    log(LOGGER, logging.WARNING, "a\nb", event="held", vm="web-1", epoch=3)
    assert win32.events == [(2, 0x9D8D, r"a\nb  event=held  vm=web-1  epoch=3")]
    assert win32.handles == ["lb-drain"]
    assert stream.getvalue() == ""


def test_each_kind_has_a_number_of_its_own() -> None:
    """Alert rules of Windows match the number: no two kinds share one, and none is that of none."""
    numbers = {event_number(kind.message_id) for kind in KINDS}
    assert len(numbers) == len(KINDS)
    assert NO_KIND not in numbers
    assert all(0 < number < 65_536 for number in numbers)
    assert event_number("") == NO_KIND


def test_what_windows_does_not_take_is_changed(win32: Recorded, stream: io.StringIO) -> None:
    """A NUL would end the text, and a long text would be refused as a whole."""
    events = EventLog(win32, "lb-drain")
    assert events.write(logging.INFO, "", "a\0b")
    assert events.write(logging.INFO, "", "x" * 10 * MAX_CHARACTERS)
    assert win32.events[0][2] == "a\\0b"
    assert len(win32.events[1][2]) == MAX_CHARACTERS < 31_839
    assert stream.getvalue() == ""


def test_no_secret_gets_into_the_event_log(win32: Recorded, stream: io.StringIO) -> None:
    """Message, fields and traceback pass the rules of every log."""
    secret = f"Authorization: Bearer {CANARY}"
    try:
        crash(secret)
    except ValueError:
        LOGGER.exception("%s", secret, extra={"action": secret})
    assert CANARY not in repr(win32.events) + stream.getvalue()
    assert "ValueError" in win32.events[0][2]


@pytest.mark.parametrize("why", ["The event log file is full.", "Access is denied.", "RPC"])
def test_a_log_that_refuses(win32: Recorded, stream: io.StringIO, why: str) -> None:
    """Lines go to stderr, after one line that states why; then the event log is used again."""
    win32.refuses = why
    log(LOGGER, logging.ERROR, "one", vm="web-1")
    log(LOGGER, logging.INFO, "two")
    notice, one, two = (json.loads(line) for line in stream.getvalue().splitlines())
    assert notice["level"] == "WARNING"
    assert notice["message"] == f"the event log refuses lines ({why}); they follow here"
    assert (one["message"], one["vm"], two["message"]) == ("one", "web-1", "two")
    win32.refuses = ""
    log(LOGGER, logging.INFO, "three")
    assert win32.events == [(4, NO_KIND, "three")]
    assert len(stream.getvalue().splitlines()) == 3
    win32.refuses = why
    log(LOGGER, logging.INFO, "four")
    assert len(stream.getvalue().splitlines()) == 5


def test_a_source_that_cannot_be_opened(win32: Recorded, stream: io.StringIO) -> None:
    """As long as the service of the event log is stopped, stderr has the lines."""
    win32.unregistered = "The RPC server is unavailable."
    log(LOGGER, logging.INFO, "one")
    assert "RPC server" in stream.getvalue()
    assert '"message": "one"' in stream.getvalue()
    win32.unregistered = ""
    log(LOGGER, logging.INFO, "two")
    assert win32.events == [(4, NO_KIND, "two")]


def test_a_line_that_cannot_be_formatted(
    win32: Recorded, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library's mistake in a log call raises nothing."""
    handlers = logging.getLogger().handlers
    (handler,) = (each for each in handlers if type(each).__module__ == logs.__name__)
    handler.handle(LOGGER.makeRecord("x", logging.INFO, "x", 1, "%d", ("no number",), None))
    log(LOGGER, logging.INFO, "next")
    assert win32.events == [(4, NO_KIND, "next")]
    assert "Logging error" in capsys.readouterr().err
    assert stream.getvalue() == ""


def test_the_handle_is_released(win32: Recorded) -> None:
    """A second setup closes the first; a handle that is gone already raises nothing."""
    setup(logging.INFO, io.StringIO(), events=EventLog(win32, "lb-drain"))
    log(LOGGER, logging.INFO, "x")
    assert win32.handles == ["lb-drain"]
    setup(logging.INFO, io.StringIO())
    assert win32.handles == []
    events = EventLog(win32, "lb-drain")
    assert events.write(logging.INFO, "", "y")
    win32.handles.append("another")
    events.close()
    events.close()


def test_text_for_people_goes_to_stderr(win32: Recorded) -> None:
    """The event log belongs to the service, not to a command in a terminal."""
    stream = io.StringIO()
    setup(logging.INFO, stream, events=EventLog(win32, "lb-drain"), as_text=True)
    log(LOGGER, logging.WARNING, "careful")
    assert "WARNING careful" in stream.getvalue()
    assert win32.events == []


def test_there_is_none_on_linux() -> None:
    """pywin32 is not asked for."""
    assert open_event_log("lb-drain") is None


def test_pywin32_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the module `win32evtlog` there is an event log."""
    module, recorded = ModuleType("win32evtlog"), Recorded()
    for name in ("RegisterEventSource", "ReportEvent", "DeregisterEventSource"):
        setattr(module, name, getattr(recorded, name))
    monkeypatch.setitem(sys.modules, "win32evtlog", module)
    found = event_log_of("lb-drain")
    assert found is not None
    assert found.write(logging.INFO, "", "x")
    assert recorded.events == [(4, NO_KIND, "x")]


@pytest.mark.parametrize("kind", ["not installed", "a DLL is missing"])
def test_without_pywin32_there_is_none(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The agent then logs to stderr, which the service wrapper keeps in a file."""

    def refuse(name: str) -> ModuleType:
        if kind == "not installed":
            raise ModuleNotFoundError(f"No module named {name!r}")
        raise OSError(126, "The specified module could not be found")

    monkeypatch.setattr("importlib.import_module", refuse)
    assert event_log_of("lb-drain") is None
