"""The documents in `deploy/` speak of what there is: commands, messages, files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.main import build_parser, main
from controller.status.overview import overview
from controller.status.snapshot import AgentSnapshot
from tests.unit.status.test_overview import facts, leader

DEPLOY = Path(__file__).parents[2] / "deploy"
RUNBOOK = DEPLOY / "README.md"
SECURITY = DEPLOY / "SECURITY.md"
DOCUMENTS = (RUNBOOK, DEPLOY / "roles" / "README.md", SECURITY)
OF_SYSTEMD = {"status=203/EXEC", "status=78", "Watchdog timeout"}


def symptoms() -> list[str]:
    """Return the first column of the table of symptoms."""
    table = RUNBOOK.read_text().split("## Troubleshooting")[1]
    return re.findall(r"^\| [^|`]*`([^`]+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("symptom", symptoms())
def test_a_symptom_is_a_message(symptom: str) -> None:
    """Each message in the table is one that the agent, or systemd, really prints."""
    controller = DEPLOY.parent / "controller"
    product = [path for path in controller.rglob("*.py") if "simulator" not in path.parts]
    assert symptom in OF_SYSTEMD or any(symptom in path.read_text() for path in product)


def test_there_are_symptoms() -> None:
    """The table is found, all of it."""
    rows = RUNBOOK.read_text().split("## Troubleshooting")[1].count("\n| ")
    assert len(symptoms()) == rows - 1


def test_commands_exist() -> None:
    """Each command of lb-drain that a document names is one."""
    named = {
        command
        for path in DOCUMENTS
        for command in re.findall(
            r"(?:bin/|`)lb-drain ([a-z-]+) (?:--|/etc|FILE)", path.read_text()
        )
    }
    assert named == {"check-config", "doctor", "plan", "status"}
    help_text = build_parser().format_help()
    assert all(re.search(rf"^\s+{command}\s", help_text, re.MULTILINE) for command in named)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shell_blocks_can_be_read(path: Path) -> None:
    """A shell finds nothing wrong with the syntax of any block."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", path.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        read = subprocess.run(
            ["bash", "-n"], input=block, text=True, capture_output=True, check=False
        )
        assert (read.returncode, read.stderr) == (0, ""), block


def slug(heading: str) -> str:
    """Return the anchor of a heading, as the places that show a repository make it."""
    return re.sub(r"[^\w\- ]", "", heading.casefold()).replace(" ", "-")


@pytest.mark.parametrize(
    "path",
    [*DOCUMENTS, *sorted(DEPLOY.parent.glob("*.md")), *sorted(DEPLOY.parent.glob("docs/*.md"))],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_links_lead_somewhere(path: Path) -> None:
    """Each link to a file, and to a heading of this document, leads to one."""
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if anchor else []
        slugs = {slug(heading) for heading in headings}
        assert not anchor or anchor in slugs, link


def test_what_security_relies_on_is_tested() -> None:
    """Each test that the threat model names is there."""
    named = re.findall(r"`(tests/[^`]+)`", SECURITY.read_text())
    assert len(named) > 5
    assert [name for name in named if not (DEPLOY.parent / name).exists()] == []


@pytest.mark.parametrize("origin", ["file", "environment"])
@pytest.mark.parametrize("probe", ["0.0.0.0:9810", "[::]:9810", ""])
def test_the_installer_reads_what_check_config_prints(
    probe: str,
    origin: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It finds the address of the server, and that of the responder if there is one."""
    in_file = probe if origin == "file" else "127.0.0.1:1"
    if origin == "environment":
        monkeypatch.setenv("LB_DRAIN_PROBE_LISTEN", probe)
        monkeypatch.setenv("LB_DRAIN_SERVER_LISTEN", "127.0.0.1:9808")
    config = tmp_path / "config.toml"
    config.write_text(
        '[[backend_pools]]\nid = "/subscriptions/11111111-2222-4333-8444-555555555555/'
        'resourceGroups/rg/providers/Microsoft.Network/loadBalancers/web/backendAddressPools/app"\n'
        '[election]\ncontainer_url = "https://account.blob.core.windows.net/lb-drain"\n'
        f'[probe]\nlisten = "{in_file}"\n'
    )
    with pytest.raises(SystemExit, match="0"):
        main(["check-config", str(config)])
    printed = capsys.readouterr().out
    (program,) = re.findall(r"awk -v key=\"\$2\" '([^']+)'", (DEPLOY / "service.sh").read_text())

    def address(key: str) -> str:
        command = ["awk", "-v", f"key={key}", program]
        done = subprocess.run(command, input=printed, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert address("server.listen") == "127.0.0.1:9808"
    assert address("probe.listen") == probe


def test_the_installer_reads_what_status_prints() -> None:
    """Before it removes the agent, it finds the VMs that are out in `status --json`."""
    (program,) = re.findall(r"-c '\n([^']+)' <<<", (DEPLOY / "service.sh").read_text())

    def read(snapshot: AgentSnapshot) -> subprocess.CompletedProcess[str]:
        printed = json.dumps(overview(snapshot))
        command = [sys.executable, "-I", "-c", program]
        return subprocess.run(command, input=printed, capture_output=True, text=True, check=False)

    assert (read(facts()).returncode, read(facts()).stdout) == (0, "\n")
    assert len(overview(leader())["vms"]) > 1
    assert read(leader()).stdout == "web-2\n"
    unread = read(leader(ledger_problem="storage does not answer"))
    assert (unread.returncode, unread.stderr) == (1, "storage does not answer\n")
