"""Rules and dashboard in a real Prometheus that scrapes a real agent's server, over loopback."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller.status.overview_schema import Overview
from controller.status.server import StatusServer
from tests.deploy.monitoring.exposed import DASHBOARD, RULES, BusyLeader, queries
from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

SCRAPES = 5
"""After so many a rate is known and every rule was evaluated."""
VARIABLES = {
    "$job": "lb-drain-web",
    "$fleet": "lb-drain-web",
    "$__range": "1m",
    "$__rate_interval": "1m",
}
VARIABLES |= {"$__interval": "1m"}


class Scraped:
    """A busy leader that counts its scrapes."""

    def __init__(self) -> None:
        self._leader = BusyLeader()
        self._scrapes = 0
        self.enough = asyncio.Event()

    def health(self) -> tuple[bool, str]:
        return True, ""

    def ready(self) -> tuple[bool, str]:
        return True, ""

    def status(self) -> dict[str, object]:
        return {}

    def overview(self) -> Overview:
        raise NotImplementedError

    async def refresh(self) -> None:
        pass

    def metrics(self) -> bytes:
        self._scrapes += 1
        if self._scrapes == SCRAPES:
            self.enough.set()
        return self._leader.metrics()


@pytest.fixture
async def prometheus(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A Prometheus with our rules that has scraped a leader a few times."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    scraped = Scraped()
    async with StatusServer("127.0.0.1:0", scraped) as server:
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": VARIABLES["$job"],
                    "static_configs": [{"targets": [server.url.removeprefix("http://")]}],
                }
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML too
        listen = f"127.0.0.1:{free_port()}"
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={listen}",
            "--log.level=error",
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scraped.enough.wait()
            async with aiohttp.ClientSession(f"http://{listen}") as client:
                yield client
        finally:
            process.terminate()
            await process.wait()


async def ask(client: aiohttp.ClientSession, path: str, **parameters: str) -> dict[str, Any]:
    """Return the data of an answer, or the error as the failure of the test."""
    async with client.get(f"/api/v1/{path}", params=parameters) as reply:
        answer = await reply.json()
    assert answer["status"] == "success", (parameters, answer)
    return answer["data"]


async def test_a_real_prometheus_answers_every_query(prometheus: aiohttp.ClientSession) -> None:
    """All queries of the dashboard find something when there is something, and the rules work."""
    expressions = []
    for query in queries(json.loads(DASHBOARD.read_text())):
        expression = query
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        assert "$" not in expression, query
        expressions.append(expression)
    async for wrong in looks():
        for expression in expressions:
            if not (await ask(prometheus, "query", query=expression))["result"]:
                wrong.append(f"empty: {expression}")
        groups = (await ask(prometheus, "rules"))["groups"]
        rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
        wrong += [f"not ok: {rule}" for rule in rules.values() if rule["health"] != "ok"]
        if rules["LbDrainAtRisk"]["state"] != "firing":
            wrong.append("LbDrainAtRisk does not fire")


async def looks() -> AsyncIterator[list[str]]:
    """Yield lists for what is wrong until one stays empty: rules are evaluated once a second."""
    began = time.monotonic()
    while True:
        wrong: list[str] = []
        yield wrong
        if not wrong:
            return
        assert time.monotonic() - began < PATIENCE_S, wrong
        await asyncio.sleep(1)
