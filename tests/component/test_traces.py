"""Traces of real agents, sent by the real SDK, to an OTLP receiver on loopback."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from controller.observability.drain_traces import Traces
from tests.support.in_process_set import NEVER_S, InProcessSet
from tests.support.patience import PATIENCE_S, wait_for
from tests.support.receivers import CANARY

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORT_S = 60
"""How long an export waits for its reply."""
NAMES = ["drain", "connection drain", "acknowledged", "maintenance", "restore", "drain episode"]


class Collector:
    """Receives spans, as a collector would."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.requests = 0
        self.status = 200
        self.hanging = asyncio.Event()
        self.hanging.set()
        self._more = asyncio.Condition()
        self.environ: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """Take one batch."""
        body = await request.read()
        self.requests += 1
        async with self._more:
            self._more.notify_all()
        await self.hanging.wait()
        if self.status == 200:
            message = ExportTraceServiceRequest.FromString(body)
            for resource in message.resource_spans:
                self.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        async with self._more:
            self._more.notify_all()
        return web.Response(status=self.status)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds after a request."""
        await wait_for(self._more, "the request", holds, seen=lambda: (self.requests, self.names()))

    def names(self) -> list[str]:
        """Return the names of all spans, in the order in which they came."""
        return [span.name for span in self.spans]


def in_service(bench: InProcessSet) -> bool:
    """Return whether the maintenance of web-2 is over."""
    return bool(bench.logged("web-2: in service"))


def attributes(holder: Any) -> dict[str, Any]:
    """Return attributes as Python values."""
    found: dict[str, Any] = {}
    for each in holder.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        many = kind == "array_value"
        found[each.key] = [item.string_value for item in value.values] if many else value
    return found


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector, and an environment that names it; the SDK reads that of the process."""
    receiver = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.environ = {
        VARIABLE: f"http://127.0.0.1:{runner.addresses[0][1]}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TIMEOUT": str(EXPORT_S),
        "no_proxy": "127.0.0.1",
    }
    for name, value in receiver.environ.items():
        monkeypatch.setenv(name, value)
    yield receiver
    receiver.hanging.set()
    for thread in threading.enumerate():
        if (
            thread.name == "traces"
        ):  # an agent that has ended did not wait for it, the next test does
            await asyncio.to_thread(thread.join, PATIENCE_S)
    await runner.cleanup()


async def test_a_maintenance_is_one_trace(bench: InProcessSet, collector: Collector) -> None:
    """Every span of it arrives, in one trace, within the drain episode and one after the other."""
    await bench.lead(environ=collector.environ)
    event = await bench.announce("web-2")
    await collector.until(lambda: sorted(collector.names()) == sorted(NAMES))
    await bench.until("in service", lambda: not bench.ledger()["entries"])
    spans = {span.name: span for span in collector.spans}
    episode = spans["drain episode"]
    inside = [spans[name] for name in NAMES[:-1]]
    assert {span.trace_id for span in collector.spans} == {episode.trace_id}
    assert {span.parent_span_id for span in inside} == {episode.span_id}
    assert episode.parent_span_id == b""
    begin = episode.start_time_unix_nano
    for span in inside:
        assert begin <= span.start_time_unix_nano <= span.end_time_unix_nano
        begin = span.end_time_unix_nano
    assert begin <= episode.end_time_unix_nano
    values = attributes(spans["drain"])
    assert values["lb_drain.vm"] == "web-2"
    assert values["lb_drain.event.id"] == event
    assert values["lb_drain.event.type"] == "Reboot"
    assert values["lb_drain.leader"] == "web-1"
    assert values["lb_drain.epoch"] == 1
    assert values["lb_drain.lead_time_s"] > 500
    assert values["lb_drain.pools"] == ["app"]
    assert collector.resources[0]["service.name"] == "lb-drain"


