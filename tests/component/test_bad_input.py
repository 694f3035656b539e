"""Whatever Azure or an operator hands a running agent: a clear word, nothing lost, nothing written.

Real agents against the simulated Azure, over sockets and TLS.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest

from controller.agent.agent import Agent
from controller.agent.startup import POOL_CHECK_RETRIES
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.storage.ledger_store import ledger_blob_name
from tests.conftest import OpenSet
from tests.support.in_process_set import InProcessSet

CHECK = 1 + POOL_CHECK_RETRIES
"""Reads of a load balancer that make one check of the pools at start."""


def more_reported(bench: InProcessSet, than: int) -> bool:
    return len(bench.reported()) > than


def read_again(bench: InProcessSet, since: int) -> bool:
    return bool(bench.logged("be read again")[since:])


def set_aside(bench: InProcessSet, count: int) -> bool:
    return len(bench.logged("an event is set aside", "WARNING")) == count


def applied(bench: InProcessSet, times: int) -> bool:
    return int(str(bench.server.faults.to_json()[0]["applied"])) >= times


def listed(agent: Agent, name: str) -> list[Any]:
    """Return a list of the agent's status."""
    found = agent.live_status.status()[name]
    assert isinstance(found, list)
    return found


def shows(agent: Agent, event_id: str) -> bool:
    return event_id in json.dumps(agent.live_status.status()["events"])


# --- the wrong place -----------------------------------------------------------------------------


async def test_a_vm_without_availability_set_waits(open_set: OpenSet) -> None:
    """An agent on a VM in no availability set waits, and states what the operator can do."""
    async with open_set(foreign_vms=1) as bench:
        agent = bench.start("other-1")
        await bench.until("the reason", lambda: bench.logged("other-1 is not in an availability"))
        ready, why = agent.live_status.ready()
        assert not ready
        assert "create it again in a set" in why
        assert agent.live_status.health()[0]
        assert bench.world.blobs.find(bench.ledger_path) is None


async def test_pools_that_do_not_exist_are_named_and_the_others_managed(
    bench: InProcessSet,
) -> None:
    """Every pool Azure does not know is named; a pool that exists is taken care of all the same."""
    missing = bench.world.pool_id("app") + "le"
    elsewhere = missing.replace("web-lb", "old-lb")
    await bench.lead(pools=(missing, elsewhere))
    reported = [line for line in bench.reported() if "not found in Azure" in line]
    assert len(reported) == 1
    assert missing in reported[0]
    assert elsewhere in reported[0]
    assert "Correct the id" in reported[0]
    assert bench.world.pool_id("app") + "," not in reported[0]
    await bench.announce("web-2")
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


LOST: dict[str, Any] = {"path_contains": "loadBalancers", "status": 404}


async def test_a_load_balancer_that_is_not_found_is_waited_for(bench: InProcessSet) -> None:
    """No number of 404s ends the agent: it waits, and states which pools it waits for."""
    bench.fault(Service.ARM, **LOST)
    agent = bench.start()
    for _ in range(3):
        await bench.requests(2 * CHECK, "loadBalancers")
        bench.clock.ahead_s += 90
    ready, why = agent.live_status.ready()
    assert not ready
    assert "/app. Correct the id" in why
    assert len(bench.logged("waiting for Azure", level="WARNING")) == 1


async def test_a_load_balancer_that_comes_back_is_managed(bench: InProcessSet) -> None:
    """An agent that could not find its load balancer goes to work as soon as it can."""
    bench.fault(Service.ARM, **LOST)
    bench.start()
    await bench.requests(2 * CHECK, "loadBalancers")
    bench.heal()
    await bench.until("web-1 leads", lambda: bench.ledger().get("leader") == "web-1")


