"""What is going to go wrong, and when: an endless sequence of steps per lane, drawn from a seed.

Lanes run side by side and each has a source of randomness of its own, so one seed gives the same
steps in every run, whatever the agents make of them. Pauses are part of a step; who leads when it
is taken, and how long Azure needs meanwhile, is not.

Pure: no clock, no I/O.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from tests.support.proxy import Network

LEADER = "whoever leads"
EVERYBODY = "everybody"
SERVICES = (Service.IMDS, Service.ARM, Service.BLOB)
"""What the agents of a set use."""
LEASE_S = 15.0
"""The shortest lease that Azure grants."""
MOST_LATE_S = 10.0
"""The longest stall; what is held back arrives so late at most."""
LONGEST_CUT_S = 75.0
"""How long one agent lacks a service or a permission at most."""
NETWORK = "Microsoft.Network"
PERMISSIONS = (
    f"{NETWORK}/networkInterfaces/read",
    f"{NETWORK}/networkInterfaces/write",
    f"{NETWORK}/loadBalancers/backendAddressPools/join/action",
    f"{NETWORK}/loadBalancers/backendAddressPools/write",
    f"{NETWORK}/loadBalancers/read",
    f"{NETWORK}/locations/operations/read",
    "Microsoft.Compute/virtualMachines/read",
)
"""Permissions that the identity of a VM loses, one at a time."""
NOTICE_S = 300.0
"""The shortest notice to design for (azure.md, 1.3). Events start when they are acknowledged."""
UNANNOUNCED = ("already started", "VM fails")
"""Outages that nobody can know ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One disturbance."""

    after_s: float
    """Pause before it."""
    kind: str
    """What is done; the lane knows how."""
    vms: tuple[str, ...]
    """To whom, in order of preference."""
    for_s: float
    """How long it lasts."""
    service: Service | None = None
    network: Network = Network.CLEAR
    event_type: str = ""


Draw = Callable[[random.Random, Sequence[str]], Step]


def steps(lane: str, seed: int, vms: Sequence[str]) -> Iterator[Step]:
    """Yield the steps of a lane, without end."""
    source = random.Random(f"{seed} {lane}")
    while True:
        yield LANES[lane](source, vms)


def _any_or_leader(source: random.Random, vms: Sequence[str]) -> str:
    """Leaders are where it hurts, so they are hit half of the time."""
    return LEADER if source.random() < 0.5 else source.choice(vms)


def _process(source: random.Random, vms: Sequence[str]) -> Step:
    """An agent is killed and started again, or stopped for less or more than a lease."""
    kind, shortest, longest = source.choice(
        (("kill", 0.5, 12.0), ("stop", 1.0, 10.0), ("long stop", LEASE_S + 1, LEASE_S + 8))
    )
    return Step(
        after_s=source.uniform(3, 10),
        kind=kind,
        vms=(_any_or_leader(source, vms),),
        for_s=source.uniform(shortest, longest),
    )


def _network(source: random.Random, vms: Sequence[str]) -> Step:
    """One agent, or for a moment all of them, and one service can no longer talk as they should."""
    network = source.choice((Network.REFUSED, Network.STALLED, Network.DEAF))
    everybody = source.random() < 0.2
    longest_s = 4.0 if everybody else MOST_LATE_S if network is Network.STALLED else LEASE_S + 5
    return Step(
        after_s=source.uniform(2, 8),
        kind=network.value,
        vms=(EVERYBODY if everybody else _any_or_leader(source, vms),),
        for_s=source.uniform(1, longest_s),
        service=source.choice(SERVICES),
        network=network,
    )


def _azure(source: random.Random, vms: Sequence[str]) -> Step:
    """A service answers badly for a while."""
    return Step(
        after_s=source.uniform(1, 6),
        kind=source.choice(tuple(FAULTS)),
        vms=(EVERYBODY if source.random() < 0.5 else _any_or_leader(source, vms),),
        for_s=source.uniform(1, 8),
    )


def _events(source: random.Random, vms: Sequence[str]) -> Step:
    """Maintenance, or a VM that simply fails. A freeze lasts longer than clients wait."""
    kinds = ("one", "one", "pair", "cancelled", "second impact", "overlap", "back to back")
    kind = source.choice(kinds + UNANNOUNCED)
    event_type = source.choice(("Reboot", "Freeze", "Redeploy"))
    order = source.sample(vms, len(vms))
    return Step(
        after_s=source.uniform(0.5, 4),
        kind=kind,
        vms=(LEADER, *order) if source.random() < 0.3 else tuple(order),
        for_s=8.0 if event_type == "Freeze" else source.uniform(1, 5),
        event_type="" if kind == "VM fails" else event_type,
    )


def _cut(source: random.Random, vms: Sequence[str]) -> Step:
    """One agent cannot reach one service for much longer than a lease."""
    return Step(
        after_s=source.uniform(5, 20),
        kind="cut",
        vms=(_any_or_leader(source, vms),),
        for_s=source.uniform(LEASE_S + 5, LONGEST_CUT_S),
        service=source.choice(SERVICES),
        network=Network.REFUSED,
    )


def _role(source: random.Random, vms: Sequence[str]) -> Step:
    """The identity of one VM loses one permission."""
    return Step(
        after_s=source.uniform(5, 20),
        kind=source.choice(PERMISSIONS),
        vms=(_any_or_leader(source, vms),),
        for_s=source.uniform(LEASE_S, LONGEST_CUT_S),
    )


LANES: Mapping[str, Draw] = {
    "processes": _process,
    "network": _network,
    "cuts": _cut,
    "roles": _role,
    "azure": _azure,
    "events": _events,
}


def _refusal(code: str) -> str:
    return f'{{"error": {{"code": "{code}", "message": "Not now."}}}}'


_ARM = Fault(service=Service.ARM, effect=Effect.REPLY, times=4)
_WRITE = replace(_ARM, method="PUT", times=2)
_OPERATION = replace(_WRITE, effect=Effect.OPERATION, times=1)
_POLL = replace(_ARM, service=Service.IMDS, path_contains="scheduledevents")
FAULTS: Mapping[str, Fault] = {
    "429": replace(
        _ARM,
        status=429,
        headers=(("retry-after", "2"),),
        body=_refusal("SubscriptionRequestsThrottled"),
    ),
    "409": replace(_WRITE, status=409, body=_refusal("AnotherOperationInProgress")),
    "412": replace(_WRITE, status=412, body=_refusal("PreconditionFailed")),
    "500": replace(_ARM, status=500),
    "503": replace(_ARM, status=503),
    "operation failed": replace(_OPERATION, operation="failed"),
    "operation canceled": replace(_OPERATION, operation="canceled"),
    "operation without effect": replace(_OPERATION, operation="no_effect"),
    "lost reply": replace(_WRITE, effect=Effect.RESET_AFTER),
    "no reply": replace(_WRITE, effect=Effect.HANG_AFTER),
    "slow": replace(_ARM, effect=Effect.DELAY, delay_s=1.5),
    "poll 410": replace(_POLL, status=410),
    "poll empty": replace(_POLL, effect=Effect.EMPTY_200),
    "poll garbage": replace(_POLL, effect=Effect.GARBAGE),
}
"""What Azure answers instead, by name; to whom and until when is up to the step."""
