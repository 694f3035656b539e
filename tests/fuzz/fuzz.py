"""A coverage-guided fuzz run over one target: keep what reaches a branch that nothing did before.

Coverage is counted in our own package only, as pairs of lines that followed each other. What is
kept becomes a parent of further inputs; the newest and the shortest are tried more often.
"""

import hashlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import controller
from tests.fuzz.grammar import mutate
from tests.fuzz.targets import Target, hold

PACKAGE = str(Path(controller.__file__).parent)
NOT_OURS = str(Path(PACKAGE) / "simulator")
MOST_BYTES = 300_000
SLOW_S = 5.0
Edge = tuple[int, int, int]


class Slow(Exception):
    """One input kept a parser busy for so long that a poll would be missed."""


@dataclass
class Run:
    """What came of a fuzz run over one target."""

    target: Target
    executions: int = 0
    edges: set[Edge] = field(default_factory=set)
    corpus: list[bytes] = field(default_factory=list)
    crashes: dict[str, tuple[BaseException, bytes]] = field(default_factory=dict)
    """By where it happened; one input for each."""


def trace(act: Callable[[], None], edges: set[Edge]) -> None:
    """Add the edges in our package that `act` goes along; what it raises is raised."""
    numbers: dict[CodeType, int] = {}

    def enter(frame: FrameType, _event: str, _arg: object) -> Any:
        code = frame.f_code
        number = numbers.get(code)
        if number is None:
            name = code.co_filename
            ours = name.startswith(PACKAGE) and not name.startswith(NOT_OURS)
            number = numbers[code] = hash((name, code.co_firstlineno)) if ours else 0
        if not number:
            return None
        before = 0

        def step(frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal before
            if event == "line":
                edges.add((number, before, frame.f_lineno))
                before = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        act()
    finally:
        sys.settrace(None)


def fuzz(target: Target, seconds: float, random: Random) -> Run:
    """Feed a target its seeds, and for so many seconds of the processor what grows out of them."""
    run = Run(target)
    seeds = list(target.seeds())
    for data in seeds:
        _feed(run, data)
    until = time.process_time() + seconds
    while time.process_time() < until:
        _feed(run, _child(run.corpus or seeds, random))
    return run


def _child(parents: Sequence[bytes], random: Random) -> bytes:
    while True:
        # The newest reached what is hardest to reach.
        index = max(random.randrange(len(parents)), random.randrange(len(parents)))
        child = mutate(random, parents[index], random.choice((1, 1, 1, 2, 2, 3, 5)))
        if len(child) <= MOST_BYTES:
            return child


def _feed(run: Run, data: bytes) -> None:
    run.executions += 1
    edges: set[Edge] = set()
    started_s = time.process_time()
    try:
        trace(lambda: hold(run.target, data), edges)
        _check_pace(time.process_time() - started_s, len(data))
    except Exception as error:  # whatever it is, it is a finding
        run.crashes.setdefault(_where(error), (error, data))
    else:
        if not edges <= run.edges:
            run.corpus.append(data)
    run.edges |= edges


def _check_pace(took_s: float, size: int) -> None:
    if took_s > SLOW_S:
        raise Slow(f"{took_s:.1f} s for {size} bytes")


def _where(error: BaseException) -> str:
    """Name a crash by its type and the lines of ours that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(PACKAGE) or "/hostile/" in f.filename]
    inner = [f"{Path(f.filename).name}:{f.lineno}" for f in [*ours[-2:], frames[-1]]]
    return f"{type(error).__name__} at {' > '.join(inner)}"


def save(run: Run, directory: Path) -> Iterator[tuple[str, Path]]:
    """Write the input of each crash to a file; yield where it happened and the file."""
    directory.mkdir(parents=True, exist_ok=True)
    for where, (error, data) in sorted(run.crashes.items()):
        path = directory / f"{run.target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        yield f"{where}: {str(error)[:200]}", path