async def test_pools_that_appear_later_are_managed(bench: InProcessSet) -> None:
    """An agent whose load balancer does not list the pools waits until it does."""
    load_balancer = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert load_balancer is not None
    properties = load_balancer["properties"]
    bench.start()
    pools, properties["backendAddressPools"] = properties["backendAddressPools"], []
    await bench.until("the reason", lambda: bench.logged("/app. Correct the id"))
    properties["backendAddressPools"] = pools
    await bench.until("web-1 leads", lambda: bench.ledger().get("leader") == "web-1")


async def test_a_basic_load_balancer_is_refused(bench: InProcessSet) -> None:
    """A load balancer of the retired SKU is named, and the agent waits for its upgrade."""
    load_balancer = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert load_balancer is not None
    load_balancer["sku"]["name"] = "Basic"
    bench.start()
    await bench.until("the reason", lambda: bench.logged("web-lb has the Basic SKU"))
    assert bench.logged("upgrade it to Standard")
    assert bench.writes() == []
    load_balancer["sku"]["name"] = "Standard"
    await bench.until("web-1 leads", lambda: bench.ledger().get("leader") == "web-1")


async def test_a_basic_load_balancer_does_not_block_the_others(open_set: OpenSet) -> None:
    """L2: the pools of a Standard load balancer are managed beside a Basic one."""
    async with open_set(ip_pools=("cache",)) as bench:
        basic = bench.world.load_balancer_of(bench.world.pool_id("cache"))
        assert basic is not None
        basic["sku"]["name"] = "Basic"
        await bench.lead()
        await bench.announce("web-2")
        app = bench.world.pool_id("app")
        await bench.until("web-2 out", lambda: "web-2" not in bench.world.rotation(app))
        assert bench.logged("web-internal has the Basic SKU")


async def test_a_pool_without_our_vms_is_told_once(open_set: OpenSet) -> None:
    """A pool that no VM of the set is in is warned of once, shown, and hinders nothing."""
    async with open_set(pools=("app", "admin"), foreign_vms=1) as bench:
        admin = bench.world.pool_id("admin")
        for vm in bench.world.peers():
            bench.world.remove_membership(admin, vm.nic_ids[0])
        agent = await bench.lead()
        await bench.until("the warning", lambda: bench.logged("pool admin has no member"))
        await bench.sees("it", lambda: agent.live_status.status()["pools_without_peers"], [admin])
        await bench.announce("web-2")
        await bench.until("web-2 out", lambda: not bench.inside("web-2"))
        await bench.until("web-2 back", lambda: bench.inside("web-2"))
        await bench.until("all done", lambda: not bench.ledger()["entries"])
        assert bench.logged("pool admin has no member", "WARNING") == bench.reported()
        assert len(bench.reported()) == 1


async def test_a_pool_emptied_by_us_is_not_taken_for_a_wrong_one(open_set: OpenSet) -> None:
    """A pool whose only VM we took out is no pool without our VMs."""
    async with open_set(ip_pools=("cache",)) as bench:
        for vm in ("web-1", "web-3"):
            bench.world.remove_membership(bench.world.pool_id("app"), bench.world.vm(vm).nic_ids[0])
        agent = await bench.lead(overrides={"backend_pools": {"min_in_service": 0}})
        await bench.announce("web-2")
        await bench.until("web-2 out", lambda: bench.ledger()["entries"][0:1] and not inside(bench))
        assert agent.live_status.status()["pools_without_peers"] == []
        assert bench.reported() == []


def inside(bench: InProcessSet) -> list[str]:
    return bench.inside("web-2")


# --- the metadata service ------------------------------------------------------------------------

NO_ACKNOWLEDGEMENT = {"policy": {"acknowledge": False}}
EVENT: dict[str, Any] = {
    "EventId": "A123BC45-1234-5678-AB90-ABCDEF123456",
    "EventStatus": "Scheduled",
    "EventType": "Reboot",
    "ResourceType": "VirtualMachine",
    "Resources": ["web-2"],
    "NotBefore": "",
    "Description": "Host server is undergoing maintenance.",
    "EventSource": "Platform",
    "DurationInSeconds": -1,
}


