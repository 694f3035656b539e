"""What the probe responder answers and needs: `lb-drain probe` under 1,000 requests per second."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from controller.probe.settings import ProbeSettings
from tests.benchmarks.figures import NOT_DONE, Figure
from tests.benchmarks.footprint import cpu_s, resident_mb
from tests.support.ports import free_port

GROUP = "responder"
PER_S = 1000
AT_ONCE = 200
"""Connections at once; a machine that stands still must not send them all together."""
SECONDS = 10
INTERVAL_S = 5.0
"""The shortest interval of Azure's probes."""
REQUEST = b"GET / HTTP/1.1\r\nHost: vm\r\n\r\n"


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Probe one responder on one core, closed and open, on a new connection for each request."""
    latencies: list[float] = []
    rates: list[float] = []
    resident: list[float] = []
    busy: list[float] = []
    for number in range(max(1, runs // 2)):
        flag = directory / f"draining-{number}"
        flag.write_text('{"event_type": "Reboot"}')
        port = free_port()
        process = await _start(port, flag)
        try:
            used = cpu_s(process.pid)
            begun = time.monotonic()
            latencies += await _load(port)
            took_s = time.monotonic() - begun
            rates.append(PER_S * SECONDS / took_s)
            busy.append(100 * (cpu_s(process.pid) - used) / took_s)
            resident.append(resident_mb(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
    latencies.sort()
    longest = Figure(
        group=GROUP,
        name="answer to a probe (worst)",
        samples=[latencies[-1]],
        unit="s",
        target=INTERVAL_S,
        note=f"{len(latencies)} probes, each on a connection of its own; "
        f"99th percentile {1000 * latencies[int(0.99 * len(latencies))]:.0f} ms",
    )
    return [
        longest,
        Figure(group=GROUP, name="probes answered per second", samples=rates, unit="/s"),
        Figure(
            group=GROUP,
            name="probe responder, processor at that rate",
            samples=busy,
            unit="%",
            target=100,
            note="of one core",
        ),
        Figure(
            group=GROUP,
            name="probe responder, resident memory",
            samples=resident,
            unit="MB",
            target=30,
        ),
    ]


async def _start(port: int, flag: Path) -> asyncio.subprocess.Process:
    """Start the responder as `lb-drain probe` does, on one core, and wait until it answers."""
    settings = ProbeSettings(
        host="127.0.0.1",
        port=port,
        path="/",
        check="",
        allow=("127.0.0.0/8",),
        flag_file=str(flag),
        open_after_s=3600,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controller.probe",
        settings.to_json(),
        stdout=asyncio.subprocess.PIPE,
    )
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _load(port: int) -> list[float]:
    """Send requests at their instants, some at once at most; return how long answers took."""
    begun, limit = time.monotonic(), asyncio.Semaphore(AT_ONCE)
    probes: list[asyncio.Task[float]] = []
    for number in range(PER_S * SECONDS):
        early_s = begun + number / PER_S - time.monotonic()
        if early_s > 0:
            await asyncio.sleep(early_s)
        await limit.acquire()
        probe = asyncio.create_task(_probe(port))
        probe.add_done_callback(lambda _: limit.release())
        probes.append(probe)
    return list(await asyncio.gather(*probes))


async def _probe(port: int) -> float:
    sent = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    line = await reader.readline()
    writer.close()
    return time.monotonic() - sent if line.startswith(b"HTTP/1.1 503 ") else NOT_DONE
