"""The adminState of members in a pool body: complete lists only, and only what was asked."""

import copy
from typing import Any

import pytest

from controller.azure.admin_states import Ineffective, check_written, states, with_states
from controller.azure.network_bodies import parse_pool
from controller.core.resources import AdminMembership, PoolKind
from controller.errors import ContractViolation, ServiceFault, StateRefused
from tests.support.planner_scenario import APP, T0, ip_id, nic_id


def nic_entry(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "name": f"rg_{name}",
        "etag": "1",
        "properties": {
            "networkInterfaceIPConfiguration": {"id": ip_id(name)},
            "provisioningState": "Succeeded",
            **properties,
        },
    }


def address_entry(ip: str, **properties: Any) -> dict[str, Any]:
    return {"name": f"a-{ip}", "properties": {"ipAddress": ip, **properties}}


def pool(*entries: dict[str, Any], **properties: Any) -> dict[str, Any]:
    listed = [
        {"id": entry["properties"]["networkInterfaceIPConfiguration"]["id"].upper()}
        for entry in entries
        if "networkInterfaceIPConfiguration" in entry["properties"]
    ]
    return {
        "id": APP,
        "etag": 'W/"1"',
        "unknown": {"kept": True},
        "properties": {
            "loadBalancerBackendAddresses": list(entries),
            **({"backendIPConfigurations": listed} if listed else {}),
            **properties,
        },
    }


def of_nic(name: str, state: str = "") -> AdminMembership:
    return AdminMembership(
        pool_id=APP.upper(), nic_id=nic_id(name), ip_configuration="IPCONFIG1", admin_state=state
    )


def of_address(ip: str, state: str = "") -> AdminMembership:
    return AdminMembership(pool_id=APP, name=f"a-{ip}", ip_address=ip, admin_state=state)


def shown(body: dict[str, Any]) -> list[Any]:
    entries = body["properties"]["loadBalancerBackendAddresses"]
    return [entry["properties"].get("adminState") for entry in entries]


def test_only_the_members_that_are_named_are_set_down() -> None:
    """The rest of the body is sent back as it came, unknown properties included."""
    before = pool(*(nic_entry(f"web-{n}", odd=n) for n in (1, 2, 3)), syncMode="Manual")
    edit = with_states(before, (of_nic("web-1"), of_nic("web-3")), restore=False)
    assert edit.changed
    assert shown(edit.body) == ["Down", None, "Down"]
    assert shown(before) == [None, None, None], "the body that was read is not changed"
    undone = copy.deepcopy(edit.body)
    for entry in undone["properties"]["loadBalancerBackendAddresses"]:
        entry["properties"].pop("adminState", None)
    assert undone == before


@pytest.mark.parametrize(
    ("recorded", "written"),
    [("", None), ("None", "None"), ("none", "None"), ("UP", "Up"), ("down", "Down"), ("X", "X")],
)
def test_a_restore_writes_what_was_recorded(recorded: str, written: str | None) -> None:
    """S3: what Azure documents in its spelling, the rest as it was, absence by absence."""
    body = pool(address_entry("10.0.0.1", adminState="Down"), address_entry("10.0.0.2"))
    edit = with_states(body, (of_address("10.0.0.1", recorded),), restore=True)
    assert shown(edit.body) == [written if recorded != "down" else "Down", None]
    assert edit.changed is (recorded != "down")


@pytest.mark.parametrize("now", ["Up", "up", "Sideways"])
def test_a_restore_leaves_what_another_client_has_set(now: str) -> None:
    """S3: a member that is neither Down nor neutral is not as we left it."""
    body = pool(nic_entry("web-1", adminState=now))
    assert not with_states(body, (of_nic("web-1", "None"),), restore=True).changed


@pytest.mark.parametrize(
    ("now", "recorded", "changed"),
    [("Up", "", False), ("Up", "None", False), ("Sideways", "Up", False), ("UP", "Up", True),
     ("None", "Up", True)],
)  # fmt: skip
def test_a_removal_records_first_what_another_client_has_set(
    now: str, recorded: str, *, changed: bool
) -> None:
    """S5: the state is written ahead. None is no choice: a write of the NIC loses the state."""
    body = pool(nic_entry("web-1", adminState=now))
    assert with_states(body, (of_nic("web-1", recorded),), restore=False).changed is changed


@pytest.mark.parametrize("now", ["Down", "DOWN", "down"])
def test_what_is_down_already_is_not_written(now: str) -> None:
    """A write that changes nothing is not sent, however the state is spelled."""
    body = pool(nic_entry("web-1", adminState=now))
    assert not with_states(body, (of_nic("web-1"),), restore=False).changed


@pytest.mark.parametrize("odd", [None, 7, [], {"a": 1}, "", "None"])
def test_odd_states_count_as_none(odd: object) -> None:
    """What is no text names no state: the member is in rotation, and is set Down."""
    body = pool(nic_entry("web-1", adminState=odd))
    (member,) = parse_pool(body, T0).members
    assert not member.admin_down
    assert shown(with_states(body, (of_nic("web-1"),), restore=False).body) == ["Down"]


