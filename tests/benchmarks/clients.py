"""How many requests each kind of client loses in maintenance, with the controller and without."""

import statistics
from pathlib import Path
from typing import get_args

from controller.simulator.app.demo import ClientMix, Demo, Flows, Result
from tests.benchmarks.figures import Figure

GROUP = "clients"
FLOWS: Flows = "drop"
"""The worst that the load balancer may do to established flows of a removed VM."""


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Run the demo with each mix of clients; a run takes about a minute."""
    figures: list[Figure] = []
    for mix in get_args(ClientMix):
        results: list[Result] = []
        for number in range(runs):
            home = directory / f"{mix}-{number}"
            home.mkdir()
            results.append(await Demo(home, clients=mix, flows_on_remove=FLOWS).run())
        figures += _figures(mix, results)
    return figures


def _figures(mix: ClientMix, results: list[Result]) -> list[Figure]:
    found: list[Figure] = []
    for kind in results[0].requests.by_kind:
        counts = [result.requests.by_kind[kind] for result in results]
        without = [result.requests_without.by_kind[kind].lost for result in results]
        sent = statistics.median(each.sent for each in counts)
        found.append(
            Figure(
                group=GROUP,
                name=f"{mix} clients, {FLOWS}: {kind.value} requests lost",
                samples=[float(each.lost) for each in counts],
                worst=True,
                note=f"of about {sent:.0f}; without the controller {statistics.median(without):g}",
            )
        )
    return found
