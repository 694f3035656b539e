"""The ledger: round trip, neighbouring versions, corruption."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from controller.core.ledger import (
    MAJOR,
    MINOR,
    MOST_TRANSITIONS,
    Entry,
    EventReference,
    Hold,
    Ledger,
    Transition,
    decode,
    encode,
)
from controller.core.model import AddressMembership, NicMembership
from controller.errors import ContractViolation

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
NIC = NicMembership(pool_id="p", nic_id="n", ip_configuration="c", position=2)
ADDRESS = AddressMembership(
    pool_id="p", name="a", ip_address="10.0.0.1", body='{"name": "\\u00e9"}'
)
FULL = Ledger(
    epoch=7,
    leader="web-2",
    entries=(
        Entry(
            vm="web-1",
            vm_id="/vm/web-1",
            events=(EventReference(event_id="E", event_type="Reboot", not_before=T0),),
            memberships=(NIC, ADDRESS),
            recorded_at=T0,
            out_at=T0 + timedelta(seconds=1.5),
        ),
    ),
    holds=(Hold(subject="web-3", reason="floor", message="größer", since=T0),),
    transitions=(Transition(at=T0, vm="web-1", what="recorded", detail="app"),),
)

Edit = Callable[[dict[str, Any]], object]


def document() -> dict[str, Any]:
    return json.loads(encode(FULL))


def edited(*path: str | int, value: object) -> bytes:
    body = document()
    at: Any = body
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(body).encode()


def test_round_trip() -> None:
    """What is written is what is read."""
    assert decode(encode(FULL)) == FULL
    assert decode(encode(Ledger())) == Ledger()
    assert decode(encode(decode(encode(FULL)))) == FULL


def test_what_stands_in_the_blob() -> None:
    """Agents of other versions read it: every name and every value, to the letter."""
    assert json.loads(encode(FULL)) == {
        "version": "1.1",
        "epoch": 7,
        "leader": "web-2",
        "leader_since": None,
        "entries": [
            {
                "vm": "web-1",
                "vm_id": "/vm/web-1",
                "events": [
                    {
                        "event_id": "E",
                        "event_type": "Reboot",
                        "not_before": "2026-01-05T12:00:00+00:00",
                        "acknowledged_at": None,
                    }
                ],
                "memberships": [
                    {
                        "kind": "nic",
                        "pool_id": "p",
                        "nic_id": "n",
                        "ip_configuration": "c",
                        "position": 2,
                    },
                    {
                        "kind": "address",
                        "pool_id": "p",
                        "name": "a",
                        "ip_address": "10.0.0.1",
                        "body": '{"name": "\\u00e9"}',
                    },
                ],
                "recorded_at": "2026-01-05T12:00:00+00:00",
                "out_at": "2026-01-05T12:00:01.500000+00:00",
                "restoring_at": None,
                "restored_at": None,
                "gone": False,
            }
        ],
        "holds": [
            {
                "subject": "web-3",
                "reason": "floor",
                "message": "größer",
                "since": "2026-01-05T12:00:00+00:00",
            }
        ],
        "transitions": [
            {
                "at": "2026-01-05T12:00:00+00:00",
                "vm": "web-1",
                "what": "recorded",
                "detail": "app",
            }
        ],
    }


def test_people_can_read_it_too() -> None:
    """One field per line, slightly indented: whoever opens the blob sees what is out."""
    assert encode(Ledger()).decode() == (
        '{\n "version": "1.1",\n "epoch": 0,\n "leader": "",\n "leader_since": null,\n'
        ' "entries": [],\n "holds": [],\n "transitions": []\n}'
    )


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("epoch",), -1, "ledger.epoch: is not between 0 and 1000000000000000000"),
        (("epoch",), "1", "ledger.epoch: expected int, found str"),
        (("epoch",), True, "ledger.epoch: expected int, found bool"),
        (("leader",), None, "ledger.leader: expected str, found nothing"),
        (("holds",), {}, "ledger.holds: expected list, found dict"),
        (("holds", 0), 1, "ledger.holds[0]: expected an object, found int"),
        (("entries", 0, "gone"), 0, "ledger.entries[0].gone: expected bool, found int"),
        (
            ("entries", 0, "memberships", 1, "kind"),
            "x" * 50,
            f"ledger.entries[0].memberships[1]: membership kind '{'x' * 40}' is unknown",
        ),
        (
            ("entries", 0, "out_at"),
            "y" * 70,
            f"ledger.entries[0].out_at: '{'y' * 60}' is no instant",
        ),
        (
            ("transitions", 0, "at"),
            "2026-01-05T12:00:00",
            "ledger.transitions[0].at: '2026-01-05T12:00:00' has no time zone",
        ),
        (("version",), "z" * 50, f"ledger: version '{'z' * 40}' is not of the form major.minor"),
        (
            ("version",),
            "2.0",
            "the ledger has version 2.0, this agent knows 1.x: "
            "upgrade this agent; the ledger was left untouched",
        ),
    ],
)
def test_the_message_says_where_and_what(
    path: tuple[str | int, ...], value: object, told: str
) -> None:
    """An operator finds the one wrong value; what is quoted of it is short."""
    with pytest.raises(ContractViolation, match=f"^{re.escape(told)}$"):
        decode(edited(*path, value=value))


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        (("epoch",), 0, -1),
        (("epoch",), 10**18, 10**18 + 1),
        (("holds", 0, "since"), "1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:01"),
        (("holds", 0, "since"), "8999-12-31T23:59:59+00:00", "8999-12-31T23:59:59-00:01"),
    ],
)
def test_numbers_and_instants_that_can_be_reckoned_with(
    path: tuple[str | int, ...], good: object, bad: object
) -> None:
    """The last good value is read, the next one refused."""
    assert decode(edited(*path, value=good)) != FULL
    with pytest.raises(ContractViolation, match=str(path[-1])):
        decode(edited(*path, value=bad))


def test_a_removal_has_taken_effect_once_it_was_seen_or_undone() -> None:
    """S5: seen out, or sent back after it was recorded; a record of the same instant is newer."""
    entry = replace(FULL.entries[0], out_at=None)
    assert not entry.removed
    assert replace(entry, out_at=T0).removed
    assert not replace(entry, restoring_at=T0).removed
    assert replace(entry, restoring_at=T0 + timedelta(microseconds=1)).removed
    assert not replace(entry, restoring_at=T0 - timedelta(microseconds=1)).removed


def test_entries_are_sorted_without_regard_to_case() -> None:
    """The ledger reads the same whoever wrote it, and however Azure spelled the names."""
    first = FULL.entries[0]
    ledger = Ledger()
    for name in ("WEB-2", "web-1", "Web-3"):
        ledger = ledger.with_entry(replace(first, vm=name))
    assert [entry.vm for entry in ledger.entries] == ["web-1", "WEB-2", "Web-3"]


def test_a_new_ledger_holds_nothing() -> None:
    """Epochs are counted from zero, and nobody leads yet."""
    new = Ledger()
    assert (new.epoch, new.leader, new.leader_since, new.minor) == (0, "", None, 1)
    assert (new.entries, new.holds, new.transitions) == ((), (), ())


def test_whatever_was_read_can_be_hashed() -> None:
    """Fields of a newer version do not make values unusable in sets, at any level."""
    body = document()
    entry, hold, line = (body[name][0] for name in ("entries", "holds", "transitions"))
    for each in (body, entry, entry["events"][0], hold, line):
        each["news"] = ["later"]
    read = decode(json.dumps(body).encode())
    assert hash(read) == hash(FULL)


def test_empty_content_is_an_empty_ledger() -> None:
    """A new blob holds nothing, and that is a ledger."""
    assert decode(b"") == Ledger()


def test_lone_surrogates_survive() -> None:
    """JSON can carry text that is no UTF-8; it is written back, not crashed on."""
    odd = decode(edited("leader", value="\ud800"))
    assert odd.leader == "\ud800"
    assert decode(encode(odd)) == odd


def test_instants_are_written_in_utc() -> None:
    """An instant in another zone is the same instant."""
    zone = timezone(timedelta(hours=2))
    body = edited("entries", 0, "recorded_at", value=T0.astimezone(zone).isoformat())
    assert decode(body).entries[0].recorded_at == T0
    assert decode(body).entries[0].recorded_at.tzinfo is UTC
    moved = replace(FULL.entries[0], recorded_at=T0.astimezone(zone))
    written = json.loads(encode(replace(FULL, entries=(moved,))))
    assert written["entries"][0]["recorded_at"] == "2026-01-05T12:00:00+00:00"


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("entries", 0),
        ("entries", 0, "events", 0),
        ("entries", 0, "memberships", 0),
        ("entries", 0, "memberships", 1),
        ("holds", 0),
        ("transitions", 0),
    ],
)
def test_unknown_fields_are_kept(path: tuple[str | int, ...]) -> None:
    """Fields of a newer minor version are written back where they were, at every level."""
    news = {"deep": [1, None, {"x": 2.5}]}
    body = json.loads(edited(*path, "news", value=news))
    assert json.loads(encode(decode(json.dumps(body).encode()))) == body


@pytest.mark.parametrize("minor", [MINOR + 1, MINOR + 3, 999_999])
def test_newer_minor_is_accepted_and_written_back(minor: int) -> None:
    """Agents of neighbouring versions take turns: the newer minor version stays."""
    newer = decode(edited("version", value=f"{MAJOR}.{minor}"))
    assert newer.entries == FULL.entries
    assert json.loads(encode(newer))["version"] == f"{MAJOR}.{minor}"


@pytest.mark.parametrize("version", [f"{MAJOR + 1}.0", "0.9"])
def test_other_major_is_refused(version: str) -> None:
    """A ledger of another major version is refused and left untouched."""
    with pytest.raises(ContractViolation, match="upgrade this agent"):
        decode(edited("version", value=version))


@pytest.mark.parametrize(
    "version",
    [
        "",
        "1",
        "1.",
        ".0",
        "1.0.0",
        "one.0",
        "1.-1",
        "\u0661.0",
        " 1.0",
        "1." + "9" * 9999,
        "1.1000000",
    ],
)
def test_odd_version_is_refused(version: str) -> None:
    """A version that is not major.minor is no ledger of ours."""
    with pytest.raises(ContractViolation, match="not of the form"):
        decode(edited("version", value=version))


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"null", b"[]", b'"x"', b"{", b"{}", b"\xff\xfe", b"\x00\x01", b"[" * 100_000,
        b'{"version": "1.0"}', b"<html>", b'{"version": ' + b"9" * 5000 + b"}",
        encode(FULL)[:-1] + b', "entries": []}', edited("news", value=float("inf")),
        edited("news", value=json.loads("[" * 70 + "]" * 70)),
    ],
)  # fmt: skip
def test_what_is_no_ledger(body: bytes) -> None:
    """Content that is no ledger is never taken for an empty one (laws S3, S5)."""
    with pytest.raises(ContractViolation):
        decode(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("epoch",), int("9" * 400)),
        (("entries", 0, "memberships", 0, "position"), 10**19),
        (("entries", 0, "out_at"), "9999-12-31T23:59:59+00:00"),
        (("entries", 0, "recorded_at"), "0001-01-01T00:00:00+00:00"),
        (("entries", 0, "events", 0, "not_before"), "9999-12-31T23:59:59-23:59"),
        (("holds", 0, "since"), "0001-01-01T00:00:00+23:59"),
    ],
)
def test_what_cannot_be_reckoned_with_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    """A number or an instant that arithmetic cannot hold is told by its place, in few words."""
    with pytest.raises(ContractViolation, match=str(path[-1])) as caught:
        decode(edited(*path, value=value))
    assert len(str(caught.value)) < 200


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[tuple[str | int, ...]] = []
    for step, child in steps:
        found.append((*path, step))
        if isinstance(child, dict | list):
            found += _paths(child, (*path, step))
    return found


OPTIONAL = {
    "leader_since",
    "not_before",
    "acknowledged_at",
    "out_at",
    "restoring_at",
    "restored_at",
}


@pytest.mark.parametrize("path", _paths(document()), ids=str)
def test_a_value_of_the_wrong_kind(path: tuple[str | int, ...]) -> None:
    """Every single value is checked; the message says where the wrong one is."""
    for wrong in (None, 1.5, True, {"a": 1}, [1], -1, "nonsense"):
        here: Any = document()
        for step in path:
            here = here[step]
        same_kind = isinstance(wrong, str) and isinstance(here, str)
        if type(wrong) is type(here) and wrong not in (-1, [1], {"a": 1}) and not same_kind:
            continue
        if same_kind and path[-1] not in {"version", "kind", "recorded_at", "since", "at"}:
            continue
        if wrong is None and path[-1] in OPTIONAL:
            continue
        with pytest.raises(ContractViolation):
            decode(edited(*path, value=wrong))


@pytest.mark.parametrize("path", [p for p in _paths(document()) if isinstance(p[-1], str)], ids=str)
def test_a_missing_value(path: tuple[str | int, ...]) -> None:
    """Every field is required, but the instants that may not have come yet."""
    body = document()
    at: Any = body
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    if path[-1] in OPTIONAL:
        assert decode(json.dumps(body).encode()).epoch == 7
        return
    with pytest.raises(ContractViolation, match=str(path[-1])):
        decode(json.dumps(body).encode())


@pytest.mark.parametrize(
    "instant", ["2026-01-05T12:00:00", "yesterday", "", "0001-01-01T00:00:00+23:00"]
)
def test_odd_instants(instant: str) -> None:
    """An instant without a time zone, or outside the calendar, is refused."""
    with pytest.raises(ContractViolation, match="recorded_at"):
        decode(edited("entries", 0, "recorded_at", value=instant))


def test_two_entries_for_one_vm() -> None:
    """Two entries for one VM cannot both be kept, so the ledger is refused (law S3)."""
    entry = document()["entries"][0]
    with pytest.raises(ContractViolation, match="two entries"):
        decode(edited("entries", value=[entry, {**entry, "vm": "WEB-1"}]))


def test_transitions_are_bounded() -> None:
    """Only the latest transitions are remembered."""
    assert MOST_TRANSITIONS == 200
    ledger = Ledger()
    for number in range(MOST_TRANSITIONS + 5):
        ledger = ledger.noting(at=T0, vm="web-1", what=str(number))
    assert [each.what for each in ledger.transitions] == [
        str(number) for number in range(5, MOST_TRANSITIONS + 5)
    ]
    assert len(set(ledger.transitions)) == MOST_TRANSITIONS, "transitions can be compared in sets"


def test_entries_by_vm() -> None:
    """Entries are found, replaced and forgotten by VM name without case."""
    entry = FULL.entries[0]
    other = replace(entry, vm="WEB-0")
    both = FULL.with_entry(other)
    assert [each.vm for each in both.entries] == ["WEB-0", "web-1"]
    assert both.entry("Web-1") == entry
    again = replace(entry, vm="WEB-1", gone=True)
    assert both.with_entry(again).entries == (other, again)
    assert both.without_entry("web-0") == FULL
    assert both.entry("web-9") is None
    assert entry.holds(NIC.key)
    assert not entry.holds(("x", "y", "z"))


def test_ledger_of_the_first_minor_version() -> None:
    """A ledger from before `restoring_at` is read, and written with it."""
    body = document()
    body["version"] = "1.0"
    del body["entries"][0]["restoring_at"]
    older = decode(json.dumps(body).encode())
    assert older.entries == FULL.entries
    assert json.loads(encode(older))["version"] == f"{MAJOR}.{MINOR}"
