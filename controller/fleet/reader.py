"""Reads the sets of containers: one listing for each container, one read for each changed blob.

A set has two blobs that are read: its ledger, and its controls if there are any. Nothing that a
container holds ends the reading: a ledger that cannot be read becomes a row with the reason, and a
container that cannot be listed is reported beside the others.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from controller.azure.blob import MAX_BODY_BYTES
from controller.azure.container import ListedBlob, Listing, StateContainer
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.blob_owner import BlobOwner
from controller.core.controls import NO_CONTROLS, Controls
from controller.core.fleet import (
    Attention,
    Problem,
    Reason,
    SetSummary,
    in_order_of_attention,
    summarise,
    unreadable,
)
from controller.core.ledger import Ledger
from controller.core.printable import excerpt
from controller.errors import ContractViolation, ControllerError, NotFound
from controller.storage.container_view import SetBlobs, sets_in
from controller.storage.controls_json import decode_controls
from controller.storage.ledger_json import decode_ledger

Value = TypeVar("Value")

MAX_PARALLEL_READS = 16
"""Reads at a time over all containers. A read takes some 20 ms, so 200 sets take a second."""
MAX_SETS = 2000
"""Ledgers that are read in one container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerResult:
    """What became of the listing of one container."""

    url: str
    blobs: int = 0
    not_shown: int = 0
    """Blobs beyond `MAX_SETS` that may be ledgers."""
    problem: str = ""
    """Why it could not be listed; empty if it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All sets, the most urgent one first."""

    at: datetime
    """When it was read, by the clock of the storage account."""
    sets: tuple[SetSummary, ...]
    containers: tuple[ContainerResult, ...]
    took_s: float


class _ChangedBlobs(Generic[Value]):
    """Reads blobs of one kind, and remembers those that have not changed since.

    Args:
        what: the kind, for errors.
        decode: returns what a body holds; raises ContractViolation.
        parallel: limits the reads at a time.
    """

    def __init__(
        self, what: str, *, decode: Callable[[bytes], Value], parallel: asyncio.Semaphore
    ) -> None:
        self._what, self._decode, self._parallel = what, decode, parallel
        self._known: dict[tuple[str, str], tuple[str, Value]] = {}
        """By container and blob: the ETag of the listing, and the value."""

    async def read(self, container: StateContainer, listed: ListedBlob) -> Value:
        """Return what a blob holds.

        Raises:
            ControllerError: it cannot be read, or holds something else.
        """
        if listed.size > MAX_BODY_BYTES:
            raise ContractViolation(
                f"not {self._what}: {listed.size} bytes, the limit is {MAX_BODY_BYTES}"
            )
        key = container.url, listed.name
        known = self._known.get(key)
        if known is not None and known[0] == listed.etag:
            return known[1]
        async with self._parallel:
            content = await container.read(listed.name)
            value = self._decode(content.body)
        self._known[key] = listed.etag, value
        return value

    def keep(self, container: StateContainer, names: set[str]) -> None:
        """Forget the blobs of a container but these."""
        self._known = {
            key: value
            for key, value in self._known.items()
            if key[0] != container.url or key[1] in names
        }


