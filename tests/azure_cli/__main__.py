"""Run the commands of operators with the real Azure CLI against a simulated set.

`python -m tests.azure_cli [--venv DIR] [--only TEXT]` creates the environment of the CLI if DIR has
none (azure-cli from PyPI, about 500 MB), signs in with the managed identity of an operator, and
prints a table. The exit code is 1 if a command failed.

The CLI reaches loopback only: its cloud has endpoints on 127.0.0.1, its telemetry is off, and every
other host leads to a proxy that refuses and counts.
"""

import argparse
import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.simulator.app.server import SimulatorServer
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.azure_cli.commands import CASES, SIGN_IN, VMS, Case

DEFAULT_VENV = Path(tempfile.gettempdir()) / "lb-drain-azure-cli"
COMMAND_TIMEOUT_S = 240
CLOUD = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One command that was run."""

    command: str
    problem: str
    """Why it failed; "" if it did not."""
    seconds: float


def install(directory: Path) -> Path:
    """Return the CLI of an environment, which is created if it does not exist."""
    program = directory / "bin" / "az"
    if program.exists():
        return program
    print(f"installing azure-cli in {directory}", flush=True)
    venv.create(directory, with_pip=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "azure-cli"]
    code = os.spawnv(os.P_WAIT, pip[0], pip)
    if code:
        raise SystemExit(f"azure-cli could not be installed in {directory}: exit code {code}")
    return program


class Cli:
    """The Azure CLI, confined to loopback."""

    def __init__(self, program: Path, directory: Path, server: SimulatorServer, proxy: str) -> None:
        self._program = program
        _skip_update_check(program, directory / "azure")
        self._server = server
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self._environment = {
            **kept,
            "HOME": str(directory),
            "AZURE_CONFIG_DIR": str(directory / "azure"),
            "AZURE_EXTENSION_DIR": str(directory / "extensions"),
            "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
            "AZURE_CORE_COLLECT_TELEMETRY": "0",
            "AZURE_CORE_SURVEY_MESSAGE": "0",
            "AZURE_CORE_NO_COLOR": "1",
            "AZURE_CORE_LOGIN_EXPERIENCE_V2": "off",
            "AZURE_AUTO_UPGRADE_ENABLE": "no",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": server.imds_url("web-1"),
            "REQUESTS_CA_BUNDLE": str(server.ca_file),
            "SSL_CERT_FILE": str(server.ca_file),
            "HTTP_PROXY": proxy,
            "HTTPS_PROXY": proxy,
            "NO_PROXY": "127.0.0.1",
        }

    async def run(self, command: str) -> tuple[int, str, str]:
        """Run a command; return exit code, output and errors."""
        process = await asyncio.create_subprocess_exec(
            str(self._program),
            *shlex.split(command),
            "--output",
            "json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                output, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return -1, "", f"no end within {COMMAND_TIMEOUT_S} s"
        return process.returncode or 0, output.decode(), errors.decode()

    async def sign_in(self) -> None:
        """Register the cloud, and sign in as an operator."""
        arm = self._server.arm_url
        endpoints = {
            "resource-manager": arm,
            "management": arm,
            "active-directory": f"{arm}/login",
            "active-directory-resource-id": f"{arm}/",
            "active-directory-graph-resource-id": f"{arm}/",
            "microsoft-graph-resource-id": f"{arm}/",
            "gallery": arm,
            "sql-management": arm,
            "vm-image-alias-doc": arm,
        }
        options = " ".join(f"--endpoint-{name} {url}" for name, url in endpoints.items())
        for command in (
            f"cloud register --name {CLOUD} {options} --suffix-storage-endpoint core.windows.net",
            f"cloud set --name {CLOUD}",
            SIGN_IN,
        ):
            code, _, errors = await self.run(command)
            if code:
                raise SystemExit(f"az {command.partition(' --')[0]} failed: {errors.strip()}")


def _skip_update_check(program: Path, configuration: Path) -> None:
    """Record that the version is known: at its first start the CLI asks for newer ones."""
    packages = program.parents[1].glob("lib/python*/site-packages/azure_cli_core-*.dist-info")
    version = next(packages).name.removeprefix("azure_cli_core-").removesuffix(".dist-info")
    configuration.mkdir(parents=True, exist_ok=True)
    known = {"versions": {"core": {"local": version, "pypi": version}}}
    (configuration / "versionCheck.json").write_text(json.dumps(known))


def judge(case: Case, code: int, output: str, errors: str, shows: str) -> str:
    """Return what is wrong with the result of a command; "" if nothing is."""
    if code:
        return (errors.strip().splitlines() or [f"exit code {code}"])[-1][:200]
    if shows not in output:
        return f"the output does not contain {shows!r}"
    if case.count is not None and len(json.loads(output)) != case.count:
        return f"{len(json.loads(output))} entries instead of {case.count}"
    return ""


class DeadEnd:
    """A proxy that refuses and counts: what is meant for another host than this one."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        self.asked.append(line.decode("utf-8", "replace").strip())
        writer.close()