def document(*events: object, incarnation: object = 5) -> dict[str, object]:
    return {"DocumentIncarnation": incarnation, "Events": list(events)}


NO_DOCUMENTS: dict[str, object] = {
    "empty": "",
    "no JSON": "<html>502 Bad Gateway</html>",
    "a list": "[]",
    "without events": {"DocumentIncarnation": 5},
    "events an object": {"DocumentIncarnation": 5, "Events": {}},
    "nested without end": "[" * 100_000,
    "oversized": json.dumps(document({**EVENT, "Description": "x" * 2_000_000})),
}


async def test_what_is_no_document_never_brings_a_vm_back(bench: InProcessSet) -> None:
    """Nothing follows from a reply that is no event document; each is reported once (S6)."""
    agent = await bench.lead(overrides=NO_ACKNOWLEDGEMENT)
    bench.document(document(EVENT))
    await bench.until("web-2 out", lambda: bench.ledger()["entries"][0:1] and out(bench))
    before, written = bench.ledger()["entries"], len(bench.writes())
    for name, body in NO_DOCUMENTS.items():
        reported = len(bench.reported())
        bench.document(body)
        await bench.requests(2, "scheduledevents")
        await bench.until(f"{name}: reported", partial(more_reported, bench, reported))
        assert "the event document could not be read" in bench.reported()[-1], name
        assert len(bench.reported()[-1]) < 500, name
        assert out(bench), name
        bench.document(document(EVENT))
        await bench.until("read again", partial(read_again, bench, reported))
        assert len(bench.reported()) == reported + 1, name
    assert bench.ledger()["entries"] == before
    assert len(bench.writes()) == written
    assert agent.live_status.health()[0]
    bench.document(document())
    await bench.until("web-2 back", lambda: bench.inside("web-2"))


ODD_EVENTS: dict[str, object] = {
    "event no object": "Reboot",
    "event without id": {**EVENT, "EventId": ""},
    "resources null": {**EVENT, "Resources": None},
    "resources a text": {**EVENT, "Resources": "web-2"},
    "type a number": {**EVENT, "EventType": 1},
}


async def test_an_event_that_turns_odd_never_brings_its_vm_back(bench: InProcessSet) -> None:
    """An event that is set aside is not over: its VM stays out, and it is reported once (S6)."""
    agent = await bench.lead(overrides=NO_ACKNOWLEDGEMENT)
    bench.document(document(EVENT))
    await bench.until("web-2 out", lambda: bench.ledger()["entries"][0:1] and out(bench))
    before, written = bench.ledger()["entries"], len(bench.writes())
    for count, (name, odd) in enumerate(ODD_EVENTS.items(), start=1):
        bench.document(document(odd))
        await bench.until(
            f"{name}: reported",
            partial(set_aside, bench, count),
        )
        await bench.until(
            f"{name}: held",
            lambda: "unreadable_event" in {hold["reason"] for hold in bench.ledger()["holds"]},
        )
        await bench.requests(3, "scheduledevents")
        assert out(bench), name
        bench.document(document(EVENT))
        await bench.until("held no longer", lambda: not bench.ledger()["holds"])
    assert len(bench.logged("an event is set aside")) == len(ODD_EVENTS)
    assert bench.ledger()["entries"] == before
    assert len(bench.writes()) == written
    assert agent.live_status.health()[0]
    bench.document(document())
    await bench.until("web-2 back", lambda: bench.inside("web-2"))


async def test_one_odd_event_hides_no_other(bench: InProcessSet) -> None:
    """A flawless event is acted on whatever stands beside it; odd values of no weight are read."""
    await bench.lead(overrides=NO_ACKNOWLEDGEMENT)
    other = {**EVENT, "EventId": "B", "Resources": ["web-3"]}
    lenient = {**EVENT, "DurationInSeconds": "9", "EventSource": 1, "NotBefore": 1700000000}
    bench.document(document({**other, "Resources": None}, lenient, lenient))
    await bench.until("web-2 out", lambda: bench.ledger()["entries"][0:1] and out(bench))
    assert bench.inside("web-3")


