"""Which ledger an agent continues that starts in a scale set."""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controller.agent.inspection import read_history
from controller.agent.ledger_place import find_ledger
from controller.azure.http.session import Azure, open_azure
from controller.clock import SystemClock
from controller.config.schema import Settings
from controller.core.agent_presence import AgentPresence
from controller.core.azure_names import fold
from controller.core.drain_history import Step
from controller.core.ledger import Ledger
from controller.errors import ContractViolation, ControllerError, SetupError
from controller.simulator.app.server import ACCOUNT, SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.blob_store import Blob
from controller.simulator.world.builder import build_world
from controller.storage.ledger_json import encode_ledger
from controller.storage.presence_json import encode_presence
from tests.component.test_start import settings_for
from tests.support.az_login import write_az

VMS = ("web-1", "web-2", "web-3")


class Container:
    """A set that was converted to the scale set `flex`, and the blobs of its container."""

    def __init__(self, server: SimulatorServer, settings: Settings, azure: Azure) -> None:
        self.server, self.world, self.settings, self.azure = server, server.world, settings, azure
        self.flex = server.world.scale_set_id
        self.begun = Ledger(epoch=3, set_id=fold(server.world.availability_set_id)).noting(
            at=SystemClock().now(), vm="web-2", step=Step.LEADS
        )

    def put(self, name: str, content: Ledger | bytes) -> None:
        """Put a blob beside those of the resource group, or at a path of its own."""
        world, now = self.world, time.time()
        at_root = name.startswith(("x/", world.subscription))
        path = name if at_root else f"{world.subscription}/{world.resource_group}/{name}"
        world.blobs.containers[ACCOUNT, "lb-drain"].blobs[path] = Blob(
            body=content if isinstance(content, bytes) else encode_ledger(content),
            etag=world.blobs.next_etag(),
            created_at=now,
            modified_at=now,
            content_type="application/json",
            metadata={},
        )

    async def found(self) -> tuple[str, str]:
        """Return the name of the blob, and the name and kind of the set that its blobs name."""
        place = await find_ledger(self.azure, self.settings, self.flex, VMS)
        kind, name = place.owner_id.split("/")[-2:]
        return place.name.rpartition("/")[2], f"{fold(kind)}/{name}"


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    """Return a container without blobs."""
    world = build_world(now=time.time())
    world.convert_set("flex")
    async with SimulatorServer(world, tmp_path / "pki") as server:
        settings = settings_for(server, world.pool_id("app"))
        async with open_azure(settings, SystemClock(), {}) as azure:
            yield Container(server, settings, azure)


OWN, FORMER = "virtualmachinescalesets/flex", "availabilitysets/web"


async def test_a_scale_set_without_a_ledger_begins_one(container: Container) -> None:
    """Its blob has its name."""
    assert await container.found() == ("flex.json", OWN)


async def test_the_ledger_of_the_converted_set_is_continued(container: Container) -> None:
    """L1: what is out is recorded there; its blobs go on to name the set that they were begun for.

    Blobs beside it, and ledgers that cannot be read, are left alone.
    """
    container.put("web.json", container.begun)
    container.put("web.requests.json", b"{}")
    container.put("broken.json", b"no ledger")
    assert await container.found() == ("web.json", FORMER)


@pytest.mark.parametrize("content", [None, b"", b"no ledger", b"x" * 5_000_000])
async def test_a_ledger_that_cannot_be_read_is_continued_by_its_agents(
    container: Container, content: bytes | None
) -> None:
    """S4: agents that remember it write it again; another blob would be another leader."""
    if content is not None:
        container.put("web.json", content)
    container.put("web.agents/web-1.json", b"{}")
    assert await container.found() == ("web.json", FORMER)


async def test_a_blob_of_its_name_without_a_leader_is_its_own(container: Container) -> None:
    """The agents of a new scale set start one after another, and no agent leads yet."""
    container.put("flex.json", b"")
    container.put("flex.agents/web-1.json", b"{}")
    assert await container.found() == ("flex.json", OWN)


@pytest.mark.parametrize("content", [None, b""])
@pytest.mark.parametrize(("stated", "owner"), [("availability", FORMER), ("scale", OWN)])
async def test_a_lost_ledger_of_its_name_belongs_to_the_set_that_its_agents_state(
    container: Container, content: bytes | None, stated: str, owner: str
) -> None:
    """L1: with another owner it and the agents that ran on refuse each other's ledger."""
    if content is not None:
        container.put("flex.json", content)
    world, now = container.world, SystemClock().now()
    set_id = world.availability_set_id if stated == "availability" else world.scale_set_id
    presence = AgentPresence(
        vm="web-2", release="1", configuration="c", started_at=now, at=now, set_id=fold(set_id)
    )
    container.put("flex.agents/web-2.json", encode_presence(presence))
    container.put("flex.agents/web-3.json", b"no presence")
    assert await container.found() == ("flex.json", owner)


@pytest.mark.parametrize(("stale", "owner"), [("availability", OWN), ("scale", FORMER)])
async def test_a_lost_ledger_of_its_name_belongs_to_the_set_that_is_stated_last(
    container: Container, stale: str, owner: str
) -> None:
    """L1: a VM can have the name of one of a deleted set, whose agents have left their blobs."""
    world, now = container.world, SystemClock().now()
    ids = {"availability": world.availability_set_id, "scale": world.scale_set_id}
    for vm, (kind, set_id) in zip(("web-1", "web-2"), ids.items(), strict=True):
        at = now - timedelta(days=90 if kind == stale else 0)
        presence = AgentPresence(
            vm=vm, release="1", configuration="c", started_at=at, at=at, set_id=fold(set_id)
        )
        container.put(f"flex.agents/{vm}.json", encode_presence(presence))
    assert await container.found() == ("flex.json", owner)


