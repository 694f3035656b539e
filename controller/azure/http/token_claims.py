"""Claims of an access token. They are read for messages only, and never verified."""

import base64
import binascii
import json
from typing import cast

MAX_CLAIM_CHARACTERS = 100
_DISPLAY_NAMES = (
    "upn",
    "unique_name",
    "preferred_username",
    "app_displayname",
    "appid",
    "oid",
)
"""Claims that identify the caller, the most readable first."""


def principal_of(token: str) -> str:
    """Return the object id of the identity; empty when the token does not contain it."""
    return _first_claim(token, ("oid",))


def display_name_of(token: str) -> str:
    """Return the most readable name of the identity; empty when the token contains none."""
    return _first_claim(token, _DISPLAY_NAMES)


def _first_claim(token: str, names: tuple[str, ...]) -> str:
    """Return the first of these claims that is short printable text; empty if none is."""
    try:
        payload = token.split(".")[1]
        padding = "=" * (-len(payload) % 4)
        claims: object = json.loads(base64.urlsafe_b64decode(payload + padding))
    except (IndexError, ValueError, RecursionError, binascii.Error):
        return ""
    if not isinstance(claims, dict):
        return ""
    for name in names:
        found = cast("dict[str, object]", claims).get(name)
        if not isinstance(found, str) or not found.isprintable():
            continue
        if 0 < len(found) < MAX_CLAIM_CHARACTERS:
            return found
    return ""
