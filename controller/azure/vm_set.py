"""A set: an availability set or a flexible scale set. What an agent reads of it, whichever it is.

A set has an id, a kind and a name; it has members, and a policy that decides about their events.
How these are read depends on the kind: `availability_set` and `scale_set` each have a reader, and
`Compute` chooses one by the id, in one place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from controller.core.azure_names import SetKind
from controller.core.resources import Vm
from controller.errors import ControllerError


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSet:
    """The set of this VM."""

    set_id: str
    vm_ids: tuple[str, ...]
    approves: tuple[str, ...] = ()
    """Rules of its scheduledEventsPolicy that approve events automatically."""
    update_domains: int = 0
    """Number of update domains, which planned maintenance reaches one by one; 0 if unknown."""
    publishes: bool = False
    """Whether its scheduled events are sent to Resource Graph and Event Grid too (preview)."""
    migrates_to: str = ""
    """Id of the flexible scale set that the set is being migrated to; empty without one."""
    unread: str = ""
    """Why the body of the set, and so its policy, could not be read; empty if it was."""

    @property
    def kind(self) -> SetKind:
        """Whether it is an availability set or a scale set."""
        return SetKind.of(self.set_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVms:
    """The members of a set."""

    vm_ids: tuple[str, ...]
    complete: bool = True
    """Whether every entry of the list could be read."""
    vms: Mapping[str, Vm] = field(default_factory=lambda: MappingProxyType({}))
    """The VMs that the same replies describe, by folded id."""
    requests: int = 1
    """How many requests it took."""
    problem: ControllerError | None = None
    """Why the list is not complete, if a request failed."""


class SetReader(Protocol):
    """How a kind of set is read."""

    async def read(self, set_id: str) -> VmSet:
        """Return the set with its members and its policy.

        Raises:
            NotFound: it was not found; one such reply is no proof.
            SetupError: sets like this one cannot be managed.
            ControllerError: it could not be read.
        """
        ...

    async def vms(self, set_id: str) -> SetVms:
        """Return its members.

        Raises:
            NotFound: the set was not found; one such reply is no proof.
            ControllerError: no member could be read.
        """
        ...
