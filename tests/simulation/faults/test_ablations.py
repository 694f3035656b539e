"""Safeguards that drawn scenarios rarely need: each has a history in which its law breaks without.

Every history is played twice. With the safeguard the law is kept, without it the law is broken.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.app.server import ACCOUNT
from controller.simulator.world.blob_store import Blob
from controller.simulator.world.bodies import key
from controller.storage.shared_pool_store import shared_pool_blob_name
from tests.simulation import ablations
from tests.simulation.campaign import judge
from tests.simulation.faults.refusals import gets, refusing, reply
from tests.simulation.faults.test_refused_writes import moves, set_roles
from tests.simulation.request_faults import RIVAL
from tests.simulation.runner import EPOCH, Played, Simulation
from tests.simulation.scenario import Act, Scenario, Shape, Storm

ANNOUNCED_S = 60.0
H2 = "H2 clean"
UNDISTURBED_S = 20.0
"""From here on nothing goes wrong by chance, so that laws S7 and L2 hold for the event."""
THROTTLED = '{"error": {"code": "OperationNotAllowed", "message": "x", "details": []}}'
REINSTATED_S = 200.0
OTHER_SET = "/subscriptions/s/resourceGroups/other/providers/Microsoft.Compute/availabilitySets/o"


def scenario(*acts: Act, **fields: Any) -> Scenario:
    """Return a set of three VMs in a calm, with these acts."""
    base: dict[str, Any] = {
        "seed": 21,
        "vms": 3,
        "policy": {"connection_drain_s": 2, "restore_settle_s": 3},
        "acts": acts,
        "calm_at_s": UNDISTURBED_S,
        "patience_s": 600.0,
        "converge_within_s": 300.0,
        "idle_s": 1.0,
    }
    return Scenario(**{**base, **fields})


def event(at_s: float = ANNOUNCED_S, **changes: object) -> Act:
    """Return the announcement of a reboot of web-2."""
    given = {
        "event_type": "Reboot", "vms": ("web-2",), "notice_s": 320.0, "duration_s": -1,
        "impact_s": 10.0, "started_s": 20.0,
    }  # fmt: skip
    return Act(at_s, "event", {**given, **changes})


def ask(at_s: float, for_s: float, request_id: str) -> Act:
    """Return the request of an operator for web-2."""
    return Act(at_s, "ask", {"vm": "web-2", "for_s": for_s, "request_id": request_id})


def put(simulation: Simulation, path: str, body: bytes) -> None:
    """Write a blob as any identity can that has rights on the container."""
    store = simulation.world.blobs
    blob = store.find(path)
    assert blob is not None
    blob.body, blob.etag = body, store.next_etag()


# --- what is played


def play_refused_pool() -> Played:
    """The agents may not join the pool api for minutes, when web-2 is to return to app and api."""
    act = event(20.0, notice_s=120.0)
    simulation = Simulation(scenario(act, pools=("app", "api"), patience_s=100.0))
    roles = simulation.world.roles
    simulation.loop.call_at(36.0, lambda: set_roles(simulation, roles.revoke, "api"))
    simulation.loop.call_at(REINSTATED_S, lambda: set_roles(simulation, roles.reinstate, "api"))
    return simulation.run()


def play_throttled_load_balancer() -> Played:
    """The load balancer may not be read for 20 minutes, from just before an event is announced."""
    simulation = Simulation(scenario(event(event_type="Freeze"), converge_within_s=1500.0))
    refused = gets("/loadBalancers/web-lb")
    wait = reply(429, THROTTLED, wait_s=1200)
    with refusing(simulation, refused, wait, from_s=ANNOUNCED_S - 5):
        return simulation.run()


def play_refused_list() -> Played:
    """The list of VMs answers 502 from the start."""
    simulation = Simulation(scenario(event()))
    with refusing(simulation, gets("/virtualMachines"), reply(502, "<html>bad gateway</html>")):
        return simulation.run()


def play_patient_operations() -> Played:
    """Azure asks to wait 170 s between two polls of an operation that takes 1 s."""
    settings = {"operation_latency_s": 1.0, "lro_retry_after_s": 170}
    return Simulation(scenario(event(notice_s=100.0), settings=settings)).run()


def play_pool_not_found() -> Played:
    """Network answers 404 for everything for ten minutes, while web-2 is out."""
    storm = Storm("arm 404", 60.0, 660.0)
    act = event(20.0, notice_s=120.0, impact_s=5.0)
    return Simulation(
        scenario(act, storms=(storm,), calm_at_s=660.0, converge_within_s=1500.0)
    ).run()


def play_nothing_found() -> Played:
    """Network answers 404 for everything for ten minutes, and an event for web-2 is announced."""
    storm = Storm("arm 404", 60.0, 660.0)
    policy = {"connection_drain_s": 2, "acknowledge_unmanaged": True}
    return Simulation(
        scenario(
            event(300.0), storms=(storm,), policy=policy, calm_at_s=660.0, converge_within_s=1500.0
        )
    ).run()


def play_two_requests() -> Played:
    """A short request is made for a VM that a long one keeps out."""
    acts = (ask(20.0, 160.0, "long"), ask(60.0, 60.0, "short"))
    return Simulation(scenario(*acts)).run()


def play_huge_requests() -> Played:
    """The requests for web-2 have reasons of a megabyte, when an event for web-3 is announced."""
    acts = (ask(20.0, 400.0, "short"), event(vms=("web-3",)))
    simulation = Simulation(scenario(*acts))

    def grow() -> None:
        path = simulation.stage.blob_path.replace(".json", ".requests.json")
        blob = simulation.world.blobs.find(path)
        assert blob is not None
        document = json.loads(blob.body)
        document["requests"] = [
            {**each, "request_id": f"r-{number}", "reason": "\U0001f4a3" * 90_000}
            for each in document["requests"]
            for number in range(2)
        ]
        put(simulation, path, json.dumps(document, ensure_ascii=False).encode())

    simulation.loop.call_at(30.0, grow)
    return simulation.run()


def play_foreign_ledger() -> Played:
    """The blob has the ledger of another set, which records its own VM web-2."""
    simulation = Simulation(scenario(event(), vms=2, converge_within_s=60.0, patience_s=10.0))

    def replace_ledger() -> None:
        document = simulation.stage.ledger() | {"set_id": OTHER_SET}
        put(simulation, simulation.stage.blob_path, json.dumps(document).encode())
        simulation.world.record("foreign", simulation.stage.blob_path)
        for host in simulation.hosts.values():
            host.crash(5.0)

    simulation.loop.call_at(40.0, replace_ledger)
    return simulation.run()


def play_shared_pool() -> Played:
    """Another set states that its machine leaves the pool, and then takes it out."""
    acts = (event(), Act(ANNOUNCED_S + 40, "leave_pool", {"vm": "other-1", "pool": "app"}))
    simulation = Simulation(scenario(*acts, vms=2, foreign_vms=1, floors={"app": 2}))
    world = simulation.world
    pool_id = world.pool_id("app")
    machine = key(world.vm("other-1").nic_ids[0])
    share = {
        "availability_set_id": OTHER_SET,
        "members": [machine],
        "out": [machine],
        "written_at": "2026-05-28T20:26:00+00:00",
    }
    document = {"version": "1.0", "pool_id": pool_id, "shares": [share]}
    container = world.blobs.containers[ACCOUNT, CONTAINER]
    container.blobs[shared_pool_blob_name(pool_id)] = Blob(
        body=json.dumps(document).encode(),
        etag=world.blobs.next_etag(),
        created_at=EPOCH,
        modified_at=EPOCH,
        content_type="application/json",
        metadata={},
    )
    return simulation.run()


def play_member_down() -> Played:
    """A member is Down in a pool at its floor, when another one is announced."""
    down = Act(30.0, "admin_state", {"vm": "web-3", "pool": "app", "state": "Down"})
    return Simulation(scenario(down, event(), floors={"app": 2})).run()


def play_member_of_one_pool() -> Played:
    """The VM that is drained is in one of two pools."""
    shape = Shape(outside=(("web-2", "api"),))
    act = event(20.0, notice_s=120.0)
    return Simulation(scenario(act, pools=("app", "api"), shape=shape)).run()


def play_leader_without_storage() -> Played:
    """The leader loses its way to storage while it waits for the connections of web-2 to end."""
    cut = Storm("cut", ANNOUNCED_S + 15, 300.0, vm="web-1", service="blob")
    policy = {"connection_drain_s": 45, "restore_settle_s": 3}
    return Simulation(scenario(event(), storms=(cut,), policy=policy, calm_at_s=300.0)).run()


def by_state(*, accepted: bool = True, **fields: Any) -> Played:
    """Play the drain of web-2 by adminState, in a set whose pools take it or not."""
    policy = {"connection_drain_s": 2, "restore_settle_s": 3, "mechanism": "admin-state"}
    settings = {"nic_pool_admin_state": accepted, "pool_operation_latency_s": 3.0}
    return Simulation(scenario(event(), policy=policy, settings=settings, **fields)).run()


def play_states() -> Played:
    """VMs leave by adminState, which the pool takes."""
    return by_state()


def play_refused_states() -> Played:
    """VMs are to leave by adminState, which the pool refuses."""
    return by_state(accepted=False)


def play_hollow_states() -> Played:
    """Azure reports the success of every write of the pool, and changes nothing for a minute."""
    storm = Storm("operation without effect", ANNOUNCED_S, ANNOUNCED_S + 60.0)
    return by_state(storms=(storm,), calm_at_s=ANNOUNCED_S + 60.0)


def play_states_and_rivals() -> Played:
    """People add an address right after every read of the pool."""
    storm = Storm(RIVAL, ANNOUNCED_S, 400.0)
    return by_state(pools=(), ip_pools=("internal",), storms=(storm,), calm_at_s=400.0)


def play_renamed_set() -> Played:
    """Azure makes a scale set of another name while web-2 is out, and all agents restart."""
    simulation = Simulation(scenario(event(20.0, notice_s=60.0, impact_s=40.0, started_s=60.0)))

    def convert() -> None:
        simulation.world.advance(simulation.epoch())
        simulation.world.convert_set("web-flex")
        for host in simulation.hosts.values():
            host.crash(5.0)

    simulation.loop.call_at(60.0, convert)
    return simulation.run()


# --- what is kept


def returns_to_the_other_pool(played: Played) -> bool:
    """Return whether web-2 is back in the pool that does not refuse it, while the other does."""
    until = EPOCH + REINSTATED_S
    return ("web-2", "app") in moves((c for c in played.history if c.at < until), "member_in")


def leaves_the_foreign_ledger(played: Played) -> bool:
    """Return whether no agent wrote the ledger after it was that of another set."""
    history = played.history
    since = next(each.at for each in history if each.kind == "foreign")
    written = (each for each in history if each.kind == "blob_written" and each.at > since)
    return not any(each.subject.endswith("/web.json") for each in written)


def keeps_two_members(played: Played) -> bool:
    """Return whether the pool never has fewer members than its floor."""
    members = fewest = 3
    for change in played.history:
        members += {"member_in": 1, "member_out": -1}.get(change.kind, 0)
        fewest = min(fewest, members)
    return fewest >= 2


PLAYED: Mapping[str, Callable[[], Played]] = {
    "admin-state": play_member_down,
    "blob-limits": play_huge_requests,
    "continued-ledger": play_renamed_set,
    "early-end": play_patient_operations,
    "kept-as-lost": play_pool_not_found,
    "lease-deadline": play_leader_without_storage,
    "ledger-says-what": play_member_of_one_pool,
    "portions": play_refused_pool,
    "read-ways": play_throttled_load_balancer,
    "requests-as-a-set": play_two_requests,
    "retry-after": play_throttled_load_balancer,
    "set-identity": play_foreign_ledger,
    "shared-floor": play_shared_pool,
    "shown-somewhere": play_nothing_found,
    "single-reads": play_refused_list,
    "state-full-list": play_states,
    "state-if-match": play_states_and_rivals,
    "state-refusal": play_refused_states,
    "state-verified": play_hollow_states,
}
"""A history in which a safeguard is needed, by its name."""
SEEN: Mapping[str, Callable[[Played], bool]] = {
    "portions": returns_to_the_other_pool,
    "set-identity": leaves_the_foreign_ledger,
    "shared-floor": keeps_two_members,
}
"""Whether the law is kept, where the judge does not see the other set or the refusal."""


def is_kept(name: str, played: Played) -> bool:
    """Return whether a history keeps the law that a safeguard is for."""
    if name in SEEN:
        return SEEN[name](played)
    return ablations.SWITCHES[name].law not in {each.law for each in judge(played)}


@pytest.mark.parametrize("name", PLAYED)
def test_the_law_is_kept_by_the_safeguard(name: str) -> None:
    """The history keeps the law, and breaks it when this one safeguard is switched off."""
    assert is_kept(name, PLAYED[name]())
    with ablations.without(name):
        played = PLAYED[name]()
    assert not is_kept(name, played)
    assert H2 not in {each.law for each in judge(played)}, "the switch itself ends no agent"
