"""What an agent remembers of its attempts: over passes, over tenures, and as a standby."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from controller.agent.ability_watch import AbilityWatch
from controller.agent.assembly import watch_ability
from controller.core.ability import (
    ACKNOWLEDGING,
    READING_FORWARDED,
    READING_REQUESTS,
    REMEMBERED_S,
    STALE_S,
    UNABLE_AFTER_S,
    WRITING_LEDGER,
    Operation,
)
from controller.core.action_keys import LEDGER, ActionKey, action_key
from controller.core.observation import Deferral
from controller.core.planning.actions import ReadLoadBalancer
from controller.core.planning.planner import plan
from controller.errors import (
    Conflict,
    ControllerError,
    Denied,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)
from tests.support.clocks import StoppedClock
from tests.support.planner_scenario import LB, T0, PlannerScenario, at, event

WRITING = Operation("take VMs out of rotation (nic write)")
NIC, OTHER = action_key("write", "/nics/a"), action_key("write", "/nics/b")
DENIED = Denied("no permission")


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def watch(clock: StoppedClock) -> AbilityWatch:
    """Watch the agent in its first tenure, to which a write is due."""
    watch = AbilityWatch(clock)
    watch.begin(1)
    watch.planned({WRITING})
    return watch


def fail(watch: AbilityWatch, key: ActionKey = NIC, error: ControllerError = DENIED) -> None:
    watch.began(WRITING, key)
    watch.failed(key, error)


def test_a_leader_is_unable_when_nothing_due_succeeds(
    watch: AbilityWatch, clock: StoppedClock
) -> None:
    """The time counts from the first attempt; the text states what fails and why."""
    fail(watch)
    clock.move(UNABLE_AFTER_S - 0.1)
    assert watch.inability(1) is None
    clock.move(0.1)
    assert str(watch.inability(1)) == f"cannot {WRITING}: no permission"


def test_reads_of_the_drain_requests_count(clock: StoppedClock) -> None:
    """L1: storage can refuse them to one agent, for which a restore waits."""
    listeners: list[Any] = []
    requests: Any = SimpleNamespace(on_read=listeners.append)
    watcher: Any = SimpleNamespace(clock=clock)
    operator: Any = SimpleNamespace(requests=requests)
    forwarded: Any = SimpleNamespace(on_read=listeners.append)
    watch = watch_ability(watcher, operator, forwarded)
    watch.begin(1)
    watch.planned({READING_REQUESTS})
    _, read = listeners
    read(DENIED)
    clock.move(UNABLE_AFTER_S)
    assert str(watch.inability(1)) == f"cannot {READING_REQUESTS}: no permission"
    read(None)
    assert watch.inability(1) is None


def test_reads_of_what_other_agents_forward_are_always_due(clock: StoppedClock) -> None:
    """S7: what one agent cannot read may be the only word of an event."""
    listeners: list[Any] = []
    requests: Any = SimpleNamespace(on_read=listeners.append)
    watcher: Any = SimpleNamespace(clock=clock)
    operator: Any = SimpleNamespace(requests=requests)
    forwarded: Any = SimpleNamespace(on_read=listeners.append)
    watch = watch_ability(watcher, operator, forwarded)
    watch.begin(1)
    watch.planned(None)
    read, _ = listeners
    read(DENIED)
    clock.move(UNABLE_AFTER_S)
    assert str(watch.inability(1)) == f"cannot {READING_FORWARDED}: no permission"
    read(Conflict("409 BlobArchived"))
    assert watch.inability(1) is None, "every agent would get that answer"


def test_one_success_of_the_kind_is_ability(watch: AbilityWatch, clock: StoppedClock) -> None:
    """One NIC that fails while another is written is no reason to hand over."""
    fail(watch)
    clock.move(UNABLE_AFTER_S / 2)
    watch.began(WRITING, OTHER)
    watch.succeeded(OTHER)
    fail(watch)
    clock.move(UNABLE_AFTER_S / 2)
    assert watch.inability(1) is None
    clock.move(UNABLE_AFTER_S / 2)
    assert watch.inability(1)


def test_a_conflict_is_ability_and_a_lost_attempt_is_nothing(
    watch: AbilityWatch, clock: StoppedClock
) -> None:
    """Every agent would meet the conflict; a cancelled attempt proves nothing."""
    fail(watch)
    clock.move(UNABLE_AFTER_S)
    watch.began(WRITING, OTHER)
    watch.dropped(OTHER)
    watch.failed(OTHER, DENIED)
    watch.succeeded(OTHER)
    assert watch.inability(1)
    fail(watch, OTHER, Conflict("another operation"))
    assert watch.inability(1) is None


def test_a_refusal_excuses_those_before_it_once_the_pool_is_absent(
    watch: AbilityWatch, clock: StoppedClock
) -> None:
    """The first refusal comes before the read that does not show the pool; a peer has the same."""
    fail(watch)
    clock.move(UNABLE_AFTER_S)
    watch.began(WRITING, NIC)
    watch.failed(NIC, DENIED, absent=True)
    assert watch.inability(1) is None
    fail(watch, OTHER)
    clock.move(UNABLE_AFTER_S)
    assert watch.inability(1), "another NIC is refused with its pools in place"


def test_a_write_without_a_reply_is_inability(watch: AbilityWatch, clock: StoppedClock) -> None:
    """A request that hangs has not failed yet, and may never."""
    watch.began(WRITING, NIC)
    clock.move(UNABLE_AFTER_S)
    assert str(watch.inability(1)) == f"cannot {WRITING}: Azure does not reply"


def test_an_accepted_write_is_not_waited_for_in_vain(
    watch: AbilityWatch, clock: StoppedClock
) -> None:
    """A long-running operation that Azure has accepted is progress, however long it takes."""
    fail(watch)
    watch.began(WRITING, NIC)
    watch.accepted(NIC)
    clock.move(10 * UNABLE_AFTER_S)
    assert watch.inability(1) is None
    watch.failed(NIC, ServiceFault("the operation failed"))
    clock.move(UNABLE_AFTER_S - 1)
    assert watch.inability(1) is None
    clock.move(1)
    assert watch.inability(1)


def test_an_accepted_write_delays_the_handover_for_another_reason(
    watch: AbilityWatch, clock: StoppedClock
) -> None:
    """A successor has to wait long for proof of a write whose end nobody saw (law S1)."""
    watch.planned({WRITING, ACKNOWLEDGING})
    watch.began(ACKNOWLEDGING, OTHER)
    watch.failed(OTHER, Conflict("400"))
    clock.move(UNABLE_AFTER_S)
    watch.began(WRITING, NIC)
    watch.accepted(NIC)
    assert watch.inability(1) is None
    watch.succeeded(NIC)
    assert str(watch.inability(1)) == "cannot acknowledge events: 400"


def test_what_waits_for_its_next_attempt_stays_due(
    watch: AbilityWatch, clock: StoppedClock
) -> None:
    """A pass does not plan what is deferred, and Azure may ask for 20 minutes."""
    fail(watch, error=Throttled("429", retry_after_s=1200))
    watch.planned((), deferred={NIC})
    clock.move(UNABLE_AFTER_S)
    assert str(watch.inability(1)) == f"cannot {WRITING}: 429"
    watch.planned((), deferred=())
    assert watch.inability(1) is None


def test_what_azure_asked_to_wait_for_before_it_was_due_is_inability(clock: StoppedClock) -> None:
    """S7: a peer may do it at once; of a wait for another operation it would meet the same."""
    asked = Deferral(until=at(1200), reason="Throttled", asked=True, what="read web-lb: 429")
    for deferral, unable in ((asked, True), (replace(asked, reason="Busy"), False)):
        scenario = PlannerScenario(events=[event()])
        observed = scenario.observe(deferred={ReadLoadBalancer(LB).key: deferral}, pools=())
        planned = plan(observed, scenario.ledger, scenario.policy, T0)
        watch = AbilityWatch(clock)
        watch.begin(1)
        for _ in range(2):
            assert watch.inability(1) is None
            watch.passed(planned, observed, scenario.ledger, scenario.policy, T0, found=None)
            clock.move(UNABLE_AFTER_S / 2)
        found = watch.inability(1)
        assert str(found or "") == (
            "cannot read load balancers: read web-lb: 429" if unable else ""
        )


@pytest.mark.parametrize("rest", [(), None], ids=["more is due", "nothing else is due"])
def test_what_is_under_way_stays_due(
    watch: AbilityWatch, clock: StoppedClock, rest: tuple[()] | None
) -> None:
    """A pass does not plan an action that runs: a closed VM waits for its removal alone."""
    watch.began(WRITING, NIC)
    watch.planned(rest)
    clock.move(UNABLE_AFTER_S)
    assert watch.inability(1)


def test_nothing_due_is_no_inability(watch: AbilityWatch, clock: StoppedClock) -> None:
    """Once the event is gone the leader may stay, whatever failed."""
    fail(watch)
    clock.move(UNABLE_AFTER_S)
    watch.planned(None, deferred={NIC})
    assert watch.inability(1) is None


def test_an_old_failure_is_no_inability(watch: AbilityWatch, clock: StoppedClock) -> None:
    """S7: an event that starts is not acknowledged again; the next one comes weeks later."""
    watch.planned({ACKNOWLEDGING})
    watch.began(ACKNOWLEDGING, OTHER)
    watch.failed(OTHER, ServiceFault("500"))
    watch.planned(None)
    clock.move(100 * REMEMBERED_S)
    watch.planned({ACKNOWLEDGING})
    assert watch.inability(1) is None
    watch.began(ACKNOWLEDGING, OTHER)
    watch.failed(OTHER, ServiceFault("500"))
    clock.move(UNABLE_AFTER_S - 1)
    assert watch.inability(1) is None
    clock.move(1)
    assert watch.inability(1)


def test_a_wait_that_azure_asked_for_is_not_old(watch: AbilityWatch, clock: StoppedClock) -> None:
    """S7: nothing is tried during the wait, and a peer may do it at once."""
    fail(watch, error=Throttled("429", retry_after_s=1200))
    watch.planned(None, deferred={NIC})
    clock.move(1100)
    watch.planned({WRITING}, deferred={NIC})
    assert watch.inability(1)


def test_a_standby_remembers_for_a_while(watch: AbilityWatch, clock: StoppedClock) -> None:
    """Others lead first, until it may have changed."""
    fail(watch)
    assert watch.inability(None) is None
    clock.move(UNABLE_AFTER_S)
    shown = watch.inability(1)
    clock.move(REMEMBERED_S - 1)
    assert watch.inability(None) == shown
    clock.move(1)
    assert watch.inability(None) is None


@pytest.mark.parametrize(
    ("error", "remembered_s"),
    [
        (OutcomeUnknown("blob write: no answer"), STALE_S),
        (NotSent("blob write: no connection"), STALE_S),
        (Denied("blob write: 403"), REMEMBERED_S),
        (None, STALE_S),
    ],
)
def test_silent_storage_is_remembered_for_a_minute(
    watch: AbilityWatch, clock: StoppedClock, error: ControllerError | None, remembered_s: float
) -> None:
    """S7: it refuses the lease as well, and an agent that gets the lease can lead."""
    watch.planned({WRITING_LEDGER})
    watch.began(WRITING_LEDGER, LEDGER)
    if error is not None:
        watch.failed(LEDGER, error)
    clock.move(UNABLE_AFTER_S)
    assert watch.inability(1)
    clock.move(remembered_s - 1)
    assert watch.inability(None)
    clock.move(1)
    assert watch.inability(None) is None


def test_a_success_ends_the_memory(watch: AbilityWatch, clock: StoppedClock) -> None:
    """A success of what failed, and of nothing else."""
    fail(watch)
    clock.move(UNABLE_AFTER_S)
    assert watch.inability(1)
    watch.began(WRITING_LEDGER, LEDGER)
    watch.succeeded(LEDGER)
    assert watch.inability(None)
    watch.began(WRITING, NIC)
    watch.succeeded(NIC)
    assert watch.inability(None) is None


def test_a_new_tenure_tries_again(watch: AbilityWatch, clock: StoppedClock) -> None:
    """An agent that becomes the leader again has its time, also when it may not try at once."""
    fail(watch, error=Throttled("429", retry_after_s=1200))
    clock.move(UNABLE_AFTER_S)
    assert watch.inability(1)
    clock.move(100)
    assert watch.inability(2) is None  # nothing was tried in this tenure
    watch.begin(2)
    watch.planned((), deferred={NIC})
    assert watch.inability(2) is None
    clock.move(UNABLE_AFTER_S - 1)
    watch.begin(2)
    assert watch.inability(2) is None
    clock.move(1)
    assert watch.inability(2)
