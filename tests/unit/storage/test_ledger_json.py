"""The ledger as its blob stores it: round trip, neighbouring versions, corruption."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from controller.core.drain_history import Step, Transition
from controller.core.ledger import (
    MINOR,
    Entry,
    EventReference,
    Hold,
    Ledger,
)
from controller.core.resources import AddressMembership, NicMembership
from controller.errors import ContractViolation
from controller.storage.ledger_json import MAJOR, decode_ledger, encode_ledger

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
    transitions=(Transition(at=T0, vm="web-1", step=Step.RECORDED, detail="app"),),
)

Edit = Callable[[dict[str, Any]], object]


def document() -> dict[str, Any]:
    return json.loads(encode_ledger(FULL))


def edited(*path: str | int, value: object) -> bytes:
    body = document()
    at: Any = body
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(body).encode()


def test_round_trip() -> None:
    """What is written is what is read."""
    assert decode_ledger(encode_ledger(FULL)) == FULL
    assert decode_ledger(encode_ledger(Ledger())) == Ledger()
    assert decode_ledger(encode_ledger(decode_ledger(encode_ledger(FULL)))) == FULL


def test_the_stored_form() -> None:
    """Agents of other versions read the blob, so every key and every value is fixed."""
    assert json.loads(encode_ledger(FULL)) == {
        "version": "1.2",
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


def test_an_operator_can_read_it() -> None:
    """The blob has one field per line, so that an operator who opens it can read it."""
    assert encode_ledger(Ledger()).decode() == (
        '{\n "version": "1.2",\n "epoch": 0,\n "leader": "",\n "leader_since": null,\n'
        ' "entries": [],\n "holds": [],\n "transitions": []\n}'
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("epoch",), -1, "ledger.epoch: is not between 0 and 1000000000000000000"),
        (("epoch",), "1", "ledger.epoch: expected a number, found text"),
        (("epoch",), True, "ledger.epoch: expected a number, found true or false"),
        (("leader",), None, "ledger.leader: expected text, found nothing"),
        (("holds",), {}, "ledger.holds: expected a list, found an object"),
        (("holds", 0), 1, "ledger.holds[0]: expected an object, found a number"),
        (
            ("entries", 0, "gone"),
            0,
            "ledger.entries[0].gone: expected true or false, found a number",
        ),
        (
            ("entries", 0, "memberships", 1, "kind"),
            "x" * 50,
            f"ledger.entries[0].memberships[1]: membership kind '{'x' * 40}' is unknown",
        ),
        (
            ("entries", 0, "out_at"),
            "y" * 70,
            f"ledger.entries[0].out_at: '{'y' * 60}' is not a timestamp",
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
            "the ledger blob has version 2.0, this agent supports 1.x: "
            "upgrade this agent; the blob was left untouched",
        ),
    ],
)
def test_the_message_names_the_place_and_the_problem(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    """The message names the place and the wrong value, and quotes at most the beginning of it."""
    with pytest.raises(ContractViolation, match=f"^{re.escape(message)}$"):
        decode_ledger(edited(*path, value=value))


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        (("epoch",), 0, -1),
        (("epoch",), 10**18, 10**18 + 1),
        (("holds", 0, "since"), "1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:01"),
        (("holds", 0, "since"), "8999-12-31T23:59:59+00:00", "8999-12-31T23:59:59-00:01"),
    ],
)
def test_the_range_of_numbers_and_instants(
    path: tuple[str | int, ...], good: object, bad: object
) -> None:
    """The last valid value is read and the next one is refused."""
    assert decode_ledger(edited(*path, value=good)) != FULL
    with pytest.raises(ContractViolation, match=str(path[-1])):
        decode_ledger(edited(*path, value=bad))


def test_values_with_newer_fields_can_be_hashed() -> None:
    """Fields of a newer version do not make values unusable in sets, at any level."""
    body = document()
    entry, hold, line = (body[name][0] for name in ("entries", "holds", "transitions"))
    for each in (body, entry, entry["events"][0], hold, line):
        each["news"] = ["later"]
    read = decode_ledger(json.dumps(body).encode())
    assert hash(read) == hash(FULL)


def test_empty_content_is_an_empty_ledger() -> None:
    """A new blob has no content, and that is an empty ledger."""
    assert decode_ledger(b"") == Ledger()


def test_lone_surrogates_survive() -> None:
    """JSON can hold text that is not UTF-8; it is read and written back."""
    odd = decode_ledger(edited("leader", value="\ud800"))
    assert odd.leader == "\ud800"
    assert decode_ledger(encode_ledger(odd)) == odd


def test_instants_are_written_in_utc() -> None:
    """An instant in another zone is the same instant."""
    zone = timezone(timedelta(hours=2))
    body = edited("entries", 0, "recorded_at", value=T0.astimezone(zone).isoformat())
    assert decode_ledger(body).entries[0].recorded_at == T0
    assert decode_ledger(body).entries[0].recorded_at.tzinfo is UTC
    moved = replace(FULL.entries[0], recorded_at=T0.astimezone(zone))
    written = json.loads(encode_ledger(replace(FULL, entries=(moved,))))
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
    assert json.loads(encode_ledger(decode_ledger(json.dumps(body).encode()))) == body


@pytest.mark.parametrize("minor", [MINOR + 1, MINOR + 3, 999_999])
def test_newer_minor_is_accepted_and_written_back(minor: int) -> None:
    """Agents of neighbouring versions take turns: the newer minor version stays."""
    newer = decode_ledger(edited("version", value=f"{MAJOR}.{minor}"))
    assert newer.entries == FULL.entries
    assert json.loads(encode_ledger(newer))["version"] == f"{MAJOR}.{minor}"


@pytest.mark.parametrize("version", [f"{MAJOR + 1}.0", "0.9"])
def test_other_major_is_refused(version: str) -> None:
    """A ledger of another major version is refused and left untouched."""
    with pytest.raises(ContractViolation, match="upgrade this agent"):
        decode_ledger(edited("version", value=version))


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
    """A version that is not of the form major.minor is refused."""
    with pytest.raises(ContractViolation, match="not of the form"):
        decode_ledger(edited("version", value=version))


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"null", b"[]", b'"x"', b"{", b"{}", b"\xff\xfe", b"\x00\x01", b"[" * 100_000,
        b'{"version": "1.0"}', b"<html>", b'{"version": ' + b"9" * 5000 + b"}",
        encode_ledger(FULL)[:-1] + b', "entries": []}', edited("news", value=float("inf")),
        edited("news", value=json.loads("[" * 70 + "]" * 70)),
    ],
)  # fmt: skip
def test_content_that_is_no_ledger(body: bytes) -> None:
    """Content that is no ledger is never taken for an empty one (laws S3, S5)."""
    with pytest.raises(ContractViolation):
        decode_ledger(body)


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
def test_values_out_of_range_are_refused(path: tuple[str | int, ...], value: Any) -> None:
    """A number or an instant that arithmetic cannot hold is refused with a short message."""
    with pytest.raises(ContractViolation, match=str(path[-1])) as caught:
        decode_ledger(edited(*path, value=value))
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
    """Every value is checked."""
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
            decode_ledger(edited(*path, value=wrong))


@pytest.mark.parametrize("path", [p for p in _paths(document()) if isinstance(p[-1], str)], ids=str)
def test_a_missing_value(path: tuple[str | int, ...]) -> None:
    """Every field is required, except instants that may be unknown."""
    body = document()
    at: Any = body
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    if path[-1] in OPTIONAL:
        assert decode_ledger(json.dumps(body).encode()).epoch == 7
        return
    with pytest.raises(ContractViolation, match=str(path[-1])):
        decode_ledger(json.dumps(body).encode())


@pytest.mark.parametrize(
    "instant", ["2026-01-05T12:00:00", "yesterday", "", "0001-01-01T00:00:00+23:00"]
)
def test_odd_instants(instant: str) -> None:
    """An instant without a time zone, or outside the calendar, is refused."""
    with pytest.raises(ContractViolation, match="recorded_at"):
        decode_ledger(edited("entries", 0, "recorded_at", value=instant))


def test_two_entries_for_one_vm() -> None:
    """Two entries for one VM cannot both be kept, so the ledger is refused (law S3)."""
    entry = document()["entries"][0]
    with pytest.raises(ContractViolation, match="two entries"):
        decode_ledger(edited("entries", value=[entry, {**entry, "vm": "WEB-1"}]))


def test_ledger_of_the_first_minor_version() -> None:
    """A ledger from before `restoring_at` is read, and written with it."""
    body = document()
    body["version"] = "1.0"
    del body["entries"][0]["restoring_at"]
    older = decode_ledger(json.dumps(body).encode())
    assert older.entries == FULL.entries
    assert json.loads(encode_ledger(older))["version"] == f"{MAJOR}.{MINOR}"
