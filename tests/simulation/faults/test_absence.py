"""Absence: what one reply does not show may be back soon, and nothing final follows from it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from unittest.mock import patch

import pytest

from controller.core.planning import rotation_watch
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Request, Service
from controller.simulator.world.history import Change
from tests.simulation import ablations
from tests.simulation.campaign import judge
from tests.simulation.runner import EPOCH, Played, Simulation
from tests.simulation.scenario import Act, Scenario

POLICY: Mapping[str, object] = {"connection_drain_s": 2, "restore_settle_s": 3}
RESTARTS = tuple(Act(51.0, "crash", {"vm": f"web-{n}", "restart_s": 2.0}) for n in (1, 2))


def ended(history: tuple[Change, ...]) -> list[tuple[str, object]]:
    """Return the agents that ended before they were asked to, and why."""
    goodbye = next(each.at for each in history if each.kind == "goodbye")
    return [
        (each.subject, each.detail["error"])
        for each in history
        if each.kind == "agent_ended" and each.at < goodbye
    ]


def answer(simulation: Simulation, fault: Fault, *, from_s: float, until_s: float) -> None:
    """Let requests that match the fault meet it between two instants."""
    take = simulation.server.faults.take

    def struck(request: Request, vm: str | None, now: float) -> Fault | None:
        if from_s <= now - EPOCH < until_s and fault.matches(request, vm, now):
            return fault
        return take(request, vm, now)

    simulation.server.faults.take = struck  # type: ignore[method-assign]


def play_start(fault: Fault) -> Played:
    """Restart both agents of a set while requests fail for five minutes, and an event later.

    What Azure asks to leave alone is not asked before its time (H1), so the event comes after that.
    """
    asked_s = max(
        (float(value) for name, value in fault.headers if name == "Retry-After"), default=0
    )
    event_at = 380.0 + asked_s
    simulation = Simulation(
        Scenario(
            seed=8,
            vms=2,
            policy=POLICY,
            acts=(*RESTARTS, Act(event_at, "event", {"event_type": "Reboot", "vms": ("web-2",)})),
            calm_at_s=event_at + 10.0,
            patience_s=10.0,
            idle_s=1.0,
        )
    )
    answer(simulation, fault, from_s=50, until_s=350)
    return simulation.run()


AWAY = {
    "VM not found": Fault(
        effect=Effect.REPLY, status=404, service=Service.ARM, path_contains="virtualMachines/web"
    ),
    "set not found": Fault(
        effect=Effect.REPLY, status=404, service=Service.ARM, path_contains="availabilitySets"
    ),
    "load balancer not found": Fault(
        effect=Effect.REPLY, status=404, service=Service.ARM, path_contains="loadBalancers"
    ),
    "resource manager denies": Fault(effect=Effect.REPLY, status=403, service=Service.ARM),
    "resource manager throttles": Fault(
        effect=Effect.REPLY, status=429, service=Service.ARM, headers=(("Retry-After", "1200"),)
    ),
    "no identity": Fault(
        effect=Effect.REPLY,
        status=400,
        body='{"error":"invalid_request","error_description":"Identity not found"}',
        service=Service.IMDS,
        path_contains="identity/oauth2/token",
    ),
    "no metadata": Fault(effect=Effect.REPLY, status=503, service=Service.IMDS),
    "no container": Fault(
        effect=Effect.REPLY,
        status=404,
        headers=(("x-ms-error-code", "ContainerNotFound"),),
        service=Service.BLOB,
    ),
    "storage denies": Fault(
        effect=Effect.REPLY,
        status=403,
        headers=(("x-ms-error-code", "AuthorizationPermissionMismatch"),),
        service=Service.BLOB,
    ),
}


# --- the drain requests ---

OUT_BY_HAND = Scenario(
    seed=3,
    vms=3,
    policy=POLICY,
    acts=(Act(20.0, "ask", {"vm": "web-2", "for_s": 240.0, "request_id": "r-1"}),),
    calm_at_s=25.0,
    patience_s=10.0,
    converge_within_s=120.0,
    idle_s=1.0,
)
NO_BLOB = (("x-ms-error-code", "BlobNotFound"),)
REPLIES = {
    "one 404": Fault(effect=Effect.REPLY, status=404, headers=NO_BLOB, times=1),
    "404 for minutes": Fault(effect=Effect.REPLY, status=404, headers=NO_BLOB),
    "garbage": Fault(effect=Effect.REPLY, status=200, body="<html>"),
}


def back_at(history: tuple[Change, ...]) -> list[float]:
    """Return when VMs came back into rotation, in seconds of the simulation."""
    return [each.at - EPOCH for each in history if each.kind == "member_in"]


def put_blob(simulation: Simulation, file: str, body: bytes | None) -> None:
    """Replace the content of a blob of the set, or delete the blob."""
    store = simulation.world.blobs
    path = simulation.stage.blob_path.replace("web.json", file)
    account, container, name = path.lstrip("/").split("/", 2)
    blobs = store.containers[account, container].blobs
    if body is None:
        del blobs[name]
    else:
        blobs[name].body, blobs[name].etag = body, store.next_etag()


@pytest.mark.parametrize(
    ("reply", "crash"), [("one 404", False), ("404 for minutes", True), ("garbage", False)]
)
def test_no_reply_about_the_requests_ends_a_drain(reply: str, crash: bool) -> None:
    """S6: a VM that was drained on request stays out until the request ends."""
    fault, scenario = REPLIES[reply], OUT_BY_HAND
    if crash:
        act = Act(58.0, "crash", {"vm": "leader", "restart_s": 100.0})
        scenario = replace(scenario, acts=(*scenario.acts, act))
    simulation = Simulation(scenario)
    seen = replace(fault, service=Service.BLOB, path_contains="requests.json")
    answer(simulation, seen, from_s=60, until_s=220)
    assert min(back_at(simulation.run().history)) >= 260


@pytest.mark.parametrize("body", [None, b""])
def test_a_lost_blob_ends_no_drain(body: bytes | None) -> None:
    """S6: a blob that is deleted, emptied or restored from a backup withdraws nothing."""
    simulation = Simulation(OUT_BY_HAND)
    simulation.loop.call_at(60.0, lambda: put_blob(simulation, "web.requests.json", body))
    simulation.loop.call_at(90.0, lambda: simulation.hosts["web-1"].crash(5.0))
    history = simulation.run().history
    # The scenario ends as soon as no request stands in the blob: the VM is still out then.
    assert [at for at in back_at(history) if at < 260] == []


# --- the ledger ---

OUT_FOR_AN_EVENT = Scenario(
    seed=5,
    vms=3,
    policy=POLICY,
    acts=(
        Act(
            20.0,
            "event",
            {
                "event_type": "Reboot",
                "vms": ("web-2",),
                "notice_s": 60.0,
                "duration_s": -1,
                "impact_s": 40.0,
                "started_s": 60.0,
            },
        ),
    ),
    calm_at_s=75.0,
    patience_s=60.0,
    converge_within_s=240.0,
    idle_s=1.0,
)


def lose_ledger(simulation: Simulation, how: str, backup: bytes) -> None:
    """Delete or replace the ledger, as storage or a person can."""
    store, path = simulation.world.blobs, simulation.stage.blob_path
    if how == "container deleted":
        account, container, _ = path.lstrip("/").split("/", 2)
        lost = store.containers.pop((account, container))
        lost.blobs.clear()
        simulation.loop.call_later(
            60.0, lambda: store.containers.setdefault((account, container), lost)
        )
    else:
        body = {"deleted": None, "emptied": b"", "backup": backup}[how]
        put_blob(simulation, "web.json", body)


@pytest.mark.parametrize("crash", [False, True], ids=["leader stays", "leader changes"])
@pytest.mark.parametrize("how", ["deleted", "emptied", "backup", "container deleted"])
def test_a_lost_ledger_loses_no_vm(how: str, crash: bool) -> None:
    """L1: a VM that is out when storage loses the ledger returns to rotation."""
    simulation = Simulation(OUT_FOR_AN_EVENT)
    backups: list[bytes] = []

    def copy() -> None:
        blob = simulation.world.blobs.find(simulation.stage.blob_path)
        assert blob is not None
        backups.append(blob.body)

    def lose() -> None:
        [entry] = simulation.stage.ledger()["entries"]
        assert entry["vm"] == "web-2"
        assert entry["out_at"]
        lose_ledger(simulation, how, backups[0])
        if crash:
            next(host for host in simulation.hosts.values() if host.leading).crash(150.0)

    simulation.loop.call_at(15.0, copy)
    simulation.loop.call_at(60.0, lose)
    history = simulation.run().history
    assert len(back_at(history)) == 1
    assert "converged" in [each.kind for each in history]
    assert ended(history) == []
    steps = [(line["vm"], line["what"]) for line in simulation.stage.ledger()["transitions"]]
    assert ("web-2", "recovered") in steps
    assert ("web-2", "in service") in steps


# --- the set ---


def recreate_load_balancer(simulation: Simulation) -> None:
    """Delete the load balancer and create it again with its members, apart from web-2."""
    world = simulation.world
    world.advance(simulation.epoch())
    load_balancer = world.load_balancer_of(world.pool_id("app"))
    assert load_balancer is not None
    world.recreate_load_balancer(load_balancer["id"], members="same")


def recreate_identities(simulation: Simulation) -> None:
    """Delete the managed identities: tokens are refused, then roles are missing for a while."""
    for status, from_s, until_s in ((401, 60.0, 90.0), (403, 90.0, 200.0)):
        for service in (Service.ARM, Service.BLOB):
            fault = Fault(effect=Effect.REPLY, status=status, service=service)
            answer(simulation, fault, from_s=from_s, until_s=until_s)


def hide_load_balancer(simulation: Simulation) -> None:
    """Let Azure answer 404 for the load balancer for minutes."""
    fault = Fault(
        effect=Effect.REPLY, status=404, service=Service.ARM, path_contains="loadBalancers"
    )
    answer(simulation, fault, from_s=60.0, until_s=300.0)


def hide_set(simulation: Simulation) -> None:
    """Let Azure answer 404 for the set and its VMs for minutes, as for a resource group."""
    fault = Fault(
        effect=Effect.REPLY, status=404, service=Service.ARM, path_contains="Microsoft.Compute"
    )
    answer(simulation, fault, from_s=60.0, until_s=300.0)


@pytest.mark.parametrize(
    ("happens", "crash"),
    [
        (recreate_load_balancer, False),
        (recreate_identities, True),
        (hide_load_balancer, True),
        (hide_set, True),
    ],
)
def test_what_is_away_for_minutes_loses_no_vm(
    happens: Callable[[Simulation], None], crash: bool
) -> None:
    """L1: a VM that is out returns when what was absent, or created again, answers."""
    simulation = Simulation(
        replace(OUT_FOR_AN_EVENT, calm_at_s=305.0, patience_s=10.0, converge_within_s=600.0)
    )

    def act() -> None:
        [entry] = simulation.stage.ledger()["entries"]
        assert entry["out_at"]
        happens(simulation)
        if crash:
            next(host for host in simulation.hosts.values() if host.leading).crash(5.0)

    simulation.loop.call_at(60.0, act)
    history = simulation.run().history
    assert ended(history) == []
    assert "converged" in [each.kind for each in history]
    back = [each.detail["vm"] for each in history if each.kind == "member_in"]
    assert back.count("web-2") == 1


# --- a start ---


@pytest.mark.parametrize("away", AWAY)
def test_agents_start_once_what_was_away_is_back(away: str) -> None:
    """Agents that start while a dependency is away wait for it, and then drain and restore."""
    history = play_start(AWAY[away]).history
    assert ended(history) == []
    kinds = [each.kind for each in history if each.subject == "set"]
    assert "converged" in kinds
    moved = [each.kind for each in history if each.kind in {"member_out", "member_in"}]
    assert moved == ["member_out", "member_in"]


# --- a VM that is not absent any more: another client puts it back --------------------------------


def play_put_back(
    *put_back: Act,
    connection_drain_s: float = 30,
    vms: int = 3,
    out: tuple[str, ...] = ("web-2",),
    acknowledge: bool = True,
    by_address: bool = False,
) -> Played:
    """Play a reboot that is announced at 20 s for 270 s, while other clients write."""
    reboot = {
        "event_type": "Reboot", "vms": out, "notice_s": 250.0, "duration_s": -1,
        "impact_s": 60.0, "started_s": 90.0,
    }  # fmt: skip
    return Simulation(
        Scenario(
            seed=16,
            vms=vms,
            settings={"ack_starts_event_after_s": None},
            pools=() if by_address else ("app",),
            ip_pools=("app",) if by_address else (),
            policy={
                "connection_drain_s": connection_drain_s,
                "restore_settle_s": 3,
                "acknowledge": acknowledge,
            },
            acts=(Act(20.0, "event", reboot), *put_back),
            calm_at_s=55.0,
            patience_s=400.0,
            converge_within_s=30.0,
            idle_s=1.0,
        )
    ).run()


def join(at_s: float, vm: str = "web-2") -> Act:
    """Let another client put a VM back."""
    return Act(at_s, "join_pool", {"vm": vm, "pool": "app"})


def acknowledgements(played: Played) -> list[tuple[float, bool]]:
    """Return when the event was acknowledged, and whether a VM was in the pool then."""
    return [
        (change.at - EPOCH, "web-2" in inside(played, change.at))
        for change in played.history
        if change.kind == "event_acknowledged"
    ]


def inside(played: Played, at: float) -> set[str]:
    """Return the VMs that were in the pool at an instant."""
    members = {f"web-{n}" for n in range(1, 10)}
    for change in played.history:
        if change.at <= at and change.kind in {"member_out", "member_in"}:
            move = members.add if change.kind == "member_in" else members.discard
            move(str(change.detail["vm"]))
    return members


def down_at(played: Played, vm: str = "web-2") -> float:
    """Return when the maintenance of a VM began."""
    return next(each.at for each in played.history if each.kind == "vm_down" and each.subject == vm)


@pytest.mark.parametrize(
    ("put_back", "connection_drain_s"),
    [
        ((join(42.0),), 30),
        ((join(50.0),), 2),
        ((join(60.0), join(120.0), join(200.0)), 2),
        ((join(240.0),), 2),
    ],
    ids=["before the acknowledgement", "after it", "again and again", "near NotBefore"],
)
def test_a_vm_that_is_put_back_is_taken_out_and_not_acknowledged_meanwhile(
    put_back: tuple[Act, ...], connection_drain_s: float
) -> None:
    """S1, S7: a client that puts a drained VM back delays the acknowledgement, not the drain."""
    played = play_put_back(*put_back, connection_drain_s=connection_drain_s)
    found = acknowledgements(played)
    assert found
    assert [at for at, back in found if back] == []
    assert "web-2" not in inside(played, down_at(played))
    assert judge(played) == []


def test_a_vm_that_is_put_back_during_its_maintenance_is_taken_out() -> None:
    """S7: after the start of the event a VM that was put back leaves the pool within 45 s."""
    played = play_put_back(join(275.0), connection_drain_s=2)
    assert "web-2" in inside(played, EPOCH + 276)
    assert "web-2" not in inside(played, EPOCH + 275 + 45)


@pytest.mark.parametrize("out", [("web-2",), ("web-2", "web-3", "web-4", "web-5")])
def test_the_reads_of_pools_do_not_grow_with_the_vms_that_are_out(out: tuple[str, ...]) -> None:
    """H1: while VMs are out, one load balancer is read 2 to 7 times a minute, however many."""
    played = play_put_back(vms=6, out=out)
    between = [
        each
        for each in played.history
        if each.kind == "sent" and EPOCH + 120 <= each.at < EPOCH + 240
        if each.detail["service"] == "arm" and each.detail["method"] == "GET"
    ]
    assert 8 <= len(between) <= 14
    assert all("/loadbalancers/" in each.subject.casefold() for each in between)


def test_without_the_read_before_it_an_acknowledgement_leaves_too_early() -> None:
    """S1: the next inventory alone notices a VM that was put back only after acknowledgements."""
    with ablations.without("fresh-acknowledgement"):
        played = play_put_back(join(42.0), connection_drain_s=2)
    assert any(back for _, back in acknowledgements(played))


@pytest.mark.parametrize("watched", [True, False])
def test_a_vm_is_watched_while_no_event_is_acknowledged(watched: bool) -> None:
    """S7: without acknowledgements the watch alone notices a VM that was put back."""
    watch = rotation_watch.steps if watched else lambda *_: ()
    with patch.object(rotation_watch, "steps", watch):
        played = play_put_back(join(100.0), connection_drain_s=2, acknowledge=False)
    assert ("web-2" in inside(played, down_at(played))) is not watched


def test_an_address_that_is_put_back_is_taken_out() -> None:
    """S1: the same holds for pools of addresses."""
    played = play_put_back(join(56.0), connection_drain_s=2, by_address=True)
    found = acknowledgements(played)
    assert found
    assert [at for at, back in found if back] == []
    assert "web-2" not in inside(played, down_at(played))
    assert judge(played) == []
