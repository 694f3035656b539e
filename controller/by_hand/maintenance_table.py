"""What `lb-drain maintenance` prints: a table for people, one object for scripts."""

import sys
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from controller.azure.maintenance import LastResult, MaintenanceStatus, Window

UNCUT_COLUMNS = 2000
_RESULTS = {
    LastResult.NONE: "",
    LastResult.RETRY_LATER: "try again later",
    LastResult.ABORTED: "aborted",
    LastResult.COMPLETED: "completed",
    LastResult.UNKNOWN: "",
}


def show(statuses: tuple[MaintenanceStatus, ...]) -> None:
    """Print the table; in a file or a pipe no line is cut or wrapped."""
    console = Console(width=None if sys.stdout.isatty() else UNCUT_COLUMNS, markup=False)
    table = Table(
        "VM",
        "update domain",
        "power",
        "planned maintenance",
        "self-service window (UTC)",
        "scheduled window (UTC)",
        Column("last attempt", overflow="fold"),
    )
    for each in statuses:
        last = (_RESULTS[each.last_result], each.last_message)
        table.add_row(
            each.name,
            "" if each.update_domain is None else str(each.update_domain),
            each.power.value,
            each.state.value,
            _span(each.self_service),
            _span(each.scheduled),
            ": ".join(text for text in last if text),
        )
    console.print(table)


def as_json(statuses: tuple[MaintenanceStatus, ...], availability_set_id: str) -> dict[str, Any]:
    """Return the same for scripts; instants are ISO 8601, in UTC."""
    return {
        "availability_set_id": availability_set_id,
        "vms": [
            {
                "vm": each.name,
                "vm_id": each.vm_id,
                "update_domain": each.update_domain,
                "power": each.power.value,
                "state": each.state.name.lower(),
                "self_service": _window(each.self_service),
                "scheduled": _window(each.scheduled),
                "last_result": each.last_result.name.lower(),
                "last_message": each.last_message,
            }
            for each in statuses
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
