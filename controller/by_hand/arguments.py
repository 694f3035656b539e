"""The commands for people: their arguments. What they do is in `commands`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LEAST_S, MOST_S = 60, 7 * 86400


class Add(Protocol):
    """Adds one command to the parser."""

    def __call__(
        self, name: str, command: Callable[[argparse.Namespace], int], text: str, example: str, /
    ) -> argparse.ArgumentParser: ...


def add_commands(add: Add, takes_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the commands by which people steer a set."""
    drain = add(
        "drain",
        _drain,
        "ask the leader to take a VM out of rotation, with the same care as before maintenance",
        "lb-drain drain web-2 --for 30m --reason 'kernel update' --wait",
    )
    drain.add_argument("vm", metavar="VM", help="name of the VM")
    _takes_time(drain, "30m", "put it back by itself after this long (default: 30m)")
    drain.add_argument(
        "--reason", default="", metavar="TEXT", help="told to whoever looks (at most 200 letters)"
    )
    drain.add_argument(
        "--wait", action="store_true", help="return when the VM is out and its connections are done"
    )
    _takes_set(drain, takes_config)
    restore = add(
        "restore",
        _restore,
        "end what was asked for a VM with `drain`, so that the leader puts it back",
        "lb-drain restore web-2 --wait",
    )
    restore.add_argument("vm", metavar="VM", help="name of the VM")
    restore.add_argument("--wait", action="store_true", help="return when the VM is in service")
    _takes_set(restore, takes_config)
    roll = add(
        "roll",
        _roll,
        "take the VMs of the set out one at a time, run a command for each, wait until it is "
        "healthy and put it back; stops at the first failure",
        """lb-drain roll --command 'ssh "$ROLL_ADDRESS" sudo apt-get -y upgrade'""",
    )
    what = roll.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--command",
        dest="shell_command",
        metavar="CMD",
        help="run by a shell here, once per VM, with $ROLL_VM and $ROLL_ADDRESS; it must end when "
        "the VM is done, and must bear being run again",
    )
    what.add_argument("--abandon", action="store_true", help="give up an unfinished roll")
    roll.add_argument("vms", nargs="*", metavar="VM", help="only these (default: all of the set)")
    _takes_check(roll, "wait between the command and the first check")
    roll.add_argument("--resume", action="store_true", help="go on with an unfinished roll")
    _takes_set(roll, takes_config)
    maintenance = add(
        "maintenance",
        _maintenance,
        "show for each VM of the set what Azure plans: whether maintenance is announced, and when "
        "it may be started; `maintenance start` starts it",
        "lb-drain maintenance --json\n         lb-drain maintenance start --all",
    )
    _takes_set(maintenance, takes_config)
    maintenance.add_argument("--json", action="store_true", help="one JSON object, not a table")
    _add_start(maintenance)


def _add_start(maintenance: argparse.ArgumentParser) -> None:
    text = (
        "take VMs out one at a time, one update domain after the other, have Azure maintain each, "
        "wait until it runs and is done, and put it back; stops at the first failure"
    )
    exit_codes = (maintenance.epilog or "").rpartition("\n\n")[2]
    start = maintenance.add_subparsers(metavar="start").add_parser(
        "start",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example: lb-drain maintenance start web-1 web-2\n\n{exit_codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    start.set_defaults(command=_start_maintenance)
    which = start.add_mutually_exclusive_group(required=True)
    which.add_argument("vms", nargs="*", default=(), metavar="VM", help="these")
    which.add_argument(
        "--all", action="store_true", help="every VM whose maintenance may be started now"
    )
    which.add_argument("--resume", action="store_true", help="go on with an unfinished one")
    which.add_argument("--abandon", action="store_true", help="give up an unfinished one")
    _takes_check(start, "wait between the maintenance and the first check")
    # Given before `start` or after it; a default here would undo what was given before.
    start.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="configuration"
    )
    start.add_argument(
        "--availability-set",
        default=argparse.SUPPRESS,
        metavar="ID",
        help="resource id of the set, to act as whoever is logged in with `az login`",
    )


def _takes_check(parser: argparse.ArgumentParser, settle: str) -> None:
    parser.add_argument(
        "--check", default="", metavar="CMD", help="repeated until it succeeds: the VM is healthy"
    )
    parser.add_argument(
        "--settle",
        type=duration(0),
        default=duration(0)("10s"),
        metavar="TIME",
        help=f"{settle} (default: 10s)",
    )
    parser.add_argument(
        "--check-for",
        type=duration(1),
        default=duration(1)("10m"),
        metavar="TIME",
        help="how long the VM may not be healthy yet (default: 10m)",
    )
    _takes_time(
        parser, "10m", "if this command dies, put the VM back after this long (default: 10m)"
    )


def _takes_time(parser: argparse.ArgumentParser, default: str, text: str) -> None:
    parser.add_argument(
        "--for",
        dest="for_s",
        type=duration(LEAST_S),
        default=duration(LEAST_S)(default),
        metavar="TIME",
        help=f"{text}; 90s, 30m, 2h or 1d, at least 1m and at most 7d",
    )


def _takes_set(
    parser: argparse.ArgumentParser, takes_config: Callable[[argparse.ArgumentParser], None]
) -> None:
    takes_config(parser)
    parser.add_argument(
        "--availability-set",
        default="",
        metavar="ID",
        help="resource id of the set, for a machine that is no VM of it: then you act as whoever "
        "is logged in with `az login` (default: the set of this VM, as its identity)",
    )


def duration(least_s: int) -> Callable[[str], float]:
    """Return the parser of a time such as 90s, 30m, 2h or 1d; it returns seconds."""

    def parse(text: str) -> float:
        number, unit = text[:-1], text[-1:]
        if not (number.isascii() and number.isdecimal()) or len(number) > 6 or unit not in UNITS:
            raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 2h or 1d")
        seconds = int(number) * UNITS[unit]
        if not least_s <= seconds <= MOST_S:
            raise argparse.ArgumentTypeError(f"{text!r} is not between {least_s}s and 7d")
        return float(seconds)

    return parse


def _drain(options: argparse.Namespace) -> int:
    from controller.by_hand.commands import drain

    return drain(options)


def _restore(options: argparse.Namespace) -> int:
    from controller.by_hand.commands import restore

    return restore(options)


def _roll(options: argparse.Namespace) -> int:
    from controller.by_hand.commands import roll

    return roll(options)


def _maintenance(options: argparse.Namespace) -> int:
    from controller.by_hand.commands import maintenance

    return maintenance(options)


def _start_maintenance(options: argparse.Namespace) -> int:
    from controller.by_hand.commands import start_maintenance

    return start_maintenance(options)
