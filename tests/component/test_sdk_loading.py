"""When an agent loads the SDK that it writes with: ahead of the first write, and not before."""

import importlib.abc
import importlib.machinery
import sys
import threading
from collections.abc import Iterator

import pytest

from controller.simulator.app.agent_processes import Overrides
from tests.component.conftest import OpenClient
from tests.support.in_process_set import QUICK, InProcessSet

SDK = "azure.mgmt.network"
IGNORES: Overrides = {"policy.events.Reboot": {"action": "ignore"}}
FAR_S = 5000
"""An event so far ahead that its drain is not due for long."""


class Imports(importlib.abc.MetaPathFinder):
    """Notes in which thread the SDK is imported, and can prevent that."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.error: Exception | None = None

    def find_spec(
        self, fullname: str, _path: object, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find nothing, but notice what is looked for."""
        if fullname == SDK:
            self.threads.append(threading.current_thread())
            if self.error is not None:
                raise self.error
        return None


def forget_sdk() -> dict[str, object]:
    names = [name for name in sys.modules if name == SDK or name.startswith(f"{SDK}.")]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[Imports]:
    """Let this process be one that has not loaded the SDK yet."""
    before, noted = forget_sdk(), Imports()
    monkeypatch.setattr(sys, "meta_path", [noted, *sys.meta_path])
    yield noted
    forget_sdk()
    sys.modules.update(before)  # type: ignore[arg-type]


async def until_loaded(bench: InProcessSet, imports: Imports) -> None:
    """Wait until the SDK is loaded, and check that the event loop did not load it."""
    await bench.until("the SDK is loaded", lambda: f"{SDK}.aio" in sys.modules)
    assert threading.main_thread() not in imports.threads


async def test_an_idle_leader_does_not_load_it(bench: InProcessSet, imports: Imports) -> None:
    """Neither the inventory nor a pass without work needs it."""
    await bench.lead("web-1")
    await bench.requests(1, "/loadBalancers/")
    await bench.requests(5, "scheduledevents")
    assert not imports.threads


async def test_an_announced_event_loads_it_before_its_drain_is_due(
    bench: InProcessSet, imports: Imports
) -> None:
    """The announcement is enough: nothing is written yet, and no write will wait for the import."""
    await bench.lead("web-1")
    await bench.announce("web-2", notice_s=FAR_S)
    await until_loaded(bench, imports)
    assert not bench.writes()


async def test_an_event_that_is_ignored_does_not_load_it(
    bench: InProcessSet, imports: Imports
) -> None:
    """What policy does not act on needs no write."""
    await bench.lead("web-1", overrides={**IGNORES})
    await bench.announce("web-2", notice_s=FAR_S)
    await bench.requests(5, "scheduledevents")
    assert not imports.threads


async def test_an_agent_that_only_closes_does_not_load_it(
    bench: InProcessSet, imports: Imports
) -> None:
    """It writes nothing to Resource Manager, whatever is announced."""
    await bench.lead(
        "web-1", overrides={"policy": {**QUICK["policy"], "close": True, "mechanism": "probe"}}
    )
    await bench.announce("web-2", notice_s=FAR_S)
    await bench.requests(5, "scheduledevents")
    assert not imports.threads


async def test_a_drain_request_loads_it(
    bench: InProcessSet, imports: Imports, clients: OpenClient
) -> None:
    """The VM is drained, and the import was in a thread of its own."""
    await bench.lead("web-1")
    async with clients() as client:
        await client.drain("web-2", for_s=600, reason="")
        await until_loaded(bench, imports)
        await bench.sees("web-2 is out", lambda: bench.inside("web-2"), [])


async def test_a_standby_loads_it_only_when_it_takes_over(
    bench: InProcessSet, imports: Imports
) -> None:
    """An event that is announced already counts from the first moment of its lead."""
    leader = await bench.lead("web-1", overrides={**IGNORES})
    await bench.announce("web-3", notice_s=FAR_S)
    await bench.stand_by("web-2")
    await bench.requests(5, "scheduledevents")
    assert not imports.threads
    await bench.stop(leader)
    await until_loaded(bench, imports)
    await bench.sees("web-2 leads", lambda: bench.ledger().get("leader"), "web-2")
    assert not bench.writes()


async def test_an_entry_in_the_ledger_loads_it(bench: InProcessSet, imports: Imports) -> None:
    """A new leader has to restore what another one removed, also when no event is left."""
    first = await bench.lead("web-1")
    await bench.announce("web-2", started_s=1e6)
    await bench.sees("web-2 is out", lambda: bench.inside("web-2"), [])
    await bench.stop(first)
    forget_sdk()
    imports.threads.clear()
    bench.document({"DocumentIncarnation": 9, "Events": []})
    await bench.lead("web-3")
    await until_loaded(bench, imports)
    await bench.until("web-2 is back", lambda: bench.inside("web-2"))


# --- a damaged installation ---


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ModuleNotFoundError("No module named 'azure.mgmt.network'"), id="missing"),
        pytest.param(EOFError("marshal data too short"), id="cut short"),
        pytest.param(PermissionError("Permission denied: models.py"), id="unreadable"),
    ],
)
async def test_a_drain_outlasts_an_sdk_that_cannot_be_loaded(
    bench: InProcessSet, imports: Imports, error: Exception
) -> None:
    """The agent goes on, names the package and the remedy, and drains once it can be loaded."""
    imports.error = error
    await bench.lead("web-1")
    await bench.announce("web-2", started_s=1e6)
    await bench.until(
        "the removal was tried",
        lambda: bench.logged("azure.mgmt.network.aio cannot be loaded", "WARNING"),
    )
    assert bench.logged(f"({type(error).__name__}: {error})", "ERROR")
    assert bench.logged("install the service again on this VM", "ERROR")
    assert bench.inside("web-2")
    imports.error = None
    bench.clock.ahead_s += 4
    await bench.sees("web-2 is out", lambda: bench.inside("web-2"), [])
