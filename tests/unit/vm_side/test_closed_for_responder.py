"""The agent and the responder agree whether the VM is closed, by a real flag file: law S9."""

import os
import time
from pathlib import Path

import pytest

from controller.core.events import EventDocument
from controller.core.vm_report import VmState
from controller.probe.flag_file import FlagFile
from controller.vm_side.flag import Flag, FlagStore
from tests.support.planner_scenario import event
from tests.unit.vm_side.test_closing_side import CONFIG, HOOKS, Bench, FakeMachine

OPEN_AFTER_S = 60.0


class FlagFileMachine(FakeMachine):
    """A machine with a real flag file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self.store = path, FlagStore(str(path))
        self._responder = FlagFile(str(path), open_after_s=OPEN_AFTER_S)

    def flag(self) -> Flag | None:
        return self.store.read()

    def set_flag(self, flag: Flag) -> str:
        return self.store.write(flag)

    def renew_flag(self) -> str:
        return self.store.renew()

    def clear_flag(self) -> str:
        return self.store.clear()

    def let_pass(self, seconds: float) -> None:
        """Make the flag file older."""
        if self._path.exists():
            at = time.time() - seconds
            os.utime(self._path, (at, at))

    @property
    def refuses_probes(self) -> bool:
        """Whether the responder answers 503."""
        return self._responder.current() is not None


@pytest.fixture
def machine(tmp_path: Path) -> FlagFileMachine:
    """A machine without a flag file yet."""
    return FlagFileMachine(tmp_path / "draining")


@pytest.fixture
def bench(machine: FlagFileMachine) -> Bench:
    """A VM with an event that is far ahead."""
    bench = Bench(machine, CONFIG + f"open_after_s = {OPEN_AFTER_S:g}\n" + HOOKS)
    bench.document = EventDocument(incarnation=1, events=(event("web-1", not_before=1200),))
    return bench


async def silent(bench: Bench, machine: FlagFileMachine) -> None:
    """Let storage be silent for more than `open_after_s`, and the agent do its steps meanwhile."""
    bench.follower.answers = False
    for _ in range(4):
        machine.let_pass(40)
        await bench.step(seconds=40)
    machine.let_pass(OPEN_AFTER_S + 1)
    await bench.step()


async def test_the_responder_refuses_probes_while_the_event_is_announced(
    bench: Bench, machine: FlagFileMachine
) -> None:
    """S9: storage is silent for longer than open_after_s, and the VM is about to go down."""
    bench.record()
    await bench.step()
    await silent(bench, machine)
    assert bench.side.report.state is VmState.CLOSED
    assert machine.refuses_probes


async def test_so_it_does_for_a_vm_that_closed_alone(
    bench: Bench, machine: FlagFileMachine
) -> None:
    """S8, S9: it has no entry, and its event lasts."""
    bench.side.ledger_changed("new")
    await bench.step()
    bench.follower.answers = False
    bench.document = EventDocument(incarnation=1, events=(event("web-1", not_before=60),))
    await bench.step(times=20)
    await silent(bench, machine)
    assert bench.side.report.drain is None
    assert bench.side.report.state is VmState.CLOSED
    assert machine.refuses_probes


async def test_so_it_does_while_a_restarted_agent_has_read_no_ledger(
    bench: Bench, machine: FlagFileMachine
) -> None:
    """S9: the agent goes on with the flag that it has found."""
    bench.record()
    await bench.step()
    bench.follower.ledger, bench.follower.answers = None, False
    bench.side = bench.build()
    await silent(bench, machine)
    assert bench.side.report.state is VmState.CLOSED
    assert machine.refuses_probes


@pytest.mark.parametrize("stale", [False, True])
async def test_it_lets_them_pass_when_no_event_is_announced(
    bench: Bench, machine: FlagFileMachine, *, stale: bool
) -> None:
    """S9: nor does an old document announce one."""
    bench.record()
    await bench.step()
    if stale:
        bench.document_age_s = 3600
    else:
        bench.document = EventDocument(incarnation=2)
    await silent(bench, machine)
    assert not machine.refuses_probes
    await bench.step(times=5)
    assert bench.side.report.state is VmState.OPEN
    assert machine.flag() is None
