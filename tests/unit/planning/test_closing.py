"""A VM that closes first: when it is removed, acknowledged and forgotten."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.core.ability import due_operations
from controller.core.azure_names import fold
from controller.core.drain_requests import DrainRequest
from controller.core.planning.actions import HoldReason, Phase, ReadLoadBalancer, ReadVmReport
from controller.core.planning.closing import (
    REPORT_WITHIN_S,
    REQUESTED_REPORT_WITHIN_S,
    SEEN_WITHIN_S,
)
from controller.core.policy import Floor
from controller.core.resources import HealthProbe, LoadBalancingRule, PoolHealth
from controller.core.vm_report import SeenReport, VmReport, VmState
from tests.support.planner_scenario import (
    API,
    APP,
    LB,
    PlannerScenario,
    acknowledged,
    at,
    deferred,
    event,
    membership,
    phase,
    reasons,
    removal,
    started,
    writes,
)

PORT = 9810


def rule(*, threshold: int = 2, interval_s: int = 5, **probe: Any) -> LoadBalancingRule:
    """Return a rule of APP with a probe."""
    fields: dict[str, Any] = {
        "probe_id": f"{LB}/probes/health",
        "port": PORT,
        "protocol": "Http",
        "interval_s": interval_s,
        "threshold": threshold,
    }
    return LoadBalancingRule(
        rule_id=f"{LB}/loadBalancingRules/http",
        pool_ids=(APP,),
        backend_port=80,
        probe=HealthProbe(**{**fields, **probe}),
    )


def report(scene: PlannerScenario, **changes: Any) -> dict[str, Any]:
    """Return what the leader has read of web-1: closed at once, one connection left."""
    fields: dict[str, Any] = {
        "vm": "web-1",
        "boot_id": "boot",
        "state": VmState.CLOSED,
        "since": at(1),
        "at": at(scene.now),
        "drain": scene.entry().recorded_at,
        "connections": 1,
        "counted": True,
        "probe_port": PORT,
    }
    seen = SeenReport(VmReport(**{**fields, **changes}), at(scene.now))
    return {"reports": {fold("web-1"): seen}, "rules": (rule(),)}


def quiet(scene: PlannerScenario, **changes: Any) -> dict[str, Any]:
    """Return the report of a VM that has no connection left."""
    return report(scene, connections=0, quiet_since=at(2), **changes)


@pytest.fixture
def closing(scene: PlannerScenario) -> PlannerScenario:
    """A set whose VMs close first; web-1 is recorded."""
    scene.policy = replace(scene.policy, close=True)
    scene.adopt()
    assert scene.entry().recorded_at == at(0)
    return scene


# --- removal ---


def test_a_recorded_vm_waits_for_the_report_of_its_agent(closing: PlannerScenario) -> None:
    """The entry is the wish; the leader reads the report and removes nothing yet."""
    planned = closing.plan()
    assert ReadVmReport("web-1") in planned.actions
    assert writes(planned) == []
    assert phase(planned) is Phase.DRAINING


def test_without_a_report_the_vm_is_removed_after_a_moment(closing: PlannerScenario) -> None:
    """An agent that is dead, old or not configured makes nothing later than some seconds."""
    closing.now = REPORT_WITHIN_S
    assert writes(closing.plan()) == [removal()]


def test_a_closed_vm_with_connections_waits(closing: PlannerScenario) -> None:
    """Connections drain before the removal, and the phase states how many are left."""
    closing.now = 20
    planned = closing.plan(**report(closing))
    assert writes(planned) == []
    assert "1 connection left" in planned.phases[0].why


def test_a_quiet_vm_is_removed_when_the_load_balancer_has_noticed(
    closing: PlannerScenario,
) -> None:
    """Quiet counts when every probe had time to notice: interval times threshold."""
    closing.now = 10  # closed for 9 s, the probe needs 10
    assert writes(closing.plan(**quiet(closing))) == []
    closing.now = 11
    assert writes(closing.plan(**quiet(closing))) == [removal()]


def test_refused_probes_show_that_the_load_balancer_has_noticed(closing: PlannerScenario) -> None:
    """The responder's count of 503 is proof before the time is over."""
    closing.now = 5
    assert writes(closing.plan(**quiet(closing, refused_probes=1))) == []
    assert writes(closing.plan(**quiet(closing, refused_probes=2))) == [removal()]


