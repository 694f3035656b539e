"""Controls of the whole set with real agents, and their blob against bad input."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.agent.overrides import OverridesInForce
from controller.azure.http.session import open_azure
from controller.config.in_force import ConfigurationInForce
from controller.core.blob_owner import BlobOwner
from controller.core.controls import NO_CONTROLS, Decision
from controller.errors import ContractViolation, ControllerError, NotDone
from controller.operator.controls import announced, decide, hand_over, pause, resume, withdraw
from controller.operator.drain_client import DrainClient, connect
from controller.operator.overrides import override, overrides, unset
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.storage.controls_store import (
    KEPT_S,
    PASSING_S,
    ControlsStore,
    ControlsWatch,
    controls_blob_name,
)
from tests.support.in_process_set import QUICK, InProcessSet
from tests.support.lb_drain import printed

CONTROLS = "web.controls.json"


def stored(bench: InProcessSet) -> dict[str, Any]:
    found = bench.world.blobs.find(bench.ledger_path.replace("web.json", CONTROLS))
    return dict(json.loads(found.body)) if found and found.body else {}


async def with_client(bench: InProcessSet, work: Callable[[DrainClient], Any]) -> Any:
    settings = bench.settings(bench.config("web-1"))
    async with connect(settings, environ={}, clock=bench.clock, report=print) as client:
        return await work(client)


async def run(bench: InProcessSet, *arguments: str, code: int = 0) -> str:
    """Run a command without a terminal; return what it prints."""
    return await printed(bench.config("web-1"), *arguments, code=code)


# --- real agents ---


async def test_a_paused_set_waits_and_resumes(bench: InProcessSet) -> None:
    """A due VM stays in its pools until the pause is withdrawn; every output shows the pause."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    agent = await bench.lead("web-1")
    await with_client(bench, lambda client: pause(client, for_s=7200, reason="migration"))
    await bench.until("paused", lambda: agent.live_status.overview()["controls"])
    await bench.announce("web-2")
    await bench.until("held", lambda: bench.logged("web-2 is not drained: removals are paused"))
    assert bench.inside("web-2")
    assert bench.writes() == []
    ready, line = agent.live_status.ready()
    assert ready
    assert line.startswith("leader; removals are paused until")
    assert b"lbdrain_paused 1.0" in agent.live_status.metrics()
    assert b'lbdrain_holds{reason="paused"} 1.0' in agent.live_status.metrics()
    (shown,) = agent.live_status.overview()["controls"]
    assert (shown["kind"], shown["reason"]) == ("pause", "migration")
    (logged,) = bench.logged("removals are paused by", "WARNING")[:1]
    assert "(migration)" in logged
    await with_client(bench, resume)
    await bench.until("out", lambda: bench.world.changes("member_out"))
    assert bench.logged("control ended: removals are paused")


async def test_a_new_leader_knows_the_pause(bench: InProcessSet) -> None:
    """An agent reads the controls before it acquires the lease."""
    await with_client(bench, lambda client: pause(client, for_s=3600, reason=""))
    await bench.announce("web-2")
    await bench.lead("web-1")
    await bench.until("held", lambda: bench.logged("web-2 is not drained"))
    assert bench.writes() == []


async def decided(
    bench: InProcessSet, event_id: str, decision: Decision, *, forced: bool = False
) -> None:
    async def work(client: DrainClient) -> None:
        event = await announced(client, event_id, decision)
        await decide(client, event, decision, for_s=3600, reason="batch job", forced=forced)

    await with_client(bench, work)


