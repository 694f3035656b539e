"""What taking part costs an idle set, in counted requests."""

from collections import Counter
from typing import Any

from controller.simulator.services.http_values import Service
from tests.component.test_closing import CLOSE, report
from tests.support.in_process_set import InProcessSet

LEASE_READS = 8
"""As many as in half a minute, in a set of 20 VMs."""


async def test_an_idle_agent_reads_nothing_more(bench: InProcessSet) -> None:
    """No blob read but that of the lease, and no write: a report at the start is all."""
    seen: Counter[tuple[str, str]] = Counter()

    def note(request: Any, _reply: object) -> None:
        if request.service is Service.BLOB:
            seen[request.method, request.path] += 1

    await bench.lead("web-1", overrides=CLOSE)
    await bench.stand_by("web-2", overrides=CLOSE)
    both = ("web-1", "web-2")
    await bench.until("reported", lambda: all(report(bench, vm).get("state") for vm in both))
    await bench.requests(1, bench.ledger_path, "HEAD")
    bench.server.observers.append(note)
    await bench.until(
        "half a minute",
        lambda: seen["HEAD", bench.ledger_path] >= LEASE_READS,
        seen=lambda: dict(seen),
    )
    reads = {key: count for key, count in seen.items() if key[0] == "GET"}
    assert sum(count for (_, path), count in reads.items() if path == bench.ledger_path) == 0
    assert not [path for _, path in seen if ".vms/" in path]
