"""`lb-drain manual`: the page is complete, and groff and mandoc accept it."""

import re
import shutil
import subprocess

import pytest

from controller.cli import main
from controller.cli.parser_tree import arguments, walk
from tests.support.patience import PATIENCE_S

SECTIONS = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "COMMANDS",
    "FILES",
    "ENVIRONMENT",
    "EXIT STATUS",
    "EXAMPLES",
    "SEE ALSO",
]
PARSER = main.build_parser()


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the page as it is printed."""
    with pytest.raises(SystemExit) as ended:
        main.main(["manual"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def plain(page: str) -> str:
    """Return what a reader copies from the page."""
    marks = {r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~", r"\-": "-", r"\&": ""}
    for mark, character in marks.items():
        page = page.replace(mark, character)
    return page.replace(r"\e", "\\")


def section(page: str, title: str) -> str:
    """Return what stands below a title."""
    return plain(page).partition(f".SH {title}\n")[2].partition("\n.SH ")[0]


def test_the_sections_are_those_of_manual_pages(page: str) -> None:
    """Name, synopsis, commands, files, environment, exit status and examples, in that order."""
    assert re.findall(r"^\.SH (.*)", page, re.MULTILINE) == SECTIONS


def test_every_command_and_option_is_documented(page: str) -> None:
    """Every argument of the parser is in the page, with its help text."""
    shown = plain(page)
    parts = {part.partition("\n")[0]: part for part in shown.split("\n.SS ")[1:]}
    assert list(parts) == [" ".join(path) for path, _ in walk(PARSER) if path]
    for path, command in walk(PARSER):
        for action in arguments(command) if path else ():
            part = " ".join(parts[" ".join(path)].split())
            assert all(each in part for each in action.option_strings)
            assert action.help, f"{path}: {action.dest} is not explained"
            assert " ".join(action.help.split()) in part


def test_the_synopsis_is_what_the_parser_takes(page: str) -> None:
    """Every command that can be run is shown once, with what it takes."""
    synopsis = section(page, "SYNOPSIS")
    shown = re.findall(r"^lb-drain ([a-z-]+(?: [a-z]+)?)", synopsis, re.MULTILINE)
    runnable = [path for path, command in walk(PARSER) if command.get_default("command")]
    assert shown == [" ".join(path) for path in runnable]
    assert "lb-drain doctor [--config FILE] [--json]\n" in synopsis
    assert "{Freeze,Reboot,Redeploy,Preempt,Terminate} VM ..." in synopsis


def test_every_exit_code_is_explained(page: str) -> None:
    """The codes are those of the help, all of them."""
    codes = section(page, "EXIT STATUS")
    assert re.findall(r"^\.B (.*)", codes, re.MULTILINE) == [
        *("0", "1", "2", "78", "124", "130 and 143")
    ]


@pytest.mark.parametrize(
    ("tool", "package"),
    [(["groff", "-ww", "-man", "-z"], "groff"), (["mandoc", "-Tlint"], "mandoc")],
    ids=["groff", "mandoc"],
)
def test_formatters_do_not_complain(page: str, tool: list[str], package: str) -> None:
    """No warning of any kind, but that a page which is made at installation has no date."""
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed (Debian package {package})")
    done = subprocess.run(
        tool, input=page, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    messages = (done.stdout + done.stderr).splitlines()
    assert [line for line in messages if "missing date" not in line] == []
