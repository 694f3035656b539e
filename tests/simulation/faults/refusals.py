"""Requests that Azure refuses from one instant to another, for a history that is played."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Request, Service
from controller.simulator.world.history import Change
from tests.simulation.runner import EPOCH, Simulation

Matches = Callable[[Request], bool]


@contextmanager
def refusing(
    sim: Simulation,
    matches: Matches,
    reply: Fault,
    *,
    from_s: float = 0.0,
    until_s: float = float("inf"),
) -> Iterator[None]:
    """Answer matching requests so, between two instants of the simulation."""
    real = sim.server.faults.take

    def take(request: Request, vm: str | None, now: float) -> Fault | None:
        if from_s <= now - EPOCH < until_s and request.service is Service.ARM and matches(request):
            return reply
        return real(request, vm, now)

    with patch.object(sim.server.faults, "take", take):
        yield


def reply(status: int, body: str = "", *, wait_s: int | None = None) -> Fault:
    """Return a reply with this status, body and Retry-After."""
    headers = () if wait_s is None else (("Retry-After", str(wait_s)),)
    return Fault(effect=Effect.REPLY, status=status, body=body, headers=headers)


def gets(*endings: str) -> Matches:
    """Return whether a request is a GET of a path with such an ending."""
    folded = tuple(ending.casefold() for ending in endings)
    return lambda request: request.method == "GET" and request.path.casefold().endswith(folded)


def at(history: tuple[Change, ...], kind: str, vm: str = "") -> list[float]:
    """Return when something happened, in seconds of the simulation."""
    return [
        each.at - EPOCH
        for each in history
        if each.kind == kind and (not vm or vm in {each.subject, each.detail.get("vm")})
    ]


def first(history: tuple[Change, ...], kind: str, vm: str = "") -> float:
    """Return when something first happened; infinite if it did not."""
    return min(at(history, kind, vm), default=float("inf"))


def asked(history: tuple[Change, ...], ending: str, method: str = "GET") -> list[float]:
    """Return when requests to such a path were answered, in seconds of the simulation."""
    return [
        each.at - EPOCH
        for each in history
        if each.kind == "request"
        and each.detail["method"] == method
        and each.subject.casefold().endswith(ending.casefold())
    ]
