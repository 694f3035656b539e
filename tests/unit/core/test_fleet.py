"""The summary of a set from its ledger, and the order of many sets."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.azure_names import SetName
from controller.core.controls import NO_CONTROLS, Controls, Pause
from controller.core.deadlines import AT_RISK_S
from controller.core.event_record import Place, Verdict
from controller.core.fleet import (
    FORGOTTEN_AFTER,
    MISSED_COUNTS,
    SILENT_AFTER,
    AgentTrace,
    Attention,
    Problem,
    Reason,
    SetSummary,
    in_order_of_attention,
    set_name,
    summarise,
    unreadable,
)
from controller.core.ledger import Hold, Ledger
from controller.core.notices.set_notices import MAX_OUT_S
from controller.core.planning.actions import HoldReason, Phase
from tests.support.simulated_fleet import (
    SUBSCRIPTION,
    SimulatedSet,
    announced,
    at_risk,
    base,
    draining,
    entry,
    event,
    hit,
    idle,
    late,
    out_too_long,
    unused,
    verdict,
    without_leader,
)

NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
URL = "https://account.blob.core.windows.net/lb-drain"


def row(found: SimulatedSet) -> SetSummary:
    """Summarise a set as its container shows it."""
    return of(found.ledger, lease_state="leased" if found.led else "expired", blob=found.blob)


def of(
    ledger: Ledger,
    *,
    lease_state: str = "leased",
    blob: str = "web.json",
    agents: tuple[AgentTrace, ...] = (),
    controls: Controls = NO_CONTROLS,
) -> SetSummary:
    return summarise(
        ledger,
        lease_state=lease_state,
        container_url=URL,
        blob=blob,
        written_at=NOW - timedelta(minutes=5),
        now=NOW,
        agents=agents,
        controls=controls,
    )


def made(state: Callable[[str, str, datetime], SimulatedSet]) -> SetSummary:
    return row(state("web", "rg", NOW))


def reasons(found: SetSummary) -> list[Reason]:
    return [each.reason for each in found.problems]


@pytest.mark.parametrize(
    ("state", "attention", "reason"),
    [
        (idle, Attention.NONE, None),
        (announced, Attention.NOTICE, Reason.ANNOUNCED),
        (draining, Attention.NOTICE, Reason.OUT),
        (unused, Attention.WARNING, Reason.UNUSED),
        (late, Attention.WARNING, Reason.LATE),
        (hit, Attention.WARNING, Reason.HIT_IN_ROTATION),
        (out_too_long, Attention.WARNING, Reason.OUT_TOO_LONG),
        (at_risk, Attention.CRITICAL, Reason.AT_RISK),
        (without_leader, Attention.CRITICAL, Reason.NO_LEADER),
    ],
)
def test_each_state_has_its_attention_and_first_reason(
    state: Callable[[str, str, datetime], SimulatedSet],
    attention: Attention,
    reason: Reason | None,
) -> None:
    """The most urgent reason comes first, and it decides the attention."""
    found = made(state)
    assert found.attention is attention
    assert reasons(found)[:1] == ([reason] if reason else [])
    assert [each.level for each in found.problems] == sorted(
        (each.level for each in found.problems), reverse=True
    )


@pytest.mark.parametrize(("minutes", "paused"), [(1, True), (-1, False)])
def test_a_paused_set_says_who_paused_it_until_when(minutes: int, paused: bool) -> None:
    """Its maintenance would hit a VM in rotation, until the pause ends."""
    pause = Pause(
        by="ann",
        reason="migration",
        at=NOW - timedelta(hours=1),
        until=NOW + timedelta(minutes=minutes),
    )
    found = of(made(idle).ledger, controls=Controls(pause=pause))
    text = "removals are paused by ann until 2030-01-02 12:01 UTC (migration)"
    expected = [Problem(Attention.WARNING, Reason.PAUSED, text)] if paused else []
    assert list(found.problems) == expected


def test_a_set_that_is_led_shows_its_leader_and_its_name() -> None:
    """The leader counts only while the lease is held; the name comes from the id in the ledger."""
    found = made(idle)
    assert found.leader == "web-vm1"
    assert found.readable
    assert found.name == SetName(name="web", resource_group="rg", subscription=SUBSCRIPTION)
    assert str(found.name) == "web (rg)"
    assert of(base("web", "rg", NOW), lease_state="available").leader == ""


@pytest.mark.parametrize(
    ("set_id", "blob", "name"),
    [
        ("", "sub/rg/web.json", SetName(name="web", resource_group="rg", subscription="sub")),
        ("", "my-ledger", SetName(name="my-ledger")),
        ("", "my.json", SetName(name="my.json")),
        ("", "a/b/c", SetName(name="a/b/c")),
        ("", "a//c.json", SetName(name="a//c.json")),
        ("", "a/b/c/d.json", SetName(name="a/b/c/d.json")),
        ("web", "sub/rg/other.json", SetName(name="web")),
        (
            "/Subscriptions/S/ResourceGroups/RG/providers/Microsoft.Compute/availabilitySets/W/",
            "x",
            SetName(name="W", resource_group="RG", subscription="S"),
        ),
    ],
)
def test_the_name_of_a_set(set_id: str, blob: str, name: SetName) -> None:
    """The id in the ledger decides, then the default name of the blob, then the blob itself."""
    assert set_name(set_id, blob) == name
    assert str(SetName(name="web")) == "web"


def test_no_leader_names_what_stays_out() -> None:
    """Without a leader, the VMs that are out stay out, and the text names them."""
    found = made(without_leader)
    assert found.problems[0].text == (
        "no leader, web-vm1 led last; maintenance starts without a drain; web-vm2 stays as it is"
    )
    assert of(replace(base("web", "rg", NOW), leader=""), lease_state="").problems[0].text == (
        "no leader; maintenance starts without a drain"
    )
    assert [(each.vm, each.phase) for each in found.drained] == [("web-vm2", Phase.OUT)]
    assert found.drained[0].since == NOW - timedelta(minutes=200)


def test_a_leader_that_has_not_opened_an_empty_ledger_yet_is_no_problem() -> None:
    """A held lease is enough."""
    assert of(Ledger()).problems == ()


@pytest.mark.parametrize(
    ("seconds", "place", "risky"),
    [
        (AT_RISK_S - 1, Place.IN_ROTATION, True),
        (AT_RISK_S, Place.IN_ROTATION, False),
        (-60, Place.IN_ROTATION, True),
        (-60, Place.UNKNOWN, True),
        (-60, Place.OUT, False),
        (-60, Place.UNMANAGED, False),
        (-60, Place.JUDGED, False),
    ],
)
def test_a_vm_is_at_risk_that_may_be_in_rotation_near_not_before(
    seconds: float, place: Place, risky: bool
) -> None:
    """From two minutes before NotBefore on, only an observation that it is out prevents that."""
    watched = event("web-vm2", NOW, minutes=seconds / 60, place=place)
    found = of(replace(base("web", "rg", NOW), events=(watched,)))
    assert found.at_risk == (("web-vm2",) if risky else ())
    assert (Reason.AT_RISK in reasons(found)) is risky


def test_a_recorded_removal_counts_before_the_event_record_does() -> None:
    """The entry of a VM that is out is enough; one that is on its way is not."""
    watched = event("web-vm2", NOW, minutes=1)
    ledger = replace(base("web", "rg", NOW), events=(watched,))
    assert of(ledger.with_entry(entry("WEB-VM2", "rg", NOW))).at_risk == ()
    assert of(ledger.with_entry(entry("web-vm2", "rg", NOW, out=False))).at_risk == ("web-vm2",)


def test_an_event_without_an_instant_is_a_risk_at_once() -> None:
    """It may begin at any time."""
    watched = replace(event("web-vm2", NOW, minutes=1), not_before=None)
    assert of(replace(base("web", "rg", NOW), events=(watched,))).at_risk == ("web-vm2",)


def test_ignored_events_and_those_that_are_gone_need_nothing() -> None:
    """Neither is announced, next, or a risk."""
    watched = event("web-vm2", NOW, minutes=1)
    ignored, gone = replace(watched, ignored="too short"), replace(watched, gone_at=NOW)
    found = of(replace(base("web", "rg", NOW), events=(ignored, gone)))
    assert found.problems == ()
    assert found.next_event is None


def test_the_next_event_is_the_one_that_begins_first() -> None:
    """An event without an instant counts from when it was first read."""
    later, sooner = event("a", NOW, minutes=30), event("b", NOW, minutes=20)
    unknown = replace(event("c", NOW, minutes=99), not_before=None)
    ledger = base("web", "rg", NOW)
    assert of(replace(ledger, events=(later, sooner))).next_event == sooner
    assert of(replace(ledger, events=(later, sooner, unknown))).next_event == unknown


@pytest.mark.parametrize("what", [Verdict.LATE, Verdict.HIT_IN_ROTATION])
def test_a_missed_event_needs_attention_for_a_day(what: Verdict) -> None:
    """The text has the newest such event; after a day only the last verdict shows it."""
    hours = MISSED_COUNTS.total_seconds() / 3600
    ledger = base("web", "rg", NOW)
    old, new = verdict("a", NOW, what, hours=2), verdict("b", NOW, what, hours=1)
    fine = verdict("c", NOW, Verdict.DRAINED, hours=0.5)
    found = of(replace(ledger, verdicts=(old, new, fine)))
    (problem,) = found.problems
    assert problem.reason.value == what.value
    assert problem.text.startswith("Freeze of b, 1 h 0 min ago: ")
    assert found.last_verdict == fine
    assert found.last_missed == new
    past = of(replace(ledger, verdicts=(verdict("a", NOW, what, hours=hours),)))
    assert past.problems == ()
    future = of(replace(ledger, verdicts=(verdict("a", NOW, what, hours=-0.01),)))
    assert ", 0 s ago" in future.problems[0].text
    assert of(ledger).last_verdict is of(ledger).last_missed is None


@pytest.mark.parametrize("reason", [HoldReason.EVENT_PENDING, HoldReason.ACKNOWLEDGEMENT_HELD])
def test_a_hold_that_needs_nobody_is_no_problem(reason: HoldReason) -> None:
    """It ends by itself, or an operator has decided it."""
    hold = Hold(subject="web-vm2", reason=reason.value, message="m", since=NOW)
    assert of(replace(base("web", "rg", NOW), holds=(hold,))).problems == ()


@pytest.mark.parametrize(
    ("reason", "level"),
    [
        (HoldReason.FLOOR, Attention.WARNING),
        (HoldReason.LOST, Attention.WARNING),
        (HoldReason.VM_GONE, Attention.NOTICE),
        (HoldReason.NO_ABLE_AGENT, Attention.CRITICAL),
    ],
)
def test_a_hold_is_as_urgent_as_its_effect(reason: HoldReason, level: Attention) -> None:
    """A deleted VM blocks nothing; a set without an able agent does nothing."""
    hold = Hold(subject="web-vm2", reason=reason.value, message="m", since=NOW)
    (problem,) = of(replace(base("web", "rg", NOW), holds=(hold,))).problems
    assert (problem.level, problem.reason) == (level, Reason.HELD)
    assert problem.text == f"held: m ({reason.value})"


@pytest.mark.parametrize(
    ("seconds", "reason"), [(MAX_OUT_S, Reason.OUT), (MAX_OUT_S + 1, Reason.OUT_TOO_LONG)]
)
def test_a_vm_is_out_too_long_after_an_hour(seconds: float, reason: Reason) -> None:
    """The limit is that of the notification and of the alert; the text names the VM."""
    old = entry("web-vm2", "rg", NOW, minutes=seconds / 60)
    found = of(base("web", "rg", NOW).with_entry(old).with_entry(entry("web-vm3", "rg", NOW)))
    assert reasons(found) == [reason]
    text = found.problems[0].text
    assert text.startswith("web-vm2 has" if reason is Reason.OUT_TOO_LONG else "out of rotation")


def test_a_deleted_vm_and_one_that_is_back_are_not_out() -> None:
    """Neither is named as out of rotation."""
    gone = replace(entry("gone", "rg", NOW), gone=True)
    back = replace(entry("back", "rg", NOW), restored_at=NOW)
    ledger = base("web", "rg", NOW).with_entry(gone).with_entry(back)
    assert of(ledger).problems == ()
    both = of(ledger.with_entry(entry("web-vm2", "rg", NOW)))
    assert both.problems[0].text == "out of rotation or on the way: web-vm2"


def trace(vm: str, age: timedelta) -> AgentTrace:
    return AgentTrace(vm=vm, written_at=NOW - age)


def test_an_agent_is_silent_when_its_presence_was_not_written_for_long() -> None:
    """A presence that is very old belongs to a VM that has left the set."""
    second = timedelta(seconds=1)
    agents = (
        trace("b", SILENT_AFTER),
        trace("a", timedelta()),
        trace("d", SILENT_AFTER + 2 * second),
        trace("c", SILENT_AFTER + second),
        trace("e", FORGOTTEN_AFTER - second),
        trace("f", FORGOTTEN_AFTER),
    )
    found = of(base("web", "rg", NOW), agents=agents)
    assert found.agents_seen == ("a", "b")
    assert found.agents_silent == ("c", "d", "e")
    (problem,) = found.problems
    assert (problem.level, problem.reason) == (Attention.WARNING, Reason.AGENTS_SILENT)
    assert problem.text == "no sign of the agent on c, d, e for 6 d 23 h"
    assert of(base("web", "rg", NOW), agents=agents[:2]).problems == ()


def test_maintenance_explains_a_silent_agent() -> None:
    """A VM that is out, or that an event affects, is silent while it restarts."""
    ledger = replace(base("web", "rg", NOW), events=(event("WEB-VM1", NOW, minutes=60),))
    ledger = ledger.with_entry(entry("WEB-VM2", "rg", NOW))
    names = ("web-vm1", "web-vm2", "web-vm3")
    agents = tuple(trace(vm, timedelta(minutes=7)) for vm in names)
    found = of(ledger, agents=agents)
    assert found.agents_silent == names
    assert [each.text for each in found.problems if each.reason is Reason.AGENTS_SILENT] == [
        "no sign of the agent on web-vm3 for 7 min 0 s"
    ]
    back = replace(entry("web-vm2", "rg", NOW), restored_at=NOW)
    assert "web-vm2, web-vm3" in of(ledger.with_entry(back), agents=agents).problems[0].text


def test_the_order_is_that_of_urgency_then_of_time_then_of_names() -> None:
    """A set without an event comes after one with an event of the same urgency."""
    first, second = announced("b", "rg", NOW), announced("a", "rg", NOW)
    first = replace(first, ledger=replace(first.ledger, events=(event("x", NOW, minutes=200),)))
    quiet, also_quiet = idle("B", "rg", NOW), idle("a", "rg", NOW)
    given = [row(each) for each in (quiet, also_quiet, second, first, at_risk("z", "rg", NOW))]
    ordered = in_order_of_attention(given)
    assert [each.name.name for each in ordered] == ["z", "b", "a", "a", "B"]
    assert in_order_of_attention(reversed(given)) == ordered


@pytest.mark.parametrize(
    ("blob", "options", "level"),
    [
        ("notes.txt", {"used": False}, Attention.WARNING),
        ("notes.txt", {"used": True}, Attention.CRITICAL),
        ("notes.txt", {"used": False, "lease_state": "leased"}, Attention.CRITICAL),
        ("s/rg/web.json", {"used": False}, Attention.CRITICAL),
    ],
)
def test_a_blob_that_cannot_be_read_is_urgent_if_it_is_ours(
    blob: str, options: dict[str, object], level: Attention
) -> None:
    """A file of another program is no emergency; a ledger that agents cannot read is one."""
    found = unreadable("why", container_url=URL, blob=blob, written_at=NOW, **options)  # type: ignore[arg-type]
    assert found.attention is level
    assert not found.readable
    assert found.problems[0].text == "why"
    assert (found.container_url, found.blob, found.written_at) == (URL, blob, NOW)
