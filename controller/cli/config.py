"""`lb-drain config`: settings of the whole set that apply on top of every file, for a while."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli.command import CommandGroup
from controller.cli.options import SetId, add_reason_option, add_set_options, add_time_option
from controller.config.loader import load

if TYPE_CHECKING:
    from controller.config.schema import Settings
    from controller.operator.drain_client import DrainClient


def add_parser(commands: CommandGroup) -> None:
    """Add the command, and `set`, `unset` and `show` below it."""
    parser = commands.add(
        "config",
        _show,
        summary="show or change settings of the whole set, without a restart",
        details="The leader applies them on top of its own file within seconds, until they end, "
        "and so does every later leader. They can be min_in_service of a pool, and the keys of "
        "[policy] that the leader decides by.",
        examples=("set min_in_service=1 --pool app --for 2h", "show"),
    )
    add_set_options(parser)
    group = CommandGroup(parser, prefix="lb-drain config", metavar="COMMAND", required=False)
    changed = group.add(
        "set",
        _set,
        summary="set one setting of the whole set",
        details="Suspends no law: the floor is what min_in_service states.",
        examples=("min_in_service=1 --pool app --for 2h", "lead_time_s=600 --for 1d"),
    )
    changed.add_argument("assignment", metavar="KEY=VALUE", help="the setting and its value")
    _add_pool_option(changed)
    add_time_option(
        changed, default="2h", meaning="the setting of the file applies after this time"
    )
    add_reason_option(changed)
    _add_inherited(changed)
    ended = group.add(
        "unset",
        _unset,
        summary="return to the setting of the file",
        examples=("min_in_service --pool app",),
    )
    ended.add_argument("key", metavar="KEY", help="the setting")
    _add_pool_option(ended)
    _add_inherited(ended)
    listed = group.add(
        "show", _show, summary="show the settings of the whole set", examples=("--config FILE",)
    )
    _add_inherited(listed)


def _add_pool_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pool", default="", metavar="NAME", help="name of the pool; needed if there are several"
    )


def _add_inherited(parser: argparse.ArgumentParser) -> None:
    """Accept the options before and after the command; a default would replace an earlier value."""
    parser.add_argument(
        "--config",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="configuration file",
    )
    parser.add_argument(
        "--availability-set",
        action=SetId,
        default=argparse.SUPPRESS,
        metavar="ID",
        help="resource id of the set, of either kind, to use the account of `az login`",
    )


def _set(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.core.printable import printable
    from controller.operator.overrides import override

    async def work(client: "DrainClient") -> None:
        made = await override(
            client,
            _settings(options),
            options.assignment,
            pool=options.pool,
            for_s=options.for_s,
            reason=options.reason,
        )
        print(printable(f"{made}: the leader applies it within seconds."))
        which = (made.key, "--pool", options.pool) if options.pool else (made.key,)
        print(f"To end it now: {client.command('config', 'unset', *which)}")

    return run_with_client(options, work)


def _unset(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.core.printable import printable
    from controller.operator.overrides import unset

    async def work(client: "DrainClient") -> None:
        ended = await unset(client, _settings(options), options.key, pool=options.pool)
        print(printable(f"{ended}: it has ended, and the setting of the file applies."))

    return run_with_client(options, work)


def _show(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.config.overrides import adjusted
    from controller.core.printable import printable
    from controller.operator.overrides import overrides

    async def work(client: "DrainClient") -> None:
        found = await overrides(client)
        for each in found:
            print(printable(str(each)))
        for problem in adjusted(_settings(options), found)[1]:
            print(printable(f"does not apply on top of {options.config}: {problem}"))
        if not found:
            print("No setting of the whole set is in force: every agent works by its file.")

    return run_with_client(options, work)


def _settings(options: argparse.Namespace) -> "Settings":
    """Return the file of this machine."""
    return load(options.config, os.environ).settings
