"""Agents of an older version: their ledgers lack what later minor versions record.

Such an agent keeps the fields of newer agents in what it found, and omits them in what it records
itself. Verdicts, and what is lost of an entry, it has as the others.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from controller.core.ledger import Ledger
from controller.simulator.world.bodies import Json
from controller.storage import ledger_json, ledger_store
from controller.storage.ledger_json import decode_ledger
from tests.simulation.loop import current_process

OF_LEDGER = ("set_id", "configuration")
OF_MEMBERSHIP = ("vm_guid", "nic_guid")
OF_EVENT = ("until",)


@contextmanager
def older_writers(vms: Collection[str], wrote: Any) -> Iterator[None]:
    """Let the agents on these VMs write older ledgers; `wrote` is called with each mark."""
    if not vms:
        yield
        return
    known: dict[str, Json] = {}
    real_encode, real_decode = ledger_json.encode_bounded, ledger_json.decode_ledger

    def decode(body: bytes) -> Ledger:
        found = real_decode(body)
        known[_process()] = json.loads(body or b"{}")
        return found

    def encode(ledger: Ledger) -> tuple[Ledger, bytes]:
        ledger, body = real_encode(ledger)
        if _process() in vms:
            document = json.loads(body)
            _strip(document, known.get(_process(), {}))
            body = json.dumps(document, indent=1).encode("ascii")
            ledger = decode_ledger(body)
            wrote("ledger: written by an older agent")
        known[_process()] = json.loads(body)
        return ledger, body

    with (
        patch.object(ledger_store, "encode_bounded", encode),
        patch.object(ledger_store, "decode_ledger", decode),
    ):
        yield


def _process() -> str:
    process = current_process()
    return process.name if process is not None else ""


def _strip(document: Json, before: Json) -> None:
    """Remove the later fields of everything that was not there before."""
    entries = {_of_entry(each): each for each in before.get("entries", [])}
    _omit(document, before, OF_LEDGER)
    for entry in document["entries"]:
        old = entries.get(_of_entry(entry), {})
        events = {each["event_id"]: each for each in old.get("events", [])}
        for event in entry["events"]:
            _omit(event, events.get(event["event_id"], {}), OF_EVENT)
        members = {_of_member(each): each for each in old.get("memberships", [])}
        members |= {_of_member(each): each for each in old.get("lost", [])}
        for member in (*entry["memberships"], *entry.get("lost", [])):
            _omit(member, members.get(_of_member(member), {}), OF_MEMBERSHIP)


def _omit(found: Json, before: Json, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in before:
            found.pop(name, None)


def _of_entry(entry: Json) -> tuple[str, str]:
    return entry["vm"], entry["recorded_at"]


def _of_member(member: Json) -> tuple[str, ...]:
    names = ("pool_id", "nic_id", "ip_configuration", "ip_address")
    return tuple(str(member.get(name, "")) for name in names)
