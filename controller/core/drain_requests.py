"""Drain requests: VMs that operators want out of rotation. Content of a blob beside the ledger.

To the planner a drain request is what an impacting event is: a reason for its VM to be out. The
leader drains and restores the VM under the same laws (floor, write-ahead, exact restore); only the
acknowledgement is missing. A request ends when it is withdrawn, or by itself at `until`. Several
requests for one VM stand beside each other: the VM is out while one is in force.

Absence never ends a request (`merged`): a blob that is deleted, emptied or restored from a backup
does not withdraw what an agent has read before, or what the ledger records.

Operators write this blob and agents only read it. It is separate from the ledger so that a command
needs no lease and cannot overwrite what a leader recorded. Requests that have ended are kept for a
while: the blob then shows who requested what, and when.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_COUNT, shorten
from controller.core.events import EventSource, EventStatus, ScheduledEvent
from controller.core.ledger import Entry
from controller.core.rehearsals import is_test
from controller.core.resources import NOTHING_EXTRA, Extra

DRAIN_REQUEST = "Request"
"""The event type of a drain request in the ledger and in metrics; Azure has no such type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedEvent:
    """An event that only agents see: the requests that name it stand for its VMs."""

    event_id: str
    event_type: str
    not_before: datetime
    """When it starts. It ends with its requests."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequest:
    """One VM that an operator wants out of rotation."""

    request_id: str
    vm: str
    reason: str
    by: str
    """The operator, as named in their token. The name is not verified."""
    at: datetime
    until: datetime
    """When the request ends and the VM is restored, unless it is withdrawn before."""
    ended_at: datetime | None = None
    """When it was withdrawn."""
    ended_by: str = ""
    event: RehearsedEvent | None = None
    """If set, the VM is drained because of this event, not because of the request itself. Since
    minor 2; an older agent reads an ordinary request."""
    forced: bool = False
    """Whether the VM leaves even if too few members stay: law S2 is suspended for it. Since minor
    2; an older agent keeps the floor."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "vm", "reason", "by", "ended_by")

    def is_active(self, now: datetime) -> bool:
        """Return whether the request has not ended."""
        return self.ended_at is None and now < self.until

    @property
    def is_test(self) -> bool:
        """Whether it is a rehearsal."""
        return is_test(self.request_id)

    @property
    def who_and_why(self) -> str:
        """The operator and the reason, for people."""
        return f"by {self.by}" + (f": {self.reason}" if self.reason else "")

    def covers(self, vm: str, now: datetime) -> bool:
        """Return whether this request keeps this VM out of rotation now."""
        return fold(self.vm) == fold(vm) and self.is_active(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRequest:
    """What is absent of one entry of the ledger, which an operator gives up."""

    vm: str
    recorded_at: datetime
    """Of the entry that the operator saw: a later one is another drain."""
    by: str
    """The operator, as named in their token. The name is not verified."""
    at: datetime
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "vm", "by")

    def is_about(self, entry: Entry) -> bool:
        """Return whether this is the entry that the operator saw."""
        return fold(self.vm) == fold(entry.vm) and self.recorded_at == entry.recorded_at


