"""What an agent finds out before it takes part: its pools, against the simulated Azure."""

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller import errors
from controller.agent.start_reads import StartReads
from controller.agent.startup import check_pools
from controller.agent.tuning import Tuning
from controller.azure.http.session import open_azure
from controller.clock import SystemClock
from controller.config.schema import Settings
from controller.core.azure_names import load_balancer_of
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from controller.vm_side.flag import Flag
from controller.vm_side.machine import LocalMachine
from tests.support.in_process_set import QUICK as QUICK_TABLES
from tests.support.in_process_set import InProcessSet

QUICK = Tuning(pool_check_retry_s=0.01)


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
    tmp_path: Path,
) -> None:
    """H1: a pool that is not found is looked for again, and nothing else."""
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
            assert await check_pools(azure, settings, tuning=QUICK) == (missing,)
    assert (asked.count("web-lb"), asked.count("web-internal")) == (1, 3)


def refuse(server: SimulatorServer, path: str, *, wait_s: int) -> None:
    """Let Azure refuse every request whose path contains this, and ask to wait."""
    server.faults.add(
        Fault(
            service=Service.ARM,
            path_contains=path,
            effect=Effect.REPLY,
            status=429,
            headers=(("Retry-After", str(wait_s)),),
        )
    )


async def test_a_start_reads_a_refused_load_balancer_from_the_list(tmp_path: Path) -> None:
    """K4: another kind of request has a limit of its own."""
    world = build_world(now=time.time())
    async with SimulatorServer(world, tmp_path / "pki") as server:
        settings = settings_for(server, world.pool_id("app"), f"{world.pool_id('app')}-not")
        refuse(server, "/loadBalancers/web-lb", wait_s=1200)
        async with open_azure(settings, SystemClock(), {}) as azure:
            assert await check_pools(azure, settings, tuning=QUICK) == (
                f"{world.pool_id('app')}-not",
            )


async def test_load_balancers_that_ask_for_patience_are_left_alone_each_for_its_time(
    tmp_path: Path,
) -> None:
    """H1: however often a start is attempted, what Azure asked to leave alone is not asked."""
    world = build_world(now=time.time(), ip_pools=("cache",))
    async with SimulatorServer(world, tmp_path / "pki") as server:
        settings = settings_for(server, *(world.pool_id(pool) for pool in ("app", "cache")))
        refuse(server, "/loadBalancers", wait_s=1200)
        asked: list[str] = []
        server.observers.append(lambda request, _: asked.append(request.path.rsplit("/", 1)[-1]))
        async with open_azure(settings, SystemClock(), {}) as azure:
            reads = StartReads(azure)
            for _ in range(3):
                reads.attempt()
                with pytest.raises(errors.Throttled) as caught:
                    await check_pools(azure, settings, reads=reads)
    assert sorted(each for each in asked if each != "token") == [
        "loadBalancers",
        "web-internal",
        "web-lb",
    ]
    assert 1100 < (errors.retry_after_of(caught.value) or 0) <= 1201


@pytest.mark.parametrize(
    "refused",
    [
        ("/virtualMachines/web-1",),
        ("/availabilitySets/web",),
        ("/virtualMachines/web-1", "/availabilitySets/web"),
        ("/loadBalancers/web-lb",),
    ],
)
async def test_no_single_refusal_keeps_an_agent_from_starting(
    bench: InProcessSet, refused: tuple[str, ...]
) -> None:
    """K1, K4: the set is found in the list of sets, the load balancer in its list.

    The agent goes on to leave alone what Azure refused during the start.
    """
    asked: list[str] = []
    for path in refused:
        bench.fault(Service.ARM, path_contains=path, status=429, headers=(("Retry-After", "1200"),))
    bench.server.observers.append(lambda request, _: asked.append(request.path))
    await bench.lead("web-1")
    await bench.announce("web-2")
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))
    for path in refused:
        assert len([each for each in asked if each.endswith(path)]) <= 1


async def test_a_start_that_fails_late_asks_nothing_twice(bench: InProcessSet) -> None:
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


async def test_clients_that_begin_together_request_one_token(tmp_path: Path) -> None:
    """The metadata service throttles at 5 requests a second, those for tokens included."""
    world = build_world(now=time.time(), vms=3)
    async with SimulatorServer(world, tmp_path / "pki") as server:
        settings = settings_for(server, world.pool_id("app"))
        asked: list[str] = []
        server.observers.append(lambda request, _: asked.append(request.path))
        async with open_azure(settings, SystemClock(), {}) as azure:
            await asyncio.gather(
                azure.network.load_balancer(load_balancer_of(world.pool_id("app"))),
                azure.compute.set_vms(world.availability_set_id),
                azure.topology.principal_id(),
                azure.network.nic(world.vm("web-1").nic_ids[0]),
            )
    assert len([path for path in asked if path.endswith("/token")]) == 1


async def test_an_agent_that_cannot_start_opens_the_vm_that_its_last_run_has_closed(
    bench: InProcessSet, tmp_path: Path
) -> None:
    """S9: nothing renews the flag file while Resource Manager does not answer."""
    flag_file = tmp_path / "draining"
    overrides: dict[str, Any] = {
        "policy": {**QUICK_TABLES["policy"], "close": True},
        "drain": {"flag_file": str(flag_file), "open_after_s": 60},
    }
    machine = LocalMachine(bench.settings(bench.config("web-1", overrides)))
    now = datetime.now(UTC)
    flag = Flag(
        since=now, event_type="Reboot", not_before=None, drain=now, boot_id=machine.boot_id,
        renewed_at=now,
    )  # fmt: skip
    assert machine.set_flag(flag) == ""
    hour_ago = time.time() - 3600
    os.utime(flag_file, (hour_ago, hour_ago))
    bench.fault(Service.ARM, status=503)
    bench.start("web-1", overrides=overrides)
    await bench.until("web-1 is open", lambda: not flag_file.exists())
