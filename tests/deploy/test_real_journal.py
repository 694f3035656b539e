"""The same with systemd's own journal: a real systemd-journald, in a namespace of its own.

It needs no privileges and no systemd that runs: in a user and a mount namespace `/run`, `/var/lib`
and `/var/log` are empty, journald is started there under a name, and its sockets are where every
program expects them. Nothing of the machine is touched. Skipped where that is not possible.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controller.observability.message_ids import KINDS

pytestmark = pytest.mark.slow

CATALOG = Path(__file__).parents[2] / "deploy/lb-drain.catalog"
JOURNALD = Path("/lib/systemd/systemd-journald")
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
PROGRAM = """
import logging
from controller.observability import logs

logs.setup()
logger = logging.getLogger("lbdrain.x")
logs.log(logger, logging.WARNING, "web-2: out", event="out", vm="a\\nPRIORITY=0", outcome="late")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("Authorization: Bearer c4n4ry")
print("not a log line")
"""
SCRIPT = """
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd /run/log/journal /var/lib/systemd/catalog
cp database /var/lib/systemd/catalog/
"$1" test 2>/run/log/journald &
journald=$!
trap 'kill $journald' EXIT
ln -s journal.test /run/systemd/journal
until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ]; do
    kill -0 $journald
    sleep 0.05
done
# As systemd starts the service: stdout and stderr are one stream of the journal, which is named,
# and /run cannot be written to.
unshare --mount systemd-cat --identifier=program sh -c '
    mount --bind --options ro /run /run
    ! touch /run/written 2>/dev/null || exit 9
    JOURNAL_STREAM=$(stat --dereference --format=%d:%i /proc/self/fd/2) exec "$0" -c "$1"
' "$2" "$3"
journalctl --namespace=test --sync
journalctl --namespace=test --output=json --all SYSLOG_IDENTIFIER=lb-drain
echo ---
journalctl --namespace=test --catalog --output=short SYSLOG_IDENTIFIER=lb-drain
echo ---
journalctl --namespace=test --output=cat SYSLOG_IDENTIFIER=program
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Log through a real journal; return what it has: as JSON, explained, and what is no line."""
    if not JOURNALD.exists() or shutil.which("systemd-cat") is None:
        pytest.skip("systemd-journald is not installed (Debian package systemd)")
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    root = tmp_path_factory.mktemp("root")
    place = root / "usr/local/lib/systemd/catalog"
    place.mkdir(parents=True)
    shutil.copy(CATALOG, place)
    subprocess.run(["journalctl", f"--root={root}", "--update-catalog"], check=True)
    result = subprocess.run(
        [*UNSHARE, "bash", "-c", SCRIPT, "bash", JOURNALD, sys.executable, PROGRAM],
        cwd=root / "var/lib/systemd/catalog",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split("---\n")


def test_the_journal_has_every_field(shown: list[str]) -> None:
    """Fields, id, priority and facility are what was sent, line breaks in values included."""
    out, crash = map(json.loads, shown[0].splitlines())
    (kind,) = (each for each in KINDS if each.name == "out")
    expected = {
        "MESSAGE": r"web-2: out  event=out  vm=a\nPRIORITY=0  outcome=late",
        "PRIORITY": "4",
        "SYSLOG_FACILITY": "3",
        "MESSAGE_ID": kind.message_id,
        "LB_DRAIN_VM": "a\nPRIORITY=0",
        "LB_DRAIN_OUTCOME": "late",
        "_TRANSPORT": "journal",
    }
    assert expected.items() <= out.items()
    assert crash["MESSAGE"].startswith("Authorization: B[redacted]\nTraceback")
    assert crash["MESSAGE"].endswith("ZeroDivisionError: division by zero")


def test_journalctl_explains_it(shown: list[str]) -> None:
    """With --catalog the line is followed by its subject and text, the fields filled in."""
    assert "Subject: A VM is out of every pool\n" in shown[1]
    assert "Defined-By: lb-drain\n" in shown[1]
    assert "NotBefore: late." in shown[1]


def test_what_is_no_log_line_takes_the_way_of_systemd(shown: list[str]) -> None:
    """Only log lines go to the socket; nothing of them comes by the stream as well."""
    assert shown[2] == "not a log line\n"
