"""Which memberships of one resource go into one write, when writes of it are refused.

One write covers all memberships of a resource: one PUT, one operation. Azure refuses such a write
as a whole when one membership cannot be written (the role may not join that pool, its rules
collide, an address does not fit its network). So a write that was refused is halved until it
succeeds or one membership is left. That membership is then sent alone, with a back-off of its own,
and keeps no other one waiting (law L2).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from controller.core.action_keys import ActionKey
from controller.core.planning.actions import ChangeMembership, WriteMethod, key_alone
from controller.core.resources import Membership

WHOLE_TRIES = 2
"""A write is refused this often before it is halved: the first refusal may pass by itself."""


def writes(
    method: WriteMethod[Any],
    memberships: Sequence[Membership],
    *,
    restore: bool,
    refusals: Callable[[ActionKey], int],
) -> Iterator[ChangeMembership]:
    """Yield the writes of one resource; the first that is not deferred is to be sent.

    Args:
        method: how the memberships are written.
        memberships: what has to be written, at least one.
        restore: the direction.
        refusals: how often writes with a key were refused in a row.
    """

    def refused_alone(membership: Membership) -> int:
        return refusals(key_alone(method, membership, restore=restore))

    def write(items: Sequence[Membership], *, alone: bool) -> ChangeMembership:
        return ChangeMembership(
            method=method, memberships=tuple(items), restore=restore, alone=alone
        )

    together = [each for each in memberships if not refused_alone(each)]
    if together:
        whole = method.key(together[0], restore=restore)
        size = max(1, len(together) >> max(0, refusals(whole) - WHOLE_TRIES + 1))
        yield write(together[:size], alone=size == 1 < len(memberships))
    for membership in sorted((m for m in memberships if m not in together), key=refused_alone):
        yield write([membership], alone=True)
