"""Going through the VMs of a set one at a time: out, do something to it, healthy, back, next.

How far it has come stands in the blob beside the ledger, so that somebody can go on after an
interruption. The one who carries it out gives signs of life there; each also gives the VM that is
out more time, so that a VM whose roll has died comes back by itself.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType

from controller.by_hand.hand import MOST_TEXT, Hand
from controller.core.model import Request, fold
from controller.core.requests import Requests, Roll
from controller.errors import ControllerError, NotDone

BEAT_S = 15.0
SILENT_S = 45.0
"""Whoever has given no sign of life for so long has died."""
BRIEF = 60
"""So many letters of a command are told."""
NO_DOMAINS: Mapping[str, int] = MappingProxyType({})
HELD_S = 24 * 3600.0
"""For so long a VM stays out at which a roll has failed, unless somebody decides otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is done to every VM.

    Args:
        what: tells it to people, and a roll that goes on must have the same.
        work: does it to one VM that is out, and returns when it is over.
        healthy: returns when the VM may take traffic again.
    """

    what: str
    work: Callable[[str], Awaitable[None]]
    healthy: Callable[[str], Awaitable[None]]
    """Both raise NotDone."""


class Untouched(NotDone):
    """Raised by the work when it has done nothing to the VM, so that the VM may come back."""


class Roller:
    """Carries out one roll. Stops at the first failure and leaves that VM out, and says so."""

    def __init__(self, hand: Hand, task: Task, *, for_s: float) -> None:
        self._hand, self._task, self._for_s = hand, task, for_s
        self._runner = str(uuid.uuid4())
        self._out: Request | None = None
        self._working = False
        """Something may have been done to the VM that is out."""

    async def begin(self, vms: tuple[str, ...]) -> None:
        """Begin a new roll, and carry it out.

        Raises:
            NotDone: another one is unfinished, or it failed; says at which VM, and how to go on.
        """
        hand = self._hand

        def start(requests: Requests) -> Requests:
            unfinished = _unfinished(requests)
            if unfinished is not None and unfinished.runner != self._runner:
                raise NotDone(
                    f"the roll of {unfinished.by} ({unfinished.what}) has not ended, with "
                    f"{', '.join(unfinished.left)} left. If nobody carries it out any more, go on "
                    "with the same command line and --resume, or give it up with --abandon"
                )
            roll = Roll(
                roll_id=self._runner,
                what=self._task.what,
                vms=vms,
                done=(),
                by=hand.who,
                at=hand.now(),
                runner=self._runner,
            )
            return replace(requests, roll=roll)

        await hand.requests.change(start)
        await self._carry_out()

    async def resume(self) -> None:
        """Go on with an unfinished roll.

        Raises:
            NotDone: there is none, it is another one, somebody carries it out, or it failed.
        """
        hand = self._hand
        await hand.requests.refresh()
        found = _unfinished(hand.requests.requests)
        if found is None:
            raise NotDone("there is no unfinished roll to go on with")
        if found.what != self._task.what:
            raise NotDone(
                f"the unfinished roll is another one: {found.what}. Say the same again, or give it "
                "up with --abandon"
            )
        await until_silent(hand, found)

        def take_over(requests: Requests) -> Requests:
            roll = _unfinished(requests)
            if roll is None or roll.runner not in {found.runner, self._runner}:
                raise NotDone("somebody else went on with the roll meanwhile")
            return replace(requests, roll=replace(roll, runner=self._runner, failed=""))

        await hand.requests.change(take_over)
        await self._carry_out()

    async def _carry_out(self) -> None:
        """Do it all, giving signs of life; whoever was taken over stops at once."""
        tasks = [asyncio.create_task(self._all()), asyncio.create_task(self._live())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _all(self) -> None:
        try:
            while (vm := self._next()) is not None:
                await self._one(vm)
            await self._hand.insist(self._ended)
        except ControllerError as error:
            await self._stop(str(error))
            raise
        except asyncio.CancelledError:
            with suppress(ControllerError):
                await asyncio.shield(self._stop("interrupted"))
            raise

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._hand.insist(self._beating)

    def _next(self) -> str | None:
        left = self._mine(self._hand.requests.requests).left
        return left[0] if left else None

    async def _one(self, vm: str) -> None:
        hand, self._working = self._hand, False
        await hand.until_alone(vm)
        hand.say(f"{vm}: to be taken out of rotation")
        self._out = await hand.drain(
            vm, for_s=self._for_s, reason=f"roll: {_brief(self._task.what)}"
        )
        await hand.until_out(self._out)
        hand.say(f"{vm}: out and empty; now {_brief(self._task.what)}")
        self._working = True
        try:
            await self._task.work(vm)
        except Untouched:
            self._working = False
            raise
        await self._task.healthy(vm)
        hand.say(f"{vm}: healthy, to be put back")
        self._out, self._working = None, False
        await hand.insist(lambda requests: self._withdrawn(requests, vm))
        await hand.until_back(vm)
        await hand.insist(lambda requests: self._done(requests, vm))
        hand.say(f"{vm}: in service")

    async def _stop(self, why: str) -> None:
        """Say in the blob why the roll stops.

        A VM at which nothing was done yet comes back; one that may be half done stays out.
        """
        out, hand = self._out, self._hand
        held_until = hand.now() + timedelta(seconds=HELD_S)

        def stop(requests: Requests) -> Requests:
            at = f"{out.vm}: " if out is not None else ""
            stopped = replace(
                requests, roll=replace(self._mine(requests), failed=f"{at}{why}"[:MOST_TEXT])
            )
            if out is None:
                return stopped
            if self._working:
                return stopped.extending(out.request_id, held_until)
            return stopped.withdrawing(out.vm, at=hand.now(), by=hand.who)

        await hand.requests.change(stop)
        if out is not None and self._working:
            hand.say(
                f"{out.vm} stays out of rotation until {held_until:%Y-%m-%d %H:%M} UTC at the "
                f"latest: put it back with `{hand.command('restore', out.vm)}`, or go on with the "
                "same command line and --resume"
            )
        elif out is not None:
            hand.say(f"{out.vm}: nothing was done to it yet, to be put back")

    # --- changes of the blob ---

    def _mine(self, requests: Requests) -> Roll:
        roll = requests.roll
        if roll is None or roll.runner != self._runner or roll.ended_at is not None:
            raise NotDone("the roll was given up, or taken over, by somebody else")
        return roll

    def _beating(self, requests: Requests) -> Requests:
        roll = self._mine(requests)
        alive = replace(requests, roll=replace(roll, beat=roll.beat + 1))
        if self._out is not None:
            until = self._hand.now() + timedelta(seconds=self._for_s)
            alive = alive.extending(self._out.request_id, until)
        return alive

    def _withdrawn(self, requests: Requests, vm: str) -> Requests:
        self._mine(requests)
        return requests.withdrawing(vm, at=self._hand.now(), by=self._hand.who)

    def _done(self, requests: Requests, vm: str) -> Requests:
        roll = self._mine(requests)
        return replace(requests, roll=replace(roll, done=(*roll.done, vm)))

    def _ended(self, requests: Requests) -> Requests:
        return replace(requests, roll=replace(self._mine(requests), ended_at=self._hand.now()))


async def until_silent(hand: Hand, found: Roll) -> None:
    """Return when it is sure that nobody carries out this roll any more.

    Raises:
        NotDone: somebody does.
    """
    if found.failed:
        return
    hand.say(f"looking for {SILENT_S:.0f} s whether the roll of {found.by} still goes on")
    loop = asyncio.get_running_loop()
    until = loop.time() + SILENT_S
    while loop.time() < until:
        await asyncio.sleep(BEAT_S / 3)
        await hand.requests.refresh()
        roll = _unfinished(hand.requests.requests)
        if roll is None or (roll.runner, roll.beat) != (found.runner, found.beat):
            raise NotDone(f"the roll of {found.by} goes on: end it there, with ^C")
        if roll.failed:
            return


async def abandon(hand: Hand) -> Roll:
    """Give up the unfinished roll; a VM that is out because of it comes back.

    Raises:
        NotDone: there is none, or somebody carries it out.
    """
    await hand.requests.refresh()
    found = _unfinished(hand.requests.requests)
    if found is not None:
        await until_silent(hand, found)

    def give_up(requests: Requests) -> Requests:
        roll = _unfinished(requests)
        if roll is None:
            raise NotDone("there is no unfinished roll to give up")
        given_up = replace(requests, roll=replace(roll, ended_at=hand.now()))
        for vm in roll.left[:1]:
            given_up = given_up.withdrawing(vm, at=hand.now(), by=hand.who)
        return given_up

    requests = await hand.requests.change(give_up)
    if requests.roll is None:
        raise NotDone("the roll is gone: its blob was deleted")
    return requests.roll


def order(
    vms: tuple[str, ...], last: str, domains: Mapping[str, int] = NO_DOMAINS
) -> tuple[str, ...]:
    """Return the VMs in the order they are taken: by name, the one we run on at the end.

    With their update domains, by folded name, those of one domain come together.
    """
    return tuple(
        sorted(vms, key=lambda vm: (fold(vm) == fold(last), domains.get(fold(vm), 0), fold(vm)))
    )


def _brief(what: str) -> str:
    """Return as much of a command as helps to know it again."""
    return what if len(what) <= BRIEF else f"{what[: BRIEF - 3]}..."


def _unfinished(requests: Requests) -> Roll | None:
    roll = requests.roll
    return roll if roll is not None and roll.ended_at is None else None
