"""The closing side of one VM on a machine of the test's own: what it does, and in which order."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from controller.config.in_force import ConfigurationInForce
from controller.config.loader import parse
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.vm_report import HookOutcome, VmReport, VmState
from controller.probe.application_check import Readiness
from controller.vm_side.closing_side import READY_TIMES, ClosingSide
from controller.vm_side.connections import ConnectionCount
from controller.vm_side.flag import Flag
from controller.vm_side.machine import HookResult
from tests.support.planner_scenario import APP, at, event
from tests.unit.core.test_closing import entry

if TYPE_CHECKING:
    from controller.config.schema import Settings
    from controller.vm_side.ledger_follower import LedgerFollower
    from controller.vm_side.report_sender import ReportSender
    from controller.vm_side.service_ports import ServicePorts

CONFIG = f"""
[[backend_pools]]
id = "{APP}"
[election]
container_url = "https://account.blob.core.windows.net/lb-drain"
[policy]
close = true
restore_ready_timeout_s = 60
[drain]
quiet_s = 2
"""
HOOKS = "".join(
    f'[[hooks]]\non = "{stage}"\ncommand = ["/hooks/{stage}"]\n'
    for stage in ("closing", "closed", "opening", "opened")
)


@dataclass
class FakeMachine:
    """A machine that remembers what was done to it."""

    boot_id: str = "boot"
    probe_port: int = 0
    flagged: Flag | None = None
    done: list[str] = field(default_factory=list)
    count: ConnectionCount = field(default_factory=lambda: ConnectionCount(1))
    ready: Readiness = field(default_factory=lambda: Readiness(ready=True, reason=""))
    flag_problem: str = ""
    """Why the flag file cannot be written or renewed."""
    clear_problem: str = ""
    hook_results: dict[str, HookResult] = field(default_factory=dict)
    hook_runs: "asyncio.Event | None" = None
    """Hooks hang until it is set."""
    refused: int | None = None
    while_asked: Callable[[], None] = lambda: None
    """Called while the application is asked whether it is ready."""
    known: str = ""
    """What the VM was when the responder was shown that its agent has acted on the ledger."""

    def flag(self) -> Flag | None:
        return self.flagged

    def set_flag(self, flag: Flag) -> str:
        if not self.flag_problem:
            self.done.append("flag set")
            self.flagged = flag
        return self.flag_problem

    def renew_flag(self) -> str:
        if self.flagged is not None:
            self.flagged = replace(self.flagged, renewed_at=self.flagged.renewed_at)
            self.done.append("flag renewed")
        return self.flag_problem

    def note_known(self) -> None:
        self.known = self.known or ("closed" if self.flagged else "open")

    def clear_flag(self) -> str:
        if self.clear_problem:
            return self.clear_problem
        if self.flagged is not None:
            self.done.append("flag cleared")
        self.flagged = None
        return ""

    async def connections(self, ports: Sequence[int]) -> ConnectionCount:
        return self.count

    async def run_hook(
        self, command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
    ) -> HookResult:
        stage = command[0].rpartition("/")[2]
        self.done.append(f"hook {stage} {environment['LB_DRAIN_EVENT_TYPE']}".rstrip())
        if self.hook_runs is not None:
            try:
                await self.hook_runs.wait()
            except asyncio.CancelledError:
                self.done.append(f"hook {stage} cancelled")
                raise
        return self.hook_results.get(stage, HookResult(HookOutcome.DONE))

    async def refused_probes(self) -> int | None:
        return self.refused

    async def readiness(self) -> Readiness:
        self.while_asked()
        return self.ready


class FakeFollower:
    """A ledger that storage holds, and whether storage answers."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.stored = Ledger()
        self.answers = True
        self.ledger: Ledger | None = None
        self.reads = 0
        self.during_read: Callable[[], None] = lambda: None
        """Called while a read is on its way."""
        self._read_at: datetime | None = None

    @property
    def age_s(self) -> float:
        if self._read_at is None:
            return float("inf")
        return (self._now() - self._read_at).total_seconds()

    @property
    def silent_s(self) -> float:
        return 0.0 if self.answers else self.age_s

    def is_newest(self, etag: str) -> bool:
        return etag == "known"

    async def refresh(self) -> None:
        self.reads += 1
        answers, during = self.answers, self.during_read
        self.during_read = lambda: None
        during()
        if answers:
            self.ledger, self._read_at = self.stored, self._now()


