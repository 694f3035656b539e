"""The flag file: one line of JSON that everyone may read, replaced in one step."""

import errno
import json
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller.vm_side.flag import Flag, FlagStore
from tests.support.planner_scenario import at

FLAG = Flag(
    since=at(0),
    event_type="Reboot",
    not_before=at(600),
    drain=at(-1),
    boot_id="boot",
    renewed_at=at(0),
)


def test_a_flag_is_read_as_it_was_written(tmp_path: Path) -> None:
    """An agent that starts again finds what it has left."""
    store = FlagStore(str(tmp_path / "lb-drain" / "draining"))
    assert store.read() is None
    assert store.write(FLAG) == ""
    found = store.read()
    assert found is not None
    assert found == replace(FLAG, renewed_at=found.renewed_at)


def test_every_user_may_read_it(tmp_path: Path) -> None:
    """Web servers run as other users."""
    path = tmp_path / "draining"
    FlagStore(str(path)).write(FLAG)
    assert path.stat().st_mode & 0o777 == 0o644
    lines = path.read_text().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["event_type"] == "Reboot"
    assert list(tmp_path.iterdir()) == [path]


def test_renewal_changes_the_time_alone(tmp_path: Path) -> None:
    """What looks at the age of the file sees that the agent lives."""
    path = tmp_path / "draining"
    store = FlagStore(str(path))
    store.write(FLAG)
    os.utime(path, (0, 0))
    before = path.read_bytes()
    assert store.renew() == ""
    assert path.stat().st_mtime > 0
    assert path.read_bytes() == before


def test_clearing_twice_is_no_problem(tmp_path: Path) -> None:
    """The file may be gone already."""
    store = FlagStore(str(tmp_path / "draining"))
    store.write(FLAG)
    assert (store.clear(), store.clear(), store.read()) == ("", "", None)


def test_without_a_path_nothing_is_written() -> None:
    """`flag_file = ""` is no file."""
    store = FlagStore("")
    assert (store.write(FLAG), store.renew(), store.clear(), store.read()) == ("", "", "", None)


@pytest.mark.parametrize("place", ["a file in the way", "a directory in its place"])
def test_a_path_that_cannot_be_written_is_reported(tmp_path: Path, place: str) -> None:
    """The message names the file, the reason and what to do; nothing is left behind."""
    if place == "a file in the way":
        (tmp_path / "run").write_text("")
        path = tmp_path / "run" / "draining"
    else:
        path = tmp_path / "draining"
        (path / "x").mkdir(parents=True)
    problem = FlagStore(str(path)).write(FLAG)
    assert str(path) in problem
    assert "correct [drain] flag_file" in problem
    assert not [each for each in tmp_path.rglob("*.new") if each.is_file()]


@pytest.mark.parametrize("content", ["", "touched", "[]", "{}", '{"since": "x"}', "\x00" * 5000])
def test_what_an_operator_wrote_is_no_flag_of_ours(tmp_path: Path, content: str) -> None:
    """The responder honours the file; the agent continues nothing from it."""
    path = tmp_path / "draining"
    path.write_text(content)
    assert FlagStore(str(path)).read() is None


def test_the_age_of_a_flag_is_that_of_its_renewal(tmp_path: Path) -> None:
    """`renewed_at` is the time of the file, not of its content."""
    path = tmp_path / "draining"
    store = FlagStore(str(path))
    store.write(FLAG)
    stamp = (at(0) + timedelta(hours=1)).timestamp()
    os.utime(path, (stamp, stamp))
    found = store.read()
    assert found is not None
    assert found.renewed_at == at(3600)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    """The message has the reason; no half of a flag is left, which a web server would honour."""
    path = tmp_path / "draining"
    (tmp_path / ".draining.new").symlink_to("/dev/full")
    problem = FlagStore(str(path)).write(FLAG)
    assert "No space left on device" in problem
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_flag_that_another_program_has_removed_is_written_again(
    tmp_path: Path, *, restarted: bool
) -> None:
    """S8: the entry still names the VM; without the flag its probes would never be refused."""
    path = tmp_path / "draining"
    store = FlagStore(str(path))
    store.write(FLAG)
    if restarted:
        store = FlagStore(str(path))
        store.read()
    path.unlink()
    assert store.renew() == (
        f"the flag file {path} was gone and is written again: another program has removed it, "
        "and the application took new work"
    )
    found = store.read()
    assert found is not None
    assert found == replace(FLAG, renewed_at=found.renewed_at)
    assert store.renew() == ""


def test_a_flag_that_was_cleared_is_not_written_again(tmp_path: Path) -> None:
    """S9: the VM is open."""
    path = tmp_path / "draining"
    store = FlagStore(str(path))
    store.write(FLAG)
    store.clear()
    store.renew()
    assert not path.exists()


@pytest.mark.parametrize("doing", ["write", "renew", "clear"])
def test_a_directory_that_may_not_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    """Whatever is done with the file: the problem is a text, and nothing raises."""

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    store = FlagStore(str(tmp_path / "draining"))
    store.write(FLAG)
    for owner, name in ((Path, "write_text"), (Path, "unlink"), (os, "utime")):
        monkeypatch.setattr(owner, name, refuse)
    problem = {"write": lambda: store.write(FLAG), "renew": store.renew, "clear": store.clear}
    assert "Permission denied" in problem[doing]()


def test_a_directory_in_the_place_of_the_flag_is_no_flag(tmp_path: Path) -> None:
    """It is read as none; that it cannot be removed is reported."""
    path = tmp_path / "draining"
    path.mkdir()
    store = FlagStore(str(path))
    assert store.read() is None
    assert str(path) in store.clear()


def test_a_flag_that_cannot_be_removed_grows_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9: its directory became read-only. What is not renewed stops to count for the responder."""

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    path = tmp_path / "draining"
    store = FlagStore(str(path))
    store.write(FLAG)
    os.utime(path, (0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert "Read-only file system" in store.clear()
    assert (store.renew(), path.stat().st_mtime) == ("", 0)
    store.write(FLAG)
    os.utime(path, (0, 0))
    store.renew()
    assert path.stat().st_mtime > 0


@pytest.mark.parametrize(("renewed_s", "age_s"), [(-100, 100), (3600, 0)])
def test_the_age_of_a_flag_is_by_the_clock_of_the_machine(
    tmp_path: Path, renewed_s: float, age_s: float
) -> None:
    """S9: the time of the file is no instant of a corrected clock; none lies ahead."""
    store = FlagStore(str(tmp_path / "draining"))
    store.write(FLAG)
    at_s = time.time() + renewed_s
    os.utime(tmp_path / "draining", (at_s, at_s))
    found = store.read()
    assert found is not None
    assert found.age_s == pytest.approx(age_s, abs=30)
    assert found.ahead_s == pytest.approx(max(0, renewed_s), abs=30)
