"""The values of every simulated service: a received request and the reply to send.

`handle(request, now) -> Reply` functions are pure over the world they are given; only `server.py`
turns these values into sockets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Service(Enum):
    """Which of the services a request is addressed to."""

    IMDS = "imds"
    ARM = "arm"
    BLOB = "blob"
    HUB = "hub"
    """An Azure Stack Hub: its administrator endpoint and its sign-in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Header names are lower case; `query` keeps duplicates, in order."""

    service: Service
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    vm: str | None = None
    """IMDS only: the VM of this endpoint. For ARM and Blob, the bearer token names the caller."""

    def parameter(self, name: str, default: str = "") -> str:
        """Return the first query parameter called `name`, compared without case."""
        wanted = name.casefold()
        return next((value for key, value in self.query if key.casefold() == wanted), default)


class Delivery(Enum):
    """What happens to a reply on the network."""

    NORMAL = "normal"
    RESET = "reset"
    """The connection is reset instead of answering, whether the request had its effect or not."""
    HANG = "hang"
    """Nothing is ever sent; the client must time out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP reply, and whether it arrives."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    delivery: Delivery = Delivery.NORMAL
    delay_s: float = 0.0
