"""What every table of the configuration shares: strictness, and care with URLs."""

import ipaddress
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One table: frozen, strict, unknown keys are errors, and no error repeats its input."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, hide_input_in_errors=True
    )


def is_loopback(host: str | None) -> bool:
    """Tell whether a host name or address can only be this host."""
    if host and host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def split_url(value: str) -> SplitResult:
    """Split a URL without ever repeating what may be a secret in it."""
    try:
        url = urlsplit(value)
        url.port  # noqa: B018 -- raises for a port that is not a number
    except ValueError:
        raise ValueError("is not a URL") from None
    if not url.hostname or not value.isprintable() or " " in value:
        raise ValueError("is not a URL with a scheme and a host")
    if url.username is not None or url.password is not None or url.fragment:
        raise ValueError("must have no user name, password or '#' part")
    return url
