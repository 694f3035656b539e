"""What one simulated history starts from: plain data, drawn from a seed or written by hand.

Nothing here runs. `draw` makes scenarios from seeds, `play` plays them. Times are seconds since
the beginning of the simulation unless a name says otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


def _nothing() -> Mapping[str, object]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Act:
    """One thing done to the world, or to a process, at one instant. `play` knows every `what`."""

    at_s: float
    what: str
    arguments: Mapping[str, object] = field(default_factory=_nothing)

    def __str__(self) -> str:
        given = " ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.what} {given}".rstrip()


@dataclass(frozen=True, slots=True)
class Storm:
    """A time in which requests meet one kind of fault, each with a probability."""

    kind: str
    """A key of `request_faults.ALL_KINDS`, or `cut`: the link carries nothing."""
    from_s: float
    until_s: float
    chance: float = 1.0
    vm: str = ""
    """Whose requests; empty is everybody's."""
    service: str = ""
    """Of a `cut`: imds, arm or blob."""
    path: str = ""
    """What the path of a request has to contain, besides what the kind requires."""
    wait_s: int = 0
    """Of a kind that throttles: its `Retry-After`."""

    def __str__(self) -> str:
        whose = self.vm or "everybody"
        what = f"{self.kind} {self.service}{self.path}".rstrip()
        wait = f", wait {self.wait_s} s" if self.wait_s else ""
        return f"{what} for {whose} until {self.until_s:.0f} s, chance {self.chance:.2f}{wait}"


@dataclass(frozen=True, slots=True)
class ClockError:
    """How wrong the clocks of a VM are."""

    ahead_s: float = 0.0
    drift: float = 0.0
    """Seconds gained per second, by the wall clock and by the monotonic clock alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How the resources of a set are spread, beyond their numbers."""

    network_group: str = ""
    """Resource group of NICs and load balancers; empty is that of the VMs."""
    balancer_group: str = ""
    """Resource group of the second load balancer; empty is that of the first one."""
    moved_pools: tuple[str, ...] = ()
    """NIC-based pools on a second load balancer."""
    outside: tuple[tuple[str, str], ...] = ()
    """(VM, pool): the VM is no member of the pool."""
    more_configurations: int = 0
    """Further ipConfigurations of every first NIC; each is in all NIC-based pools of its VM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondSet:
    """Another availability set with agents, whose VMs are in the same pools."""

    vms: int
    """Named `shop-1` and so on."""
    name: str = "shop"
    resource_group: str = "web-rg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the machine and the application of a VM take part in a drain."""

    connections: int = 3
    """Established connections while the VM is open."""
    ends_within_s: float = 0.0
    """They end within this time after the VM has closed."""
    never_quiet: bool = False
    """Whether one of them never ends."""
    uncounted: bool = False
    """Whether connections cannot be counted."""
    read_only: bool = False
    """Whether the flag file cannot be written."""
    responder: bool = True
    """Whether a probe responder runs."""
    probed_by_rule: bool = True
    """Whether every rule sends probes of its own."""
    hooks: Mapping[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    """How the first run of a hook ends (`done`, `failed`, `hanging`), and after how long."""
    ready_after_s: float = 0.0
    """From a VM that is up to its application that is ready."""
    dies: frozenset[tuple[str, int]] = frozenset()
    """Where its agent dies: at which call of the machine, and at which time of that call."""
    dies_until_s: float = math.inf
    """Later than that no agent dies: like every fault, that ends with the calm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One history before it happens."""

    seed: int
    name: str = ""
    vms: int = 3
    nics_per_vm: int = 1
    pools: tuple[str, ...] = ("app",)
    ip_pools: tuple[str, ...] = ()
    ipv6: bool = False
    foreign_vms: int = 0
    shape: Shape = Shape()
    second_set: SecondSet | None = None
    flexible: bool = False
    """Whether the set is a flexible scale set from the start."""
    placement_groups: int = 1
    """Of a scale set; each has an event document of its own."""
    settings: Mapping[str, object] = field(default_factory=_nothing)
    """Knobs of the simulated Azure."""
    policy: Mapping[str, object] = field(default_factory=_nothing)
    drain: Mapping[str, object] = field(default_factory=_nothing)
    hooks: tuple[str, ...] = ()
    """Stages with a hook."""
    habits: Mapping[str, Habits] = field(default_factory=dict[str, Habits])
    """By VM; those of an ordinary application for a VM that is not here."""
    election: Mapping[str, object] = field(default_factory=_nothing)
    watch: Mapping[str, object] = field(default_factory=_nothing)
    azure: Mapping[str, object] = field(default_factory=_nothing)
    events: Mapping[str, object] = field(default_factory=_nothing)
    publishes: bool = False
    """Whether the set sends its events to Resource Graph."""
    may_acknowledge: bool = False
    """Whether the agents may acknowledge through Resource Manager."""
    own_policy: Mapping[str, Mapping[str, object]] = field(
        default_factory=dict[str, Mapping[str, object]]
    )
    """Keys of `policy` in which the configuration of a VM differs, by VM."""
    floors: Mapping[str, int | str] = field(default_factory=dict[str, int | str])
    """`min_in_service` by pool name; 1 where nothing is said."""
    shout: bool = False
    """Whether the operator wrote the pool ids in capitals."""
    wait_after_expiry_s: float = 0.0
    """How long storage refuses an expired lease to others."""
    clocks: Mapping[str, ClockError] = field(default_factory=dict[str, ClockError])
    older: frozenset[str] = frozenset()
    """VMs whose agents have an older version."""
    unable: frozenset[str] = frozenset()
    """VMs whose agents have a fault that does not end with the others."""
    acts: tuple[Act, ...] = ()
    storms: tuple[Storm, ...] = ()
    calm_at_s: float = 0.0
    """From here on nothing goes wrong any more, and everything has to come right."""
    patience_s: float = 100.0
    """How long after that the platform keeps up events that nobody acknowledges."""
    converge_within_s: float = 420.0
    """After the calm began, or after the last event left if that is later."""
    idle_s: float = 20.0
    """How long the set is watched doing nothing in the end."""
    look_s: float = 1.0
    """How often a standby looks whether the lease is free; what is shipped is 1."""
    boot_s: float = 8.0
    """From a VM that is up to its agent that runs."""
