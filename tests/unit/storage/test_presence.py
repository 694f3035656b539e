"""The presence of an agent in its blob: read back as written, or ignored with a reason."""

import json
from dataclasses import replace
from typing import Any, cast

import pytest

from controller.azure.blob import Content, StateBlob
from controller.core.agent_presence import AgentPresence, SeenAgent
from controller.errors import ContractViolation, Denied, NotFound
from controller.storage.presence_json import (
    MAX_BODY_BYTES,
    decode_presence,
    encode_presence,
    presence_blob_name,
    presence_place,
    seen_agent,
)
from controller.storage.presence_store import MAX_AGENTS, read_agents
from tests.support.planner_scenario import at

PRESENCE = AgentPresence(
    vm="web-1",
    release="1.2.3",
    configuration="abc",
    started_at=at(0),
    at=at(9),
    problem="slow",
    set_id="/subscriptions/s",
)
LEDGER = "sub/rg/web.json"


@pytest.mark.parametrize("presence", [PRESENCE, replace(PRESENCE, stopped_at=at(9), problem="")])
def test_a_presence_is_read_as_it_was_written(presence: AgentPresence) -> None:
    """Every field survives."""
    assert decode_presence(encode_presence(presence)) == presence


def test_a_newer_minor_version_can_be_read() -> None:
    """Fields that this version does not know mean nothing to it."""
    document = {**json.loads(encode_presence(PRESENCE)), "version": "1.7", "sessions": 9}
    assert decode_presence(json.dumps(document).encode()).release == "1.2.3"


@pytest.mark.parametrize(
    "change",
    [
        {"at": "yesterday"},
        {"started_at": "99999-01-01T00:00:00Z"},
        {"period_s": -1},
        {"period_s": 10**40},
        {"period_s": "120"},
        {"release": 7},
        {"vm": None},
        {"vm": "x" * 20_000},
        {"version": "2.0"},
        {"version": "0.9"},
        {"stopped_at": 5},
        {"problem": ["a"]},
    ],
)
def test_what_is_no_presence_is_ignored_with_a_reason(change: dict[str, Any]) -> None:
    """Nothing is guessed, and nothing raised."""
    document = {**json.loads(encode_presence(PRESENCE)), **change}
    seen = seen_agent(json.dumps(document).encode(), "web-1")
    assert seen.presence is None
    assert seen.problem.startswith("its presence cannot be read: ")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"x" * (MAX_BODY_BYTES + 1)])
def test_other_content_is_ignored_with_a_reason(body: bytes) -> None:
    """Garbage and megabytes alike."""
    assert "cannot be read" in seen_agent(body, "web-1").problem


def test_the_presence_of_another_vm_is_ignored() -> None:
    """A blob that was copied says nothing of the VM whose name it has."""
    seen = seen_agent(encode_presence(PRESENCE), "web-2")
    assert (seen.presence, seen.problem) == (None, "its blob has the presence of web-1")


def test_a_name_in_another_spelling_is_the_same_vm() -> None:
    """Azure changes the case of names."""
    assert seen_agent(encode_presence(PRESENCE), "WEB-1").presence == PRESENCE


def test_no_blob_is_no_problem() -> None:
    """An agent of an older version publishes none."""
    assert seen_agent(None, "web-1") == SeenAgent(vm="web-1")


def test_the_blob_is_beside_the_ledger() -> None:
    """One blob for each VM, whichever way its name is spelled."""
    assert presence_blob_name(LEDGER, "Web-1") == "sub/rg/web.agents/web-1.json"


def test_a_listing_shows_whose_presence_a_blob_is() -> None:
    """The name is enough to find the set and the VM."""
    assert presence_place("sub/rg/web.agents/web-1.json") == (LEDGER, "web-1")


@pytest.mark.parametrize(
    "name",
    [LEDGER, "sub/rg/web.vms/web-1.json", ".agents/web-1.json", "w.agents/a/b.json", "w.agents/a"],
)
def test_other_blobs_are_no_presence(name: str) -> None:
    """Those of the set, and those of strangers."""
    assert presence_place(name) is None


class Storage:
    """Blobs by name: content, or what reading raises."""

    def __init__(self, blobs: dict[str, bytes | Exception]) -> None:
        self._blobs, self.read_names = blobs, list[str]()

    def __call__(self, name: str) -> StateBlob:
        return cast("StateBlob", Blob(self, name))

    def content(self, name: str) -> Content:
        self.read_names.append(name)
        found = self._blobs.get(name, NotFound("404"))
        if isinstance(found, Exception):
            raise found
        return Content(body=found, etag="1", lease_state="available", lease_status="unlocked")


class Blob:
    """One of them."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name

    async def read(self) -> Content:
        return self._storage.content(self._name)


async def test_every_vm_has_an_answer() -> None:
    """One that cannot be read hides no other."""
    storage = Storage(
        {
            "sub/rg/web.agents/web-1.json": encode_presence(PRESENCE),
            "sub/rg/web.agents/web-2.json": ContractViolation("blob read: 5000000 bytes"),
            "sub/rg/web.agents/web-3.json": Denied("no permission"),
        }
    )
    found = await read_agents(storage, LEDGER, ("web-1", "web-2", "web-3", "web-4", "WEB-1"))
    assert [each.presence is not None for each in found] == [True, False, False, False]
    assert [each.problem for each in found] == [
        "",
        "its presence cannot be read: blob read: 5000000 bytes",
        "no permission",
        "",
    ]


async def test_reads_are_bounded() -> None:
    """However many names a ledger has."""
    storage = Storage({})
    await read_agents(storage, LEDGER, (f"vm-{number}" for number in range(MAX_AGENTS + 50)))
    assert len(storage.read_names) == MAX_AGENTS
