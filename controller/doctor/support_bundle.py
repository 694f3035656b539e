"""The archive of `lb-drain support-bundle`: one file for each part, and no secrets in any.

A part that cannot be read is a file that states why. Every text is redacted by the rules of the
log when it is added, so that no part has to remember it.
"""

import io
import os
import tarfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from controller.core.redaction import redact_lines
from controller.errors import NotDone

OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of the bundle."""

    name: str
    text: str = ""
    problem: str = ""
    """Why it could not be read; empty when it could."""

    @property
    def file_name(self) -> str:
        """The name of the file; that of a part without content does not promise any."""
        return f"{Path(self.name).stem}.not-read.txt" if self.problem else self.name

    @property
    def content(self) -> bytes:
        """What the file contains, without secrets."""
        text = f"{self.name} could not be read: {self.problem}" if self.problem else self.text
        shown = redact_lines(text.rstrip("\n")) + "\n"
        return shown.encode(errors="backslashreplace")


@contextmanager
def new_bundle(path: Path) -> Generator[BinaryIO]:
    """Create the file, which only its owner can read, and remove it if it does not get finished.

    Raises:
        NotDone: the file exists, or cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError:
        raise NotDone(f"{path} exists and is not overwritten; name another file") from None
    except OSError as error:
        raise NotDone(
            f"{path} cannot be created ({error.strerror}); name a file in a directory that this "
            "user can write to"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_bundle(file: BinaryIO, parts: Iterable[Part], *, directory: str, at: datetime) -> None:
    """Write the parts as a compressed archive that unpacks into one directory.

    Raises:
        NotDone: the disk does not take it.
    """
    try:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for part in parts:
                content = part.content
                entry = tarfile.TarInfo(f"{directory}/{part.file_name}")
                entry.size, entry.mode = len(content), OWNER_ONLY
                entry.mtime = int(at.timestamp())
                archive.addfile(entry, io.BytesIO(content))
    except OSError as error:
        raise NotDone(f"the bundle cannot be written: {error.strerror or error}") from None
