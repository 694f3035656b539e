"""`lb-drain fleet` and its reader against simulated storage, over TLS."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.azure.http.container_session import open_containers
from controller.azure.http.identity import AUTHORITY_HOST, Identity
from controller.cli.main import main
from controller.clock import SystemClock
from controller.config.azure import Azure
from controller.core.controls import Controls, Pause
from controller.core.fleet import Attention, Reason
from controller.fleet.reader import Fleet, FleetReader
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Request, Service
from controller.simulator.world.access import CONTAINERS
from controller.simulator.world.builder import build_world
from controller.storage.controls_json import encode_controls
from controller.storage.controls_store import controls_blob_name
from tests.support import simulated_fleet
from tests.support.simulated_fleet import HOSTILE, STATES, hit, idle, utc_now

CONTAINER = "lb-drain"


class Rig:
    """A storage account, and a reader of its containers with the identity of web-1."""

    def __init__(self, server: SimulatorServer, stack: AsyncExitStack) -> None:
        self.server, self._stack = server, stack
        self.url = server.container_url(CONTAINER)
        self.fleet = simulated_fleet.Fleet(server.world.blobs, CONTAINER, utc_now())
        self.asked: list[str] = []
        server.observers.append(self._note)

    def _note(self, request: Request, _: object) -> None:
        if request.service is Service.BLOB:
            self.asked.append(f"{request.method} {request.path.rsplit('/', 1)[-1]}")

    async def reader(self, *urls: str) -> FleetReader:
        azure = Azure(ca_file=str(self.server.ca_file), imds_endpoint=self.server.imds_url("web-1"))
        clock = SystemClock()
        containers = await self._stack.enter_async_context(
            open_containers(
                urls or (self.url,), azure, clock=clock, environ={}, identity=Identity.VM
            )
        )
        return FleetReader(containers, clock=clock)

    async def read(self, *urls: str) -> Fleet:
        return await (await self.reader(*urls)).read()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A world with one VM, whose identity reads the containers."""
    world = build_world(now=utc_now().timestamp(), vms=1)
    async with SimulatorServer(world, tmp_path / "pki") as server, AsyncExitStack() as stack:
        yield Rig(server, stack)


async def test_eighty_sets_are_read_once_each_and_changes_only_afterwards(rig: Rig) -> None:
    """One listing for a reading, one read for a set that is new or has changed."""
    rig.fleet.fill(80)
    reader = await rig.reader()
    first = await reader.read()
    assert len(first.sets) == 80
    assert first.sets[0].attention is Attention.CRITICAL
    assert all(len(each.agents_seen) == 3 for each in first.sets)
    assert [each.problem for each in first.containers] == [""]
    assert len(rig.asked) == 81
    assert len(set(rig.asked)) == 81
    rig.asked.clear()
    assert (await reader.read()).sets == first.sets
    assert rig.asked == [f"GET {CONTAINER}"]
    rig.fleet.add(hit("web-20", "rg-2", utc_now()))
    rig.asked.clear()
    again = await reader.read()
    assert rig.asked == [f"GET {CONTAINER}", "GET web-20.json"]
    assert [each.name.name for each in again.sets if Reason.HIT_IN_ROTATION in _reasons(each)] == [
        "web-05",
        "web-20",
    ]


async def test_no_content_ends_the_reading(rig: Rig) -> None:
    """Garbage, foreign, huge, newer and empty blobs, each in a row with its reason."""
    for name, body in HOSTILE.items():
        rig.fleet.put(f"{name}.blob", body)
    rig.fleet.put("empty.json", b"")
    rig.fleet.put("s/g/lost.requests.json", b"{}")
    rig.fleet.add(idle("fine", "rg", utc_now()))
    rows = {each.blob: each for each in (await rig.read()).sets}
    assert len(rows) == len(HOSTILE) + 3
    for name in HOSTILE:
        row = rows[f"{name}.blob"]
        assert _reasons(row) == [Reason.UNREADABLE]
        assert row.problems[0].text.isprintable()
    assert "version 2.0" in rows["newer.blob"].problems[0].text
    assert "5242880 bytes" in rows["huge.blob"].problems[0].text
    assert _reasons(rows["empty.json"]) == [Reason.UNUSED]
    assert "deleted" in rows["s/g/lost.json"].problems[0].text
    assert rows["s/g/lost.json"].attention is Attention.CRITICAL
    assert _reasons(next(each for each in rows.values() if each.name.name == "fine")) == []
    assert not any("huge" in each or "empty" in each for each in rig.asked)


