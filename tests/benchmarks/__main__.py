"""Measure the figures: `python -m tests.benchmarks [--only NAME] [--runs N] [--long] [--json
FILE]`.

Real agent processes against a simulated Azure on loopback. Machines are noisy, so ratios and counts
are quoted; a figure that falls short is worth a second look with more runs.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.benchmarks import (
    calls,
    clients,
    closing,
    drain,
    failover,
    fleet,
    footprint,
    forwarded,
    idle,
    responder,
)
from tests.benchmarks.figures import Figure, show

Bench = Callable[[int, Path], Awaitable[list[Figure]]]
BENCHES: dict[str, Bench] = {
    calls.GROUP: calls.measure,
    drain.GROUP: drain.measure,
    idle.GROUP: idle.measure,
    failover.GROUP: failover.measure,
    footprint.GROUP: footprint.measure,
    clients.GROUP: clients.measure,
    closing.GROUP: closing.measure,
    responder.GROUP: responder.measure,
    fleet.GROUP: fleet.measure,
    forwarded.GROUP: forwarded.measure,
}


async def _measure(names: list[str], runs: int, directory: Path, *, long: bool) -> list[Figure]:
    figures: list[Figure] = []
    for name in names:
        started = time.monotonic()
        bench = partial(idle.measure, long=True) if long and name == "idle" else BENCHES[name]
        figures += await bench(runs, directory)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return figures


def main() -> int:
    """Print the table; exit with 1 when a figure falls short."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(BENCHES), metavar="NAME")
    parser.add_argument("--runs", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--long", action="store_true", help="idle: 11 minutes per size")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lb-drain-bench-") as directory:
        figures = asyncio.run(
            _measure(
                options.only or list(BENCHES), options.runs, Path(directory), long=options.long
            )
        )
    show(figures, Console(width=160 if not sys.stdout.isatty() else None))
    if options.json:
        text = json.dumps([figure.as_json() for figure in figures], indent=2)
        options.json.write_text(text + "\n")
    return 1 if any(figure.verdict == "short" for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
