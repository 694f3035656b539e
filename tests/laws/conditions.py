"""What the laws need to know about a set besides its history."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controller.simulator.world.history import Change


def on_arrival(change: Change) -> float:
    """Return the instant of a change: its request left when it arrived."""
    return change.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The configuration of a set, and how exactly its history shows what agents could know."""

    peers: frozenset[str]
    """Names of the VMs of the availability set."""
    others: frozenset[str] = frozenset()
    """Names of the VMs of other availability sets whose agents act in the same history."""
    strangers: bool = True
    """Whether the set sees the events that name no VM of any set."""
    ledger: str = ""
    """Path of the ledger of the set, if there are other sets."""
    floors: Mapping[str, int | str]
    """Members that each pool must keep, or their share ("50%"), by folded pool id."""
    policy: Mapping[str, object] = field(default_factory=dict[str, object])
    """Keys of the configuration table of that name; an absent key has the shipped default."""
    lease_s: float = 30.0
    request_timeout_s: float = 4.0
    poll_timeout_s: float = 5.0
    first_poll_timeout_s: float = 130.0
    slowest_write_s: float = 10.0
    """Duration of the slowest operation that the simulated Azure runs."""
    nics_per_vm: int = 1
    ip_pools: int = 0
    open_after_s: float = 3600.0
    """After how long without news from storage a closed VM opens."""
    idle_s: float = 20.0
    """How long the history watches an idle set at its end."""
    placement_groups: Mapping[str, int] = field(default_factory=dict[str, int])
    """By VM, in a scale set with several event documents: the one that it shows. Empty with one."""
    unable: frozenset[str] = frozenset()
    """The folded names of VMs that are cut off from a service for good."""
    never_quiet: frozenset[str] = frozenset()
    """The folded names of VMs whose connections do not end, or cannot be counted."""
    stale_reads: bool = False
    """Whether Azure served old views: an agent cannot count members by them."""

    requests_recorded: bool = True
    """Whether the history has every request when it leaves (`sent`) and arrives (`arrived`)."""
    left_at: Callable[[Change], float] = on_arrival
    """Without that: the earliest instant at which the request behind a change left its agent."""
    blind_s: float = 0.0
    """Without that: how long an agent may act on an event document it cannot read again."""

    def shows(self, vm: str, resources: Iterable[str]) -> bool:
        """Return whether the event document of a VM shows an event for these VMs."""
        groups = {self.placement_groups.get(each, 0) for each in resources if each in self.peers}
        return self.placement_groups.get(vm, 0) in (groups or {0})

    def needed_s(self, *, vms: int, busy: int) -> float:
        """Return the longest time that the writes for an event take, one after the other.

        Args:
            vms: VMs that the event names.
            busy: events that are not over.
        """
        writes = vms * self.nics_per_vm + self.ip_pools
        drain_s = float(str(self.policy.get("connection_drain_s", 30)))
        return (writes + 2 * busy) * (self.slowest_write_s + 3.0) + drain_s
