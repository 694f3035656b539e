"""The state file: a round trip, and everything that can be in its place."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.core.hub_updates import Update
from controller.core.hub_watch import KnownRun, Memory
from controller.core.notices.notice import Notice, NoticeKind
from controller.errors import NotDone
from controller.hub.memory_file import MAX_BYTES, load, only_user_of, save

AT = datetime(2030, 1, 2, 12, tzinfo=UTC)
MEMORY = Memory(
    polled=True,
    runs=(KnownRun(update="M1", name="r1", state="Failed", started_at=AT, missing=1),),
    updates=(Update(name="M1", state="InstallationFailed"),),
    failed_polls=2,
    failing_since=AT,
    alarmed=True,
    second_path="Completed",
    undelivered=(Notice(kind=NoticeKind.UPDATE_FAILED, id="1", at=AT, text="é\ttext"),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def test_what_was_saved_is_loaded(path: Path) -> None:
    """Every field; other users cannot read it, and no temporary file is left."""
    assert load(path) == (Memory(), "")
    assert save(path, Memory()) == save(path, MEMORY) == ""
    assert load(path) == (MEMORY, "")
    assert path.stat().st_mode & 0o077 == 0
    assert os.listdir(path.parent) == [path.name]


def test_keys_of_a_later_version_are_ignored(path: Path) -> None:
    """A downgrade repeats nothing."""
    save(path, MEMORY)
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "later": [1]}))
    assert load(path) == (MEMORY, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"polled": 7, "runs": "none"}',
        b'{"runs": [{"update": "M1"}]}',
        b'{"failing_since": "2030-01-02T12:00:00"}',
        b'{"undelivered": [{"kind": "unheard", "id": "1", "at": "2030-01-02T12:00:00Z"}]}',
        b" " * (MAX_BYTES + 1),
        b"[" * 100_000,
    ],
    ids=lambda each: repr(each[:20]),
)
def test_a_corrupted_file_is_as_good_as_none(path: Path, content: bytes) -> None:
    """The problem names the file and what follows from it."""
    path.write_bytes(content)
    memory, problem = load(path)
    assert memory == Memory()
    assert f"the state file {path} cannot be used" in problem
    assert "the newest run is reported again" in problem
    assert len(problem) < 500


def test_a_directory_in_its_place(path: Path) -> None:
    """It can neither be read nor written."""
    path.mkdir()
    assert "cannot be used" in load(path)[1]
    assert "cannot be written" in save(path, MEMORY)
    assert os.listdir(path.parent) == [path.name]


def test_a_missing_directory(tmp_path: Path) -> None:
    """The message states what to create."""
    problem = save(tmp_path / "none" / "state.json", MEMORY)
    assert "cannot be written (No such file or directory)" in problem
    assert "Create its directory" in problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_directory_that_cannot_be_written(path: Path) -> None:
    """The file that is there stays."""
    save(path, MEMORY)
    path.parent.chmod(0o500)
    try:
        assert "Permission denied" in save(path, replace(MEMORY, failed_polls=3))
        with only_user_of(path.with_name("other")):
            assert load(path) == (MEMORY, "")
    finally:
        path.parent.chmod(0o700)


def test_one_process_at_a_time(path: Path) -> None:
    """A timer that fires during a long question does not report twice."""
    with (
        only_user_of(path),
        pytest.raises(NotDone, match="another `lb-drain update-watch` uses"),
        only_user_of(path),
    ):
        pass
    with only_user_of(path):
        pass


def test_a_missing_directory_does_not_prevent_a_watch(tmp_path: Path) -> None:
    """What cannot be locked cannot be written either, and that is reported by the watch."""
    with only_user_of(tmp_path / "none" / "state.json"):
        pass