def test_connections_that_do_not_end_delay_no_longer_than_the_drain(
    closing: PlannerScenario,
) -> None:
    """`connection_drain_s` after it closed the VM is removed with what is left."""
    closing.now = 31  # closed at 1, connection_drain_s 30
    assert writes(closing.plan(**report(closing))) == [removal()]


@pytest.mark.parametrize(("said_s", "idle"), [(8.0, True), (-13.0, False), (29.0, False)])
def test_a_leader_that_waits_for_a_closed_vm_lacks_no_ability(
    closing: PlannerScenario, said_s: float, *, idle: bool
) -> None:
    """K1: nothing is needed of Resource Manager while connections end, by a recent report."""
    closing.now = 8
    known = report(closing, at=at(said_s), since=at(1))
    planned = replace(closing.plan(**known), actions=(), ledger=None)
    observed = closing.observe(**known)
    due = due_operations(planned, observed, closing.ledger, closing.policy, at(8))
    assert (due is None) is idle


def test_a_short_notice_is_no_time_to_wait(scene: PlannerScenario) -> None:
    """The removal starts when a write could otherwise end after NotBefore."""
    scene.policy = replace(scene.policy, close=True)
    scene.events = [event(not_before=40)]
    scene.adopt()
    scene.now = 5
    latest = {"write_s": 10.0}  # 40 s, less 15 s for the write, less 5 s
    assert writes(scene.plan(**report(scene), **latest)) == []
    scene.now = 20
    assert writes(scene.plan(**report(scene), **latest)) == [removal()]


def test_writes_that_wait_with_this_one_make_it_start_earlier(scene: PlannerScenario) -> None:
    """Two VMs at one write at a time need the time of two writes."""
    scene.policy = replace(scene.policy, close=True)
    scene.events = [event("web-1", "web-2", not_before=60)]
    scene.adopt()
    scene.now = 26
    later = {"write_s": 10.0, "write_limit": 2}
    assert removal() not in writes(scene.plan(**report(scene), **later))
    both = {"write_s": 10.0, "write_limit": 1}
    assert removal() in writes(scene.plan(**report(scene), **both))


@pytest.mark.parametrize("imminent", [started(), event(not_before=None)])
def test_what_may_start_at_any_moment_is_removed_at_once(
    scene: PlannerScenario, imminent: Any
) -> None:
    """`Started` first, or no NotBefore: as without the VM's side."""
    scene.policy = replace(scene.policy, close=True)
    scene.events = [imminent]
    scene.adopt()
    assert writes(scene.plan()) == [removal()]


def test_a_vm_that_could_not_close_is_removed_at_once(closing: PlannerScenario) -> None:
    """Its flag file could not be written: nothing is won by waiting."""
    closing.now = 2
    problem = report(closing, state=VmState.OPEN, problem="the flag file cannot be written")
    assert writes(closing.plan(**problem)) == [removal()]


@pytest.mark.parametrize(
    "change",
    [
        {"drain": at(-100)},
        {"drain": None},
        {"at": at(-60)},
        {"at": at(3600)},
    ],
)
def test_a_report_of_another_time_is_none(closing: PlannerScenario, change: Any) -> None:
    """A report of another drain, of long ago, or from the future proves nothing."""
    closing.now = 5
    assert writes(closing.plan(**quiet(closing, refused_probes=9, **change))) == []
    closing.now = REPORT_WITHIN_S
    assert writes(closing.plan(**quiet(closing, refused_probes=9, **change))) == [removal()]


