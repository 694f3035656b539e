"""The set that every seed speaks of, and what a leader would decide about it.

Three VMs behind a NIC-based and an IP-based pool; web-2 is out, because of an event that is over.
"""

import functools
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from controller.azure import network_bodies
from controller.core.azure_names import fold
from controller.core.events import EventDocument
from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import Plan
from controller.core.planning.planner import plan
from controller.core.policy import Floor
from controller.core.resources import AddressMembership, NicMembership, PowerState, Vm
from controller.simulator.services import http_values
from tests.fuzz.adapters import Simulated, new_world
from tests.fuzz.memory import START, Request, Runtime
from tests.support.policies import make_policy

WORLD = new_world()
VM_2 = WORLD.vm("web-2").resource_id
NIC_2 = WORLD.vm("web-2").nic_ids[0]
APP, ADMIN, CACHE = (WORLD.pool_id(name) for name in ("app", "admin", "cache"))
SET = WORLD.availability_set_id
ON_NIC = (NicMembership(pool_id=APP, nic_id=NIC_2, ip_configuration="ipconfig1"),)
WIRE = Path(__file__).parents[1] / "wire"


@functools.cache
def _azure() -> tuple[Simulated, str]:
    service = Simulated(http_values.Service.ARM, WORLD, Runtime())
    return service, WORLD.token("web-1", "https://management.azure.com")


def stored(resource_id: str) -> dict[str, Any]:
    """Return a resource as the simulated Azure shows it."""
    service, token = _azure()
    headers = {"authorization": f"Bearer {token}"}
    request = Request("GET", f"{resource_id}?api-version=2024-07-01", headers, b"")
    return dict(json.loads(service.answer(request).partition(b"\r\n\r\n")[2]))


def _first_address() -> AddressMembership:
    entry = stored(CACHE)["properties"]["loadBalancerBackendAddresses"][1]
    return AddressMembership(
        pool_id=CACHE,
        name=entry["name"],
        ip_address=entry["properties"]["ipAddress"],
        body=json.dumps(entry),
    )


IN_POOL = (_first_address(),)


def recorded(*names: str) -> list[bytes]:
    """Return the bodies of recorded replies."""
    return [json.dumps(_body(json.loads((WIRE / name).read_text()))).encode() for name in names]


def _body(recording: dict[str, Any]) -> Any:
    if "response" in recording:
        return recording["response"]["body"]
    return recording["responses"]["200"]["body"]


def as_bytes(body: object) -> bytes:
    """Return a body as it is sent."""
    return json.dumps(body).encode()


# --- deciding ------------------------------------------------------------------------------------

POLICY = make_policy(pools={APP: Floor(number=1), CACHE: Floor(number=1)})
OUT = Entry(
    vm="web-2",
    vm_id=VM_2,
    events=(EventReference(event_id="old", event_type="Reboot"),),
    memberships=(*ON_NIC, *IN_POOL),
    recorded_at=START - timedelta(hours=1),
    out_at=START - timedelta(minutes=50),
)
LEDGER = Ledger(epoch=3, leader="web-1", leader_since=START - timedelta(hours=1), entries=(OUT,))


@functools.cache
def _inventory() -> Observation:
    """Return the set as it is while web-2 is out."""
    nics = [network_bodies.parse_nic(stored(vm.nic_ids[0]), START) for vm in WORLD.peers()]
    without = network_bodies.without_memberships(stored(NIC_2), ON_NIC).body
    cache = network_bodies.without_addresses(stored(CACHE), IN_POOL).body
    app = stored(APP)
    listed = app["properties"]["backendIPConfigurations"]
    theirs = [each for each in listed if not fold(each["id"]).startswith(fold(NIC_2))]
    app = {**app, "properties": {"backendIPConfigurations": theirs}}
    return Observation(
        document=None,
        document_at=START,
        vms=tuple(
            Vm(
                name=vm.name,
                vm_id=vm.resource_id,
                nic_ids=tuple(vm.nic_ids),
                power=PowerState.RUNNING,
                power_observed_at=START,
            )
            for vm in WORLD.peers()
        ),
        nics=(
            *(nic for nic in nics if fold(nic.nic_id) != fold(NIC_2)),
            network_bodies.parse_nic(without, START),
        ),
        pools=(network_bodies.parse_pool(app, START), network_bodies.parse_pool(cache, START)),
        inventory_at=START,
        write_slots=8,
    )


def decide(document: EventDocument, ledger: Ledger) -> Plan:
    """Plan on a document that came twice, in a set whose web-2 is out and runs.

    What a plan wants recorded first is taken for recorded, so that the actions follow.
    """
    observed = replace(_inventory(), document=document, clean_documents=(document, document))
    first = plan(observed, ledger, POLICY, START)
    return first if first.ledger is None else plan(observed, first.ledger, POLICY, START)
