"""Read, open and write the ledger in its blob. Every write has the lease id and `If-Match`.

After a write with an unknown outcome, or a conflict, the blob is read. After a conflict nothing is
written before that read has succeeded: the lease may have gone with a deleted blob. Under the lease
only this agent writes the ledger: what another writer has put there meanwhile is replaced by the
next write, and nothing is done because of it.

Content that is not a ledger of this set is replaced only by an agent that remembers the ledger
(laws S3, S4, S5). It is set aside in another blob first, for a person to look at.
"""

import hashlib
import shlex
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from controller.azure.blob import Content, StateBlob
from controller.azure.http.write_guard import WriteGuard
from controller.core.azure_names import SetKind, fold
from controller.core.blob_owner import ANY_OWNER, BlobOwner
from controller.core.drain_history import Step
from controller.core.ledger import Ledger
from controller.core.ledger_recovery import (
    LedgerMemory,
    is_older,
    lacks_entries,
    next_epoch,
    recover,
)
from controller.core.printable import excerpt
from controller.errors import (
    Conflict,
    ContractViolation,
    Denied,
    LeaseLost,
    NewerFormat,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Throttled,
    UnreadableLedger,
)
from controller.storage.ledger_json import decode_ledger, encode_bounded

KNOWN_ETAGS = 500
"""More than a leader writes between two renewals of its lease."""
KNOWN_SENT = 10
"""How many ledgers are remembered that were sent and may have been written."""
OTHERS_FIRST = timedelta(seconds=60)
"""For this long an agent that only read the ledger leaves an unreadable one to the agent that has
written it, whose memory lacks nothing."""


def ledger_blob_name(availability_set_id: str) -> str:
    """Return the default name of the ledger's blob: the folded id of the set, as a path."""
    parts = fold(availability_set_id).strip("/").split("/")
    named = dict(zip(parts[::2], parts[1::2], strict=False))
    group = named.get("resourcegroups", "group")
    return f"{named.get('subscriptions', 'subscription')}/{group}/{parts[-1]}.json"


def moved_text(found: Ledger | None, copy_url: str, container_url: str) -> str:
    """Return what was moved to the blob at `copy_url`, and what to do for the set it belongs to.

    Args:
        found: the ledger of another set; None if the content was no ledger.
        copy_url: the URL of the blob with the content.
        container_url: of its container.
    """
    if found is None:
        return f"its content was no ledger, and was moved to {copy_url}"
    endpoint, _, container = container_url.rpartition("/")
    kind, name = SetKind.of(found.set_id).value, ledger_blob_name(found.set_id)
    text = (
        f"its content was the ledger of another {kind}, {excerpt(found.set_id)}, and was moved to "
        f"{copy_url}. Give each set a blob of its own: remove election.blob_name"
    )
    if not found.entries:
        return text
    vms = excerpt(", ".join(entry.vm for entry in found.entries))
    return (
        f"{text}. It records VMs that are out, which only an agent of that set puts back, once "
        f"its own blob has this content: {vms}. Before its agents start again: az storage blob "
        f"copy start --blob-endpoint {endpoint} --destination-container {container} "
        f"--destination-blob {shlex.quote(excerpt(name))} --source-uri {copy_url} --auth-mode login"
    )


class Written(Enum):
    """What became of a ledger that was sent."""

    DURABLE = "durable"
    UNKNOWN = "unknown"
    """Not written yet; the request may still arrive. What was sent before may have been written."""
    REPLACED = "replaced"
    """Durable; a ledger that another writer had put there is gone."""
    SET_ASIDE = "set aside"
    """Durable; what another writer had put there was no ledger, and is in a blob of its own."""


class Lease(Protocol):
    """The lease under which the ledger is written."""

    @property
    def lease_id(self) -> str:
        """The id that storage compares with the id of the lease."""
        ...

    def fence(self) -> None:
        """Return if a write may be sent now; changes nothing.

        Raises:
            LeaseLost: the lease may have expired.
        """
        ...