async def test_leader_and_successor_tell_one_trace(
    bench: InProcessSet, collector: Collector
) -> None:
    """What the first leader saw and what its successor saw joins, also when the first has gone."""
    first = await bench.lead("web-1", environ=collector.environ)
    event = await bench.announce("web-2", started_s=NEVER_S)
    await collector.until(lambda: "connection drain" in collector.names())
    bench.start("web-3", environ=collector.environ)
    await bench.stop(first)
    await bench.until("web-3 leads", lambda: bench.ledger()["leader"] == "web-3")
    bench.world.events.complete(event)
    await bench.server.notify()
    await collector.until(lambda: {"restore", "drain episode"} <= set(collector.names()))
    assert len({span.trace_id for span in collector.spans}) == 1
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)
    leaders = {span.name: attributes(span)["lb_drain.leader"] for span in collector.spans}
    assert leaders["drain"] == leaders["connection drain"] == "web-1"
    assert leaders["restore"] == leaders["drain episode"] == "web-3"


async def test_what_is_left_is_sent_at_the_end(
    bench: InProcessSet, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is stopped sends the spans that no batch has taken yet."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    agent = await bench.lead(environ=collector.environ)
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("out", lambda: bench.logged("web-2: out"))
    assert collector.spans == []
    await bench.stop(agent)
    await collector.until(lambda: "drain" in collector.names())


async def test_a_collector_that_hangs_delays_nothing(
    bench: InProcessSet, collector: Collector
) -> None:
    """VMs are drained and back, and a stop does not wait for the reply of the collector."""
    collector.hanging.clear()
    agent = await bench.lead(environ=collector.environ)
    await bench.announce("web-2")
    await bench.until("back", lambda: in_service(bench))
    await collector.until(lambda: collector.requests)
    assert collector.spans == []
    began = time.monotonic()
    await bench.stop(agent)
    assert time.monotonic() - began < EXPORT_S / 2


async def test_a_failure_is_told_once(bench: InProcessSet, collector: Collector) -> None:
    """A collector that refuses is one warning, however often it does, and one line when it ends."""
    collector.status = 400
    await bench.lead(environ=collector.environ)
    await bench.announce("web-2")
    await bench.until("back", lambda: in_service(bench))
    await collector.until(lambda: collector.requests >= 3)
    assert len(bench.logged("traces cannot be sent")) == 1
    assert collector.spans == []
    collector.status = 200
    await bench.announce("web-3")
    await collector.until(lambda: "drain episode" in collector.names())
    # The reply to what the collector has received is still on its way.
    await bench.until("sent again", lambda: bench.logged("traces can be sent again"))
    assert len(bench.logged("traces cannot be sent")) == 1
    assert len(bench.logged("traces can be sent again")) == 1


async def test_without_the_extra(
    bench: InProcessSet, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that cannot send traces logs that once, and does its work."""
    monkeypatch.setitem(sys.modules, "controller.observability.otlp_exporter", None)
    await bench.lead(environ=collector.environ)
    await bench.announce("web-2")
    await bench.until("back", lambda: in_service(bench))
    assert len(bench.logged("OpenTelemetry is not installed", "WARNING")) == 1
    assert collector.requests == 0


async def test_settings_that_cannot_be_kept(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A number that the SDK refuses, or an unsupported protocol, is logged and ends nothing."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    async with Traces(collector.environ):
        assert "OpenTelemetry cannot be set up" in caplog.text
    async with Traces(collector.environ | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}):
        assert "only the protocol http/protobuf is supported, not grpc" in caplog.text


async def test_a_header_that_cannot_be_read_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A colon for an equals sign: the SDK logs the whole header, with the key of a collector."""
    environ = {VARIABLE: "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": f"x-key: {CANARY}"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    async with Traces(environ):
        pass
    assert CANARY not in caplog.text
    assert "check the variables OTEL_" in caplog.text


def test_who_does_not_want_it_does_not_pay() -> None:
    """Without an endpoint, or when it is switched off, nothing of OpenTelemetry is imported."""
    program = """
import asyncio, sys
import controller.agent.agent
from controller.observability.drain_traces import Traces

async def main():
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    off = ({"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"})
    for environ in ({}, *(endpoint | each for each in off)):
        async with Traces(environ):
            pass
    print([name for name in sys.modules if name.startswith("opentelemetry")])

asyncio.run(main())
"""
    command = [sys.executable, "-c", program]
    values = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert values.stdout == "[]\n"