def out(bench: InProcessSet) -> bool:
    """Tell whether web-2 is durably out."""
    return not bench.inside("web-2") and bool(bench.ledger()["entries"][0]["out_at"])


async def test_an_agent_that_never_read_a_document_is_not_ready(bench: InProcessSet) -> None:
    """Without a first document an agent is alive but not ready, and writes nothing to ARM."""
    bench.document("")
    agent = bench.start()
    await bench.until("logged", lambda: bench.logged("event document could not be read", "WARNING"))
    assert agent.live_status.ready() == (False, "the event document has not been read yet")
    assert agent.live_status.health()[0]
    bench.heal()
    await bench.until("ready", lambda: agent.live_status.ready()[0])
    assert bench.writes() == []


AT = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
WRONG_DAY = "Tue" if AT.weekday() == 0 else "Mon"
DATES = {
    "RFC 1123": (format_datetime(AT, usegmt=True), AT),
    "wrong weekday": (WRONG_DAY + format_datetime(AT, usegmt=True)[3:], AT),
    "ISO 8601 Z": (AT.strftime("%Y-%m-%dT%H:%M:%SZ"), AT),
    "ISO 8601 offset": (AT.astimezone().isoformat(), AT),
    "ISO 8601 fraction": (AT.strftime("%Y-%m-%dT%H:%M:%S.0000000Z"), AT),
    "empty": ("", None),
    "words": ("soon", None),
}


async def test_every_spelling_of_not_before(bench: InProcessSet) -> None:
    """A date is understood in every spelling seen; one in none is an event that may start now."""
    agent = await bench.lead(overrides=NO_ACKNOWLEDGEMENT)
    for number, (name, (text, expected)) in enumerate(DATES.items()):
        event_id = f"{number:08}-1234-5678-AB90-ABCDEF123456"
        bench.document(document({**EVENT, "EventId": event_id, "NotBefore": text}))
        await bench.until(name, partial(shows, agent, event_id))
        (event,) = listed(agent, "events")
        found = event["not_before"] and datetime.fromisoformat(event["not_before"])
        assert found == expected, name
        if expected is None:
            await bench.until(f"{name}: out", lambda: not bench.inside("web-2"))
        else:
            await bench.requests(2, "scheduledevents")
            assert bench.inside("web-2"), name
    assert bench.reported() == []


async def test_an_unknown_event_type_drains_and_is_not_agreed_to(bench: InProcessSet) -> None:
    """A type Azure never documented takes its VM out and is never acknowledged."""
    await bench.lead()
    bench.document(document({**EVENT, "EventType": "Teleport"}))
    await bench.until("web-2 out", lambda: bench.ledger()["entries"][0:1] and out(bench))
    await bench.requests(5, "scheduledevents")
    assert bench.world.changes("ack", "acknowledged", "event_ack") == []
    assert not bench.logged("acknowledge event")


async def test_an_unknown_status_is_held(bench: InProcessSet) -> None:
    """A status Azure never documented neither drains nor restores, and the hold says so once."""
    agent = await bench.lead()
    strange = document({**EVENT, "EventStatus": "Pondering"})
    bench.document(strange)
    await bench.until("held", lambda: agent.live_status.status()["holds"])
    await bench.until("logged", lambda: bench.logged("status that Azure does not document"))
    assert bench.writes() == []
    bench.document(document(EVENT))
    await bench.until("web-2 out", lambda: bench.ledger()["entries"][0:1] and out(bench))
    written = len(bench.writes())
    bench.document(strange)
    await bench.until("held again", lambda: agent.live_status.status()["holds"])
    await bench.requests(4, "scheduledevents")
    assert not bench.inside("web-2")
    assert len(bench.writes()) == written
    bench.document(document())
    await bench.until("web-2 back", lambda: bench.inside("web-2"))
    await bench.until("no hold left", lambda: not bench.ledger()["holds"])


