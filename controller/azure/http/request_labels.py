"""The closed lists of labels of Azure requests (services, operations, outcomes), and their names.

Metrics, logs and alert rules use the labels, so each request of an agent has to be in the lists.
Messages use the names.
"""

from collections.abc import Mapping

from controller import errors
from controller.errors import ControllerError

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "imds": ("instance", "poll", "acknowledge"),
    "compute": (
        "vm_get",
        "vm_list",
        "vm_view_get",
        "availability_set_get",
        "availability_set_list",
        "vm_maintain",
        "vm_maintain_wait",
    ),
    "network": (
        "load_balancer_get",
        "load_balancer_list",
        "nic_get",
        "nic_list",
        "nic_put",
        "nic_put_wait",
        "pool_get",
        "pool_put",
        "pool_put_wait",
    ),
    "resource_graph": ("query",),
    "maintenance": ("acknowledge",),
    "blob": ("create", "read", "get_properties", "acquire", "renew", "release", "break", "write"),
}
"""Every operation of an agent, per service."""

_NAMES: Mapping[tuple[str, str], str] = {
    ("blob", "acquire"): "lease acquisition",
    ("blob", "create"): "blob creation",
    ("blob", "get_properties"): "blob properties read",
    ("blob", "list"): "container listing",
    ("blob", "probe_write"): "blob write",
    ("blob", "read"): "blob read",
    ("blob", "release"): "lease release",
    ("blob", "break"): "lease break",
    ("blob", "renew"): "lease renewal",
    ("blob", "write"): "blob write",
    ("compute", "availability_set_get"): "availability set read",
    ("compute", "availability_set_list"): "availability set list",
    ("compute", "scale_set_get"): "scale set read",
    ("compute", "vm_get"): "VM read",
    ("compute", "vm_list"): "VM list",
    ("compute", "vm_view_get"): "VM instance view read",
    ("compute", "vm_maintain"): "VM maintenance start",
    ("compute", "vm_maintain_wait"): "VM maintenance",
    ("hub", "update_list"): "update list",
    ("hub", "update_run_list"): "update run list",
    ("imds", "acknowledge"): "event approval",
    ("imds", "instance"): "instance metadata read",
    ("imds", "poll"): "scheduled events read",
    ("maintenance", "acknowledge"): "event approval through Resource Manager",
    ("network", "load_balancer_get"): "load balancer read",
    ("network", "load_balancer_list"): "load balancer list",
    ("network", "nic_get"): "NIC read",
    ("network", "nic_list"): "NIC list",
    ("network", "nic_put"): "NIC write",
    ("network", "nic_put_wait"): "NIC write",
    ("network", "operation_get"): "operation read",
    ("network", "pool_get"): "pool read",
    ("network", "pool_put"): "pool write",
    ("network", "pool_put_wait"): "pool write",
    ("network", "subnet_get"): "subnet read",
    ("network", "token"): "token request",
    ("resource_graph", "query"): "Resource Graph query",
}
"""The requests in words, for messages; those of the doctor and other commands included."""

OUTCOMES: Mapping[type[ControllerError], str] = {
    each: each.word()
    for each in (
        errors.Busy,
        errors.ConfigError,
        errors.Conflict,
        errors.ContractViolation,
        errors.Denied,
        errors.LeaseHeld,
        errors.LeaseLost,
        errors.NotFound,
        errors.NotSent,
        errors.OutcomeUnknown,
        errors.ServiceFault,
        errors.SetupError,
        errors.Throttled,
    )
}
"""The outcome of each error. The other outcomes are `ok`, `cancelled` and `bug`."""


def outcome_of(error: ControllerError) -> str:
    """Return the outcome of a failed request: that of the nearest class in `OUTCOMES`."""
    return next((OUTCOMES[each] for each in type(error).__mro__ if each in OUTCOMES), "bug")


_ANSWERS = frozenset({"ok", "busy", "conflict", "lease_held", "lease_lost", "not_found"})


def service_answered(service: str, outcome: str) -> bool:
    """Return whether a request with this outcome shows that the service works.

    `not_found` does, because resources get deleted. It does not for IMDS, where everything that
    an agent reads exists as long as the service works.
    """
    return outcome in _ANSWERS and (service, outcome) != ("imds", "not_found")


def request_name(service: str, operation: str) -> str:
    """Return the name of a request in messages, for example "NIC write"."""
    return _NAMES.get((service, operation), f"{service} {operation}")
