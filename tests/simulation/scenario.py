"""What one simulated history starts from: plain data, drawn from a seed or written by hand.

Nothing here runs. `draw` makes scenarios from seeds, `play` plays them. Times are seconds since
the beginning of the simulation unless a name says otherwise.
"""

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
    """A key of `weather.KINDS`, or `cut`: the link carries nothing."""
    from_s: float
    until_s: float
    chance: float = 1.0
    vm: str = ""
    """Whose requests; empty is everybody's."""
    service: str = ""
    """Of a `cut`: imds, arm or blob."""

    def __str__(self) -> str:
        whose = self.vm or "everybody"
        what = f"{self.kind} {self.service}".rstrip()
        return f"{what} for {whose} until {self.until_s:.0f} s, chance {self.chance:.2f}"


@dataclass(frozen=True, slots=True)
class ClockError:
    """How wrong the clocks of a VM are."""

    ahead_s: float = 0.0
    drift: float = 0.0
    """Seconds gained per second, by the wall clock and by the monotonic clock alike."""


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
    settings: Mapping[str, object] = field(default_factory=_nothing)
    """Knobs of the simulated Azure."""
    policy: Mapping[str, object] = field(default_factory=_nothing)
    election: Mapping[str, object] = field(default_factory=_nothing)
    watch: Mapping[str, object] = field(default_factory=_nothing)
    azure: Mapping[str, object] = field(default_factory=_nothing)
    floors: Mapping[str, int | str] = field(default_factory=dict[str, int | str])
    """`min_in_service` by pool name; 1 where nothing is said."""
    shout: bool = False
    """Whether the operator wrote the pool ids in capitals."""
    wait_after_expiry_s: float = 0.0
    """How long storage refuses an expired lease to others."""
    clocks: Mapping[str, ClockError] = field(default_factory=dict[str, ClockError])
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