async def test_a_decision_holds_and_allows_an_acknowledgement(bench: InProcessSet) -> None:
    """Held, the event is not acknowledged though its VM is out; decided, it is, against policy."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    never = {**QUICK["policy"], "acknowledge": False}
    await bench.lead("web-1", overrides={**QUICK, "policy": never})
    event_id = await bench.announce("web-2")
    await bench.until("watched", lambda: bench.ledger().get("events"))
    await decided(bench, event_id[:8].lower(), Decision.HOLD)
    await bench.until("held", lambda: bench.logged("is not acknowledged, decided by"))
    await bench.until("out", lambda: bench.world.changes("member_out"))
    assert not bench.world.changes("event_acknowledged")
    ended = await with_client(bench, lambda client: withdraw(client, event_id[:8], Decision.HOLD))
    assert ended.event_id == event_id
    await decided(bench, event_id, Decision.ACKNOWLEDGE)
    await bench.until("sent", lambda: bench.world.changes("event_acknowledged"))


async def test_only_force_acknowledges_a_vm_in_rotation(bench: InProcessSet) -> None:
    """Law S1: without force the acknowledgement waits."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    await bench.lead("web-1")
    event_id = await bench.announce("web-2", notice_s=7200)
    await bench.until("watched", lambda: bench.ledger().get("events"))
    await decided(bench, event_id, Decision.ACKNOWLEDGE)
    waits = "waits until web-2 is out of rotation (law S1)"
    await bench.until("waits", lambda: bench.logged(waits))
    assert not bench.world.changes("event_acknowledged")
    await decided(bench, event_id, Decision.ACKNOWLEDGE, forced=True)
    await bench.until("sent", lambda: bench.world.changes("event_acknowledged"))
    first, *_ = bench.world.changes("event_acknowledged", "member_out")
    assert first.kind == "event_acknowledged"


async def test_a_leader_hands_over(bench: InProcessSet) -> None:
    """The named VM leads, and a VM that leads already is refused."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    await bench.lead("web-1")
    await bench.stand_by("web-2")
    await bench.stand_by("web-3")
    with pytest.raises(NotDone, match="web-1 leads already"):
        await with_client(bench, lambda client: hand_over(client, "web-1", reason=""))
    found = await with_client(bench, lambda client: hand_over(client, "WEB-3", reason=""))
    assert found == bench.ledger()["leader"] == "web-3"
    assert not stored(bench)["hand_over"]
    assert bench.logged("an operator has requested a hand-over")


async def test_a_hand_over_without_another_agent(bench: InProcessSet) -> None:
    """The leader takes the lease again after the others had their time."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    await bench.lead("web-1")
    over = asyncio.create_task(
        with_client(bench, lambda client: hand_over(client, "", reason="nobody there"))
    )
    await bench.until("released", lambda: bench.logged("standby: released the lease"))
    bench.clock.ahead_s += 20
    with pytest.raises(NotDone, match="no other agent took the lease: web-1 leads again"):
        await over


async def test_a_floor_is_lowered_without_a_restart(bench: InProcessSet) -> None:
    """The floor holds the drain; the override lets it go, and the file applies when it ends."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    agent = await bench.lead("web-1")
    pool = bench.settings(bench.config("web-1")).backend_pools[0].id
    await overridden(bench, "min_in_service=3", pool)
    await bench.until("shown", lambda: agent.live_status.overview()["controls"])
    await bench.announce("web-2")
    await bench.until("held", lambda: bench.logged("min_in_service requires 3"))
    await overridden(bench, "min_in_service=1", pool)
    await bench.until("out", lambda: bench.world.changes("member_out"))
    (shown,) = agent.live_status.overview()["controls"]
    assert (shown["kind"], shown["subject"]) == ("override", "min_in_service")


async def overridden(bench: InProcessSet, assignment: str, pool: str = "") -> None:
    settings = bench.settings(bench.config("web-1"))
    await with_client(
        bench,
        lambda client: override(client, settings, assignment, pool=pool, for_s=3600, reason=""),
    )


async def test_an_override_ends_by_itself(bench: InProcessSet) -> None:
    """Then the setting of the file applies, also while the blob cannot be read."""
    await overridden(bench, "lead_time_s=60")
    settings = bench.settings(bench.config("web-1"))
    in_force = ConfigurationInForce(settings)
    async with open_azure(settings, bench.clock, {}) as azure:
        name = controls_blob_name(bench.ledger_path.split("/", 3)[3])
        watch = ControlsWatch(
            ControlsStore(azure.state_blob(name)),
            clock=bench.clock,
            poll_s=1,
            leading=lambda: True,
            changed=lambda: None,
        )
        watch.on_turn(OverridesInForce(in_force, watch).apply)
        await watch.refresh(no_older_than_s=0)
        assert in_force.policy.lead_time_s == 60
        bench.fault(Service.BLOB, path_contains="controls", status=503)
        bench.clock.ahead_s += 1800
        await watch.refresh(no_older_than_s=0)
        assert in_force.policy.lead_time_s == 60
        bench.clock.ahead_s += 1800
        await watch.refresh(no_older_than_s=0)
        assert in_force.policy == settings.core_policy()


async def test_an_override_that_does_not_fit_one_file_is_reported(bench: InProcessSet) -> None:
    """The agent goes on by its file, and the hold names the setting and the problem."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    await overridden(bench, "lead_time_s=60")
    longer = {**QUICK["policy"], "connection_drain_s": 90}
    await bench.lead("web-2", overrides={**QUICK, "policy": longer})
    await bench.until("held", lambda: bench.ledger().get("holds"))
    (hold,) = bench.ledger()["holds"]
    assert hold["reason"] == "controls_unread"
    assert "lead_time_s=60: policy.connection_drain_s: would end after" in hold["message"]


