"""The laws themselves: each of them finds its breach in a history that has one."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controller.simulator.world.bodies import key
from controller.simulator.world.builder import build_world
from controller.simulator.world.history import Change
from tests.laws.bodies import bodies_of, differences
from tests.laws.conditions import Conditions
from tests.laws.judge import WITHOUT_REQUESTS, Law, violations
from tests.laws.liveness import s7_in_time
from tests.laws.replay import Event, Poll, Replay, Write
from tests.laws.safety import (
    keeps_out,
    log_violations,
    s1_ack,
    s5_write_ahead,
    s6_no_early_return,
)
from tests.laws.verdicts import v1_verdict

if TYPE_CHECKING:
    from controller.simulator.world.bodies import Json
    from controller.simulator.world.dataplane import Member
    from controller.simulator.world.world import World

BLOB = "/account/container/ledger.json"
EVENT = {
    "event_type": "Reboot",
    "resources": "web-1",
    "not_before": 900.0,
    "source": "Platform",
    "duration_s": -1,
    "started_first": False,
}


class Story:
    """A history in the making: one maintenance of web-1, led by web-2."""

    def __init__(self) -> None:
        self.world: World = build_world(now=0.0, vms=2)
        self.pool = self.world.pool_ids()[0]
        self.member: Member = next(m for m in self.world.members(self.pool) if m.vm == "web-1")
        self.conditions = Conditions(
            peers=frozenset({"web-1", "web-2"}),
            floors={key(self.pool): 1},
            lease_s=15,
            requests_recorded=False,
        )
        self.history: list[Change] = []

    def tell(self, at: float, kind: str, subject: str, **detail: object) -> None:
        """Add one change."""
        self.history.append(Change(at, kind, subject, detail))

    def ledger(self, at: float, *, recorded: bool, by: str = "web-2", epoch: int = 0) -> None:
        """Add a ledger write, with web-1 recorded in it or not."""
        membership: Json = {
            "kind": "nic",
            "pool_id": self.pool.upper(),
            "nic_id": self.member.nic,
            "ip_configuration": "ipconfig1",
        }
        entry: Json = {"vm": "web-1", "restored_at": None, "memberships": [membership]}
        entries = [entry] if recorded else []
        body = json.dumps({"epoch": epoch, "leader": by, "entries": entries})
        self.tell(at, "blob_written", BLOB, by=by, body=body)

    def write(self, at: float, by: str = "web-2") -> None:
        """Add an accepted PUT of the NIC of web-1."""
        self.tell(at, "write", self.member.nic, by=by, operation="1")

    def moves(self, at: float, kind: str) -> None:
        """Let web-1 leave or enter the pool."""
        self.tell(
            at,
            kind,
            self.pool,
            vm="web-1",
            nic=self.member.nic,
            ip_configuration=self.member.ip_configuration,
            address=self.member.address,
        )

    def reported(self, leave_out: Iterable[str] = ()) -> list[str]:
        """Return the broken laws of the whole maintenance, without the steps left out."""
        for name, step in STEPS.items():
            if name not in leave_out:
                step(self)
        return self.broken()

    def broken(self, laws: Mapping[str, Law] = WITHOUT_REQUESTS) -> list[str]:
        """Return the broken laws of what was recorded so far."""
        replay = Replay(self.conditions, self.world)
        return [str(each) for each in violations(replay, self.history, laws)]


STEPS: dict[str, Callable[[Story], None]] = {
    "lease": lambda s: s.tell(1, "lease_acquire", BLOB, by="web-2"),
    "published": lambda s: s.tell(2, "event_published", "E", **EVENT),
    "recorded": lambda s: s.ledger(3, recorded=True),
    "removed": lambda s: s.write(4),
    "out": lambda s: s.moves(5, "member_out"),
    "acknowledged": lambda s: s.tell(6, "event_acknowledged", "E", by="web-2", **EVENT),
    "started": lambda s: s.tell(7, "event_started", "E", **EVENT),
    "down": lambda s: s.tell(8, "vm_down", "web-1", state="rebooting"),
    "up": lambda s: s.tell(9, "vm_up", "web-1"),
    "gone": lambda s: s.tell(10, "event_gone", "E", **EVENT),
    "restored": lambda s: s.write(12),
    "in": lambda s: s.moves(13, "member_in"),
    "forgotten": lambda s: s.ledger(14, recorded=False),
}


def test_a_good_history_breaks_no_law() -> None:
    """The whole of an ordinary maintenance is lawful."""
    assert Story().reported() == []


@pytest.mark.parametrize(
    ("missing", "law"),
    [
        ("recorded", "S5 write-ahead"),
        ("out", "S1 ack"),
        ("gone", "S6 no early return"),
        ("up", "S6 no early return"),
        ("lease", "S4 fence"),
    ],
)
def test_a_missing_step_is_found(missing: str, law: str) -> None:
    """Without one of its conditions, what follows breaks the law that asks for it."""
    broken = Story().reported(leave_out=[missing])
    assert broken
    assert {line.partition(":")[0] for line in broken} == {law}


def test_a_write_of_somebody_else_is_found() -> None:
    """A write of an agent that does not hold the lease breaks the fence."""
    story = Story()
    story.tell(1, "lease_acquire", BLOB, by="web-2")
    story.write(2, by="web-1")
    assert [line.partition(":")[0] for line in story.broken()] == ["S4 fence"]


def test_a_write_after_the_lease_is_found() -> None:
    """A write after the lease ran out breaks the fence, and one before it does not."""
    story = Story()
    story.tell(1, "lease_acquire", BLOB, by="web-2")
    story.write(15)
    story.write(17)
    broken = story.broken()
    assert len(broken) == 1
    assert "1.00 s after its lease expired" in broken[0]


def test_a_late_acknowledgement_is_found() -> None:
    """An event that has started must not be acknowledged any more."""
    story = Story()
    for name in ("lease", "published", "recorded", "removed", "out", "started"):
        STEPS[name](story)
    story.tell(8, "event_acknowledged", "E", by="web-2", **EVENT)
    assert [line.partition(":")[0] for line in story.broken()] == ["S1 ack"]


def test_what_a_stall_delivers_late_is_judged_by_when_it_left() -> None:
    """A write that left within the lease and arrived after it is lawful, one of a stranger not."""
    story = Story()
    story.conditions = replace(story.conditions, left_at=lambda change: change.at - 5)
    story.tell(1, "lease_acquire", BLOB, by="web-2")
    story.tell(17, "lease_acquire", BLOB, by="web-1")
    story.write(18, by="web-2")
    story.write(19, by="web-1")
    story.write(23, by="web-2")
    broken = story.broken()
    assert broken == [
        "S4 fence: at 23.00, write web-1-nic: sent by web-2 while web-1 holds the lease"
    ]


def test_an_event_that_starts_too_early_is_found() -> None:
    """An announced event has to find its VM out; one that appears already started cannot."""
    for published_at, removed, broken in ((2, False, 1), (7, False, 0), (2, True, 0)):
        story = Story()
        story.tell(published_at, "event_published", "E", **EVENT)
        if removed:
            story.moves(5, "member_out")
        story.tell(7, "event_started", "E", **EVENT)
        found = story.broken({"S7 in time": s7_in_time})
        assert len(found) == broken


@pytest.mark.parametrize(("mechanism", "broken"), [("probe", 0), ("pool", 1)])
def test_a_vm_that_only_its_own_agent_can_close_stays_open_with_that_agent_unable(
    mechanism: str, broken: int
) -> None:
    """Agents of other VMs remove it from its pools, and cannot close it (S7)."""
    story = Story()
    story.conditions = replace(
        story.conditions,
        requests_recorded=True,
        unable=frozenset({"web-1"}),
        policy={"mechanism": mechanism},
    )
    story.tell(-3000, "calm", "set")
    story.tell(-3000, "agent_started", "web-2")
    story.tell(2, "event_published", "E", **{**EVENT, "not_before": 2000})
    story.tell(2000, "event_started", "E", **EVENT)
    assert len(story.broken({"S7 in time": s7_in_time})) == broken


def test_a_blind_agent_acts_in_good_faith_for_a_while() -> None:
    """With blindness allowed for, only what is announced for longer than that forbids a return."""
    for blind_s, broken in ((0, 1), (20, 0), (5, 1)):
        story = Story()
        story.conditions = replace(story.conditions, blind_s=blind_s)
        assert len(story.reported(leave_out=["gone"])) == broken


def test_a_pool_below_its_floor_is_found() -> None:
    """A removal that leaves too few VMs that serve breaks the floor; one of a dead VM does not."""
    for dead, law in (("web-2", ["S2 floor"]), ("web-1", [])):
        story = Story()
        story.tell(0.5, "vm_down", dead, state="stopped")
        for name in ("lease", "published", "recorded", "removed", "out"):
            STEPS[name](story)
        broken = story.broken()
        assert [line.partition(":")[0] for line in broken] == law


@pytest.mark.parametrize("carried", [True, False])
def test_a_write_that_carries_a_restore_of_its_predecessor_restores_nothing(carried: bool) -> None:
    """The pool shows what the predecessor asked for, and is written as a whole (S6)."""
    story = Story()
    story.conditions = replace(story.conditions, requests_recorded=True)
    replay = Replay(story.conditions, story.world)
    story.tell(0, "event_published", "E", **EVENT)
    replay.follow(story.history[-1])
    good, bad = Poll(at=1, good=True), Poll(at=8, good=True, events={"e": "Scheduled"})
    entry = {"vm": "web-1", "restoring_at": "2026-01-01T00:00:00+00:00"}
    before = Write(vm="web-2", sent_at=2, ledger={"entries": [entry]}, down={}, polls=(good, good))
    write = Write(vm="web-3", sent_at=9, ledger={}, down={}, polls=(bad, bad))
    write = replace(write, carries=before if carried else None)
    replay.writes_by_set[key(story.member.nic), False] = write
    replay.writes[key(story.member.nic)] = write
    detail = {"vm": "web-1", "nic": story.member.nic, "ip_configuration": "", "address": ""}
    change = Change(12, "member_in", story.pool, detail)
    assert bool(list(s6_no_early_return(replay, change))) is not carried


@pytest.mark.parametrize(
    ("ended", "open_whether"), [(("web-1", "web-2"), True), (("web-1",), False)]
)
def test_what_no_agent_remembers_cannot_come_back(
    ended: tuple[str, ...], open_whether: bool
) -> None:
    """Another client has removed the record, and the agents that had read it have ended (S3)."""
    story = Story()
    for name in ("lease", "recorded", "removed", "out"):
        STEPS[name](story)
    story.tell(6, "blob_replaced", BLOB, body='{"epoch": 1, "entries": []}')
    for vm in ended:
        story.tell(7, "agent_killed", vm)
    replay = Replay(story.conditions, story.world)
    for change in story.history:
        replay.follow(change)
    assert replay.pools[key(story.pool)][story.member.identity].renewed is open_whether


def test_what_an_operator_does_is_no_breach() -> None:
    """An operator may take any VM out, without a record and below the floor."""
    story = Story()
    story.tell(0.5, "vm_down", "web-2", state="stopped")
    story.tell(1, "operator", story.member.nic, what="removed")
    story.moves(1, "member_out")
    assert story.broken() == []


def test_a_changed_body_is_found() -> None:
    """Anything a write lost on a NIC is a difference; etags and states are none."""
    world = build_world(now=0.0, vms=1, ip_pools=("ip",))
    before = bodies_of(world)
    nic = world.nic("web-1-nic")
    nic["etag"] = 'W/"another"'
    nic["properties"]["provisioningState"] = "Failed"
    assert list(differences(before, bodies_of(world))) == []
    del nic["tags"]["team"]
    nic["properties"]["enableAcceleratedNetworking"] = False
    found = list(differences(before, bodies_of(world)))
    assert len(found) == 2
    assert found[0].endswith("/properties/enableAcceleratedNetworking was True and is False")
    assert found[1].endswith("/tags/team is gone: 'web'")


def test_a_bad_line_in_a_log_is_found() -> None:
    """A traceback or a token in a log is a breach, an ordinary line is none."""
    lines = '{"message": "leads"}\nTraceback (most recent call last):\n{"message": "eyJhbGciOi"}'
    assert len(log_violations({"web-1": lines})) == 2


# --- what both kinds of history are held against


def test_a_member_that_an_operator_removed_must_stay_out() -> None:
    """A restore of what an operator took out meanwhile is not exact (S3)."""
    story = Story()
    story.history.append(Change(1, "lease_acquire", BLOB, {"by": "web-2"}))
    story.tell(2, "operator", story.member.nic, what="removed")
    story.moves(2, "member_out")
    story.write(12)
    story.moves(13, "member_in")
    assert [line.partition(":")[0] for line in story.broken()] == ["S3 exact"]


def test_an_entry_is_kept_until_its_vm_is_back() -> None:
    """A ledger that drops a removed member before it is back breaks the write-ahead (S5)."""
    story = Story()
    for name in ("lease", "published", "recorded", "removed", "out", "forgotten"):
        STEPS[name](story)
    assert [line.partition(":")[0] for line in story.broken()] == ["S5 write-ahead"]


def test_an_old_epoch_is_found() -> None:
    """A ledger of an earlier epoch over one of a later epoch breaks the fence (S4)."""
    story = Story()
    STEPS["lease"](story)
    for at, epoch in ((2, 4), (3, 4), (4, 3)):
        body = json.dumps({"epoch": epoch, "entries": []})
        story.tell(at, "blob_written", BLOB, by="web-2", body=body)
    broken = story.broken()
    assert len(broken) == 1
    assert "S4 fence: at 4.00" in broken[0]
    assert broken[0].endswith("epoch 3 follows epoch 4")


def test_a_set_that_does_not_converge_is_found() -> None:
    """L1 is broken where the history states that the set did not settle."""
    story = Story()
    STEPS["lease"](story)
    story.tell(50, "not_converged", "")
    assert [line.partition(":")[0] for line in story.broken()] == ["L1 converge"]


@pytest.mark.parametrize(
    ("verdicts", "broken"),
    [
        (["drained"], 0),
        ([], 1),
        (["drained", "drained"], 1),
        (["hit_in_rotation"], 1),
        (["ignored"], 1),
    ],
)
def test_a_verdict_that_contradicts_the_history_is_found(verdicts: list[str], broken: int) -> None:
    """Every event has one verdict for each VM, and that agrees with what happened (V1)."""
    story = Story()
    _judge_event(story, verdicts)
    story.tell(32, "converged", "set")
    assert len(story.broken({"V1 verdict": v1_verdict})) == broken


def test_an_event_that_ended_the_last_agent_needs_no_verdict() -> None:
    """The VMs of the set are deleted, and their agents with them: nothing is left to judge by."""
    story = Story()
    _judge_event(story, [])
    story.tell(31, "agent_killed", "web-2")
    story.tell(32, "converged", "set")
    assert story.broken({"V1 verdict": v1_verdict}) == []


@pytest.mark.parametrize(("unable", "broken"), [((), 1), (("web-2",), 0)])
def test_an_agent_that_is_unable_for_good_owes_no_verdict(
    unable: tuple[str, ...], broken: int
) -> None:
    """All other VMs of the set are deleted, and this one is cut off from a service."""
    story = Story()
    _judge_event(story, [])
    story.tell(32, "converged", "set")
    story.conditions = replace(story.conditions, unable=frozenset(unable))
    assert len(story.broken({"V1 verdict": v1_verdict})) == broken


@pytest.mark.parametrize(("started_at", "read"), [(100.0, True), (100.0, False), (900.0, False)])
def test_a_start_before_not_before_is_known_only_if_an_agent_read_it(
    started_at: float, read: bool
) -> None:
    """The event found its VM in a pool, and its verdict is drained (V1)."""
    story = Story()
    replay = Replay(story.conditions, story.world)
    story.tell(2, "event_published", "E", **EVENT)
    replay.follow(story.history[-1])
    event = replay.events[0]
    event.started_at, event.over_at, event.read_started = started_at, 1000.0, read
    event.inside_for_long = frozenset({"web-1"})
    replay.last_ledger = {"verdicts": [{"event_id": "e", "vm": "web-1", "verdict": "drained"}]}
    found = list(v1_verdict(replay, Change(5000, "converged", "set")))
    assert bool(found) is (read or started_at >= 900.0)


def _judge_event(story: Story, verdicts: list[str]) -> None:
    """Add one event and its verdicts; the agent of web-2 leads."""
    story.tell(-60, "calm", "set")
    story.tell(-60, "agent_started", "web-2")
    for name in ("lease", "published"):
        STEPS[name](story)
    entry = {"vm": "web-1", "memberships": [], "out_at": "2026-01-01T00:00:00+00:00"}
    body = {"leader": "web-2", "entries": [entry]}
    story.tell(5, "blob_written", BLOB, by="web-2", body=json.dumps(body))
    for name in ("out", "started"):
        STEPS[name](story)
    given = [{"event_id": "e", "vm": "WEB-1", "verdict": verdict} for verdict in verdicts]
    body = {"leader": "web-2", "entries": [], "verdicts": given}
    story.tell(9, "blob_written", BLOB, by="web-2", body=json.dumps(body))
    STEPS["gone"](story)
    for at in range(12, 32, 4):
        story.tell(at, "lease_renew", BLOB, by="web-2")


def test_a_member_of_another_set_is_not_ours_to_move() -> None:
    """A write that moves a member of another availability set is found (S3)."""
    story = Story()
    story.conditions = replace(
        story.conditions, peers=frozenset({"web-2"}), others=frozenset({"web-1"}), ledger=BLOB
    )
    story.write(4)
    story.moves(5, "member_out")
    assert any(each.startswith("S3 exact") for each in story.broken())


def test_what_another_set_does_is_judged_by_itself() -> None:
    """The lawful history of one set breaks no law of another one."""
    story = Story()
    story.conditions = replace(
        story.conditions,
        peers=frozenset({"shop-1"}),
        others=story.conditions.peers,
        ledger="/account/container/shop.json",
    )
    assert story.reported() == []


@pytest.mark.parametrize(
    ("acts", "broken"),
    [
        ((1, "ask vm=web-1 for_s=100 request_id=long"), 1),
        ((11, "withdraw vm=web-1"), 0),
        ((2, "ask vm=web-1 for_s=5 request_id=later"), 0),
    ],
)
def test_a_restore_while_one_of_several_requests_holds_is_found(
    acts: tuple[float, str], broken: int
) -> None:
    """A VM stays out while any drain request for it holds, also an earlier one (S6)."""
    story = Story()
    given = [(3.0, "ask vm=web-1 for_s=2 request_id=short"), acts]
    STEPS["lease"](story)
    for at, text in sorted(given):
        story.tell(at, "act", text.split()[0], text=text)
        if text.startswith("withdraw"):
            story.tell(at, "withdrawn", "long", vm="web-1")
        story.tell(at, "act_over", text.split()[0])
    membership = {
        "kind": "nic",
        "pool_id": story.pool,
        "nic_id": story.member.nic,
        "ip_configuration": "ipconfig1",
    }
    events = [{"event_id": name} for name in ("long", "later", "short")]
    entry = {"vm": "web-1", "restored_at": None, "memberships": [membership], "events": events}
    body = {"leader": "web-2", "entries": [entry]}
    story.tell(3.5, "blob_written", BLOB, by="web-2", body=json.dumps(body))
    for name in ("removed", "out", "restored", "in", "forgotten"):
        STEPS[name](story)
    story.history.sort(key=lambda change: change.at)
    lines = [line for line in story.broken() if line.startswith("S6")]
    assert len(lines) == broken


@pytest.mark.parametrize(
    ("ahead_s", "changes", "policy", "keeps"),
    [
        (900 + 3500, {}, {}, True),
        (900 + 3700, {}, {}, False),
        (120 + 3700, {}, {"lead_time_s": 120}, False),
        (900 + 3700, {}, {"far_ahead": "drain"}, True),
        (900 + 3700, {"acknowledged_at": 1.0}, {}, True),
        (900 + 3700, {"started_at": 1.0}, {}, True),
        (900 + 3700, {"source": "User"}, {}, True),
        (60, {"resources": frozenset({"web-2"})}, {}, False),
        (60, {"event_type": "Freeze", "duration_s": 4}, {}, False),
    ],
)
def test_which_event_forbids_a_restore(
    ahead_s: float, changes: Mapping[str, Any], policy: Mapping[str, object], keeps: bool
) -> None:
    """An event far ahead does not, unless it was acknowledged or waits for no lead time (S6)."""
    story = Story()
    story.conditions = replace(story.conditions, policy=policy)
    known: dict[str, Any] = {
        "ids": {"e"},
        "event_type": "Reboot",
        "resources": frozenset({"web-1"}),
        "published_at": 0.0,
        "not_before": 10.0 + ahead_s,
        "source": "Platform",
        "duration_s": -1,
        "started_first": False,
    }
    event = Event(**{**known, **changes})
    assert keeps_out(Replay(story.conditions, story.world), event, "web-1", 10.0) is keeps


def test_an_acknowledgement_of_a_vm_that_was_put_back_is_found() -> None:
    """What an operator put back is seen by a read within ten seconds (S1)."""
    for back_at, broken in ((5.5, 0), (-20.0, 1)):
        story = Story()
        story.conditions = replace(story.conditions, requests_recorded=True)
        replay = Replay(story.conditions, story.world)
        member = replay.pools[key(story.pool)][story.member.identity]
        member.in_by, member.moved_at = "people", back_at
        replay.arrived = Change(6, "arrived", "", {"serial": "1", "sent_at": 6})
        replay.sent["1"] = Write(vm="web-2", sent_at=6, ledger={}, down={})
        change = Change(6, "event_acknowledged", "E", {"by": "web-2", **EVENT})
        assert len(list(s1_ack(replay, change))) == broken


def test_people_who_edit_a_pool_while_the_ledger_cannot_be_read_leave_no_trace() -> None:
    """A leader of a later epoch takes the member for removed by its predecessor (S3)."""
    for body, doubt in (("[]", True), ("no ledger", True), ('{"epoch": 1, "entries": []}', False)):
        story = Story()
        story.ledger(3, recorded=True, epoch=1)
        story.tell(4, "blob_replaced", BLOB, body=body)
        story.moves(5, "member_out")
        replay = Replay(story.conditions, story.world)
        for change in story.history:
            replay.follow(change)
        member = replay.pools[key(story.pool)][story.member.identity]
        assert bool(member.epoch) is doubt


@pytest.mark.parametrize(("sent_at", "broken"), [(18.0, []), (20.0, ["S5 write-ahead"])])
def test_a_removal_without_its_replaced_entry_is_found(sent_at: float, broken: list[str]) -> None:
    """A leader knows after one lease that another client has replaced the ledger (S5)."""
    story = Story()
    story.conditions = replace(story.conditions, requests_recorded=True)
    story.ledger(3, recorded=True)
    story.tell(4, "blob_replaced", BLOB, body="no ledger")
    request = {"service": "arm", "vm": "web-2", "method": "PUT", "serial": "1", "query": ""}
    story.tell(sent_at, "sent", story.member.nic, **request)
    story.tell(sent_at, "arrived", story.member.nic, sent_at=sent_at, **request)
    story.write(sent_at)
    story.moves(sent_at + 1, "member_out")
    found = story.broken({"S5 write-ahead": s5_write_ahead})
    assert [line.partition(":")[0] for line in found] == broken
