"""The error tree, ordered by what the caller may do next. Imports nothing of this package.

ControllerError
├── ConfigError           the operator must change the configuration; exit code 78, no restart
├── SetupError            what Azure has does not fit the configuration: report it, try again
├── NotSent               the request never left: any verb may be retried
├── OutcomeUnknown        it may have taken effect: observe again before anything else
├── Throttled             wait `retry_after_s`, then the same request may be sent again
├── ServiceFault          5xx: back off, then observe again
│   ├── VersionRefused    the cloud does not have this api-version: the same, with another one
│   └── StateRefused      a pool does not take adminState: remove its members instead
├── Conflict              409, 412, superseded operation: drop the plan, observe again
│   ├── Busy              an operation holds the resource: the same, and write fewer at once
│   └── Outdated          the plan does not hold any more, nothing was sent: plan again
├── LeaseHeld             another client holds the lease
├── LeaseLost             we led and no longer do: stop writing
├── NotFound              404; one alone is no proof of deletion (replication lag)
├── Denied                refused lastingly: names the obstacle, or the missing permission
├── ContractViolation     a reply that breaks the documented shape: never write because of it
├── NotDone               an operator's command cannot be carried out
└── InvariantViolation    a bug: crash, and let the service manager restart the agent
"""

import re
from enum import Enum


class ControllerError(Exception):
    """Base of every error this package raises on purpose. `str()` is one clear paragraph."""

    service: str = ""
    """The Azure service of the request, as the metrics name it; empty without a request."""
    status: int = 0
    """The HTTP status of the reply; 0 without one."""
    retry_after_s: float | None = None
    """How long Azure asks to wait before the same request is sent again; None if it does not."""
    codes: frozenset[str] = frozenset()
    """The codes of the error in the reply, in lower case."""

    @classmethod
    def word(cls) -> str:
        """Return the word for this kind of error in logs and metrics, such as `not_found`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()


class ConfigError(ControllerError):
    """The configuration cannot work, whatever Azure answers. States what, where and the fix."""


class SetupError(ControllerError):
    """What Azure has does not fit the configuration. States what, where and the fix.

    A pool, a container or a set is missing, or cannot be managed. The agent waits: Azure may answer
    otherwise in a minute, and an operator may correct it there.
    """


class NotSent(ControllerError):
    """The request never reached the service (name, connect or TLS failure)."""


class OutcomeUnknown(ControllerError):
    """The request was sent and no usable reply came back (timeout, reset, lost reply).

    `retry_after_s` is the Retry-After of the reply, in seconds, if it had one.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Throttled(ControllerError):
    """The service throttles. `retry_after_s` is its Retry-After in seconds, None without one."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServiceFault(ControllerError):
    """The service failed on its side (5xx, or an operation that ended Failed)."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class VersionRefused(ServiceFault):
    """The cloud does not support the api-version. `supported` are the versions that it names."""

    def __init__(self, message: str, *, supported: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.supported = supported


class StateRefused(ServiceFault):
    """A pool does not take the adminState of its members, or its reply cannot be written back."""


class Conflict(ControllerError):
    """Another client changed the resource first (409, 412, or a superseded operation)."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(Conflict):
    """Another operation holds the resource; `retry_after_s` is the Retry-After of the reply."""


class Outdated(Conflict):
    """What the write was planned from changed, or became too old, before it was sent."""


class LeaseHeld(ControllerError):
    """The lease belongs to another agent."""


class LeaseLost(ControllerError):
    """The lease is no longer ours."""


class NotFound(ControllerError):
    """The resource does not exist, or not yet, or not in this replica."""


class Obstacle(Enum):
    """Why Azure refuses a request lastingly."""

    ROLE = "role"
    """The identity lacks a role assignment, or Azure does not state the reason."""
    DENY_ASSIGNMENT = "deny_assignment"
    """A deny assignment overrides every role."""
    TENANT = "tenant"
    """The request refers to a subscription of another tenant."""
    LOCK = "lock"
    """A read-only lock forbids every write below its scope."""
    POLICY = "policy"
    """A policy assignment forbids the resource as it would be."""
    SUBSCRIPTION = "subscription"
    """The subscription is disabled, and so read-only."""
    PROVIDER = "provider"
    """The resource provider is not registered in the subscription."""
    ACCOUNT = "account"
    """The storage account is disabled."""
    FIREWALL = "firewall"
    """The network rules of the storage account do not allow this VM."""
    KEY = "key"
    """The storage account accepts no account key."""
    IMMUTABLE = "immutable"
    """An immutability policy or a legal hold forbids to change the blob."""
    ARCHIVED = "archived"
    """The blob is in the archive tier."""
    BLOB_TYPE = "blob_type"
    """The blob is an append blob or a page blob."""
    AUTHENTICATION = "authentication"
    """The service does not accept the token: its tenant, cloud, or the clock of the VM."""
    IDENTITY = "identity"
    """The VM has no such managed identity."""
    IDENTITIES = "identities"
    """The VM has several managed identities, and none is configured."""
    PROXY = "proxy"
    """A proxy or firewall between the VM and Azure answered in its place."""


class Denied(ControllerError):
    """Azure refuses this, and goes on doing so until an operator removes the obstacle.

    `action` and `scope` are what it lacks, if Azure states them; each can be a comma-separated
    list. `obstacle` is the reason.
    """

    def __init__(
        self,
        message: str,
        *,
        action: str = "",
        scope: str = "",
        obstacle: Obstacle = Obstacle.ROLE,
    ) -> None:
        super().__init__(message)
        self.action, self.scope, self.obstacle = action, scope, obstacle

    @property
    def lacks(self) -> tuple[tuple[str, str], ...]:
        """Each missing action with its scope; a single action belongs to every scope."""
        actions = [each.strip() for each in self.action.split(",") if each.strip()]
        scopes = [each.strip() for each in self.scope.split(",")]
        if len(actions) == len(scopes):
            return tuple(zip(actions, scopes, strict=True))
        return tuple((action, scope) for action in actions for scope in scopes)


class ContractViolation(ControllerError):
    """A reply breaks the documented shape."""


class NewerFormat(ContractViolation):
    """The content of a blob has a later major version: it is valid, and not for this agent."""


class UnreadableLedger(ContractViolation):
    """The blob of the ledger holds no ledger of this set."""


class NotDone(ControllerError):
    """A command of an operator cannot be carried out; the message states why."""


class WaitOver(ControllerError):
    """The time that a command may wait is over; what was requested stays in effect."""


class InvariantViolation(ControllerError):
    """A bug: an invariant does not hold, and continuing could do harm."""


TRANSIENT = (Conflict, NotSent, OutcomeUnknown, ServiceFault, Throttled)
"""After these, an operator's command observes again and retries; other errors end it."""


def retry_after_of(error: ControllerError) -> float | None:
    """Return the Retry-After of a failed request in seconds; None without one.

    Zero, or a date that has passed, asks for no wait: then the back-off applies.
    """
    return error.retry_after_s or None


def retry_wait_s(error: ControllerError, *, at_least_s: float) -> float:
    """Return how long to wait before the next attempt, in seconds: never less than Retry-After."""
    return max(at_least_s, retry_after_of(error) or 0.0)
