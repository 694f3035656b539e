"""One managed backend pool, as an operator configures it."""

import re
from typing import Literal

from pydantic import field_validator

from controller.config.base import Section
from controller.core import policy as core

_POOL_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/?#\s]+)/resourceGroups/(?P<group>[^/?#\s]+)/providers/Microsoft\.Network"
    r"/loadBalancers/(?P<lb>[^/?#\s]+)/backendAddressPools/(?P<pool>[^/?#\s]+)",
    re.IGNORECASE,
)
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PERCENT = re.compile(r"(\d{1,3})%")


class BackendPool(Section):
    """One managed backend pool; `[[backend_pools]]`."""

    id: str
    """Full resource id of the pool. Case does not matter, because Azure changes the case of ids."""
    min_in_service: int | str = 1
    """Capacity floor: the number of members that must stay in rotation, or a percentage of the full
    pool such as "50%". The default of 1 keeps the service up and lets a pool of two drain."""

    shared: Literal["coordinate", "ignore"] = "coordinate"
    """What machines outside the availability set count for the floor. By default only those whose
    set takes part in the same container count: another leader can drain the others at any moment.
    "ignore" counts every member, and states nothing to other sets."""

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str) -> str:
        if (match := _POOL_ID.fullmatch(value)) is None:
            raise ValueError(
                "is not the id of a load balancer backend pool; write the full id: /subscriptions/"
                "<id>/resourceGroups/<group>/providers/Microsoft.Network/loadBalancers/<lb>/"
                "backendAddressPools/<pool>"
            )
        if _GUID.fullmatch(match["subscription"]) is None:
            raise ValueError(
                "must name the subscription by its id, a GUID such as "
                "11111111-2222-4333-8444-555555555555; copy the pool's id as Azure shows it"
            )
        return value

    @field_validator("min_in_service", mode="before")
    @classmethod
    def _check_min_in_service(cls, value: object) -> object:
        count = value if isinstance(value, int) and not isinstance(value, bool) else None
        if isinstance(value, str) and (match := _PERCENT.fullmatch(value)):
            count = int(match[1])
            if count > 100:
                raise ValueError("is more than the whole pool; write 0% to 100%")
        if count is None or count < 0:
            raise ValueError('must be a whole number from 0, or a percentage such as "50%"')
        return value

    @property
    def floor(self) -> core.Floor:
        """The floor as the core counts it."""
        ignores = self.shared == "ignore"
        if isinstance(self.min_in_service, int):
            return core.Floor(number=self.min_in_service, ignores_other_sets=ignores)
        number = int(self.min_in_service.removesuffix("%"))
        return core.Floor(number=number, percent=True, ignores_other_sets=ignores)