@pytest.mark.parametrize("since", [at(20), at(4e6), datetime.max.replace(tzinfo=UTC)])
def test_a_vm_that_closed_in_the_future_delays_nothing(
    closing: PlannerScenario, since: datetime
) -> None:
    """A clock that is ahead, or a forged time: the removal waits from the record on at most."""
    closing.now = 10
    planned = closing.plan(**report(closing, since=since))
    assert writes(planned) == []
    assert planned.wake_at is not None
    assert planned.wake_at <= at(30)
    closing.now = 50
    assert writes(closing.plan(**report(closing, since=since))) == [removal()]


def test_a_drain_request_gives_the_agent_longer(scene: PlannerScenario) -> None:
    """No event shows it: the agent learns of it when it reads the lease."""
    scene.policy, scene.events = replace(scene.policy, close=True), []
    asked = {
        "requests": (
            DrainRequest(request_id="1", vm="web-1", reason="", by="", at=at(0), until=at(9000)),
        )
    }
    scene.adopt(**asked)
    scene.now = REPORT_WITHIN_S
    assert writes(scene.plan(**asked)) == []
    scene.now = REQUESTED_REPORT_WITHIN_S
    assert writes(scene.plan(**asked)) == [removal()]


# --- acknowledgement ---


@pytest.mark.parametrize(
    "unshown",
    [replace(event(), forwarded=True), event(event_id="test-1")],
    ids=["forwarded", "rehearsal"],
)
def test_an_event_that_the_agent_may_not_read_gives_it_longer(
    scene: PlannerScenario, unshown: Any
) -> None:
    """The leader alone reads it; a VM that is removed before it closes loses requests."""
    scene.policy, scene.events = replace(scene.policy, close=True), [unshown]
    scene.adopt()
    scene.now = REPORT_WITHIN_S
    assert writes(scene.plan()) == []
    scene.now = REQUESTED_REPORT_WITHIN_S
    assert writes(scene.plan()) == [removal()]


def test_a_quiet_vm_that_is_out_is_acknowledged_at_once(scene: PlannerScenario) -> None:
    """Out and quiet: nothing is left to wait for."""
    scene.policy = replace(scene.policy, close=True)
    scene.adopt()
    scene.inside["web-1"] = []
    scene.now = 15
    scene.adopt(**quiet(scene))
    assert scene.entry().out_at == at(15)
    assert acknowledged(scene.plan(**report(scene))) == []
    assert acknowledged(scene.plan(**quiet(scene))) == ["E-1"]


def test_a_closed_vm_in_its_pool_is_acknowledged_by_proof(closing: PlannerScenario) -> None:
    """S1: closed, quiet, and enough probes of every rule refused: recorded, then acknowledged."""
    closing.now = 8
    assert acknowledged(closing.through(**quiet(closing, refused_probes=1))) == []
    assert closing.entry().closed_at is None
    assert acknowledged(closing.plan(**quiet(closing, refused_probes=2))) == []
    assert acknowledged(closing.through(**quiet(closing, refused_probes=2))) == ["E-1"]
    assert closing.entry().closed_at == at(8)


def test_a_report_that_was_read_long_ago_is_no_proof(closing: PlannerScenario) -> None:
    """S1: it may be 20 s old, and the read of it 10 s."""
    closing.now = 8
    read = quiet(closing, refused_probes=2)
    closing.through(**read)
    closing.now = 8 + SEEN_WITHIN_S
    assert acknowledged(closing.plan(**read)) == ["E-1"]
    closing.now += 1
    assert acknowledged(closing.plan(**read)) == []


