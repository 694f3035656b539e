"""The fuzz run itself: it sees branches, finds what is there to be found, and keeps it."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.fuzz import Edge, fuzz, save, trace
from tests.fuzz.targets import EVENT, TARGETS, Target, hold
from tests.fuzz.world import as_bytes
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]


def test_new_branches_are_seen() -> None:
    """An input that goes where no other went is distinguished from one that does not."""
    empty, full = (as_bytes({"Events": events}) for events in ([], [EVENT]))
    hold(TARGETS["event_document"], full)  # builds the world that every document is judged in
    seen: list[set[Edge]] = [set(), set(), set()]
    for data, edges in zip((full, full, empty), seen, strict=True):
        trace(partial(hold, TARGETS["event_document"], data), edges)
    first, again, other = seen
    assert first == again
    assert first - other


def test_a_crash_is_found_and_kept(tmp_path: Path) -> None:
    """What one target cannot bear is found by mutation, named by its place, and saved."""
    good = b'{"a": 1, "b": {"c": "text"}}'

    def fragile(data: bytes) -> None:
        if b'"c"' not in data:
            raise KeyError("c")

    run = fuzz(Target("fragile", fragile, lambda: [good]), 0.5, Random(1))
    [(reported, path)] = save(run, tmp_path / "crashes")
    assert reported.startswith("KeyError at ")
    assert "test_fuzz.py" in reported
    assert b'"c"' not in path.read_bytes()
    assert run.executions > 1


def test_every_seed_is_fed_however_short_the_time() -> None:
    """A share of the time that is over before the first input is made would find nothing."""
    fed: list[bytes] = []
    run = fuzz(Target("patient", fed.append, lambda: [b"1", b"2"]), 0, Random(1))
    assert fed == [b"1", b"2"]
    assert run.executions == 2


def test_the_command_feeds_a_target_and_counts() -> None:
    """The command runs one target for the requested time, and ends with what it did."""
    command = [sys.executable, "-m", "tests.fuzz", "--target", "retry_after", "--seconds", "0.2"]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=PATIENCE_S
    )
    assert ended.stdout.splitlines()[-1].endswith(" executions, 0 crashes")
    assert not ended.stderr
