"""`lb-drain completion`: the scripts complete in the shells."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli import main
from controller.cli.completion import SHELLS
from tests.support.patience import PATIENCE_S

# What bash does at a TAB: words and position into variables, the function, its replies.
PRESS = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
read -ra declared <<<"$(complete -p lb-drain)"
"${declared[-2]}" lb-drain "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return a directory with the script of every shell, and some files."""
    for shell in SHELLS:
        with pytest.raises(SystemExit) as ended:
            main.main(["completion", shell])
        assert ended.value.code == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "web.toml").touch()
    (tmp_path / "work" / "sim").mkdir()
    return tmp_path


def pressed(scripts: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of the words."""
    done = subprocess.run(
        ["bash", "--norc", "-euc", PRESS, "bash", str(scripts / "bash"), "lb-drain", *words],
        cwd=scripts / "work",
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("st",), ["status"]),
        (("simulate", "ev"), ["event"]),
        (("simulate", "event", "Re"), ["Reboot", "Redeploy"]),
        (("status", "--w"), ["--watch"]),
        (("demo", "--flows", ""), ["keep", "drop", "reset"]),
        (("demo", "--clients", ""), ["short", "mixed", "persistent"]),
        (("completion", ""), list(SHELLS)),
        (("init", "--c"), ["--config", "--container-url"]),
        (("run", "--config", "w"), ["web.toml"]),
        (("check-config", "w"), ["web.toml"]),
        (("simulate", "--directory", ""), ["sim"]),
    ],
    ids=" ".join,
)
def test_bash_completes(scripts: Path, words: tuple[str, ...], offered: list[str]) -> None:
    """Commands, options, choices, files and directories are offered where they can stand."""
    assert pressed(scripts, *words) == offered


def test_bash_offers_every_command(scripts: Path) -> None:
    """At the first word all commands are offered, in the order of the help."""
    offered = pressed(scripts, "")
    assert {"init", "run", "status", "simulate", "completion"} <= set(offered)
    assert len(offered) == len(set(offered))


def test_fish_completes(scripts: Path) -> None:
    """fish offers commands and choices, too."""
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed (Debian package fish)")
    asked = "complete -C 'lb-drain sta'; complete -C 'lb-drain demo --flows '"
    result = subprocess.run(
        [fish, "--no-config", "-c", f"source {scripts}/fish; {asked}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        env={"HOME": str(scripts), "PATH": "/usr/bin:/bin"},
    ).stdout
    offered = {line.split("\t")[0] for line in result.splitlines()}
    assert offered == {"status", "keep", "drop", "reset"}


def test_zsh_takes_the_script(scripts: Path) -> None:
    """zsh loads it as a completion of the command."""
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed (Debian package zsh)")
    (scripts / "functions").mkdir()
    shutil.copy(scripts / "zsh", scripts / "functions" / "_lb-drain")
    loaded = (
        f"fpath=({scripts}/functions $fpath); autoload -U compinit; compinit -D -u; "
        "print $_comps[lb-drain]; autoload +X _lb-drain; print loaded"
    )
    result = subprocess.run(
        [zsh, "-fc", loaded], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert (result.stdout.split(), result.stderr) == (["_lb-drain", "loaded"], "")


def test_nothing_but_the_command_pays_for_it() -> None:
    """What makes the scripts is not loaded by other commands."""
    loaded = "import sys, controller.cli.main as c; c.build_parser(); print('shtab' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"
