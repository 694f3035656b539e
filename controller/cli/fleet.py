"""`lb-drain fleet`: list the availability sets whose ledgers are in one or several containers."""

import argparse
import asyncio
import json
import logging
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import duration
from controller.cli.terminal import stdout_console
from controller.config.base import listen_address
from controller.config.loader import azure_from_environment
from controller.config.schema import STORAGE_CONNECTION_STRING, Election
from controller.observability import logs
from controller.system.signals import STOP, on_signal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from controller.fleet.reader import Fleet, FleetReader

SHORTEST_S = 2
WATCH, LISTEN = "5s", "30s"


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "fleet",
        _fleet,
        summary="list the sets of one or several containers, the most urgent first",
        details="Reads the ledgers with the account of `az login`, which needs the role Storage "
        "Blob Data Reader on the containers. Needs no configuration file. Exit code 1 if a "
        "container cannot be listed.",
        examples=("--container-url https://account.blob.core.windows.net/lb-drain --watch",),
    )
    parser.add_argument(
        "--container-url",
        dest="urls",
        nargs="+",
        action="extend",
        required=True,
        type=_container_url,
        metavar="URL",
        help="container with the ledgers, as in [election] container_url; several are possible",
    )
    parser.add_argument(
        "--managed-identity",
        action="store_true",
        help="read with the managed identity of this VM instead of the account of `az login`; "
        "LB_DRAIN_AZURE_CLIENT_ID selects a user-assigned one",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a table")
    repeated = parser.add_mutually_exclusive_group()
    repeated.add_argument("--watch", action="store_true", help="repeat until ^C")
    repeated.add_argument(
        "--listen",
        type=_listen_address,
        metavar="HOST:PORT",
        help="serve /metrics for Prometheus, /api/v1/fleet and /healthz on this loopback address",
    )
    parser.add_argument(
        "--every",
        dest="every_s",
        type=duration(SHORTEST_S),
        metavar="TIME",
        help=f"time between two reads (default: {WATCH} for --watch, {LISTEN} for --listen)",
    )


def _listen_address(value: str) -> str:
    try:
        listen_address(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r} {error}") from None
    return value


def _container_url(value: str) -> str:
    """Return a checked URL; the message does not repeat it, because it may hold a SAS token."""
    context = {"loopback_http_storage": bool(os.environ.get(STORAGE_CONNECTION_STRING))}
    try:
        return Election.model_validate({"container_url": value}, context=context).container_url
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise argparse.ArgumentTypeError(f"the URL {problem}") from None


def _fleet(options: argparse.Namespace) -> int:
    if options.listen:
        logs.setup(logging.INFO)
        return asyncio.run(_serve(options))
    logs.setup(logging.ERROR, as_text=True)  # A failed read is a row of the table.
    return asyncio.run(_watch(options) if options.watch else _once(options))


@asynccontextmanager
async def _reader(options: argparse.Namespace) -> "AsyncGenerator[FleetReader]":
    from controller.azure.http.container_session import open_containers
    from controller.azure.http.identity import Identity
    from controller.clock import SystemClock
    from controller.fleet.reader import FleetReader

    clock = SystemClock()
    async with open_containers(
        tuple(dict.fromkeys(options.urls)),
        azure_from_environment(os.environ),
        clock=clock,
        environ=os.environ,
        identity=Identity.VM if options.managed_identity else Identity.AZURE_CLI,
    ) as containers:
        yield FleetReader(containers, clock=clock)


async def _once(options: argparse.Namespace) -> int:
    async with _reader(options) as reader:
        fleet = await reader.read()
    _show(fleet, options)
    return EXIT_FAILED if any(each.problem for each in fleet.containers) else EXIT_OK


async def _watch(options: argparse.Namespace) -> int:
    every_s = options.every_s or duration(SHORTEST_S)(WATCH)
    async with _reader(options) as reader:
        while True:
            _show(await reader.read(), options)
            await asyncio.sleep(every_s)


async def _serve(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or ^C: the end of a service, not a failure."""
    from controller.clock import SystemClock
    from controller.fleet.exporter import FleetExporter

    stopping = asyncio.Event()
    on_signal(STOP, stopping.set)
    every_s = options.every_s or duration(SHORTEST_S)(LISTEN)
    async with _reader(options) as reader:
        exporter = FleetExporter(reader, clock=SystemClock(), every_s=every_s)
        async with exporter.server(options.listen) as server:
            print(f"Metrics: {server.url}/metrics", flush=True)
            reading = asyncio.create_task(exporter.run())
            stop = asyncio.create_task(stopping.wait())
            await asyncio.wait((reading, stop), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                stop.cancel()
                await reading  # raises what has ended it
            reading.cancel()
    return EXIT_OK


def _show(fleet: "Fleet", options: argparse.Namespace) -> None:
    from controller.cli.fleet_table import print_fleet, screen_rows
    from controller.fleet.fleet_json import fleet_json

    if options.json:
        print(json.dumps(fleet_json(fleet)), flush=True)
        return
    console = stdout_console()
    if options.watch and sys.stdout.isatty():
        console.clear()
    print_fleet(console, fleet, rows=screen_rows(console) if options.watch else None)
