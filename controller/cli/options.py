"""Options that several commands share, and the types of their values."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from controller.config.loader import DEFAULT_CONFIG

_SET_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/"
    r"(availabilitySets|virtualMachineScaleSets)/[^/]+",
    re.IGNORECASE,
)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SHORTEST_DRAIN_S, LONGEST_S = 60, 7 * 86400
LONGEST_WAIT = "30m"
"""How long `--wait` waits without `--timeout`. A set without a leader reaches no result."""


class SetId(argparse.Action):
    """Takes the id of a set. An empty one, of an unset variable, does not mean the set of this VM.

    A type would be applied to the default too.
    """

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        _option_string: str | None = None,
    ) -> None:
        """Store the id, without a slash at its end, which the set of the blobs does not have."""
        found = str(values).strip().rstrip("/")
        if _SET_ID.fullmatch(found) is None:
            raise argparse.ArgumentError(
                self, f"{values!r} is not the resource id of an availability set or scale set"
            )
        setattr(namespace, self.dest, found)


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add `--config FILE`."""
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"configuration file (default: {DEFAULT_CONFIG})",
    )


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select a set: `--config` and `--availability-set`."""
    add_config_option(parser)
    parser.add_argument(
        "--availability-set",
        action=SetId,
        default="",
        metavar="ID",
        help="resource id of the set, of either kind, to run this command on a machine outside the "
        "set with the account of `az login` (default: the set of this VM, with its identity)",
    )


def add_reason_option(parser: argparse.ArgumentParser) -> None:
    """Add `--reason TEXT`."""
    parser.add_argument(
        "--reason",
        default="",
        metavar="TEXT",
        help="shown in status, on the status page and in notifications (at most 200 characters)",
    )


def add_time_option(parser: argparse.ArgumentParser, *, default: str, meaning: str) -> None:
    """Add `--for TIME`, after which what the command requests ends automatically."""
    parser.add_argument(
        "--for",
        dest="for_s",
        type=duration(SHORTEST_DRAIN_S),
        default=duration(SHORTEST_DRAIN_S)(default),
        metavar="TIME",
        help=f"{meaning} (default: {default}); 90s, 30m, 2h or 1d, from 1m to 7d",
    )


def add_timeout_option(parser: argparse.ArgumentParser) -> None:
    """Add `--timeout TIME`, which limits `--wait`."""
    parser.add_argument(
        "--timeout",
        dest="timeout_s",
        type=duration(1),
        metavar="TIME",
        help="with --wait: wait no longer than this, and end with exit code 124 if the result is "
        f"not reached; what was requested stays in effect (default: {LONGEST_WAIT})",
    )


def refuse_timeout_alone(options: argparse.Namespace, *, nothing: str) -> None:
    """Refuse `--timeout` without `--wait`.

    Args:
        options: those that `add_timeout_option` has added to, with `--wait`.
        nothing: what did not happen, for the message.

    Raises:
        NotDone: it is given alone.
    """
    from controller.errors import NotDone

    if options.timeout_s is not None and not options.wait:
        raise NotDone(f"--timeout limits --wait: add --wait; nothing is {nothing}")


def add_health_options(parser: argparse.ArgumentParser, *, settle_after: str) -> None:
    """Add the options of a rolling run: how it finds out that a VM is healthy, and its limits."""
    parser.add_argument(
        "--check",
        default="",
        metavar="CMD",
        help="command that succeeds when the VM is healthy; it is repeated until it does",
    )
    parser.add_argument(
        "--settle",
        type=duration(0),
        default=duration(0)("10s"),
        metavar="TIME",
        help=f"wait this long between {settle_after} and the first check (default: 10s)",
    )
    parser.add_argument(
        "--check-for",
        type=duration(1),
        default=duration(1)("10m"),
        metavar="TIME",
        help="fail if the VM is not healthy within this time (default: 10m)",
    )
    add_time_option(
        parser,
        default="10m",
        meaning="if this command is killed, the VM is restored automatically after this time",
    )


def duration(least_s: int) -> Callable[[str], float]:
    """Return the parser of a time such as 90s, 30m, 2h or 1d; it returns seconds."""

    def parse(text: str) -> float:
        number, unit = text[:-1], text[-1:]
        if not (number.isascii() and number.isdecimal()) or len(number) > 6 or unit not in UNITS:
            raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m, 2h or 1d")
        seconds = int(number) * UNITS[unit]
        if not least_s <= seconds <= LONGEST_S:
            raise argparse.ArgumentTypeError(f"{text!r} is not between {least_s}s and 7d")
        return float(seconds)

    return parse


def number_between(least: int, most: int) -> Callable[[str], int]:
    """Return the parser of a whole number within these limits."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return parse
