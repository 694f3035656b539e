"""Windows: the service definitions of WinSW, the page about it, and wheels to install."""

import ntpath
import os
import re
import shlex
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path, PureWindowsPath

import pytest

from controller.cli.main import build_parser
from controller.config.vm_side import Hook
from controller.observability.message_ids import KINDS
from controller.observability.windows_event_log import event_number
from controller.system.paths import windows_paths
from controller.system.service_manager import WINDOWS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/windows"
PAGE = (ROOT / "docs/windows.md").read_text()
DATA = PureWindowsPath("C:\\ProgramData\\lb-drain")
SERVICES = {"lb-drain": ("lbdrain", "run"), "lb-drain-probe": ("lbdrainprobe", "probe")}
EACH = pytest.mark.parametrize("name", SERVICES)
KNOWN = {
    "id", "name", "description", "serviceaccount", "executable", "arguments", "workingdirectory",
    "env", "startmode", "stoptimeout", "onfailure", "resetfailure", "logpath", "log",
}  # fmt: skip
"""Elements of WinSW 2 that are used, by its page about the configuration file."""


def service(name: str) -> ET.Element:
    """Return a service definition."""
    return ET.fromstring((FOLDER / f"{name}.xml").read_text())


def text(name: str, element: str) -> str:
    """Return the text of an element."""
    found = service(name).findtext(element)
    assert found is not None
    return found


def blocks(language: str) -> list[str]:
    """Return the code of one language on the page."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


@EACH
def test_a_service_has_elements_of_winsw(name: str) -> None:
    """WinSW ignores an element that it does not know."""
    root = service(name)
    assert root.tag == "service"
    assert {each.tag for each in root} <= KNOWN
    assert text(name, "name") == name
    assert text(name, "id") == SERVICES[name][0]
    assert text(name, "id").isalnum()
    assert re.fullmatch(r"\d+ sec", text(name, "stoptimeout"))
    assert all(each.get("action") == "restart" for each in root.iterfind("onfailure"))


@EACH
def test_a_service_runs_a_command_with_the_default_file(name: str) -> None:
    """The arguments are those of the parser, and the file is the default on Windows."""
    words = shlex.split(text(name, "arguments").replace("\\", "\\\\"))
    assert words[:3] == ["-m", "controller", SERVICES[name][1]]
    options = build_parser().parse_args(words[2:])
    assert str(options.config) == str(windows_paths({}).config)


@EACH
def test_a_service_is_where_the_page_puts_it(name: str) -> None:
    """Python, the working directory and the log directory are made by the commands of the page."""
    commands = "\n".join(blocks("powershell"))
    assert "$program = 'C:\\Program Files\\lb-drain'" in commands
    assert text(name, "executable") == "C:\\Program Files\\lb-drain\\venv\\Scripts\\python.exe"
    assert f"$data = '{DATA}'" in commands
    assert text(name, "workingdirectory") == str(DATA)
    assert text(name, "logpath") == str(DATA / "log")
    assert f"windows\\{name}.xml" in commands
    assert f'"$program\\{name}.exe" install' in commands
    assert f"Start-Service {SERVICES[name][0]}" in commands


def test_messages_name_the_services() -> None:
    """What a message tells an operator to run works with these definitions."""
    assert WINDOWS.start.split()[-1] == text("lb-drain", "id")
    assert WINDOWS.enable_probe.split()[-1] == text("lb-drain-probe", "id")
    assert f"-ProviderName {text('lb-drain', 'name')} " in WINDOWS.log


def test_the_hook_of_the_page_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """It parses as TOML, and its program has an absolute path on Windows."""
    monkeypatch.setattr(os, "path", ntpath)
    (example,) = blocks("toml")
    (hook,) = tomllib.loads(example)["hooks"]
    assert Hook.model_validate(hook).command[0].endswith("powershell.exe")


def test_the_page_has_the_paths_and_numbers_of_the_code() -> None:
    """Default paths, and the event id of the kind that it takes as the example."""
    for path in (windows_paths({}).config, windows_paths({}).flag_file):
        assert f"`{path}`" in PAGE
    (held,) = (kind for kind in KINDS if kind.name == "held")
    assert f"(`{held.message_id[:4]}...` is {event_number(held.message_id)})" in PAGE
    assert f"Id = {event_number(held.message_id)}}}" in PAGE


def test_the_page_states_that_it_was_not_run() -> None:
    """Until it was."""
    for path in ("docs/windows.md", "docs/limits.md", "docs/compatibility.md"):
        assert "not run on Windows" in " ".join((ROOT / path).read_text().split()), path


# --- wheels ---


def windows_lock() -> str:
    """Return what a VM with Windows installs: the lock file without the markers.

    pip takes markers as of the system on which it runs, whatever `--platform` is.
    """
    lock = (ROOT / "deploy/requirements.lock").read_text()
    return re.sub(r"^(\S+==\S+) ; [^\\\n]*", r"\1 ", lock, flags=re.MULTILINE)


def test_the_lock_has_what_only_windows_needs() -> None:
    """With hashes, and with the marker by which Linux leaves it out."""
    lock = (ROOT / "deploy/requirements.lock").read_text()
    for name in ("psutil", "pywin32"):
        pattern = rf"^{name}==\S+ ; sys_platform == 'win32' \\\n    --hash=sha256:"
        assert re.search(pattern, lock, re.MULTILINE), name
    assert " ; " not in windows_lock()


@pytest.mark.slow
@pytest.mark.skipif(
    "TEST_FROM_INDEX" not in os.environ,
    reason="TEST_FROM_INDEX is not set: takes wheels from the index",
)
def test_every_dependency_has_a_wheel_for_windows(tmp_path: Path) -> None:
    """pip finds each with a hash of the lock file; nothing has to be compiled on a VM."""
    lock = tmp_path / "requirements.lock"
    lock.write_text(windows_lock())
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    target = ("--platform", "win_amd64", "--python-version", "3.11", "--only-binary=:all:")
    wanted = ("--require-hashes", "--no-deps", "-r", str(lock), "-d", str(tmp_path / "wheels"))
    subprocess.run((*pip, *target, *wanted), check=True, timeout=600)
    wheels = [each.name.lower() for each in (tmp_path / "wheels").iterdir()]
    pinned = re.findall(r"^([a-z0-9-]+)==", lock.read_text(), re.MULTILINE)
    assert len(wheels) == len(pinned) > 30
    assert [each for each in wheels if each.startswith("pywin32-") and "win_amd64" in each]
