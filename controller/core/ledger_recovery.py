"""A ledger that storage has lost, or that another writer has changed: notice it, and continue from
what an agent has read before.

The blob of the ledger can be deleted, restored from a backup, or fall behind when the storage
account fails over. Any identity that can write the container can put another ledger there. What was
removed is then recorded nowhere, while VMs are out. So every agent remembers the newest ledger that
it has read or written. It believes a change only if the history of the ledger names a step of the
VM: leaders write an entry and its step together. A new leader that finds an older ledger, or a
change without a step, continues from its memory. A VM that is back meanwhile is no problem: its
entry is closed as soon as its memberships are seen.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_COUNT
from controller.core.drain_history import OUTSIDE, Step, Transition
from controller.core.event_record import (
    MAX_VERDICTS,
    EventVerdict,
    Place,
    WatchedEvent,
)
from controller.core.events import may_be_same
from controller.core.ledger import MAX_TRANSITIONS, Entry, Ledger
from controller.core.resources import Membership, MembershipKey

MAX_EPOCHS_AWAY = 1_000_000
"""How many leaders an agent can have missed: one every 30 s for a year. A ledger without the known
history and with a later epoch than that was not written by a leader."""

ENDS_MEMBERSHIPS = frozenset(
    {
        Step.PARTLY_RESTORED,
        Step.RESTORED,
        Step.IN_SERVICE,
        Step.FORGOTTEN,
        Step.MEMBERSHIP_DROPPED,
    }
)
"""The steps after which an entry can have fewer memberships than before."""


@dataclass(frozen=True, slots=True)
class LedgerCopy:
    """A ledger as storage holds it."""

    ledger: Ledger
    etag: str
    """Empty if it is not known."""


class LedgerMemory:
    """The newest ledger that one agent has read or written, without what no leader can have done.

    Attributes:
        newest: None before the first read.
        own: whether this agent itself has written it: then nothing is missing in it.
        latest: what any part of this agent has read or written last, whatever it is.
    """

    def __init__(self) -> None:
        self.newest: Ledger | None = None
        self.own = False
        self.latest: LedgerCopy | None = None

    def note(self, ledger: Ledger, etag: str = "") -> None:
        """Remember a ledger that was read, unless a newer one is known."""
        self.latest = LedgerCopy(ledger, etag)
        known = self.newest
        if known is None or not is_older(ledger, known):
            self.newest = ledger if known is None else _with_disputed(ledger, known)
            self.own = self.own and self.newest == known

    def wrote(self, ledger: Ledger) -> None:
        """Remember a ledger that this agent has written under its lease: nothing is newer."""
        self.newest, self.own, self.latest = ledger, True, LedgerCopy(ledger, "")


def next_epoch(ledger: Ledger) -> int:
    """Return the epoch of the next leader; a forged one must not end all tenures."""
    return min(ledger.epoch + 1, MAX_COUNT)


def is_older(read: Ledger, known: Ledger) -> bool:
    """Return whether storage holds an older ledger than one that was read before.

    The history decides: what contains the end of the known history continues it. Else the epoch
    does: every new leader increments it. Within an epoch one leader writes, and the history grows.
    Two leaders of one epoch mean that a leader began with an empty ledger. Such a ledger can reach
    a higher epoch than the known one; its history shows that it does not continue that.
    """
    if _continues(read, known):
        return False
    if read.epoch > known.epoch:
        near = read.epoch - known.epoch <= MAX_EPOCHS_AWAY
        # The end may be missing in a long history, whose oldest lines are dropped.
        cut = len(read.transitions) >= MAX_TRANSITIONS // 2
        return bool(known.transitions) and not (near and (cut or _recovers(read, known)))
    if read.epoch < known.epoch:
        return True
    if read.leader_since != known.leader_since:
        return True
    if not known.transitions:
        return False
    return not read.transitions or read.transitions[-1].at <= known.transitions[-1].at


def _continues(read: Ledger, known: Ledger) -> bool:
    """Return whether the history of one ledger contains the end of the other one."""
    return bool(known.transitions) and known.transitions[-1] in read.transitions


def _recovers(read: Ledger, known: Ledger) -> bool:
    """Return whether a leader with less memory has recovered all that is known to be out.

    The last lines of the known history may be missing: that leader had not read them.
    """
    return bool(read.transitions) and not _unrecovered(read, known)


def _unrecovered(read: Ledger, known: Ledger) -> list[Entry]:
    """Return the known entries that a ledger with another history lacks, or changes without a step.

    An entry that is not there has ended only if a leader had recovered it.
    """
    new = [line for line in read.transitions if line not in known.transitions]
    recovered = _vms(line for line in new if line.step == Step.RECOVERED)
    ended = _vms(line for line in new if line.step in ENDS_MEMBERSHIPS)
    named = _vms(new)

    def is_explained(entry: Entry) -> bool:
        found, vm = read.entry(entry.vm), fold(entry.vm)
        if found is None:
            return vm in recovered
        if not _covers(found, entry):
            return vm in ended
        return vm in named or _continued(found, entry)

    return [entry for entry in known.entries if not is_explained(entry)]


def disputed(read: Ledger, known: Ledger) -> tuple[Entry, ...]:
    """Return the known entries that a continued ledger lacks or changes without a step of the VM.

    A history that was cut may have lost the step: it disputes nothing.
    """
    if not _continues(read, known):
        return ()
    end = read.transitions.index(known.transitions[-1])
    explained = _vms(read.transitions[end + 1 :])
    return tuple(
        entry
        for entry in known.entries
        if fold(entry.vm) not in explained and not _continued(read.entry(entry.vm), entry)
    )


def _keys(entry: Entry) -> frozenset[MembershipKey]:
    return frozenset(m.key for m in (*entry.memberships, *entry.lost))


def _covers(read: Entry | None, known: Entry) -> bool:
    """Return whether an entry has every membership that is known of the VM."""
    return read is not None and _keys(known) <= _keys(read)


def _merged(read: Entry | None, known: Entry) -> Entry:
    """Return an entry with the memberships of both.

    If memberships are added to the newer entry, the VM has to be observed out again.
    """
    if read is None or _covers(known, read):
        return known
    added = tuple(m for m in known.memberships if m.key not in _keys(read))
    lost = tuple(m for m in known.lost if m.key not in _keys(read))
    return replace(
        read, memberships=(*read.memberships, *added), lost=(*read.lost, *lost), out_at=None
    )


def _vms(lines: Iterable[Transition]) -> frozenset[str]:
    """Return the folded names of the VMs of which these lines note a step of a drain."""
    return frozenset(fold(line.vm) for line in lines if line.step not in OUTSIDE)


def _continued(read: Entry | None, known: Entry) -> bool:
    """Return whether two entries record the same removal, in the same phase."""
    return (
        read is not None
        and fold(read.vm_id) == fold(known.vm_id)
        and (read.out_at is None) == (known.out_at is None)
        and (read.restoring_at is None) == (known.restoring_at is None)
        and (read.restored_at is None) == (known.restored_at is None)
        and read.gone == known.gone
        and _same(read.memberships, known.memberships)
        and _same(read.lost, known.lost)
    )


NOTED_WITHOUT_STEP = frozenset({"extra", "admin_state"})


def _same(read: tuple[Membership, ...], known: tuple[Membership, ...]) -> bool:
    """Return whether two lists hold the same memberships.

    A leader adds identities, and notes the adminState that people set meanwhile, without a step.
    """
    return len(read) == len(known) and all(
        type(one) is type(other)
        and all(
            getattr(one, each.name) == getattr(other, each.name)
            or (each.default == "" and getattr(other, each.name) == "")
            for each in fields(other)  # type: ignore[arg-type]
            if each.name not in NOTED_WITHOUT_STEP
        )
        for one, other in zip(read, known, strict=True)
    )


def _with_disputed(read: Ledger, known: Ledger) -> Ledger:
    for entry in disputed(read, known):
        read = read.with_entry(entry)
    return read


def _with_events(read: Ledger, known: Ledger) -> Ledger:
    """Return a ledger with the events and verdicts that only the known one has.

    Of two verdicts on an event the known one counts: a leader that began without a record had not
    followed the event.
    """
    added = [each for each in read.verdicts if not _is_judged(each, each.vm, known.verdicts)]
    verdicts = sorted((*known.verdicts, *added), key=lambda each: each.at)[-MAX_VERDICTS:]
    here = {fold(each.event_id) for each in read.events}
    missing = (each for each in known.events if fold(each.event_id) not in here)
    events = tuple(
        replace(
            event,
            vms=tuple(
                replace(vm, place=Place.JUDGED) if _is_judged(event, vm.vm, verdicts) else vm
                for vm in event.vms
            ),
        )
        for event in (*read.events, *missing)
    )
    return replace(read, events=events, verdicts=tuple(verdicts))


def _is_judged(
    event: WatchedEvent | EventVerdict, vm: str, verdicts: Iterable[EventVerdict]
) -> bool:
    return any(fold(each.vm) == fold(vm) and may_be_same(each, event) for each in verdicts)


def lacks_entries(read: Ledger, known: Ledger) -> bool:
    """Return whether storage lacks an entry that is known, or holds one that no leader changed."""
    if not is_older(read, known):
        return bool(disputed(read, known))
    return any(not _covers(read.entry(each.vm), each) for each in _unrecovered(read, known))


def recover(read: Ledger, known: Ledger, *, at: datetime, by: str) -> Ledger:
    """Return the ledger to continue from, given what was read and what is known.

    If all that was read is known too, the known ledger continues. Otherwise another leader has
    begun a new ledger: its entries and events stay, and those that only the known ledger has are
    added. In a ledger that continues the known one, what no step explains is as it was known.

    Args:
        read: as storage holds it.
        known: the newest ledger that this agent has seen.
        at: now.
        by: the VM of this agent.
    """
    if _continues(read, known):
        vms = [each.vm for each in disputed(read, known)]
        recovered = _with_disputed(read, known)
    elif not read.transitions or read.transitions[-1] in known.transitions:
        recovered = known
        vms = [each.vm for each in known.entries if read.entry(each.vm) != each]
    else:
        missing = _unrecovered(read, known)
        both = dict.fromkeys((*known.transitions, *read.transitions))
        lines = sorted(both, key=lambda line: line.at)[-MAX_TRANSITIONS:]
        epoch = max(read.epoch, known.epoch)
        recovered = _with_events(replace(read, epoch=epoch, transitions=tuple(lines)), known)
        for entry in missing:
            recovered = recovered.with_entry(_merged(read.entry(entry.vm), entry))
        vms = [each.vm for each in missing]
    for vm in vms:
        detail = f"the ledger was lost or changed; as the agent on {by} remembers it"
        recovered = recovered.noting(at=at, vm=vm, step=Step.RECOVERED, detail=detail)
    return recovered
