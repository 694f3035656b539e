"""`lb-drain test drain` with a real leader: what it does, and how it ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from controller.errors import NotDone
from controller.operator.drain_rehearsal import DrainRehearsal
from tests.component.conftest import OpenClient
from tests.support.in_process_set import InProcessSet
from tests.support.patience import PATIENCE_S
from tests.support.receivers import Hook, open_hook


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A receiver of notifications."""
    async with open_hook() as opened:
        yield opened


async def test_a_test_drain_counts_as_one_everywhere(
    bench: InProcessSet, clients: OpenClient, hook: Hook
) -> None:
    """The VM is out and back, nothing is acknowledged, and every output shows a test."""
    agent = await bench.lead("web-1", channels=(f'kind = "webhook"\nurl = "{hook.url}"\n',))
    async with clients() as client:
        async with asyncio.timeout(PATIENCE_S):
            times = await DrainRehearsal(client, for_s=600).run("WEB-2")
    assert [each.name for each in times.steps] == [
        "recorded",
        "removed",
        "out",
        "withdrawn",
        "restored",
        "ready",
    ]
    assert bench.inside("web-2") != []
    lines = {line["what"]: line["detail"] for line in bench.ledger()["transitions"]}
    assert lines["requested"].startswith("TEST, by ")
    assert "acknowledged" not in lines
    metrics = agent.live_status.metrics().decode()
    assert 'lbdrain_drains_total{outcome="requested",type="Test"} 1.0' in metrics
    assert 'lbdrain_drains_total{outcome="requested",type="Request"} 0.0' in metrics
    await hook.until(lambda: len(hook.bodies) == 2)
    assert [body["text"].split(" is ")[0] for body in hook.bodies] == ["TEST: web-2"] * 2


async def test_an_interrupted_test_restores(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """^C while the floor holds the VM, or while it is out: the request ends, and the VM is back."""
    await bench.lead("web-1")
    async with clients() as client:
        run = asyncio.create_task(DrainRehearsal(client, for_s=600).run("web-2"))
        await bench.until("web-2 is out", lambda: bench.inside("web-2") == [])
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert not client.requests.requests.active(client.now())
        async with asyncio.timeout(PATIENCE_S):
            await client.wait_until_in_service("web-2")
    assert bench.inside("web-2") != []
    assert "The test is withdrawn; what is out is restored: web-2." in reported


async def test_a_vm_that_is_drained_already_is_refused(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """The drain of another operator is not disturbed, and no request is left behind."""
    await bench.lead("web-1")
    async with clients() as client:
        request = await client.drain("web-2", for_s=600, reason="")
        await client.wait_until_drained(request)
        with pytest.raises(NotDone, match="drained or restored already"):
            await DrainRehearsal(client, for_s=600).run("web-2")
        assert [each.request_id for each in client.requests.requests.active(client.now())] == [
            request.request_id
        ]
