"""The faults a request can meet, by name, and the book that deals them out by the seed.

A storm gives every request it covers the same chance; whether one is hit follows from the seed and
from which request it is, so that the history of a seed is the same wherever it is played.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from controller.simulator.services.faults import Effect, Fault, FaultBook
from controller.simulator.services.http_values import Request, Service
from tests.simulation.memory_transport import unit
from tests.simulation.scenario import Storm

LATE_S = (3.0, 45.0)
"""How long a request that comes late is on its way."""
SPIKE_S = (0.5, 4.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: which requests it can hit, and what it does to them."""

    service: Service
    methods: tuple[str, ...]
    fault: Fault
    path: str = ""
    """What the path has to contain."""
    lease: bool | None = None
    """Whether it has to be about the lease of a blob; None if that does not matter."""

    def covers(self, request: Request) -> bool:
        return (
            request.service is self.service
            and request.method in self.methods
            and self.path in request.path.casefold()
            and self.lease in (None, request.parameter("comp") == "lease")
        )


def _reply(status: int, body: str = "", **headers: str) -> Fault:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Fault(effect=Effect.REPLY, status=status, body=body, headers=named)


def _error(code: str, message: str, detail: str = "") -> str:
    details = f',"details":[{{"code":"{detail}","message":"{message}"}}]' if detail else ""
    return f'{{"error":{{"code":"{code}","message":"{message}"{details}}}}}'


def _operation(outcome: Literal["failed", "canceled", "no_effect"]) -> Fault:
    return Fault(effect=Effect.OPERATION, operation=outcome, delay_s=4.0)


_BUSY = _error(
    "RetryableError", "The call can be retried in 7 seconds.", "RetryableErrorDueToAnotherOperation"
)
_MOVED = _error("AnotherOperationInProgress", "Another operation on this resource is in progress.")
_MATCH = _error("PreconditionFailed", "Precondition failed.", "PreconditionFailedEtagMismatch")
_MANY = _error("SubscriptionRequestsThrottled", "Number of requests exceeded the limit.")
_ALL = ("GET", "PUT", "POST", "HEAD")
_EVENTS, _TOKEN, _NETWORK = (
    "scheduledevents",
    "/metadata/identity/",
    "/providers/microsoft.network/",
)
_COMPUTE, _INSTANCE = "/providers/microsoft.compute/", "/metadata/instance"
_LONG_RUNNING = "/operations/"
_TOO_MANY = _error(
    "OperationNotAllowed", "The server rejected the request: too many requests.", "TooManyRequests"
)
_NO_GROUP = _error("ResourceGroupNotFound", "Resource group 'web-rg' could not be found.")


def _imds(fault: Fault) -> Kind:
    return Kind(Service.IMDS, ("GET",), fault, _EVENTS)


def _arm(methods: tuple[str, ...], fault: Fault) -> Kind:
    return Kind(Service.ARM, methods, fault, _NETWORK)


def _compute(fault: Fault) -> Kind:
    return Kind(Service.ARM, ("GET",), fault, _COMPUTE)


def _instance(fault: Fault) -> Kind:
    return Kind(Service.IMDS, ("GET",), fault, _INSTANCE)


def _operations(fault: Fault) -> Kind:
    return Kind(Service.ARM, ("GET",), fault, _LONG_RUNNING)


