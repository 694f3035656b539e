"""`lb-drain support-bundle`: collect in one file what is needed to find out what is wrong."""

import argparse
import asyncio
import json
import logging
import os
import re
import socket
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.options import add_config_option
from controller.config.loader import describe, load
from controller.errors import ConfigError, ControllerError, NotDone
from controller.observability import logs

if TYPE_CHECKING:
    from controller.config.schema import Settings
    from controller.doctor.support_bundle import Part

AGENT_PARTS = {
    "metrics.txt": "/metrics",
    "overview.json": "/api/v1/overview",
    "agent-status.json": "/status",
    "health.txt": "/healthz",
    "readiness.txt": "/readyz",
}
"""The files with answers of the local agent, by name, with the path that it answers at."""


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "support-bundle",
        _support_bundle,
        summary="collect versions, configuration, status, log, doctor and metrics in one file",
        details="The file is a tar.gz that only its owner can read. Tokens, signatures and keys "
        "are replaced in every part. A part that cannot be read is a file that states why.",
        examples=("--config config.toml", "web-1.tar.gz"),
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="file to create (default: lb-drain-support-HOST-TIME.tar.gz in this directory); "
        "an existing file is not overwritten",
    )
    add_config_option(parser)


def _support_bundle(options: argparse.Namespace) -> int:
    from controller.doctor.support_bundle import new_bundle, write_bundle

    now = datetime.now(UTC)
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())
    name = f"lb-drain-support-{host}-{now:%Y%m%dT%H%M%SZ}"
    path: Path = options.file or Path(f"{name}.tar.gz")
    logs.setup(logging.CRITICAL, as_text=True)  # what goes wrong here stands in the bundle
    with new_bundle(path) as file:
        print("Reading; the first read of scheduled events can take 2 minutes.")
        parts = asyncio.run(_read_all(options.config))
        write_bundle(file, parts, directory=name, at=now)
    for part in parts:
        if part.problem:
            first, *_ = part.problem.splitlines() or [""]
            print(f"not read: {part.name}: {first}")
    print(f"{path}: {len(parts)} files. Read it before you send it: it names your resources.")
    return EXIT_OK


async def _read_all(config: Path) -> list["Part"]:
    """Return every part; what takes long is read at the same time."""
    from controller.doctor.support_parts import journal_text, versions_text

    async def versions() -> str:
        return versions_text()

    parts = [_read("versions.json", versions), _read("log.txt", journal_text)]
    try:
        loaded = load(config, os.environ)
    except ConfigError as error:
        problems = str(error)

        async def refuse() -> str:
            raise NotDone(problems)

        async def depend() -> str:
            raise NotDone("the configuration is not valid, see configuration.not-read.txt")

        needing = ("status.json", "history.txt", "doctor.json", *AGENT_PARTS)
        others = [_read("configuration.txt", refuse), *(_read(each, depend) for each in needing)]
        return list(await asyncio.gather(*parts, *others))

    async def configuration() -> str:
        lines = (f"{key} = {value}  ({origin})" for key, value, origin in describe(loaded))
        return "\n".join((f"file: {config}", "", *lines))

    status = asyncio.create_task(_status(loaded.settings))
    read = await asyncio.gather(
        *parts,
        _read("configuration.txt", configuration),
        _read("doctor.json", lambda: _doctor(loaded.settings)),
        *_of_agent(loaded.settings),
    )
    return [*read, *await status]


async def _read(name: str, read: Callable[[], Awaitable[str]]) -> "Part":
    from controller.doctor.support_bundle import Part

    try:
        return Part(name=name, text=await read())
    except ControllerError as error:
        return Part(name=name, problem=str(error))
    except Exception:  # a defect in one part must not cost the others
        return Part(name=name, problem=traceback.format_exc())


def _of_agent(settings: "Settings") -> list[Awaitable["Part"]]:
    from controller.doctor.support_parts import agent_answer

    def answer(path: str) -> Callable[[], Awaitable[str]]:
        return lambda: agent_answer(settings.server.listen, path)

    return [_read(name, answer(path)) for name, path in AGENT_PARTS.items()]


async def _doctor(settings: "Settings") -> str:
    from controller.clock import SystemClock
    from controller.doctor.run import examine

    report = await examine(settings, environ=os.environ, clock=SystemClock())
    return json.dumps(report.as_json(), indent=2)


async def _status(settings: "Settings") -> tuple["Part", "Part"]:
    """Return the status, and the history that was read with it."""
    from controller.agent.inspection import inspect_set
    from controller.core.ledger import Ledger
    from controller.doctor.support_bundle import Part
    from controller.doctor.support_parts import history_text
    from controller.status.overview import overview

    history = Part(name="history.txt", problem="the status could not be read, see its file")

    async def read() -> str:
        nonlocal history
        snapshot = (await inspect_set(settings, os.environ)).snapshot
        history = Part(name="history.txt", text=history_text(snapshot.ledger or Ledger()))
        return json.dumps(overview(snapshot), indent=2)

    return await _read("status.json", read), history
