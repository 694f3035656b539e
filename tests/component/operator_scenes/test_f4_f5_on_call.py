"""F4, F5: the person on call asks what is going on, and acts in the last minutes."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from controller.azure.http.container_session import open_containers
from controller.azure.http.identity import Identity
from controller.clock import SystemClock
from controller.fleet.reader import FleetReader
from controller.simulator.app.agent_processes import CONTAINER
from tests.component.operator_scenes.conftest import Person, floor
from tests.support.az_login import write_az
from tests.support.in_process_set import NEVER_S, InProcessSet

A_DAY_S = 86_400.0


def compact(value: object) -> str:
    """Return a value as JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


def row(shown: str, vm: str) -> list[str]:
    """Return the words of the first line about a VM: its row of the table."""
    return next(line.split() for line in shown.splitlines() if line.split()[:1] == [vm])


async def test_f4_status_shows_the_set_its_agents_and_what_they_do(
    bench: InProcessSet, person: Person
) -> None:
    """Two of three agents run, and web-3 is in maintenance.

    `status` names set, VMs, roles, versions, pools, phases, the event and the missing agent; `plan`
    and the page have the same phase and the same spelling of the pool.
    """
    agent = await bench.lead("web-1")
    await bench.stand_by("web-2")
    await bench.announce("web-3", started_s=NEVER_S)

    def phases() -> dict[str, str | None]:
        return {each["vm"]: each["phase"] for each in agent.live_status.overview()["vms"]}

    wanted = {"web-1": "in_service", "web-2": "in_service", "web-3": "in_maintenance"}
    await bench.sees("web-3 is in maintenance", phases, wanted)
    status = await person("status")
    assert status.startswith("availability set web in web-rg, read at ")
    assert row(status, "web-1")[1:3] == ["leader", "0.1.0,"]
    assert row(status, "web-2")[1:3] == ["standby", "0.1.0,"]
    assert " ".join(row(status, "web-3")).startswith("web-3 not running")
    assert "web-3: the agent does not run" in status
    assert "Reboot started" in status
    for shown in (status, await person("plan")):
        assert "in maintenance" in shown
        assert "web-lb/app" in shown


async def test_f4_plan_says_why_nothing_is_done(bench: InProcessSet, person: Person) -> None:
    """A Freeze of two seconds and a Reboot of tomorrow: each VM has its reason, and the setting."""
    await bench.lead("web-1")
    bench.world.events.schedule("Freeze", "web-3", notice_s=900, impact_s=2, duration_s=2)
    await bench.announce("web-2", notice_s=A_DAY_S)
    await bench.until("both are known", lambda: len(bench.ledger().get("events", [])) == 2)
    plan = await person("plan")
    assert "Freeze is ignored: it lasts 2 s, min_duration_s = 5 in [policy.events.Freeze]" in plan
    assert "900 s before NotBefore (lead_time_s in [policy])" in plan
    assert "planned actions: none" in plan
    assert bench.logged("ignored: it lasts 2 s, min_duration_s = 5 in [policy.events.Freeze]")


async def test_f4_status_is_one_versioned_object(bench: InProcessSet, person: Person) -> None:
    """`status --json` has the set, its VMs and a version, in the shape of the page's data."""
    agent = await bench.lead("web-1")
    await bench.until("there are VMs", lambda: agent.live_status.overview()["vms"])
    shown: dict[str, Any] = json.loads(await person("status", "--json"))
    assert shown["version"] == 1
    assert [each["vm"] for each in shown["vms"]] == ["web-1", "web-2", "web-3"]
    assert set(shown) == set(agent.live_status.overview())


