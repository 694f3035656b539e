"""What is remembered between polls, as a JSON file that is replaced as a whole.

A file that cannot be read as this memory is as good as none: the next poll reports the newest run
once more, and failed polls are counted from zero. One process at a time uses a file.
"""

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from controller.core.hub_watch import Memory
from controller.errors import NotDone
from controller.system import file_lock

MAX_BYTES = 4 * 1024 * 1024
_MEMORY = TypeAdapter(Memory)


@contextmanager
def only_user_of(path: Path) -> Generator[None]:
    """Hold the file `path` with ".lock" at its end, so that two timers do not report twice.

    Raises:
        NotDone: another process holds it.
    """
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield  # the memory cannot be written either, and that is reported
        return
    try:
        file_lock.lock(lock)
        yield
    except BlockingIOError:
        raise NotDone(
            f"another `lb-drain update-watch` uses {path}: wait until it has ended, or set another "
            "state_file in [update_watch]"
        ) from None
    finally:
        os.close(lock)


def load(path: Path) -> tuple[Memory, str]:
    """Return what is remembered, and why there is nothing although the file exists."""
    try:
        with path.open("rb") as stream:
            memory = _memory_in(stream.read(MAX_BYTES + 1))
    except FileNotFoundError:
        return Memory(), ""
    except OSError as error:
        problem = error.strerror or "error"
    except ValidationError as error:
        problem = f"it is not one that this command wrote: {error.errors()[0]['type']}"
    except ValueError as error:
        problem = str(error)
    else:
        return memory, ""
    return Memory(), (
        f"the state file {path} cannot be used ({problem}): the newest run is reported again, and "
        "failed polls are counted from zero"
    )


def save(path: Path, memory: Memory) -> str:
    """Replace the file; return why it could not be written, empty if it was."""
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_MEMORY.dump_json(memory, indent=1))
            stream.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        return (
            f"the state file {path} cannot be written ({error.strerror}): the next run reports "
            "the same changes again and does not count failed polls. Create its directory, "
            "writable for this user, or set update_watch.state_file"
        )
    return ""


def _memory_in(content: bytes) -> Memory:
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES} bytes")
    memory = _MEMORY.validate_json(content)
    if not all(instant.tzinfo for instant in _instants(memory)):
        raise ValueError("it has a time without a zone")
    return memory


def _instants(memory: Memory) -> Iterator[datetime]:
    yield from (run.started_at for run in memory.runs)
    yield from (notice.at for notice in memory.undelivered)
    if memory.failing_since is not None:
        yield memory.failing_since
