"""How ledgers store adminState: a kind of its own, and optional fields of a removed NIC."""

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.core.ledger import Entry, Ledger
from controller.core.resources import Membership
from controller.errors import ContractViolation
from controller.storage import ledger_json
from controller.storage.ledger_json import decode_ledger, encode_ledger
from tests.support.admin_states import state_of, state_of_address
from tests.support.planner_scenario import APP, at, membership, vm_id


def ledger(*memberships: Membership) -> Ledger:
    entry = Entry(
        vm="web-1", vm_id=vm_id("web-1"), events=(), memberships=memberships, recorded_at=at(0)
    )
    return Ledger(entries=(entry,))


def stored(known: Ledger) -> list[dict[str, Any]]:
    return json.loads(encode_ledger(known))["entries"][0]["memberships"]


@pytest.mark.parametrize("state", ["", "None", "Up", "Sideways"])
def test_a_member_and_the_state_that_it_had(state: str) -> None:
    """S3: what a restore puts back survives a change of the leader, spelling included."""
    known = ledger(state_of("web-1", state=state), state_of_address("10.0.0.1", "a", APP))
    assert decode_ledger(encode_ledger(known)) == known
    assert [each["kind"] for each in stored(known)] == ["admin-state", "admin-state"]
    assert ("admin_state" in stored(known)[0]) is bool(state)


def test_a_nic_without_a_state_is_stored_as_before() -> None:
    """An agent of an older version reads and writes it as it always did."""
    (plain,) = stored(ledger(membership("web-1")))
    assert not {"admin_state", "lacks"} & plain.keys()
    (with_state,) = stored(ledger(replace(membership("web-1"), admin_state="Down")))
    assert with_state == {**plain, "admin_state": "Down"}


def test_an_agent_that_does_not_know_the_mechanism_refuses_the_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S3: it leaves the ledger as it is, as with any mechanism of a later version."""
    body = encode_ledger(ledger(state_of("web-1")))
    monkeypatch.delitem(ledger_json.MEMBERSHIPS, "admin-state")
    with pytest.raises(ContractViolation, match="membership kind 'admin-state' is unknown"):
        decode_ledger(body)


@pytest.mark.parametrize("odd", [None, 7, [], {"a": 1}, "x" * 100_000])
def test_an_odd_state_is_refused(odd: object) -> None:
    """S5: a ledger that cannot be read is not replaced, and the place is named."""
    document = json.loads(encode_ledger(ledger(state_of("web-1", state="Up"))))
    document["entries"][0]["memberships"][0]["admin_state"] = odd
    with pytest.raises(ContractViolation, match=r"memberships\[0\]"):
        decode_ledger(json.dumps(document).encode())