def test_a_pool_that_the_entry_does_not_name_is_no_proof(closing: PlannerScenario) -> None:
    """S1: another client put the VM into a further pool, whose rules are not judged."""
    closing.policy = replace(closing.policy, pools={**closing.policy.pools, API: Floor(number=0)})
    closing.now = 8
    closing.through(**quiet(closing, refused_probes=2))
    closing.inside["web-1"] = [APP, API]
    assert acknowledged(closing.plan(**quiet(closing, refused_probes=2))) == []


def test_a_vm_that_opens_again_is_not_closed(closing: PlannerScenario) -> None:
    """Its agent reports that it is open: the record ends, and with it the proof."""
    closing.now = 8
    closing.through(**quiet(closing, refused_probes=2))
    closing.through(**report(closing, state=VmState.OPEN))
    assert closing.entry().closed_at is None


def test_a_closed_vm_that_reboots_stays_recorded_as_closed(closing: PlannerScenario) -> None:
    """While it is down no report is made; its verdict still knows that it was closed in time."""
    closing.now = 8
    closing.through(**quiet(closing, refused_probes=2))
    closing.now = 90
    closing.through()
    assert closing.entry().closed_at == at(8)


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (rule(port=80),),
        (rule(protocol="Tcp"),),
        (replace(rule(), probe=None),),
        (rule(), replace(rule(port=81), rule_id=f"{LB}/loadBalancingRules/other")),
        (rule(), replace(rule(), rule_id=f"{LB}/loadBalancingRules/other")),
    ],
    ids=["no rule", "another port", "tcp", "no probe", "one of two", "two share the port"],
)
def test_no_proof_for_one_rule_is_no_proof(closing: PlannerScenario, rules: Any) -> None:
    """S1: a rule that may still send new connections keeps the event waiting."""
    closing.now = 8
    known = {**quiet(closing, refused_probes=2), "rules": rules}
    assert acknowledged(closing.through(**known)) == []


@pytest.mark.parametrize("pool_id", [APP, f"{APP}-other"])
def test_probes_of_a_faster_rule_are_no_proof_for_a_slower_one(
    closing: PlannerScenario, pool_id: str
) -> None:
    """S1: the count is that of the port; a rule that asks less often may not have asked yet."""
    slow, other = rule(interval_s=60), f"{LB}/loadBalancingRules/other"
    known = {"rules": (slow, replace(rule(), rule_id=other, pool_ids=(pool_id,)))}
    closing.now = 41
    assert acknowledged(closing.through(**{**quiet(closing, refused_probes=8), **known})) == []
    closing.now = 121  # closed for 120 s, the slow probe needs 120
    assert acknowledged(closing.through(**{**quiet(closing, refused_probes=26), **known})) == [
        "E-1"
    ]


def down_health(seen_s: float, *, by_every_rule: bool = True) -> dict[str, PoolHealth]:
    """Return that some rule of APP, or every rule, reports web-1 as down."""
    down = frozenset({membership("web-1").key})
    found = PoolHealth(
        pool_id=APP,
        down=down,
        down_by_every_rule=down if by_every_rule else frozenset(),
        observed_at=at(seen_s),
    )
    return {fold(APP): found}


def test_rule_health_is_proof_too(closing: PlannerScenario) -> None:
    """S1: all rules report the member as down, by a read of less than a minute."""
    closing.now = 8
    known = {**quiet(closing), "rules": (rule(port=80),)}
    old, one = down_health(-60), down_health(5, by_every_rule=False)
    assert acknowledged(closing.through(**{**known, "health": old})) == []
    assert acknowledged(closing.through(**{**known, "health": one})) == []
    assert acknowledged(closing.through(**{**known, "health": down_health(5)})) == ["E-1"]


def test_rule_health_from_before_the_vm_closed_is_no_proof(closing: PlannerScenario) -> None:
    """S1: the member was down for another reason, and a TCP probe finds it up again."""
    closing.now = 8
    known = {**quiet(closing, since=at(6)), "rules": (rule(protocol="Tcp"),)}
    assert acknowledged(closing.through(**{**known, "health": down_health(5)})) == []
    assert acknowledged(closing.through(**{**known, "health": down_health(7)})) == ["E-1"]


