"""What the responder is given: a few checked values, passed as one JSON argument.

`lb-drain probe` checks the configuration and then replaces its process with one that imports only
this package: a responder needs a third of the memory that the configuration needs.
"""

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

AZURE_PROBE_ADDRESSES = ("168.63.129.16", "fe80::/10")
"""The addresses that Azure's health probes come from, over IPv4 and over IPv6.
https://learn.microsoft.com/en-us/azure/load-balancer/load-balancer-custom-probes-overview"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """The settings of the responder, as `[probe]` and `[drain]` have them."""

    host: str
    port: int
    path: str
    check: str
    """URL of the application's own check, http:// or tcp://; empty without one."""
    allow: tuple[str, ...]
    """Addresses and networks that get an answer."""
    flag_file: str
    """Path of the flag file; empty without one, and then the VM is always open."""
    open_after_s: float
    """Seconds after the last change of the flag file at which it no longer counts (law S9)."""
    state_directory: str = ""
    """A directory of the responder's own that outlasts a reboot; empty without one."""
    boot_id: str = ""
    """Identifies the boot of the machine; empty if that is not known."""

    def to_json(self) -> str:
        """Return the settings as one argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ProbeSettings":
        """Return the settings that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["allow"] = tuple(values["allow"])
        return cls(**values)


class AllowedSources:
    """Decides which sources get an answer. An IPv4 address in IPv6 notation counts as IPv4."""

    def __init__(self, allow: tuple[str, ...]) -> None:
        self._networks = tuple(ip_network(each, strict=False) for each in allow)

    def allows(self, source: str) -> bool:
        """Return whether `source`, as the socket names it, gets an answer."""
        address = plain_address(source)
        return address is not None and any(address in network for network in self._networks)


def plain_address(source: str) -> IPv4Address | IPv6Address | None:
    """Return the address without a zone and without IPv6 notation for IPv4; None if it is none."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
