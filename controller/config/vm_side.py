"""The settings of the VM's own side of a drain: `[drain]`, `[probe]` and `[[hooks]]`.

The same file serves every VM of the set. Every key is optional.
"""

import os
from ipaddress import ip_network
from typing import Annotated, Literal, cast
from urllib.parse import SplitResult

from pydantic import Field, ValidationInfo, field_validator

from controller.config.base import Section, is_host, is_loopback, meets, socket_address, split_url
from controller.probe.settings import AZURE_PROBE_ADDRESSES
from controller.system.paths import DEFAULTS

Port = Annotated[int, Field(ge=1, le=65535)]
QuietSeconds = Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)]
OpenAfterSeconds = Annotated[float, Field(ge=60, le=86_400, allow_inf_nan=False)]
HookSeconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Drain(Section):
    """How this VM takes part in its own drain; `[drain]`."""

    flag_file: str = str(DEFAULTS.flag_file)
    """Absolute path of a file that exists while the VM is closed. Web servers and health pages can
    look at it. Empty: no file."""
    service_ports: Annotated[tuple[Port, ...], Field(strict=False, max_length=64)] = ()
    """Local ports whose connections have to end before the VM is quiet. Empty (default): the
    backend ports of the load balancing rules of the managed pools."""
    quiet_s: QuietSeconds = 2
    """Seconds without a connection after which the VM is quiet. A pooled client opens its next
    connection within less."""
    open_after_s: OpenAfterSeconds = 3600
    """Seconds without news from storage after which a closed VM opens by itself, unless an event
    for it is still announced."""

    @field_validator("flag_file")
    @classmethod
    def _check_flag_file(cls, value: str) -> str:
        if value and not (os.path.isabs(value) and value.isprintable() and os.path.basename(value)):
            raise ValueError('must be the absolute path of a file; write "" for no flag file')
        return value

    @field_validator("service_ports")
    @classmethod
    def _check_ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))


class Probe(Section):
    """The responder of the load balancer's health probe, `lb-drain probe`; `[probe]`."""

    listen: str = ""
    """Listen address, host:port, such as "0.0.0.0:9810". Empty (default): no responder."""
    path: str = "/"
    """The only path that is answered, with GET and HEAD."""
    check: str = ""
    """The application's own check: "http://127.0.0.1:8080/ready", whose answer must be 200, or
    "tcp://127.0.0.1:8080", which must accept a connection. Not a health page that answers 503
    while the flag file exists: that file is removed only after the check has succeeded. Empty: an
    open VM is ready."""
    allow: Annotated[tuple[str, ...], Field(strict=False, max_length=32)] = (
        *AZURE_PROBE_ADDRESSES,
        "127.0.0.0/8",
        "::1",
    )
    """Addresses and networks that get an answer."""

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host = socket_address(value)[0] if value else ""
        if host and not is_host(host):
            raise ValueError('is not host:port; write for example "0.0.0.0:9810"')
        return value

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        plain = value.isascii() and value.isprintable() and not set(value) & set(" ?#")
        if not value.startswith("/") or not plain:
            raise ValueError("must be the path of a URL that starts with /, without ? and #")
        return value

    @field_validator("check")
    @classmethod
    def _check_check(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return value
        url = split_url(value)
        if url.scheme not in ("http", "tcp") or not is_loopback(url.hostname):
            raise ValueError(
                "must be an http:// or tcp:// URL of this VM, such as http://127.0.0.1:8080/ready"
            )
        _check_target(url)
        listen = cast("str", info.data.get("listen") or "")
        if listen and meets(listen, url.hostname or "", url.port or 80):
            raise ValueError(
                "asks the responder itself, which listens there: give the address of the "
                "application"
            )
        return value

    @field_validator("allow")
    @classmethod
    def _check_allow(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                ip_network(each, strict=False)
            except ValueError:
                raise ValueError(
                    f"{each[:60]!r} is not an IP address or network; write for example "
                    '"168.63.129.16" or "10.0.0.0/24"'
                ) from None
        return value


def _check_target(url: SplitResult) -> None:
    if url.scheme == "tcp" and (url.port is None or url.path or url.query):
        raise ValueError("must be tcp://host:port without a path")
    target = url.path + url.query
    if not target.isascii():
        raise ValueError("must have an ASCII path; write other characters as %XX")


class Hook(Section):
    """A command that runs on the affected VM when its drain reaches a stage; `[[hooks]]`."""

    on: Literal["closing", "closed", "opening", "opened"]
    """`closing`: the VM begins to close. `closed`: no connection is left, or the time is over.
    `opening`: its pools have it again. `opened`: it takes new work."""
    command: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=64)]
    """The program, by its absolute path, and its arguments. No shell reads them."""
    timeout_s: HookSeconds = 30
    """Seconds after which the command is stopped."""

    @field_validator("command")
    @classmethod
    def _check_command(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not os.path.isabs(value[0]):
            raise ValueError(
                "must begin with the absolute path of a program; to use a shell, write "
                f'[{DEFAULTS.shell_words}, "..."]'
            )
        if any("\0" in part for part in value):
            raise ValueError("must not contain NUL characters")
        return value
