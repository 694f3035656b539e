"""What operators, thieves of permissions and Azure itself do to a set, beyond everyday work.

Each method is one `Act.what`; `world_events.Stage` performs it. An act whose object is gone does
nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from controller.simulator.services import arm_compute
from controller.simulator.world.blob_store import Blob, split_path
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.dataplane import AdminState
from controller.simulator.world.events import EventState, SimEvent

if TYPE_CHECKING:
    from tests.simulation.runner import Simulation

OLDER_S = 30.0
"""A backup of a blob is so old at least when it is restored."""
HUGE_BYTES = 6_000_000
MOST_RECORDED = 200_000
"""So much of a replaced blob is kept in the history."""
SPOILT = frozenset(
    (blob, how) for blob in ("ledger", "requests") for how in ("garbage", "huge", "list")
)
"""What a blob can hold that no agent can use, until an operator repairs it."""


def _without_network(body: Json) -> None:
    del body["properties"]["networkProfile"]


def _null_properties(body: Json) -> None:
    body["properties"] = None


def _text_for_nics(body: Json) -> None:
    body["properties"]["networkProfile"] = {"networkInterfaces": "none"}


def _no_power(body: Json) -> None:
    if "instanceView" in body["properties"]:
        body["properties"]["instanceView"]["statuses"] = [{"code": None}]


ODD_VMS: Mapping[str, Callable[[Json], None]] = MappingProxyType(
    {
        "no network profile": _without_network,
        "null properties": _null_properties,
        "text for NICs": _text_for_nics,
        "no power state": _no_power,
    }
)
"""What can be odd about the body of a VM."""


def _set(name: str, value: Any) -> Callable[[SimEvent], None]:
    return lambda event: setattr(event, name, value)


ODD_EVENTS: Mapping[str, Callable[[SimEvent], None]] = MappingProxyType(
    {
        "duration 9.0": _set("duration_s", 9.0),
        "duration text": _set("duration_s", "9"),
        "duration list": _set("duration_s", [9]),
        "source number": _set("source", 1),
        "type number": _set("event_type", 7),
        "description null": _set("description", None),
    }
)
"""What can be odd about a scheduled event."""


class HarshActs:
    """Performs them."""

    def __init__(self, simulation: "Simulation", ledger_path: str) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._paths = {
            "ledger": ledger_path,
            "requests": f"{ledger_path.removesuffix('.json')}.requests.json",
        }
        self._odd_vms: dict[str, str] = {}
        self._backups: dict[str, tuple[bytes, float]] = {}
        self._spoilt: dict[str, tuple[bytes, bytes]] = {}
        """What a blob held before it was spoilt, and what it has held since."""

    # --- permissions and clocks

    def lose_role(self, vm: str, action: str) -> None:
        """An administrator takes one permission away from the identity of a VM."""
        self._world.roles.revoke(vm, action)

    def regain_role(self, vm: str, action: str) -> None:
        """The permission is given back."""
        self._world.roles.reinstate(vm, action)

    def step_clock(self, vm: str, by_s: float) -> None:
        """The wall clock of a VM is set; its monotonic clock goes on."""
        host = self._simulation.hosts[vm]
        host.error = replace(host.error, ahead_s=host.error.ahead_s + by_s)

    def second_process(self, vm: str, for_s: float) -> None:
        """A second agent is started on a VM, and runs for a while."""
        if not self._simulation.world.serving(vm):
            return
        host = self._simulation.second_process(vm)
        context = self._simulation.wires.context
        self._simulation.loop.call_later(for_s, host.retire, context=context)

    # --- odd replies

    def odd_event(self, vm: str, how: str, for_s: float) -> None:
        """Azure announces an event of which one field is odd, and cancels it."""
        event = self._world.events.schedule(
            "Freeze", vm, notice_s=900.0, duration_s=9, cancel_after_s=for_s
        )
        ODD_EVENTS[how](event)

    def repeated_event(self) -> None:
        """An event stands in the document twice."""
        for event in self._world.events.events:
            if event.state is EventState.SCHEDULED:
                self._world.events.events.append(event)
                return

    def odd_vm(self, vm: str, how: str) -> None:
        """Compute answers a body of a VM that is not as documented."""
        self._odd_vms[vm] = how

    def plain_vm(self, vm: str) -> None:
        """Compute answers the ordinary body again."""
        self._odd_vms.pop(vm, None)

    @contextmanager
    def odd_replies(self) -> Iterator[None]:
        """Let Compute answer odd bodies for as long as the block runs."""
        real = arm_compute.vm_body

        def vm_body(world: Any, vm: Any, *, expand: bool) -> Json:
            body = real(world, vm, expand=expand)
            how = self._odd_vms.get(vm.name)
            if how is not None and expand:
                ODD_VMS[how](body)
            return body

        with patch.object(arm_compute, "vm_body", vm_body):
            yield

    # --- people who act while a VM is out

    def put_back(self) -> None:
        """A template is applied again: every VM that an agent has removed is in its pools."""
        document = self._document("ledger")
        for entry in document.get("entries", []):
            for membership in entry.get("memberships", []):
                nic_id = membership.get("nic_id", "")
                present = key(nic_id) in self._world.nics and self._world.owner(nic_id)
                free = key(nic_id) not in self._world.writes.in_flight
                pool = self._world.find_pool(membership["pool_id"])
                if membership["kind"] == "nic" and present and free and pool is not None:
                    name = membership["ip_configuration"]
                    self._world.add_membership(pool["id"], self._world.nic(nic_id)["id"], name)

    def admin_state(self, vm: str, pool: str, state: AdminState) -> None:
        """An operator sets the adminState of the members of a VM in a pool."""
        pool_id = next((p for p in self._world.pool_ids() if p.endswith(f"/{pool}")), None)
        if pool_id is not None:
            self._world.set_admin_state(pool_id, vm, state)

    # --- blobs

    def back_up(self, blob: str) -> None:
        """Keep the present content of a blob."""
        found = self._world.blobs.find(self._paths[blob])
        if found is not None and not self._is_spoilt(blob):
            self._backups[blob] = found.body, self._simulation.epoch()

    def restore_blob(self, blob: str) -> None:
        """An administrator restores the content of a blob from its backup."""
        if blob in self._backups and self._is_remembered(blob):
            self._overwrite(blob, self._backups[blob][0])

    def delete_blob(self, blob: str) -> None:
        """An administrator deletes a blob. Azure requires that its lease is broken first."""
        if not self._is_remembered(blob):
            return
        account, container, name = split_path(self._paths[blob])
        found = self._world.blobs.containers.get((account, container))
        if found is not None:
            deleted = found.blobs.pop(name, None)
            now = self._simulation.epoch()
            if deleted is not None and deleted.lease.holder(now) is not None:
                self._world.record("lease_broken", self._paths[blob], period=0)
            self._world.record("blob_replaced", self._paths[blob], body="")

    def spoil_blob(self, blob: str, how: str) -> None:
        """Something else writes a blob: text that is no JSON, nothing, too much, or lies."""
        if not self._is_remembered(blob):
            return
        document = self._document(blob)
        match how:
            case "garbage":
                body = b"\xff\xfe{not json"
            case "empty":
                body = b""
            case "huge":
                body = json.dumps({**document, "padding": "x" * HUGE_BYTES}).encode()
            case "list":
                body = b"[]"
            case _:
                body = json.dumps(self._forged(document)).encode()
        found = self._world.blobs.find(self._paths[blob])
        if found is not None and (blob, how) in SPOILT:
            before = self._spoilt[blob][0] if self._is_spoilt(blob) else found.body
            self._spoilt[blob] = before, body
            self._simulation.marks.add(f"spoilt {blob}: {how}")
        self._overwrite(blob, body)

    def _is_remembered(self, blob: str) -> bool:
        """Return whether an agent runs that can know the ledger: what nobody knows is lost."""
        return blob != "ledger" or any(host.running for host in self._simulation.hosts.values())

    def repair_blob(self, blob: str) -> None:
        """An operator restores what a blob held before it was spoilt, if it still is."""
        if self._is_spoilt(blob):
            self._overwrite(blob, self._spoilt.pop(blob)[0])

    def _is_spoilt(self, blob: str) -> bool:
        """Return whether a blob still holds what it was spoilt with."""
        found = self._world.blobs.find(self._paths[blob])
        return found is not None and blob in self._spoilt and found.body == self._spoilt[blob][1]

    def _forged(self, document: Json) -> Json:
        """Return a ledger with an entry of a machine that no agent ever removed."""
        entries = list(document.get("entries", []))
        pool = self._world.pool_ids()[0]
        stranger = next((vm for vm in self._world.vms.values() if not vm.in_set), None)
        for entry in entries[:1]:
            forged = {**json.loads(json.dumps(entry)), "vm": "stranger-1"}
            for membership in forged["memberships"]:
                if membership["kind"] == "nic" and stranger is not None:
                    membership["nic_id"] = stranger.nic_ids[0]
                if membership["kind"] == "address":
                    membership["ip_address"] = "10.9.9.9"
                membership["pool_id"] = pool
            entries.append(forged)
        return {**document, "entries": entries}

    def _overwrite(self, blob: str, body: bytes) -> None:
        found: Blob | None = self._world.blobs.find(self._paths[blob])
        if found is not None:
            found.body, found.etag = body, self._world.blobs.next_etag()
            found.modified_at = self._simulation.epoch()
            text = body[:MOST_RECORDED].decode(errors="replace")
            self._world.record("blob_replaced", self._paths[blob], body=text)

    def _document(self, blob: str) -> Json:
        found = self._world.blobs.find(self._paths[blob])
        try:
            parsed: Any = json.loads(found.body) if found is not None and found.body else {}
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    # --- resources that are created again, or converted

    def recreate_vm(self, vm: str, nics: Any) -> None:
        """A VM is deleted and created again under its name."""
        if self._world.find_vm(vm) is not None:
            self._world.recreate_vm(vm, nics=nics)

    def recreate_nic(self, vm: str) -> None:
        """The first NIC of a VM is deleted and created again under its name."""
        found = self._world.find_vm(vm)
        if found is not None and key(found.nic_ids[0]) not in self._world.writes.in_flight:
            self._world.recreate_nic(found.nic_ids[0])

    def recreate_pool(self, pool: str, members: Any) -> None:
        """A pool is deleted and created again under its name."""
        pool_id = next((p for p in self._world.pool_ids() if p.endswith(f"/{pool}")), None)
        if pool_id is not None and key(pool_id) not in self._world.writes.in_flight:
            self._world.recreate_pool(pool_id, members=members)

    def recreate_balancer(self, pool: str, members: Any) -> None:
        """The load balancer of a pool is deleted and created again, with all its pools."""
        pool_id = next((p for p in self._world.pool_ids() if p.endswith(f"/{pool}")), None)
        balancer = self._world.load_balancer_of(pool_id) if pool_id is not None else None
        if balancer is None:
            return
        pools = [key(each["id"]) for each in balancer["properties"]["backendAddressPools"]]
        if self._world.writes.in_flight.keys().isdisjoint(pools):
            self._world.recreate_load_balancer(balancer["id"], members=members)

    def convert_set(self, scale_set: str = "") -> None:
        """The set is converted to a scale set, and deleted, once an agent has led in it.

        Without that there is no ledger, and the agents wait until the service is removed.
        """
        if self._document("ledger").get("epoch"):
            self._world.convert_set(scale_set)
            self._simulation.marks.add("set: converted")

    def revert_set(self) -> None:
        """The scale set becomes the availability set again, as no call of Azure does it."""
        if self._world.converted:
            self._world.revert_set()
            self._simulation.marks.add("set: reverted")
