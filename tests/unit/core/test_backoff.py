"""How many writes at once, how long to wait after a failure, and what else follows from it."""

from dataclasses import astuple, replace

import pytest

from controller.core.backoff import (
    INCREASE_AFTER,
    MAX_BACKOFF_S,
    ConcurrencyLimit,
    Reaction,
    backoff_s,
    is_routine,
    pause_s,
    reaction,
)
from controller.core.planning.actions import (
    Acknowledge,
    Action,
    ChangeMembership,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
    ReadRuleHealth,
)
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.nic_pool import NicPool
from controller.core.resources import AddressMembership, NicMembership
from controller.errors import (
    Busy,
    Conflict,
    ControllerError,
    Denied,
    NotFound,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)


def test_an_undisturbed_agent_writes_at_its_maximum() -> None:
    """Success never raises the limit above what the operator allows."""
    pace = ConcurrencyLimit.starting_at(8)
    for _ in range(100):
        pace = pace.succeeded()
    assert pace.limit == 8


@pytest.mark.parametrize(("most", "limits"), [(8, [4, 2, 1, 1]), (5, [2, 1, 1]), (1, [1, 1])])
def test_every_conflict_halves_the_limit(most: int, limits: list[int]) -> None:
    """Conflicts halve the number of writes, never below one."""
    pace = ConcurrencyLimit.starting_at(most)
    for limit in limits:
        pace = pace.conflicted()
        assert pace.limit == limit


def test_the_limit_recovers_slowly() -> None:
    """Each run of undisturbed writes adds one; a conflict in between starts the run again."""
    pace = ConcurrencyLimit.starting_at(4).conflicted()
    for _ in range(INCREASE_AFTER - 1):
        pace = pace.succeeded()
    assert pace.limit == 2
    assert pace.succeeded().limit == 3
    again = pace.conflicted()
    for _ in range(INCREASE_AFTER - 1):
        again = again.succeeded()
    assert again.limit == 1
    assert again.succeeded().limit == 2


def test_every_step_up_takes_a_whole_run() -> None:
    """Ten undisturbed writes for each one more, also for the second and the third."""
    pace, limits = ConcurrencyLimit(limit=1, maximum=4), []
    for _ in range(35):
        pace = pace.succeeded()
        limits.append(pace.limit)
    assert limits == [1] * 9 + [2] * 10 + [3] * 10 + [4] * 6


@pytest.mark.parametrize(
    ("attempts", "full"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 15), (6, 15), (10**6, 15)]
)
def test_back_off_doubles_up_to_a_limit(attempts: int, full: float) -> None:
    """1, 2, 4, 8, then 15 s, spread over the upper half by the jitter."""
    assert backoff_s(attempts, jitter=1) == full
    assert backoff_s(attempts, jitter=0) == full / 2
    assert 0 < backoff_s(attempts, jitter=0.3) <= MAX_BACKOFF_S


# --- what follows from a failed action -----------------------------------------------------------

NIC, POOL = "/nics/web-1-nic", "/subscriptions/s/loadBalancers/web-lb/backendAddressPools/app"
LB = "/subscriptions/s/loadBalancers/web-lb"
REMOVE_NIC = ChangeMembership(
    method=NicPool(),
    memberships=(NicMembership(pool_id=POOL, nic_id=NIC, ip_configuration="ipconfig1"),),
    restore=False,
)
RESTORE_NIC = replace(REMOVE_NIC, restore=True)
REMOVE_ADDRESS = ChangeMembership(
    method=AddressPool(),
    memberships=(AddressMembership(pool_id=POOL, name="a", ip_address="10.0.0.4", body="{}"),),
    restore=False,
)
FORGET = Reaction(forget_body=True)


