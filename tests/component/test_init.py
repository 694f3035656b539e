"""`lb-drain init` against the simulated Azure: what it finds, and when it writes a file."""

import asyncio
import os
import pty
import socket
import sys
from pathlib import Path

import pytest

from controller.config.loader import load
from controller.core.resources import PoolKind
from controller.errors import ConfigError, NotFound
from controller.setup.discovery import Discovery, discover
from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.services.http_values import Service
from controller.simulator.world.access import LEAST_PRIVILEGE
from tests.conftest import OpenSet
from tests.support.in_process_set import InProcessSet
from tests.support.patience import PATIENCE_S

GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg"


def short(found: Discovery) -> dict[str, tuple[PoolKind, int, int]]:
    return {
        pool.pool_id.rsplit("/", 1)[-1]: (pool.kind, pool.peers, pool.others)
        for pool in found.pools
    }


async def run_discovery(bench: InProcessSet, vm: str = "web-1") -> Discovery:
    settings = bench.settings(bench.config(vm))
    return await discover(settings, environ={}, clock=bench.clock)


def environment(bench: InProcessSet, **more: str) -> dict[str, str]:
    """Return an environment with the endpoints of the simulated Azure."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "NO_PROXY": "*",
        "LB_DRAIN_AZURE_RESOURCE_MANAGER_ENDPOINT": bench.server.arm_url,
        "LB_DRAIN_AZURE_IMDS_ENDPOINT": bench.server.imds_url("web-1"),
        "LB_DRAIN_AZURE_CA_FILE": str(bench.server.ca_file),
        **more,
    }


async def test_a_vm_that_is_out_is_counted_and_named(bench: InProcessSet) -> None:
    """S2: the floor is that of the whole set, although a drain is in progress."""
    world, pool_id = bench.world, bench.world.pool_id("app")
    world.remove_membership(pool_id, world.vm("web-3").nic_ids[0])
    (pool,) = (await run_discovery(bench)).pools
    assert (pool.peers, pool.out, pool.floor(1)) == (2, ("web-3",), 2)


async def init(
    bench: InProcessSet, *arguments: str, typed: str | None = None, **more: str
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
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    finally:
        for each in {ours, theirs} if typed is not None else ():
            os.close(each)
    return process.returncode or 0, out.decode(), err.decode()


# --- what it finds -------------------------------------------------------------------------------


async def test_pools_of_both_kinds_are_found(open_set: OpenSet) -> None:
    """Every pool with a VM of the set is found from each VM, with its members."""
    async with open_set(ip_pools=("cache",), foreign_vms=1) as bench:
        bench.world.remove_membership(bench.world.pool_id("app"), "web-2-nic")
        for vm in ("web-1", "web-2"):
            found = await run_discovery(bench, vm)
            assert short(found) == {
                "app": (PoolKind.NIC, 2, 1),
                "cache": (PoolKind.ADDRESS, 3, 1),
            }
            assert (found.vm, found.vms, found.max_simultaneous, found.unlisted) == (vm, 3, 1, ())
        assert bench.writes() == []


async def test_pools_without_a_vm_of_the_set_are_not_ours(open_set: OpenSet) -> None:
    """A pool without a member of the set is not proposed."""
    async with open_set(pools=("app", "other")) as bench:
        for vm in ("web-1", "web-2", "web-3"):
            bench.world.remove_membership(bench.world.pool_id("other"), f"{vm}-nic")
        assert list(short(await run_discovery(bench))) == ["app"]


async def test_maintenance_takes_an_update_domain_max_simultaneous(open_set: OpenSet) -> None:
    """If a set has more VMs than update domains, the proposed floor allows for that."""
    async with open_set(vms=6) as bench:
        found = await run_discovery(bench)
        assert found.max_simultaneous == 2
        assert [pool.floor(found.max_simultaneous) for pool in found.pools] == [4]


async def test_load_balancers_that_cannot_be_listed_are_reported(open_set: OpenSet) -> None:
    """Without permission to list load balancers, those of the NICs are found, and init warns."""
    async with open_set() as bench:
        action = "Microsoft.Network/loadBalancers/read"
        lb = bench.world.load_balancer_of(bench.world.pool_id("app"))
        assert lb is not None
        bench.world.roles.assignments.clear()
        bench.world.roles.assign("web-1", LEAST_PRIVILEGE - {action}, GROUP)
        bench.world.roles.assign("web-1", {action}, lb["id"])
        found = await run_discovery(bench)
        assert list(short(found)) == ["app"]
        (reason,) = found.unlisted
        assert f"lacks {action} on {GROUP}" in reason


async def test_another_cloud_is_refused_with_the_setting_to_change(bench: InProcessSet) -> None:
    """If the instance metadata names another cloud than the settings, discovery stops."""
    body = (
        '{"compute":{"name":"web-1","subscriptionId":"s","resourceGroupName":"g",'
        '"azEnvironment":"AzureUSGovernmentCloud"}}'
    )
    bench.fault(Service.IMDS, path_contains="metadata/instance", status=200, body=body)
    with pytest.raises(ConfigError, match="LB_DRAIN_AZURE_CLOUD=AzureUSGovernment "):
        await run_discovery(bench)


async def test_a_load_balancer_that_went_meanwhile_is_left_out(bench: InProcessSet) -> None:
    """A load balancer that was only listed can be gone; one that a NIC names must exist."""
    lb = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert lb is not None
    path = lb["id"].rsplit("/", 1)[-1]
    bench.fault(Service.ARM, path_contains=f"loadBalancers/{path}", status=404)
    with pytest.raises(NotFound):
        await run_discovery(bench)
    for vm in ("web-1", "web-2", "web-3"):
        bench.world.remove_membership(bench.world.pool_id("app"), f"{vm}-nic")
    assert short(await run_discovery(bench)) == {}


# --- the command ---------------------------------------------------------------------------------


async def test_a_first_run_ends_with_a_file_that_works(bench: InProcessSet, tmp_path: Path) -> None:
    """With the container given, one command writes a file that an agent loads and leads with."""
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


async def test_init_asks_for_the_container(bench: InProcessSet, tmp_path: Path) -> None:
    """At a terminal, init proposes a container and asks until the answer is valid."""
    path = tmp_path / "config.toml"
    code, out, err = await init(bench, "--config", str(path), typed="lb-drain\n\n\n\n")
    assert code == 0, err
    assert "the answer is not a URL" in out
    proposed = load(path, {}).settings.election.container_url
    assert f"[{proposed}]" in out
    assert proposed.endswith(".blob.core.windows.net/lb-drain")
    path.unlink()
    code, out, err = await init(bench, "--config", str(path), typed="\n\nn\n")
    assert code == 1
    assert "nothing was written" in err
    assert not path.exists()


async def test_init_asks_how_the_application_takes_part(
    bench: InProcessSet, tmp_path: Path
) -> None:
    """The answers are set in commented sections; wrong ones are asked for again."""
    path = tmp_path / "config.toml"
    typed = "\n4\n3\n99999\n9811\nhttp://web/\nhttp://127.0.0.1:8080/healthz\n\n"
    code, out, err = await init(bench, "--config", str(path), typed=typed)
    assert code == 0, err
    assert "the answer is not 1, 2 or 3" in out
    settings = load(path, {}).settings
    assert settings.policy.close
    assert settings.probe.listen == "0.0.0.0:9811"
    assert settings.probe.check == "http://127.0.0.1:8080/healthz"
    text = path.read_text()
    assert '\nflag_file = "/run/lb-drain/draining"\n' in text
    assert "# [[hooks]]" in text


async def test_without_a_terminal_the_container_must_be_given(
    bench: InProcessSet, tmp_path: Path
) -> None:
    """Without a terminal, or with --yes, a missing container is an error that names the option."""
    path = tmp_path / "config.toml"
    for arguments, typed in (((), None), (("--yes",), "\n\n")):
        code, out, err = await init(bench, "--config", str(path), *arguments, typed=typed)
        assert (code, out) == (2, "")
        assert "--container-url is needed without a prompt" in err
        assert not path.exists()


async def test_given_pools_and_container_need_no_query(bench: InProcessSet, tmp_path: Path) -> None:
    """With pools and container, Azure is not queried; settings of the environment are kept."""
    bench.world.roles.revoke("web-1", "Microsoft.Compute/virtualMachines/read")
    path, url = tmp_path / "config.toml", bench.server.container_url(CONTAINER)
    pools = [bench.world.pool_id("app"), bench.world.pool_id("app").replace("/app", "/other")]
    arguments = ("--config", str(path), "--pool", *pools)
    more = {
        "LB_DRAIN_ELECTION_CONTAINER_URL": url,
        "LB_DRAIN_POLICY_DRY_RUN": "true",
        "LB_DRAIN_DRAIN_SERVICE_PORTS": "8080,8443",
    }
    asked = dict(bench.world.request_counts)
    code, _, err = await init(bench, *arguments, **more)
    assert code == 0, err
    assert dict(bench.world.request_counts) == asked
    settings = load(path, {}).settings
    assert [pool.id for pool in settings.backend_pools] == pools
    assert settings.policy.dry_run
    assert settings.drain.service_ports == (8080, 8443)
    assert settings.election.container_url == url


async def test_a_missing_right_is_named_and_nothing_written(
    bench: InProcessSet, tmp_path: Path
) -> None:
    """A missing permission is reported with action and scope in one line; no file appears."""
    action = "Microsoft.Network/networkInterfaces/read"
    bench.world.roles.revoke("web-1", action)
    path, url = tmp_path / "config.toml", bench.server.container_url(CONTAINER)
    code, out, err = await init(bench, "--config", str(path), "--container-url", url)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert f"lacks {action} on {GROUP}" in line
    assert "Nothing was written" in line
    assert not path.exists()


async def test_a_set_without_pools_is_reported(bench: InProcessSet, tmp_path: Path) -> None:
    """If no VM is in a pool that can be managed, nothing is written."""
    path, url = tmp_path / "config.toml", bench.server.container_url(CONTAINER)
    arguments = ("--config", str(path), "--container-url", url)
    lb = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert lb is not None
    lb["sku"] = {"name": "Basic", "tier": "Regional"}
    code, out, err = await init(bench, *arguments)
    assert (code, "not managed: Basic" in out) == (1, True)
    assert "--pool" in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--pool", "app"), "argument --pool: is not the id of a load balancer backend pool"),
        (("--container-url", "http://a/b"), "argument --container-url: must start with https://"),
        (
            ("--container-url", "https://a.blob.core.windows.net/b?sig=s3cret"),
            "the agent uses the managed identity of the VM, not a SAS token",
        ),
    ],
)
async def test_options_are_validated_like_the_configuration(
    bench: InProcessSet, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    """Options accept what the configuration accepts, and no error repeats a secret."""
    code, _, err = await init(bench, "--config", str(tmp_path / "config.toml"), *arguments)
    assert code == 2
    assert problem in err
    assert "s3cret" not in err


async def test_a_file_that_cannot_be_written_is_refused_first(
    bench: InProcessSet, tmp_path: Path
) -> None:
    """A path below a file is refused before any question."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "config.toml"
    code, out, err = await init(
        bench, "--config", str(path), "--container-url", bench.server.container_url(CONTAINER)
    )
    assert (code, out) == (1, "")
    assert "cannot be written" in err


async def test_without_an_answer_the_setting_is_named(bench: InProcessSet, tmp_path: Path) -> None:
    """An endpoint that does not answer is reported with the variable that sets it."""
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
