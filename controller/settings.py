"""The settings: every key an operator can set, its unit, its default and why that default.

The keys are a contract with operators and tests. Values are frozen and validated alone and against
each other; reading the file and telling problems is `controller.config`. Imports pydantic, the
standard library and the core only, so that importing it stays cheap.
"""

import os
import re
from collections import Counter
from typing import Annotated, Literal, cast

from pydantic import Field, ValidationInfo, field_validator

from controller.notify_settings import Notification
from controller.section import Section, is_loopback, split_url

STORAGE_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
TIMING_MARGIN_S = 2.0
"""What scheduling and the network may add between two renewals."""

CloudName = Literal["AzurePublicCloud", "AzureUSGovernment", "AzureChinaCloud"]
# Endpoint and token audience per cloud, as azure-mgmt-core lists them.
_CLOUDS: dict[CloudName, tuple[str, str]] = {
    "AzurePublicCloud": ("https://management.azure.com", "https://management.azure.com"),
    "AzureUSGovernment": (
        "https://management.usgovcloudapi.net",
        "https://management.core.usgovcloudapi.net",
    ),
    "AzureChinaCloud": (
        "https://management.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
    ),
}
_POOL_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/?#\s]+)/resourceGroups/(?P<group>[^/?#\s]+)/providers/Microsoft\.Network"
    r"/loadBalancers/(?P<lb>[^/?#\s]+)/backendAddressPools/(?P<pool>[^/?#\s]+)",
    re.IGNORECASE,
)
_CONTAINER_PATH = re.compile(r"(/[a-z0-9-]+)?/[a-z0-9](-?[a-z0-9]){2,62}/?")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PERCENT = re.compile(r"(\d{1,3})%")

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
PollSeconds = Annotated[float, Field(ge=0.2, le=3600, allow_inf_nan=False)]  # IMDS: 5 requests/s
SecondsOrNone = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


def listen_address(listen: str) -> tuple[str, int]:
    """Split `server.listen` into host and port. Raises ValueError unless it is on loopback."""
    host, separator, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = port if port.isascii() and port.isdigit() and len(port) <= 5 else ""
    if not separator or not number or int(number) > 65535:
        raise ValueError('is not host:port; write for example "127.0.0.1:9808"')
    if not is_loopback(host):
        raise ValueError(
            "is not on a loopback address; use 127.0.0.1, ::1 or localhost, because answers "
            "are not authenticated"
        )
    return host, int(number)


def _check_origin(value: str, scheme: str) -> str:
    url = split_url(value)
    if url.scheme != scheme:
        raise ValueError(f"must start with {scheme}://")
    if url.path not in ("", "/") or url.query:
        raise ValueError(f"must be only {scheme}://host or {scheme}://host:port")
    return value.rstrip("/")


class BackendPool(Section):
    """One pool that is managed; `[[backend_pools]]`."""

    id: str
    """Full ARM id of the pool. Azure changes the case of ids, so case does not matter."""
    min_in_service: int | str = 1
    """Floor: members that must stay in rotation, as a number or "50%" of the full pool. The
    default of 1 keeps the service up without blocking a pool of two."""

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str) -> str:
        match = _POOL_ID.fullmatch(value)
        if match is None:
            raise ValueError(
                "is not the id of a load balancer backend pool; write it in full: /subscriptions/"
                "<id>/resourceGroups/<group>/providers/Microsoft.Network/loadBalancers/<lb>/"
                "backendAddressPools/<pool>"
            )
        if _GUID.fullmatch(match["subscription"]) is None:
            raise ValueError(
                "must name the subscription by its id, a GUID such as "
                "11111111-2222-4333-8444-555555555555; copy the pool's id as Azure shows it"
            )
        return value

    @field_validator("min_in_service", mode="before")
    @classmethod
    def _check_min_in_service(cls, value: object) -> object:
        count = value if isinstance(value, int) and not isinstance(value, bool) else None
        if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
            count = int(match[1])
            if count > 100:
                raise ValueError("is more than the whole pool; write 0% to 100%")
        if count is None or count < 0:
            raise ValueError('must be a whole number from 0, or a percentage such as "50%"')
        return value

    @property
    def floor(self) -> tuple[int, bool]:
        """The floor as (number, whether it is a percentage)."""
        if isinstance(self.min_in_service, int):
            return self.min_in_service, False
        return int(self.min_in_service.removesuffix("%")), True