# --- commands ---


async def test_a_setting_that_is_refused_changes_nothing(bench: InProcessSet) -> None:
    """The text is the one of the file, and an override that is not there cannot be ended."""
    with pytest.raises(NotDone, match=r"policy\.lead_time_s: must be more than 0, is 0"):
        await overridden(bench, "lead_time_s=0")
    with pytest.raises(NotDone, match="is not of the form KEY=VALUE"):
        await overridden(bench, "lead_time_s")
    with pytest.raises(NotDone, match="leave out --pool"):
        await overridden(bench, "lead_time_s=60", "app")
    settings = bench.settings(bench.config("web-1"))
    with pytest.raises(NotDone, match="lead_time_s is not overridden"):
        await with_client(bench, lambda client: unset(client, settings, "lead_time_s", pool=""))
    assert "overrides" not in stored(bench)
    await overridden(bench, "lead_time_s=60")
    ended = await with_client(bench, lambda client: unset(client, settings, "lead_time_s", pool=""))
    assert ended.value == "60"
    assert await with_client(bench, overrides) == ()


@pytest.mark.slow
async def test_commands_about_settings(bench: InProcessSet) -> None:
    """Set, shown with author and end in every output, unset."""
    assert "No setting of the whole set" in await run(bench, "config", "show")
    printed = await run(bench, "config", "set", "min_in_service=0", "--for", "2h")
    assert "min_in_service=0 for pool app, set by" in printed
    assert "min_in_service=0 for pool app, set by" in await run(bench, "config")
    rows = (await run(bench, "check-config", "--in-force")).splitlines()
    (row,) = [each for each in rows if "min_in_service" in each]
    assert "override by" in row
    assert "control: min_in_service=0 for pool app" in await run(bench, "status")
    assert "must be more than 0" in await run(bench, "config", "set", "lead_time_s=0", code=1)
    assert "it has ended" in await run(bench, "config", "unset", "min_in_service")


async def test_an_event_that_is_not_announced(bench: InProcessSet) -> None:
    """The message lists what is announced; a decision about nothing cannot be withdrawn."""
    await bench.lead("web-1")
    for each in ("AAAA-1", "AAAA-2"):
        await bench.announce("web-2", event_id=each, notice_s=7200)
    await bench.until("watched", lambda: len(bench.ledger().get("events", [])) == 2)
    with pytest.raises(NotDone, match=r"the id none-such.* AAAA-1 \(Reboot of web-2\), AAAA-2"):
        await decided(bench, "none-such", Decision.HOLD)
    with pytest.raises(NotDone, match="several announced events begin with AAAA"):
        await decided(bench, "AAAA", Decision.HOLD)
    with pytest.raises(NotDone, match="no hold of event AAAA-1 is in force"):
        await with_client(bench, lambda client: withdraw(client, "AAAA-1", Decision.HOLD))
    assert stored(bench).get("events") is None