def test_a_member_that_vanished_is_absent() -> None:
    """It is left out of the write, and never added."""
    body = pool(nic_entry("web-1"))
    edit = with_states(body, (of_nic("web-1"), of_nic("web-2")), restore=False)
    assert edit.absent == (of_nic("web-2"),)
    assert len(shown(edit.body)) == 1


INCOMPLETE: dict[str, dict[str, Any]] = {
    "no list": {"id": APP, "properties": {"backendIPConfigurations": [{"id": ip_id("web-1")}]}},
    "an empty list": pool()
    | {
        "properties": {
            "loadBalancerBackendAddresses": [],
            "backendIPConfigurations": [{"id": ip_id("web-1")}],
        }
    },
    "one is missing": pool(
        nic_entry("web-1"), backendIPConfigurations=[{"id": ip_id("web-1")}, {"id": ip_id("db")}]
    ),
    "one twice": pool(nic_entry("web-1"), nic_entry("web-1")),
    "no place": pool(nic_entry("web-1"), {"name": "odd", "properties": {}}),
    "synchronised": pool(nic_entry("web-1"), syncMode="Automatic"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_a_list_that_is_not_complete_is_never_written(case: str) -> None:
    """A PUT replaces the list: what it lacks would be evicted (bicep-registry-modules#2512)."""
    for restore in (False, True):
        with pytest.raises(StateRefused):
            with_states(INCOMPLETE[case], (of_nic("web-1"),), restore=restore)


def test_a_pool_of_both_kinds_is_sent_back_whole() -> None:
    """No pool mixes them in Azure; if one does, its entries stay as they came."""
    body = pool(nic_entry("web-1"), address_entry("10.0.0.9", adminState="Up"))
    assert parse_pool(body, T0).kind is PoolKind.NIC
    edit = with_states(body, (of_nic("web-1"),), restore=False)
    assert shown(edit.body) == ["Down", "Up"]


@pytest.mark.parametrize("body", [{"id": APP, "properties": []}, {"id": 3}, {"id": APP}])
def test_a_body_that_is_none_raises(body: dict[str, Any]) -> None:
    """A body that breaks the documented shape is refused before anything is written."""
    with pytest.raises((ContractViolation, StateRefused)):
        with_states(body, (of_nic("web-1"),), restore=False)


def test_a_pool_of_five_thousand() -> None:
    """The largest pool (Microsoft docs, limits) is edited whole."""
    body = pool(*(nic_entry(f"web-{n}") for n in range(5000)))
    edit = with_states(body, tuple(of_nic(f"web-{n}") for n in range(0, 5000, 10)), restore=False)
    assert shown(edit.body).count("Down") == 500
    assert len(shown(edit.body)) == 5000


# --- the proof -----------------------------------------------------------------------------------


def written() -> dict[str, Any]:
    return with_states(
        pool(nic_entry("web-1"), nic_entry("web-2")), (of_nic("web-1"),), restore=False
    ).body


@pytest.mark.parametrize("spelling", ["Down", "DOWN"])
def test_what_was_written_is_proven_in_any_order_and_case(spelling: str) -> None:
    """Azure orders members as it likes."""
    after = pool(nic_entry("web-2", adminState="None"), nic_entry("web-1", adminState=spelling))
    check_written(written(), after, [of_nic("web-1")])
    assert states(after) == states(written())


@pytest.mark.parametrize("state", [None, "None", "Up", "Sideways"])
def test_a_state_that_does_not_show_is_no_success(state: str | None) -> None:
    """S1: Azure reports success, and the member is not Down."""
    after = pool(nic_entry("web-1", adminState=state), nic_entry("web-2"))
    with pytest.raises(Ineffective, match="the adminState of"):
        check_written(written(), after, [of_nic("web-1")])


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (pool(nic_entry("web-1", adminState="Down")), "1 missing, 0 unexpected"),
        (pool(*(nic_entry(f"web-{n}", adminState="Down") for n in (1, 2, 3))), "0 missing, 1 une"),
        ({"id": APP, "properties": {}}, "2 missing, 0 unexpected"),
    ],
)
def test_members_that_are_not_those_written_are_reported(after: dict[str, Any], text: str) -> None:
    """S3: an eviction is loud."""
    with pytest.raises(ServiceFault, match=text) as raised:
        check_written(written(), after, [of_nic("web-1")])
    assert not isinstance(raised.value, Ineffective)


def test_what_another_client_set_at_another_member_is_no_failure() -> None:
    """Only the members of this write are compared by state."""
    after = pool(nic_entry("web-1", adminState="Down"), nic_entry("web-2", adminState="Up"))
    check_written(written(), after, [of_nic("web-1")])
