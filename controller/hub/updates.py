"""Reads the updates of a Hub and their runs from its administrator endpoint.

Both lists come page by page. A body that breaks the documented shape fails the whole poll: an entry
that was left out could be the run that matters.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from controller.azure.http.api_versions import ApiVersion
from controller.azure.http.arm_client import Arm
from controller.azure.http.arm_reader import ArmReader
from controller.azure.http.call import Caller
from controller.azure.http.json_reader import Json, child, children, required_text, text
from controller.clock import Clock
from controller.config.api_versions import VersionRange
from controller.config.update_watch import API_VERSION, UpdateWatch
from controller.core.azure_names import fold
from controller.core.hub_updates import HubUpdates, Update, UpdateRun, duration_s
from controller.core.printable import excerpt
from controller.errors import ContractViolation, NotFound

VERSIONS = VersionRange(
    key="update_watch.api_version", oldest=API_VERSION, pinned=API_VERSION, newest="2021-07-01"
)
MAX_UPDATES = 500
"""A Hub lists some dozens."""
LONGEST_STATE = 100
_FAILED, _RUNNING = frozenset({"error", "failed"}), frozenset({"inprogress"})


class UpdateReader:
    """The two lists of one update location.

    Args:
        arm: the administrator endpoint, identity and session.
        settings: subscription, location and api-version.
        clock: for deadlines.
    """

    def __init__(self, arm: Arm, settings: UpdateWatch, clock: Clock) -> None:
        version = ApiVersion(VERSIONS, settings.api_version)
        self._reader = ArmReader(arm, Caller(service="hub", clock=clock, version=version))
        group = f"System.{settings.location}"
        self._path = (
            f"/subscriptions/{settings.subscription}/resourceGroups/{group}/providers"
            f"/Microsoft.Update.Admin/updateLocations/{settings.location}/updates"
        )

    async def read(self) -> HubUpdates:
        """Return all updates and all their runs.

        Raises:
            ControllerError: one of the lists could not be read completely.
        """
        entries = await self._reader.entries("update_list", self._path)
        if len(entries) > MAX_UPDATES:
            raise ContractViolation(f"the list of updates has {len(entries)} entries")
        updates = tuple(_update(entry) for entry in entries)
        runs: list[UpdateRun] = []
        for update in updates:
            runs += await self._runs(update.name)
        return HubUpdates(updates=updates, runs=tuple(runs))

    async def _runs(self, update: str) -> list[UpdateRun]:
        path = f"{self._path}/{quote(update, safe='')}/updateRuns"
        try:
            entries = await self._reader.entries("update_run_list", path)
        except NotFound:
            return []  # the update was removed after it was listed
        return [_run(update, entry) for entry in entries]


def _update(entry: Json) -> Update:
    name = _name(entry, "an update")
    return Update(name=name, state=_state(child(entry, "properties", name)))


def _run(update: str, entry: Json) -> UpdateRun:
    name = _name(entry, f"a run of update {excerpt(update)}")
    properties = child(entry, "properties", name)
    step, problem = _step(properties, name)
    return UpdateRun(
        update=update,
        name=name,
        state=_state(properties),
        started_at=_instant(text(properties, "timeStarted")),
        duration_s=duration_s(text(properties, "duration")),
        step=step,
        problem=problem,
    )


def _name(entry: Json, what: str) -> str:
    """Return the name without those of the parents, which some versions put before it."""
    name = required_text(entry, "name", what).rpartition("/")[2].strip()
    if name in {"", ".", ".."}:
        raise ContractViolation(f"{what} has no usable name")
    return name


def _state(properties: Json) -> str:
    """Return the state; it is remembered, so one of megabytes is cut."""
    return excerpt(text(properties, "state"), limit=LONGEST_STATE)


def _step(properties: Json, what: str) -> tuple[str, str]:
    """Return name and error of the step that has failed or is in progress.

    Both only explain a state, so a progress that cannot be read is left out.
    """
    try:
        progress = child(properties, "progress", what)
        step = _innermost(progress, _FAILED) or _innermost(progress, _RUNNING) or {}
        return text(step, "name"), text(step, "errorMessage")
    except ContractViolation:
        return "", ""


def _innermost(step: Mapping[str, Any], statuses: frozenset[str]) -> Json | None:
    """Return the innermost step with one of these statuses; of several, the last one."""
    found: Json | None = None
    level = [dict(step)]
    while level:
        matching = [each for each in level if fold(text(each, "status")) in statuses]
        found = matching[-1] if matching else found
        level = [below for each in level for below in children(each, "steps", "a step")]
    return found


def _instant(written: str) -> datetime | None:
    """Return an instant; None for a text that is none. Without a zone, it is UTC."""
    try:
        instant = datetime.fromisoformat(written)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
