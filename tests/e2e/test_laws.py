"""The laws themselves: each of them finds its breach in a history that has one."""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pytest

from controller.simulator.history import Change
from controller.simulator.world import World, build_world

from .laws import Replay, bodies_of, differences, log_violations, s7_in_time, violations

if TYPE_CHECKING:
    from controller.simulator.bodies import Json
    from controller.simulator.dataplane import Member

BLOB = "/account/container/ledger.json"
EVENT = {"event_type": "Reboot", "resources": "web-1"}


class Story:
    """A history in the making: one maintenance of web-1, led by web-2."""

    def __init__(self) -> None:
        self.world: World = build_world(now=0.0, vms=2)
        self.pool = self.world.pool_ids()[0]
        self.member: Member = next(m for m in self.world.members(self.pool) if m.vm == "web-1")
        self.replay = Replay.starting(self.world, lease_s=15, floor=1)
        self.history: list[Change] = []

    def tell(self, at: float, kind: str, subject: str, **detail: object) -> None:
        """Add one change."""
        self.history.append(Change(at, kind, subject, detail))

    def ledger(self, at: float, *, recorded: bool, by: str = "web-2") -> None:
        """Add a ledger write, with web-1 recorded in it or not."""
        membership: Json = {
            "kind": "nic",
            "pool_id": self.pool.upper(),
            "nic_id": self.member.nic,
            "ip_configuration": "ipconfig1",
        }
        entry: Json = {"vm": "web-1", "restored_at": None, "memberships": [membership]}
        body = json.dumps({"leader": by, "entries": [entry] if recorded else []})
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

    def told(self, leave_out: Iterable[str] = ()) -> list[str]:
        """Return the broken laws of the whole maintenance, without the steps left out."""
        for name, step in STEPS.items():
            if name not in leave_out:
                step(self)
        return violations(self.replay, self.history)


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
    assert Story().told() == []


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
    broken = Story().told(leave_out=[missing])
    assert broken
    assert {line.partition(":")[0] for line in broken} == {law}


def test_a_write_of_somebody_else_is_found() -> None:
    """A write of an agent that does not hold the lease breaks the fence."""
    story = Story()
    story.tell(1, "lease_acquire", BLOB, by="web-2")
    story.write(2, by="web-1")
    assert [line.partition(":")[0] for line in violations(story.replay, story.history)] == [
        "S4 fence"
    ]


def test_a_write_after_the_lease_is_found() -> None:
    """A write after the lease ran out breaks the fence, and one before it does not."""
    story = Story()
    story.tell(1, "lease_acquire", BLOB, by="web-2")
    story.write(15)
    story.write(17)
    broken = violations(story.replay, story.history)
    assert len(broken) == 1
    assert "1.00 s after its lease expired" in broken[0]


def test_a_late_acknowledgement_is_found() -> None:
    """An event that has started must not be acknowledged any more."""
    story = Story()
    for name in ("lease", "published", "recorded", "removed", "out", "started"):
        STEPS[name](story)
    story.tell(8, "event_acknowledged", "E", by="web-2", **EVENT)
    assert [line.partition(":")[0] for line in violations(story.replay, story.history)] == [
        "S1 ack"
    ]


def test_what_a_stall_delivers_late_is_judged_by_when_it_left() -> None:
    """A write that left within the lease and arrived after it is lawful, one of a stranger not."""
    story = Story()
    story.replay.left_at = lambda change: change.at - 5
    story.tell(1, "lease_acquire", BLOB, by="web-2")
    story.tell(17, "lease_acquire", BLOB, by="web-1")
    story.write(18, by="web-2")
    story.write(19, by="web-1")
    story.write(23, by="web-2")
    broken = violations(story.replay, story.history)
    assert broken == [
        f"S4 fence: at 23.00, write {story.member.nic}: "
        "written by web-2 while web-1 holds the lease"
    ]


def test_an_event_that_starts_too_early_is_found() -> None:
    """An announced event has to find its VM out; one that appears already started cannot."""
    for published_at, removed, broken in ((2, False, 1), (7, False, 0), (2, True, 0)):
        story = Story()
        story.tell(published_at, "event_published", "E", **EVENT)
        if removed:
            story.moves(5, "member_out")
        story.tell(7, "event_started", "E", **EVENT)
        found = violations(story.replay, story.history, {"S7 in time": s7_in_time})
        assert len(found) == broken


def test_a_blind_agent_acts_in_good_faith_for_a_while() -> None:
    """With blindness allowed for, only what is announced for longer than that forbids a return."""
    for blind_s, broken in ((0, 1), (20, 0), (5, 1)):
        story = Story()
        story.replay.blind_s = blind_s
        assert len(story.told(leave_out=["gone"])) == broken


def test_a_pool_below_its_floor_is_found() -> None:
    """A removal that leaves too few VMs that serve breaks the floor; one of a dead VM does not."""
    for dead, law in (("web-2", ["S2 floor"]), ("web-1", [])):
        story = Story()
        story.tell(0.5, "vm_down", dead, state="stopped")
        for name in ("lease", "published", "recorded", "removed", "out"):
            STEPS[name](story)
        broken = violations(story.replay, story.history)
        assert [line.partition(":")[0] for line in broken] == law


def test_what_an_operator_does_is_no_breach() -> None:
    """An operator may take any VM out, without a record and below the floor."""
    story = Story()
    story.tell(0.5, "vm_down", "web-2", state="stopped")
    story.tell(1, "operator", story.member.nic, what="removed")
    story.moves(1, "member_out")
    assert violations(story.replay, story.history) == []


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
