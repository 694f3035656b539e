"""Planned maintenance: what the instance view says, and which VMs may be started in what order."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from controller.azure.maintenance import (
    LastResult,
    MaintenanceState,
    MaintenanceStatus,
    Window,
    parse_status,
)
from controller.by_hand.maintenance import choose
from controller.by_hand.maintenance_table import as_json, show
from controller.core.model import PowerState
from controller.errors import ContractViolation, NotDone

VM_ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-2"
# Microsoft docs, Handling planned maintenance notifications using the Azure CLI.
DOCUMENTED = {
    "isCustomerInitiatedMaintenanceAllowed": True,
    "lastOperationMessage": None,
    "lastOperationResultCode": "None",
    "maintenanceWindowEndTime": "2018-06-04T16:30:00+00:00",
    "maintenanceWindowStartTime": "2018-05-21T16:30:00+00:00",
    "preMaintenanceWindowEndTime": "2018-05-19T12:30:00+00:00",
    "preMaintenanceWindowStartTime": "2018-05-14T12:30:00+00:00",
}
CLOSED = {**DOCUMENTED, "isCustomerInitiatedMaintenanceAllowed": False}
NOTHING = Window(opens_at=None, closes_at=None)


def body(status: object, **view: Any) -> dict[str, Any]:
    shown = {"platformUpdateDomain": 3, "statuses": [{"code": "PowerState/running"}], **view}
    if status is not None:
        shown["maintenanceRedeployStatus"] = status
    return {"id": VM_ID, "properties": {"instanceView": shown}}


def status(name: str, domain: int | None = 0, **given: Any) -> MaintenanceStatus:
    plain: dict[str, Any] = {
        "vm_id": VM_ID,
        "power": PowerState.RUNNING,
        "state": MaintenanceState.SELF_SERVICE,
        "self_service": NOTHING,
        "scheduled": NOTHING,
        "last_result": LastResult.NONE,
        "last_message": "",
    }
    return MaintenanceStatus(name=name, update_domain=domain, **(plain | given))


# --- what Compute says ---


def test_the_documented_example_is_read() -> None:
    """Both windows, the update domain and the power are there, in UTC."""
    assert parse_status(body(DOCUMENTED)) == status(
        "web-2",
        3,
        self_service=Window(
            opens_at=datetime(2018, 5, 14, 12, 30, tzinfo=UTC),
            closes_at=datetime(2018, 5, 19, 12, 30, tzinfo=UTC),
        ),
        scheduled=Window(
            opens_at=datetime(2018, 5, 21, 16, 30, tzinfo=UTC),
            closes_at=datetime(2018, 6, 4, 16, 30, tzinfo=UTC),
        ),
    )


@pytest.mark.parametrize(
    ("said", "state", "result"),
    [
        (None, "NOT_SCHEDULED", "NONE"),
        ({}, "NOT_SCHEDULED", "NONE"),
        ({"isCustomerInitiatedMaintenanceAllowed": False}, "NOT_SCHEDULED", "NONE"),
        ({"lastOperationResultCode": None}, "NOT_SCHEDULED", "NONE"),
        ({"isCustomerInitiatedMaintenanceAllowed": True}, "SELF_SERVICE", "NONE"),
        (CLOSED, "SCHEDULED", "NONE"),
        ({"maintenanceWindowEndTime": "2018-06-04T16:30:00Z"}, "SCHEDULED", "NONE"),
        ({**CLOSED, "lastOperationResultCode": "MaintenanceCompleted"}, "DONE", "COMPLETED"),
        ({**CLOSED, "lastOperationResultCode": "maintenancecompleted"}, "DONE", "COMPLETED"),
        ({**CLOSED, "lastOperationResultCode": "MaintenanceAborted"}, "ABORTED", "ABORTED"),
        ({**CLOSED, "lastOperationResultCode": "RetryLater"}, "RETRY_LATER", "RETRY_LATER"),
        ({**CLOSED, "lastOperationResultCode": "Skipped"}, "SCHEDULED", "UNKNOWN"),
        (
            {**DOCUMENTED, "lastOperationResultCode": "MaintenanceCompleted"},
            "SELF_SERVICE",
            "COMPLETED",
        ),
        ({**DOCUMENTED, "lastOperationResultCode": "RetryLater"}, "SELF_SERVICE", "RETRY_LATER"),
    ],
)
def test_every_state(said: object, state: str, result: str) -> None:
    """What may be started is open whatever came of the last attempt; else that decides."""
    found = parse_status(body(said))
    assert (found.state.name, found.last_result.name) == (state, result)


def test_a_code_that_is_not_documented_is_shown_with_its_message() -> None:
    """Nobody has to guess what Azure said."""
    said = {**CLOSED, "lastOperationResultCode": "Skipped", "lastOperationMessage": "by\nAzure"}
    assert parse_status(body(said)).last_message == "Skipped: by Azure"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-24T13:30:00.1234567Z", datetime(2026, 11, 24, 13, 30, 0, 123456, tzinfo=UTC)),
        ("2026-11-24T13:30:00", datetime(2026, 11, 24, 13, 30, tzinfo=UTC)),
        (
            "2026-11-24T13:30:00+02:00",
            datetime(2026, 11, 24, 13, 30, tzinfo=timezone(timedelta(hours=2))),
        ),
    ],
)
def test_times_are_read_as_azure_writes_them(text: str, instant: datetime) -> None:
    """Seven digits of a second, a zone, or none, which is UTC."""
    found = parse_status(body({**CLOSED, "preMaintenanceWindowStartTime": text})).self_service
    assert found.opens_at == instant
    assert found.opens_at is not None
    assert found.opens_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (body([]), "not an object"),
        (body({"isCustomerInitiatedMaintenanceAllowed": "yes"}), "is no boolean"),
        (body({"maintenanceWindowStartTime": "soon"}), "which is no time"),
        (body({"maintenanceWindowStartTime": "0001-01-01T00:00:00+23:00"}), "which is no time"),
        (body({"maintenanceWindowStartTime": 5}), "not text"),
        (body(None, platformUpdateDomain=True), "platformUpdateDomain"),
        (body(None, platformUpdateDomain=-1), "platformUpdateDomain"),
        ({"id": VM_ID, "properties": {}}, "without instanceView"),
    ],
)
def test_what_breaks_the_contract_is_refused(broken: dict[str, Any], told: str) -> None:
    """A reply that is not as documented starts nothing."""
    with pytest.raises(ContractViolation, match=told):
        parse_status(broken)


# --- whose is started ---


def test_update_domains_follow_each_other_and_the_own_vm_is_last() -> None:
    """Within a domain by name; a VM that does not say its domain counts as of the first."""
    given = (status("b", 1), status("A", 1), status("c", None), status("d", 0), status("e", 0))
    assert choose(given, (), "D").vms == ("c", "e", "A", "b", "d")


def test_of_all_vms_those_that_cannot_be_started_are_left_alone() -> None:
    """Each with its reason."""
    given = (
        status("a"),
        status("b", state=MaintenanceState.DONE),
        status("c", state=MaintenanceState.RETRY_LATER, last_message="busy"),
        status("d", power=PowerState.NOT_RUNNING),
        status("e", state=MaintenanceState.NOT_SCHEDULED),
    )
    found = choose(given, (), "")
    assert found.vms == ("a",)
    assert found.others == {
        "b": "its maintenance is done",
        "c": "its maintenance is to be tried again later (busy)",
        "d": "it does not run",
        "e": "no maintenance is planned for it",
    }


def test_a_named_vm_that_cannot_be_started_is_refused() -> None:
    """Whoever names VMs means these, so none of them is started; others do not matter."""
    given = (
        status("a"),
        status("b", state=MaintenanceState.SCHEDULED),
        status("c", state=MaintenanceState.ABORTED),
    )
    assert choose(given, ("A",), "").vms == ("a",)
    assert choose(given, ("A",), "").others == {}
    with pytest.raises(NotDone, match="b: its maintenance is announced, not to be started now"):
        choose(given, ("a", "b"), "")


# --- what is shown ---


def test_the_table_and_the_object_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Times are UTC, states are words, and an end that Azure left out is a question mark."""
    opens_at = datetime(2026, 11, 24, 13, 30, tzinfo=UTC)
    shown = status(
        "web-[1]",
        None,
        state=MaintenanceState.RETRY_LATER,
        self_service=Window(opens_at=opens_at, closes_at=None),
        last_result=LastResult.RETRY_LATER,
        last_message="busy",
    )
    show((shown,))
    out = capsys.readouterr().out
    for text in ("web-[1]", "to be tried again later", "2026-11-24 13:30 to ?", "later: busy"):
        assert text in out
    assert as_json((shown,), "set")["vms"] == [
        {
            "vm": "web-[1]",
            "vm_id": VM_ID,
            "update_domain": None,
            "power": "running",
            "state": "retry_later",
            "self_service": {"opens_at": "2026-11-24T13:30:00+00:00", "closes_at": None},
            "scheduled": {"opens_at": None, "closes_at": None},
            "last_result": "retry_later",
            "last_message": "busy",
        }
    ]
