"""Logging: what a line holds, and what never gets out."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import get_args

import pytest

import controller
from controller.core.redaction import MAX_SCANNED, redact
from controller.observability.logs import MAX_VALUE, PARENT, log, setup
from controller.observability.message_ids import LogEvent

LOGGER = logging.getLogger("lbdrain.test_logs")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (None, "azure", "aiohttp", "msal")]
    before = [(each, each.level, list(each.handlers)) for each in loggers]
    yield
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers[:] = handlers


@pytest.fixture
def json_stream() -> io.StringIO:
    stream = io.StringIO()
    setup(stream=stream)
    return stream


@pytest.fixture
def text_stream() -> Terminal:
    stream = Terminal()
    setup(stream=stream)
    return stream


def test_json_line_holds_message_and_fields(json_stream: io.StringIO) -> None:
    """Off a terminal a line is one JSON object with the message and exactly the given fields."""
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    log(
        LOGGER,
        logging.WARNING,
        "100% out",
        event="write_started",
        vm="web-1",
        not_before=at,
        epoch=3,
        duration_s=1.5,
        pool=None,
    )
    line = json.loads(json_stream.getvalue())
    assert datetime.fromisoformat(line.pop("time")).tzinfo == UTC
    assert line == {
        "level": "WARNING",
        "logger": "test_logs",
        "message": "100% out",
        "event": "write_started",
        "vm": "web-1",
        "not_before": "2030-01-02T01:04:05Z",
        "epoch": 3,
        "duration_s": 1.5,
    }


def test_text_line_is_readable(text_stream: Terminal) -> None:
    """On a terminal a line is text that ends with its fields."""
    log(LOGGER, logging.INFO, "removed", vm="web-1", outcome="ok")
    line = text_stream.getvalue()
    assert line.endswith("INFO    removed  vm=web-1  outcome=ok\n")


def test_text_cannot_forge_a_line(text_stream: Terminal) -> None:
    """Line breaks and terminal controls in a value are escaped."""
    log(LOGGER, logging.INFO, "a\nb", vm="x\r\n\x1b[31m2030 ERROR fake\ud800")
    assert text_stream.getvalue().count("\n") == 1
    assert "\x1b" not in text_stream.getvalue()
    assert "\\ud800" in text_stream.getvalue()


def test_levels(json_stream: io.StringIO) -> None:
    """INFO of libraries and DEBUG of the product are not logged; warnings of libraries are."""
    for name in ("azure.core.pipeline", "aiohttp.access", "msal.token"):
        logging.getLogger(name).info("noise")
    log(LOGGER, logging.DEBUG, "noise")
    assert json_stream.getvalue() == ""
    logging.getLogger("azure.storage").warning("signal")
    assert json.loads(json_stream.getvalue())["message"] == "signal"


def test_second_setup_replaces_the_first(json_stream: io.StringIO) -> None:
    """Setting up again sends each line to the new stream only."""
    second = io.StringIO()
    setup(level=logging.DEBUG, stream=second)
    log(LOGGER, logging.DEBUG, "once")
    assert json_stream.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_default_stream_is_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a stream logging goes to stderr, so stdout stays for results."""
    setup()
    log(LOGGER, logging.INFO, "hello")
    out, err = capsys.readouterr()
    assert out == ""
    assert "hello" in err


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_long_values_are_capped(stream: type[io.StringIO]) -> None:
    """A value of megabytes is cut, and the line shows its length."""
    target = stream()
    setup(stream=target)
    log(LOGGER, logging.INFO, "m " * 1_000_000, outcome="o " * 1_000_000)
    text = target.getvalue()
    assert len(text) < 2 * MAX_VALUE + 500
    assert text.count("characters)") == 2