async def test_a_ledger_that_cannot_be_read_is_left_alone_without_its_agents(
    container: Container,
) -> None:
    """S3: nothing shows that it is the ledger of these VMs."""
    container.put("web.json", b"no ledger")
    container.put("web.agents/db-1.json", b"{}")
    assert await container.found() == ("flex.json", OWN)


async def test_a_blob_of_its_name_that_cannot_be_read_is_waited_for(container: Container) -> None:
    """S4: it can be the ledger of a converted set of that name."""
    container.put("flex.json", b"no ledger")
    with pytest.raises(ContractViolation):
        await container.found()


@pytest.mark.parametrize("name", ["web.json", "flex.json"])
async def test_a_ledger_is_continued_whose_only_leader_was_deleted(
    container: Container, name: str
) -> None:
    """L1: it names the VMs of its set, also those that never led and were never out."""
    lines = tuple(replace(line, vm="web-0") for line in container.begun.transitions)
    ledger = replace(container.begun, leader="web-0", transitions=lines)
    container.put(name, replace(ledger, vms=("web-0", "web-3")))
    assert await container.found() == (name, FORMER)


async def test_a_conversion_that_a_leader_has_noted_is_continued(container: Container) -> None:
    """Also when a set with the old name was created meanwhile."""
    container.world.converted = False
    container.put("web.json", container.begun.in_set(container.flex))
    assert await container.found() == ("web.json", FORMER)


async def test_a_named_blob_is_used(container: Container) -> None:
    """`election.blob_name` is all there is to search."""
    election = container.settings.election.model_copy(update={"blob_name": "named.json"})
    container.settings = container.settings.model_copy(update={"election": election})
    container.put("web.json", container.begun)
    place = await find_ledger(container.azure, container.settings, container.flex, VMS)
    assert (place.name, place.owner_id) == ("named.json", container.flex)
    container.put("x/named.json", container.begun)
    container.world.blobs.containers[ACCOUNT, "lb-drain"].blobs["named.json"] = (
        container.world.blobs.containers[ACCOUNT, "lb-drain"].blobs.pop("x/named.json")
    )
    place = await find_ledger(container.azure, container.settings, container.flex, VMS)
    assert fold(place.owner_id) == fold(container.world.availability_set_id)


@pytest.mark.parametrize("other", ["other VMs", "other resource group", "no set"])
async def test_the_ledger_of_another_set_is_not_continued(container: Container, other: str) -> None:
    """S3: a ledger is believed only if it records a VM of the set, and lies with its group."""
    ledger, name = container.begun, "web.json"
    if other == "other VMs":
        lines = tuple(replace(line, vm="db-1") for line in ledger.transitions)
        ledger = replace(ledger, transitions=lines)
    elif other == "no set":
        ledger = replace(ledger, set_id="")
    else:
        name = f"{container.world.subscription}/other-rg/web.json"
    container.put(name, ledger)
    assert await container.found() == ("flex.json", OWN)


async def test_a_set_whose_vms_are_moved_one_by_one_keeps_its_ledger(container: Container) -> None:
    """The scale set begins a ledger of its own, as long as the set has other VMs."""
    world = container.world
    world.converted = False
    for vm in world.peers():
        vm.in_set = vm.name == "web-3"
    container.put("web.json", container.begun)
    place = await find_ledger(container.azure, container.settings, container.flex, VMS[:2])
    assert place.name.endswith("/flex.json")


async def test_a_set_that_still_lists_the_vms_is_waited_for(container: Container) -> None:
    """S4: Azure contradicts itself during a conversion; two ledgers are two leaders."""
    container.world.converted = False
    container.put("web.json", container.begun)
    with pytest.raises(SetupError, match="which still has VMs, and records VMs"):
        await container.found()


@pytest.mark.parametrize("path", ["/lb-drain", "availabilitySets/web"])
async def test_what_cannot_be_read_is_not_taken_for_absent(container: Container, path: str) -> None:
    """K1: the agent waits for the container, and for the set that a ledger names."""
    container.put("web.json", container.begun)
    service = Service.ARM if "Sets" in path else Service.BLOB
    container.server.faults.add(
        Fault(service=service, path_contains=path, effect=Effect.REPLY, status=503)
    )
    with pytest.raises(ControllerError):
        await container.found()


@pytest.mark.parametrize("reads", ["the VMs of the set", "nothing on Compute", "no set"])
async def test_the_history_of_a_converted_set_is_that_of_its_ledger(
    container: Container, reads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lb-drain history --availability-set`, where it runs without rights on the VMs too."""
    write_az(tmp_path, container.world, principal="web-1", now=time.time())
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ledger = container.begun
    if reads != "the VMs of the set":
        ledger = ledger.in_set(container.flex)
        status = 403 if reads == "nothing on Compute" else 404
        container.server.faults.add(
            Fault(
                service=Service.ARM,
                path_contains="Microsoft.Compute",
                effect=Effect.REPLY,
                status=status,
            )
        )
    container.put("web.json", ledger)
    found = await read_history(container.settings, {}, availability_set_id=container.flex)
    assert [(line["vm"], line["what"]) for line in found.lines] == [("web-2", Step.LEADS)]
    with_name = await read_history(
        container.settings, {}, availability_set_id=container.world.availability_set_id
    )
    assert with_name.lines == found.lines