def prepare() -> World:
    """Return a set whose operations are fast."""
    settings = WorldSettings(
        operation_latency_s=1.0,
        pool_operation_latency_s=1.0,
        lro_retry_after_s=1,
        user_event_notice_s=5.0,
        user_action_s=2.0,
        imds_limit=False,
    )
    return build_world(now=time.time(), vms=VMS, ip_pools=("api",), settings=settings)


async def play(program: Path, cases: Sequence[Case]) -> tuple[list[Outcome], list[str]]:
    """Run the commands; return their outcomes, and requests to other hosts."""
    dead_end = DeadEnd()
    with tempfile.TemporaryDirectory(prefix="lb-drain-az-") as name:
        directory, world = Path(name), prepare()
        note = directory / "note.json"
        note.write_text("{}")
        proxy = await asyncio.start_server(dead_end, "127.0.0.1", 0)
        async with proxy, SimulatorServer(world, directory) as server:
            server.container_url("lb-drain")
            port = proxy.sockets[0].getsockname()[1]
            cli = Cli(program, directory, server, f"http://127.0.0.1:{port}")
            await cli.sign_in()
            values = {
                "subscription": world.subscription,
                "vm": world.vm("web-1").resource_id,
                "set": world.availability_set_id,
                "principal": world.vm("web-1").client_id,
                "blobs": server.blob_url,
                "file": str(note),
            }
            outcomes = [await _outcome(cli, case, values) for case in cases]
    return outcomes, dead_end.asked


async def _outcome(cli: Cli, case: Case, values: dict[str, str]) -> Outcome:
    command = case.command.format_map(values)
    began = time.monotonic()
    code, output, errors = await cli.run(command)
    problem = judge(case, code, output, errors, case.shows.format_map(values))
    print(
        f"{'FAIL' if problem else 'ok':5}{time.monotonic() - began:6.1f} s  az {command}",
        flush=True,
    )
    if problem:
        print(f"      {problem}", flush=True)
    return Outcome(command=command, problem=problem, seconds=time.monotonic() - began)


def main() -> int:
    """Run all commands, or those that contain a text."""
    parser = argparse.ArgumentParser(prog="python -m tests.azure_cli")
    parser.add_argument("--venv", type=Path, default=DEFAULT_VENV, help="environment of the CLI")
    parser.add_argument("--only", default="", help="run commands that contain this text")
    options = parser.parse_args()
    program = install(options.venv)
    cases = [case for case in CASES if options.only in case.command]
    outcomes, foreign = asyncio.run(play(program, cases))
    failed = [outcome for outcome in outcomes if outcome.problem]
    print(f"{len(outcomes)} commands, {len(failed)} failed, {len(foreign)} requests to other hosts")
    for line in foreign:
        print(f"      {line}")
    return 1 if failed or foreign else 0


if __name__ == "__main__":
    sys.exit(main())
