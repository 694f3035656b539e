"""What an agent finds out before it takes part: its pools, against the simulated Azure."""

import time
from pathlib import Path

import pytest

from controller import errors
from controller.azure.session import open_azure
from controller.clock import SystemClock
from controller.home import check_pools
from controller.settings import Settings
from controller.simulator.faults import Effect, Fault
from controller.simulator.server import SimulatorServer
from controller.simulator.wire import Service
from controller.simulator.world import build_world

from .in_process import Bench


def settings_for(server: SimulatorServer, *pool_ids: str) -> Settings:
    """Return the settings of web-1, with these pools."""
    return Settings.model_validate(
        {
            "backend_pools": [{"id": pool_id} for pool_id in pool_ids],
            "election": {"container_url": server.container_url("lb-drain")},
            "azure": {
                "resource_manager_endpoint": server.arm_url,
                "imds_endpoint": server.imds_url("web-1"),
                "ca_file": str(server.ca_file),
            },
        }
    )


async def test_a_load_balancer_that_asks_for_patience_is_not_asked_because_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H1: a pool that is not found is looked for again, and nothing else."""
    monkeypatch.setattr("controller.home.ASK_AGAIN_S", 0.01)
    world = build_world(now=time.time(), ip_pools=("cache",))
    async with SimulatorServer(world, tmp_path / "pki") as server:
        missing = f"{world.pool_id('cache')}-not"
        settings = settings_for(server, world.pool_id("app"), missing)
        server.faults.add(
            Fault(
                service=Service.ARM,
                path_contains="/loadBalancers/web-lb",
                effect=Effect.REPLY,
                status=429,
                headers=(("Retry-After", "9"),),
            )
        )
        asked: list[str] = []
        server.observers.append(lambda request, _: asked.append(request.path.rsplit("/", 1)[-1]))
        async with open_azure(settings, SystemClock(), {}) as azure:
            assert await check_pools(azure, settings) == (missing,)
    assert (asked.count("web-lb"), asked.count("web-internal")) == (1, 3)


@pytest.mark.parametrize("patient", ["web-internal", "web-lb"])
async def test_of_two_load_balancers_the_one_that_asks_for_patience_is_heard(
    tmp_path: Path, patient: str
) -> None:
    """H1: a start that fails for several reasons waits as long as any of them asks for."""
    world = build_world(now=time.time(), ip_pools=("cache",))
    async with SimulatorServer(world, tmp_path / "pki") as server:
        settings = settings_for(server, *(world.pool_id(pool) for pool in ("app", "cache")))
        for name in ("web-internal", "web-lb"):
            waits = name == patient
            server.faults.add(
                Fault(
                    service=Service.ARM,
                    path_contains=f"/loadBalancers/{name}",
                    effect=Effect.REPLY,
                    status=429 if waits else 503,
                    headers=(("Retry-After", "9"),) if waits else (),
                )
            )
        async with open_azure(settings, SystemClock(), {}) as azure:
            with pytest.raises(errors.Throttled) as caught:
                await check_pools(azure, settings)
    assert errors.told_s(caught.value) == 9


async def test_a_start_that_fails_late_asks_nothing_twice(bench: Bench) -> None:
    """H1: who answered, or asked for patience meanwhile, is not asked because storage is away."""
    asked: list[str] = []
    bench.server.observers.append(
        lambda request, _: asked.append(
            f"{request.service.value} {request.path.rsplit('/', 1)[-1]}"
        )
    )
    bench.fault(Service.BLOB, method="HEAD", status=503, times=3)
    await bench.lead("web-1")
    before = asked[: asked.index("imds scheduledevents")]
    assert before.count("blob web.json") >= 3
    assert (before.count("arm web-lb"), before.count("arm web")) == (1, 1)
