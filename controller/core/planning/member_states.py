"""The adminState of members of pools: what its values mean, and where it is not written any more.

Azure spells the values None, Up and Down and takes them in any case (Microsoft docs, Load Balancer,
administrative state). A value that it does not document takes nothing out of rotation here.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass
from enum import StrEnum

from controller.core.azure_names import fold
from controller.core.observation import Observation
from controller.core.resources import LoadBalancingRule


class Lack(StrEnum):
    """What a member that is in its pool again still lacks."""

    ADMIN_STATE = "admin state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the adminState of a pool's members is not written any more, in this tenure."""

    reason: str
    denied: bool = False
    """The role does not allow it; otherwise the pool does not take it."""


def view_of(pool_id: str) -> str:
    """Return under which id `Observation.views` has the refusal of a pool."""
    return f"{fold(pool_id)}?admin-state"


def refusal(observed: Observation, pool_id: str) -> Refusal | None:
    """Return why the adminState of a pool's members is not written any more; None if it is."""
    found = observed.views.get(view_of(pool_id))
    return found if isinstance(found, Refusal) else None


def is_refused(observed: Observation, pool_id: str) -> bool:
    """Return whether a pool does not take adminState. What a role lacks is reported instead."""
    found = refusal(observed, pool_id)
    return found is not None and not found.denied


def has_effect(observed: Observation, pool_id: str) -> bool:
    """Return whether Down takes a member out: every rule of the pool is known to have a probe."""
    rules = _rules(observed, pool_id)
    return bool(rules) and all(rule.probe is not None for rule in rules)


def has_no_effect(observed: Observation, pool_id: str) -> bool:
    """Return whether a rule of the pool is known to have no probe. A leader whose reads of the load
    balancer fail knows no rule: an earlier one knew them all when it set a member Down."""
    return any(rule.probe is None for rule in _rules(observed, pool_id))


def _rules(observed: Observation, pool_id: str) -> list[LoadBalancingRule]:
    pool = fold(pool_id)
    return [rule for rule in observed.rules if pool in {fold(each) for each in rule.pool_ids}]


def is_down(state: str) -> bool:
    """Return whether a member with this adminState gets no new connections."""
    return fold(state) == "down"


def is_neutral(state: str) -> bool:
    """Return whether a member follows the probe: it has no adminState, or None."""
    return fold(state) in {"", "none"}


def state_lost_with_nic(state: str) -> str:
    """Return the adminState that a NIC loses as it leaves a pool; empty if it loses none."""
    return "" if is_neutral(state) else state
