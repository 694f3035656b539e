"""The command `lb-drain`: arguments, exit codes and signals. One function per subcommand.

Exit codes: 0 done; 1 it did not work (the message says why); 2 wrong arguments; 78 the
configuration must be changed (a service manager should not try again); 130 and 143 ended by ^C or
SIGTERM before the end.
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
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from controller import logs
from controller.by_hand.arguments import add_commands
from controller.config import DEFAULT_CONFIG, describe, load
from controller.errors import ConfigError, ControllerError
from controller.first_run.commands import add_completion, add_init, add_manual
from controller.look import LeaseLook, PlanLook
from controller.simulator.arguments import add_verbs
from controller.unanswered import naming_the_endpoint

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
logger = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 78, 130, 143
EPILOG = (
    "exit codes: 0 done; 1 it did not work, the message says why; 2 wrong arguments; "
    "78 the configuration must be changed; 130 and 143 ended by ^C or SIGTERM"
)
WATCH_S = 2.0
UNCUT_COLUMNS = 2000
DRY_RUN = {"dry_run": True}


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
        code = EXIT_INTERRUPTED
    except asyncio.CancelledError:
        code = EXIT_TERMINATED
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
    parser.add_argument("--version", action="version", version=version("lb-drain-controller"))
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

    add_init(add, DEFAULT_CONFIG, _console)
    run = add("run", _run, "run the agent of this VM", "lb-drain run --config config.toml")
    takes_config(run)
    run.add_argument("--verbose", action="store_true", help="log at DEBUG")
    check = add(
        "check-config",
        _check_config,
        "print the effective configuration and where each value comes from, or every problem",
        "lb-drain check-config config.toml",
    )
    check.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="the configuration, as with --config"
    )
    takes_config(check)
    takes_config(
        add(
            "plan",
            _plan,
            "look once, without writing anything, and say what would be done and why",
            "lb-drain plan --config config.toml",
        )
    )
    doctor = add(
        "doctor",
        _doctor,
        "check, without changing anything, all that the agent of this VM needs, and say what mends "
        "what is missing; exit code 1 when a check failed, 0 when there are warnings at most",
        "lb-drain doctor --config config.toml",
    )
    takes_config(doctor)
    doctor.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    status = add(
        "status",
        _status,
        "show leader, lease, entries, holds and recent transitions of the set",
        "lb-drain status --config config.toml --watch",
    )
    takes_config(status)
    status.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    status.add_argument("--watch", action="store_true", help="repeat every 2 seconds until ^C")
    add_commands(add, takes_config)
    simulate = add(
        "simulate",
        _simulate,
        "serve a simulated set to run agents against, until interrupted",
        "lb-drain simulate --vms 3 --directory sim\n         "
        "lb-drain simulate event Reboot web-1 --notice 60 --directory sim",
    )
    simulate.add_argument(
        "--vms", type=_between(1, 200), default=3, metavar="N", help="1 to 200 VMs (default: 3)"
    )
    simulate.add_argument(
        "--load",
        type=_between(0, 500),
        default=0,
        metavar="N",
        help="clients send so many requests per second through the load balancer (default: 0)",
    )
    add_verbs(simulate, _steer, EPILOG)
    demo = add(
        "demo",
        _demo,
        "take a whole simulated set through maintenance, with real agents and client traffic",
        "lb-drain demo --vms 3 --json",
    )
    demo.add_argument(
        "--vms", type=_between(2, 12), default=3, metavar="N", help="2 to 12 VMs (default: 3)"
    )
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
    add_completion(add, parser)
    add_manual(add, parser, DEFAULT_CONFIG)
    return parser


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return number


def _run(options: argparse.Namespace) -> int:
    from controller.agent import Agent
    from controller.server import StatusServer

    loaded = load(options.config, os.environ)
    logs.setup(logging.DEBUG if options.verbose else logging.INFO)

    async def agent() -> None:
        this = Agent(loaded.settings, environ=os.environ)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, this.stop)
        async with StatusServer(loaded.settings.server.listen, this) as server:
            if server.url:
                logs.log(logger, logging.INFO, f"status at {server.url}", event="start")
            # What was imported lives as long as the process: the collector need not walk it.
            gc.freeze()
            await this.run()

    asyncio.run(agent())
    return EXIT_OK


def _check_config(options: argparse.Namespace) -> int:
    from rich.table import Column, Table

    table = Table("key", Column("value", overflow="fold"), "from", box=None)
    for row in describe(load(options.file or options.config, os.environ)):
        table.add_row(*row)
    _console().print(table)
    return EXIT_OK


def _console() -> "Console":
    """Return what draws on stdout; in a file or a pipe no line is cut or wrapped."""
    from rich.console import Console

    # No markup: what stands in brackets is a name of a table or comes from Azure.
    return Console(width=None if sys.stdout.isatty() else UNCUT_COLUMNS, markup=False)


def _plan(options: argparse.Namespace) -> int:
    from controller.agent import Agent
    from controller.report import print_plan

    loaded = load(options.config, os.environ)
    settings = loaded.settings
    logs.setup(logging.WARNING)
    dry = settings.model_copy(update={"policy": settings.policy.model_copy(update=DRY_RUN)})

    async def look() -> PlanLook:
        return await Agent(dry, environ=os.environ).look()

    with naming_the_endpoint(loaded, str(options.config)):
        found = asyncio.run(look())
    print_plan(_console(), found, dry_run=settings.policy.dry_run)
    return EXIT_OK


def _doctor(options: argparse.Namespace) -> int:
    from rich.console import Console

    from controller.clock import SystemClock
    from controller.doctor.examine import examine
    from controller.doctor.show import show

    settings = load(options.config, os.environ).settings
    logs.setup(logging.ERROR)  # what would be worth a warning is a finding
    with Console(stderr=True).status("asking Azure; the first look at events may take 2 minutes"):
        report = asyncio.run(examine(settings, environ=os.environ, clock=SystemClock()))
    if options.json:
        print(json.dumps(report.as_json()))
    else:
        show(_console(), report)
    return EXIT_FAILED if report.failed else EXIT_OK


def _status(options: argparse.Namespace) -> int:
    from controller.agent import Agent
    from controller.report import print_status, print_watch

    loaded = load(options.config, os.environ)
    logs.setup(logging.WARNING)
    console = _console()

    def look() -> LeaseLook:
        with naming_the_endpoint(loaded, str(options.config)):
            return asyncio.run(Agent(loaded.settings, environ=os.environ).look_at_lease())

    dry_run = loaded.settings.policy.dry_run
    if not options.watch:
        found = look()
        if options.json:
            print(json.dumps(found.as_json()))
        else:
            print_status(console, found, dry_run=dry_run)
        return EXIT_OK
    newest: LeaseLook | None = None
    while True:
        problem = ""
        try:
            newest = look()
        except ConfigError:
            raise
        except ControllerError as error:
            # A VM in maintenance cannot be asked for a while: whoever watches wants to see it.
            problem = str(error)
        if not options.json:
            console.clear()
            print_watch(console, newest, now=datetime.now(UTC), problem=problem, dry_run=dry_run)
        elif problem:
            print(f"{time.strftime('%H:%M:%S')}  {problem}", file=sys.stderr)
        elif newest:
            print(json.dumps(newest.as_json()), flush=True)
        time.sleep(WATCH_S)


def _demo(options: argparse.Namespace) -> int:
    from rich.console import Console

    from controller.simulator.demo import Demo
    from controller.simulator.screen import Screen, summarise

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
            result = asyncio.run(_until_terminated(demo.run()))
        kept = options.keep
    except TimeoutError:
        print("lb-drain: the set did not get through its maintenance in time", file=sys.stderr)
        return EXIT_FAILED
    except asyncio.CancelledError:
        return EXIT_TERMINATED
    finally:
        if kept:
            print(f"configurations and logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    summarise(console, result, with_controller=not options.without_controller, flows=options.flows)
    if options.json:
        print(json.dumps(result.as_json()))
    return EXIT_OK if result.good else EXIT_FAILED


async def _until_terminated(work: Coroutine[object, object, T]) -> T:
    """Let SIGTERM end the work as ^C does: in good order, leaving no process behind."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _simulate(options: argparse.Namespace) -> int:
    from controller.simulator.workshop import BusyDirectoryError, serve

    async def serve_until_interrupted() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        await serve(options.directory, vms=options.vms, load=options.load, stopping=stopping)

    try:
        asyncio.run(serve_until_interrupted())
    except BusyDirectoryError as error:
        print(f"lb-drain: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _steer(options: argparse.Namespace) -> int:
    from controller.simulator.workshop import steer

    method, path, body = options.request(options)
    good, answer = asyncio.run(steer(options.directory, method, path, body))
    if good:
        print(json.dumps(answer, indent=1))
        return EXIT_OK
    if isinstance(answer, dict):
        answer = cast("dict[str, object]", answer).get("error", "it did not work")
    print(f"lb-drain: {answer}", file=sys.stderr)
    return EXIT_FAILED