# --- Resource Manager ----------------------------------------------------------------------------

GARBAGE: tuple[dict[str, Any], ...] = (
    {"effect": Effect.GARBAGE},
    {"effect": Effect.GARBAGE, "body": "[]"},
    {"effect": Effect.GARBAGE, "body": '{"id": "/x"}'},
    {"effect": Effect.EMPTY_200},
)


@pytest.mark.parametrize("fault", GARBAGE, ids=["bytes", "list", "stranger", "empty"])
async def test_a_garbage_nic_is_never_written(bench: InProcessSet, fault: dict[str, Any]) -> None:
    """A NIC that cannot be read stays as it is, which is reported; the next good read drains."""
    agent = await bench.lead()
    await bench.until("an inventory", lambda: len(listed(agent, "vms")) == 3)
    # One by one and in the list: what one of them cannot show, the other can.
    bench.fault(Service.ARM, method="GET", path_contains="networkInterfaces", **fault)
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged("read web-2-nic", "WARNING"))
    await bench.until("again", partial(applied, bench, 2))
    assert bench.writes() == []
    assert bench.inside("web-2")
    bench.heal()
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


async def test_a_load_balancer_without_properties_is_never_an_empty_one(
    bench: InProcessSet,
) -> None:
    """A load balancer reply without its pools drains nothing and deletes nothing."""
    agent = await bench.lead()
    await bench.until("an inventory", lambda: len(listed(agent, "vms")) == 3)
    load_balancer = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert load_balancer is not None
    shell = {key: value for key, value in load_balancer.items() if key != "properties"}
    bench.fault(
        Service.ARM,
        method="GET",
        path_contains="loadBalancers/web-lb",
        status=200,
        body=json.dumps(shell),
    )
    # The list shows no more: what a load balancer itself cannot show is read from there.
    bench.fault(
        Service.ARM,
        method="GET",
        path_contains="loadBalancers",
        status=200,
        body=json.dumps({"value": [shell]}),
    )
    for _ in range(4):  # in one step, the event document would be too old for a leader
        bench.clock.ahead_s += 10
        await bench.requests(1, "scheduledevents")
    await bench.announce("web-2")
    await bench.until("read twice", partial(applied, bench, 3))
    assert bench.writes() == []
    assert bench.inside("web-2")
    bench.heal()
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))
    await bench.until("web-2 back", lambda: bench.inside("web-2"))
    await bench.until("ledger empty", lambda: not bench.ledger()["entries"])


@pytest.mark.parametrize("fault", GARBAGE, ids=["bytes", "list", "stranger", "empty"])
async def test_a_garbage_reply_to_a_write_is_looked_after(
    bench: InProcessSet, fault: dict[str, Any]
) -> None:
    """A write whose reply says nothing is observed again; the VM goes out once and comes back."""
    await bench.lead()
    bench.fault(Service.ARM, method="PUT", path_contains="web-2", times=1, **fault)
    await bench.announce("web-2")
    await bench.until("web-2 out", lambda: bench.ledger()["entries"][0:1] and out(bench))
    await bench.until("web-2 back", lambda: bench.inside("web-2"))
    await bench.until("ledger empty", lambda: not bench.ledger()["entries"])


# --- the ledger ----------------------------------------------------------------------------------

