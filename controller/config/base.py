"""What every table of the configuration shares: strictness, and checks of URLs and addresses."""

import ipaddress
import os
import re
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One table: frozen and strict. Unknown keys are errors, and no error repeats its input."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, hide_input_in_errors=True
    )


def is_loopback(host: str | None) -> bool:
    """Return whether a host name or address can only be this host."""
    if host and host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def split_url(value: str) -> SplitResult:
    """Split a URL. Raises ValueError, which never repeats the URL: it can contain a secret."""
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


_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def is_host(text: str) -> bool:
    """Return whether a text is an IP address or can be a host name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # A last part of digits is an address that is wrong: no top-level domain has that form.
        return _HOST.fullmatch(text) is not None and not text.rpartition(".")[2].isdigit()
    return True


def socket_address(listen: str) -> tuple[str, int]:
    """Split host:port into host and port. Raises ValueError if it is something else."""
    host, separator, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = port if port.isascii() and port.isdigit() and len(port) <= 5 else ""
    if not separator or not number or int(number) > 65535:
        raise ValueError('is not host:port; write for example "127.0.0.1:9808"')
    return host, int(number)


def meets(listen: str, host: str, port: int) -> bool:
    """Return whether the listener `listen`, host:port, is also reached at a loopback address."""
    own_host, own_port = socket_address(listen)
    if own_port != port or not port:
        return False
    try:
        if not own_host or ipaddress.ip_address(own_host).is_unspecified:
            return True
    except ValueError:
        pass
    names = {each.casefold().strip("[]") for each in (own_host, host)}
    return len(names) == 1 or (is_loopback(own_host) and "localhost" in names)


def check_ports(probe: str, server: str) -> None:
    """Check that the responder and the agent do not need the same port. Empty: no listener.

    Raises:
        ValueError: they do.
    """
    if probe and server and meets(probe, *listen_address(server)):
        raise ValueError(
            f"has listen {probe}, and [server] listen is {server}: two programs cannot use one "
            "port; change one port"
        )


def listen_address(listen: str) -> tuple[str, int]:
    """Split host:port into host and port.

    Raises:
        ValueError: it is something else, or not a loopback address.
    """
    host, port = socket_address(listen)
    if not is_loopback(host):
        raise ValueError(
            "is not a loopback address; use 127.0.0.1, ::1 or localhost, because requests are "
            "not authenticated"
        )
    return host, port


def check_ca_file(value: str) -> str:
    """Return the path of a file with certificates, or an empty text.

    Raises:
        ValueError: this user cannot read the file, or the path is not absolute.
    """
    # os.path returns False for a name that no file can have; pathlib raises.
    readable = os.path.isfile(value) and os.access(value, os.R_OK)
    if value and not (os.path.isabs(value) and readable):
        raise ValueError(
            "is not a file that this user can read; give its absolute path or remove the key"
        )
    return value


def check_origin(value: str, *, scheme: str) -> str:
    """Return a URL of only scheme, host and port, without a final slash.

    Raises:
        ValueError: it is anything else.
    """
    url = split_url(value)
    if url.scheme != scheme:
        raise ValueError(f"must start with {scheme}://")
    if url.path not in ("", "/") or url.query:
        raise ValueError(f"must be only {scheme}://host or {scheme}://host:port")
    return value.rstrip("/")