def test_an_operator_can_ask_for_out(closing: PlannerScenario) -> None:
    """`acknowledge_when = "out"`: closed is not enough."""
    closing.policy = replace(closing.policy, acknowledge_closed=False)
    closing.now = 8
    assert acknowledged(closing.through(**quiet(closing, refused_probes=9))) == []


def test_one_closed_vm_of_two_is_not_enough(scene: PlannerScenario) -> None:
    """S1: an event waits for all its VMs."""
    scene.policy = replace(scene.policy, close=True)
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    scene.now = 8
    assert acknowledged(scene.through(**quiet(scene, refused_probes=9))) == []


# --- restore ---


def restored(scene: PlannerScenario) -> None:
    """Make web-1 one that is back in its pools, and whose probes had time."""
    scene.now, scene.events = 400, []
    entry = replace(scene.entry(), out_at=None, restoring_at=at(360), restored_at=at(380))
    scene.ledger = scene.ledger.with_entry(entry)


def test_a_vm_is_forgotten_when_it_is_open(closing: PlannerScenario) -> None:
    """Observed-in before Forget: in its pools, and taking new work."""
    restored(closing)
    planned = closing.plan(**report(closing, state=VmState.OPENING, problem="not ready: 503"))
    assert planned.ledger is None
    assert phase(planned) is Phase.RESTORING
    assert "not ready: 503" in planned.phases[0].why
    done = closing.plan(**report(closing, state=VmState.OPEN)).ledger
    assert done is not None
    assert done.entries == ()


def test_a_vm_without_report_is_forgotten_as_before(closing: PlannerScenario) -> None:
    """An agent that is dead does not keep the entry: its VM opens by itself (S9)."""
    restored(closing)
    done = closing.plan().ledger
    assert done is not None
    assert done.entries == ()


@pytest.mark.parametrize("seen_s", [None, 360], ids=["never read", "read before the restore"])
def test_a_vm_whose_report_was_not_read_since_its_restore_is_not_forgotten(
    closing: PlannerScenario, seen_s: float | None
) -> None:
    """S9: it may still be closed, and without its entry no leader would hold it."""
    restored(closing)
    closing.now, closing.policy = 381, replace(closing.policy, restore_settle_s=0)
    known = {} if seen_s is None else report(closing, state=VmState.CLOSED)
    for key, each in known.get("reports", {}).items():
        old = replace(each.report, at=at(seen_s or 0))
        known = {"reports": {key: replace(each, report=old, observed_at=at(seen_s or 0))}}
    planned = closing.plan(**known)
    assert planned.ledger is None
    assert ReadVmReport("web-1") in planned.actions
    assert "report of its agent" in planned.phases[0].why
    closing.now = 387
    done = closing.plan(**known).ledger
    assert done is not None
    assert done.entries == ()


def test_a_new_leader_reads_the_report_of_a_restored_vm(closing: PlannerScenario) -> None:
    """S9: the leader before it may have ended between the restore and the opening."""
    restored(closing)
    closing.now = 500
    assert closing.plan(tenure_at=at(499)).ledger is None
    assert closing.plan(tenure_at=at(490)).ledger is not None


def test_a_vm_that_does_not_get_ready_is_held(closing: PlannerScenario) -> None:
    """After restore_ready_timeout_s the hold states why."""
    restored(closing)
    closing.now = 380 + 301
    planned = closing.plan(**report(closing, state=VmState.OPENING, problem="not ready: 503"))
    assert reasons(planned) == {"web-1": HoldReason.VM_NOT_READY.value}
    assert "not ready: 503" in planned.holds[0].message


