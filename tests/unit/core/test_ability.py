"""Ability: what counts as due, what an error proves, and when an agent is unable."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core.ability import (
    ACKNOWLEDGING,
    READING_INVENTORY,
    READING_REPORTS,
    READING_REQUESTS,
    REMEMBERED_S,
    STALE_S,
    UNABLE_AFTER_S,
    WRITING_LEDGER,
    Attempts,
    Inability,
    Operation,
    Unanswered,
    due_operations,
    inability,
    operation_of,
    verdict_of,
    with_inability,
)
from controller.core.action_keys import action_key
from controller.core.drain_requests import DrainRequest
from controller.core.event_record import Place, WatchedEvent, WatchedVm
from controller.core.ledger import Entry, Hold, Ledger
from controller.core.planning.actions import (
    Acknowledge,
    Action,
    ChangeMembership,
    HoldReason,
    Plan,
    PublishShare,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
    ReadRuleHealth,
    ReadSharedPool,
    ReadView,
)
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.nic_pool import NicPool
from controller.core.shared_pools import PoolShares
from controller.errors import (
    Busy,
    ConfigError,
    Conflict,
    ContractViolation,
    ControllerError,
    Denied,
    LeaseHeld,
    LeaseLost,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Outdated,
    ServiceFault,
    Throttled,
)
from tests.support.planner_scenario import (
    APP,
    LB,
    T0,
    PlannerScenario,
    address,
    at,
    event,
    membership,
    nic_id,
    vm_id,
)

REMOVE = ChangeMembership(method=NicPool(), memberships=(membership("web-1"),), restore=False)
RESTORE = ChangeMembership(method=NicPool(), memberships=(membership("web-1"),), restore=True)
REMOVE_ADDRESS = ChangeMembership(
    method=AddressPool(), memberships=(address("web-1", "10.0.0.4"),), restore=False
)
READ_NIC, READ_LB = ReadNic(nic_id("web-1")), ReadLoadBalancer(LB)
ACKNOWLEDGE = Acknowledge("E-1")
ENTRY = Entry(
    vm="web-1",
    vm_id=vm_id("web-1"),
    events=(),
    memberships=(membership("web-1"),),
    recorded_at=T0,
)


@pytest.mark.parametrize(
    ("action", "operation"),
    [
        (ReadInventory(), "read the VMs of the set"),
        (READ_LB, "read load balancers"),
        (READ_NIC, "read NICs"),
        (ReadPower(vm_id("web-1")), "read the power state of VMs"),
        (ReadView(mechanism="probe", resource_id="/x"), "read what the mechanism probe needs"),
        (REMOVE, "take VMs out of rotation (nic write)"),
        (RESTORE, "restore VMs (nic write)"),
        (REMOVE_ADDRESS, "take VMs out of rotation (address write)"),
        (ACKNOWLEDGE, "acknowledge events"),
        (ReadSharedPool(APP), "read what other sets state about shared pools"),
        (
            PublishShare(pool_id=APP, shares=PoolShares(pool_id=APP), etag=""),
            "state to other sets what leaves shared pools",
        ),
    ],
)
def test_kinds_of_work(action: Action, operation: str) -> None:
    """What needs a permission or a service of its own is a kind of work of its own."""
    assert operation_of(action) == operation


# --- what an error proves ---


@pytest.mark.parametrize(
    ("error", "operation", "able", "unable"),
    [
        (NotSent("x"), operation_of(READ_NIC), False, True),
        (OutcomeUnknown("x"), operation_of(REMOVE), False, True),
        (Throttled("x", retry_after_s=1200), operation_of(REMOVE), False, True),
        (ServiceFault("x"), operation_of(READ_LB), False, True),
        (Denied("x"), operation_of(REMOVE), False, True),
        (ContractViolation("x"), READING_INVENTORY, False, True),
        (ContractViolation("x"), READING_REPORTS, False, False),
        (Denied("x"), READING_REPORTS, False, True),
        (ContractViolation("x"), READING_REQUESTS, False, False),
        (Denied("x"), READING_REQUESTS, False, True),
        (Denied("x"), WRITING_LEDGER, False, True),
        (Conflict("x"), operation_of(REMOVE), True, False),
        (Busy("x"), operation_of(RESTORE), True, False),
        (Conflict("x"), ACKNOWLEDGING, False, True),
        (ServiceFault("x"), ACKNOWLEDGING, False, True),
        (NotFound("x"), operation_of(READ_NIC), False, False),
        (NotFound("x"), READING_INVENTORY, False, True),
        (ConfigError("x"), operation_of(READ_LB), False, False),
        (LeaseLost("x"), operation_of(REMOVE), False, False),
        (LeaseHeld("x"), WRITING_LEDGER, False, False),
        (Outdated("x"), operation_of(RESTORE), False, False),
        (Outdated("x"), ACKNOWLEDGING, False, False),
        (Denied("x"), operation_of(ReadRuleHealth("/lb")), False, False),
        (Throttled("x"), operation_of(ReadRuleHealth("/lb")), False, False),
    ],
)
def test_what_an_error_proves(
    error: ControllerError, operation: Operation, able: bool, unable: bool
) -> None:
    """A failure that every agent would meet is no inability; an accepted identity is ability."""
    verdict = verdict_of(operation, error)
    assert (verdict.able, verdict.unable) == (able, unable)


@pytest.mark.parametrize(
    ("error", "excused"),
    [
        (Denied("lacks join/action"), True),
        (NotFound("x"), True),
        (ContractViolation("400 InvalidResourceReference"), True),
        (ServiceFault("x"), False),
        (Throttled("x", retry_after_s=1200), False),
        (OutcomeUnknown("x"), False),
    ],
)
@pytest.mark.parametrize("action", [REMOVE, RESTORE, REMOVE_ADDRESS])
def test_a_refusal_of_what_is_absent_is_excused(
    action: Action, error: ControllerError, excused: bool
) -> None:
    """A write to a deleted pool is refused to every agent; a fault on the way is its own."""
    verdict = verdict_of(operation_of(action), error, absent=True)
    assert (verdict.able, verdict.unable, verdict.excused) == (False, not excused, excused)


def test_a_report_that_is_none_excuses_what_failed_before_it() -> None:
    """Storage has answered, and shows every agent the same."""
    assert verdict_of(READING_REPORTS, ContractViolation("x")).excused


def test_what_is_excused_has_not_failed() -> None:
    """The run of failures goes on with the other keys, and ends with the last one."""
    key, other = action_key("write", "a"), action_key("write", "b")
    failing = Attempts().failed(key=key, began_at=3, until=4, why="x")
    failing = failing.failed(key=other, began_at=9, until=9, why="x")
    assert (failing.excused(key).failing_since, failing.excused(key).keys) == (3, {other})
    assert failing.excused(key).excused(other).failing_since is None
    assert Attempts(failing_since=3).excused(key).failing_since == 3


def test_attempts_fail_since_the_first_that_began_after_the_last_success() -> None:
    """A run of failures begins with its first attempt, and never before the last success."""
    key, other = action_key("read", "a"), action_key("read", "b")
    assert Attempts().failing_since is None
    failing = Attempts(succeeded_at=5).failed(key=key, began_at=3, until=6, why="first")
    assert (failing.failing_since, failing.keys, failing.why) == (5, {key}, "first")
    failing = failing.failed(key=other, began_at=9, until=9, why="second")
    assert (failing.failing_since, failing.keys, failing.why) == (5, {key, other}, "second")
    assert failing.in_new_term(30).failing_since == 30
    assert failing.in_new_term(30).keys == failing.keys
    assert Attempts().in_new_term(30) == Attempts()


def test_failures_after_which_nothing_was_tried_are_stale() -> None:
    """What was due then was done in another way, or is not needed any more."""
    key, other = action_key("read", "a"), action_key("read", "b")
    failing = Attempts(succeeded_at=5).failed(key=key, began_at=6, until=30, why="first")
    assert failing.without_stale(30 + STALE_S - 1) == failing
    assert failing.without_stale(30 + STALE_S) == Attempts(succeeded_at=5)
    assert failing.in_new_term(30 + STALE_S) == Attempts(succeeded_at=5)
    again = failing.failed(key=other, began_at=30 + STALE_S, until=100, why="second")
    assert (again.failing_since, again.keys) == (30 + STALE_S, {other})


# --- what is due ---


def due(scenario: PlannerScenario, *actions: Action, **over: Any) -> frozenset[Operation] | None:
    observed = scenario.observe(**over)
    plan = Plan(ledger=None, actions=actions, phases=(), holds=(), wake_at=None)
    return due_operations(plan, observed, scenario.ledger, scenario.policy, T0)


def test_an_idle_set_needs_nothing() -> None:
    """The reads of an idle set are no due work, nor is an event that is far away."""
    scenario = PlannerScenario()
    assert due(scenario, ReadInventory(), READ_NIC) is None
    scenario.events = [event(not_before=86_400)]
    assert due(scenario, ReadInventory()) is None


@pytest.mark.parametrize("what", ["event", "request", "entry"])
def test_what_makes_work_due(what: str) -> None:
    """A due event, a drain request or a VM that is out: then reads count, and what is planned."""
    scenario, over = PlannerScenario(), dict[str, Any]()
    if what == "event":
        scenario.events = [event()]
    elif what == "request":
        request = DrainRequest(
            vm="web-2",
            request_id="r-1",
            reason="disk",
            by="anna",
            at=T0,
            until=T0 + timedelta(hours=1),
        )
        over["requests"] = (request,)
    else:
        scenario.ledger = Ledger(entries=(ENTRY,))
    assert due(scenario, **over) == frozenset()
    assert due(scenario, READ_NIC, READ_LB, **over) == {
        operation_of(READ_NIC),
        operation_of(READ_LB),
    }


@pytest.mark.parametrize("when", ["announced", "started", "gone", "known"])
@pytest.mark.parametrize("close", [False, True])
def test_a_verdict_that_waits_for_reads_makes_them_due(when: str, close: bool) -> None:
    """Another agent may know where the VM of an event was; before the start nothing is missing."""
    watched = WatchedEvent(
        event_id="E-1",
        event_type="Reboot",
        first_seen_at=T0,
        started_at=T0 if when in {"started", "known"} else None,
        gone_at=T0 if when == "gone" else None,
        vms=(WatchedVm(vm="web-2", place=Place.OUT if when == "known" else Place.UNKNOWN),),
    )
    scenario = PlannerScenario(ledger=Ledger(events=(watched,)))
    scenario.policy = replace(scenario.policy, close=close)
    expected = {READING_INVENTORY} if when in {"started", "gone"} else None
    assert due(scenario) == expected


@pytest.mark.parametrize(
    "entry",
    [replace(ENTRY, gone=True), replace(ENTRY, memberships=(), lost=ENTRY.memberships)],
    ids=["gone", "lost"],
)
def test_an_entry_that_waits_for_its_place_makes_nothing_due(entry: Entry) -> None:
    """A deleted VM or pool is read from time to time, for ever."""
    scenario = PlannerScenario(ledger=Ledger(entries=(entry,)))
    assert due(scenario, ReadPower(vm_id("web-1"))) is None


@pytest.mark.parametrize("action", [REMOVE, RESTORE, ACKNOWLEDGE])
def test_what_is_planned_is_due(action: Action) -> None:
    """A removal, a restore and an acknowledgement are needed whenever they are planned."""
    assert due(PlannerScenario(), action) == {operation_of(action)}


def test_an_inventory_is_due_only_without_another() -> None:
    """The old inventory serves as long as it contains the VMs of the due events."""
    scenario = PlannerScenario(events=[event()])
    assert due(scenario, ReadInventory()) == frozenset()
    assert due(scenario, ReadInventory(), inventory_at=None) == {READING_INVENTORY}
    scenario.events = [event("web-1", "web-9")]
    assert due(scenario, ReadInventory()) == {READING_INVENTORY}
    scenario.events = [event(), event("web-9", event_id="E-2", not_before=86_400)]
    assert due(scenario, ReadInventory()) == frozenset()


@pytest.mark.parametrize(
    ("out_at", "expected"), [(None, frozenset()), (at(5), {READING_INVENTORY})]
)
def test_an_inventory_that_does_not_describe_a_vm_that_is_out_is_not_enough(
    out_at: Any, expected: frozenset[Operation]
) -> None:
    """Its NICs show enough to take a VM out, not to acknowledge its event."""
    scenario = PlannerScenario(events=[event()], vms={"web-1": {"problem": "403"}})
    scenario.ledger = Ledger(entries=(replace(ENTRY, out_at=out_at),))
    assert due(scenario, ReadInventory()) == expected


def test_a_ledger_to_write_is_due_with_the_rest() -> None:
    """Nothing can be removed before it is recorded; the notes of an idle set can wait."""
    scenario = PlannerScenario()
    plan = Plan(ledger=Ledger(epoch=2), actions=(), phases=(), holds=(), wake_at=None)
    for events, expected in (([event()], {WRITING_LEDGER}), ([], None)):
        scenario.events = events
        observed = scenario.observe()
        found = due_operations(plan, observed, scenario.ledger, scenario.policy, T0)
        assert found == expected


def test_the_drain_requests_are_due_while_a_restore_waits_for_them() -> None:
    """L1: another agent may be able to read them; nothing else waits for them."""
    scenario = PlannerScenario(ledger=Ledger(entries=(ENTRY,)))
    for reason, expected in ((HoldReason.REQUESTS_UNREAD, {READING_REQUESTS}), (None, set())):
        holds = (
            (Hold(subject="web-1", reason=reason.value, message="", since=T0),) if reason else ()
        )
        plan = Plan(ledger=None, actions=(), phases=(), holds=holds, wake_at=None)
        found = due_operations(plan, scenario.observe(), scenario.ledger, scenario.policy, T0)
        assert found == expected


# --- the decision ---

WRITING = operation_of(REMOVE)
READING = operation_of(READ_NIC)
FAILING = Attempts().failed(key=REMOVE.key, began_at=100, until=101, why="403")


def test_times() -> None:
    """With what a peer needs to find a released lease, leadership moves within 30 s."""
    assert (UNABLE_AFTER_S, REMEMBERED_S) == (20, 300)


@pytest.mark.parametrize(
    ("needed", "known", "since", "now_s", "expected"),
    [
        ({WRITING}, {WRITING: FAILING}, None, 119.9, ""),
        ({WRITING}, {WRITING: FAILING}, None, 120, f"cannot {WRITING}: 403"),
        ({WRITING}, {WRITING: FAILING}, None, 101 + STALE_S, ""),
        (set[Operation](), {WRITING: FAILING}, None, 999, ""),
        ({READING}, {WRITING: FAILING}, None, 999, ""),
        ({READING}, {READING: Attempts(succeeded_at=10)}, None, 999, ""),
        ({WRITING}, {}, 100, 119.9, ""),
        ({WRITING}, {}, 100, 120, f"cannot {WRITING}: Azure does not reply"),
        ({WRITING}, {WRITING: Attempts(succeeded_at=105)}, 100, 124.9, ""),
        ({WRITING}, {WRITING: Attempts(succeeded_at=105)}, 100, 125, "does not reply"),
        ({WRITING}, {WRITING: FAILING}, 119, 120, "403"),
        ({READING}, {}, 100, 999, ""),
    ],
)
def test_unable_without_a_success_of_what_is_due(
    needed: set[Operation],
    known: dict[Operation, Attempts],
    since: float | None,
    now_s: float,
    expected: str,
) -> None:
    """Only work that is due counts, and only after a while without any success of its kind."""
    waiting = () if since is None else (Unanswered(operation=WRITING, began_at=since),)
    found = inability(needed, known, waiting, now_s)
    assert expected in str(found or "")
    assert bool(found) is bool(expected)


# --- no agent is able ---

FOUND = Inability(operation=WRITING, why="403")
EARLIER = Hold(subject=WRITING, reason="no_able_agent", message="earlier", since=T0)
OTHER_HOLD = Hold(subject="web-1", reason="floor", message="floor", since=T0)
NOW = T0 + timedelta(seconds=90)


def held(
    durable: Ledger,
    *,
    found: Inability | None = None,
    due: bool = True,
    able: frozenset[Operation] = frozenset(),
    planned: Ledger | None = None,
) -> Plan:
    holds = (planned or durable).holds
    plan = Plan(ledger=planned, actions=(), phases=(), holds=holds, wake_at=None)
    return with_inability(plan, durable, NOW, found=found, due=due, able=able)


def test_what_no_agent_can_do_is_held() -> None:
    """The hold states what, why, what follows and what to do, and is written to the ledger."""
    plan = held(Ledger(holds=(OTHER_HOLD,)), found=FOUND)
    assert plan.ledger is not None
    assert plan.ledger.holds == plan.holds
    assert OTHER_HOLD in plan.holds
    (hold,) = (each for each in plan.holds if each != OTHER_HOLD)
    assert (hold.subject, hold.reason, hold.since) == (WRITING, "no_able_agent", NOW)
    assert hold.message == (
        "no agent of the set can take VMs out of rotation (nic write): 403. They try in turn, "
        "and VMs can be late for their maintenance: correct the cause for at least one agent"
    )


@pytest.mark.parametrize("found", [None, FOUND])
def test_the_hold_passes_from_leader_to_leader_as_it_is(found: Inability | None) -> None:
    """H1: while the agents try in turn neither the ledger nor the notices change."""
    durable = Ledger(holds=(EARLIER,))
    plan = held(durable, found=found)
    assert (plan.ledger, plan.holds) == (None, (EARLIER,))
    # The planner knows nothing of this hold, and would drop it.
    plan = held(durable, found=found, planned=Ledger())
    assert (plan.ledger, plan.holds) == (None, (EARLIER,))
    plan = held(durable, found=found, planned=Ledger(holds=(OTHER_HOLD,)))
    assert plan.ledger == Ledger(holds=(EARLIER, OTHER_HOLD))


def test_the_hold_ends_with_a_success_or_when_nothing_is_due() -> None:
    """A success of that work, not of another kind."""
    durable = Ledger(holds=(EARLIER,))
    assert held(durable, able=frozenset({READING})).ledger is None
    assert held(durable, able=frozenset({WRITING})).ledger == Ledger()
    assert held(durable, due=False).ledger == Ledger()


def test_without_inability_a_plan_stays_as_it_is() -> None:
    """An able leader of a set without the hold changes nothing."""
    plan = Plan(ledger=None, actions=(REMOVE,), phases=(), holds=(OTHER_HOLD,), wake_at=None)
    durable = Ledger(holds=(OTHER_HOLD,))
    assert (
        with_inability(plan, durable, NOW, found=None, due=True, able=frozenset({WRITING})) is plan
    )