class Election(Section):
    """The blob whose lease is leadership; `[election]`."""

    container_url: str
    """URL of the container that holds the blob. No default: only the operator knows it."""
    blob_name: str = Field(default="", max_length=1024)
    """Name of the blob. Empty (default): derived from the availability set, so that several sets
    can share a container."""
    lease_duration_s: int = Field(default=30, ge=15, le=60)
    """Seconds, 15 to 60 (Azure's limits). 30 outlives two failed renewals and still lets a peer
    take over long before the shortest notice ends."""
    renew_period_s: Seconds = 8
    """Seconds between renewals. 8 leaves room for two requests that time out."""
    request_timeout_s: Seconds = 4
    """Seconds that one storage request may take."""
    yield_s: SecondsOrNone = 5
    """Seconds an affected agent stays out of the election, so that an unaffected peer wins it."""

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
                "must end with the container's name, without '?...'; a SAS token is neither "
                "needed nor wanted, the VM's managed identity is used"
            )
        if _CONTAINER_PATH.fullmatch(url.path) is None:
            raise ValueError(
                "must name one container (3 to 63 lower-case letters, digits and single hyphens): "
                "https://<account>.blob.core.windows.net/<container>"
            )
        return value.rstrip("/")

    @field_validator("blob_name")
    @classmethod
    def _check_blob_name(cls, value: str) -> str:
        if "\\" in value or not value.isprintable() or value.endswith((".", "/")):
            raise ValueError("must be printable, without '\\' and not end in '.' or '/'")
        return value

    @field_validator("request_timeout_s")
    @classmethod
    def _check_timing(cls, value: float, info: ValidationInfo) -> float:
        """Hold the timing law: one renewal and its repeat fit into a lease, with a margin.

        It hangs on the last field it needs, not on the model, so that it is told together with
        the problems of other fields.
        """
        duration = cast("int | None", info.data.get("lease_duration_s"))
        renew = cast("float | None", info.data.get("renew_period_s"))
        if duration is None or renew is None:
            return value
        needed = renew + 2 * value + TIMING_MARGIN_S
        if needed > duration:
            raise ValueError(
                f"the lease would run out before a failed renewal is repeated: renew_period_s "
                f"{renew:g} + 2 x request_timeout_s {value:g} + margin {TIMING_MARGIN_S:g} = "
                f"{needed:g}, more than lease_duration_s {duration}; raise lease_duration_s (up to "
                "60) or lower the others"
            )
        return value


class EventPolicy(Section):
    """What to do about one event type; `[policy.events.<Type>]`."""

    action: Literal["drain", "ignore"] = "drain"
    """`drain` takes the VMs out, `ignore` leaves them in."""
    min_duration_s: int = Field(default=0, ge=0, le=86_400)
    """Seconds; interruptions expected to be shorter are ignored, unknown ones never are. 0: all."""
    acknowledge: bool = True
    """Whether events of this type are acknowledged once the VMs are out."""


class FreezePolicy(EventPolicy):
    """Freeze: a pause of seconds."""

    min_duration_s: int = Field(default=5, ge=0, le=86_400)
    """Seconds. Pauses of 0 to 4 s are over before a drain pays off."""


class DeletionPolicy(EventPolicy):
    """Preempt and Terminate: Azure deletes the VM."""

    acknowledge: bool = False
    """Off, because approving these deletes a VM."""


class EventPolicies(Section):
    """One policy per event type; a table in the file changes only the keys it sets."""

    Freeze: FreezePolicy = FreezePolicy()
    """The VM pauses; memory survives."""
    Reboot: EventPolicy = EventPolicy()
    """The VM restarts; memory is lost."""
    Redeploy: EventPolicy = EventPolicy()
    """The VM moves to another host; memory and ephemeral disk are lost."""
    Preempt: DeletionPolicy = DeletionPolicy()
    """A Spot VM is reclaimed."""
    Terminate: DeletionPolicy = DeletionPolicy()
    """A scheduled deletion."""

    def by_type(self) -> dict[str, EventPolicy]:
        """Return the policies keyed by the type's name as Azure spells it."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class Policy(Section):
    """When to drain, acknowledge and restore; `[policy]`."""

    lead_time_s: float = Field(default=900, gt=0, le=604_800, allow_inf_nan=False)
    """Seconds before NotBefore at which draining starts. 900 is at once for ordinary notice, and
    not for a week when degraded hardware is announced days ahead."""
    connection_drain_s: SecondsOrNone = 30
    """Seconds between out of rotation and the acknowledgement, for open connections to end;
    shortened so that it ends before NotBefore."""
    acknowledge: bool = True
    """Whether events are acknowledged at all; off, every event waits for its NotBefore."""
    acknowledge_unmanaged: bool = False
    """Whether to acknowledge events that also name VMs outside the managed pools. Off, because
    one acknowledgement releases the event for all of them."""
    acknowledge_ignored: bool = False
    """Whether to acknowledge ignored events at once, when all their VMs are ours."""
    restore_settle_s: SecondsOrNone = 15
    """Seconds a restored VM needs until the probes find it; until then the floor does not count
    it. 15 is three probes of Azure's shortest interval."""
    max_parallel_writes: int = Field(default=64, ge=1, le=1024)
    """Most NIC or pool writes under way at once; fewer after conflicts."""
    dry_run: bool = False
    """Log and report what would be done, and write nothing to ARM or IMDS."""
    events: EventPolicies = EventPolicies()
    """Per event type."""

    @field_validator("connection_drain_s")
    @classmethod
    def _check_drain(cls, value: float, info: ValidationInfo) -> float:
        """Hold that a drain which starts in time also ends in time."""
        lead = cast("float | None", info.data.get("lead_time_s"))
        if lead is not None and value > lead:
            raise ValueError(
                f"would still last when the event starts: {value:g} s of draining do not fit into "
                f"lead_time_s {lead:g}; lower it or raise lead_time_s"
            )
        return value


