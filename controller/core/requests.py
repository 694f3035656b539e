"""Requests: VMs that somebody wants out of rotation by hand. Content of a blob beside the ledger.

A request is to the planner what an impacting event is: a reason for its VM to be out. The leader
takes the VM out and puts it back under the same laws (floor, write-ahead, exact restore); there is
only nothing to acknowledge. It ends when it is withdrawn, or by itself at `until`.

People write this blob and agents only read it, so it is no part of the ledger: a write by hand can
neither undo what a leader recorded nor need the lease. Requests that have ended are kept for a
while; with them the blob says who wanted what, and when.

Pure: standard library only, no I/O, no clock.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from controller.core import strict_json
from controller.core.fields import Fields, instant_out, minor_of
from controller.core.model import NOTHING_EXTRA, Extra, Request, fold

MAJOR, MINOR = 1, 0
MOST_ENDED = 50
"""How many requests that have ended are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """VMs that are taken out one after the other, and how far that has come."""

    roll_id: str
    what: str
    """What is done to each VM while it is out: the command, or the maintenance."""
    vms: tuple[str, ...]
    """In the order in which they are taken."""
    done: tuple[str, ...]
    """VMs that are finished and back in rotation."""
    by: str
    at: datetime
    runner: str
    """The process that carries it out; whoever goes on with it puts in its own."""
    beat: int = 0
    """Counts up while that process lives."""
    failed: str = ""
    """Why it stopped; empty while it goes on."""
    ended_at: datetime | None = None
    """When the last VM was back, or somebody gave it up."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    @property
    def left(self) -> tuple[str, ...]:
        """The VMs that are still to be done."""
        finished = {fold(vm) for vm in self.done}
        return tuple(vm for vm in self.vms if fold(vm) not in finished)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The whole content of the blob."""

    requests: tuple[Request, ...] = ()
    roll: Roll | None = None
    """The newest roll; only one at a time goes on."""
    minor: int = MINOR
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def standing(self, now: datetime) -> tuple[Request, ...]:
        """Return the requests that have not ended."""
        return tuple(each for each in self.requests if each.stands(now))

    def of(self, vm: str, now: datetime) -> Request | None:
        """Return the request because of which a VM is wanted out; None if there is none."""
        return next((each for each in self.requests if each.wants(vm, now)), None)

    def called(self, request_id: str) -> Request | None:
        """Return the request with this id, also when it has ended."""
        return next((r for r in self.requests if fold(r.request_id) == fold(request_id)), None)

    def adding(self, request: Request) -> "Requests":
        """Return these with a new one; an older request for the same VM ends with it."""
        others = self.withdrawing(request.vm, at=request.at, by=request.by)
        return replace(others, requests=(*others.requests, request))._bounded(request.at)

    def withdrawing(self, vm: str, *, at: datetime, by: str) -> "Requests":
        """Return these without a request for the VM that stands."""
        return replace(
            self,
            requests=tuple(
                replace(each, ended_at=at, ended_by=by) if each.wants(vm, at) else each
                for each in self.requests
            ),
        )

    def extending(self, request_id: str, until: datetime) -> "Requests":
        """Return these with more time for a request, if it was not withdrawn."""
        return replace(
            self,
            requests=tuple(
                replace(each, until=until)
                if each.request_id == request_id and each.ended_at is None
                else each
                for each in self.requests
            ),
        )

    def _bounded(self, now: datetime) -> "Requests":
        ended = [each for each in self.requests if not each.stands(now)]
        dropped = {each.request_id for each in ended[:-MOST_ENDED]}
        return replace(
            self, requests=tuple(r for r in self.requests if r.request_id not in dropped)
        )


# --- JSON ---


def encode(requests: Requests) -> bytes:
    """Return the requests as JSON, with the fields of newer minor versions in their places."""
    document: dict[str, Any] = {
        **requests.extra,
        "version": f"{MAJOR}.{max(requests.minor, MINOR)}",
        "requests": [_request_out(request) for request in requests.requests],
        "roll": _roll_out(requests.roll) if requests.roll else None,
    }
    return json.dumps(document, indent=1).encode("ascii")


def decode(body: bytes) -> Requests:
    """Return the requests that `body` holds; empty content holds none.

    Raises:
        ContractViolation: the content is something else, or of a newer major version.
    """
    if not body:
        return Requests()
    fields = Fields(strict_json.loads(body, "the requests", halves=True), "requests")
    minor = minor_of(fields.text("version"), major=MAJOR, what="requests")
    return Requests(
        requests=fields.each("requests", _request_in),
        roll=fields.object_or_none("roll", _roll_in),
        minor=minor,
        extra=fields.rest(),
    )


def _request_out(request: Request) -> dict[str, Any]:
    return {
        **request.extra,
        "request_id": request.request_id,
        "vm": request.vm,
        "reason": request.reason,
        "by": request.by,
        "at": instant_out(request.at),
        "until": instant_out(request.until),
        "ended_at": instant_out(request.ended_at),
        "ended_by": request.ended_by,
    }


def _request_in(fields: Fields) -> Request:
    return Request(
        request_id=fields.text("request_id"),
        vm=fields.text("vm"),
        reason=fields.text("reason"),
        by=fields.text("by"),
        at=fields.instant("at"),
        until=fields.instant("until"),
        ended_at=fields.instant_or_none("ended_at"),
        ended_by=fields.text("ended_by"),
        extra=fields.rest(),
    )


def _roll_out(roll: Roll) -> dict[str, Any]:
    return {
        **roll.extra,
        "roll_id": roll.roll_id,
        "what": roll.what,
        "vms": list(roll.vms),
        "done": list(roll.done),
        "by": roll.by,
        "at": instant_out(roll.at),
        "runner": roll.runner,
        "beat": roll.beat,
        "failed": roll.failed,
        "ended_at": instant_out(roll.ended_at),
    }


def _roll_in(fields: Fields) -> Roll:
    return Roll(
        roll_id=fields.text("roll_id"),
        what=fields.text("what"),
        vms=fields.texts("vms"),
        done=fields.texts("done"),
        by=fields.text("by"),
        at=fields.instant("at"),
        runner=fields.text("runner"),
        beat=fields.integer("beat"),
        failed=fields.text("failed"),
        ended_at=fields.instant_or_none("ended_at"),
        extra=fields.rest(),
    )


Edit = Callable[[Requests], Requests]
"""A change of the requests; it may be applied again, to what somebody else wrote meanwhile."""
