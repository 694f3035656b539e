"""What happens on each page with samples, in the order of its text."""

from collections.abc import Callable, Mapping

from tests.docs.stage import Stage

AGENTS = tuple(
    f"lb-drain run --config lb-drain-sim/web-{n}.toml 2> web-{n}.log" for n in range(1, 4)
)
SHOWN_ON_CALL = (
    "on-call-status",
    "on-call-plan",
    "on-call-events",
    "on-call-history",
    "on-call-doctor",
)


def quick_start(stage: Stage) -> None:
    """Serve a set under load, reboot a VM, drain another one manually, and freeze one."""
    stage.show_serving("quick-start-simulate")
    stage.show_started("quick-start-agents")
    _until_agents_run(stage)
    stage.show("quick-start-status")
    stage.show("quick-start-event")
    _until_started(stage)
    stage.show("quick-start-during")
    stage.show("quick-start-complete")
    _until_settled(stage)
    stage.show("quick-start-after")
    stage.show("quick-start-traffic")
    stage.show("quick-start-drain")
    stage.run("lb-drain simulate event Freeze web-2 --notice 900 --impact 600 --started 600")
    _until_started(stage)
    stage.show("freeze-during")
    stage.run(f"lb-drain simulate complete {stage.event_id}")
    _until_settled(stage)
    stage.show("freeze-after")
    stage.show("freeze-traffic")


def on_call(stage: Stage) -> None:
    """One VM is rebooted, another one is held by the floor, and an agent has died."""
    stage.serve("lb-drain simulate")
    for path in (stage.directory / "lb-drain-sim").glob("web-*.toml"):
        text = path.read_text()
        path.write_text(text.replace("min_in_service = 1", "min_in_service = 2"))
    *_, third = stage.start_agents(*AGENTS)
    _until_agents_run(stage)
    stage.run("lb-drain simulate event Freeze web-3 --notice 900 --duration 2")
    stage.until_printed("lb-drain plan", "Freeze")
    stage.run(f"lb-drain simulate complete {stage.event_id}")
    stage.until_printed("lb-drain history", "verdict on the Freeze")
    stage.run("lb-drain simulate event Reboot web-3 --started-first --impact 1 --started 3")
    stage.until_printed("lb-drain history", "verdict on the Reboot")
    _until_settled(stage)
    stage.run("lb-drain simulate event Reboot web-2 --notice 900 --impact 3000 --started 3000")
    _until_started(stage)
    third.terminate()
    third.wait()
    stage.until_printed("lb-drain status", "not running")
    stage.run("lb-drain simulate event Redeploy web-3 --notice 900")
    stage.until_printed("lb-drain plan", "min_in_service")
    for name in SHOWN_ON_CALL:
        stage.show(name)


SCENES: Mapping[str, Callable[[Stage], None]] = {"quick-start": quick_start, "on-call": on_call}
"""The scenes by the first page that shows their samples."""


def _until_agents_run(stage: Stage) -> None:
    """Wait until one agent leads and every other one has published that it runs."""
    stage.until(
        "three agents run",
        lambda: stage.run("lb-drain status").count(" standby ") == len(AGENTS) - 1,
    )


def _until_started(stage: Stage) -> None:
    """Wait until the newest event runs, and the ledger says so."""
    stage.until_printed("lb-drain simulate state", '"Started"')
    stage.until("the ledger has it", lambda: _has_line(stage, "event started", stage.event_id))


def _has_line(stage: Stage, *texts: str) -> bool:
    """Return whether a line of the history contains all these texts."""
    lines = stage.run("lb-drain history").splitlines()
    return any(all(text in line for text in texts) for line in lines)


def _until_settled(stage: Stage) -> None:
    """Wait until every VM is in service."""
    stage.until_printed("lb-drain status", "all in service")