CANARY = "c4n4ryC4N4RYc4n4ry"
JWT = f"eyJhbGciOiJSUzI1NiJ9.{CANARY}.c4n4rysignature"
KEY = f"{CANARY}{'A' * (86 - len(CANARY))}=="
SECRETS = [
    f"Authorization: Bearer {CANARY}",
    f"AUTHORIZATION: SharedKey account:{CANARY}=",
    f"{{'Authorization': 'Bearer {CANARY}', 'Accept': '*/*'}}",
    f'{{"authorization": "Basic {CANARY}"}}',
    f"((b'Authorization', b'Bearer {CANARY}'),)",
    f"x-ms-authorization-auxiliary: Bearer {CANARY}, Bearer {CANARY}",
    f"token was bearer {CANARY}.{CANARY}-_~+/==",
    f"sent SharedKeyLite account:{CANARY}/+=",
    f"https://a.blob.core.windows.net/c/b?sv=2024&sig={CANARY}%2B%3D&se=2030",
    f"next=https%3A%2F%2Fa%3Fsv%3D2024%26sig%3D{CANARY}",
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={CANARY}==;EndpointSuffix=x",
    f"Endpoint=sb://x/;SharedAccessKey={CANARY}=",
    f"SharedAccessSignature=sv=2024&sig={CANARY}",
    f'{{"access_token": "{CANARY}", "token_type": "Bearer"}}',
    f"refresh_token={CANARY}&client_secret={CANARY}",
    f"client_assertion={CANARY}",
    f"got {JWT} back",
    f"key {KEY}",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_no_secret_gets_out(secret: str, stream: type[io.StringIO]) -> None:
    """No secret leaves by message, argument, field, exception, or a library's own line."""
    target = stream()
    setup(stream=target)
    log(LOGGER, logging.INFO, secret, outcome=secret)
    logging.getLogger("azure.core").warning("request: %s", secret)
    logging.getLogger("aiohttp").error("request: %r", {"line": secret})
    try:
        try:
            int(secret)  # its message repeats the text
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        LOGGER.exception("failed")
    text = target.getvalue()
    assert "[redacted]" in text
    assert "RuntimeError: outer" in text
    assert "c4n4ry" not in text.casefold()


@pytest.mark.parametrize("cut", range(MAX_VALUE - 60, MAX_VALUE + 5, 5))
def test_capping_does_not_uncover(json_stream: io.StringIO, cut: int) -> None:
    """A secret that lies across the cut is still redacted."""
    log(LOGGER, logging.INFO, "-" * cut + f" Authorization: Bearer {CANARY}")
    assert "c4n4" not in json_stream.getvalue()


def test_scanning_limit_does_not_uncover(json_stream: io.StringIO) -> None:
    """A secret that is cut where scanning ends does not surface, however little is left."""
    most = f" Bearer {'x' * (MAX_SCANNED - 60)} "
    for cut in range(10, 120, 7):
        log(LOGGER, logging.INFO, "-" * (MAX_SCANNED - len(most) - cut) + most + KEY + "y" * 100)
    assert "c4n4" not in json_stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "AuthorizationFailed: no authorization to perform action 'Microsoft.Network/x/write'",
        "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/nic",
        "design=3&signal=4",
        "lease id 7b1c7f6e-9a51-4d9c-8d3c-0a4f0f4d7a11",
    ],
)
def test_ordinary_text_is_kept(text: str) -> None:
    """What is no secret passes, so an error stays readable."""
    assert redact(text) == text


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "piece", ["Authorization: ", "sig=", "eyJ", "A", "bearer ", "'", " ", '"access_token": "']
)
def test_redaction_is_linear(piece: str) -> None:
    """A hostile megabyte does not stop the agent, and a secret after it is still found."""
    text = redact(piece * (1_000_000 // len(piece)) + f"\n Bearer {CANARY}")
    assert CANARY not in text


def test_every_logger_has_a_fixed_name() -> None:
    """No logger of the product is named after its module, and lines show the name only."""
    product = Path(controller.__file__).parent
    named = [
        name
        for path in product.rglob("*.py")
        for name in re.findall(
            r"^\w+ = logging\.getLogger\((.*)\)$", path.read_text(), re.MULTILINE
        )
    ]
    assert [name for name in named if not re.fullmatch(r'"lbdrain(\.[a-z]+)+"', name)] == []
    shown = {name.strip('"').removeprefix(f"{PARENT}.") for name in named}
    assert "election" in shown
    # The token library's own name would be indistinguishable from it.
    assert "azure.identity" not in shown


def test_every_event_is_logged_somewhere() -> None:
    """The list of events has no word that the product never writes."""
    product = Path(controller.__file__).parent
    text = "".join(path.read_text() for path in product.rglob("*.py"))
    unused = [word for word in get_args(LogEvent) if f'event="{word}"' not in text]
    assert unused == []


def test_caller_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """The record names the line that logged, not the helper."""
    with caplog.at_level(logging.INFO):
        log(LOGGER, logging.INFO, "here")
    assert caplog.records[0].funcName == sys._getframe().f_code.co_name
