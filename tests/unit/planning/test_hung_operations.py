"""Operations on a NIC that do not end: the write is sent again, and its end decides."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from controller.core.azure_names import fold
from controller.core.planning.actions import Phase, Plan, ReadLoadBalancer, ReadNic
from controller.core.planning.hung_operations import HUNG_S, is_over_due
from controller.core.resources import AddressMembership, PoolKind
from tests.support.planner_scenario import (
    APP,
    LB,
    PlannerScenario,
    acknowledged,
    address,
    at,
    deferred,
    event,
    nic_id,
    phase,
    reasons,
    removal,
    restoral,
    writes,
)

NIC = nic_id("web-1")
HELD = {"web-1": "nic_updating"}


def sent(seconds: float) -> dict[str, datetime]:
    return {fold(NIC): at(seconds)}


def hang(scene: PlannerScenario, since: float, *, name: str = "web-1", **view: Any) -> None:
    """The NIC is Updating, as it has been since then."""
    scene.nics[name] = {"updating": True, "updating_since": at(since), **view}


def removal_hangs() -> PlannerScenario:
    """A removal was accepted at 1 s; its operation does not end."""
    scene = PlannerScenario(events=[event()])
    scene.adopt()
    scene.now, scene.inside["web-1"] = 121, []
    hang(scene, 121)
    return scene


def reads(planned: Plan) -> bool:
    return ReadNic(NIC) in planned.actions


def test_a_removal_that_does_not_end_is_sent_again() -> None:
    """S1: the VM is not out while its NIC is Updating; another PUT ends that, and is held."""
    scene = removal_hangs()
    for now in (121, 121 + HUNG_S - 1):
        scene.now = now
        planned = scene.adopt(sent_at=sent(1))
        assert (writes(planned), reasons(planned)) == ([], {})
    scene.now = 121 + HUNG_S
    planned = scene.adopt(sent_at=sent(1))
    assert (writes(planned), reasons(planned)) == ([removal()], HELD)
    assert phase(planned) is Phase.DRAINING
    assert "web-1-nic does not end" in planned.holds[0].message
    scene.now = 4000
    assert scene.adopt(sent_at=sent(1)).ledger is None
    assert scene.entry().out_at is None, "time alone proves nothing"
    scene.nics = {}
    planned = scene.adopt(sent_at=sent(3990), ended_at=sent(4000))
    assert (scene.entry().out_at, reasons(planned)) == (at(4000), {})


def test_a_refused_write_is_not_repeated_at_once() -> None:
    """H1: Azure refuses a write while an operation runs; the next one comes minutes later."""
    scene = removal_hangs()
    scene.now = 400
    assert writes(scene.adopt(sent_at=sent(1))) == [removal()]
    for now, again in ((415, []), (399 + HUNG_S, []), (400 + HUNG_S, [removal()])):
        scene.now = now
        planned = scene.adopt(sent_at=sent(400))
        assert (writes(planned), reasons(planned)) == (again, HELD)


def test_a_new_leader_counts_from_its_tenure() -> None:
    """S5: a write of its predecessor may have been sent just before; the hold goes on."""
    scene = removal_hangs()
    scene.now = 400
    scene.adopt()
    scene.ledger = replace(scene.ledger, leader_since=at(390))
    assert (writes(scene.plan()), reasons(scene.plan())) == ([], HELD)
    scene.now = 390 + HUNG_S
    assert writes(scene.plan()) == [removal()]


@pytest.mark.parametrize(
    ("waited_s", "every_s"), [(0, 1), (20, 2), (100, 10), (290, 29), (4000, 30)]
)
def test_a_nic_is_read_less_often_the_longer_it_is_updating(
    waited_s: float, every_s: float
) -> None:
    """H1: one read a second would be 3,600 an hour, for ever."""
    scene = removal_hangs()
    scene.now = 1000
    for age_s, again in ((every_s - 0.5, False), (every_s, True)):
        hang(scene, scene.now - waited_s, observed_at=at(scene.now - age_s))
        planned = scene.plan(sent_at=sent(999))
        assert reads(planned) is again
        assert planned.wake_at == at(scene.now + (every_s if again else 0.5))


def test_after_its_event_a_vm_whose_removal_hangs_is_restored() -> None:
    """L1: the restore ends the removal, and the VM is back only when the NIC is not Updating."""
    scene = removal_hangs()
    scene.now, scene.events = 200, []
    planned = scene.through(sent_at=sent(1))
    assert (writes(planned), reasons(planned)) == ([], {})
    scene.now = 900
    assert writes(scene.adopt(sent_at=sent(1))) == [], "law S1: recorded first"
    assert scene.entry().restoring_at == at(900)
    planned = scene.adopt(sent_at=sent(1))
    assert (writes(planned), reasons(planned)) == ([restoral()], HELD)
    scene.now, scene.inside["web-1"] = 910, [APP]
    assert writes(scene.through(sent_at=sent(901))) == []
    assert scene.entry().restored_at is None, "law S5: the operation may take it away"
    scene.nics = {}
    planned = scene.adopt(sent_at=sent(901))
    assert (scene.entry().restored_at, reasons(planned)) == (at(910), {})


def test_a_restore_that_does_not_end_is_sent_again() -> None:
    """S5: a NIC that is Updating and lists the pool is not back."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.now, scene.events = 300, []
    assert writes(scene.through()) == [restoral()]
    scene.now, scene.inside["web-1"] = 421, [APP]
    hang(scene, 421)
    assert writes(scene.adopt(sent_at=sent(301))) == []
    scene.now = 421 + HUNG_S
    planned = scene.adopt(sent_at=sent(301))
    assert (writes(planned), reasons(planned)) == ([restoral()], HELD)
    assert scene.entry().restored_at is None


