"""The state of a simulated Azure, and the changes that its platform makes. Pure: `now` is injected.

Two truths are kept apart, because Azure keeps them apart: resource bodies (what GETs answer) and
the data plane (where new flows go). Writes change the first at once and the second a while later.
`history` records what really happened. Tests judge by it, never by what an agent believed.

The parts: `resources` (bodies and lookups), `network` (the data plane), `operator_edits`,
`vm_states` (VMs), `replacements` (resources created again), `writes` (operations), `events`
(Scheduled Events), `maintenance` (self-service windows), `blobs` (storage accounts) and `roles`,
`issuer` (access). Imports nothing of the controller outside `controller.simulator`.
"""

import random
from collections import Counter

from controller.simulator.world import bodies
from controller.simulator.world.access import OPERATOR, Bucket, Issuer, Roles, same_audience
from controller.simulator.world.blob_store import BlobStore
from controller.simulator.world.events import EventBoard
from controller.simulator.world.hub import Hub
from controller.simulator.world.maintenance_windows import MaintenanceWindows
from controller.simulator.world.replacements import Replacements
from controller.simulator.world.scheduler import Scheduler
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.throttles import Throttles
from controller.simulator.world.user_actions import UserActions
from controller.simulator.world.vm import SimVm
from controller.simulator.world.writes import Writes


class World(Replacements):
    """One subscription with one availability set, its network, and the platform below it."""

    def __init__(
        self,
        *,
        now: float,
        settings: WorldSettings,
        seed: int,
        subscription: str,
        location: str,
        resource_group: str,
        network_group: str,
        availability_set: str,
    ) -> None:
        super().__init__(
            scheduler=Scheduler(now),
            settings=settings,
            source=random.Random(seed),  # noqa: S311 - a simulation has to be repeatable
            location=location,
        )
        self.subscription = subscription
        self.tenant = bodies.guid(self.random)
        self.user_assigned_client_id = bodies.guid(self.random)
        self.resource_group = resource_group
        self.resource_groups = list(dict.fromkeys((resource_group, network_group)))
        self.network_group = network_group
        self.availability_set_id = bodies.resource_id(
            subscription, resource_group, "Microsoft.Compute/availabilitySets", availability_set
        )
        self.scale_set_id = ""
        self.reverted = False
        self.converted = False
        self.orchestration_mode = "Flexible"
        """Of the scale set. Uniform instances are no VMs of their own."""
        self.scheduled_events_policy: bodies.Json | None = None
        self.writes = Writes(self)
        self.events = EventBoard(self)
        self.maintenance = MaintenanceWindows(self)
        self.user_actions = UserActions(self)
        self.issuer = Issuer(self.random.randbytes(32), self.tenant)
        self.roles = Roles()
        self.roles.assign(OPERATOR, {"*"}, "", data_actions={"*"})
        self.rule_health: dict[str, tuple[float, bodies.Json]] = {}
        """Results of requests for the health of a rule, by id, and when each is ready."""
        self.throttles = Throttles()
        self.buckets: dict[tuple[str, str], Bucket] = {}
        self.request_counts: Counter[tuple[str, str, str]] = Counter()
        self.hub = Hub(seed)
        self.blobs = BlobStore(record=self.record, permit=self._permit_blob)

    # Availability sets

    def set_of(self, vm: SimVm) -> str:
        """Return the id of the availability set of a VM, before a conversion; empty for none."""
        return vm.other_set_id or (self.availability_set_id if vm.in_set else "")

    def set_ids(self) -> tuple[str, ...]:
        """Return the ids of the availability sets that exist."""
        own = () if self.converted else (self.availability_set_id,)
        others = (vm.other_set_id for vm in self.vms.values() if vm.other_set_id)
        return (*own, *dict.fromkeys(others))

    @property
    def publishes_events(self) -> bool:
        """Whether the set sends its scheduled events to Resource Graph; off by default."""
        part: bodies.Json = self.scheduled_events_policy or {}
        for name in ("scheduledEventsAdditionalPublishingTargets", "eventGridAndResourceGraph"):
            part = part.get(name) or {}
        return part.get("enable") is True

    # Time

    def delete_pool(self, pool_id: str) -> None:
        """Delete a pool; its NICs lose the reference, also those that are being written."""
        super().delete_pool(pool_id)
        self.writes.forget_pool(pool_id)

    def advance(self, now: float) -> None:
        """Run everything that is due up to `now`, in order. An earlier `now` does nothing."""
        self.scheduler.advance(now)

    def next_timer(self) -> float | None:
        """Return when the next change without a request is due; None if there is none."""
        return self.scheduler.next()

    # Identity

    def token(self, principal: str, audience: str) -> str:
        """Return an access token, as the VM's IMDS would issue it."""
        return self.issuer.issue(principal, audience, self.now, self.settings.token_lifetime_s)[1]

    def caller(self, token: str, audience: str, now: float) -> str | None:
        """Return the VM a bearer token was issued to; None if forged, expired or for another."""
        found = self.issuer.read(token)
        if found is None or found.expires_at <= now or not same_audience(found.audience, audience):
            return None
        return found.principal

    def blob_scope(self, path: str) -> str:
        """Return the ARM scope of `/account`, `/account/container` or `/account/container/blob`."""
        account, *below = path.strip("/").split("/", 2)
        kind = "Microsoft.Storage/storageAccounts"
        store = bodies.resource_id(self.subscription, self.resource_group, kind, account)
        return "/".join((store, "blobServices/default/containers", *below)) if below else store

    def _permit_blob(self, by: str, action: str, path: str, *, data: bool) -> bool:
        permitted = self.roles.permit(by, action, self.blob_scope(path), data=data)
        return permitted or not self.settings.rbac_enforced
