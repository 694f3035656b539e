"""The requests that clients of every kind would have lost during a history, without a socket.

Which VMs get new flows, which flows end, and when an application asks for no further request
follows from the history alone: clients influence nothing. So they are played afterwards, and the
history stays what it was. The rules are those of the data plane with sockets
(`controller.simulator.traffic`); no client tries again. Not modelled are admin states and
source-IP affinity.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from controller.simulator.traffic.load import (
    HOLDING,
    Counts,
    Kind,
    Load,
    Loss,
    Lost,
    Tally,
)
from controller.simulator.world.bodies import key
from controller.simulator.world.history import Change
from controller.simulator.world.world import World

CLIENTS = 2
"""Of each kind."""
PAUSE_S = 5.0
REQUESTS_AT_MOST = 200
"""Of each client; in a long history they send less often."""
ANSWER_S = 0.05
PROBED_S = 5.0
"""How long a load balancer does not notice what its probe will find: one interval."""
LOAD = Load(timeout_s=10)
UP, FROZEN, DOWN = "up", "frozen", "down"


@dataclass(slots=True)
class _Course:
    """How one value changed over time."""

    times: list[float]
    values: list[str]

    def at(self, time: float) -> str:
        return self.values[max(0, bisect_right(self.times, time) - 1)]

    def add(self, time: float, value: str) -> None:
        if value != self.values[-1]:
            self.times.append(time)
            self.values.append(value)

    def first(self, value: str, since: float) -> float:
        """Return when it is this value for the first time, from an instant on; inf if never."""
        if self.at(since) == value:
            return since
        start = bisect_right(self.times, since)
        for time, found in zip(self.times[start:], self.values[start:], strict=True):
            if found == value:
                return time
        return math.inf


@dataclass(slots=True)
class _Member:
    """One VM behind the pool."""

    name: str
    state: _Course
    pool: _Course
    application: _Course
    inside: set[str] = field(default_factory=set[str])
    """Its ipConfigurations or addresses in the pool."""

    def answers(self, at: float) -> bool:
        """Return whether the load balancer sends new flows here: in the pool, and probed up."""
        noticed = at - PROBED_S
        return (
            self.pool.at(at) == "in"
            and self.state.at(noticed) == UP
            and self.application.at(noticed) == "open"
        )


@dataclass(slots=True)
class _Connection:
    member: _Member
    since: float
    gives_up_at: float
    ends_at: float
    """When it ends without a word."""
    silent: bool
    """Whether neither side hears of its end."""


class _SetOfMembers:
    """What the history says about every VM that was ever in the pool."""

    def __init__(self, start: World, history: Iterable[Change], pool_id: str) -> None:
        self.begin = start.now
        self.members: dict[str, _Member] = {}
        for each in start.members(pool_id):
            self._member(each.label).inside.add(each.identity)
        for vm in start.vms.values():
            if vm.name.casefold() in self.members and vm.state != "running":
                state = FROZEN if vm.state == "frozen" else DOWN
                self._member(vm.name).state.add(self.begin, state)
        for member in self.members.values():
            member.pool.values[0] = "in"
        for change in history:
            self._apply(change, key(pool_id))

    def _apply(self, change: Change, pool: str) -> None:
        match change.kind:
            case "member_in" | "member_out" if key(change.subject) == pool:
                vm, address = str(change.detail["vm"]), str(change.detail["address"])
                configuration = str(change.detail["ip_configuration"])
                member = self._member(vm or address)
                identity = key(configuration) if configuration else address
                if change.kind == "member_in":
                    member.inside.add(identity)
                else:
                    member.inside.discard(identity)
                member.pool.add(change.at, "in" if member.inside else "out")
            case "member_state" if key(change.subject) == pool:
                member = self._member(str(change.detail["vm"] or change.detail["address"]))
                down = change.detail["state"] == "Down"
                member.pool.add(change.at, "out" if down or not member.inside else "in")
            case "vm_down" if change.subject.casefold() in self.members:
                frozen = change.detail["state"] == "frozen"
                self._member(change.subject).state.add(change.at, FROZEN if frozen else DOWN)
            case "vm_up" if change.subject.casefold() in self.members:
                self._member(change.subject).state.add(change.at, UP)
            case "application_closed" | "application_opened":
                closed = change.kind == "application_closed"
                self._member(change.subject).application.add(
                    change.at, "closed" if closed else "open"
                )
            case _:
                pass

    def _member(self, name: str) -> _Member:
        found = self.members.get(name.casefold())
        if found is None:
            state, pool, application = (
                _Course([self.begin], [value]) for value in (UP, "out", "open")
            )
            found = _Member(name, state, pool, application)
            self.members[name.casefold()] = found
        return found


class _Players:
    """Plays the clients."""

    def __init__(self, vms: _SetOfMembers, *, flows: str, seed: int, until: float) -> None:
        self._vms = list(vms.members.values())
        self._begin, self._until = vms.begin, until
        self._flows = flows
        self._seed = seed
        self._tally = Tally(tuple(Kind))
        self._lost: list[Lost] = []

    def play(self) -> Counts:
        lasts_s = self._until - self._begin
        pause_s = max(PAUSE_S, lasts_s / REQUESTS_AT_MOST)
        for kind in Kind:
            for number in range(CLIENTS):
                source = random.Random(f"{self._seed} {kind.value} {number}")
                self._play(kind, source, pause_s)
        for lost in sorted(self._lost, key=lambda each: each.at):
            self._tally.lost(lost)
        return self._tally.counts()

    def _play(self, kind: Kind, source: random.Random, pause_s: float) -> None:
        held: _Connection | None = None
        now = self._begin + pause_s * source.random()
        while now < self._until:
            if held is not None and (now >= held.gives_up_at or self._was_asked(kind, held, now)):
                held = None
            self._tally.sent(kind)
            connection = held or self._connect(kind, now, source)
            over, reason = self._ask(kind, connection, now)
            if connection is not None and reason is None:
                self._tally.answered(kind, connection.member.name, over - now)
                closed = connection.member.application.at(over) == "closed"
                held = connection if kind in HOLDING and not closed else None
            else:
                self._lose(kind, connection, now, over, reason or Loss.REFUSED)
                held = None
            now = over + pause_s * source.uniform(0.5, 1.5)

    def _was_asked(self, kind: Kind, held: _Connection, now: float) -> bool:
        """Return whether the server has asked for the end of a stream, and was heard."""
        asked_at = held.member.application.first("closed", held.since)
        return kind is Kind.STREAM and asked_at <= now and asked_at < held.ends_at

    def _connect(self, kind: Kind, now: float, source: random.Random) -> _Connection | None:
        """Open a connection to the VM that a hash would choose; None if no VM gets new flows."""
        start = source.randrange(len(self._vms)) if self._vms else 0
        youngest, oldest = LOAD.pooled_age_s
        age_s = source.uniform(youngest, oldest) if kind is Kind.POOLED else math.inf
        for member in self._vms[start:] + self._vms[:start]:
            if member.answers(now):
                down_at, out_at = member.state.first(DOWN, now), member.pool.first("out", now)
                if self._flows == "keep" or down_at < out_at:
                    return _Connection(member, now, now + age_s, down_at, silent=False)
                return _Connection(member, now, now + age_s, out_at, silent=self._flows == "drop")
        return None

    def _ask(
        self, kind: Kind, connection: _Connection | None, now: float
    ) -> tuple[float, Loss | None]:
        """Return when a request is over, and why it is lost if it is."""
        if connection is None:
            return now, Loss.REFUSED
        takes_s = ANSWER_S + LOAD.patience_s(kind) - LOAD.timeout_s
        state, patience = connection.member.state, now + LOAD.patience_s(kind)
        done = now + takes_s
        if state.at(now) == FROZEN or state.first(FROZEN, now) < done:
            # The answer comes when the VM runs again.
            done = max(done, state.first(UP, max(now, state.first(FROZEN, now))) + ANSWER_S)
        if connection.ends_at <= done and not connection.silent:
            return max(now, connection.ends_at), Loss.RESET
        if connection.ends_at <= done or done > patience:
            return patience, Loss.TIMEOUT
        return done, None

    def _lose(
        self, kind: Kind, connection: _Connection | None, now: float, over: float, reason: Loss
    ) -> None:
        self._lost.append(
            Lost(
                kind=kind,
                at=now,
                until=over,
                connected_at=now if connection is None else connection.since,
                reason=reason,
                backend=None if connection is None else connection.member.name,
            )
        )


def losses_of(
    start: World, history: Iterable[Change], *, pool_id: str, flows: str, seed: int
) -> Counts:
    """Return what the clients of a pool would have seen from the start to the calm's end.

    Args:
        start: the world as it was before anything happened.
        history: what happened to it.
        pool_id: the pool that the clients use.
        flows: what happens to established flows of a removed member: keep, drop, reset.
        seed: chooses the instants of the requests.
    """
    changes = list(_until_goodbye(history))
    until = changes[-1].at if changes else start.now
    vms = _SetOfMembers(start, changes, pool_id)
    return _Players(vms, flows=flows, seed=seed, until=until).play()


def _until_goodbye(history: Iterable[Change]) -> Iterator[Change]:
    for change in history:
        if change.kind == "goodbye":
            return
        yield change