UNREADABLE = {
    "garbage": (b"\x00\xff not a ledger", "not JSON"),
    "half": (b'{"version": "1.0", "epoch": 3, "entr', "not JSON"),
    "other JSON": (b'{"version": "1.0"}', "ledger.epoch"),
    "newer": (b'{"version": "2.0", "epoch": 9, "entries": []}', "upgrade this agent"),
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_an_unreadable_ledger_is_left_untouched(bench: InProcessSet, case: str) -> None:
    """It stays byte for byte, nothing is written to ARM, and the error names blob and remedy."""
    body, reason = UNREADABLE[case]
    blob = bench.put_ledger(body)
    agent = bench.start()
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged(reason, "ERROR"))
    (message,) = bench.logged(reason, "ERROR")
    assert "web.json" in message
    assert "repair it" in message
    await bench.until("given back", lambda: agent.live_status.status()["state"] == "standby")
    bench.clock.ahead_s += 60  # past the quarantine: the next try
    await bench.until("reported again", lambda: len(bench.logged(reason, "ERROR")) == 2)
    assert blob.body == body
    assert bench.writes() == []
    bench.put_ledger(b"")
    bench.clock.ahead_s += 60
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


async def test_a_leader_sets_aside_what_is_no_ledger(bench: InProcessSet) -> None:
    """L2: under its lease only the leader writes the ledger; what it found stays for a person."""
    await bench.lead()
    blob = bench.world.blobs.find(bench.ledger_path)
    assert blob is not None
    blob.body, blob.etag = b"oops", bench.world.blobs.next_etag()
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged("no ledger", "WARNING"))
    (message,) = bench.logged("no ledger", "WARNING")
    name = message.rsplit("/", 1)[-1]
    assert name.startswith("web.json.unreadable-")
    copy = bench.world.blobs.find(bench.ledger_path.replace("web.json", name))
    assert copy is not None
    assert copy.body == b"oops"
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))
    await bench.until("web-2 back", lambda: bench.inside("web-2"))
    await bench.until("ledger empty", lambda: not bench.ledger()["entries"])


async def test_a_new_leader_continues_from_its_memory(bench: InProcessSet) -> None:
    """L2: an agent that has written the ledger opens it again, whatever replaced its content."""
    await bench.lead()
    blob = bench.world.blobs.find(bench.ledger_path)
    assert blob is not None
    blob.body, blob.etag = b"[1, 2]", bench.world.blobs.next_etag()
    blob.lease.break_(0, bench.world.now)
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged("was found damaged", "ERROR"))
    assert "unreadable-" in bench.logged("was found damaged", "ERROR")[0]
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


@pytest.mark.parametrize("leads", [True, False])
async def test_the_ledger_of_another_set_is_set_aside_with_what_to_do(
    bench: InProcessSet, *, leads: bool
) -> None:
    """L1: that set has VMs out which no agent of this one restores: the log names them, and how
    its agents get their ledger back."""
    await bench.lead()
    blob = bench.world.blobs.find(bench.ledger_path)
    assert blob is not None
    entry: dict[str, Any] = {
        "vm": "db-1",
        "vm_id": "",
        "events": [],
        "memberships": [],
        "out_at": None,
    }
    entry |= {"recorded_at": "2026-01-01T00:00:00+00:00", "gone": False}
    entry |= {"restoring_at": None, "restored_at": None}
    other = f"{bench.world.availability_set_id.casefold()}-db"
    ledger = {**bench.ledger(), "set_id": other, "entries": [entry]}
    blob.body, blob.etag = json.dumps(ledger).encode(), bench.world.blobs.next_etag()
    if not leads:
        blob.lease.break_(0, bench.world.now)
    await bench.announce("web-2")
    text = "was the ledger of another availability set"
    await bench.until("logged", lambda: bench.logged(text))
    (message,) = bench.logged(text)
    assert "VMs that are out" in message
    assert ": db-1. Before" in message
    assert f"--destination-blob {ledger_blob_name(other)} --source-uri " in message
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


async def test_a_newer_format_is_never_set_aside(bench: InProcessSet) -> None:
    """A leader of a newer version may have written it: an older agent leaves it alone."""
    body, reason = UNREADABLE["newer"]
    await bench.lead()
    blob = bench.world.blobs.find(bench.ledger_path)
    assert blob is not None
    blob.body, blob.etag = body, bench.world.blobs.next_etag()
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged(reason, "ERROR"))
    await bench.until("given back", lambda: bench.logged("released the lease"))
    assert blob.body == body
    assert bench.writes() == []