async def test_without_a_leader_no_lease_is_handed_over(bench: InProcessSet) -> None:
    """The set has no leader that could obey."""
    with pytest.raises(NotDone, match="the set has no leader"):
        await with_client(bench, lambda client: hand_over(client, "", reason=""))


@pytest.mark.slow
async def test_commands_without_a_terminal(bench: InProcessSet) -> None:
    """What cannot be done is one line on stderr and code 1; a wrong time is code 2."""
    assert "the set is not paused: nothing was changed" in await run(bench, "resume", code=1)
    assert "is not a time such as" in await run(bench, "pause", "--for", "soon", code=2)
    assert "Removals of the set are paused until" in await run(bench, "pause", "--for", "2h")
    status = await run(bench, "status")
    assert "control: removals are paused by" in status
    (shown,) = json.loads(await run(bench, "status", "--json"))["controls"]
    assert shown["kind"] == "pause"
    assert "is ended" in await run(bench, "resume")
    assert "the set has no leader" in await run(bench, "hand-over", code=1)
    assert "Announced: none" in await run(bench, "hold", "1B2C3D4E", code=1)


@pytest.mark.slow
async def test_commands_about_an_event(bench: InProcessSet) -> None:
    """Without a terminal --force needs --yes, and the question names the law."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    await bench.lead("web-1")
    await bench.stand_by("web-2")
    event_id = await bench.announce("web-3", notice_s=7200)
    await bench.until("watched", lambda: bench.ledger().get("events"))
    held = await run(bench, "hold", event_id[:8], "--reason", "batch job")
    assert f"{event_id} (Reboot of web-3) is not acknowledged, by" in held
    assert "Withdrawn: event" in await run(bench, "hold", event_id, "--withdraw")
    waits = await run(bench, "acknowledge", event_id)
    assert "when web-3 is out." in waits
    assert "lb-drain drain web-3" in waits
    refused = await run(bench, "acknowledge", event_id, "--force", code=1)
    assert "This suspends law S1 (ack)" in refused
    assert "Confirm with --yes" in refused
    assert "Withdrawn: event" in await run(bench, "acknowledge", event_id, "--withdraw")
    assert "web-2 leads now." in await run(bench, "hand-over", "web-2")


@pytest.mark.slow
async def test_a_hold_that_ends_before_the_event_begins(bench: InProcessSet) -> None:
    """The command states that the event is acknowledged after all, and how to prevent that."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    await bench.lead("web-1")
    event_id = await bench.announce("web-3", notice_s=8 * 86400)
    await bench.until("watched", lambda: bench.ledger().get("events"))
    held = await run(bench, "hold", event_id[:8])
    assert "NotBefore is later" in held
    assert f"To hold it again before that: lb-drain hold {event_id}" in held


async def test_a_later_pause_replaces_the_one_before(bench: InProcessSet) -> None:
    """There is one pause, of the operator who paused last."""
    await with_client(bench, lambda client: pause(client, for_s=3600, reason="first"))
    await with_client(bench, lambda client: pause(client, for_s=60, reason="second"))
    assert stored(bench)["pause"]["reason"] == "second"
    ended = await with_client(bench, resume)
    assert ended.reason == "second"
    with pytest.raises(NotDone):
        await with_client(bench, resume)


# --- the blob ---


def put(bench: InProcessSet, body: bytes) -> None:
    ledger = bench.put_ledger(b"")
    name = bench.ledger_path.split("/", 3)[3]
    blobs = next(iter(bench.world.blobs.containers.values())).blobs
    ledger.body = body
    blobs[controls_blob_name(name)] = ledger
    del blobs[name]


