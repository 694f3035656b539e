"""Every recorded interaction, played against the simulator: status, headers, and every key.

Where the simulator differs, the reason stands beside the recording.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from controller.simulator.services import arm
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.access import OPERATOR
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.simulator.test_arm import ARM, NOW, WIRE, recorded, shape

STRIPPED = {
    "date",
    "retry-after",
    "x-ms-request-id",
    "x-ms-correlation-request-id",
    "x-ms-request-charge",
    "x-ms-ratelimit-remaining-resource",
    "x-ms-ratelimit-remaining-subscription-reads",
    "x-ms-ratelimit-remaining-subscription-writes",
}
"""Headers that the recorder removed, so that their absence in a recording proves nothing."""
ELSEWHERE = {
    # Set by HTTP itself.
    "content-length",
    # Only on writes and operations in eastus2, not on those in eastus.
    "x-ms-operation-identifier",
}
NOT_PLAYED: Mapping[str, str] = {
    "as_01_put_200": "sets are not created through the API: agents and operators only read them",
    "vm_07_put_201": "VMs are not created through the API: agents and operators only read them",
    "vm_12_put_412": "VMs are not written through the API",
}
MISSING_GROUPS = ("as_05_get_404", "lb_10_get_404", "nic_07_get_404", "vm_14_get_404")


class Client:
    """Sends recorded requests as an operator, about resources of this world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def send(self, name: str, *, path: str = "", **headers: str) -> Reply:
        """Send the request of a recording, to its own or another path."""
        asked = recorded(name)["request"]
        url = urlsplit(asked["path"])
        own = {key.casefold(): value for key, value in asked["headers"].items()}
        request = Request(
            service=Service.ARM,
            method=asked["method"],
            path=path or self._here(url.path),
            query=tuple(parse_qsl(url.query)),
            headers={
                **own,
                "authorization": f"Bearer {self.world.token(OPERATOR, ARM)}",
                **headers,
            },
            body=b"" if asked["body"] == "" else json.dumps(asked["body"]).encode(),
        )
        return arm.handle(self.world, request, self.world.now)

    def _here(self, path: str) -> str:
        segments = path.split("/")
        segments[2] = self.world.subscription
        if "resourceGroups" in segments and not segments[4].casefold().endswith("notfound"):
            segments[4] = self.world.resource_group
        return "/".join(segments)

    def poll(self, name: str, reply: Reply) -> Reply:
        """Poll the operation of a reply when it has ended, as in a recording."""
        self.world.advance(self.world.now + 3600)
        return self.send(name, path=urlsplit(reply.headers["Azure-AsyncOperation"]).path)


def client(vms: int = 0) -> Client:
    settings = WorldSettings(random_case=False)
    return Client(build_world(now=NOW, vms=vms, foreign_vms=0 if vms else 1, settings=settings))


def nic_created() -> tuple[Client, Reply]:
    found = client()
    found.world.nics.clear()
    return found, found.send("nic_02_put_201")


def load_balancer_written(name: str = "lb_06_put_200") -> tuple[Client, Reply]:
    found = client()
    found.send("lb_06_put_200")
    found.world.advance(NOW + 60)
    return found, found.send(name)


def pool_created() -> tuple[Client, Reply]:
    found = client()
    found.send("pool_02_put_201")
    found.world.advance(NOW + 60)
    return found, found.send("pool_04_put_201")


def after_pool(name: str) -> Reply:
    found, _ = pool_created()
    found.world.advance(found.world.now + 60)
    return found.send(name)


def maintained() -> Reply:
    found = client(vms=1)
    found.world.maintenance.plan("web-1")
    operation = found.world.maintenance.perform("web-1", OPERATOR)
    found.world.advance(NOW + 60)
    path = f"/subscriptions/{found.world.subscription}/providers/Microsoft.Compute/locations"
    return found.send("vm_08_get_200", path=f"{path}/west/operations/{operation.operation_id}")