ROLL_REASON = "roll: "
"""How the reason of a request of a rolling run begins."""
MINOR = 2
"""The minor version of the format that this agent writes."""
MAX_ENDED = 50
"""How many requests whose time is over are kept."""
MAX_WITHDRAWN = 250
"""How many requests are kept that were withdrawn before their time was over. Until then the ledger
can name them: without the withdrawal they would count as lost, and in force."""
MAX_UNSEEN = 500
"""How many requests are remembered that the blob does not show any more."""
MAX_FORGETS = 50
"""How many requests to forget are kept; the oldest were executed long ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingRun:
    """A rolling run: VMs that are drained one after the other, and the progress."""

    run_id: str
    what: str
    """What is done to each VM while it is out: the command, or the maintenance."""
    vms: tuple[str, ...]
    """In the order in which they are drained."""
    done: tuple[str, ...]
    """VMs that are finished and back in rotation."""
    by: str
    at: datetime
    process_id: str
    """The id of the process that runs it; a process that resumes the run enters its own id."""
    request_id: str = ""
    """The drain request of the VM that the run works on. Since minor 1; empty before the first."""
    heartbeat: int = 0
    """Counts up while that process runs."""
    failed: str = ""
    """Why it stopped; empty while it is in progress."""
    ended_at: datetime | None = None
    """When the last VM was back in rotation, or the run was aborted."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "what", "by", "failed")

    def beating(self) -> "RollingRun":
        """Return the run after one more heartbeat; a forged number stays readable."""
        return replace(self, heartbeat=min(self.heartbeat + 1, MAX_COUNT))

    @property
    def remaining(self) -> tuple[str, ...]:
        """The VMs that are still to be done."""
        finished = {fold(vm) for vm in self.done}
        return tuple(vm for vm in self.vms if fold(vm) not in finished)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequests:
    """The whole content of the blob."""

    requests: tuple[DrainRequest, ...] = ()
    roll: RollingRun | None = None
    """The newest rolling run; only one at a time is in progress."""
    forgets: tuple[ForgetRequest, ...] = ()
    """Since minor 1."""
    set_id: str = ""
    """The id of the availability set, folded; empty in requests of an older version. Since minor
    1."""
    minor: int = MINOR
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def active(self, now: datetime) -> tuple[DrainRequest, ...]:
        """Return the requests that have not ended."""
        return tuple(each for each in self.requests if each.is_active(now))

    def active_for(self, vm: str, now: datetime) -> tuple[DrainRequest, ...]:
        """Return the requests that keep this VM out of rotation."""
        return tuple(each for each in self.requests if each.covers(vm, now))

    @property
    def unfinished_run(self) -> RollingRun | None:
        """The rolling run that has not ended; None if there is none."""
        run = self.roll
        return run if run is not None and run.ended_at is None else None

    def ids_of_run(self, run: RollingRun) -> tuple[str, ...]:
        """Return the ids of the requests that a run has made for the VM it works on.

        A run of an older version does not record them; its requests have its name and a reason.
        """
        if run.request_id:
            return (run.request_id,)
        vms = {fold(vm) for vm in run.remaining[:1]}
        return tuple(
            each.request_id
            for each in self.requests
            if fold(each.vm) in vms and each.by == run.by and each.reason.startswith(ROLL_REASON)
        )

    def by_id(self, request_id: str) -> DrainRequest | None:
        """Return the request with this id, also if it has ended; None if it is unknown."""
        return next((r for r in self.requests if fold(r.request_id) == fold(request_id)), None)

    def stands(self, request_id: str, now: datetime) -> bool:
        """Return whether the request with this id is known and has not ended."""
        found = self.by_id(request_id)
        return found is not None and found.is_active(now)

    def adding(self, request: DrainRequest) -> "DrainRequests":
        """Return these with a new request; others for the same VM stay in force.

        A request with a known id is not new: its reply was lost, and it can have ended since.
        """
        if self.by_id(request.request_id) is not None:
            return self
        return replace(self, requests=(*self.requests, request))._bounded(request.at)

    def withdrawing(self, vm: str, *, at: datetime, by: str) -> "DrainRequests":
        """Return these with the request for the VM withdrawn, or of several those of `by`.

        An operator who withdraws a drain must not end the one of another operator unseen.
        """
        active = self.active_for(vm, at)
        own = active if len(active) == 1 else [each for each in active if each.by == by]
        return self.ending((each.request_id for each in own), at=at, by=by)

    def ending(self, request_ids: Iterable[str], *, at: datetime, by: str) -> "DrainRequests":
        """Return these with the requests of these ids withdrawn, as far as they are active."""
        ids = {fold(each) for each in request_ids}
        return replace(
            self,
            requests=tuple(
                replace(each, ended_at=at, ended_by=by)
                if fold(each.request_id) in ids and each.is_active(at)
                else each
                for each in self.requests
            ),
        )

    def extending(self, request_id: str, until: datetime) -> "DrainRequests":
        """Return these with a later end of a request, unless it was withdrawn."""
        return replace(
            self,
            requests=tuple(
                replace(each, until=until)
                if each.request_id == request_id and each.ended_at is None
                else each
                for each in self.requests
            ),
        )

    def forgetting(self, request: ForgetRequest) -> "DrainRequests":
        """Return these with a request to forget; the oldest are dropped beyond the limit."""
        return replace(self, forgets=(*self.forgets, request)[-MAX_FORGETS:])

    def _bounded(self, now: datetime) -> "DrainRequests":
        over = [each for each in self.requests if each.until <= now]
        withdrawn = [each for each in self.requests if each.ended_at and now < each.until]
        ended = (*over[:-MAX_ENDED], *withdrawn[:-MAX_WITHDRAWN])
        dropped = {each.request_id for each in ended}
        return replace(
            self, requests=tuple(r for r in self.requests if r.request_id not in dropped)
        )


def merged(
    known: Iterable[DrainRequest], read: Iterable[DrainRequest], now: datetime
) -> tuple[DrainRequest, ...]:
    """Return the requests by what was known and what was read since.

    A withdrawal counts even if the blob does not show it any more, and a request that the blob does
    not show stays in force until its own end. Of two ends the later one counts: requests are
    extended, never shortened.
    """
    before = {fold(each.request_id): each for each in known}
    found: dict[str, DrainRequest] = {}
    for request in read:
        key = fold(request.request_id)
        old = before.get(key)
        if old is not None and old.ended_at is not None and request.ended_at is None:
            found[key] = old
        elif old is not None and old.until > request.until:
            found[key] = replace(request, until=old.until)
        else:
            found[key] = request
    unseen = [each for key, each in before.items() if key not in found and now < each.until]
    return (*found.values(), *unseen[-MAX_UNSEEN:])


def rehearsed_events(requests: Iterable[DrainRequest], now: datetime) -> tuple[ScheduledEvent, ...]:
    """Return the events that the requests in force show to agents, as in a document.

    No such event can be acknowledged. Its id is that of a test, so that it is never taken for an
    event of Azure, whatever another writer has put into the blob.
    """
    vms: dict[str, list[str]] = {}
    events: dict[str, RehearsedEvent] = {}
    for request in requests:
        event = request.event
        if event is not None and is_test(event.event_id) and request.is_active(now):
            events.setdefault(fold(event.event_id), event)
            vms.setdefault(fold(event.event_id), []).append(request.vm)
    return tuple(
        ScheduledEvent(
            event_id=event.event_id,
            event_type=event.event_type,
            status=EventStatus.STARTED if event.not_before <= now else EventStatus.SCHEDULED,
            resources=tuple(vms[key]),
            not_before=None if event.not_before <= now else event.not_before,
            source=EventSource.PLATFORM,
            acknowledgeable=False,
        )
        for key, event in events.items()
    )


Edit = Callable[[DrainRequests], DrainRequests]
"""A change of the requests. It may be applied again, to what another writer wrote meanwhile."""