class FakeSender:
    """The reports that were given to be sent."""

    def __init__(self) -> None:
        self.sent: list[VmReport] = []

    def send(self, report: VmReport) -> None:
        if not self.sent or self.sent[-1] != report:
            self.sent.append(report)


class FakePorts:
    """One port, and what the test sets."""

    problem = ""
    reads = 0

    def read_again(self) -> None:
        self.reads += 1

    def __call__(self) -> tuple[int, ...]:
        return () if self.problem else (80,)


class TestClock:
    """A wall clock that the test moves."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ahead_s = 0.0
        """How wrong the wall clock is."""

    def now(self) -> datetime:
        return at(self.seconds + self.ahead_s)

    def monotonic(self) -> float:
        return self.seconds


class Bench:
    """One closing side, stepped by the test."""

    def __init__(self, machine: FakeMachine, config: str = CONFIG) -> None:
        self.settings: Settings = parse(config, {}, Path("config.toml")).settings
        self.clock, self.machine, self.sender = TestClock(), machine, FakeSender()
        self.follower, self.ports = FakeFollower(self.clock.now), FakePorts()
        self.document, self.document_age_s = EventDocument(incarnation=1), 0.0
        self.side = self.build()

    def build(self) -> ClosingSide:
        """Return a closing side as a new agent process has it."""
        return ClosingSide(
            vm="web-1",
            peers=("web-1", "web-2"),
            configuration=ConfigurationInForce(self.settings),
            machine=self.machine,
            follower=cast("LedgerFollower", self.follower),
            sender=cast("ReportSender", self.sender),
            document=lambda: self.document,
            document_age_s=lambda: self.document_age_s,
            seen=tuple,
            clock=self.clock,
            service_ports=cast("ServicePorts", self.ports),
        )

    def record(self, **changes: Any) -> None:
        """Let the ledger name web-1."""
        self.follower.stored = Ledger(entries=(entry(**changes),))
        self.side.ledger_changed("new")

    def forget(self) -> None:
        """Let the ledger forget web-1."""
        self.follower.stored = Ledger()

    async def step(self, seconds: float = 1, times: int = 1) -> VmReport:
        """Move the clock, run steps, and let hooks run; return the report."""
        for _ in range(times):
            self.clock.seconds += seconds
            await self.side.step()
            for _ in range(5):
                await asyncio.sleep(0)
        return self.side.report


@pytest.fixture
def bench() -> Bench:
    """A VM in service, with hooks."""
    bench = Bench(FakeMachine(), CONFIG + HOOKS)
    bench.document = EventDocument(incarnation=1, events=(event("web-1", not_before=600),))
    return bench


async def test_a_drain_from_open_to_open(bench: Bench) -> None:
    """Flag first, hook after; opening hook first, flag last."""
    assert (await bench.step()).state is VmState.OPEN
    bench.record()
    report = await bench.step()
    assert (report.state, report.drain, report.since) == (VmState.CLOSED, at(0), at(2))
    assert bench.machine.done == ["flag set", "flag renewed", "hook closing Reboot"]
    bench.machine.count = ConnectionCount(0)
    assert not (await bench.step()).quiet
    report = await bench.step(times=2)
    assert report.quiet
    assert bench.machine.done[-1] == "hook closed Reboot"
    bench.document = EventDocument(incarnation=2)
    bench.record(restored_at=at(5))
    report = await bench.step()
    assert report.state is VmState.OPENING
    report = await bench.step(times=2)
    assert (report.state, report.drain) == (VmState.OPEN, at(0))
    assert [each for each in bench.machine.done if each != "flag renewed"][3:] == [
        "hook opening",
        "flag cleared",
        "hook opened",
    ]


async def test_an_idle_vm_reads_nothing(bench: Bench) -> None:
    """No event, no record: the ledger is read when its ETag is a new one, and only then."""
    bench.document = EventDocument(incarnation=1)
    await bench.step(seconds=10, times=6)
    assert bench.follower.reads == 0
    bench.side.ledger_changed("known")
    await bench.step()
    assert bench.follower.reads == 0
    bench.side.ledger_changed("new")
    await bench.step(times=2)
    assert bench.follower.reads == 1


@pytest.mark.parametrize(("recorded", "shown"), [(True, "closed"), (False, "open")])
async def test_the_responder_is_shown_when_the_vm_is_as_the_ledger_asks(
    bench: Bench, *, recorded: bool, shown: str
) -> None:
    """S9: after a reboot the flag is set before the responder lets go of the earlier boot."""
    bench.follower.answers = False
    await bench.step()
    assert bench.machine.known == "", "nothing was read yet"
    bench.follower.answers = True
    if recorded:
        bench.record()
    await bench.step(times=3)
    assert bench.machine.known == shown


async def test_a_due_event_makes_it_read(bench: Bench) -> None:
    """While its record is awaited the ledger is read in every step."""
    await bench.step(times=3)
    assert bench.follower.reads == 3


async def test_a_connection_that_comes_back_ends_the_quiet(bench: Bench) -> None:
    """Quiet is no connection for quiet_s, counted anew after each connection."""
    bench.machine.count = ConnectionCount(0)
    bench.record()
    await bench.step(times=4)
    assert bench.side.report.quiet
    bench.machine.count = ConnectionCount(2)
    report = await bench.step()
    assert (report.quiet, report.connections) == (False, 2)
    bench.machine.count = ConnectionCount(0)
    assert not (await bench.step(times=2)).quiet
    assert (await bench.step()).quiet


async def test_connections_that_cannot_be_counted_are_never_quiet(bench: Bench) -> None:
    """No count is no zero, and the report states the problem."""
    bench.machine.count = ConnectionCount(0, "connections cannot be counted: no table")
    bench.record()
    report = await bench.step(times=10)
    assert not report.quiet
    assert not report.counted
    assert "cannot be counted" in report.problem


async def test_without_the_service_ports_no_vm_is_quiet(bench: Bench) -> None:
    """S1: an agent that does not know the ports finds no connection, and there may be some."""
    bench.machine.count = ConnectionCount(0)
    bench.ports.problem = "the rules of web-lb have not been read"
    bench.record()
    report = await bench.step(times=10)
    assert (report.quiet, report.counted) == (False, False)
    assert report.problem == f"connections cannot be counted: {bench.ports.problem}"
    bench.ports.problem = ""
    report = await bench.step()
    assert (report.quiet, report.counted, report.problem) == (False, True, "")
    assert (await bench.step(times=2)).quiet


async def test_a_vm_that_closes_reads_the_service_ports_again(bench: Bench) -> None:
    """S1: rules can have changed since the agent began; once per drain (H1)."""
    await bench.step(times=3)
    assert bench.ports.reads == 0
    bench.record()
    await bench.step(times=5)
    assert bench.ports.reads == 1
    bench.record(recorded_at=at(30))
    await bench.step(times=5)
    assert bench.ports.reads == 2


async def test_a_flag_that_cannot_be_written_leaves_the_vm_open(bench: Bench) -> None:
    """The report tells the leader why, and the next step tries again."""
    bench.machine.flag_problem = "the flag file /run/x cannot be written (No space left on device)"
    bench.record()
    report = await bench.step()
    assert (report.state, report.drain) == (VmState.OPEN, at(0))
    assert "No space left" in report.problem
    bench.machine.flag_problem = ""
    assert (await bench.step()).state is VmState.CLOSED


async def test_a_vm_that_cannot_close_tries_without_news_until_the_drain_is_over(
    bench: Bench,
) -> None:
    """It follows the ledger as a closed VM does, and is open since it was, whatever it tries."""
    bench.document = EventDocument(incarnation=1)
    bench.machine.flag_problem = "the flag file /run/x cannot be written (No space left on device)"
    bench.record()
    first = await bench.step()
    again = await bench.step(times=20)
    assert (again.since, again.at) == (first.since, at(21))
    assert replace(again, at=first.at) == first
    bench.forget()
    over = await bench.step()
    assert (over.state, over.since, over.problem) == (VmState.OPEN, first.since, "")
    reads = bench.follower.reads
    await bench.step(times=5)
    assert bench.follower.reads == reads


@pytest.mark.parametrize("opening", [False, True])
async def test_a_closed_vm_whose_flag_cannot_be_replaced_is_closed_and_opens_later(
    bench: Bench, *, opening: bool
) -> None:
    """S9: the flag of the record before still closes it; as open, it would keep that for ever."""
    bench.record()
    await bench.step()
    bench.document = EventDocument(incarnation=2)
    if opening:
        bench.machine.ready = Readiness(ready=False, reason="no")
        bench.record(restored_at=at(5))
        assert (await bench.step()).state is VmState.OPENING
        bench.machine.ready = Readiness(ready=True, reason="")
    bench.machine.flag_problem = "the flag file /run/x cannot be written (No space left on device)"
    bench.record(recorded_at=at(30))
    report = await bench.step()
    assert bench.machine.flagged is not None
    assert (report.state, report.drain) == (VmState.CLOSED, at(30))
    assert "No space left" in report.problem
    bench.record(recorded_at=at(30), restored_at=at(40))
    report = await bench.step(times=5)
    assert (report.state, bench.machine.flagged) == (VmState.OPEN, None)


@pytest.mark.parametrize("stage", ["close", "renew", "open"])
async def test_a_flag_file_that_fails_is_logged_once(
    bench: Bench, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step tries again, and the log has one line for each drain until the problem changes."""
    if stage != "close":
        bench.record()
        await bench.step()
    bench.machine.flag_problem = "" if stage == "open" else "the flag file /run/x: no space"
    if stage == "close":
        bench.record()
    elif stage == "open":
        bench.machine.clear_problem = "the flag file /run/x: read-only"
        bench.follower.stored = Ledger()
    await bench.step(times=5)
    failures = [each for each in caplog.messages if "flag file" in each]
    assert len(failures) == 1
    assert "flag file" in bench.side.report.problem
    assert "flag cleared" not in bench.machine.done


