"""Questions about a stored ledger, asked of its JSON and not of the code that wrote it."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from controller.simulator.world.bodies import Json, key
from controller.simulator.world.history import Change

MOST_CHARACTERS = 3 * 1024 * 1024
"""No agent reads a longer ledger."""
OPERATOR_BLOBS = (".requests.json", ".controls.json")
"""How the names of the blobs end that operators write."""
SET_ASIDE = ".json.unreadable-"
"""In the names of the blobs to which an agent copies what it cannot read."""


def is_ledger_write(change: Change) -> bool:
    """Return whether a change wrote the ledger, and no other blob of the container."""
    path = change.subject
    other = path.endswith(OPERATOR_BLOBS) or "/pools/" in path or SET_ASIDE in path
    return change.kind == "blob_written" and not other and not is_report(path)


def is_report(path: str) -> bool:
    """Return whether a blob is the report of a VM, which its own agent writes without a lease."""
    return ".vms/" in path or is_presence(path)


def is_presence(path: str) -> bool:
    """Return whether a blob is the presence of an agent, which it publishes all the time."""
    return ".agents/" in path


def parsed(body: str) -> Json:
    """Return a ledger as JSON; empty when the text is no JSON object."""
    try:
        found: Any = json.loads(body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_ledger(body: str) -> bool:
    """Return whether an agent can read the content of a blob as a ledger; an empty one is."""
    return not body or ("entries" in parsed(body) and len(body) <= MOST_CHARACTERS)


def epoch_of(ledger: Json) -> int:
    """Return the epoch of a ledger; 0 for none."""
    return int(ledger.get("epoch", 0))


def seconds_of(instant: str) -> float:
    """Return a stored instant as seconds since 1970."""
    return datetime.fromisoformat(instant).timestamp()


def members_of(entry: Json) -> Iterator[tuple[str, str]]:
    """Yield (pool, identity) of each membership that an entry of a ledger has recorded."""
    yield from map(_member_of, (*entry["memberships"], *entry.get("lost", [])))


def states_without_identity(entry: Json) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield (pool, identity) and adminState of the members whose `vmId` is not recorded."""
    for membership in entry["memberships"]:
        if membership.get("admin_state") and not membership.get("vm_guid"):
            yield _member_of(membership), membership["admin_state"]


def _member_of(membership: Json) -> tuple[str, str]:
    pool = key(membership["pool_id"])
    if membership["kind"] == "address" or not membership.get("nic_id"):
        return pool, membership["ip_address"]
    name = membership["ip_configuration"]
    return pool, key(f"{membership['nic_id']}/ipConfigurations/{name}")


def recorded(ledger: Json, change: Change) -> bool:
    """Return whether a ledger records that the member of a move is out, or about to be."""
    pool, vm = key(change.subject), str(change.detail["vm"]).casefold()
    names = {(pool, identity(change)), (pool, str(change.detail["address"]))}
    return any(
        not names.isdisjoint(members_of(entry))
        for entry in ledger.get("entries", [])
        if not entry.get("restored_at") and vm in ("", entry["vm"].casefold())
    )


def held_by_state(ledger: Json, change: Change) -> bool:
    """Return whether a ledger records that a member is taken out by its adminState."""
    entries = [
        {**entry, "memberships": [m for m in entry["memberships"] if m["kind"] == "admin-state"]}
        for entry in ledger.get("entries", [])
    ]
    places = {place for entry in entries for place in members_of({**entry, "lost": []})}
    pool = key(change.subject)
    return not places.isdisjoint({(pool, identity(change)), (pool, str(change.detail["address"]))})


def held_by_floor(ledger: Json) -> set[str]:
    """Return the VMs, folded, that stay in rotation because of the floor."""
    holds = ledger.get("holds", [])
    return {hold["subject"].casefold() for hold in holds if hold["reason"] == "floor"}


def identity(change: Change) -> str:
    """Return what distinguishes the member of a move from other members of its pool."""
    configuration = str(change.detail["ip_configuration"])
    return key(configuration) if configuration else str(change.detail["address"])


END_REPORTED = "reported by Resource Graph"
"""Part of the log line about the end of an event."""
CONVERSION_FOUND = "this agent continues in it, with the same ledger"
"""Part of the log line of an agent that finds its set converted."""


def only_names_set(before: Json, body: str) -> bool:
    """Return whether a written ledger differs from the one before by its present set alone."""
    after, name = parsed(body), "converted_to"
    return after.get(name) != before.get(name) and {**after, name: ""} == {**before, name: ""}


def only_states_ends(before: Json, body: str) -> bool:
    """Return whether a written ledger differs from the one before by the ends of events alone."""
    after = parsed(body)
    if not after or not before:
        return False
    kept, known = _lines(after), _lines(before)
    rest = {"verdicts", "transitions"}
    return (
        any(each.get("end") for each in after.get("verdicts", []))
        and {key: each for key, each in after.items() if key not in rest}
        == {key: each for key, each in before.items() if key not in rest}
        and _without_ends(after) == _without_ends(before)
        and known[len(known) - len(kept) :] == kept
    )


def _lines(ledger: Json) -> list[Json]:
    return [each for each in ledger.get("transitions", []) if each["what"] != "end reported"]


def _without_ends(ledger: Json) -> list[Json]:
    return [
        {key: value for key, value in each.items() if key != "end"}
        for each in ledger.get("verdicts", [])
    ]
