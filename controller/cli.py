"""The command `lb-drain`: arguments, exit codes and signals. One function per subcommand.

Exit codes: 0 done; 1 it did not work (the message says why); 2 wrong arguments; 78 the
configuration must be changed (a service manager should not try again).
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from controller import logs
from controller.config import describe, load
from controller.errors import ConfigError, ControllerError

EXIT_OK, EXIT_FAILED, EXIT_CONFIG = 0, 1, 78
EPILOG = (
    "exit codes: 0 done; 1 it did not work, the message says why; 2 wrong arguments; "
    "78 the configuration must be changed"
)
DEFAULT_CONFIG = Path("/etc/lb-drain/config.toml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
    except ConfigError as error:
        print(f"lb-drain: {error}", file=sys.stderr)
        code = EXIT_CONFIG
    except ControllerError as error:
        print(f"lb-drain: {error}", file=sys.stderr)
        code = EXIT_FAILED
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = EXIT_FAILED
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lb-drain",
        description="Takes the VMs of an Azure availability set out of load-balancer backend "
        "pools before maintenance, and puts them back.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example: {example}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        return sub

    def takes_config(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--config",
            type=Path,
            default=DEFAULT_CONFIG,
            metavar="FILE",
            help=f"configuration (default: {DEFAULT_CONFIG})",
        )

    run = add("run", _run, "run the agent of this VM", "lb-drain run --config config.toml")
    takes_config(run)
    run.add_argument("--verbose", action="store_true", help="log at DEBUG")
    check = add(
        "check-config",
        _check_config,
        "print the effective configuration and where each value comes from, or every problem",
        "lb-drain check-config config.toml",
    )
    check.add_argument("config", type=Path, metavar="FILE")
    takes_config(
        add(
            "plan",
            _plan,
            "look once, without writing anything, and say what would be done and why",
            "lb-drain plan --config config.toml",
        )
    )
    status = add(
        "status",
        _status,
        "show leader, lease, entries, holds and recent transitions of the set",
        "lb-drain status --config config.toml --watch",
    )
    takes_config(status)
    status.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    status.add_argument("--watch", action="store_true", help="repeat every 2 seconds until ^C")
    demo = add(
        "demo",
        _demo,
        "take a whole simulated set through maintenance, with real agents and client traffic",
        "lb-drain demo --vms 3 --json",
    )
    demo.add_argument("--vms", type=_between(2, 12), default=3, metavar="N", help="2 to 12 VMs")
    demo.add_argument("--json", action="store_true", help="the last line of stdout is one object")
    demo.add_argument(
        "--without-controller",
        action="store_true",
        help="run no agents, to see what is lost then (exit code 1: requests are lost)",
    )
    demo.add_argument(
        "--flows",
        choices=("keep", "drop", "reset"),
        default="keep",
        help="what the load balancer does to established flows of a removed VM; Azure does not "
        "document it (default: keep)",
    )
    demo.add_argument("--keep", action="store_true", help="keep configurations and logs")
    return parser


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return number


def _run(options: argparse.Namespace) -> int:
    from controller.agent import Agent  # noqa: PLC0415 - check-config must not load the SDKs
    from controller.server import StatusServer  # noqa: PLC0415

    loaded = load(options.config, os.environ)
    logs.setup(logging.DEBUG if options.verbose else logging.INFO)

    async def agent() -> None:
        this = Agent(loaded.settings, environ=os.environ)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, this.stop)
        async with StatusServer(loaded.settings.server.listen, this):
            # What was imported lives as long as the process: the collector need not walk it.
            gc.freeze()
            await this.run()

    asyncio.run(agent())
    return EXIT_OK


def _check_config(options: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415 - the agent never draws
    from rich.table import Table  # noqa: PLC0415

    table = Table("key", "value", "from", box=None)
    for row in describe(load(options.config, os.environ)):
        table.add_row(*row)
    Console().print(table)
    return EXIT_OK


def _plan(options: argparse.Namespace) -> int:
    raise NotImplementedError


def _status(options: argparse.Namespace) -> int:
    raise NotImplementedError


def _demo(options: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415

    from controller.simulator.demo import Demo  # noqa: PLC0415
    from controller.simulator.screen import Screen, summarise  # noqa: PLC0415

    console = Console(stderr=options.json)
    directory = Path(tempfile.mkdtemp(prefix="lb-drain-demo-"))
    screen = Screen(console)
    demo = Demo(
        directory,
        vms=options.vms,
        with_controller=not options.without_controller,
        flows_on_remove=options.flows,
        show=screen.show,
    )
    kept = True
    try:
        with screen:
            result = asyncio.run(demo.run())
        kept = options.keep
    except TimeoutError:
        print("lb-drain: the set did not get through its maintenance in time", file=sys.stderr)
        return EXIT_FAILED
    finally:
        if kept:
            print(f"configurations and logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    summarise(console, result, with_controller=not options.without_controller)
    if options.json:
        print(json.dumps(result.as_json()))
    return EXIT_OK if result.good else EXIT_FAILED
