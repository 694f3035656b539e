"""Which set a blob belongs to, so that two sets never share a ledger unnoticed.

The default names of the blobs contain the id of the set. With `election.blob_name` two sets can be
given one blob: each would wait for the other's lease, and restore the other's VMs during their
maintenance. So the ledger and the drain requests name their set, and another one is refused.

Blobs of an older version name no set. A leader puts the name of its set into a ledger that is
empty, or that records a VM of its set.

Pure: standard library only, no I/O.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from controller.core.azure_names import SetKind, fold
from controller.core.ledger import Ledger
from controller.core.printable import excerpt


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobOwner:
    """The set that an agent or command works for."""

    set_id: str = ""
    """The id of the set for which the blobs were begun; empty if it is not known, which refuses
    nothing."""
    vms: tuple[str, ...] = ()
    """Names of the VMs of the set."""
    configuration: str = ""
    """A digest of the agent's configuration."""

    def other_owner(self, recorded: str) -> str:
        """Return why a blob that names this set is refused; empty if it is not."""
        if not recorded or not self.set_id or fold(recorded) == fold(self.set_id):
            return ""
        return (
            f"it belongs to another {SetKind.of(recorded).value}, {excerpt(recorded)}. Nothing is "
            "written. Give each set a blob of its own: remove election.blob_name from the "
            "configuration of this set, or choose a name that no other set uses"
        )

    def claims(self, recorded: str, entries: Iterable[str]) -> str:
        """Return the id that the blob gets: of a blob without one, the set's if it is its own.

        Args:
            recorded: the id in the blob.
            entries: the names of the VMs that the ledger records.
        """
        known, names = {fold(vm) for vm in self.vms}, {fold(vm) for vm in entries}
        own = not names or not known.isdisjoint(names)
        return recorded or (fold(self.set_id) if own else "")

    def members(self, ledger: Ledger) -> tuple[str, ...]:
        """Return the names of the VMs that a ledger states as those of its availability set.

        A leader can be deleted before Azure converts the set: then these names alone show to the
        agents of the scale set that the ledger is theirs. After `converted_to` nothing needs them.

        Args:
            ledger: the ledger, with the set that it belongs to.
        """
        if not ledger.set_id or SetKind.of(ledger.set_id) is not SetKind.AVAILABILITY_SET:
            return ()
        if ledger.converted_to or not self.vms:
            return ledger.vms
        return tuple(sorted(set(map(fold, self.vms))))


ANY_OWNER = BlobOwner()
"""Of a reader that does not know the set."""
