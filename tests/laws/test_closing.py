"""Laws S8, S9, and S1 for VMs that are closed: each finds its breach, and keeps to it."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from controller.simulator.world.bodies import key
from controller.simulator.world.builder import build_world
from controller.simulator.world.history import Change
from tests.laws.closing import s8_close, s9_open
from tests.laws.conditions import Conditions
from tests.laws.judge import violations
from tests.laws.ledger_document import MOST_CHARACTERS
from tests.laws.replay import Replay, Write
from tests.laws.safety import s1_ack
from tests.laws.test_laws import EVENT

if TYPE_CHECKING:
    from controller.simulator.world.bodies import Json
    from controller.simulator.world.world import World

LEDGER = "/account/container/ledger.json"
LAWS = {"S8 close": s8_close, "S9 open": s9_open}
OPEN_AFTER_S = 60.0


class Story:
    """A history in the making: web-1 closes, in a set of three VMs with a floor of one."""

    def __init__(self, floor: int | str = 1) -> None:
        self.world: World = build_world(now=0.0, vms=3)
        self.pool = self.world.pool_ids()[0]
        self.conditions = Conditions(
            peers=frozenset({"web-1", "web-2", "web-3"}),
            ledger=LEDGER,
            floors={key(self.pool): floor},
            policy={"close": True, "restore_ready_timeout_s": 10},
            lease_s=15,
            open_after_s=OPEN_AFTER_S,
        )
        self.history: list[Change] = []
        self.tell(0, "agent_started", "web-1")

    def tell(self, at: float, kind: str, subject: str, **detail: object) -> None:
        """Add one change."""
        self.history.append(Change(at, kind, subject, detail))

    def record(self, at: float, *vms: str, **fields: object) -> None:
        """Let web-2 write a ledger that names these VMs."""
        entries: list[Json] = [
            {"vm": vm, "restored_at": None, "memberships": [], **fields} for vm in vms
        ]
        self.tell(at, "blob_written", LEDGER, by="web-2", body=json.dumps({"entries": entries}))

    def read(self, at: float, status: int = 200) -> None:
        """Let the agent of web-1 read the ledger."""
        self.tell(
            at, "request", LEDGER,
            service="blob", vm="web-1", method="GET", query="", status=status,
            delivery="normal", said="", wait="",
        )  # fmt: skip

    def announce(self, at: float, not_before: float, vms: str = "web-1") -> None:
        """Announce a reboot."""
        given: Mapping[str, object] = {**EVENT, "resources": vms, "not_before": not_before}
        self.tell(at, "event_published", "E", **given)

    def close(self, at: float, vm: str = "web-1") -> None:
        """Close a VM."""
        self.tell(at, "application_closed", vm)

    def broken(self) -> list[str]:
        """Return the names of the broken laws, one for each breach."""
        found = violations(Replay(self.conditions, self.world), self.history, LAWS)
        return [each.law for each in found]


def test_a_vm_that_an_entry_names_may_close() -> None:
    """S8: its agent has read the durable entry."""
    story = Story()
    story.record(1, "WEB-1")
    story.read(2)
    story.close(3)
    assert story.broken() == []


@pytest.mark.parametrize("read", [False, True])
def test_a_vm_without_an_entry_may_not_close(read: bool) -> None:
    """S8: no entry, or one that its agent has not read."""
    story = Story()
    if read:
        story.record(1, "web-2")
        story.read(2)
    else:
        story.record(1, "web-1")
    story.close(30)
    assert story.broken() == ["S8 close"]


@pytest.mark.parametrize(
    ("not_before", "read_at", "out", "breaches"),
    [
        (90, 5, (), 0),
        (900, 5, (), 1),  # not near
        (90, 39, (), 1),  # storage answers
        (90, 5, ("web-2", "web-3"), 1),  # the floor
    ],
)
def test_a_vm_closes_alone_under_conditions(
    not_before: float, read_at: float, out: tuple[str, ...], breaches: int
) -> None:
    """S8: its own event is near, storage is silent, and every floor is kept."""
    story = Story()
    story.record(1, *out)
    story.announce(2, not_before)
    story.read(read_at)
    story.close(40)
    assert story.broken() == ["S8 close"] * breaches


@pytest.mark.parametrize(("sent_at", "breaches"), [(6, 0), (33, 1)])
def test_a_reply_after_its_time_out_shows_an_agent_nothing(sent_at: float, breaches: int) -> None:
    """S8: only what came in time counts as news, here that two other VMs are out."""
    story = Story()
    story.record(1)
    story.read(5)
    story.announce(6, 90)
    story.record(30, "web-2", "web-3")
    story.tell(34, "arrived", LEDGER, service="blob", vm="web-1", method="GET", sent_at=sent_at)
    story.read(34)
    story.close(40)
    assert story.broken() == ["S8 close"] * breaches


@pytest.mark.parametrize(
    ("body", "breaches"),
    [
        ("", 1),
        ('{"entries": []}', 1),
        ("[]", 0),
        ("not json", 0),
        ('{"entries": [], "padding": "' + "x" * MOST_CHARACTERS + '"}', 0),
    ],
    ids=["empty", "ledger", "list", "garbage", "huge"],
)
def test_content_that_is_no_ledger_is_no_news_from_storage(body: str, breaches: int) -> None:
    """S8: no leader can record the VM in it, so its agent may close it alone."""
    story = Story()
    story.record(1)
    story.announce(2, 90)
    story.read(5)
    story.tell(10, "blob_replaced", LEDGER, body=body)
    story.read(39)
    story.close(40)
    assert story.broken() == ["S8 close"] * breaches


def test_the_silence_of_storage_begins_with_the_request() -> None:
    """S8: an agent cannot know when storage had answered, only when it asked."""
    story = Story()
    story.record(1)
    story.announce(2, 90)
    story.tell(
        34, "arrived", LEDGER, service="blob", vm="web-1", method="GET", sent_at=34, serial=1
    )
    story.read(37)
    story.close(40)
    assert story.broken() == []


@pytest.mark.parametrize(("floor", "breaches"), [(1, 0), ("34%", 1), (2, 1)])
def test_vms_that_have_closed_alone_count_for_the_floor(floor: int | str, breaches: int) -> None:
    """S8: of two VMs that close alone, the second one needs the floor too."""
    story = Story(floor)
    story.announce(2, 60, "web-1,web-2")
    story.close(40)
    story.close(41, "web-2")
    assert story.broken() == ["S8 close"] * breaches


def test_a_vm_that_stays_closed_without_news_is_found() -> None:
    """S9: it has open_after_s, and the time to become ready; it is found once."""
    for until, breaches in ((120, 0), (300, 1)):
        story = Story()
        story.record(1, "web-1")
        story.read(2)
        story.close(3)
        story.tell(until, "log", "web-1")
        story.tell(until + 1, "log", "web-1")
        assert story.broken() == ["S9 open"] * breaches


@pytest.mark.parametrize("what", ["reads", "announced", "dead", "down"])
def test_a_vm_may_stay_closed_for_a_reason(what: str) -> None:
    """S9: there is news, its event is announced, or no agent runs that could open it."""
    story = Story()
    story.record(1, "web-1")
    story.read(2)
    story.close(3)
    match what:
        case "reads":
            story.read(120, status=304)
            story.read(240, status=304)
        case "announced":
            story.announce(4, 900)
        case "dead":
            story.tell(5, "agent_killed", "web-1")
        case _:
            story.tell(5, "vm_down", "web-1", state="stopped")
    story.tell(300, "log", "web-1")
    assert story.broken() == []


@pytest.mark.parametrize(("at", "breaches"), [(20, 1), (75, 0)])
def test_a_vm_that_opens_while_an_entry_names_it_is_found(at: float, breaches: int) -> None:
    """S9: before open_after_s without news, the wish of the leader holds."""
    story = Story()
    story.record(1, "web-1")
    story.read(2)
    story.close(3)
    story.tell(at, "application_opened", "web-1")
    assert story.broken() == ["S9 open"] * breaches


@pytest.mark.parametrize(("restoring_s", "breaches"), [(2, 0), (-2, 1), (65, 1)])
def test_a_vm_that_a_pool_refuses_for_long_may_open(restoring_s: float, breaches: int) -> None:
    """S9: the restore has begun after the record, and lasts longer than any write."""
    story = Story()
    at = [datetime.fromtimestamp(each, UTC).isoformat() for each in (1, restoring_s)]
    story.record(1, "web-1", recorded_at=at[0], restoring_at=at[1])
    story.read(2)
    story.close(3)
    for second in range(4, 90, 5):
        story.read(second)
    story.tell(90, "application_opened", "web-1")
    assert story.broken() == ["S9 open"] * breaches


def test_a_vm_that_is_closed_in_the_end_is_found() -> None:
    """S9 and L1: once everything works again every VM is open."""
    story = Story()
    story.record(1, "web-1")
    story.read(2)
    story.close(3)
    story.tell(20, "converged", "set")
    assert story.broken() == ["S9 open"]
    story.conditions = replace(story.conditions, unable=story.conditions.peers)
    assert story.broken() == [], "no agent can restore it"


@pytest.mark.parametrize(("until", "breaches"), [(70, 0), (90, 1)])
def test_an_application_has_its_time_to_become_ready(until: float, breaches: int) -> None:
    """S9: the set does not wait for a VM that cannot report that it is closed."""
    story = Story()
    story.record(1, "web-1")
    story.read(2)
    story.close(3)
    story.record(10)
    story.read(12)
    story.tell(until, "converged", "set")
    assert story.broken() == ["S9 open"] * breaches


@pytest.mark.parametrize(
    ("quiet_at", "noticed_at", "policy", "breaches"),
    [
        (5, 6, {}, 0),
        (11, 6, {}, 1),
        (5, 11, {}, 1),
        (5, math.inf, {}, 1),
        (5, 6, {"acknowledge_when": "out"}, 1),
        (5, 6, {"close": False}, 1),
    ],
)
def test_an_acknowledgement_in_a_pool_needs_closed_quiet_and_proof(
    quiet_at: float, noticed_at: float, policy: Mapping[str, object], breaches: int
) -> None:
    """S1: at the moment it leaves, 10 s."""
    story = Story()
    given = {**story.conditions.policy, **policy}
    replay = Replay(replace(story.conditions, policy=given), story.world)
    story.close(3)
    story.tell(3, "machine_closed", "web-1", quiet_at=quiet_at, noticed_at=noticed_at)
    for change in story.history:
        replay.follow(change)
    replay.arrived = Change(10, "arrived", "", {"serial": "1", "sent_at": 10})
    replay.sent["1"] = Write(vm="web-2", sent_at=10, ledger={}, down={})
    change = Change(10, "event_acknowledged", "E", {"by": "web-2", **EVENT})
    assert len(list(s1_ack(replay, change))) == breaches


@pytest.mark.parametrize(
    ("ends", "at", "breaches"),
    [
        (("agent_killed",), 38, 0),  # the end of its service opened it, and no report said so yet
        (("agent_killed",), 39, 1),
        ((), 10, 1),  # its own agent opened it
    ],
)
def test_the_leader_learns_late_of_a_vm_that_opens_without_its_agent(
    ends: tuple[str, ...], at: float, breaches: int
) -> None:
    """S1: an acknowledgement may rely on the last report, for as long as it counts."""
    story = Story()
    replay = Replay(story.conditions, story.world)
    story.close(3)
    story.tell(3, "machine_closed", "web-1", quiet_at=4, noticed_at=5)
    for kind in ends:
        story.tell(8, kind, "web-1")
    story.tell(8, "application_opened", "web-1")
    for change in story.history:
        replay.follow(change)
    replay.arrived = Change(at, "arrived", "", {"serial": "1", "sent_at": at})
    replay.sent["1"] = Write(vm="web-2", sent_at=at, ledger={}, down={})
    change = Change(at, "event_acknowledged", "E", {"by": "web-2", **EVENT})
    assert len(list(s1_ack(replay, change))) == breaches
