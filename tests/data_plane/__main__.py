"""Show what clients lose on real parts: `python -m tests.data_plane [--runs N] [--only FLOWS]`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.data_plane.run import LONG, Flows, Result, run
from tests.support import web_servers

FLOWS: tuple[Flows, ...] = ("keep", "drop")


def table(results: Sequence[Result]) -> Table:
    """Return the requests of each kind, lost and sent, one column for each run."""
    shown = Table(title="requests lost / sent")
    shown.add_column("clients")
    for number, result in enumerate(results, 1):
        shown.add_column(f"{number}: {result.flows}", justify="right")
    for kind in results[0].counts.by_kind if results else ():
        cells = [result.counts.by_kind[kind] for result in results]
        shown.add_row(kind.value, *(f"{each.lost:,} / {each.sent:,}" for each in cells))
    totals = [f"{result.counts.lost:,} / {result.counts.sent:,}" for result in results]
    shown.add_row("all", *totals, style="bold")
    return shown


def main() -> int:
    """Print the table; exit with 1 when a request was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.data_plane", description=__doc__)
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="of each (default: 1)")
    parser.add_argument("--only", choices=FLOWS, help="what happens to established connections")
    parser.add_argument(
        "--without", choices=("closing", "controller"), help="what is lost without this"
    )
    parser.add_argument("--server", choices=("nginx", "apache2"), default="nginx")
    options = parser.parse_args()
    missing = [name for name in ("haproxy", options.server) if web_servers.program(name) is None]
    if missing:
        parser.error(f"install the Debian packages {' '.join(missing)}")
    results: list[Result] = []
    for _ in range(options.runs):
        for flows in (options.only,) if options.only else FLOWS:
            result = asyncio.run(
                run(
                    flows,
                    LONG,
                    server=options.server,
                    closing=options.without != "closing",
                    controller=options.without != "controller",
                )
            )
            results.append(result)
            print(f"{flows}: {'; '.join(result.events)}", file=sys.stderr)
            for lost in result.counts.losses:
                print(f"  lost: {lost}", file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 160).print(table(results))
    return 1 if any(result.counts.lost for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