def _blob(fault: Fault, methods: tuple[str, ...] = _ALL) -> Kind:
    return Kind(Service.BLOB, methods, fault)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "imds empty": _imds(Fault(effect=Effect.EMPTY_200)),
        "imds hangs": _imds(Fault(effect=Effect.HANG)),
        "imds reset": _imds(Fault(effect=Effect.RESET_BEFORE)),
        "imds 410": _imds(_reply(410, "Gone")),
        "imds 429": _imds(_reply(429, '{"error":"Too Many Requests"}')),
        "imds 500": _imds(_reply(500)),
        "imds garbage": _imds(Fault(effect=Effect.GARBAGE)),
        "imds stale": _imds(Fault(effect=Effect.STALE)),
        "imds loses acks": Kind(Service.IMDS, ("POST",), Fault(effect=Effect.RESET_AFTER), _EVENTS),
        "token refused": Kind(
            Service.IMDS,
            ("GET",),
            _reply(400, '{"error":"invalid_request","error_description":"Identity not found"}'),
            _TOKEN,
        ),
        "token away": Kind(Service.IMDS, ("GET",), _reply(500), _TOKEN),
        "arm 401": _arm(
            ("GET", "PUT"), _reply(401, _error("ExpiredAuthenticationToken", "Expired."))
        ),
        "arm 404": _arm(("GET",), _reply(404, _error("ResourceGroupNotFound", "Not found."))),
        "arm 409": _arm(("PUT",), _reply(409, _MOVED)),
        "arm 412": _arm(("PUT",), _reply(412, _MATCH)),
        "arm 429": _arm(("GET", "PUT"), _reply(429, _MANY, retry_after="9")),
        "arm busy": _arm(("PUT",), _reply(429, _BUSY)),
        "arm 500": _arm(("GET", "PUT"), _reply(500, _error("InternalServerError", "Failed."))),
        "arm 503": _arm(("GET", "PUT"), _reply(503)),
        "arm garbage": _arm(("GET", "PUT"), Fault(effect=Effect.GARBAGE)),
        "arm hangs": _arm(("GET", "PUT"), Fault(effect=Effect.HANG)),
        "arm reset": _arm(("GET", "PUT"), Fault(effect=Effect.RESET_BEFORE)),
        "arm loses replies": _arm(("GET", "PUT"), Fault(effect=Effect.RESET_AFTER)),
        "arm loses writes": _arm(("PUT",), Fault(effect=Effect.HANG_AFTER)),
        "arm stale": _arm(("GET",), Fault(effect=Effect.STALE)),
        "operation failed": _arm(("PUT",), _operation("failed")),
        "operation canceled": _arm(("PUT",), _operation("canceled")),
        "operation without effect": _arm(("PUT",), _operation("no_effect")),
        "blob 503": _blob(_reply(503)),
        "blob hangs": _blob(Fault(effect=Effect.HANG)),
        "blob reset": _blob(Fault(effect=Effect.RESET_BEFORE)),
        "blob loses replies": _blob(Fault(effect=Effect.RESET_AFTER)),
        "blob loses writes": _blob(Fault(effect=Effect.HANG_AFTER), ("PUT",)),
    }
)
"""Faults of the services, by name."""

MORE_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "compute 404": _compute(_reply(404, _NO_GROUP)),
        "compute 429": _compute(_reply(429, _TOO_MANY)),
        "compute 500": _compute(_reply(500, _error("InternalServerError", "Failed."))),
        "compute garbage": _compute(Fault(effect=Effect.GARBAGE)),
        "compute hangs": _compute(Fault(effect=Effect.HANG)),
        "compute reset": _compute(Fault(effect=Effect.RESET_BEFORE)),
        "compute stale": _compute(Fault(effect=Effect.STALE)),
        "instance 500": _instance(_reply(500)),
        "instance hangs": _instance(Fault(effect=Effect.HANG)),
        "network throttled": _arm(("GET", "PUT"), _reply(429, _MANY)),
        "operation 404": _operations(_reply(404, _error("NotFound", "Not found."))),
        "operation 500": _operations(_reply(500, _error("InternalServerError", "Failed."))),
        "operation hangs": _operations(Fault(effect=Effect.HANG)),
    }
)
"""Faults that hardships draw, and ordinary storms do not."""
ALL_KINDS: Mapping[str, Kind] = MappingProxyType({**KINDS, **MORE_KINDS})

_GRAPH = "/providers/microsoft.resourcegraph/"


def _graph(fault: Fault) -> Kind:
    return Kind(Service.ARM, ("POST",), fault, _GRAPH)


def _acknowledge(fault: Fault) -> Kind:
    return Kind(Service.ARM, ("POST",), fault, "/acknowledge")


