"""Reports: what agents say is the state of the world, for every event and VM."""

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.simulation.runner import Simulation
from tests.simulation.scenario import Act, Scenario, Storm

NIC_WRITE = "Microsoft.Network/networkInterfaces/write"
VMS = ("web-1", "web-2", "web-3")
EVENT: Mapping[str, object] = {
    "event_type": "Reboot",
    "vms": ("web-2",),
    "notice_s": 60.0,
    "impact_s": 8.0,
    "started_s": 14.0,
}


class Observed:
    """A simulated set, and what a person sees who looks at it at some instants."""

    def __init__(self, *acts: Act, **fields: Any) -> None:
        base: dict[str, Any] = {
            "seed": 11,
            "policy": {"connection_drain_s": 2, "restore_settle_s": 3},
            "acts": acts,
            "calm_at_s": 30.0,
            "patience_s": 400.0,
            "idle_s": 6.0,
        }
        self.sim = Simulation(Scenario(**{**base, **fields}))
        self.headlines: dict[float, str] = {}
        self.gauges: dict[float, float] = {}
        self._counts: dict[str, dict[tuple[str, str], float]] = {}

    def look_at(self, *seconds: float) -> None:
        """Note at these instants what the leader says of itself."""
        for at in seconds:
            self.sim.loop.call_at(at, self._look, at)

    def _look(self, at: float) -> None:
        for host in self.sim.hosts.values():
            if host.live_status is not None and host.leading:
                ready, why = host.live_status.ready()
                self.headlines[at] = f"{'ready' if ready else 'not ready'}: {why}"
                shown = samples(host.live_status.metrics())
                failing = [v for (name, labels), v in shown.items() if name == GAUGE]
                self.gauges[at] = max(failing)

    def count(self) -> None:
        """Note from now on what the agents count."""
        self.sim.loop.call_at(1.0, self._count)

    def _count(self) -> None:
        """Note now and then what the agents have counted."""
        for host in self.sim.hosts.values():
            shown = samples(host.live_status.metrics()) if host.live_status else {}
            for (name, labels), value in shown.items():
                if name == "lbdrain_events_total" and value:
                    kind = (dict(labels)["type"], dict(labels)["verdict"])
                    self._counts.setdefault(host.vm, {})[kind] = value
        self.sim.loop.call_later(5.0, self._count)

    @property
    def counted(self) -> dict[tuple[str, str], float]:
        """What the agents have counted together, by type of event and verdict."""
        found: dict[tuple[str, str], float] = {}
        for counts in self._counts.values():
            for kind, value in counts.items():
                found[kind] = found.get(kind, 0) + value
        return found

    def play(self) -> list[tuple[str, str, str]]:
        """Play to the end; return the verdicts in the ledger as VM, verdict and reason."""
        self.sim.run()
        verdicts = self.sim.stage.ledger().get("verdicts", [])
        return [(each["vm"], each["verdict"], each.get("why", "")) for each in verdicts]

    def logged(self, *words: str, level: str = "") -> list[str]:
        """Return the messages that contain every word, in order."""
        lines = [each.detail for each in self.sim.history if each.kind == "log"]
        return [
            str(line["message"])
            for line in lines
            if all(word in str(line["message"]) for word in words) and level in ("", line["level"])
        ]


