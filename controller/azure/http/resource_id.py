"""The ids of Azure resources."""

import re
from dataclasses import dataclass

from controller.core.printable import excerpt
from controller.errors import ContractViolation

_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/(?P<provider>[^/]+)/(?P<rest>[^/]+/[^/]+(?:/[^/]+/[^/]+)*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceId:
    """The parts of a resource id, in the spelling of Azure."""

    subscription: str
    group: str
    provider: str
    names: tuple[str, ...]
    """The name of the resource, after the names of its parents."""

    @classmethod
    def parse(cls, text: str) -> "ResourceId":
        """Return the parts of an id. Raises ContractViolation for any other text."""
        match = _ID.fullmatch(text.rstrip("/"))
        if match is None:
            raise ContractViolation(f"{excerpt(text)!r} is not the id of an Azure resource")
        return cls(
            subscription=match["subscription"],
            group=match["group"],
            provider=match["provider"],
            names=tuple(match["rest"].split("/")[1::2]),
        )