async def refreshed(bench: InProcessSet, owner: str = "/a/set") -> ControlsWatch:
    """Return a watch after one read."""
    path = bench.config("web-1")
    async with open_azure(bench.settings(path), bench.clock, {}) as azure:
        name = controls_blob_name(bench.ledger_path.split("/", 3)[3])
        watch = ControlsWatch(
            ControlsStore(azure.state_blob(name), owner=BlobOwner(set_id=owner)),
            clock=bench.clock,
            poll_s=1,
            leading=lambda: True,
            changed=lambda: None,
        )
        await watch.refresh(no_older_than_s=0)
        return watch


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[]", "expected an object"),
        (b"{" * 99_999, "cannot be read as controls"),
        (b'{"version": "2.0"}', "upgrade this agent"),
        (b'{"version": "1.0", "set_id": "/another/set"}', "belongs to another availability set"),
        (b'"' + b"x" * 9_000_000 + b'"', "bytes"),
    ],
    ids=["garbage", "nested", "newer", "another set", "huge"],
)
async def test_content_that_is_no_controls(bench: InProcessSet, body: bytes, problem: str) -> None:
    """No control is in force, the problem is reported, and no command overwrites the content."""
    put(bench, body)
    watch = await refreshed(bench)
    assert watch.controls == NO_CONTROLS
    assert problem in watch.problem
    assert bench.logged("the controls of the set cannot be read", "WARNING")
    with pytest.raises(ContractViolation):
        await with_client(bench, lambda client: pause(client, for_s=60, reason=""))


async def test_without_permission_no_control_is_in_force(bench: InProcessSet) -> None:
    """The problem names the refusal."""
    put(bench, b"")
    bench.fault(Service.BLOB, path_contains="controls", status=403)
    assert (await refreshed(bench)).problem
    with pytest.raises(ControllerError):
        await with_client(bench, lambda client: pause(client, for_s=60, reason=""))


async def test_a_reply_that_was_lost_is_no_second_write(bench: InProcessSet) -> None:
    """A write whose outcome is unknown is read back, and was there."""
    bench.fault(Service.BLOB, Effect.RESET_AFTER, method="PUT", path_contains="controls", times=1)
    await with_client(bench, lambda client: pause(client, for_s=60, reason="once"))
    assert stored(bench)["pause"]["reason"] == "once"


async def test_what_was_read_stays_in_force_for_a_while(bench: InProcessSet) -> None:
    """Controls that cannot be read any more end after an hour, and a passing failure is none."""
    await with_client(bench, lambda client: pause(client, for_s=7 * 86400, reason=""))
    async with open_azure(bench.settings(bench.config("web-1")), bench.clock, {}) as azure:
        name = controls_blob_name(bench.ledger_path.split("/", 3)[3])
        watch = ControlsWatch(
            ControlsStore(azure.state_blob(name)),
            clock=bench.clock,
            poll_s=1,
            leading=lambda: True,
            changed=lambda: None,
        )
        await watch.refresh(no_older_than_s=0)
        known = watch.controls
        assert known.pause
        bench.fault(Service.BLOB, path_contains="controls", status=503)
        await watch.refresh(no_older_than_s=0)
        assert (watch.controls, watch.problem) == (known, "")
        bench.clock.ahead_s += PASSING_S + 1
        assert watch.problem
        bench.clock.ahead_s += KEPT_S
        assert watch.controls == NO_CONTROLS
        bench.heal()
        await watch.refresh(no_older_than_s=0)
        assert (watch.controls, watch.problem) == (known, "")


async def test_a_blob_that_is_gone_ends_the_controls_when_that_is_proven(
    bench: InProcessSet,
) -> None:
    """One reply without the blob ends nothing; two minutes without it do."""
    await with_client(bench, lambda client: pause(client, for_s=86400, reason=""))
    async with open_azure(bench.settings(bench.config("web-1")), bench.clock, {}) as azure:
        name = controls_blob_name(bench.ledger_path.split("/", 3)[3])
        watch = ControlsWatch(
            ControlsStore(azure.state_blob(name)),
            clock=bench.clock,
            poll_s=1,
            leading=lambda: True,
            changed=lambda: None,
        )
        await watch.refresh(no_older_than_s=0)
        del next(iter(bench.world.blobs.containers.values())).blobs[name]
        await watch.refresh(no_older_than_s=0)
        assert watch.controls.pause
        bench.clock.ahead_s += 121
        await watch.refresh(no_older_than_s=0)
        assert watch.controls == NO_CONTROLS
