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


@pytest.mark.parametrize("patient", ["web-internal", "web-lb"])
async def test_of_two_load_balancers_the_one_that_asks_for_patience_is_heard(
    tmp_path: Path, patient: str
) -> None:
    """H1: a start that fails for several reasons waits as long as any of them asks for."""
    world = build_world(now=time.time(), ip_pools=("cache",))
    async with SimulatorServer(world, tmp_path / "pki") as server:
        settings = Settings.model_validate(
            {
                "backend_pools": [{"id": world.pool_id(pool)} for pool in ("app", "cache")],
                "election": {"container_url": server.container_url("lb-drain")},
                "azure": {
                    "resource_manager_endpoint": server.arm_url,
                    "imds_endpoint": server.imds_url("web-1"),
                    "ca_file": str(server.ca_file),
                },
            }
        )
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