# --- missing permissions -------------------------------------------------------------------------

NETWORK = "Microsoft.Network"
COMPUTE = "Microsoft.Compute"


async def a_minute(bench: InProcessSet, done: Callable[[], object]) -> None:
    """Let a back-off end; an agent that was unable may hand over first, and there is no other."""
    bench.clock.ahead_s += 61
    released = "standby: released the lease"
    await bench.until("done or released", lambda: done() or bench.logged(released))
    bench.clock.ahead_s += 61


@pytest.mark.parametrize(
    ("action", "scope"),
    [
        (f"{COMPUTE}/virtualMachines/read", "virtualMachines/web-1"),
        (f"{COMPUTE}/availabilitySets/read", "availabilitySets/web"),
        (f"{NETWORK}/loadBalancers/read", "loadBalancers/web-lb"),
    ],
)
async def test_a_permission_missing_at_the_start_is_waited_for(
    bench: InProcessSet, action: str, scope: str
) -> None:
    """The agent names action and scope, is not ready, and starts once the role is there."""
    bench.world.roles.revoke("web-1", action)
    agent = bench.start()
    await bench.until("logged", lambda: bench.logged(action, "WARNING"))
    message = bench.logged(action)[0]
    assert scope.casefold() in message.casefold()
    assert "Grant it" in message
    assert not agent.live_status.ready()[0]
    assert action in agent.live_status.ready()[1]
    bench.world.roles.reinstate("web-1", action)
    await bench.until("ready", lambda: agent.live_status.ready()[0])


@pytest.mark.parametrize(
    ("action", "scope"),
    [
        (f"{COMPUTE}/virtualMachines/read", "virtualMachines"),
        (f"{COMPUTE}/availabilitySets/read", "availabilitySets/web"),
        (f"{NETWORK}/loadBalancers/read", "loadBalancers/web-lb"),
        (f"{NETWORK}/networkInterfaces/read", "networkInterfaces"),
        (f"{NETWORK}/networkInterfaces/write", "networkInterfaces/web-2-nic"),
    ],
)
async def test_a_permission_lost_by_a_leader_is_named(
    bench: InProcessSet, action: str, scope: str
) -> None:
    """A leader that may not do what it has to names action and scope, and goes on when it may."""
    agent = await bench.lead()
    await bench.until("an inventory", lambda: len(listed(agent, "vms")) == 3)
    bench.world.roles.revoke("web-1", action)
    bench.clock.ahead_s += 400  # the inventory is old
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged(action, "WARNING"))
    message = bench.logged(action)[0]
    assert scope.casefold() in message.casefold()
    assert "Grant it" in message
    bench.world.roles.reinstate("web-1", action)
    await a_minute(bench, lambda: not bench.inside("web-2"))
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


async def test_a_join_permission_missing_at_the_restore_is_held(bench: InProcessSet) -> None:
    """A VM that may not be put back is held with action and scope, its entry kept."""
    join = f"{NETWORK}/loadBalancers/backendAddressPools/join/action"
    agent = await bench.lead()
    await bench.announce("web-2")
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))
    bench.world.roles.revoke("web-1", join)
    await bench.until("held", lambda: join in json.dumps(bench.ledger()["holds"]))
    (hold,) = bench.ledger()["holds"]
    assert hold["reason"] == "write_failed"
    assert "/backendAddressPools/app" in hold["message"]
    await bench.sees(
        "the hold", lambda: [h["reason"] for h in listed(agent, "holds")], ["write_failed"]
    )
    assert bench.ledger()["entries"][0]["memberships"]
    bench.world.roles.reinstate("web-1", join)
    await a_minute(bench, lambda: bench.inside("web-2"))
    await bench.until("web-2 back", lambda: bench.inside("web-2"))
    await bench.until(
        "all done", lambda: not bench.ledger()["entries"] and not bench.ledger()["holds"]
    )