def test_a_refused_restore_waits_for_its_turn() -> None:
    """L2: the operation of another client hangs: refusals make writes of other VMs wait."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.now, scene.events = 300, []
    hang(scene, 290)
    assert writes(scene.through(sent_at=sent(1))) == [restoral()]
    for now, again in ((310, True), (469, True), (470, False), (467 + HUNG_S, True)):
        scene.now = now
        hang(scene, 290)
        planned = scene.adopt(sent_at=sent(min(now - 1, 467)))
        assert writes(planned) == ([restoral()] if again else [])
        assert reasons(planned) == (HELD if now >= 470 else {})
        hang(scene, 290, observed_at=at(now - 40))
        assert reads(scene.plan(sent_at=sent(467))) is (now >= 470)


def test_the_operation_of_another_client_after_our_removal() -> None:
    """A PUT of another client undid ours, and hangs: after the event the VM is written back."""
    scene = removal_hangs()
    scene.events, scene.inside["web-1"] = [], [APP]
    scene.now = 121 + HUNG_S - 1
    assert (scene.adopt(sent_at=sent(1)).ledger, scene.entry().restoring_at) == (None, None)
    scene.now = 121 + HUNG_S
    scene.adopt(sent_at=sent(1))
    assert writes(scene.adopt(sent_at=sent(1))) == [restoral()]


def test_no_write_where_no_removal_was_sent() -> None:
    """S3: the operation of another client hangs before our removal: that NIC is only watched."""
    scene = removal_hangs()
    scene.now, scene.events, scene.inside["web-1"] = 900, [], [APP]
    unsent = frozenset(m.key for m in scene.entry().memberships)
    planned = scene.adopt(unsent=unsent)
    assert (writes(planned), reasons(planned)) == ([], HELD)
    assert scene.entry().restoring_at is None


def test_only_one_nic_hangs() -> None:
    """S5: of the other NIC no removal may be late either, before anything is restored."""
    scene = PlannerScenario(events=[event()])
    scene.inside["web-1b"] = [APP]
    scene.vms = {"web-1": {"nic_ids": (NIC, nic_id("web-1b"))}, "web-1b": {"nic_ids": ()}}
    scene.nics = {"web-1b": {"vm_id": scene.observe().vms[0].vm_id}}
    scene.adopt()
    assert len(scene.entry().memberships) == 2
    scene.now, scene.inside["web-1"], scene.events = 400, [], []
    hang(scene, 121)
    both = {**sent(1), fold(nic_id("web-1b")): at(399)}
    scene.adopt(sent_at=both)
    assert scene.entry().restoring_at is None
    scene.now = 470
    scene.adopt(sent_at=both)
    assert scene.entry().restoring_at == at(470)


def test_before_an_acknowledgement_a_nic_is_not_read_without_pause() -> None:
    """H1: the load balancer cannot be read, and the NIC that shows the VM instead is Updating."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.now, scene.pools = 60, {APP: {"observed_at": at(30)}}
    unread = deferred(ReadLoadBalancer(LB).key, until=90)
    for age_s, again in ((0, False), (2, True)):
        hang(scene, 59, observed_at=at(60 - age_s))
        planned = scene.plan(**unread)
        assert (acknowledged(planned), reads(planned)) == ([], again)
    scene.nics = {}
    assert acknowledged(scene.plan(**unread)) == ["E-1"]


def with_address() -> PlannerScenario:
    """A VM in an IP-based pool: its NIC is never written."""
    own: AddressMembership = address("web-1", "10.0.0.1")
    scene = PlannerScenario(events=[event()], ips={"web-1": own.ip_address})
    scene.inside = {name: [] for name in scene.inside}
    others = [address("web-2", "10.0.0.2"), address("web-3", "10.0.0.3")]
    scene.ips |= {each.name: each.ip_address for each in others}
    scene.addresses, scene.pools = {APP: [own, *others]}, {APP: {"kind": PoolKind.ADDRESS}}
    scene.adopt()
    scene.addresses[APP] = others
    return scene


def test_a_nic_that_no_write_concerns_is_watched() -> None:
    """S1, S3: the NIC may be moved into a pool, so the VM is not out; afterwards it comes back."""
    scene = with_address()
    scene.now = 400
    hang(scene, 121, observed_at=at(391))
    planned = scene.adopt(ended_at={fold(APP): at(399)})
    assert (writes(planned), reasons(planned), reads(planned)) == ([], HELD, False)
    assert scene.entry().out_at is None
    scene.now, scene.events = 500, []
    assert len(writes(scene.through(ended_at={fold(APP): at(399)}))) == 1


@pytest.mark.parametrize("kind", [{}, {"failed": True}])
def test_pools_have_no_state_that_lasts(kind: dict[str, Any]) -> None:
    """A pool shows no Updating that voids a proof: its writes are over after a while."""
    scene = with_address()
    scene.pools[APP] |= kind
    scene.now = 400
    planned = scene.adopt(sent_at={fold(APP): at(1)})
    assert reasons(planned) == {}
    assert bool(writes(planned)) is bool(kind)


@pytest.mark.parametrize(
    ("since", "sent_at", "due"),
    [
        (None, None, False),
        (0, None, False),
        (-1, None, True),
        (-1, 0, False),
        (-500, -1, True),
        (9999, None, False),
    ],
)
def test_over_due(since: float | None, sent_at: float | None, due: bool) -> None:
    """An operation hangs after three minutes, and each write gets as long."""
    started = at(since) if since is not None else None
    written = at(sent_at) if sent_at is not None else None
    assert is_over_due(started, written, at(HUNG_S - 1)) is due