GAUGE = "lbdrain_azure_consecutive_failures"


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples of an exposition by name and labels."""
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
    }


def event(at_s: float = 20.0, **changes: object) -> Act:
    return Act(at_s, "event", {**EVENT, **changes})


def steps(observed: Observed) -> list[str]:
    """Return the lines of the history about events."""
    of_events = ("announced", "started", "completed", "cancelled")
    lines = observed.sim.stage.ledger().get("transitions", [])
    return [line["what"] for line in lines if line["what"] in of_events]


def test_drained() -> None:
    """Success is reported as plainly as failure: in ledger, metric and log, once."""
    observed = Observed(event())
    observed.count()
    [(vm, verdict, why)] = observed.play()
    assert (vm, verdict, why) == ("web-2", "drained", "")
    assert observed.counted == {("Reboot", "drained"): 1}
    assert steps(observed) == ["announced", "started", "completed"]
    [line] = observed.logged("web-2: Reboot: drained")
    assert line.endswith("s before NotBefore")


def test_hit_in_rotation_because_of_the_floor() -> None:
    """A VM that Azure reboots in its pool has a verdict that names the floor, as an error."""
    observed = Observed(event(), floors={"app": 3})
    observed.look_at(50, 85)
    observed.count()
    [(vm, verdict, why)] = observed.play()
    assert (vm, verdict) == ("web-2", "hit_in_rotation")
    assert why.startswith("web-2 stays in pool app: 2 healthy members would remain")
    assert observed.counted == {("Reboot", "hit_in_rotation"): 1}
    assert observed.headlines[50] == "ready: leader; in rotation, held: web-2"
    [line] = observed.logged(level="ERROR")
    assert line.startswith("web-2: Reboot: hit in rotation: web-2 stays in pool app")


def test_every_write_is_denied() -> None:
    """A VM that cannot be removed is never called out of rotation, and the failures add up."""
    observed = Observed(event(notice_s=100.0))
    for vm in VMS:
        observed.sim.world.roles.revoke(vm, NIC_WRITE)
        observed.sim.loop.call_at(150.0, observed.sim.world.roles.reinstate, vm, NIC_WRITE)
    observed.look_at(*range(30, 120, 5))
    [(vm, verdict, why)] = observed.play()
    assert vm == "web-2"
    assert verdict == "hit_in_rotation"
    assert NIC_WRITE in why
    # No agent can write, so that the lease goes round; each leader finds out for itself.
    headlines = set(observed.headlines.values())
    assert "ready: leader; in rotation, cannot be removed: web-2" in headlines
    assert not any("; out of rotation" in each or "all in service" in each for each in headlines)
    assert max(observed.gauges.values()) >= 3
    assert observed.logged("remove web-2-nic (app)", "lacks", level="WARNING")
    starts = [each for each in observed.logged("remove web-2-nic") if each.endswith("(app)")]
    tenures = observed.logged("is the leader, epoch")
    assert 1 <= len(starts) <= len(tenures), "a retry is no new removal"


def test_started_without_notice() -> None:
    """A VM that is taken out after the start of an unannounced event is late, by so much."""
    observed = Observed(event(started_first=True, notice_s=0.0, started_s=60.0, impact=""))
    [(vm, verdict, why)] = observed.play()
    assert (vm, verdict, why) == ("web-2", "late", "it began without notice")


def test_cancelled() -> None:
    """An event that is withdrawn before NotBefore is cancelled, also after its VM was drained."""
    observed = Observed(event(cancel_after_s=20.0, notice_s=300.0), policy={"acknowledge": False})
    assert observed.play() == [("web-2", "cancelled", "")]
    assert steps(observed) == ["announced", "cancelled"]


def test_ignored() -> None:
    """An ignored event says because of which setting."""
    observed = Observed(event(event_type="Freeze", duration_s=2, impact_s=2.0))
    [(vm, verdict, why)] = observed.play()
    assert (vm, verdict) == ("web-2", "ignored")
    assert "min_duration_s = 5 in [policy.events.Freeze]" in why


def test_no_leader_during_the_event() -> None:
    """Storage is away from before the announcement until after the end: the next leader judges."""
    away = Storm("cut", 15.0, 140.0, service="blob")
    observed = Observed(event(30.0, notice_s=30.0), storms=(away,), calm_at_s=140.0)
    assert observed.play() == [
        ("web-2", "hit_in_rotation", "no agent led when it began"),
    ]
    assert steps(observed) == ["announced", "started", "completed"]


def test_failover_in_between() -> None:
    """The leader dies while the VM is out; the next one gives the one verdict."""
    observed = Observed(event(notice_s=200.0, started_s=60.0), policy={"acknowledge": False})

    def crash() -> None:
        [leader] = [host for host in observed.sim.hosts.values() if host.leading]
        leader.crash(40.0)

    observed.sim.loop.call_at(100.0, crash)
    assert observed.play() == [("web-2", "drained", "")]
    assert observed.sim.stage.ledger()["epoch"] > 1


def test_a_dry_run() -> None:
    """A dry run reports each thing once, writes nothing, and ends with what would have been."""
    observed = Observed(
        event(notice_s=200.0, started_s=60.0),
        event(30.0, vms=("web-3",), notice_s=100.0, cancel_after_s=40.0),
        policy={"dry_run": True},
        patience_s=300.0,
        converge_within_s=10.0,
    )
    assert observed.play() == []
    assert not [each for each in observed.sim.history if each.kind == "member_out"]
    said = [
        str(each.detail["message"])
        for each in observed.sim.history
        if each.kind == "log" and each.subject == "web-1"
    ]
    assert len(said) == len(set(said)), "each thing is said once"
    assert observed.logged("dry run: would record web-2 and remove it from app")
    verdicts = observed.logged("dry run: web-2: Reboot: would have been")
    assert len(verdicts) == 2, "the agent of web-2 was not there at the end"
    assert all(each.endswith("s before NotBefore") for each in verdicts)
    assert observed.logged("dry run: web-3: Reboot: cancelled before it began")


def test_a_dry_run_that_the_floor_holds() -> None:
    """A dry run states the hold that would have left the VM in rotation."""
    observed = Observed(
        event(),
        policy={"dry_run": True},
        floors={"app": 3},
        patience_s=100.0,
        converge_within_s=9.0,
    )
    observed.play()
    assert observed.logged("dry run: would hold back: web-2 stays in pool app")
    assert observed.logged("dry run: web-2: Reboot: would have been hit in rotation: web-2 stays")