@pytest.mark.parametrize("result", [HookOutcome.FAILED, HookOutcome.TIMED_OUT])
async def test_a_closing_hook_that_fails_delays_nothing(bench: Bench, result: HookOutcome) -> None:
    """The VM is closed all the same, and the report states the failure."""
    bench.machine.hook_results["closing"] = HookResult(result, "the hook ended with 3")
    bench.machine.count = ConnectionCount(0)
    bench.record()
    report = await bench.step(times=2)
    assert (report.state, report.hook) == (VmState.CLOSED, result)
    assert report.problem == "the hook ended with 3"


async def test_a_hook_that_hangs_delays_nothing(bench: Bench) -> None:
    """Connections are counted, and the VM becomes quiet, while the hook runs."""
    bench.machine.hook_runs = asyncio.Event()
    bench.machine.count = ConnectionCount(0)
    bench.record()
    report = await bench.step()
    assert report.hook is HookOutcome.RUNNING
    assert (await bench.step(times=3)).quiet


def bench_with(*stages: str) -> Bench:
    """Return a VM without connections that has hooks of these stages, which hang."""
    hooks = "".join(f'[[hooks]]\non = "{each}"\ncommand = ["/hooks/{each}"]\n' for each in stages)
    bench = Bench(FakeMachine(), CONFIG + hooks)
    bench.document = EventDocument(incarnation=1, events=(event("web-1", not_before=600),))
    bench.machine.hook_runs = asyncio.Event()
    bench.machine.count = ConnectionCount(0)
    bench.record()
    return bench


