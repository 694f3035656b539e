"""Operations on a NIC that do not end: it stays Updating, and its view proves nothing.

A NIC in Updating is repaired by a GET and a PUT. So the write that is wanted is sent again, and its
end proves what the passage of time does not (laws S1, S5). Azure refuses it while an operation
really runs (409, 429).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from controller.core.azure_names import short
from controller.core.ledger import Entry
from controller.core.planning.actions import HoldReason
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanism import Proof
from controller.core.planning.steps import Change, HoldBack, Steps
from controller.core.resources import Membership

HUNG_S = 180.0
"""How long a NIC is Updating before its operation hangs. A write is followed for 120 s, and NICs
take 10 to 15 s (outliers over a minute, Azure/azure-sdk-for-python#26695)."""


def is_over_due(
    updating_since: datetime | None, sent_at: datetime | None, seen_at: datetime
) -> bool:
    """Return whether an operation hangs, and no write was sent for as long.

    Args:
        updating_since: since when the NIC is Updating; None if it is not.
        sent_at: when a write of the NIC was last sent; None if that is not known.
        seen_at: when the NIC was last seen.
    """
    if updating_since is None:
        return False
    return max(updating_since, sent_at or updating_since) + timedelta(seconds=HUNG_S) <= seen_at


def to_write_again(evidence: Evidence, entry: Entry) -> tuple[Membership, ...]:
    """Return what a restore writes, because it is not known how its removal ended.

    Not where no removal was sent: then none can take effect late.
    """
    if entry.removed or entry.unread_at or evidence.policy.close_only:
        return ()
    if all(m.key in evidence.observed.unsent for m in entry.memberships):
        return ()
    method_of, views = evidence.mechanisms.of, evidence.views
    return tuple(m for m in entry.memberships if method_of(m).is_over_due(views, m))


def restore(evidence: Evidence, entry: Entry, outside: tuple[Membership, ...]) -> Steps:
    """Write what is outside. A NIC that stays Updating is written every few minutes only: Azure
    refuses it as long as its operation runs, and each refusal makes writes of other VMs wait."""
    method_of, views = evidence.mechanisms.of, evidence.views
    proofs = tuple(evidence.proofs_back(entry))
    hanging = {each.read.key for each in proofs if _hangs(evidence, entry.vm, each)}
    now = tuple(
        m
        for m in outside
        if method_of(m).shown_by(m).key not in hanging or method_of(m).is_over_due(views, m)
    )
    if now:
        yield Change(memberships=now, restore=True)
    yield from watch(evidence, entry.vm, proofs)


def report(evidence: Evidence, vm: str, proof: Proof) -> Steps:
    """Report a VM whose NIC stays Updating."""
    if _hangs(evidence, vm, proof):
        name = short(proof.read.key.resource)
        message = (
            f"{vm} waits: an operation on its NIC {name} does not end (provisioningState "
            "Updating), and may still take it out of its pools or put it back"
        )
        yield HoldBack(subject=vm, reason=HoldReason.NIC_UPDATING, message=message)


def watch(evidence: Evidence, vm: str, proofs: Iterable[Proof]) -> Steps:
    """Report NICs that stay Updating while they are written, and read them meanwhile."""
    for proof in proofs:
        if _hangs(evidence, vm, proof):
            yield from report(evidence, vm, proof)
            yield from evidence.read_again(proof)


def _hangs(evidence: Evidence, vm: str, proof: Proof) -> bool:
    """Return whether an operation hangs. A hold lasts until the NIC is not Updating any more."""
    since, seen_at, views = proof.updating_since, proof.seen_at, evidence.views
    if since is None or seen_at is None:
        return False
    held = views.held_since(vm, HoldReason.NIC_UPDATING) is not None
    return held or is_over_due(since, views.leader_since, seen_at)
