"""`lb-drain acknowledge` and `lb-drain hold`: what operators decide about one event."""

import argparse
from typing import TYPE_CHECKING

from controller.cli.command import CommandGroup
from controller.cli.options import add_reason_option, add_set_options, add_time_option
from controller.cli.terminal import confirmed

if TYPE_CHECKING:
    from controller.core.event_record import WatchedEvent
    from controller.operator.drain_client import DrainClient


def add_parser(commands: CommandGroup) -> None:
    """Add both commands."""
    acknowledge = commands.add(
        "acknowledge",
        _acknowledge,
        summary="acknowledge an event now, although policy waits",
        details="The leader acknowledges the event as soon as every VM in it is out of rotation, "
        "whatever [policy] requires of its type, lead_time_s, connection_drain_s and VMs in no "
        "managed pool. An acknowledgement that was sent cannot be taken back.",
        examples=("1B2C3D4E", "1B2C3D4E --withdraw"),
    )
    _add_options(acknowledge, default="1d")
    acknowledge.add_argument(
        "--force",
        action="store_true",
        help="acknowledge even while VMs of the event are in rotation. Suspends law S1 (ack): "
        "Azure can start the event at once, which cuts their connections. Asks for confirmation",
    )
    acknowledge.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    hold = commands.add(
        "hold",
        _hold,
        summary="do not acknowledge an event, for 7 days at most",
        details="Its VMs are drained as ever, and the event starts at its NotBefore. If that is "
        "after the hold, the leader acknowledges it then: hold it again before. Suspends law L2 "
        "(progress) for this acknowledgement.",
        examples=("1B2C3D4E --reason 'batch job until 14:00'", "1B2C3D4E --withdraw"),
    )
    _add_options(hold, default="7d")


def _add_options(parser: argparse.ArgumentParser, *, default: str) -> None:
    parser.add_argument(
        "event",
        metavar="EVENT",
        help="id of an announced event, or its first characters; lb-drain plan shows it",
    )
    parser.add_argument("--withdraw", action="store_true", help="withdraw this decision")
    add_time_option(parser, default=default, meaning="the decision ends after this time")
    add_reason_option(parser)
    add_set_options(parser)


def _acknowledge(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.core.controls import Decision
    from controller.core.printable import printable
    from controller.operator.controls import announced, decide, event_text, in_rotation, withdraw

    async def work(client: "DrainClient") -> None:
        if options.withdraw:
            ended = await withdraw(client, options.event, Decision.ACKNOWLEDGE)
            print(printable(f"Withdrawn: {ended}. What was sent to Azure stays."))
            return
        event = await announced(client, options.event, Decision.ACKNOWLEDGE)
        inside = in_rotation(client.ledger_store.ledger, event)
        if options.force:
            _check_force(event, inside, yes=options.yes)
        await decide(
            client,
            event,
            Decision.ACKNOWLEDGE,
            for_s=options.for_s,
            reason=options.reason,
            forced=options.force,
        )
        when = "now" if options.force or not inside else f"when {', '.join(inside)} is out"
        print(printable(f"The leader acknowledges {event_text(event)} {when}."))
        if inside and not options.force:
            print(printable(f"To take it out now: {client.command('drain', inside[0])}"))
        print(f"To withdraw: {client.command('acknowledge', event.event_id, '--withdraw')}")

    # In a dry run no VM leaves its pools, and nothing is acknowledged.
    return run_with_client(options, work, requests_drains=not options.withdraw)


def _check_force(event: "WatchedEvent", inside: tuple[str, ...], *, yes: bool) -> None:
    from controller.core.printable import printable
    from controller.errors import NotDone
    from controller.operator.controls import event_text

    vms = ", ".join(inside) or "any VM that returns to rotation"
    question = printable(
        f"This suspends law S1 (ack) for {event_text(event)}: Azure can start it at once, while "
        f"{vms} is in rotation. Acknowledge it?"
    )
    if not yes and not confirmed(question):
        raise NotDone("nothing was changed")


def _hold(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.core.controls import Decision
    from controller.core.printable import printable
    from controller.operator.controls import (
        acknowledged_after,
        announced,
        decide,
        event_text,
        withdraw,
    )

    async def work(client: "DrainClient") -> None:
        if options.withdraw:
            ended = await withdraw(client, options.event, Decision.HOLD)
            print(printable(f"Withdrawn: {ended}."))
            return
        event = await announced(client, options.event, Decision.HOLD)
        made = await decide(
            client, event, Decision.HOLD, for_s=options.for_s, reason=options.reason
        )
        print(printable(f"{event_text(event)} is not acknowledged, {made.author}."))
        if later := acknowledged_after(event, made.until):
            print(f"{later} To hold it again before that: {client.command('hold', event.event_id)}")
        print(f"To withdraw: {client.command('hold', event.event_id, '--withdraw')}")

    return run_with_client(options, work)