@pytest.mark.parametrize("kind", ["denied_reads", "denied_writes"])
async def test_a_permission_missing_on_storage_is_told_once(bench: InProcessSet, kind: str) -> None:
    """Without the role on the container nobody leads, and one warning names role and blob."""
    denied: set[str] = getattr(bench.world.blobs, kind)
    denied.add("web-1")
    agent = bench.start()
    await bench.until("logged", lambda: bench.logged("Storage Blob Data Contributor", "WARNING"))
    await bench.requests(2, "/lb-drain/", method="HEAD")
    (message,) = bench.reported()
    assert "/web.json" in message
    assert not agent.live_status.ready()[0]
    denied.clear()
    await bench.until("leads", lambda: bench.ledger().get("leader") == "web-1")


async def test_storage_taken_from_a_leader_stops_its_writes(bench: InProcessSet) -> None:
    """A leader that may not write its ledger removes nothing, and says which role it lacks."""
    await bench.lead()
    bench.world.blobs.denied_writes.add("web-1")
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged("Storage Blob Data Contributor", "WARNING"))
    assert bench.writes() == []
    assert bench.inside("web-2")
    bench.world.blobs.denied_writes.clear()
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, '{"error":"invalid_request","error_description":"Identity not found"}', "Assign one"),
        (500, "", "identity service answered 500"),
        (429, '{"error":"Too Many Requests"}', "identity service answered 429"),
        (404, "", "identity service answered 404"),
    ],
)
async def test_without_a_token_the_agent_waits(
    bench: InProcessSet, status: int, body: str, expected: str
) -> None:
    """What the identity service refuses is reported, and the agent starts as soon as it answers."""
    bench.fault(Service.IMDS, path_contains="identity", status=status, body=body)
    agent = bench.start()
    await bench.until("logged", lambda: bench.logged(expected, "WARNING"))
    assert not agent.live_status.ready()[0]
    bench.heal()
    await bench.until("leads", lambda: bench.ledger().get("leader") == "web-1")


async def test_tokens_that_expire_are_replaced(open_set: OpenSet) -> None:
    """Tokens of some seconds carry a maintenance that lasts longer without a word."""
    async with open_set(settings={"token_lifetime_s": 5.0}) as bench:
        await bench.lead()
        await bench.announce("web-2", started_s=6)
        await bench.until("web-2 out", lambda: not bench.inside("web-2"))
        await bench.until("web-2 back", lambda: bench.inside("web-2"))
        await bench.until("all done", lambda: not bench.ledger()["entries"])
        assert bench.reported() == []


async def test_refused_tokens_are_told_and_outlived(bench: InProcessSet) -> None:
    """While Azure refuses the token nothing is recorded as done; afterwards the drain goes on."""
    await bench.lead()
    body = (
        '{"error":{"code":"InvalidAuthenticationToken","message":"The access token is invalid."}}'
    )
    bench.fault(Service.ARM, status=401, body=body)
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged("InvalidAuthenticationToken", "WARNING"))
    assert bench.inside("web-2")
    assert bench.writes() == []
    bench.heal()
    bench.clock.ahead_s += 16
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


async def test_no_secret_is_logged(bench: InProcessSet, caplog: pytest.LogCaptureFixture) -> None:
    """Neither refused tokens nor garbage replies bring a token into the log (H2)."""
    bench.world.roles.revoke("web-1", f"{NETWORK}/networkInterfaces/write")
    bench.fault(Service.ARM, Effect.GARBAGE, times=2)
    await bench.lead()
    await bench.announce("web-2")
    await bench.until("denied", lambda: bench.logged("networkInterfaces/write"))
    token = bench.world.token("web-1", "https://management.azure.com")
    assert token not in caplog.text
    assert "Bearer" not in caplog.text