class FleetReader:
    """Reads containers, and remembers the blobs that have not changed since."""

    def __init__(self, containers: Sequence[StateContainer], *, clock: Clock) -> None:
        self._containers, self._clock = tuple(containers), clock
        parallel = asyncio.Semaphore(MAX_PARALLEL_READS)
        self._ledgers = _ChangedBlobs("a ledger", decode=decode_ledger, parallel=parallel)
        self._controls = _ChangedBlobs("controls", decode=decode_controls, parallel=parallel)

    async def read(self) -> Fleet:
        """Read every container once; never raises a ControllerError."""
        started = self._clock.monotonic()
        found = await asyncio.gather(*map(self._read_container, self._containers))
        rows = [row for _, of_container, _ in found for row in of_container]
        return Fleet(
            at=max((at for _, _, at in found if at is not None), default=self._clock.now()),
            sets=in_order_of_attention(_with_same_sets(rows)),
            containers=tuple(result for result, _, _ in found),
            took_s=self._clock.monotonic() - started,
        )

    async def _read_container(
        self, container: StateContainer
    ) -> tuple[ContainerResult, list[SetSummary], datetime | None]:
        try:
            listing = await container.list()
        except ControllerError as error:
            return ContainerResult(url=container.url, problem=excerpt(str(error))), [], None
        sets = sets_in(listing.blobs)
        shown = sets[:MAX_SETS]
        rows = await asyncio.gather(*(self._row(container, each, listing) for each in shown))
        self._ledgers.keep(container, {each.ledger for each in shown})
        self._controls.keep(container, {each.controls.name for each in shown if each.controls})
        result = ContainerResult(
            url=container.url, blobs=len(listing.blobs), not_shown=len(sets) - len(shown)
        )
        return result, rows, listing.at

    async def _row(
        self, container: StateContainer, blobs: SetBlobs, listing: Listing
    ) -> SetSummary:
        listed = blobs.listed
        lease_state = listed.lease_state if listed else ""
        try:
            if listed is None:
                raise NotFound("the ledger was deleted, and other blobs of the set are still there")
            ledger = await self._ledger(container, listed)
        except ControllerError as error:
            return unreadable(
                excerpt(str(error)),
                container_url=container.url,
                blob=blobs.ledger,
                written_at=blobs.written_at,
                lease_state=lease_state,
                used=bool(blobs.others),
            )
        controls, problem = await self._controls_of(container, blobs, ledger)
        row = summarise(
            ledger,
            lease_state=lease_state,
            container_url=container.url,
            blob=blobs.ledger,
            written_at=blobs.written_at,
            now=listing.at,
            agents=blobs.agents,
            controls=controls,
        )
        return _with_problem(row, problem) if problem else row

    async def _ledger(self, container: StateContainer, listed: ListedBlob) -> Ledger:
        return Ledger() if listed.size == 0 else await self._ledgers.read(container, listed)

    async def _controls_of(
        self, container: StateContainer, blobs: SetBlobs, ledger: Ledger
    ) -> tuple[Controls, Problem | None]:
        """Return the controls that agents of the set obey, or why it is not known."""
        if blobs.controls is None:
            return NO_CONTROLS, None
        try:
            found = await self._controls.read(container, blobs.controls)
            if other := BlobOwner(set_id=ledger.set_id).other_owner(found.set_id):
                raise ContractViolation(other)
        except ControllerError as error:
            text = f"the controls of the set cannot be read: {excerpt(str(error))}"
            return NO_CONTROLS, Problem(Attention.WARNING, Reason.CONTROLS_UNREAD, text)
        return found, None


def _with_same_sets(rows: Sequence[SetSummary]) -> list[SetSummary]:
    """Return the rows with a problem in each of those that are ledgers of one set.

    Agents of one set that use different blobs elect different leaders.
    """
    blobs: dict[str, list[str]] = {}
    for row in rows:
        if row.ledger.set_id:
            blobs.setdefault(fold(row.ledger.set_id), []).append(f"{row.container_url}/{row.blob}")

    def noted(row: SetSummary) -> SetSummary:
        own = f"{row.container_url}/{row.blob}"
        others = [each for each in blobs.get(fold(row.ledger.set_id), []) if each != own]
        if not others:
            return row
        text = (
            f"{', '.join(others)} is a ledger of the same set: delete the one that no agent uses, "
            "or correct election.blob_name and container_url"
        )
        return _with_problem(row, Problem(Attention.WARNING, Reason.SAME_SET, text))

    return [noted(row) for row in rows]


def _with_problem(row: SetSummary, problem: Problem) -> SetSummary:
    problems = sorted((*row.problems, problem), key=lambda each: -each.level)
    return replace(row, problems=tuple(problems))
