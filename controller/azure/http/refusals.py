"""What Azure refuses lastingly, by the code of its reply: no retry helps, an operator has to act.

The codes are those of Resource Manager (Microsoft docs, common deployment errors, locks, policy),
of storage (Microsoft docs, Blob Storage error codes) and of the token endpoint (azure-identity). A
reply that is a web page comes from a proxy or firewall: Azure answers with JSON or XML.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from controller.errors import Obstacle

OBSTACLES: Mapping[str, Obstacle] = MappingProxyType(
    {
        "scopelocked": Obstacle.LOCK,
        "requestdisallowedbypolicy": Obstacle.POLICY,
        "requestdisallowedbyazure": Obstacle.POLICY,
        "readonlydisabledsubscription": Obstacle.SUBSCRIPTION,
        "disabledsubscription": Obstacle.SUBSCRIPTION,
        "subscriptionnotfound": Obstacle.SUBSCRIPTION,
        "missingsubscriptionregistration": Obstacle.PROVIDER,
        "subscriptionnotregistered": Obstacle.PROVIDER,
        "accountisdisabled": Obstacle.ACCOUNT,
        "authorizationfailure": Obstacle.FIREWALL,
        "authorizationsourceipmismatch": Obstacle.FIREWALL,
        "keybasedauthenticationnotpermitted": Obstacle.KEY,
        "blobimmutableduetopolicy": Obstacle.IMMUTABLE,
        "blobarchived": Obstacle.ARCHIVED,
        "blobbeingrehydrated": Obstacle.ARCHIVED,
        "invalidblobtype": Obstacle.BLOB_TYPE,
        "authenticationfailed": Obstacle.AUTHENTICATION,
        "invalidauthenticationinfo": Obstacle.AUTHENTICATION,
        "invalidauthenticationtoken": Obstacle.AUTHENTICATION,
        "invalidauthenticationtokentenant": Obstacle.AUTHENTICATION,
        "expiredauthenticationtoken": Obstacle.AUTHENTICATION,
    }
)
"""By code in lower case."""

_LOCKED = re.compile(r"scope\(s\) are locked: ((?:'[^']+'(?:, ?)?)+)")
_POLICY = re.compile(r'"policyAssignment":\s*\{[^{}]*?"id":\s*"([^"]+)"')
_SEVERAL = re.compile(r"multiple user.?assigned identities", re.IGNORECASE)
_PAGE = re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE)
PROXY_AUTHENTICATION_REQUIRED = 407
_ASK_AGAIN = frozenset({408, 410, 429})


def obstacle_of(codes: Iterable[str]) -> Obstacle | None:
    """Return what stands in the way lastingly; None when the codes name nothing of that kind."""
    return next((OBSTACLES[code] for code in sorted(codes) if code in OBSTACLES), None)


def scope_of(obstacle: Obstacle, text: str) -> str:
    """Return what the text of a refusal names: the locked scope, or the policy assignment."""
    if obstacle is Obstacle.LOCK and (match := _LOCKED.search(text)):
        return match[1].replace("'", "").replace(" ", "")
    if obstacle is Obstacle.POLICY:
        return ",".join(dict.fromkeys(_POLICY.findall(text)))
    return ""


def is_not_azure(status: int, body: bytes) -> bool:
    """Return whether a proxy or firewall refused the request, and not Azure.

    While Azure is unavailable or throttles, its own front end answers with pages too.
    """
    refusal = 400 <= status < 500 and status not in _ASK_AGAIN
    return status == PROXY_AUTHENTICATION_REQUIRED or (refusal and _PAGE.match(body) is not None)


def names_several_identities(text: str) -> bool:
    """Return whether the token endpoint refuses to choose one of several identities."""
    return _SEVERAL.search(text) is not None
