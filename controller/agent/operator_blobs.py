"""The blobs that operators write and an agent reads: drain requests, and controls of the set."""

from collections.abc import Callable
from dataclasses import dataclass

from controller.agent.overrides import OverridesInForce
from controller.azure.blob import StateBlob
from controller.clock import Clock
from controller.config.in_force import ConfigurationInForce
from controller.core.blob_owner import BlobOwner
from controller.storage.controls_store import ControlsStore, ControlsWatch, controls_blob_name
from controller.storage.drain_request_store import (
    DrainRequestStore,
    DrainRequestWatch,
    drain_requests_blob_name,
)


@dataclass(frozen=True, slots=True)
class OperatorBlobs:
    """What operators want, as this agent has read it."""

    requests: DrainRequestWatch
    controls: ControlsWatch
    overrides: OverridesInForce

    @property
    def problem(self) -> str:
        """Why the controls are not known, or do not apply; empty if they do."""
        return self.controls.problem or self.overrides.problem

    async def refresh(self, *, no_older_than_s: float) -> None:
        """Read both once, unless the last read is recent enough; a failure keeps what is known."""
        await self.requests.refresh(no_older_than_s=no_older_than_s)
        await self.controls.refresh(no_older_than_s=no_older_than_s)


def watch_operator_blobs(
    blob_of: Callable[[str], StateBlob],
    ledger_name: str,
    *,
    owner: BlobOwner,
    configuration: ConfigurationInForce,
    clock: Clock,
    poll_s: float,
    leading: Callable[[], bool],
    changed: Callable[[], None],
) -> OperatorBlobs:
    """Return the watches of the blobs beside a ledger.

    Args:
        blob_of: returns the client of the blob with this name.
        ledger_name: the name of the ledger's blob.
        owner: the set that the blobs have to belong to.
        configuration: what the overrides of the whole set change.
        clock: wall and monotonic clock.
        poll_s: seconds between two reads.
        leading: returns whether this agent has to know their content.
        changed: called when their content has changed.
    """
    requests = DrainRequestStore(blob_of(drain_requests_blob_name(ledger_name)), owner=owner)
    store = ControlsStore(blob_of(controls_blob_name(ledger_name)), owner=owner)
    controls = ControlsWatch(store, clock=clock, poll_s=poll_s, leading=leading, changed=changed)
    overrides = OverridesInForce(configuration, controls)
    controls.on_turn(overrides.apply)
    return OperatorBlobs(
        DrainRequestWatch(requests, clock=clock, poll_s=poll_s, leading=leading, changed=changed),
        controls,
        overrides,
    )