class LedgerStore:
    """The newest durable ledger that this agent knows.

    Args:
        blob: the blob.
        owner: the set whose ledger it has to be.
        memory: the newest ledger that the agent has seen, shared with its other stores.
    """

    def __init__(
        self,
        blob: StateBlob,
        *,
        owner: BlobOwner = ANY_OWNER,
        memory: LedgerMemory | None = None,
    ) -> None:
        self._blob, self._owner, self._memory = blob, owner, memory or LedgerMemory()
        self._etag = ""
        self._etags: deque[str] = deque(maxlen=KNOWN_ETAGS)
        """Of what this agent has written or replaced last."""
        self._writing = False
        """A write is under way, or its outcome is unknown."""
        self._sent: deque[Ledger] = deque(maxlen=KNOWN_SENT)
        """What was sent since the ledger was durable last, and not refused."""
        self._had_no_effect = False
        """Whether the last write got no reply, and changed nothing."""
        self._refused = False
        """Storage has refused a write because of other content, which was not read since."""
        self._unreadable_since: datetime | None = None
        self.set_aside = ""
        """What other content was moved to another blob last, and which; empty if none was."""
        self.ledger = Ledger()
        self.lease_state = "available"
        """The state that Azure reported when the ledger was read."""
        self.has_lost_entries = False
        """Whether the ledger that was read lacks entries of a newer one that the agent had seen."""

    async def read(self) -> None:
        """Read the blob and adopt its content; without a blob the ledger is empty.

        Raises:
            UnreadableLedger: the content is not a ledger, or that of another availability set; the
                message contains the fix.
            ControllerError: it could not be read.
        """
        known = self._memory.newest  # what is seen while the read is under way may be newer
        self.ledger = ledger = await self._read()
        self.has_lost_entries = (
            bool(self._etag) and known is not None and lacks_entries(ledger, known)
        )
        if self._etag:
            self._memory.note(ledger, self._etag)

    async def _read(self) -> Ledger:
        """Return the content of the blob, and remember its ETag."""
        try:
            content = await self._blob.read()
        except NotFound:
            self._etag, self.lease_state, self._refused = "", "available", False
            return Ledger()
        ledger = self._decoded(content)
        self._etag, self.lease_state, self._refused = content.etag, content.lease_state, False
        return ledger

    def _decoded(self, content: Content) -> Ledger:
        try:
            ledger = decode_ledger(content.body)
        except ContractViolation as error:
            kind = ContractViolation if isinstance(error, NewerFormat) else UnreadableLedger
            raise kind(
                f"the blob {self._blob.url} cannot be read as a ledger: {error}. Nothing is "
                "written until it is resolved: download the blob, repair it or, if no VM is out, "
                "delete it; the agents try again every 30 seconds"
            ) from error
        if other := self._owner.other_owner(ledger.set_id):
            raise UnreadableLedger(
                f"the blob {self._blob.url} is not the ledger of this set: {other}"
            )
        return ledger

    async def break_lease(self) -> None:
        """End the leadership of any agent; it can be acquired when the time of the lease is over.

        Raises:
            ControllerError: the lease was not broken.
        """
        await self._blob.break_lease()

    @property
    def etag(self) -> str:
        """The ETag of the blob as last read or written; empty before that."""
        return self._etag

    async def open(self, lease: Lease, *, vm: str, now: datetime) -> str:
        """Read the ledger and write it back under the next epoch, as every new leader does.

        If storage has lost or changed what this agent has seen before, its memory is written.
        Returns what was wrong; empty if nothing was.

        Raises:
            ContractViolation, ControllerError: as `read`.
            LeaseLost: this agent no longer holds the lease.
        """
        known, wrong = self._memory.newest, ""
        try:
            await self.read()
        except UnreadableLedger as error:
            self._unreadable_since = self._unreadable_since or now
            waited = now - self._unreadable_since >= OTHERS_FIRST
            if known is None or not (self._memory.own or waited):
                raise
            wrong, found = await self._set_aside(error, lease), Ledger()
        else:
            found, self._unreadable_since = self.ledger, None
        if known is not None and (is_older(found, known) or lacks_entries(found, known)):
            wrong = (
                wrong or "it was deleted, replaced by an older one, or changed by another writer"
            )
            found = recover(found, known, at=now, by=vm)
        opened = replace(found, epoch=next_epoch(found), leader=vm, leader_since=now)
        opened = replace(
            opened,
            set_id=self._owner.claims(opened.set_id, (entry.vm for entry in opened.entries)),
            configuration=self._owner.configuration or opened.configuration,
        )
        opened = replace(opened, vms=self._owner.members(opened))
        await self._put(opened.noting(at=now, vm=vm, step=Step.LEADS), lease)
        return wrong

    async def _set_aside(self, error: UnreadableLedger, lease: Lease) -> str:
        """Copy content that is no ledger of this set to another blob, and return what was found.

        Raises:
            UnreadableLedger: a second read does not confirm it: one garbled reply proves nothing.
            ControllerError: the copy was not written.
        """
        content, found = await self._blob.read(), None
        try:
            self._decoded(content)
        except UnreadableLedger:
            with suppress(ContractViolation):
                found = decode_ledger(content.body)  # of another set
        else:
            raise error
        digest = hashlib.sha256(content.body).hexdigest()[:12]
        copy = self._blob.beside(f"{self._blob.name}.unreadable-{digest}")
        with suppress(Conflict):  # it was copied before
            await copy.replace(content.body, "", WriteGuard(check=lease.fence))
        self._etag, self._unreadable_since = content.etag, None
        container_url = copy.url.removesuffix(f"/{copy.name}")
        self.set_aside = moved_text(found, copy.url, container_url)
        return self.set_aside

    async def write(self, wanted: Ledger, lease: Lease) -> Written:
        """Write `wanted`, and return whether the blob holds it; if not, it is written again later.

        Content of another writer is replaced, or set aside if it is no ledger of this set: while
        the lease is held, no leader can have written it. What it contains is used for nothing.

        Raises:
            ContractViolation, ControllerError: as `read`.
            LeaseLost: the lease is lost, or another leader has opened the ledger.
            OutcomeUnknown: a write got no reply and changed nothing, as the one before.
        """
        lost: OutcomeUnknown | None = None
        if not self._refused:
            try:
                await self._put(wanted, lease)
            except (Conflict, OutcomeUnknown) as error:
                lost = error if isinstance(error, OutcomeUnknown) else None
                self._writing = lost is not None
                self._refused = not self._writing
            except (Denied, NotSent, Throttled):
                self._writing = False
                raise
            else:
                return Written.DURABLE
        written = await self._write_over(wanted, lease)
        failed_before = self._had_no_effect
        self._had_no_effect = lost is not None and written is Written.UNKNOWN
        if lost is not None and self._had_no_effect and failed_before:
            raise lost
        return written

    async def _write_over(self, wanted: Ledger, lease: Lease) -> Written:
        """Read what the blob holds now, and replace it; as `write`."""
        durable = self.ledger
        try:
            found = await self._read()
        except UnreadableLedger as error:
            await self._set_aside(error, lease)
            await self._put(wanted, lease)
            return Written.SET_ASIDE
        if found.epoch != durable.epoch:
            raise LeaseLost("another leader has opened the ledger")
        known = self._memory.newest
        if known is not None and is_older(found, known):
            raise LeaseLost("the blob of the ledger was replaced by an older one")
        if found == durable:
            self._etags.append(self._etag)
            return Written.UNKNOWN
        if found in self._sent:
            self._adopt(found)
            return Written.DURABLE if found == wanted else Written.UNKNOWN
        try:
            await self._put(wanted, lease)
        except (Conflict, OutcomeUnknown):
            raise LeaseLost("another writer changes the blob of the ledger") from None
        return Written.REPLACED

    def shows_another_writer(self, etag: str) -> bool:
        """Return whether an ETag of the blob, in a reply about the lease, is that of other content.

        Until the outcome of a write is known, that is not known either. A refused write shows it
        too, until the blob was read.
        """
        return self._refused or (bool(etag) and not self._writing and etag not in self._etags)

    async def _put(self, ledger: Ledger, lease: Lease) -> None:
        if not self._etag:
            raise LeaseLost("the blob of the ledger was deleted, and the lease with it")
        guard = WriteGuard(check=lease.fence)
        ledger, body = encode_bounded(ledger)
        replaced, self._writing = self._etag, True
        self._sent.append(ledger)
        try:
            self._etag = await self._blob.write(body, replaced, lease.lease_id, guard)
        except (Conflict, Denied, NotSent, Throttled):
            self._sent.pop()  # storage holds what it held before
            raise
        self._etags.append(replaced)
        self._adopt(ledger)

    def _adopt(self, ledger: Ledger) -> None:
        """This ledger, which this agent has written, is durable."""
        self.ledger, self._writing, self._refused = ledger, False, False
        self._had_no_effect = False
        self._sent.clear()
        self._etags.append(self._etag)
        self._memory.wrote(ledger)
