"""The settings: every key an operator can set, its unit, its default and the reason for it.

The keys are a contract with operators. Every default is here and nowhere else: the core has none,
and `Settings.core_policy` builds what it decides by. Values are frozen and validated, alone and
against each other; `controller.config.loader` reads the file. Imports pydantic, the standard
library and the core only, so that importing it stays cheap.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator

from controller.config.azure import Azure
from controller.config.backend_pool import BackendPool
from controller.config.base import Section, check_ports, is_loopback, listen_address, split_url
from controller.config.clouds import one_container
from controller.config.daily_window import daily_window
from controller.config.events import Events
from controller.config.notifications import Notification
from controller.config.update_watch import UpdateWatch
from controller.config.vm_side import Drain, Hook, Probe
from controller.core import policy as core
from controller.core.azure_names import fold
from controller.core.events import EVENT_TYPES
from controller.core.far_ahead import FarAhead
from controller.core.lease import check_timing
from controller.errors import ConfigError

STORAGE_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"

_CONTAINER_PATH = re.compile(r"(/[a-z0-9-]+)?/[a-z0-9](-?[a-z0-9]){2,62}/?")

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
PollSeconds = Annotated[float, Field(ge=0.2, le=3600, allow_inf_nan=False)]  # IMDS: 5 requests/s
SecondsOrNone = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class Election(Section):
    """The blob whose lease elects the leader; `[election]`."""

    container_url: str
    """URL of the container of the blob. Required."""
    blob_name: str = Field(default="", max_length=1024)
    """Name of the blob. Empty (default): derived from the availability set, so that several sets
    can share a container."""
    lease_duration_s: int = Field(default=30, ge=15, le=60)
    """Duration of the lease in seconds, 15 to 60 (Azure's limits). With 30 the leader keeps the
    lease after two failed renewals, and a peer takes over long before the shortest notice ends."""
    renew_period_s: Seconds = 8
    """Seconds between renewals. 8 leaves room for two requests that time out."""
    request_timeout_s: Seconds = 4
    """Timeout of one storage request, in seconds."""
    yield_s: SecondsOrNone = 5
    """Seconds that an agent on an affected VM waits before it competes for a free lease, so that an
    agent on an unaffected VM becomes the leader. In a set of more than 10 VMs up to 8.5."""

    @field_validator("container_url")
    @classmethod
    def _check_container_url(cls, value: str, info: ValidationInfo) -> str:
        context = cast("dict[str, bool]", info.context or {})
        loopback_http = context.get("loopback_http_storage", False)
        url = split_url(value)
        if url.scheme != "https" and not (
            loopback_http and url.scheme == "http" and is_loopback(url.hostname)
        ):
            raise ValueError(
                "must start with https:// (http:// is for an emulator on this host, together with "
                f"{STORAGE_CONNECTION_STRING})"
            )
        if url.query:
            # The value is not repeated: the query may be a SAS token.
            raise ValueError(
                "must end with the name of the container, without '?...'; the agent uses the "
                "managed identity of the VM, not a SAS token"
            )
        one = one_container(url.hostname or "", url.path)
        if not one or _CONTAINER_PATH.fullmatch(url.path) is None:
            raise ValueError(
                "must name one container (3 to 63 lower-case letters, digits and single hyphens): "
                "https://<account>.blob.core.windows.net/<container>"
            )
        return value.rstrip("/")

    @field_validator("blob_name")
    @classmethod
    def _check_blob_name(cls, value: str) -> str:
        if "\\" in value or not value.isprintable() or value.endswith((".", "/")):
            raise ValueError(
                "must be printable, must not contain '\\' and must not end with '.' or '/'"
            )
        return value

    @field_validator("request_timeout_s")
    @classmethod
    def _check_timing(cls, value: float, info: ValidationInfo) -> float:
        """Hold the timing law: one renewal and its repeat fit into a lease, with a margin.

        It belongs to the last field that it needs, not to the model, so that it is reported
        together with the problems of other fields.
        """
        duration = cast("int | None", info.data.get("lease_duration_s"))
        renew = cast("float | None", info.data.get("renew_period_s"))
        if duration is None or renew is None:
            return value
        try:
            check_timing(lease_duration_s=duration, renew_period_s=renew, request_timeout_s=value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return value


class EventPolicySection(Section):
    """How to handle one event type; `[policy.events.<Type>]`."""

    action: Literal["drain", "ignore"] = "drain"
    """`drain` takes the VMs out of rotation, `ignore` leaves them in rotation."""
    min_duration_s: int = Field(default=0, ge=0, le=86_400)
    """Events with a shorter expected duration, in seconds, are ignored. Events of unknown duration
    are never ignored. 0: no event is ignored."""
    acknowledge: bool = True
    """Whether events of this type are acknowledged when their VMs are out of rotation."""


class FreezePolicy(EventPolicySection):
    """Freeze: the VM pauses for seconds."""

    min_duration_s: int = Field(default=5, ge=0, le=86_400)
    """Events with a shorter expected duration, in seconds, are ignored. A pause of less than 5
    seconds costs fewer requests than a drain."""


class DeletionPolicy(EventPolicySection):
    """Preempt and Terminate: Azure deletes the VM."""

    acknowledge: bool = False
    """Whether events of this type are acknowledged when their VMs are out of rotation. Off by
    default, because the acknowledgement lets Azure delete the VM earlier."""


class EventPolicies(Section):
    """One policy for each event type; a table in the file changes only the keys that it sets."""

    Freeze: FreezePolicy = FreezePolicy()
    """The VM pauses; it keeps its memory."""
    Reboot: EventPolicySection = EventPolicySection()
    """The VM restarts and loses its memory."""
    Redeploy: EventPolicySection = EventPolicySection()
    """The VM moves to another host and loses its memory and ephemeral disk."""
    Preempt: DeletionPolicy = DeletionPolicy()
    """Azure evicts a Spot VM."""
    Terminate: DeletionPolicy = DeletionPolicy()
    """A user has scheduled the deletion of the VM."""

    def by_type(self) -> dict[str, core.EventPolicy]:
        """Return the policies as the core applies them, keyed by Azure's name of the type."""
        sections: dict[str, EventPolicySection] = {
            name: getattr(self, name) for name in EVENT_TYPES
        }
        return {
            name: core.EventPolicy(
                action=core.EventAction(section.action),
                min_duration_s=section.min_duration_s,
                acknowledge=section.acknowledge,
            )
            for name, section in sections.items()
        }


class PolicySection(Section):
    """When to drain, acknowledge and restore; `[policy]`."""

    lead_time_s: float = Field(default=900, gt=0, le=604_800, allow_inf_nan=False)
    """Seconds before NotBefore at which a drain starts. With 900, a drain starts at once for the
    usual notice of 15 minutes, and not days early when Azure announces degraded hardware."""
    connection_drain_s: SecondsOrNone = 30
    """Seconds between out of rotation and the acknowledgement, for open connections to end. The
    agent shortens this time so that it ends before NotBefore."""
    acknowledge: bool = True
    """Whether any event is acknowledged. If false, every event waits for its NotBefore."""
    acknowledge_unmanaged: bool = False
    """Whether to acknowledge events that also affect VMs outside the managed pools. Off by default,
    because an acknowledgement lets the event start for all its VMs."""
    acknowledge_ignored: bool = False
    """Whether to acknowledge ignored events at once, if all their VMs are in managed pools."""
    restore_settle_s: SecondsOrNone = 15
    """Seconds after a restore during which the capacity floor does not count the VM, because the
    health probes need time to find it. 15 is three probes at Azure's shortest interval."""
    close: bool = True
    """Whether the agent of a VM that is drained closes it first: flag file, probe answer, hooks.
    The leader removes the VM when its connections have ended. Set false if the application takes no
    part: new connections then end with the removal, and not up to connection_drain_s later."""
    acknowledge_when: Literal["closed", "out"] = "closed"
    """`closed`: an event is acknowledged too when its VMs are closed and quiet, and the load
    balancer was seen to send them nothing new. `out`: only when they are out of every pool."""
    mechanism: Literal["pool", "probe", "admin-state"] = "pool"
    """How a VM leaves rotation. `pool`: it is removed from its pools. `probe`: its own agent closes
    it and nothing is written to Resource Manager, so the identity needs no write permission on the
    network. Needs `close` and proof that the load balancer sends nothing new: an HTTP probe
    that `[probe]` answers, or the role for rule health. `admin-state`: it stays in its pools, and
    its members get adminState Down; where that does not work it is removed. All agents have to know
    it: upgrade them first."""
    far_ahead: Literal["wait", "drain", "window"] = "wait"
    """When VMs are drained for an event that is announced days ahead, as for failing hardware.
    `wait`: lead_time_s before NotBefore. `drain`: at once, and the event is acknowledged
    as soon as its VMs are out; lead_time_s does not count. `window`: in the next daily window, or
    lead_time_s before NotBefore if that is earlier."""
    far_ahead_window: str = ""
    """Daily window of `far_ahead = "window"`, in UTC: "02:00-04:00", over midnight "23:00-01:00".
    A drain that has begun in it is completed after its end."""
    restore_ready_timeout_s: SecondsOrNone = 300
    """Seconds that a restored VM has to become ready, by the application's own check."""
    restore_when_not_ready: Literal["hold", "open"] = "hold"
    """What happens after that: `hold` keeps the VM closed and reports it, `open` opens it."""
    max_parallel_writes: int = Field(default=64, ge=1, le=1024)
    """Most concurrent writes to NICs and pools. The agent lowers the limit after conflicts."""
    dry_run: bool = False
    """Report every action instead of running it: write nothing to Resource Manager or IMDS."""
    events: EventPolicies = EventPolicies()
    """One policy for each event type."""

    @property
    def close_only(self) -> bool:
        """Whether closing alone takes a VM out: nothing is written to Resource Manager."""
        return self.mechanism == "probe"

    @property
    def admin_state(self) -> bool:
        """Whether VMs leave by the adminState of their members, where that works."""
        return self.mechanism == "admin-state"

    def core_policy(self, pools: Mapping[str, core.Floor]) -> core.Policy:
        """Return what the core decides by, for these pools and their floors."""
        return core.Policy(
            pools=pools,
            events=self.events.by_type(),
            lead_time_s=self.lead_time_s,
            connection_drain_s=self.connection_drain_s,
            acknowledge=self.acknowledge,
            acknowledge_unmanaged=self.acknowledge_unmanaged,
            acknowledge_ignored=self.acknowledge_ignored,
            restore_settle_s=self.restore_settle_s,
            close=self.close,
            close_only=self.close_only,
            admin_state=self.admin_state,
            acknowledge_closed=self.acknowledge_when == "closed",
            restore_ready_timeout_s=self.restore_ready_timeout_s,
            far_ahead=FarAhead(self.far_ahead),
            far_ahead_window=daily_window(self.far_ahead_window),
        )

    @field_validator("far_ahead_window")
    @classmethod
    def _check_window(cls, value: str, info: ValidationInfo) -> str:
        """Check that there is a window exactly if one is used."""
        if value and info.data.get("far_ahead") != "window":
            raise ValueError('is used only with far_ahead = "window"; remove it')
        daily_window(value)
        return value

    @model_validator(mode="after")
    def _check_far_ahead(self) -> "PolicySection":
        if self.far_ahead == "window" and not self.far_ahead_window:
            raise ValueError(
                'far_ahead = "window" needs far_ahead_window, such as "02:00-04:00" in UTC'
            )
        return self

    @field_validator("mechanism")
    @classmethod
    def _check_mechanism(cls, value: str, info: ValidationInfo) -> str:
        """Check that a VM that only closes can be closed and acknowledged."""
        if value == "probe" and info.data.get("close") is False:
            raise ValueError('only closing takes VMs out with "probe": remove close = false')
        if value == "probe" and info.data.get("acknowledge_when") == "out":
            raise ValueError(
                'VMs stay in their pools with "probe", and acknowledge_when = "out" waits for '
                'their removal: set acknowledge_when = "closed" (the default)'
            )
        return value

    @field_validator("connection_drain_s")
    @classmethod
    def _check_drain(cls, value: float, info: ValidationInfo) -> float:
        """Check that a drain that starts at the lead time ends before NotBefore."""
        lead = cast("float | None", info.data.get("lead_time_s"))
        if lead is not None and value > lead:
            raise ValueError(
                f"would end after the event starts: a connection drain of {value:g} s does not fit "
                f"into lead_time_s {lead:g}; lower it or raise lead_time_s"
            )
        return value


class Watch(Section):
    """How scheduled events are polled; `[watch]`."""

    leader_poll_s: PollSeconds = 1
    """Seconds between polls as leader; Azure recommends 1 and allows 5 requests per second."""
    standby_poll_s: PollSeconds = 15
    """Seconds between polls as standby. They keep the Scheduled Events service enabled. At most 2
    with policy.close: a VM that learns of its own event late closes late."""
    first_timeout_s: Seconds = 130
    """Timeout of the first poll, in seconds. It enables the service: up to 2 minutes."""
    timeout_s: Seconds = 5
    """Timeout of later polls, in seconds. 1 is too short in practice."""


class Server(Section):
    """The read-only HTTP server on this host; `[server]`."""

    listen: str = "127.0.0.1:9808"
    """Listen address, host:port on loopback, because requests are not authenticated. Port 0 picks a
    free port. Empty: no server."""

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        if value:
            listen_address(value)
        return value


class Links(Section):
    """Documents of the operator; `[links]`."""

    runbook_url: str = ""
    """Address of your copy of the runbook, https:// or http://. The status page links to it;
    notifications contain it, with the chapter of the alert as #anchor. Empty (default): no link."""

    @field_validator("runbook_url")
    @classmethod
    def _check_runbook_url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s\"'<>\\]{1,500}", value):
            raise ValueError('must be an https:// or http:// URL, or "" for none')
        return value


