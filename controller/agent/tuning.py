"""Timing constants of the agent that are no configuration, in one injectable value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """All in seconds; production uses the defaults."""

    start_retry_s: float = 5.0
    """At least this long between two attempts to start while Azure does not answer."""
    pool_check_retry_s: float = 2.0
    """Between two checks of a configured pool that was not found."""
    shortest_lease_read_s: float = 1.0
    """A standby reads the state of the lease no more often than this."""
    drain_requests_poll_s: float = 5.0
    """Between two reads of the drain requests, by the leader."""


DEFAULT_TUNING = Tuning()