SECOND_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "graph 403": _graph(_reply(403, _error("AuthorizationFailed", "Not permitted."))),
        "graph 429": _graph(_reply(429, _error("RateLimiting", "Too many."), retry_after="9")),
        "graph garbage": _graph(Fault(effect=Effect.GARBAGE)),
        "graph hangs": _graph(Fault(effect=Effect.HANG)),
        "graph oversized": _graph(Fault(effect=Effect.OVERSIZED)),
        "imds refuses acks": Kind(Service.IMDS, ("POST",), _reply(500), _EVENTS),
        "imds acks hang": Kind(Service.IMDS, ("POST",), Fault(effect=Effect.HANG), _EVENTS),
        "arm refuses acks": _acknowledge(_reply(503)),
        "arm loses acks": _acknowledge(Fault(effect=Effect.RESET_AFTER)),
        "arm throttles acks": _acknowledge(_reply(429, _MANY, retry_after="45")),
    }
)
"""Faults of the second source and of both acknowledgements; only `drawn_second_source` draws them.
"""
_LEDGER, _OF_VM = "/web.json", ".vms/web-"
_HANGS = Fault(effect=Effect.HANG)
_REQUESTS = {
    "acknowledgement": Kind(Service.IMDS, ("POST",), _HANGS, _EVENTS),
    "token": Kind(Service.IMDS, ("GET",), _HANGS, _TOKEN),
    "ledger write": Kind(Service.BLOB, ("PUT",), _HANGS, _LEDGER, lease=False),
    "ledger read": Kind(Service.BLOB, ("GET",), _HANGS, _LEDGER),
    "lease read": Kind(Service.BLOB, ("HEAD",), _HANGS, _LEDGER),
    "lease write": Kind(Service.BLOB, ("PUT",), _HANGS, _LEDGER, lease=True),
    "own blob write": Kind(Service.BLOB, ("PUT",), _HANGS, _OF_VM),
    "report read": Kind(Service.BLOB, ("GET",), _HANGS, _OF_VM),
    "NIC read": Kind(Service.ARM, ("GET",), _HANGS, "/networkinterfaces"),
    "NIC write": Kind(Service.ARM, ("PUT",), _HANGS, "/networkinterfaces/"),
    "operation read": Kind(Service.ARM, ("GET",), _HANGS, _LONG_RUNNING),
    "pool read": Kind(Service.ARM, ("GET",), _HANGS, "/loadbalancers/"),
    "pool write": Kind(Service.ARM, ("PUT",), _HANGS, "/backendaddresspools/"),
    "VM read": Kind(Service.ARM, ("GET",), _HANGS, "/virtualmachines"),
}
_EFFECTS = {
    "500": _reply(500),
    "hangs": _HANGS,
    "loses replies": Fault(effect=Effect.RESET_AFTER),
    "reset": Fault(effect=Effect.RESET_BEFORE),
}
NARROW_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        f"{request}: {effect}": replace(kind, fault=fault)
        for request, kind in _REQUESTS.items()
        for effect, fault in _EFFECTS.items()
    }
)
"""Faults of one kind of request, while all others of the service succeed."""
EVERY_KIND: Mapping[str, Kind] = MappingProxyType({**ALL_KINDS, **SECOND_KINDS, **NARROW_KINDS})

JOURNEYS = ("slow", "late")
"""Faults of the way to ARM and Blob: a long one, and one longer than the sender waits."""
LATE_LEDGER = "late ledger"
"""A late journey of what is written to the ledger, and of nothing else."""
RIVAL = "rival"
"""Somebody who changes a NIC or pool just after an agent has read it."""


class Weather(FaultBook):
    """Deals out the faults of a scenario's storms."""

    def __init__(
        self,
        seed: int,
        storms: Sequence[Storm],
        *,
        start: float,
        struck: Callable[[str], None],
        arrived: Callable[[Request, str], None],
    ) -> None:
        super().__init__()
        self._seed, self._start, self._struck, self._arrived = seed, start, struck, arrived
        self._storms = [storm for storm in storms if storm.kind in EVERY_KIND]
        self._seen: dict[tuple[str, str, str, str], int] = {}

    def take(self, request: Request, vm: str | None, now: float) -> Fault | None:
        """Return the fault that hits this request, which has just arrived."""
        self._arrived(request, vm or "")
        at_s = now - self._start
        for storm in self._storms:
            if not storm.from_s <= at_s < storm.until_s or storm.vm not in ("", vm):
                continue
            kind = EVERY_KIND[storm.kind]
            if not kind.covers(request) or storm.path not in request.path.casefold():
                continue
            which = (storm.kind, vm or "", request.method, request.path)
            number = self._seen[which] = self._seen.get(which, 0) + 1
            if unit(self._seed, *which, number) < storm.chance:
                self._struck(storm.kind)
                return _waiting(kind.fault, storm.wait_s)
        return None


def _waiting(fault: Fault, wait_s: int) -> Fault:
    """Return the fault with its `Retry-After`."""
    if not wait_s:
        return fault
    return replace(fault, headers=(*fault.headers, ("Retry-After", str(wait_s))))


def between(low: float, high: float, share: float) -> float:
    """Return the number that lies at this share of the way."""
    return low + (high - low) * share