@pytest.mark.parametrize("result", [HookOutcome.DONE, HookOutcome.FAILED])
async def test_a_stage_without_hooks_lets_a_hook_end(result: HookOutcome) -> None:
    """The VM is quiet after two seconds, and its `closing` hook may need longer."""
    bench = bench_with("closing")
    bench.machine.hook_results["closing"] = HookResult(
        result, "the hook ended with 3" if result is HookOutcome.FAILED else ""
    )
    report = await bench.step(times=5)
    assert report.quiet
    assert report.hook is HookOutcome.RUNNING
    assert bench.machine.hook_runs is not None
    bench.machine.hook_runs.set()
    await bench.step()
    report = await bench.step()
    assert report.hook is result
    assert report.problem == bench.machine.hook_results["closing"].problem
    assert "hook closing cancelled" not in bench.machine.done
    bench.forget()
    assert (await bench.step(times=6)).hook is HookOutcome.NONE


async def test_a_vm_opens_while_a_hook_of_its_drain_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only an `opening` hook keeps a VM closed, and nothing stops the hook `closed`."""
    bench = bench_with("closed")
    assert (await bench.step(times=4)).hook is HookOutcome.RUNNING
    bench.document = EventDocument(incarnation=2)
    bench.forget()
    report = await bench.step(times=5)
    assert (report.state, report.hook) == (VmState.OPEN, HookOutcome.RUNNING)
    assert "hook closed cancelled" not in bench.machine.done
    assert not [each for each in caplog.messages if "stopped" in each]
    assert bench.machine.hook_runs is not None
    bench.machine.hook_runs.set()
    await bench.step()
    assert (await bench.step()).hook is HookOutcome.DONE


async def test_a_hook_that_the_next_stage_stops_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Hooks of two stages never run at the same time."""
    bench = bench_with("closing", "closed")
    await bench.step(times=4)
    assert "hook closing cancelled" in bench.machine.done
    assert bench.machine.done[-1] != "hook closing Reboot"
    (stopped,) = [each for each in caplog.messages if "stopped" in each]
    assert stopped == (
        "hook closing: the hook /hooks/closing is stopped, because the hooks of the stage closed "
        "begin"
    )