def test_a_vm_that_is_not_open_does_not_count_for_the_floor(closing: PlannerScenario) -> None:
    """S2: a member that refuses its probes serves nobody."""
    restored(closing)
    closing.events = [event("web-2", "web-3", event_id="E-2", not_before=900)]
    opening = closing.plan(**report(closing, state=VmState.OPENING))
    assert reasons(opening)["web-3"] == "floor"
    opened = closing.plan(**report(closing, state=VmState.OPEN))
    assert "web-3" not in reasons(opened)


# --- Resource Manager does not answer ---


@pytest.fixture
def unread(scene: PlannerScenario) -> PlannerScenario:
    """A set whose VMs close first; its pools cannot be read, and web-1 is recorded."""
    scene.policy = replace(scene.policy, close=True)
    scene.pools = {APP: {"observed_at": at(-200)}}
    scene.adopt(**refused(scene))
    return scene


def refused(scene: PlannerScenario) -> dict[str, Any]:
    """Return that the last read of the pool has failed."""
    return deferred(ReadLoadBalancer(LB).target, until=scene.now + 9)


def test_a_vm_whose_pools_cannot_be_read_closes(unread: PlannerScenario) -> None:
    """The record is the wish; no removal is sent before the pools were read."""
    assert unread.entry().unread_at == at(0)
    assert unread.entry().memberships == (membership("web-1"),)
    unread.now = 60
    assert writes(unread.plan(**refused(unread))) == []


def test_it_is_acknowledged_by_proof(unread: PlannerScenario) -> None:
    """S1: closed, quiet, and enough probes of every rule refused."""
    unread.now = 8
    known = {**quiet(unread, refused_probes=2), **refused(unread)}
    unread.adopt(**known)
    assert acknowledged(unread.plan(**known)) == ["E-1"]


def test_it_is_removed_when_its_pools_can_be_read_again(unread: PlannerScenario) -> None:
    """S5: what the read shows is recorded, about the same drain, and then removed."""
    unread.pools, unread.now = {APP: {"observed_at": at(40)}}, 40
    unread.adopt(**quiet(unread, since=at(1)))
    assert (unread.entry().unread_at, unread.entry().recorded_at) == (None, at(0))
    assert writes(unread.plan(**quiet(unread, since=at(1)))) == [removal()]


def test_what_an_operator_has_removed_is_not_restored(unread: PlannerScenario) -> None:
    """S3: also a successor knows that no agent sent a removal of what was never read."""
    unread.pools, unread.inside["web-1"], unread.now = {}, [], 40
    done = unread.plan(unsent=frozenset()).ledger
    assert done is not None
    assert done.entries == ()


def test_it_opens_after_its_event_though_nothing_can_be_read(unread: PlannerScenario) -> None:
    """S9: no removal was sent, so no view has to prove that none takes effect."""
    unread.events, unread.now = [], 40
    unread.adopt(**refused(unread))
    assert unread.entry().restored_at == at(40)


def test_all_vms_of_an_event_close_at_once(scene: PlannerScenario) -> None:
    """A record needs no write slot: only one write can run at a time, and all VMs close."""
    scene.policy = replace(scene.policy, close=True)
    scene.events, scene.slots = [event("web-1", "web-2")], 1
    scene.adopt(write_limit=1)
    assert [entry.vm for entry in scene.ledger.entries] == ["web-1", "web-2"]


@pytest.mark.parametrize(("state", "counted_on"), [(VmState.CLOSED, False), (VmState.OPEN, True)])
def test_a_closed_vm_serves_in_no_pool_that_it_is_back_in(
    closing: PlannerScenario, state: VmState, counted_on: bool
) -> None:
    """S2: while one pool refuses a VM, the VM stays closed, and the other pools count it as out."""
    closing.adopt()
    back = replace(closing.entry(), recorded_at=at(1), restoring_at=at(10))
    closing.ledger = closing.ledger.with_entry(back)
    closing.now = 300
    seen = closing.evidence(**report(closing, state=state))
    assert ("web-1" not in seen.unhealthy_in(APP)) is counted_on
