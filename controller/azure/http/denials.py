"""Parse the text of a refusal of Resource Manager: the permission, its scope, and the obstacle.

The texts are those of Azure's replies, as issues and documents quote them: a missing role
(`AuthorizationFailed`), a missing role on a resource that the request refers to
(`LinkedAuthorizationFailed`, in a singular and in a plural form), a deny assignment, direct or on
a linked scope (Azure/ARO-RP#423), and a resource of another tenant (Azure/azure-cli#27299).

The parser reads the whole text: a linked scope follows long after the id of the written resource.
"""

import re
from dataclasses import dataclass

from controller.errors import Obstacle

_MISSING_ROLE = re.compile(
    r"does not have (?:authorization|permission) to perform action(?:\(s\))? '([^']*)' "
    r"(?:over|on) (?:the )?(?:'\d+' )?(?:linked )?scope(?:\(s\))? '([^']*)'"
)
_ATTEMPTED = re.compile(r"perform action(?:\(s\))? '([^']*)' (?:over|on) scope '([^']*)'")
_DENY_ASSIGNMENT_ON = re.compile(
    r"blocked by deny assignments? on (?:the )?(?:'\d+' )?(?:linked )?scope(?:\(s\))? '([^']+)'"
)
_DENY_ASSIGNMENT = re.compile(r"denied because of the deny assignment")
_OTHER_TENANT = re.compile(
    r"tenant '[^']*' is not authorized to access linked subscription '([^']*)'", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """The missing permission. `action` and `scope` can each be a list, separated by commas."""

    obstacle: Obstacle
    action: str
    scope: str


def read_denial(text: str) -> Denial | None:
    """Return the missing permission; None when the text does not name it."""
    attempted = _ATTEMPTED.search(text)
    action, scope = attempted.groups() if attempted else ("", "")
    if foreign := _OTHER_TENANT.search(text):
        subscription = f"/subscriptions/{foreign[1]}"
        return Denial(obstacle=Obstacle.TENANT, action=action, scope=subscription)
    lacked = _MISSING_ROLE.search(text)
    if blocked := _DENY_ASSIGNMENT_ON.search(text):
        forbidden = lacked[1] if lacked else action
        return Denial(obstacle=Obstacle.DENY_ASSIGNMENT, action=forbidden, scope=blocked[1])
    if _DENY_ASSIGNMENT.search(text):
        return Denial(obstacle=Obstacle.DENY_ASSIGNMENT, action=action, scope=scope)
    if lacked:
        return Denial(obstacle=Obstacle.ROLE, action=lacked[1], scope=lacked[2])
    return None
