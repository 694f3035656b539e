"""Notices of one agent: a service that it cannot reach, and a set without a leader.

Every agent sends its own; they are not stored.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass
from datetime import datetime

from controller.core.notices.notice import Notice, NoticeKind, notice_id

OUTAGE_FAILURES = 3
OUTAGE_S = 60.0
"""A service is unreachable after this many consecutive failures over this long, in seconds. The
alert rules use the same number of failures."""


@dataclass(frozen=True, slots=True)
class ServiceOutage:
    """The consecutive failures of one service."""

    failures: int = 0
    since_s: float = 0.0
    """Monotonic time of the first failure, in seconds."""
    unreachable: bool = False

    def after(self, answered: bool, now_s: float) -> "ServiceOutage":
        """Return the state after one more HTTP request, at this monotonic time in seconds."""
        if answered:
            return ServiceOutage()
        failures = self.failures + 1
        since_s = self.since_s if self.failures else now_s
        lasts = failures >= OUTAGE_FAILURES and now_s - since_s >= OUTAGE_S
        return ServiceOutage(failures, since_s, unreachable=lasts)


def service_notice(vm: str, service: str, *, unreachable: bool, at: datetime) -> Notice:
    """Return the notice that a service does not respond, or responds again."""
    kind = NoticeKind.SERVICE_UNREACHABLE if unreachable else NoticeKind.SERVICE_RECOVERED
    state = "does not respond" if unreachable else "responds again"
    text = f"{service} {state} (reported by {vm})"
    ident = notice_id(kind, vm, service, at.isoformat())
    return Notice(kind=kind, id=ident, at=at, text=text, vm=vm)


def leadership_notice(vm: str, *, missing: bool, at: datetime) -> Notice:
    """Return the notice that the set has no leader, or has one again."""
    kind = NoticeKind.NO_LEADER if missing else NoticeKind.LEADER_RESTORED
    state = "the set has no leader: no VM is drained" if missing else "the set has a leader again"
    text = f"{state} (reported by {vm})"
    return Notice(kind=kind, id=notice_id(kind, vm, at.isoformat()), at=at, text=text, vm=vm)
