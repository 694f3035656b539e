"""The output of `lb-drain maintenance`: a table, or one JSON object."""

from datetime import datetime
from typing import Any

from rich.table import Column, Table

from controller.azure.maintenance import LastResult, MaintenanceStatus, Window

INSTANT_COLUMNS = len("2026-11-28 22:58")
_RESULTS = {
    LastResult.NONE: "",
    LastResult.RETRY_LATER: "try again later",
    LastResult.ABORTED: "aborted",
    LastResult.COMPLETED: "completed",
    LastResult.UNKNOWN: "",
}


def maintenance_table(statuses: tuple[MaintenanceStatus, ...]) -> Table:
    """Return the table."""
    # Without a box the windows fit on a terminal of 80 columns.
    table = Table(
        Column("VM", no_wrap=True),
        "update\ndomain",
        "power",
        "planned\nmaintenance",
        Column("self-service\nwindow (UTC)", min_width=INSTANT_COLUMNS),
        Column("scheduled\nwindow (UTC)", min_width=INSTANT_COLUMNS),
        Column("last\nattempt", overflow="fold"),
        box=None,
        padding=(0, 1, 0, 0),
    )
    for status in statuses:
        last = (_RESULTS[status.last_result], status.last_message)
        table.add_row(
            status.name,
            "" if status.update_domain is None else str(status.update_domain),
            status.power.value,
            status.state.value,
            _span(status.self_service),
            _span(status.scheduled),
            ": ".join(text for text in last if text),
        )
    return table


def as_json(statuses: tuple[MaintenanceStatus, ...], availability_set_id: str) -> dict[str, Any]:
    """Return the object of `maintenance --json`. Instants are ISO 8601 in UTC."""
    return {
        "availability_set_id": availability_set_id,
        "vms": [
            {
                "vm": status.name,
                "vm_id": status.vm_id,
                "update_domain": status.update_domain,
                "power": status.power.value,
                "state": status.state.name.lower(),
                "self_service": _window(status.self_service),
                "scheduled": _window(status.scheduled),
                "last_result": status.last_result.name.lower(),
                "last_message": status.last_message,
            }
            for status in statuses
        ],
    }


def _window(window: Window) -> dict[str, str | None]:
    return {
        "opens_at": window.opens_at.isoformat() if window.opens_at else None,
        "closes_at": window.closes_at.isoformat() if window.closes_at else None,
    }


def _span(window: Window) -> str:
    return f"{_minute(window.opens_at)} to {_minute(window.closes_at)}" if window else ""


def _minute(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M}" if instant else "?"
