"""What an action occupies while it runs, and what its back-off is kept by.

Pure: standard library only, no I/O.
"""

from typing import Literal, NamedTuple

from controller.core.azure_names import fold

KeyKind = Literal[
    "read",
    "write",
    "remove",
    "restore",
    "acknowledge",
    "ledger",
    "share",
    "health",
    "report",
    "requests",
    "forwarded",
]
"""`write` is a NIC, load balancer or other resource in both directions; `remove` and `restore` are
one direction of a pool; `ledger` is the blob with the ledger, `share` the blob of a shared pool;
`health` is that of the rules of a load balancer, `report` the blob of a VM and `requests` that of
the drain requests; no pass waits for them."""

CHANGES: frozenset[KeyKind] = frozenset({"write", "remove", "restore"})
"""The kinds of keys that writes of memberships have."""


class ActionKey(NamedTuple):
    """A kind of action and the folded id of a resource. Its text is for logs only."""

    kind: KeyKind
    resource: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.resource}"


def action_key(kind: KeyKind, resource_id: str) -> ActionKey:
    """Return the key of an action on a resource, whichever way its id is spelled."""
    return ActionKey(kind, fold(resource_id))


LEDGER = ActionKey("ledger", "ledger")
"""Reads and writes of the ledger."""
DRAIN_REQUESTS = ActionKey("requests", "requests")
"""Reads of the drain requests."""
FORWARDED_EVENTS = ActionKey("forwarded", "forwarded")
"""Reads of what other agents forward."""