@pytest.mark.parametrize(
    ("action", "error", "refused", "expected"),
    [
        (ReadNic(NIC), NotFound("404"), True, Reaction(mark_absent=True)),
        (ReadLoadBalancer(LB), NotFound("404"), True, Reaction(mark_absent=True)),
        (ReadNic(NIC), Throttled("429"), True, Reaction()),
        (ReadPower("/vms/web-1"), NotFound("404"), True, Reaction()),
        (ReadRuleHealth(LB), Denied("403"), True, Reaction(later_s=3600)),
        (ReadRuleHealth(LB), NotFound("404"), True, Reaction(later_s=120)),
        (ReadRuleHealth(LB), Throttled("429", retry_after_s=9), True, Reaction(later_s=120)),
        (ReadRuleHealth(LB), Throttled("429", retry_after_s=900), True, Reaction(later_s=900)),
        (ReadInventory(), Busy("409"), True, Reaction(fewer_writes=True)),
        (Acknowledge("E-1"), Conflict("400"), True, Reaction()),
        (Acknowledge("E-1"), Throttled("429", retry_after_s=9), True, Reaction()),
        (REMOVE_NIC, ServiceFault("503"), False, FORGET),
        (REMOVE_NIC, Conflict("412"), True, replace(FORGET, unsent=True)),
        (REMOVE_NIC, Conflict("superseded"), False, FORGET),
        (REMOVE_NIC, Busy("409"), True, replace(FORGET, unsent=True, fewer_writes=True)),
        (
            REMOVE_NIC,
            Throttled("429", retry_after_s=9),
            True,
            replace(FORGET, unsent=True, fewer_writes=True, pause_writes=True),
        ),
        (REMOVE_NIC, OutcomeUnknown("reset"), False, FORGET),
        (
            REMOVE_NIC,
            OutcomeUnknown("429", retry_after_s=20),
            False,
            replace(FORGET, defer_read_s=20),
        ),
        (
            REMOVE_NIC,
            NotFound("404"),
            True,
            replace(FORGET, unsent=True, reread=(ReadNic(NIC),)),
        ),
        (
            RESTORE_NIC,
            ServiceFault("400"),
            True,
            replace(FORGET, unsent=True, reread=(ReadLoadBalancer(LB),)),
        ),
        (
            RESTORE_NIC,
            NotFound("404"),
            True,
            replace(FORGET, unsent=True, reread=(ReadNic(NIC), ReadLoadBalancer(LB))),
        ),
        (RESTORE_NIC, Conflict("412"), True, replace(FORGET, unsent=True)),
        (RESTORE_NIC, ServiceFault("503"), False, FORGET),
        (
            REMOVE_ADDRESS,
            NotFound("404"),
            True,
            Reaction(unsent=True, reread=(ReadLoadBalancer(LB),)),
        ),
        (REMOVE_ADDRESS, OutcomeUnknown("429", retry_after_s=20), False, Reaction()),
        (REMOVE_ADDRESS, Busy("409"), True, Reaction(unsent=True, fewer_writes=True)),
    ],
    ids=lambda value: str(value) or type(value).__name__,
)
def test_every_failure_has_its_reaction(
    action: Action, error: ControllerError, refused: bool, expected: Reaction
) -> None:
    """What follows depends on the action and on the error, and on nothing else."""
    assert reaction(action, error, refused=refused) == expected


@pytest.mark.parametrize("error", [Conflict("412"), Busy("409"), Throttled("429")])
def test_conflicts_and_throttling_are_routine_for_a_while(error: ControllerError) -> None:
    """Four in a row need no attention, the fifth does."""
    assert [is_routine(error, attempts=attempts) for attempts in (1, 4, 5, 100)] == [
        *(True, True),
        *(False, False),
    ]


def test_other_failures_are_never_routine() -> None:
    """The first one is reported."""
    assert not is_routine(ServiceFault("503"), attempts=1)


def test_load_balancers_are_read_in_order() -> None:
    """A restore to pools of several load balancers reads each of them once, sorted by id."""
    owners = [f"/subscriptions/s/loadBalancers/lb-{number}" for number in range(9)]
    pools = [f"{owner}/backendAddressPools/{pool}" for owner in owners for pool in ("a", "b")]
    memberships = tuple(
        NicMembership(pool_id=pool_id, nic_id=NIC, ip_configuration="c")
        for pool_id in reversed(pools)
    )
    action = ChangeMembership(method=NicPool(), memberships=memberships, restore=True)
    found = reaction(action, ServiceFault("400"), refused=True)
    assert found.reread == tuple(ReadLoadBalancer(owner) for owner in owners)


def test_a_failure_without_a_reaction_changes_nothing() -> None:
    """L2: what no rule names is only tried again after its back-off."""
    assert astuple(Reaction()) == (False, False, (), None, False, False, False, None)


@pytest.mark.parametrize(
    ("asked_s", "throttled", "expected"),
    [(None, 1, 1.0), (1200, 1, 1.0), (1200, 3, 4.0), (1200, 20, 15.0), (0.5, 20, 0.5)],
)
def test_other_writes_pause_shortly(asked_s: float | None, throttled: int, expected: float) -> None:
    """K1: a long wait holds the refused write alone; others slow down with every refusal."""
    error = Throttled("429", retry_after_s=asked_s)
    assert pause_s(error, throttled=throttled, jitter=1) == expected
