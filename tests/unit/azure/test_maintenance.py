"""Planned maintenance: parsing what Compute reports, the choice of VMs, and the table."""

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
from controller.cli.maintenance_table import as_json, maintenance_table
from controller.cli.terminal import stdout_console
from controller.core.resources import PowerState
from controller.errors import ContractViolation, NotDone
from controller.operator.maintenance import choose

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


# --- parsing ---


def test_the_documented_example_is_read() -> None:
    """Both windows, the update domain and the power state are parsed, in UTC."""
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
    ("status", "state", "result"),
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
def test_every_state(status: object, state: str, result: str) -> None:
    """Maintenance that can be started is open; otherwise the last result decides."""
    found = parse_status(body(status))
    assert (found.state.name, found.last_result.name) == (state, result)


def test_a_code_that_is_not_documented_is_shown_with_its_message() -> None:
    """An unknown code is shown with the message of Azure."""
    status = {**CLOSED, "lastOperationResultCode": "Skipped", "lastOperationMessage": "by\nAzure"}
    assert parse_status(body(status)).last_message == "Skipped: by Azure"


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
    """A time can have seven digits of a second, and a zone or none, which means UTC."""
    found = parse_status(body({**CLOSED, "preMaintenanceWindowStartTime": text})).self_service
    assert found.opens_at == instant
    assert found.opens_at is not None
    assert found.opens_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("broken", "reported"),
    [
        (body([]), "not an object"),
        (body({"isCustomerInitiatedMaintenanceAllowed": "yes"}), "is not a boolean"),
        (body({"maintenanceWindowStartTime": "soon"}), "which is not a time"),
        (body({"maintenanceWindowStartTime": "0001-01-01T00:00:00+23:00"}), "which is not a time"),
        (body({"maintenanceWindowStartTime": 5}), "not text"),
        (body(None, platformUpdateDomain=True), "platformUpdateDomain"),
        (body(None, platformUpdateDomain=-1), "platformUpdateDomain"),
        ({"id": VM_ID, "properties": {}}, "has no instanceView"),
    ],
)
def test_what_breaks_the_contract_is_refused(broken: dict[str, Any], reported: str) -> None:
    """A reply that breaks the documented shape starts nothing."""
    with pytest.raises(ContractViolation, match=reported):
        parse_status(broken)


# --- whose is started ---


def test_update_domains_follow_each_other_and_the_own_vm_is_last() -> None:
    """The order in a domain is by name; a VM without a domain counts as in the first."""
    given = (status("b", 1), status("A", 1), status("c", None), status("d", 0), status("e", 0))
    assert choose(given, (), "D").vms == ("c", "e", "A", "b", "d")


def test_with_all_vms_those_that_cannot_be_started_are_skipped() -> None:
    """Each VM that cannot be started has a reason."""
    given = (
        status("a"),
        status("b", state=MaintenanceState.DONE),
        status("c", state=MaintenanceState.RETRY_LATER, last_message="busy"),
        status("d", power=PowerState.NOT_RUNNING),
        status("e", state=MaintenanceState.NOT_SCHEDULED),
    )
    found = choose(given, (), "")
    assert found.vms == ("a",)
    assert found.skipped == {
        "b": "its maintenance is done",
        "c": "its maintenance is to be retried later (busy)",
        "d": "the VM is not running",
        "e": "no maintenance is planned",
    }


def test_a_named_vm_that_cannot_be_started_is_refused() -> None:
    """If one named VM cannot be started, none is; VMs that are not named do not matter."""
    given = (
        status("a"),
        status("b", state=MaintenanceState.SCHEDULED),
        status("c", state=MaintenanceState.ABORTED),
    )
    assert choose(given, ("A",), "").vms == ("a",)
    assert choose(given, ("A",), "").skipped == {}
    with pytest.raises(NotDone, match="b: its maintenance is scheduled, but cannot be started now"):
        choose(given, ("a", "b"), "")


# --- what is shown ---


def test_the_table_and_the_object_agree(capsys: pytest.CaptureFixture[str]) -> None:
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
    stdout_console().print(maintenance_table((shown,)))
    out = capsys.readouterr().out
    for text in ("web-[1]", "to be retried later", "2026-11-24 13:30 to ?", "later: busy"):
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
