"""Every setting of the simulated Azure, with its unit, its default and its reason.

Behaviour that Microsoft does not document, or documents in two ways, is a setting here and never a
constant. A world reads its settings on every request, so a test can change them during a run.
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
    lro_retry_after_s: int | None = 10
    """Retry-After of PUT replies and unfinished polls; `None`: absent. Seen: 10 on a NIC
    (Azure/azure-powershell#14460), none on others; 0 and 1 are as legal."""
    nic_put_conflict: Literal["busy", "supersede"] = "busy"
    """What a PUT of a NIC does while another is running: it is refused, or cancels the other."""
    if_match_on_nic: bool = True
    """Whether a NIC PUT honours If-Match. Stated by a developer, never documented."""
    if_match_on_pool: bool = True
    """Whether a pool PUT honours If-Match. Likely, not documented."""
    failed_write_keeps_body: bool = False
    """Whether GET shows the body of a write whose operation failed. Default: the effective one."""
    superseded_write_survives: bool = True
    """Whether a pool write that another write superseded is carried out by that other write."""
    nic_pool_admin_state: bool = False
    """Whether a PUT of a NIC-based pool may set adminState (and evicts members that it leaves out).
    The portal does it; no public recording shows how, and other members cannot be written."""
    rule_health_latency_s: float = 2.0
    """From the request for the health of a rule to its result, which is as old as the request."""
    nic_write_changes_lb_etag: bool = True
    """Whether a membership written on a NIC gives the load balancer and its pools a new etag."""
    ip_pool_member_limit: int = 5000
    """Most addresses in one pool (Microsoft docs, Azure subscription limits)."""

    # Scheduled events

    first_imds_call_s: float = 0.0
    """How long the first scheduledevents call of a VM takes. Documented: up to 120 s."""
    events_visible_after_s: float = 0.0
    """From the call that enables the service of a VM to its first document with events.
    Documented: within 5 minutes. Default: at once, as for VMs whose agents poll all the time."""
    imds_idle_disable_s: float = 86_400.0
    """Time without a call after which the service is disabled and the incarnation restarts."""
    imds_limit: bool = True
    """5 requests per second and VM (20 for identity), then 429."""
    ack_starts_event_after_s: float | None = 10.0
    """From the first acknowledgement to Started; `None`: the platform waits for NotBefore."""
    unknown_ack_status: int = 400
    """Status for an acknowledgement of an id that is not in the document. Undocumented."""
    arm_acknowledges_under: Literal["both", "vms", "set"] = "both"
    """Under which resource Resource Manager knows an event. Not documented."""
    user_event_notice_s: float = 900.0
    """Notice of the event of a restart or redeploy by a user. Users see 15 min (Azure/AKS#2062)."""
    user_action_s: float = 20.0
    """How long a restart, redeploy, stop or start by a user takes once it has begun."""
    event_ids_change: bool = False
    """Whether an event gets another id when it starts, as Microsoft's own mock server does it."""
    incarnation_jumps: bool = False
    """Whether DocumentIncarnation skips values; it did in published samples."""
    not_before_format: Literal["rfc1123", "iso8601"] = "rfc1123"
    """Spelling of NotBefore. Azure: RFC 1123; Microsoft's mock server: ISO 8601."""

    resource_graph_delay_s: float = 30.0
    """How long Resource Graph follows behind an event. Its latency is not documented."""
    resource_graph_target: Literal["vms", "set"] = "vms"
    """What a row names as its target: each VM of the event, in a row of its own, or the set."""
    resource_graph_lie: str = ""
    """The status that every row has, whatever is true; "": the status of its event."""
    resource_graph_bucket: int = 15
    """Queries of a principal in 5 s (Microsoft docs, Guidance for throttled requests)."""

    # Data plane

    flows_on_remove: Literal["keep", "drop", "reset"] = "drop"
    """Fate of established flows of a removed member. Undocumented; the default is the worst."""
    admin_down: Literal["reset", "persist"] = "reset"
    """Fate of established flows of a member in adminState Down. The OpenAPI text resets them,
    Microsoft's documentation (10/17/2024) keeps TCP."""
    closed_ends_streams: bool = True
    """Whether a closed application asks the clients of its streams to end them. A web server does
    not, the application behind it can."""
    closed_fails_probe: bool = True
    """Whether the health page of a closed application answers 503."""
    outbound_needs_public_pool: bool = False
    """Whether a VM outside every public pool loses ARM and Blob. Default: it does not, because its
    subnet has a NAT gateway."""

    # Compute

    random_case: bool = True
    """Whether Microsoft.Compute upper-cases resource groups in references at random, as it does."""
    vm_list_expand: bool = True
    """Whether the VM list takes `$expand=instanceView` without `$filter`. The published contract
    does not include it (Azure/azure-rest-api-specs#42411), recorded traffic has it."""
    shuffle_members: bool = True
    """Whether pool members come in arbitrary order."""

    # Resource Manager

    newest_api_version: str = ""
    """Resource types know no version after this one, as in a cloud that lags; "": all versions."""
    api_version_refusal: Literal[
        "NoRegisteredProviderFound", "InvalidApiVersionParameter", "InvalidResourceType"
    ] = "NoRegisteredProviderFound"
    """How a version that a type does not know is refused; all three occur."""

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
    """Whether the 429 of an empty bucket has a Retry-After header."""
    subscription_retry_after_s: float = 1.0
    """Retry-After of an empty bucket of a principal; those of Compute have their own below."""
    compute_list_bucket: int = 160
    """Lists of Compute that a principal may burst in one group (Microsoft docs, HighCostGet)."""
    compute_list_refill_per_s: float = 0.9
    """Lists per second that come back to that bucket."""
    compute_read_bucket: int = 400
    """Reads of one VM or set that a principal may burst."""
    compute_read_refill_per_s: float = 2.0
    """Reads per second that come back to that bucket."""
    compute_write_bucket: int = 12
    """Updates of one VM that a principal may burst; 12 a minute (Microsoft docs)."""
    compute_retry_after_s: int = 120
    """How long an empty bucket of Compute refuses everything. Seen: 120 usually, 1,200 at most."""
    list_page_size: int = 50
    """Entries on one page of a list; the rest is behind nextLink."""
    next_link_port: bool = True
    """Whether nextLink names port 443, as Compute spells it (Azure/azure-sdk-for-java#36506)."""
    read_lag_s: float = 0.0
    """How long after a write a NIC or pool GET still answers the body from before it."""
    arm_endpoint: str = "https://management.azure.com"
    """Where operation URLs and next links point if a request has no Host; also a token audience."""
