"""The support bundle: no secret in it, nothing overwritten, a reason for what is missing."""

import io
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.doctor.support_bundle import Part, new_bundle, write_bundle
from controller.doctor.support_parts import agent_answer, journal_text
from controller.errors import NotDone
from tests.support.ports import free_port

CANARY = "c4n4ryC4N4RYc4n4ry"
AT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SECRETS = (
    f"Authorization: Bearer {CANARY}",
    f'{{"authorization": "Bearer {CANARY}"}}',
    f"https://a.blob.core.windows.net/c?sv=1&sig={CANARY}&se=2",
    f"AccountName=a;AccountKey={CANARY};EndpointSuffix=core",
    f'"access_token": "{CANARY}"',
    f"client_secret={CANARY}",
)


def unpacked(path: Path) -> dict[str, str]:
    """Return the files of a bundle by name."""
    with tarfile.open(path) as archive:
        found = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        return {name: file.read().decode() for name, file in found.items() if file is not None}


def bundle(path: Path, *parts: Part) -> dict[str, str]:
    with new_bundle(path) as file:
        write_bundle(file, parts, directory="d", at=AT)
    return unpacked(path)


@pytest.mark.parametrize("secret", SECRETS)
def test_no_part_has_a_secret(tmp_path: Path, secret: str) -> None:
    """A secret is replaced in every part, and in the reason why a part is missing."""
    files = bundle(
        tmp_path / "b.tar.gz",
        Part(name="log.txt", text=f"first\n{secret}\nlast"),
        Part(name="doctor.json", problem=f"denied: {secret}"),
    )
    assert set(files) == {"d/log.txt", "d/doctor.not-read.txt"}
    assert CANARY not in "".join(files.values())
    lines = files["d/log.txt"].splitlines()
    assert (lines[0], lines[-1]) == ("first", "last")
    assert files["d/doctor.not-read.txt"].startswith("doctor.json could not be read: denied: ")


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """The file and what it unpacks to belong to one user, whatever the umask is."""
    path = tmp_path / "b.tar.gz"
    bundle(path, Part(name="log.txt", text="x"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        assert [each.mode for each in archive.getmembers()] == [0o600]


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    """An existing file and a symbolic link stay as they are; the message names the file."""
    path, link = tmp_path / "b.tar.gz", tmp_path / "link"
    path.write_text("mine")
    link.symlink_to(tmp_path / "elsewhere")
    for each in (path, link):
        with (
            pytest.raises(NotDone, match=f"{each} exists and is not overwritten"),
            new_bundle(each),
        ):
            pass
    assert path.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_cannot_be_created(tmp_path: Path) -> None:
    """A directory that does not exist is an error with the next step."""
    path = tmp_path / "no" / "b.tar.gz"
    wanted = r"cannot be created .*name a file in a directory"
    with pytest.raises(NotDone, match=wanted), new_bundle(path):
        pass


def test_half_a_bundle_does_not_stay(tmp_path: Path) -> None:
    """What ends the command removes the file that was begun."""
    path = tmp_path / "b.tar.gz"
    with pytest.raises(KeyboardInterrupt), new_bundle(path):
        raise KeyboardInterrupt
    assert not path.exists()


def test_a_full_disk() -> None:
    """A disk that does not take the bundle is an error in one line."""

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(NotDone, match="cannot be written: No space left"):
        write_bundle(Full(), [Part(name="log.txt", text="x")], directory="d", at=AT)


async def test_without_a_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without journalctl, and a journal that this user cannot read, are a reason."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotDone, match="journalctl is not installed"):
        await journal_text()
    program = tmp_path / "journalctl"
    program.write_text("#!/bin/sh\necho 'no permission' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(NotDone, match="exit code 1: no permission"):
        await journal_text()
    program.write_text("#!/bin/sh\n")
    with pytest.raises(NotDone, match="no lines of lb-drain and lb-drain-probe; run this command"):
        await journal_text()
    program.write_text('#!/bin/sh\necho "$*"\n')
    assert "--unit=lb-drain --unit=lb-drain-probe --lines=1000" in await journal_text()


async def test_without_an_agent() -> None:
    """An agent that does not run, or has no server, is a reason."""
    with pytest.raises(NotDone, match="has no server"):
        await agent_answer("", "/metrics")
    with pytest.raises(NotDone, match=r"does not answer at http://127.0.0.1:.*systemctl status"):
        await agent_answer(f"127.0.0.1:{free_port()}", "/metrics")