async def test_an_application_that_is_not_ready_stays_closed(bench: Bench) -> None:
    """The flag goes when the check has succeeded twice in a row; `hold` waits for ever."""
    bench.record()
    await bench.step()
    bench.machine.ready = Readiness(ready=False, reason="http://127.0.0.1/ answers 503")
    bench.document = EventDocument(incarnation=2)
    bench.record(restored_at=at(5))
    report = await bench.step(times=200)
    assert report.state is VmState.OPENING
    assert report.problem == "not ready: http://127.0.0.1/ answers 503"
    assert bench.machine.flagged is not None
    bench.machine.ready = Readiness(ready=True, reason="")
    assert (await bench.step()).state is VmState.OPENING
    assert (await bench.step()).state is VmState.OPEN


@pytest.mark.parametrize(
    ("status", "hinted"), [(503, True), (500, False), (404, False), (0, False)]
)
async def test_a_check_that_may_follow_the_flag_file_is_reported(
    bench: Bench, status: int, *, hinted: bool
) -> None:
    """L1: such a page waits for the VM to open, and the VM for the page."""
    bench.record()
    await bench.step()
    bench.machine.ready = Readiness(ready=False, reason="http://x/ answers", status=status)
    bench.document = EventDocument(incarnation=2)
    bench.record(restored_at=at(5))
    problem = (await bench.step(times=3)).problem
    assert problem.startswith("not ready: http://x/ answers")
    assert ("[probe] check has to name another page" in problem) is hinted


async def test_an_operator_can_let_it_open_anyway(bench: Bench) -> None:
    """`restore_when_not_ready = "open"`: the time is over, the VM opens."""
    bench.settings = parse(
        CONFIG.replace("close = true", 'close = true\nrestore_when_not_ready = "open"'),
        {},
        Path("config.toml"),
    ).settings
    bench.side = bench.build()
    bench.record()
    await bench.step()
    bench.machine.ready = Readiness(ready=False, reason="no")
    bench.document = EventDocument(incarnation=2)
    bench.record(restored_at=at(5))
    assert (await bench.step(times=59)).state is VmState.OPENING
    assert (await bench.step(times=3)).state is VmState.OPEN


async def test_an_opening_hook_that_fails_holds_the_restore(bench: Bench) -> None:
    """It runs again after half a minute; the VM opens when it has succeeded."""
    bench.record()
    await bench.step()
    failed = HookResult(HookOutcome.FAILED, "the hook /hooks/opening ended with 1")
    bench.machine.hook_results["opening"] = failed
    bench.document = EventDocument(incarnation=2)
    bench.record(restored_at=at(5))
    report = await bench.step(times=20)
    assert (report.state, report.problem) == (VmState.OPENING, failed.problem)
    del bench.machine.hook_results["opening"]
    report = await bench.step(times=40)
    assert report.state is VmState.OPEN
    assert bench.machine.done.count("hook opening") == 2


async def test_an_agent_that_starts_again_continues(bench: Bench) -> None:
    """A crash leaves the flag; the next process keeps it, its time, and runs no hook twice."""
    bench.record()
    await bench.step(times=3)
    since = bench.side.report.since
    bench.side = bench.build()
    bench.side.ledger_changed("new")
    report = await bench.step()
    assert (report.state, report.since) == (VmState.CLOSED, since)
    assert bench.machine.done.count("hook closing Reboot") == 1