PLAYED: Mapping[str, Callable[[], Reply]] = {
    "as_02_get_200": lambda: (found := client()).send(
        "as_02_get_200", path=found.world.availability_set_id
    ),
    "lb_01_get_200": lambda: (found := load_balancer_written())[0].poll("lb_01_get_200", found[1]),
    "lb_03_get_200": lambda: load_balancer_written("lb_03_get_200")[1],
    "lb_04_get_200": lambda: load_balancer_written("lb_04_get_200")[1],
    "lb_06_put_200": lambda: load_balancer_written()[1],
    "lb_08_put_412": lambda: load_balancer_written("lb_08_put_412")[1],
    "nic_02_put_201": lambda: nic_created()[1],
    "nic_03_get_200": lambda: nic_created()[0].send("nic_03_get_200"),
    "nic_06_get_200": lambda: nic_created()[0].send("nic_06_get_200"),
    "pool_02_put_201": lambda: client().send("pool_02_put_201"),
    "pool_04_put_201": lambda: pool_created()[1],
    "pool_06_get_200": lambda: after_pool("pool_06_get_200"),
    "pool_07_get_200": lambda: after_pool("pool_07_get_200"),
    "pool_08_get_404": lambda: after_pool("pool_08_get_404"),
    "pool_11_get_200": lambda: after_pool("pool_11_get_200"),
    "vm_01_get_200": lambda: (found := load_balancer_written())[0].poll("vm_01_get_200", found[1]),
    "vm_02_put_201": lambda: client().send("vm_02_put_201"),
    "vm_03_get_404": lambda: client().send("vm_03_get_404"),
    "vm_04_get_200": lambda: empty().send("vm_04_get_200"),
    "vm_06_get_200": lambda: client().send("vm_06_get_200"),
    "vm_08_get_200": maintained,
    "vm_09_get_200": lambda: (found := client(vms=1)).send(
        "vm_09_get_200", path=found.world.vm("web-1").resource_id
    ),
    **{name: lambda name=name: client().send(name) for name in MISSING_GROUPS},  # type: ignore[misc]
}
DIFFERENT: Mapping[str, tuple[set[str], set[str], str]] = {
    "vm_09_get_200": (
        {
            "properties.osProfile.windowsConfiguration.provisionVMAgent",
            "properties.osProfile.windowsConfiguration.enableAutomaticUpdates",
            "properties.osProfile.windowsConfiguration.patchSettings.patchMode",
            "properties.osProfile.windowsConfiguration.patchSettings.assessmentMode",
            "properties.osProfile.windowsConfiguration.enableVMAgentPlatformUpdates",
        },
        {
            "identity.type",
            "identity.principalId",
            "identity.tenantId",
            "tags.team",
            "properties.availabilitySet.id",
            "properties.osProfile.linuxConfiguration.disablePasswordAuthentication",
            "properties.osProfile.linuxConfiguration.provisionVMAgent",
        },
        "the recorded VM runs Windows, and has no identity, no tags and no set",
    ),
}
"""By recording: keys that only Azure has, keys that only the simulator has, and why."""


def empty() -> Client:
    found = client()
    found.world.vms.clear()
    return found


def keys(value: Any, path: str = "") -> set[str]:
    """Return the paths of all leaves of a body; entries of a list share one path."""
    if isinstance(value, dict):
        return {each for name, part in value.items() for each in keys(part, f"{path}.{name}")}
    if isinstance(value, list):
        inside = {each for part in value for each in keys(part, f"{path}[]")}
        return inside or {f"{path}[]"}
    return {path.removeprefix(".")}


def test_every_recording_is_played_or_explained() -> None:
    """No recorded interaction is left out without a reason."""
    interactions = {
        path.stem
        for path in Path(WIRE).glob("*.json")
        if "response" in json.loads(path.read_text())
    }
    assert interactions == set(PLAYED) | set(NOT_PLAYED)
    assert not set(PLAYED) & set(NOT_PLAYED)
    assert set(DIFFERENT) <= set(PLAYED)


@pytest.mark.parametrize("name", sorted(PLAYED))
def test_recording(name: str) -> None:
    """The reply has the recorded status, headers and keys, and nothing else."""
    golden, reply = recorded(name)["response"], PLAYED[name]()
    assert reply.status == golden["status"], reply.body
    theirs = {header.casefold() for header in golden["headers"]} - ELSEWHERE
    ours = {header.casefold() for header in reply.headers} - STRIPPED - ELSEWHERE
    assert ours == theirs
    body = json.loads(reply.body)
    only_azure, only_here, _ = DIFFERENT.get(name, (set(), set(), ""))
    assert keys(golden["body"]) - keys(body) == only_azure
    assert keys(body) - keys(golden["body"]) == only_here
    if not only_azure and not only_here:
        assert shape(body) == shape(golden["body"])


@pytest.mark.parametrize(
    "name", [name for name in sorted(PLAYED) if "_404" in name or "_412" in name]
)
def test_text_of_refusals(name: str) -> None:
    """A refusal has the recorded code and text, apart from ids and names of groups."""
    golden, reply = recorded(name)["response"]["body"]["error"], PLAYED[name]()
    error = json.loads(reply.body)["error"]
    assert error["code"] == golden["code"]
    details = [(each["code"], words(each["message"])) for each in error.get("details", [])]
    assert details == [(each["code"], words(each["message"])) for each in golden.get("details", [])]
    assert words(error["message"]) == words(golden["message"])


def words(text: str) -> list[str]:
    """Return the words of a text without ids, etags and names of groups."""
    return [
        word
        for word in text.split()
        if not set(word) & set('/"') and "aks-cit" not in word and "web-rg" not in word
    ]
