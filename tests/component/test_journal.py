"""What reaches systemd's journal: datagrams on a real socket, taken apart as the journal does."""

import io
import json
import logging
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.core.drain_history import Step
from controller.observability import logs
from controller.observability.journald import SEND_BUFFER, Journal, encoded, leads_to_journal
from controller.observability.logs import log
from controller.observability.message_ids import KINDS, StepEvent, kind_of, step_event
from controller.simulator.services.http_values import Service
from tests.support.in_process_set import LEASE_S, InProcessSet
from tests.support.journal_socket import Receiver, decoded

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "deploy/lb-drain.catalog"
LOGGER = logging.getLogger("lbdrain.test_journal")
PRODUCT = "".join(path.read_text() for path in (ROOT / "controller").rglob("*.py"))
LOGGERS = frozenset(re.findall(r'getLogger\("lbdrain\.([a-z.]+)"\)', PRODUCT))
CANARY = "c4n4ryC4N4RYc4n4ry"
IDS = {kind.message_id: kind.name for kind in KINDS}


def crash(text: str) -> None:
    """Raise something."""
    raise ValueError(text)


def test_an_entry_has_message_priority_id_and_fields(journal: Receiver) -> None:
    """Everything that the JSON line would hold is a field; the message ends with all of them."""
    log(LOGGER, logging.WARNING, "100% held", event="held", vm="web-1", epoch=3, pool=None)
    assert journal.entries() == [
        {
            "MESSAGE": "100% held  event=held  vm=web-1  epoch=3",
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "lb-drain",
            "SYSLOG_FACILITY": "3",
            "MESSAGE_ID": "9d8d4ae69474446db0d75f72a9688aa5",
            "LB_DRAIN_LOGGER": "test_journal",
            "LB_DRAIN_EVENT": "held",
            "LB_DRAIN_VM": "web-1",
            "LB_DRAIN_EPOCH": "3",
        }
    ]
    assert journal.lines() == ""


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, "2"),
        (logging.ERROR, "3"),
        (logging.WARNING, "4"),
        (logging.INFO, "6"),
        (logging.DEBUG, "7"),
    ],
)
def test_priorities(journal: Receiver, level: int, priority: str) -> None:
    """Each level has the priority of syslog, and a line without an event has no id."""
    log(LOGGER, level, "x")
    (entry,) = journal.entries()
    assert entry["PRIORITY"] == priority
    assert "MESSAGE_ID" not in entry


@pytest.mark.parametrize("value", ["", "a=b", "two\nlines\n", "\n", "NUL\0", "ä€😀", "\ud800"])
def test_any_value_arrives(value: str) -> None:
    """Whatever a value holds, the fields before and after it are what they were."""
    found = decoded(encoded({"BEFORE": "1", "VALUE": value, "AFTER": "2"}))
    shown = value.encode("utf-8", "backslashreplace").decode()
    assert found == {"BEFORE": "1", "VALUE": shown, "AFTER": "2"}


def test_a_name_cannot_forge_a_field_or_a_line(journal: Receiver) -> None:
    """Line breaks in a value stay in it; the message escapes them, and no word has blanks."""
    log(
        LOGGER, logging.INFO, "a\nb", event=StepEvent("out again"), vm="x\nPRIORITY=0\n  event=fake"
    )
    (entry,) = journal.entries()
    assert entry["PRIORITY"] == "6"
    assert entry["LB_DRAIN_VM"] == "x\nPRIORITY=0\n  event=fake"
    assert entry["MESSAGE"] == r"a\nb  event=out_again  vm=x\nPRIORITY=0\n_event=fake"


def test_a_traceback_follows_the_message(journal: Receiver) -> None:
    """What a person has to see of a crash is in the message, after its first line."""
    try:
        crash("x")
    except ValueError:
        LOGGER.exception("crashed")
    (entry,) = journal.entries()
    first, *_, last = entry["MESSAGE"].splitlines()
    assert (first, last) == ("crashed", "ValueError: x")


def test_no_secret_gets_into_the_journal(journal: Receiver) -> None:
    """A canary in message, fields or traceback, of us or of a library, is nowhere in the bytes."""
    secret = f"Authorization: Bearer {CANARY}, https://a.blob.core.windows.net/c?sv=1&sig={CANARY}"
    log(LOGGER, logging.ERROR, secret, action=secret, request_id=f"sig={CANARY}")
    try:
        crash(secret)
    except ValueError:
        logging.getLogger("azure.core").exception("AccountKey=%s;", CANARY)
    assert len(journal.entries()) == 2
    assert CANARY.encode() not in journal.raw
    assert journal.raw.count(b"[redacted]") >= 6


