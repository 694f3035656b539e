"""Azure's names and ids: how two spellings compare, and what an id contains.

Standard library only.
"""

import ipaddress
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


@lru_cache(maxsize=4096)  # every pass folds the same few ids, thousands of times
def fold(name: str) -> str:
    """Return the form in which two spellings of one Azure name or id are equal.

    Azure changes the case of ids between calls, and very old event documents put one underscore
    before resource names (Microsoft docs, Scheduled Events, version 2017-03-01).
    """
    return name.removeprefix("_").casefold().rstrip("/")


@lru_cache(maxsize=4096)
def fold_address(address: str) -> str:
    """Return the form in which two spellings of one IP address are equal (IPv6 has many).

    What is no address equals itself only: "_10.0.0.4" is a broken reply, not 10.0.0.4.
    """
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def load_balancer_of(pool_id: str) -> str:
    """Return the id of the load balancer that owns a pool, in the pool id's spelling."""
    cut = pool_id.casefold().rfind("/backendaddresspools/")
    return pool_id[:cut]


def nic_of(ip_configuration_id: str) -> tuple[str, str]:
    """Split an ipConfiguration id into the NIC's id and the ipConfiguration's name."""
    cut = ip_configuration_id.casefold().rfind("/ipconfigurations/")
    return ip_configuration_id[:cut], ip_configuration_id[cut + len("/ipconfigurations/") :]


def resource_group_of(resource_id: str) -> str:
    """Return the folded id of the resource group that a resource is in."""
    return fold(resource_id).partition("/providers/")[0]


def group_name(resource_id: str) -> str:
    """Return the name of the resource group that a resource is in, as it is spelled there."""
    cut = resource_id.casefold().find("/resourcegroups/")
    return resource_id[cut:].split("/")[2] if cut >= 0 else ""


def short(resource_id: str) -> str:
    """Return the last part of an id, for people to read."""
    return resource_id.rstrip("/").rsplit("/", 1)[-1]


class SetKind(Enum):
    """The kinds of sets; the values are for people to read."""

    AVAILABILITY_SET = "availability set"
    SCALE_SET = "scale set"

    @classmethod
    def of(cls, set_id: str) -> "SetKind":
        """Return of which kind the set with this id is."""
        scale = "/virtualmachinescalesets/" in fold(set_id)
        return cls.SCALE_SET if scale else cls.AVAILABILITY_SET


@dataclass(frozen=True, slots=True, kw_only=True)
class SetName:
    """How a set is named: an availability set, or a flexible scale set."""

    name: str
    resource_group: str = ""
    subscription: str = ""

    @classmethod
    def of(cls, set_id: str) -> "SetName":
        """Return the name in the id of a set; a part that the id lacks is empty."""
        parts = set_id.strip("/").split("/")
        named = {key.casefold(): value for key, value in zip(parts[::2], parts[1::2], strict=False)}
        return cls(
            name=short(set_id),
            resource_group=named.get("resourcegroups", ""),
            subscription=named.get("subscriptions", ""),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.resource_group})" if self.resource_group else self.name
