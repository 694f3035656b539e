"""What the clients do, and what they have seen. Losses are counted for each kind of client.

The kinds are those that real services have. Durations are those of real clients: a demo in which
everything is faster accelerates its load too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Self

MAX_LOST_KEPT = 10_000


class Kind(Enum):
    """A kind of client, by the connections that it uses."""

    SHORT = "short"
    """One request per connection."""
    POOLED = "pooled"
    """Keep-alive connections that their client gives up after seconds or minutes."""
    PERSISTENT = "persistent"
    """One keep-alive connection for ever: until the server ends it."""
    SLOW = "slow"
    """One request per connection; the server needs long for the answer."""
    UPLOAD = "upload"
    """One request per connection; the client needs long to send it."""
    STREAM = "stream"
    """A connection as of a WebSocket, for messages and their answers. It ends when the server asks
    for it. Each message counts as a request."""


HOLDING = (Kind.POOLED, Kind.PERSISTENT, Kind.STREAM)
"""Kinds whose clients hold a connection between two requests."""

Mix = Mapping[Kind, float]
"""Share of each kind in the requests; the shares add up to 1."""

MIXES: Mapping[str, Mix] = {
    "short": {Kind.SHORT: 1.0},
    "mixed": {
        Kind.SHORT: 0.3,
        Kind.POOLED: 0.3,
        Kind.PERSISTENT: 0.2,
        Kind.SLOW: 0.05,
        Kind.UPLOAD: 0.05,
        Kind.STREAM: 0.1,
    },
    "persistent": {Kind.PERSISTENT: 1.0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the users do."""

    rate_per_s: float = 100.0
    """Requests per second; 0 for none at all."""
    mix: Mix = field(default_factory=lambda: MIXES["mixed"])
    pause_s: float = 1.0
    """Between two requests of a client that holds its connection: this on average. The rate
    follows from the number of such clients."""
    pooled_age_s: tuple[float, float] = (5.0, 120.0)
    """Shortest and longest age at which the client of a pooled connection gives it up."""
    slow_s: float = 10.0
    """Time of the server for a slow answer."""
    upload_s: float = 10.0
    """Time of the client for an upload."""
    timeout_s: float = 2.0
    """A request is lost without its whole answer after this, and the time it needs by itself."""
    addresses: int = 1
    """Number of client addresses that requests come from, 1 to 254."""
    seed: int = 1

    def accelerated(self, factor: float) -> Self:
        """Return the load of clients that do everything this many times faster, but give up."""
        youngest, oldest = self.pooled_age_s
        return replace(
            self,
            pooled_age_s=(youngest / factor, oldest / factor),
            slow_s=self.slow_s / factor,
            upload_s=self.upload_s / factor,
        )

    def rate_of(self, kind: Kind) -> float:
        """Return the requests per second of one kind."""
        return self.rate_per_s * self.mix.get(kind, 0.0)

    def patience_s(self, kind: Kind) -> float:
        """Return how long a client of this kind waits for its answer."""
        needed = {Kind.SLOW: self.slow_s, Kind.UPLOAD: self.upload_s}
        return self.timeout_s + needed.get(kind, 0.0)


class Loss(Enum):
    """Why a request was lost."""

    REFUSED = "refused"
    RESET = "reset"
    CLOSED = "closed"
    """The connection ended in good order, before the answer."""
    TIMEOUT = "timeout"
    WRONG_ANSWER = "wrong_answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """One lost request. Times are epoch seconds."""

    kind: Kind
    at: float
    """When it was sent."""
    until: float
    """When the client gave up."""
    connected_at: float
    """When its connection was opened; `at` if it got none."""
    reason: Loss
    backend: str | None
    """The VM that it was given to, if any."""


@dataclass(frozen=True, slots=True)
class KindCounts:
    """Requests of one kind. Those still waiting make up the rest of `sent`."""

    sent: int = 0
    ok: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the users have seen."""

    by_kind: Mapping[Kind, KindCounts]
    ok_by_backend: Mapping[str, int] = field(default_factory=dict[str, int])
    losses: tuple[Lost, ...] = ()
    """The first 10,000 lost requests, oldest first."""
    latency_max_s: float = 0.0

    @property
    def sent(self) -> int:
        """Requests of all kinds."""
        return sum(counts.sent for counts in self.by_kind.values())

    @property
    def ok(self) -> int:
        """Requests with a good answer."""
        return sum(counts.ok for counts in self.by_kind.values())

    @property
    def lost(self) -> int:
        """Lost requests."""
        return sum(counts.lost for counts in self.by_kind.values())

    def as_json(self) -> dict[str, object]:
        """Return the totals, and by kind in the order of `Kind`."""
        by_kind = {
            kind.value: {"sent": counts.sent, "lost": counts.lost}
            for kind, counts in self.by_kind.items()
        }
        return {"sent": self.sent, "lost": self.lost, "by_kind": by_kind}


class Tally:
    """Counts requests while they happen."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self._sent = dict.fromkeys(kinds, 0)
        self._ok = dict.fromkeys(kinds, 0)
        self._lost = dict.fromkeys(kinds, 0)
        self._ok_by_backend: dict[str, int] = {}
        self._losses: list[Lost] = []
        self._latency_max_s = 0.0

    def sent(self, kind: Kind) -> None:
        """Count a request that is being sent."""
        self._sent[kind] += 1

    def answered(self, kind: Kind, backend: str, latency_s: float) -> None:
        """Count a good answer."""
        self._ok[kind] += 1
        self._ok_by_backend[backend] = self._ok_by_backend.get(backend, 0) + 1
        self._latency_max_s = max(self._latency_max_s, latency_s)

    def lost(self, lost: Lost) -> None:
        """Count a lost request."""
        self._lost[lost.kind] += 1
        if len(self._losses) < MAX_LOST_KEPT:
            self._losses.append(lost)

    def counts(self) -> Counts:
        """Return the figures up to now."""
        return Counts(
            by_kind={
                kind: KindCounts(self._sent[kind], self._ok[kind], self._lost[kind])
                for kind in self._sent
            },
            ok_by_backend=dict(sorted(self._ok_by_backend.items())),
            losses=tuple(self._losses),
            latency_max_s=self._latency_max_s,
        )