def test_a_journal_that_is_away(journal: Receiver) -> None:
    """Lines go to stderr as JSON as long as there is no journal, and back to it afterwards."""
    journal.close()
    log(LOGGER, logging.INFO, "no journal", event=StepEvent("out"), vm="web-1")
    line = json.loads(journal.lines())
    assert (line["message"], line["event"], line["vm"]) == ("no journal", "out", "web-1")
    journal.open()
    log(LOGGER, logging.INFO, "again")
    assert [entry["MESSAGE"] for entry in journal.entries()] == ["again"]
    assert journal.lines() == ""


def test_a_journal_that_hangs(journal: Receiver) -> None:
    """If neither end is read, logging does not block; the number of lost lines is logged later."""
    journal.close()
    journal.fill()
    for _ in range(3):
        log(LOGGER, logging.INFO, "lost")
    journal.open()
    log(LOGGER, logging.INFO, "here")
    assert "lost" not in journal.lines()
    here, reported = journal.entries()
    assert here["MESSAGE"] == "here"
    assert reported["MESSAGE"] == "3 log lines were dropped: the journal did not keep up"
    assert reported["PRIORITY"] == "4"
    log(LOGGER, logging.INFO, "once")
    assert len(journal.entries()) == 1


def test_a_queue_that_is_full(journal: Receiver) -> None:
    """A journal that is there but does not read is not waited for: the rest goes to stderr."""
    many = 5000  # more than any queue of datagrams holds by default
    for number in range(many):
        log(LOGGER, logging.INFO, str(number))
        if written := journal.lines():
            break
    assert json.loads(written)["message"] == str(number)
    assert [entry["MESSAGE"] for entry in journal.entries()] == [str(n) for n in range(number)]


def test_an_entry_that_is_too_long(tmp_path: Path) -> None:
    """What no datagram holds is refused, and raises nothing."""
    receiver = Receiver(tmp_path / "socket")
    receiver.open()
    sender = Journal(receiver.path)
    assert not sender.send({"MESSAGE": "x" * 3 * SEND_BUFFER})
    assert sender.send({"MESSAGE": "x" * 100_000})
    sender.close()
    receiver.close()