async def test_f4_a_workstation_shows_the_set(
    bench: InProcessSet, person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can drain a VM from a workstation can also look at the set from there, with `az login`.

    The metadata service, which only a VM has, is not asked.
    """
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write_az(tmp_path, bench.world, principal="web-1", now=bench.clock.epoch())
    agent = await bench.lead("web-1")
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("web-2 is out", lambda: "acknowledged" in str(bench.ledger()["transitions"]))
    await bench.stop(agent)
    before = bench.world.request_counts.copy()
    chosen = ("--availability-set", bench.world.availability_set_id)
    for command in ("status", "plan"):
        shown = await person(command, *chosen)
        assert shown.startswith("availability set web in web-rg, read at ")
        assert row(shown, "web-2")
        assert "Reboot of web-2" in shown
    assert "imds" not in {key[0] for key in bench.world.request_counts - before}


async def test_f5_a_hold_names_what_follows_and_every_lever(
    bench: InProcessSet, person: Person
) -> None:
    """The floor holds web-3, and its Redeploy is near.

    `status`, `plan` and the page name the consequence, the shared setting and the forced drain.
    """
    agent = await bench.lead("web-1", **floor(3))
    bench.world.events.schedule("Redeploy", "web-3", notice_s=600, impact_s=1)
    await bench.server.notify()
    await bench.until("held", lambda: bench.ledger().get("holds"))
    [problem] = [
        each for each in agent.live_status.overview()["problems"] if each["kind"] == "held"
    ]
    for shown in (await person("status"), await person("plan"), problem["text"]):
        assert "the Redeploy can begin at " in shown
        assert "while the VM is in rotation; it is not acknowledged" in shown
        assert "lb-drain config set min_in_service=N --pool NAME --for 1h" in shown
        assert "lb-drain drain web-3 --force --reason TEXT" in shown


async def test_f5_a_vm_that_is_out_says_what_its_event_waits_for(
    bench: InProcessSet, person: Person
) -> None:
    """One Reboot names two VMs, and the floor spares one: the other one is out, and stops there."""
    await bench.lead("web-1", **floor(2))
    await bench.announce("web-2", "web-3")
    await bench.until("one is out", lambda: '"what":"out"' in compact(bench.ledger()))
    shown = await person("plan")
    assert re.search(
        "web-2 is out of rotation: .*; not acknowledged while web-3 is in rotat", shown
    )


async def test_f5_a_wait_ends_and_the_drain_is_forced(bench: InProcessSet, person: Person) -> None:
    """The floor holds a manual drain: `--wait` ends, and names the command that goes below it.

    The forced drain is done, and history and `status` record who and why.
    """
    await bench.lead("web-1", **floor(3))
    over = await person("drain", "web-2", "--wait", "--timeout", "2s", code=124)
    assert "on hold: web-2 stays in pool app" in over
    assert "To drain below min_in_service: lb-drain drain web-2 --force --reason TEXT" in over
    forced = await person("drain", "web-2", "--force", "--reason", "disk fails", "--yes", "--wait")
    assert "web-2 removed from web-lb/app" in forced
    assert bench.inside("web-2") == []
    history = await person("history")
    assert re.search("below min_in_service, forced by .* on web-1: disk fails", history)
    assert "(disk fails), below min_in_service if necessary (--force)" in await person("status")


async def test_f5_the_floor_is_lowered_for_the_whole_set(
    bench: InProcessSet, person: Person
) -> None:
    """The command that the remedy names releases the hold: no file is edited, none restarts."""
    await bench.lead("web-1", **floor(3))
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("held", lambda: bench.ledger().get("holds"))
    await person("config", "set", "min_in_service=1", "--pool", "app", "--for", "1h")
    await bench.until("web-2 is out", lambda: bench.inside("web-2") == [])


async def test_f5_a_pause_is_shown_wherever_somebody_looks(
    bench: InProcessSet, person: Person, tmp_path: Path
) -> None:
    """An operator pauses the set; another one looks at this set, and at many sets.

    The set has one row in the fleet, and the pause with its author and end is why it is urgent.
    """
    agent = await bench.lead("web-1")
    await person("pause", "--for", "2h", "--reason", "migration")
    await bench.until("paused", lambda: "paused" in agent.live_status.ready()[1])
    pause = "removals are paused by .* on web-1 until .*[(]migration[)]"
    assert re.search(f"control: {pause}", await person("status"))
    settings = bench.settings(tmp_path / "web-1.toml").azure
    async with open_containers(
        (bench.server.container_url(CONTAINER),),
        settings,
        clock=SystemClock(),
        environ={},
        identity=Identity.VM,
    ) as containers:
        [found] = (await FleetReader(containers, clock=SystemClock()).read()).sets
    [text] = [each.text for each in found.problems if each.reason.value == "paused"]
    assert re.fullmatch(pause, text)