@pytest.mark.parametrize("ahead_s", [-86_400, 0, 86_400])
async def test_a_found_flag_counts_for_its_time_whatever_the_clock_of_the_machine(
    bench: Bench, ahead_s: float
) -> None:
    """S9: the file has the time of a clock that can be wrong, the agent corrects its own."""
    bench.record()
    await bench.step()
    assert bench.machine.flagged is not None
    renewed_at = at(bench.clock.seconds + ahead_s)
    bench.machine.flagged = replace(bench.machine.flagged, renewed_at=renewed_at, age_s=10)
    bench.follower.answers, bench.follower.ledger = False, None
    bench.document = EventDocument(incarnation=2)
    bench.side = bench.build()
    assert (await bench.step(seconds=3500)).state is VmState.CLOSED
    await bench.step(seconds=100)
    assert (await bench.step(times=5)).state is VmState.OPEN


async def test_an_agent_that_starts_again_after_the_drain_opens(bench: Bench) -> None:
    """S9: the flag of a drain that ended meanwhile is removed."""
    bench.record()
    await bench.step()
    bench.document = EventDocument(incarnation=2)
    bench.forget()
    bench.side = bench.build()
    await bench.step(times=5)
    assert bench.machine.flagged is None
    assert bench.side.report.state is VmState.OPEN


async def test_the_flag_of_another_boot_is_removed(bench: Bench) -> None:
    """A flag outside /run can survive a reboot; it says nothing about this one."""
    bench.record()
    await bench.step()
    bench.machine.boot_id = "next boot"
    bench.follower.answers = False
    bench.follower.ledger = None
    bench.side = bench.build()
    assert bench.machine.flagged is None


async def test_a_vm_that_boots_while_it_is_named_closes(bench: Bench) -> None:
    """S9: it stays closed until the restore."""
    bench.machine.boot_id = "next boot"
    bench.record()
    bench.side = bench.build()
    bench.side.ledger_changed("new")
    assert (await bench.step()).state is VmState.CLOSED


async def test_a_change_that_shows_during_a_failing_read_is_read_before_the_vm_opens(
    bench: Bench,
) -> None:
    """S9: storage answers again, so the time without news is over."""
    bench.record()
    await bench.step()
    bench.follower.answers, bench.document = False, EventDocument(incarnation=2)
    await bench.step(seconds=3600)

    def answers_again() -> None:
        bench.follower.answers = True
        bench.side.ledger_changed("new")

    bench.follower.during_read = answers_again
    assert (await bench.step(seconds=5)).state is VmState.CLOSED
    assert bench.follower.age_s == 0


async def test_a_record_that_is_read_while_the_application_is_asked_keeps_the_vm_closed(
    bench: Bench,
) -> None:
    """S9: another part of the agent reads it; an opening would be the answer to an older ledger."""
    bench.record()
    await bench.step()
    bench.record(restored_at=at(5))
    asked: list[int] = []

    def named_again_at_last() -> None:
        asked.append(1)
        if len(asked) == READY_TIMES:
            named = Ledger(entries=(entry(recorded_at=at(4)),))
            bench.follower.ledger = bench.follower.stored = named

    bench.machine.while_asked = named_again_at_last
    report = await bench.step(times=READY_TIMES + 2)
    assert (report.state, report.drain) == (VmState.CLOSED, at(4))
    assert "flag cleared" not in bench.machine.done


async def test_changes_that_show_during_every_read_delay_no_step(bench: Bench) -> None:
    """A step reads the ledger twice at most, however often it changes."""
    bench.record()
    await bench.step()
    bench.follower.answers = False

    def changes() -> None:
        bench.follower.during_read = changes
        bench.side.ledger_changed("new")

    bench.follower.during_read, before = changes, bench.follower.reads
    await bench.step()
    assert bench.follower.reads == before + 2


async def test_without_storage_the_flag_is_not_renewed(bench: Bench) -> None:
    """S9: the flag grows old, so that a responder without its agent opens too."""
    bench.document = EventDocument(incarnation=1)
    bench.record()
    await bench.step()
    bench.follower.answers = False
    await bench.step(seconds=31)
    bench.machine.done.clear()
    await bench.step(times=5)
    assert "flag renewed" not in bench.machine.done
    assert bench.side.report.state is VmState.CLOSED