def test_a_line_that_cannot_be_formatted(
    journal: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library's mistake in a log call raises nothing, and what comes next is logged."""
    handlers = logging.getLogger().handlers
    (handler,) = (each for each in handlers if type(each).__module__ == logs.__name__)
    handler.handle(LOGGER.makeRecord("x", logging.INFO, "x", 1, "%d", ("no number",), None))
    log(LOGGER, logging.INFO, "next")
    assert [entry["MESSAGE"] for entry in journal.entries()] == ["next"]
    assert "Logging error" in capsys.readouterr().err


def test_the_target_of_stderr_decides(journal: Receiver, tmp_path: Path) -> None:
    """The variable alone proves nothing: it has to name the very stream that is written to."""
    found = os.fstat(journal.stream.fileno())
    named = f"{found.st_dev}:{found.st_ino}"
    assert leads_to_journal(journal.stream, {"JOURNAL_STREAM": named})
    for other in ("", "1", "x:y", f"{found.st_dev}:{found.st_ino + 1}", f"{named}:1"):
        assert not leads_to_journal(journal.stream, {"JOURNAL_STREAM": other})
    assert not leads_to_journal(journal.stream, {})
    assert not leads_to_journal(io.StringIO(), {"JOURNAL_STREAM": named})
    with (tmp_path / "file").open("w") as file:
        assert not leads_to_journal(file, {"JOURNAL_STREAM": named})
        logs.setup(stream=file, journal=journal.path)
        log(LOGGER, logging.INFO, "to the file")
    assert json.loads((tmp_path / "file").read_text())["message"] == "to the file"
    assert journal.entries() == []


# --- ids ---


def test_ids_are_ids_and_different() -> None:
    """Each is what systemd calls one, and no kind shares its id, its name or its lines."""
    assert all(re.fullmatch(r"[0-9a-f]{32}", ident) for ident in IDS)
    assert len(IDS) == len(set(IDS.values())) == len(KINDS)
    for kind in KINDS:
        for event in kind.events:
            for outcome in kind.outcomes or ("", "anything"):
                assert kind_of(event, outcome) is kind


def test_a_kind_is_of_lines_that_there_are() -> None:
    """Each event and outcome of a kind is one that the product writes."""
    product = "".join(
        path.read_text()
        for path in (ROOT / "controller").rglob("*.py")
        if "simulator" not in path.parts
    )
    product = product.replace((ROOT / "controller/observability/message_ids.py").read_text(), "")
    steps = {step_event(step) for step in Step}
    words = {word for kind in KINDS for word in (*kind.events, *kind.outcomes)}
    assert [
        word for word in sorted(words) if word not in steps and f'"{word}"' not in product
    ] == []
    assert kind_of("lease_changed", "acquired") is None
    assert kind_of("write_started", "") is kind_of("", "") is None


def test_the_runbook_lists_every_kind() -> None:
    """Name and id of each kind, in the order of the table in the code."""
    runbook = (ROOT / "deploy/README.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| `([0-9a-f]{32})` \|", runbook, re.MULTILINE)
    assert rows == [(kind.name, kind.message_id) for kind in KINDS]


def test_the_catalog_explains_every_kind(tmp_path: Path) -> None:
    """systemd compiles it and finds each id once; every field in it is a field of the product."""
    text = CATALOG.read_text()
    assert re.findall(r"^-- (\w+)$", text, re.MULTILINE) == [kind.message_id for kind in KINDS]
    fields = {f"LB_DRAIN_{name.upper()}" for name in logs.Fields.__annotations__}
    assert set(re.findall(r"@(\w+)@", text)) <= fields
    if shutil.which("journalctl") is None:
        pytest.skip("journalctl is not installed (Debian package systemd)")
    place = tmp_path / "usr/local/lib/systemd/catalog"
    place.mkdir(parents=True)
    shutil.copy(CATALOG, place)
    command = ("journalctl", f"--root={tmp_path}")
    subprocess.run([*command, "--update-catalog"], check=True)
    reported = subprocess.run(
        [*command, "--list-catalog"], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^(\w{32}) lb-drain: (.+)$", reported.stdout, re.MULTILINE)
    assert {ident for ident, _ in found} == IDS.keys()
    assert len({subject for _, subject in found}) == len(KINDS)


# --- a drain ---


async def test_a_drain_in_the_journal(bench: InProcessSet, journal: Receiver) -> None:
    """Each step of a maintenance has its id, VM and event; the step out has the outcome in_time."""
    logging.getLogger().setLevel(logging.INFO)
    found: list[dict[str, str]] = []

    def seen(name: str) -> bool:
        found.extend(journal.entries())
        return any(IDS.get(entry.get("MESSAGE_ID", "")) == name for entry in found)

    await bench.lead()
    event = await bench.announce("web-2")
    await bench.until("in service", lambda: seen("in_service"))
    await bench.close()
    assert seen("agent_stopping")
    lines = [entry for entry in found if entry["LB_DRAIN_LOGGER"] in LOGGERS]
    kinds = [IDS[entry["MESSAGE_ID"]] for entry in lines if "MESSAGE_ID" in entry]
    steps = ["recorded", "out", "acknowledged", "restoring", "restored", "in_service"]
    of_event = {"announced", "started", "completed", "verdict"}
    assert of_event <= set(kinds)
    assert list(dict.fromkeys(kind for kind in kinds if kind not in of_event)) == [
        "agent_started",
        "leader_elected",
        *steps,
        "agent_stopping",
    ]
    of_vm = [entry for entry in lines if entry.get("LB_DRAIN_VM") == "web-2"]
    assert {entry["LB_DRAIN_EVENT_ID"] for entry in of_vm} == {event}
    assert {entry["LB_DRAIN_EVENT_TYPE"] for entry in of_vm} == {"Reboot"}
    outcomes = {IDS[entry["MESSAGE_ID"]]: entry.get("LB_DRAIN_OUTCOME") for entry in of_vm}
    assert outcomes == {
        **dict.fromkeys((*steps, *of_event)),
        "out": "in_time",
        "verdict": "drained",
    }


async def test_an_agent_that_cannot_begin(bench: InProcessSet, journal: Receiver) -> None:
    """It logs a warning with its own id."""
    bench.fault(Service.ARM, status=503)
    bench.start()
    found: list[dict[str, str]] = []

    def waits() -> bool:
        found.extend(journal.entries())
        return any(IDS.get(entry.get("MESSAGE_ID", "")) == "agent_waiting" for entry in found)

    await bench.until("waits", waits)
    assert {entry["PRIORITY"] for entry in found if "MESSAGE_ID" in entry} == {"4"}


async def test_a_missing_leader(bench: InProcessSet) -> None:
    """An agent that has seen no leader for two lease durations logs one warning, and its return."""
    await bench.lead()
    bench.fault(Service.BLOB, status=503)
    bench.clock.ahead_s += 3 * LEASE_S
    await bench.until("logged", lambda: bench.logged("no leader has been seen", "WARNING"))
    bench.heal()
    await bench.until("again", lambda: bench.logged("a leader is seen again", "INFO"))
    assert len(bench.logged("no leader has been seen")) == 1
