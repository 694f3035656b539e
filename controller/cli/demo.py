"""`lb-drain demo`: take a simulated set through maintenance, with real agents and traffic."""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from controller.cli.command import EXIT_FAILED, EXIT_OK, EXIT_TERMINATED, CommandGroup
from controller.cli.options import number_between
from controller.system.signals import TERMINATE, on_signal

T = TypeVar("T")


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "demo",
        _demo,
        summary="take a simulated set through maintenance, with agents and client traffic",
        examples=("--vms 3 --json",),
    )
    parser.add_argument(
        "--vms", type=number_between(2, 12), default=3, metavar="N", help="2 to 12 VMs (default: 3)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line of stdout"
    )
    parser.add_argument(
        "--without-controller",
        action="store_true",
        help="run no agents, to show how many requests are lost then (exit code 1)",
    )
    parser.add_argument(
        "--without-closing",
        action="store_true",
        help="remove VMs from the pool without closing them first, as with close = false",
    )
    parser.add_argument(
        "--flows",
        choices=("keep", "drop", "reset"),
        default="drop",
        help="what the load balancer does to established flows of a removed VM; Azure does not "
        "document it (default: drop, the worst)",
    )
    parser.add_argument(
        "--clients",
        choices=("short", "mixed", "persistent"),
        default="mixed",
        help="one request per connection, all kinds of clients, or clients that hold one "
        "connection for ever (default: mixed)",
    )
    parser.add_argument(
        "--convert",
        action="store_true",
        help="convert the availability set to a flexible scale set while the first VM is out",
    )
    parser.add_argument("--keep", action="store_true", help="keep configuration files and logs")


def _demo(options: argparse.Namespace) -> int:
    from rich.console import Console

    from controller.simulator.app.demo import Demo
    from controller.simulator.app.demo_screen import Screen, summarise

    console = Console(stderr=options.json)
    directory = Path(tempfile.mkdtemp(prefix="lb-drain-demo-"))
    screen = Screen(console)
    demo = Demo(
        directory,
        vms=options.vms,
        with_controller=not options.without_controller,
        close=not options.without_closing,
        flows_on_remove=options.flows,
        clients=options.clients,
        convert=options.convert,
        show=screen.show,
    )
    keep = True
    try:
        with screen:
            result = asyncio.run(_until_terminated(demo.run()))
        keep = options.keep
    except TimeoutError:
        print("lb-drain: the set did not complete its maintenance in time", file=sys.stderr)
        return EXIT_FAILED
    except asyncio.CancelledError:
        return EXIT_TERMINATED
    finally:
        if keep:
            print(f"configuration files and logs: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    summarise(console, result, with_controller=not options.without_controller)
    if options.json:
        print(json.dumps(result.as_json()))
    return EXIT_OK if result.good else EXIT_FAILED


async def _until_terminated(work: Coroutine[object, object, T]) -> T:
    """Cancel the work on SIGTERM, as ^C does, so that no child process is left."""
    task = asyncio.ensure_future(work)
    on_signal(TERMINATE, task.cancel)
    return await task