async def test_without_storage_it_opens_after_a_while(bench: Bench) -> None:
    """S9: open_after_s without news, and no event of its own announced."""
    bench.record()
    await bench.step()
    bench.follower.answers = False
    bench.document = EventDocument(incarnation=2)
    assert (await bench.step(seconds=3500)).state is VmState.CLOSED
    await bench.step(seconds=200)
    await bench.step(times=5)
    assert bench.side.report.state is VmState.OPEN


async def test_without_storage_and_events_it_opens_after_a_while(bench: Bench) -> None:
    """S9: an event that was announced in an old document is not announced any more."""
    bench.record()
    bench.document = EventDocument(incarnation=2, events=(event("web-1"),))
    await bench.step()
    bench.follower.answers = False
    await bench.step(seconds=3700, times=2)
    assert bench.side.report.state is VmState.CLOSED
    bench.document_age_s = 3700
    await bench.step(times=5)
    assert bench.side.report.state is VmState.OPEN


async def test_a_new_drain_of_a_closed_vm_is_reported(bench: Bench) -> None:
    """Put back and recorded again: closed since then, about the new record."""
    bench.record()
    await bench.step()
    since = bench.side.report.since
    again = at(0) + timedelta(seconds=30)
    bench.record(recorded_at=again)
    report = await bench.step()
    assert (report.state, report.drain, report.since) == (VmState.CLOSED, again, since)
    assert bench.machine.done.count("hook closing Reboot") == 1


async def test_a_new_drain_of_a_vm_that_opens_closes_it_again(bench: Bench) -> None:
    """An event that comes while the VM opens closes it, with its hook."""
    bench.record()
    await bench.step()
    bench.machine.ready = Readiness(ready=False, reason="no")
    bench.record(restored_at=at(5))
    assert (await bench.step()).state is VmState.OPENING
    again = at(0) + timedelta(seconds=30)
    bench.record(recorded_at=again)
    report = await bench.step()
    assert (report.state, report.drain) == (VmState.CLOSED, again)
    assert bench.machine.done.count("hook closing Reboot") == 2


async def test_refused_probes_are_reported(bench: Bench) -> None:
    """The responder's count is the leader's evidence."""
    bench.machine.refused = 7
    bench.record()
    assert (await bench.step()).refused_probes == 7


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
async def test_a_vm_that_closes_while_its_clock_is_wrong(bench: Bench, ahead_s: float) -> None:
    """S1, L1: the leader judges by `since`, and an instant ahead would delay the quiet as long."""
    bench.machine.count = ConnectionCount(0)
    await bench.step()
    bench.clock.ahead_s = ahead_s
    bench.record()
    assert (await bench.step()).state is VmState.CLOSED
    bench.clock.ahead_s = 0.0
    report = await bench.step(times=2)
    assert (report.since, report.quiet) == (at(2), True)
    assert (await bench.step()).since == at(2)


async def test_a_hook_that_fails_while_the_clock_is_wrong_is_started_again(bench: Bench) -> None:
    """L1: a VM whose hook `opening` has failed once opens."""
    bench.record()
    await bench.step()
    bench.machine.hook_results["opening"] = HookResult(HookOutcome.FAILED, "failed")
    bench.record(restored_at=at(5))
    bench.clock.ahead_s = 3600.0
    await bench.step(times=2)
    bench.clock.ahead_s, bench.machine.hook_results = 0.0, {}
    assert (await bench.step(times=40)).state is VmState.OPEN


async def test_a_vm_that_closed_alone_stays_closed_until_its_record(bench: Bench) -> None:
    """S8: storage answers again just before the event, and the leader has not recorded it yet."""
    await bench.step()
    bench.follower.answers = False
    bench.document = EventDocument(incarnation=1, events=(event("web-1", not_before=60),))
    assert (await bench.step(times=20)).state is VmState.CLOSED
    bench.follower.answers = True
    assert (await bench.step(times=5)).state is VmState.CLOSED
    bench.record(recorded_at=at(27))
    report = await bench.step()
    assert (report.state, report.drain) == (VmState.CLOSED, at(27))
