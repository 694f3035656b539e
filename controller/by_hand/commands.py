"""What `drain`, `restore`, `roll` and `maintenance` do with their arguments."""

import argparse
import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable

from controller import logs
from controller.by_hand.command import addresses_of, checked, command_task
from controller.by_hand.hand import Hand, open_hand
from controller.by_hand.maintenance import Maintainer, choose, look
from controller.by_hand.maintenance_table import as_json, show
from controller.by_hand.roll import Roller, abandon, order
from controller.clock import SystemClock
from controller.config import DEFAULT_CONFIG, load
from controller.core.model import fold
from controller.unanswered import naming_the_endpoint

DONE = 0


def drain(options: argparse.Namespace) -> int:
    """Ask for one VM, and wait if told to."""

    async def ask(hand: Hand) -> None:
        request = await hand.drain(options.vm, for_s=options.for_s, reason=options.reason)
        print(f"{request.vm}: asked for until {request.until:%Y-%m-%d %H:%M:%S} UTC", flush=True)
        if options.wait:
            await hand.until_out(request)
            print(f"{request.vm}: out of rotation, its connections had their time", flush=True)
        print(f"put it back with: {hand.command('restore', request.vm)}")

    return _by_hand(options, ask, names=False)


def restore(options: argparse.Namespace) -> int:
    """End what was asked for one VM, and wait if told to."""

    async def ask(hand: Hand) -> None:
        stood = await hand.restore(options.vm)
        said = "to be put back" if stood else "nobody has asked for it"
        print(f"{options.vm}: {said}", flush=True)
        if options.wait and await hand.until_back(options.vm):
            print(f"{options.vm}: in service", flush=True)
        elif options.wait:
            print(f"{options.vm}: is not out because of us", flush=True)

    return _by_hand(options, ask, names=False)


def roll(options: argparse.Namespace) -> int:
    """Go through the set, go on, or give up."""

    async def go(hand: Hand) -> None:
        if options.abandon:
            await _abandon(hand)
            return
        addresses = await addresses_of(hand.azure, hand.availability_set_id)
        task = command_task(
            options.shell_command,
            addresses=addresses,
            check=options.check,
            settle_s=options.settle,
            check_for_s=options.check_for,
        )
        roller = Roller(hand, task, for_s=options.for_s)
        if options.resume:
            await roller.resume()
        else:
            chosen = tuple(hand.named(vm) for vm in options.vms)
            await roller.begin(chosen or order(hand.vms, last=hand.here))
        print("all done", flush=True)

    return _by_hand(options, go, names=True)


def maintenance(options: argparse.Namespace) -> int:
    """Show what Compute says of planned maintenance."""

    async def ask(hand: Hand) -> None:
        statuses = await look(hand)
        if options.json:
            print(json.dumps(as_json(statuses, hand.availability_set_id)))
        else:
            show(statuses)

    return _by_hand(options, ask, names=False)


def start_maintenance(options: argparse.Namespace) -> int:
    """Have the VMs maintained whose maintenance may be started now, one by one."""

    async def go(hand: Hand) -> None:
        if options.abandon:
            await _abandon(hand)
            return
        named = tuple(hand.named(vm) for vm in options.vms)
        statuses = await look(hand)
        maintainer = Maintainer(
            hand,
            {fold(each.name): each.vm_id for each in statuses},
            over_for_s=options.check_for,
            well=checked(
                options.check,
                addresses=await addresses_of(hand.azure, hand.availability_set_id)
                if options.check
                else {},
                settle_s=options.settle,
                check_for_s=options.check_for,
            ),
        )
        roller = Roller(hand, maintainer.task(), for_s=options.for_s)
        if options.resume:
            await roller.resume()
            print("all done", flush=True)
            return
        choice = choose(statuses, named, hand.here)
        for vm, why in choice.others.items():
            print(f"{vm}: left alone, {why}", flush=True)
        if not choice.vms:
            print("nothing to be done", flush=True)
            return
        print(f"one after the other: {', '.join(choice.vms)}", flush=True)
        if fold(hand.here) in {fold(vm) for vm in choice.vms}:
            print(
                f"{hand.here} is the VM this runs on: it comes last, and its maintenance may end "
                "this command; go on with --resume then",
                flush=True,
            )
        await roller.begin(choice.vms)
        print("all done", flush=True)

    return _by_hand(options, go, names=True)


async def _abandon(hand: Hand) -> None:
    given_up = await abandon(hand)
    print(f"given up: {given_up.what}; not done: {', '.join(given_up.left) or 'nothing'}")


def _set_options(options: argparse.Namespace) -> tuple[str, ...]:
    """Return what another command needs to find the same set."""
    given: tuple[str, ...] = ()
    if options.config != DEFAULT_CONFIG:
        given += ("--config", str(options.config))
    if options.availability_set:
        given += ("--availability-set", options.availability_set)
    return given


def _by_hand(
    options: argparse.Namespace, work: Callable[[Hand], Awaitable[None]], *, names: bool
) -> int:
    loaded = load(options.config, os.environ)
    logs.setup(logging.ERROR)

    async def run() -> None:
        # SIGTERM ends it like ^C: what was asked for stands, and that is said.
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with open_hand(
            loaded.settings,
            environ=os.environ,
            clock=SystemClock(),
            say=lambda text: print(text, flush=True),
            availability_set_id=options.availability_set,
            options=_set_options(options),
            names=names,
        ) as hand:
            await work(hand)

    with naming_the_endpoint(loaded, str(options.config)):
        asyncio.run(run())
    return DONE
