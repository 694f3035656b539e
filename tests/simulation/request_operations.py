"""Which operation of an agent a recorded request is, by the labels of the agent's own metrics."""

from collections.abc import Iterable

from controller.azure.http.request_labels import OPERATIONS
from controller.simulator.world.bodies import key
from controller.simulator.world.history import Change

OF_COMMANDS = frozenset({"compute vm_maintain", "compute vm_maintain_wait"})
"""Operations that only commands perform, and no agent."""
EVERY = frozenset(
    f"{service} {operation}" for service, names in OPERATIONS.items() for operation in names
)
_LISTS = {"networkinterfaces": "network nic_list", "virtualmachines": "compute vm_list"}
_ONE = {
    ("networkinterfaces", "GET"): "network nic_get",
    ("networkinterfaces", "PUT"): "network nic_put",
    ("virtualmachines", "GET"): "compute vm_get",
    ("availabilitysets", "GET"): "compute availability_set_get",
    ("loadbalancers", "GET"): "network load_balancer_get",
    ("backendaddresspools", "GET"): "network pool_get",
    ("backendaddresspools", "PUT"): "network pool_put",
}
_BLOB = {"GET": "blob read", "HEAD": "blob get_properties"}


def struck(history: Iterable[Change]) -> set[str]:
    """Return the operations that met a fault of the simulated Azure."""
    found: set[str] = set()
    created: set[str] = set()
    kinds: dict[str, str] = {}
    serial, faulty = "", False
    for change in history:
        match change.kind:
            case "sent" if change.detail["create"]:
                created.add(str(change.detail["serial"]))
            case "write":
                kinds[str(change.detail["operation"])] = change.subject
            case "arrived":
                serial = str(change.detail["serial"])
            case "fault":
                faulty = True
            case "request" if faulty:
                found.add(_label(change, create=serial in created, written=kinds))
                faulty = False
            case _:
                pass
    return found & EVERY


def _label(change: Change, *, create: bool, written: dict[str, str]) -> str:
    """Return service and operation of a request; empty for one that has no label."""
    method, path = str(change.detail["method"]), key(change.subject)
    match change.detail["service"]:
        case "imds":
            if not path.endswith("scheduledevents"):
                return "imds instance"
            return "imds acknowledge" if method == "POST" else "imds poll"
        case "blob":
            meant = str(change.detail["query"])
            if method in _BLOB:
                return _BLOB[method]
            return f"blob {meant}" if meant else f"blob {'create' if create else 'write'}"
        case _:
            return _arm(path, method, written)


def _arm(path: str, method: str, written: dict[str, str]) -> str:
    segments = path.strip("/").split("/")
    if segments[-2:] == ["microsoft.resourcegraph", "resources"]:
        return "resource_graph query"
    if segments[-1] == "acknowledge":
        return "maintenance acknowledge"
    if segments[-2:-1] == ["operations"]:
        resource = key(written.get(segments[-1], ""))
        return f"network {'nic' if '/networkinterfaces/' in resource else 'pool'}_put_wait"
    if segments[-1] in _LISTS:
        return _LISTS[segments[-1]]
    return _ONE.get((segments[-2] if len(segments) > 1 else "", method), "")
