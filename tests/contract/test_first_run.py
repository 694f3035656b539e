"""`lb-drain init` against the simulated Azure: what it finds, what it writes, and when nothing."""

import asyncio
import os
import pty
import socket
import sys
from pathlib import Path

import pytest

from controller.config import load
from controller.core.model import PoolKind
from controller.errors import ConfigError, NotFound
from controller.first_run.discover import Found, discover
from controller.simulator.access import LEAST_PRIVILEGE
from controller.simulator.fleet import CONTAINER
from controller.simulator.wire import Service

from .conftest import OpenBench
from .in_process import Bench

GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg"


def short(found: Found) -> dict[str, tuple[PoolKind, int, int]]:
    return {
        pool.pool_id.rsplit("/", 1)[-1]: (pool.kind, pool.ours, pool.others) for pool in found.pools
    }


async def look(bench: Bench, vm: str = "web-1") -> Found:
    settings = bench.settings(bench.config(vm))
    return await discover(settings, environ={}, clock=bench.clock)


def environment(bench: Bench, **more: str) -> dict[str, str]:
    """Return an environment that says where the simulated Azure is."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "NO_PROXY": "*",
        "LB_DRAIN_AZURE_RESOURCE_MANAGER_ENDPOINT": bench.server.arm_url,
        "LB_DRAIN_AZURE_IMDS_ENDPOINT": bench.server.imds_url("web-1"),
        "LB_DRAIN_AZURE_CA_FILE": str(bench.server.ca_file),
        **more,
    }


async def init(
    bench: Bench, *arguments: str, typed: str | None = None, **more: str
) -> tuple[int, str, str]:
    """Run `lb-drain init`, at a terminal if something is typed; return code, stdout and stderr."""
    ours, theirs = pty.openpty() if typed is not None else (-1, asyncio.subprocess.DEVNULL)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "controller",
            "init",
            *arguments,
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(bench, **more),
        )
        if typed is not None:
            os.write(ours, typed.encode())
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        for each in {ours, theirs} if typed is not None else ():
            os.close(each)
    return process.returncode or 0, out.decode(), err.decode()


# --- what it finds -------------------------------------------------------------------------------


async def test_pools_of_both_kinds_are_found(open_set: OpenBench) -> None:
    """Every pool with a VM of the set in it is found, from any of its VMs, and who is in it."""
    async with open_set(ip_pools=("cache",), foreign_vms=1) as bench:
        bench.world.remove_membership(bench.world.pool_id("app"), "web-2-nic")
        for vm in ("web-1", "web-2"):
            found = await look(bench, vm)
            assert short(found) == {
                "app": (PoolKind.NIC, 2, 1),
                "cache": (PoolKind.ADDRESS, 3, 1),
            }
            assert (found.vm, found.vms, found.at_once, found.unlisted) == (vm, 3, 1, ())
        assert bench.writes() == []


async def test_pools_without_a_vm_of_the_set_are_not_ours(open_set: OpenBench) -> None:
    """A pool in which nobody of the set is, is not proposed."""
    async with open_set(pools=("app", "other")) as bench:
        for vm in ("web-1", "web-2", "web-3"):
            bench.world.remove_membership(bench.world.pool_id("other"), f"{vm}-nic")
        assert list(short(await look(bench))) == ["app"]


async def test_maintenance_takes_an_update_domain_at_once(open_set: OpenBench) -> None:
    """Where a set has more VMs than update domains the proposed floor leaves room for them."""
    async with open_set(vms=6) as bench:
        found = await look(bench)
        assert found.at_once == 2
        assert [pool.floor(found.at_once) for pool in found.pools] == [4]


async def test_what_may_not_be_listed_is_told(open_set: OpenBench) -> None:
    """Without the right to list load balancers those that NICs name are found, and that is said."""
    async with open_set() as bench:
        action = "Microsoft.Network/loadBalancers/read"
        lb = bench.world.load_balancer_of(bench.world.pool_id("app"))
        assert lb is not None
        bench.world.roles.assignments.clear()
        bench.world.roles.assign("web-1", LEAST_PRIVILEGE - {action}, GROUP)
        bench.world.roles.assign("web-1", {action}, lb["id"])
        found = await look(bench)
        assert list(short(found)) == ["app"]
        (told,) = found.unlisted
        assert f"lacks {action} on {GROUP}" in told


async def test_a_vm_of_another_cloud_is_told_how_to_say_so(bench: Bench) -> None:
    """Where the metadata service names another cloud than the settings nothing else is asked."""
    body = (
        '{"compute":{"name":"web-1","subscriptionId":"s","resourceGroupName":"g",'
        '"azEnvironment":"AzureUSGovernmentCloud"}}'
    )
    bench.fault(Service.IMDS, path_contains="metadata/instance", status=200, body=body)
    with pytest.raises(ConfigError, match="LB_DRAIN_AZURE_CLOUD=AzureUSGovernment "):
        await look(bench)


async def test_a_load_balancer_that_went_meanwhile_is_left_out(bench: Bench) -> None:
    """One that was listed and is gone is nothing; one that a NIC names must be there."""
    lb = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert lb is not None
    path = lb["id"].rsplit("/", 1)[-1]
    bench.fault(Service.ARM, path_contains=f"loadBalancers/{path}", status=404)
    with pytest.raises(NotFound):
        await look(bench)
    for vm in ("web-1", "web-2", "web-3"):
        bench.world.remove_membership(bench.world.pool_id("app"), f"{vm}-nic")
    assert short(await look(bench)) == {}


# --- the command ---------------------------------------------------------------------------------


async def test_a_first_run_ends_with_a_file_that_works(bench: Bench, tmp_path: Path) -> None:
    """With the container named, one command writes what an agent loads and leads with."""
    path, url = tmp_path / "etc" / "config.toml", bench.server.container_url(CONTAINER)
    code, out, err = await init(bench, "--config", str(path), "--container-url", url)
    assert code == 0, err
    loaded = load(path, {})
    assert loaded.settings.backend_pools[0].id == bench.world.pool_id("app")
    assert loaded.settings.backend_pools[0].min_in_service == 2
    assert loaded.settings.election.container_url == url
    assert loaded.settings.azure.imds_endpoint == bench.server.imds_url("web-1")
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path.parent.iterdir()] == ["config.toml"]
    assert f"lb-drain doctor --config {path}" in out
    assert f"--name {CONTAINER} --auth-mode login" in out
    (row,) = [line.split() for line in out.splitlines() if "web-lb/app" in line]
    assert row == ["web-lb/app", "NIC-based", "3", "0", "2"]

    before = path.read_bytes()
    code, out, err = await init(bench, "--config", str(path), "--container-url", url)
    assert (code, out) == (1, "")
    assert "--force" in err
    assert path.read_bytes() == before
    path.write_text("# by hand\n")
    code, _, err = await init(bench, "--config", str(path), "--container-url", url, "--force")
    assert code == 0, err
    assert path.read_bytes() == before
    assert (tmp_path / "etc" / "config.toml.before").read_text() == "# by hand\n"


async def test_a_person_is_asked_for_the_container(bench: Bench, tmp_path: Path) -> None:
    """At a terminal the container is asked for, until the answer is one, with one proposed."""
    path = tmp_path / "config.toml"
    code, out, err = await init(bench, "--config", str(path), typed="lb-drain\n\n\n")
    assert code == 0, err
    assert "that is not a URL" in out
    proposed = load(path, {}).settings.election.container_url
    assert f"[{proposed}]" in out
    assert proposed.endswith(".blob.core.windows.net/lb-drain")
    path.unlink()
    code, out, err = await init(bench, "--config", str(path), typed="\nn\n")
    assert code == 1
    assert "nothing was written" in err
    assert not path.exists()


async def test_where_nobody_can_be_asked_the_flag_is_named(bench: Bench, tmp_path: Path) -> None:
    """Without a terminal, or with --yes at one, a container that was not said is an error."""
    path = tmp_path / "config.toml"
    for arguments, typed in (((), None), (("--yes",), "\n\n")):
        code, out, err = await init(bench, "--config", str(path), *arguments, typed=typed)
        assert (code, out) == (2, "")
        assert "--container-url is needed" in err
        assert not path.exists()


async def test_what_is_said_need_not_be_asked(bench: Bench, tmp_path: Path) -> None:
    """With pools and container named Azure is not asked; settings of the environment are kept."""
    bench.world.roles.revoke("web-1", "Microsoft.Compute/virtualMachines/read")
    path, url = tmp_path / "config.toml", bench.server.container_url(CONTAINER)
    pools = [bench.world.pool_id("app"), bench.world.pool_id("app").replace("/app", "/other")]
    arguments = ("--config", str(path), "--pool", *pools)
    more = {"LB_DRAIN_ELECTION_CONTAINER_URL": url, "LB_DRAIN_POLICY_DRY_RUN": "true"}
    asked = dict(bench.world.request_counts)
    code, _, err = await init(bench, *arguments, **more)
    assert code == 0, err
    assert dict(bench.world.request_counts) == asked
    settings = load(path, {}).settings
    assert [pool.id for pool in settings.backend_pools] == pools
    assert settings.policy.dry_run
    assert settings.election.container_url == url


async def test_a_missing_right_is_named_and_nothing_written(bench: Bench, tmp_path: Path) -> None:
    """What the identity lacks is told with action and scope, in one line, and no file appears."""
    action = "Microsoft.Network/networkInterfaces/read"
    bench.world.roles.revoke("web-1", action)
    path, url = tmp_path / "config.toml", bench.server.container_url(CONTAINER)
    code, out, err = await init(bench, "--config", str(path), "--container-url", url)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert f"lacks {action} on {GROUP}" in line
    assert "Nothing was written" in line
    assert not path.exists()


async def test_a_set_without_pools_is_told(bench: Bench, tmp_path: Path) -> None:
    """Where no VM is in any pool, or only in what is not managed, nothing is written."""
    path, url = tmp_path / "config.toml", bench.server.container_url(CONTAINER)
    arguments = ("--config", str(path), "--container-url", url)
    lb = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert lb is not None
    lb["sku"] = {"name": "Basic", "tier": "Regional"}
    code, out, err = await init(bench, *arguments)
    assert (code, "left out: Basic" in out) == (1, True)
    assert "--pool" in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--pool", "app"), "argument --pool: is not the id of a load balancer backend pool"),
        (("--container-url", "http://a/b"), "argument --container-url: must start with https://"),
        (
            ("--container-url", "https://a.blob.core.windows.net/b?sig=s3cret"),
            "a SAS token is neither needed nor wanted",
        ),
    ],
)
async def test_a_flag_that_no_agent_would_take_is_refused(
    bench: Bench, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    """Flags are held to what the configuration holds them to, and no secret is repeated."""
    code, _, err = await init(bench, "--config", str(tmp_path / "config.toml"), *arguments)
    assert code == 2
    assert told in err
    assert "s3cret" not in err


async def test_a_place_that_cannot_be_written_is_told_first(bench: Bench, tmp_path: Path) -> None:
    """A file below a file cannot be, and that is said before anything is asked."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "config.toml"
    code, out, err = await init(
        bench, "--config", str(path), "--container-url", bench.server.container_url(CONTAINER)
    )
    assert (code, out) == (1, "")
    assert "cannot be written" in err


async def test_where_nobody_answers_the_setting_is_named(bench: Bench, tmp_path: Path) -> None:
    """An address that is not Azure's is told with the variable that it came from."""
    path, url = tmp_path / "config.toml", bench.server.container_url(CONTAINER)
    variable = "LB_DRAIN_AZURE_IMDS_ENDPOINT"
    with socket.socket() as deaf:  # bound, and never listening
        deaf.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        arguments = ("--config", str(path), "--container-url", url)
        code, out, err = await init(bench, *arguments, **{variable: nobody})
    assert (code, out) == (1, "")
    assert f"No answer from {nobody}, which is azure.imds_endpoint (environment {variable})" in err
    assert not path.exists()
