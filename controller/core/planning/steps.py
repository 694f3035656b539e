"""What the parts of the planner yield: one step of a decision about one VM or event.

A part (removal, restoration, acknowledgement) only decides. It yields steps, and `PlanBuilder`
merges the steps of all VMs: it gives out write slots, lets one action run per target, joins the
writes that several VMs share, and leaves alone what has failed until its back-off is over.

A question whose answer can ask for a read is an `Inquiry`: it yields those steps and returns the
answer (`answer = yield from question(...)`).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from controller.core.drain_history import Step
from controller.core.ledger import Entry
from controller.core.planning.actions import Action, HoldReason, Phase
from controller.core.resources import Membership


@dataclass(frozen=True, slots=True)
class Start:
    """Start an action that is no write to a NIC or pool: a read, or an acknowledgement."""

    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Put an entry into the next ledger; with `step`, add a line to the history."""

    entry: Entry
    step: Step | None = None
    detail: str = ""
    claims: tuple[Membership, ...] = ()
    """Record only if write slots are free for these memberships, and reserve them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Add a line to the history of a VM, and change nothing else."""

    vm: str
    step: Step
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Drop the entry of a VM from the next ledger, with a line of history."""

    vm: str
    step: Step
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Take memberships out of rotation, or restore them."""

    memberships: tuple[Membership, ...]
    restore: bool


@dataclass(frozen=True, slots=True)
class Reserve:
    """Start no restore where a removal is written next: it waits for a read."""

    memberships: tuple[Membership, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldBack:
    """Report something that is deliberately not done, and why."""

    subject: str
    """VM name, pool id or event id."""
    reason: HoldReason
    message: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Run a pass at this instant at the latest."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Report the phase of a VM; the last report of a pass counts."""

    vm: str
    phase: Phase
    why: str = ""


PlanStep = Start | Record | Note | Forget | Change | Reserve | HoldBack | WakeAt | Report
Steps = Iterator[PlanStep]
Inquiry = Generator[PlanStep, None, bool]


def hold_vm(vm: str, reason: HoldReason, message: str) -> Steps:
    """Hold a VM, and report it as held for the same reason."""
    yield HoldBack(subject=vm, reason=reason, message=message)
    yield Report(vm=vm, phase=Phase.HELD, why=message)


def start_all(actions: Iterable[Action]) -> Steps:
    """Start every one of the actions."""
    for action in actions:
        yield Start(action)