class Watch(Section):
    """How scheduled events are polled; `[watch]`."""

    leader_poll_s: PollSeconds = 1
    """Seconds between polls as leader; Azure recommends 1 and allows 5 requests per second."""
    standby_poll_s: PollSeconds = 15
    """Seconds between polls as standby; keeps the service enabled and the standby informed."""
    first_timeout_s: Seconds = 130
    """Seconds the first poll may take: it enables the service, which takes up to 2 minutes."""
    timeout_s: Seconds = 5
    """Seconds later polls may take; 1 is known to be too short."""


class Azure(Section):
    """Where Azure is; `[azure]`. For sovereign clouds, Azure Stack Hub and the simulator."""

    cloud: CloudName = "AzurePublicCloud"
    """Sets the Resource Manager endpoint and the audience of its tokens."""
    resource_manager_endpoint: str = ""
    """URL of Azure Resource Manager. Empty (default): the cloud's."""
    imds_endpoint: str = "http://169.254.169.254"
    """URL of the instance metadata service, which speaks plain HTTP only."""
    ca_file: str = ""
    """Absolute path of a PEM file with further certificate authorities to trust. Empty: none."""
    client_id: str = ""
    """Client id of a user-assigned identity. Empty (default): the system-assigned one."""
    poll_fallback_s: float = Field(default=1, gt=0, le=60, allow_inf_nan=False)
    """Seconds between polls of a running operation when Azure sends no Retry-After. The SDK's 30
    would eat the notice."""

    @property
    def token_audience(self) -> str:
        """Resource for which Resource Manager tokens are requested."""
        return _CLOUDS[self.cloud][1]

    @field_validator("resource_manager_endpoint")
    @classmethod
    def _check_resource_manager(cls, value: str, info: ValidationInfo) -> str:
        if value:
            return _check_origin(value, "https")
        cloud = cast("CloudName | None", info.data.get("cloud"))
        return _CLOUDS[cloud][0] if cloud else value

    @field_validator("imds_endpoint")
    @classmethod
    def _check_imds(cls, value: str) -> str:
        return _check_origin(value, "http")

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, value: str) -> str:
        # os.path says no, where pathlib raises, of a name that no file can have.
        readable = os.path.isfile(value) and os.access(value, os.R_OK)
        if value and not (os.path.isabs(value) and readable):
            raise ValueError(
                "is not a file this user can read; give its absolute path or remove it"
            )
        return value

    @field_validator("client_id")
    @classmethod
    def _check_client_id(cls, value: str) -> str:
        if value and _GUID.fullmatch(value) is None:
            raise ValueError("is not a GUID; copy 'Client ID' of the user-assigned identity")
        return value


class Server(Section):
    """The read-only HTTP server on this host; `[server]`."""

    listen: str = "127.0.0.1:9808"
    """host:port on loopback, because answers are not authenticated. Port 0 picks one, empty
    disables the server."""

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        if value:
            listen_address(value)
        return value


class Settings(Section):
    """Everything an operator can choose."""

    backend_pools: Annotated[tuple[BackendPool, ...], Field(strict=False, min_length=1)]
    """The managed pools; at least one."""
    election: Election
    """Leadership."""
    policy: Policy = Policy()
    """Decisions."""
    watch: Watch = Watch()
    """Polling."""
    azure: Azure = Azure()
    """Endpoints and identity."""
    server: Server = Server()
    """Health and metrics."""
    notifications: Annotated[tuple[Notification, ...], Field(strict=False, max_length=20)] = ()
    """Who is told of what; nobody by default."""

    @field_validator("backend_pools")
    @classmethod
    def _check_unique(cls, value: tuple[BackendPool, ...]) -> tuple[BackendPool, ...]:
        counts = Counter(pool.id.casefold() for pool in value)
        if twice := [pool_id for pool_id, count in counts.items() if count > 1]:
            told = ", ".join(pool_id[:300] for pool_id in twice[:3])
            raise ValueError(f"lists {told} more than once; keep one of each")
        return value

    def pool_names(self) -> dict[str, str]:
        """Return a short unique name per pool id as configured, for logs and metric labels."""
        ids = [pool.id for pool in self.backend_pools]
        parts = [pool_id.split("/") for pool_id in ids]  # "", subscriptions, …, validated above
        candidates = (
            [f"{part[8]}/{part[10]}" for part in parts],
            [f"{part[4]}/{part[8]}/{part[10]}" for part in parts],
        )
        for names in candidates:
            if len({name.casefold() for name in names}) == len(ids):
                return dict(zip(ids, names, strict=True))
        return dict(zip(ids, ids, strict=True))
