"""Every knob of the simulated Azure, with its unit, its default and why it exists.

Azure leaves much undocumented. Whatever is not stated by Microsoft, or is stated in two ways, is a
setting here and never a constant. A world reads its settings on every request, so a test may turn a
knob in the middle of a run.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True, kw_only=True)
class WorldSettings:
    """How this Azure behaves. Times are seconds."""

    # Writes and their operations

    operation_latency_s: float = 10.0
    """From an accepted PUT of an attached NIC to the end of its operation. Reported: 10 to 15 s."""
    operation_jitter_s: float = 0.0
    """A uniform random addition of up to this much to either latency. Default none: repeatable."""
    pool_operation_latency_s: float = 5.0
    """From an accepted PUT of a backend pool to the end of its operation."""
    membership_visible_after: float = 0.5
    """Share of the latency after which the data plane, and pool GETs, follow a write (0 to 1)."""
    conflict_mode: Literal["parallel", "serial"] = "parallel"
    """`serial` refuses a NIC PUT while another NIC of the availability set is being written."""
    busy_status: Literal[429, 409] = 429
    """What a busy NIC answers: 429 RetryableError or 409 AnotherOperationInProgress; both occur."""
    busy_retry_after: bool = False
    """Whether the busy reply has a Retry-After header; its text names the seconds in any case."""
    lro_retry_after: bool = False
    """Whether PUT replies and unfinished polls carry `Retry-After: 10`. Default absent."""
    if_match_on_nic: bool = True
    """Whether a NIC PUT honours If-Match. Stated by a developer, never documented."""
    if_match_on_pool: bool = True
    """Whether a pool PUT honours If-Match. Likely, not documented."""
    failed_write_keeps_body: bool = False
    """Whether GET shows the body of a write whose operation failed. Default: the effective one."""
    superseded_write_survives: bool = True
    """Whether a pool write that another write superseded is carried out by that other write."""
    nic_write_changes_lb_etag: bool = True
    """Whether a membership written on a NIC gives the load balancer and its pools a new etag."""
    ip_pool_member_limit: int = 5000
    """Most addresses in one pool (Microsoft docs, Azure subscription limits)."""

    # Scheduled events

    first_imds_call_s: float = 0.0
    """How long the first scheduledevents call of a VM takes. Documented: up to 120 s."""
    imds_idle_disable_s: float = 86_400.0
    """After so long without a call the service is disabled and the incarnation restarts."""
    imds_limit: bool = True
    """5 requests per second and VM (20 for identity), then 429."""
    ack_starts_event_after_s: float | None = 10.0
    """From the first acknowledgement to Started; `None`: the platform waits for NotBefore."""
    unknown_ack_status: int = 400
    """Status for an acknowledgement of an id that is not in the document. Undocumented."""
    event_ids_change: bool = False
    """Whether an event gets another id when it starts, as Microsoft's own mock server does it."""
    incarnation_jumps: bool = False
    """Whether DocumentIncarnation skips values; it did in published samples."""
    not_before_format: Literal["rfc1123", "iso8601"] = "rfc1123"
    """Spelling of NotBefore. Azure: RFC 1123; Microsoft's mock server: ISO 8601."""

    # Data plane

    flows_on_remove: Literal["keep", "drop", "reset"] = "keep"
    """Fate of established flows of a removed member. Undocumented; for the traffic model."""
    outbound_needs_public_pool: bool = False
    """Whether a VM outside every public pool loses ARM and Blob. Default: it does not, because its
    subnet has a NAT gateway."""

    # Compute

    random_case: bool = True
    """Whether Microsoft.Compute upper-cases resource groups in references at random, as it does."""
    shuffle_members: bool = True
    """Whether pool members come in arbitrary order."""

    # Access and limits

    token_lifetime_s: float = 86_400.0
    """Validity of a managed identity token. Azure: 24 h."""
    rbac_enforced: bool = True
    """Whether role assignments, linked scopes included, are checked."""
    throttle: bool = True
    """Whether the token buckets below refuse requests. Their headers are sent in any case."""
    read_bucket: int = 250
    """Requests a principal may burst (Microsoft docs, Resource Manager throttling)."""
    read_refill_per_s: float = 25.0
    """Requests per second that come back to the read bucket."""
    write_bucket: int = 200
    """Writes a principal may burst."""
    write_refill_per_s: float = 10.0
    """Writes per second that come back to the write bucket."""
    throttle_retry_after: bool = True
    """Whether the 429 of an empty bucket says Retry-After."""
    list_page_size: int = 50
    """Entries on one page of a list; the rest is behind nextLink."""
    read_lag_s: float = 0.0
    """How long after a write a NIC or pool GET still answers the body from before it."""
    arm_endpoint: str = "https://management.azure.com"
    """Where operation URLs and next links point if a request has no Host; also a token audience."""