async def test_the_controls_of_a_set_belong_to_its_row(rig: Rig) -> None:
    """A pause is a problem of its set, and so are controls that its agents cannot use."""
    paused, broken, foreign = (idle(name, "rg", utc_now()) for name in ("a", "b", "c"))
    now = utc_now()
    pause = Pause(by="ann", reason="migration", at=now, until=now + timedelta(hours=1))
    rig.fleet.put(controls_blob_name(paused.blob), encode_controls(Controls(pause=pause)))
    rig.fleet.put(controls_blob_name(broken.blob), b"{}")
    rig.fleet.put(
        controls_blob_name(foreign.blob), encode_controls(Controls(pause=pause, set_id="/other"))
    )
    for each in (paused, broken, foreign):
        rig.fleet.add(each)
    reader = await rig.reader()
    first = await reader.read()
    assert {each.name.name: _reasons(each) for each in first.sets} == {
        "a": [Reason.PAUSED],
        "b": [Reason.CONTROLS_UNREAD],
        "c": [Reason.CONTROLS_UNREAD],
    }
    texts = {each.name.name: each.problems[0].text for each in first.sets}
    assert texts["a"].startswith("removals are paused by ann until ")
    assert "another availability set" in texts["c"]
    rig.asked.clear()
    assert (await reader.read()).sets == first.sets
    assert rig.asked == [f"GET {CONTAINER}", "GET b.controls.json"]


async def test_two_ledgers_of_one_set_are_reported(rig: Rig) -> None:
    """A copy in another container, or under another name, is named in both rows."""
    other = simulated_fleet.Fleet(rig.server.world.blobs, "old", utc_now())
    found = idle("web", "rg", utc_now())
    rig.fleet.add(found)
    other.add(found)
    other.add(idle("api", "rg", utc_now()))
    fleet = await rig.read(rig.url, rig.server.container_url("old"))
    assert [(each.name.name, _reasons(each)) for each in fleet.sets] == [
        ("web", [Reason.SAME_SET]),
        ("web", [Reason.SAME_SET]),
        ("api", []),
    ]
    assert "/old/" in fleet.sets[0].problems[0].text


async def test_a_container_that_cannot_be_listed_leaves_the_others(rig: Rig) -> None:
    """A missing container has its reason; the sets of the other one are there."""
    rig.fleet.fill(2)
    missing = rig.url.replace(CONTAINER, "missing")
    fleet = await rig.read(missing, rig.url)
    assert len(fleet.sets) == 2
    assert f"there is no container at {missing}" in fleet.containers[0].problem
    assert not fleet.containers[1].problem


async def test_a_read_that_fails_is_tried_again_with_the_next_reading(rig: Rig) -> None:
    """A fault of storage makes a row with its reason for one reading only."""
    rig.fleet.fill(2)
    reader = await rig.reader()
    rig.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, path_contains="web-00"))
    broken = await reader.read()
    assert [each.readable for each in broken.sets] == [False, True]
    assert broken.sets[0].attention is Attention.CRITICAL
    rig.server.faults.clear()
    assert all(each.readable for each in (await reader.read()).sets)


async def test_reading_blobs_is_the_only_permission_it_needs(rig: Rig) -> None:
    """With nothing but blobs/read it works; without that the role is named."""
    rig.fleet.fill(len(STATES))
    roles = rig.server.world.roles
    roles.assignments.clear()
    denied = await rig.read()
    assert "Storage Blob Data Reader" in denied.containers[0].problem
    roles.assign("web-1", (), "", data_actions={f"{CONTAINERS}/blobs/read"})
    assert len((await rig.read()).sets) == len(STATES)


def _reasons(row: Any) -> list[Reason]:
    return [each.reason for each in row.problems]


# --- the command ---


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what a command changes for its whole process: the log and the environment."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    monkeypatch.setenv(AUTHORITY_HOST, "")
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("command_line")
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://a.blob.core.windows.net/c?sig=SECRET", "SAS token"),
        ("http://a.blob.core.windows.net/c", "must start with https"),
        ("nonsense", "is not a URL"),
    ],
)
def test_a_wrong_url_is_refused_without_repeating_it(
    url: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the reason, and no secret."""
    with pytest.raises(SystemExit, match="2"):
        main(["fleet", "--container-url", url])
    text = capsys.readouterr().err
    assert problem in text
    assert "SECRET" not in text


@pytest.mark.usefixtures("command_line")
def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78, before any request."""
    monkeypatch.setenv("LB_DRAIN_AZURE_CA_FILE", "/nowhere/ca.pem")
    with pytest.raises(SystemExit, match="78"):
        main(["fleet", "--container-url", "https://127.0.0.1:1/account/lb-drain"])
    assert "LB_DRAIN_AZURE_CA_FILE is not a file" in capsys.readouterr().err


@pytest.mark.usefixtures("command_line")
def test_a_storage_account_that_does_not_answer_ends_the_command_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The JSON has the reason, so that a script sees it too."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", CONNECTION)
    with pytest.raises(SystemExit, match="1"):
        main(["fleet", "--json", "--container-url", "http://127.0.0.1:1/account/lb-drain"])
    found = json.loads(capsys.readouterr().out)
    assert found["sets"] == []
    assert "container listing" in found["containers"][0]["problem"]


CONNECTION = (
    "DefaultEndpointsProtocol=http;AccountName=account;AccountKey=dW51c2Vk;"
    "BlobEndpoint=http://127.0.0.1:1/account"
)