class Settings(Section):
    """Everything that an operator can set."""

    backend_pools: Annotated[tuple[BackendPool, ...], Field(strict=False, min_length=1)]
    """The managed pools; at least one."""
    election: Election
    """Leadership."""
    policy: PolicySection = PolicySection()
    """Decisions."""
    watch: Watch = Watch()
    """Polling."""
    events: Events = Events()
    """Second ways to learn of events."""
    azure: Azure = Azure()
    """Endpoints and identity."""
    server: Server = Server()
    """Health, status and metrics."""
    links: Links = Links()
    """Documents of the operator."""
    drain: Drain = Drain()
    """How the VM takes part in its own drain."""
    probe: Probe = Probe()
    """The responder of the load balancer's health probe."""
    hooks: Annotated[tuple[Hook, ...], Field(strict=False, max_length=20)] = ()
    """Commands that run on the affected VM; none by default."""
    notifications: Annotated[tuple[Notification, ...], Field(strict=False, max_length=20)] = ()
    """Notification channels; none by default."""
    update_watch: UpdateWatch | None = None
    """The updates of an Azure Stack Hub; for `lb-drain update-watch` only."""

    @field_validator("backend_pools")
    @classmethod
    def _check_unique(cls, value: tuple[BackendPool, ...]) -> tuple[BackendPool, ...]:
        counts = Counter(pool.id.casefold() for pool in value)
        if twice := [pool_id for pool_id, count in counts.items() if count > 1]:
            listed = ", ".join(pool_id[:300] for pool_id in twice[:3])
            raise ValueError(f"lists {listed} more than once; keep one of each")
        return value

    @field_validator("probe")
    @classmethod
    def _check_ports(cls, value: Probe, info: ValidationInfo) -> Probe:
        server = cast("Server | None", info.data.get("server"))
        check_ports(value.listen, server.listen if server else "")
        return value

    def core_policy(self) -> core.Policy:
        """Return what the core decides by."""
        return self.policy.core_policy({pool.id: pool.floor for pool in self.backend_pools})

    def pool_names(self) -> dict[str, str]:
        """Return a short unique name per folded pool id, for people, logs and metric labels."""
        ids = [pool.id for pool in self.backend_pools]
        parts = [pool_id.split("/") for pool_id in ids]  # "", subscriptions, …, validated above
        short = [f"{part[8]}/{part[10]}" for part in parts]
        longer = [f"{part[4]}/{part[8]}/{part[10]}" for part in parts]
        for names in (short, longer):
            if len({name.casefold() for name in names}) == len(ids):
                return dict(zip(map(fold, ids), names, strict=True))
        return {fold(pool_id): pool_id for pool_id in ids}
