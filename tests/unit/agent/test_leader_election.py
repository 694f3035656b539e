"""The elector, turn by turn, on a clock of the test, with the real blob client over a socket.

Turns are taken by hand: the loop around them only waits.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from controller.agent.leader_election import LOST_REPLIES, LeaderElection
from controller.azure.blob import StateBlob
from controller.azure.http.session import open_azure
from controller.config.schema import Settings
from controller.core.lease import (
    RELEASED_WAIT_S,
    UNABLE_WAIT_S,
    LeaseState,
    ReasonsNotToLead,
)
from controller.errors import LeaseLost
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from tests.support.clocks import StoppedClock
from tests.support.held_replies import held_replies

LEASE_S, RENEW_S, YIELD_S = 15, 3, 5
YIELD_S_OF_LARGE_SET = 8.5
"""1.5 times the 5 s between two reads of the lease, and a second to acquire it."""


class Candidate:
    """One elector and what it has received."""

    def __init__(
        self, blob: StateBlob, clock: StoppedClock, *, peers: int = 3, seed: int = 0
    ) -> None:
        self.handicap = ReasonsNotToLead()
        self.rival: Candidate | None = None
        """Takes a turn between the read of the lease and the acquire."""
        self.calls: list[str] = []
        self.changes: list[LeaseState] = []
        self.elector = LeaderElection(
            blob=blob,
            clock=clock,
            entropy=random.Random(seed),
            lease_duration_s=LEASE_S,
            renew_period_s=RENEW_S,
            yield_s=YIELD_S,
            peers=peers,
            reasons=lambda: self.handicap,
            refresh=self._look,
        )
        self.elector.before_release(self._quiesce)
        self.elector.on_change(lambda: self.changes.append(self.elector.state))

    async def _look(self) -> None:
        self.calls.append("look")
        if self.rival is not None:
            await self.rival.turn()

    async def _quiesce(self) -> None:
        self.calls.append("quiesce")

    async def turn(self) -> LeaseState:
        """Take one turn, as `run` does between two waits."""
        await self.elector.turn()
        return self.elector.state

    def refused(self) -> bool:
        """Tell whether the fence holds a write back."""
        try:
            self.elector.fence()
        except LeaseLost:
            return True
        return False


class Polling:
    """A blob on a simulated Azure, and candidates for its lease."""

    def __init__(
        self, server: SimulatorServer, clock: StoppedClock, blobs: dict[str, StateBlob]
    ) -> None:
        self.server, self.clock, self._blobs = server, clock, blobs
        self.asked: list[str] = []
        server.observers.append(lambda request, _: self._note(request))

    def _note(self, request: Any) -> None:
        if request.service is Service.BLOB:
            action = request.headers.get("x-ms-lease-action", "")
            self.asked.append(action or request.method)

    def candidate(self, vm: str = "web-1", **options: Any) -> Candidate:
        return Candidate(self._blobs[vm], self.clock, **options)

    def holder(self) -> str | None:
        (lease,) = self.server.world.blobs.leases(self.clock.azure())
        return lease.holder

    def fault(self, effect: Effect, **options: Any) -> None:
        self.server.faults.add(Fault(service=Service.BLOB, effect=effect, **options))

    def heal(self) -> None:
        self.server.faults.clear()


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Give the SDK's loggers their levels back: the adapters set them for a whole process."""
    names = ("azure", "azure.identity", "azure.mgmt", "azure.storage")
    loggers = [logging.getLogger(name) for name in names]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


@pytest.fixture
async def polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Polling]:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    clock = StoppedClock()
    world = build_world(now=clock.azure())
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            SimulatorServer(world, tmp_path, clock=clock.azure)
        )
        blobs: dict[str, StateBlob] = {}
        for vm in ("web-1", "web-2"):
            settings = Settings.model_validate(
                {
                    "backend_pools": [{"id": world.pool_id("app")}],
                    "election": {"container_url": server.container_url("lb-drain")},
                    "azure": {
                        "resource_manager_endpoint": server.arm_url,
                        "imds_endpoint": server.imds_url(vm),
                        "ca_file": str(server.ca_file),
                    },
                }
            )
            azure = await stack.enter_async_context(open_azure(settings, clock, {}))
            blobs[vm] = azure.state_blob("web.json")
        await blobs["web-1"].create()
        yield Polling(server, clock, blobs)


async def test_the_first_to_ask_leads_and_the_other_stands_by(polling: Polling) -> None:
    """One leader; the other only looks at the lease, and never tries to take a held one."""
    first, second = polling.candidate(), polling.candidate("web-2", seed=1)
    assert first.refused()
    assert await first.turn() is LeaseState.LEADER
    assert not first.refused()
    assert (first.elector.tenures, first.changes) == (1, [LeaseState.LEADER])
    assert first.calls == ["look"]
    polling.asked.clear()
    assert await second.turn() is LeaseState.STANDBY
    assert polling.asked == ["HEAD"]
    assert second.calls == []


async def test_a_race_for_the_lease_is_lost_in_silence(
    polling: Polling, caplog: pytest.LogCaptureFixture
) -> None:
    """Who finds the lease free and another one faster stands by without a warning."""
    first, second = polling.candidate(), polling.candidate("web-2", seed=1)
    await asyncio.gather(first.turn(), second.turn())
    assert sorted((first.elector.state.value, second.elector.state.value)) == ["leader", "standby"]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_who_knows_a_leader_and_since_when(polling: Polling) -> None:
    """The holder, and whoever sees the lease taken, knows a leader; when it is free nobody does."""
    leader, standby = polling.candidate(), polling.candidate("web-2", seed=1)
    began = polling.clock.monotonic()
    standby.handicap = ReasonsNotToLead(events_unreadable=True)
    polling.clock.move(50)
    await standby.turn()
    assert standby.elector.leader_seen_at == began
    await leader.turn()
    assert leader.elector.leader_seen_at == polling.clock.monotonic()
    polling.clock.move(RENEW_S)
    await leader.turn()
    await standby.turn()
    last = polling.clock.monotonic()
    assert leader.elector.leader_seen_at == standby.elector.leader_seen_at == last
    await leader.elector.stop()
    polling.clock.move(1)
    await standby.turn()
    assert leader.elector.leader_seen_at == standby.elector.leader_seen_at == last


async def test_who_loses_the_race_knows_a_leader(polling: Polling) -> None:
    """A lease that was taken meanwhile has a holder."""
    rivals = [polling.candidate(), polling.candidate("web-2", seed=1)]
    polling.clock.move(20)
    await asyncio.gather(*(each.turn() for each in rivals))
    assert {each.elector.leader_seen_at for each in rivals} == {polling.clock.monotonic()}


async def test_renewal_is_sent_when_it_is_due(polling: Polling) -> None:
    """A leader renews every renew_period_s and asks nothing in between."""
    leader = polling.candidate()
    await leader.turn()
    polling.asked.clear()
    polling.clock.move(RENEW_S - 0.1)
    await leader.turn()
    assert polling.asked == []
    polling.clock.move(0.1)
    await leader.turn()
    assert polling.asked == ["renew"]
    assert leader.changes == [LeaseState.LEADER]


async def test_a_lapsed_lease_lets_nothing_pass_until_renewed(polling: Polling) -> None:
    """Two seconds before the lease can have expired the fence closes; a late renewal opens it."""
    leader = polling.candidate()
    await leader.turn()
    polling.clock.move(LEASE_S - 2.1)
    assert not leader.refused()
    polling.clock.move(0.2)
    assert leader.refused()
    polling.fault(Effect.REPLY, status=503)
    assert await leader.turn() is LeaseState.SUSPECT
    assert await leader.turn() is LeaseState.SUSPECT
    assert leader.refused()
    polling.clock.move(LEASE_S)  # expired in storage too, and nobody took it
    polling.heal()
    assert await leader.turn() is LeaseState.LEADER
    assert not leader.refused()
    assert leader.elector.tenures == 1


async def test_a_late_renewal_finds_a_successor(polling: Polling) -> None:
    """Whoever comes back after a peer took the lease stands by at once."""
    leader, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    await leader.turn()
    polling.clock.move(LEASE_S + 1)
    assert await peer.turn() is LeaseState.LEADER
    assert leader.refused()
    assert await leader.turn() is LeaseState.STANDBY
    assert leader.changes[-2:] == [LeaseState.SUSPECT, LeaseState.STANDBY]
    assert polling.holder() == "web-2"


async def test_a_frozen_leader_wakes_up_suspect(polling: Polling) -> None:
    """A wall clock that ran on alone closes the fence before anything was noticed (S4)."""
    leader = polling.candidate()
    await leader.turn()
    polling.clock.wall_error_s += 20
    assert leader.refused()
    assert leader.elector.state is LeaseState.LEADER
    assert await leader.turn() is LeaseState.LEADER
    assert leader.changes == [LeaseState.LEADER, LeaseState.SUSPECT, LeaseState.LEADER]
    assert not leader.refused()


async def test_a_lost_reply_to_acquire_is_asked_again_under_the_same_id(polling: Polling) -> None:
    """A lease that was granted and not heard of is taken at the next turn, not waited out."""
    candidate = polling.candidate()
    polling.fault(Effect.RESET_AFTER, method="PUT", times=1)
    assert await candidate.turn() is LeaseState.STANDBY
    lease_id = candidate.elector.lease_id
    assert polling.holder() == "web-1"
    assert candidate.refused()
    assert await candidate.turn() is LeaseState.LEADER
    assert candidate.elector.lease_id == lease_id


async def test_an_agent_without_replies_leaves_the_lease_to_others(polling: Polling) -> None:
    """S7: each acquire extends the lease, which would never be free again."""
    candidate, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    polling.fault(Effect.RESET_AFTER, method="PUT")
    for _ in range(4):
        await candidate.turn()
        polling.clock.move(1)
    assert polling.asked.count("acquire") == LOST_REPLIES
    polling.heal()
    polling.clock.move(LEASE_S)
    assert await candidate.turn() is LeaseState.STANDBY
    assert await peer.turn() is LeaseState.LEADER
    assert await candidate.turn() is LeaseState.STANDBY


@pytest.mark.parametrize("effect", [Effect.RESET_AFTER, Effect.RESET_BEFORE], ids=str)
async def test_a_leader_without_replies_leaves_the_lease_to_others(
    polling: Polling, effect: Effect
) -> None:
    """S7: each renewal extends the lease, which it may not use: nothing is sent without a reply."""
    leader, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    assert await leader.turn() is LeaseState.LEADER
    polling.fault(effect, method="PUT")
    while leader.elector.state is not LeaseState.STANDBY:
        polling.clock.move(1)
        await leader.turn()
    polling.heal()
    polling.clock.move(LEASE_S)
    assert await leader.turn() is LeaseState.STANDBY
    assert await peer.turn() is LeaseState.LEADER


async def test_a_lapsed_lease_is_renewed_when_storage_answers_again(polling: Polling) -> None:
    """One reply that is lost ends no tenure."""
    leader = polling.candidate()
    assert await leader.turn() is LeaseState.LEADER
    polling.clock.move(LEASE_S)
    polling.fault(Effect.RESET_AFTER, method="PUT", times=LOST_REPLIES - 1)
    for _ in range(LOST_REPLIES):
        await leader.turn()
    assert leader.elector.state is LeaseState.LEADER


async def test_a_lost_acquire_that_a_peer_won_is_dropped(polling: Polling) -> None:
    """A request that never arrived leaves no claim: the next one has another id."""
    candidate, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    polling.fault(Effect.RESET_BEFORE, method="PUT", times=1)
    await candidate.turn()
    lease_id = candidate.elector.lease_id
    assert await peer.turn() is LeaseState.LEADER
    assert await candidate.turn() is LeaseState.STANDBY
    await peer.elector.stop()
    assert await candidate.turn() is LeaseState.LEADER
    assert candidate.elector.lease_id != lease_id


async def test_a_leader_yields_once_per_event(polling: Polling) -> None:
    """The next victim offers the lease, waits, takes it back, and keeps it until a new event."""
    leader = polling.candidate()
    await leader.turn()
    leader.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    assert await leader.turn() is LeaseState.STANDBY
    assert leader.calls[-1] == "quiesce"
    assert polling.holder() is None
    assert await leader.turn() is LeaseState.STANDBY
    polling.clock.move(YIELD_S - 0.1)
    assert await leader.turn() is LeaseState.STANDBY
    polling.clock.move(0.2)
    assert await leader.turn() is LeaseState.LEADER
    assert await leader.turn() is LeaseState.LEADER
    leader.handicap = ReasonsNotToLead(frozenset({"event-1", "event-2"}))
    assert await leader.turn() is LeaseState.STANDBY


async def test_a_victim_that_waited_for_a_free_lease_does_not_offer_it_again(
    polling: Polling,
) -> None:
    """No agent took it then, and the time until the event is short."""
    victim = polling.candidate()
    victim.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    assert await victim.turn() is LeaseState.STANDBY
    polling.clock.move(YIELD_S)
    assert await victim.turn() is LeaseState.LEADER
    assert await victim.turn() is LeaseState.LEADER
    victim.handicap = ReasonsNotToLead(frozenset({"event-1", "event-2"}))
    assert await victim.turn() is LeaseState.STANDBY


@pytest.mark.parametrize(
    ("peers", "waits_s"), [(3, YIELD_S), (10, YIELD_S), (20, YIELD_S_OF_LARGE_SET), (200, 8.5)]
)
async def test_an_affected_agent_waits_until_each_peer_has_looked(
    polling: Polling, peers: int, waits_s: float
) -> None:
    """S7: its only able peer may read the lease every 7.5 s. It keeps what it takes, and its VM
    goes down with the lease."""
    victim = polling.candidate(peers=peers)
    victim.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    await victim.turn()
    polling.clock.move(waits_s - 0.1)
    assert await victim.turn() is LeaseState.STANDBY
    polling.clock.move(0.1)
    assert await victim.turn() is LeaseState.LEADER


async def test_an_affected_agent_offers_a_lease_that_others_could_not_acquire(
    polling: Polling,
) -> None:
    """S7: an expired lease looks free, and can be refused for a minute: to peers as well."""
    polling.server.world.blobs.wait_after_expiry_s = 60
    await polling.candidate("web-2", seed=1).turn()
    polling.clock.move(LEASE_S + 1)
    victim = polling.candidate()
    victim.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    await victim.turn()
    polling.clock.move(YIELD_S)
    assert await victim.turn() is LeaseState.STANDBY
    assert polling.asked[-1] == "acquire"
    polling.clock.move(60)
    await victim.turn()
    polling.clock.move(YIELD_S)
    assert await victim.turn() is LeaseState.LEADER
    assert await victim.turn() is LeaseState.STANDBY
    polling.clock.move(YIELD_S)
    assert await victim.turn() is LeaseState.LEADER
    assert await victim.turn() is LeaseState.LEADER


async def test_an_affected_agent_that_lost_a_race_keeps_a_later_lease(polling: Polling) -> None:
    """The lease was taken meanwhile: when it is free again, others can acquire it."""
    victim, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    victim.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    await victim.turn()
    polling.clock.move(YIELD_S)
    victim.rival = peer
    assert await victim.turn() is LeaseState.STANDBY
    assert peer.elector.state is LeaseState.LEADER
    victim.rival = None
    await victim.turn()
    await peer.elector.stop()
    await victim.turn()
    polling.clock.move(YIELD_S)
    assert await victim.turn() is LeaseState.LEADER
    assert await victim.turn() is LeaseState.LEADER


async def test_an_unaffected_peer_takes_the_offered_lease_at_once(polling: Polling) -> None:
    """Only the affected agent waits."""
    leader, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    await leader.turn()
    leader.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    await leader.turn()
    assert await peer.turn() is LeaseState.LEADER


async def test_a_blind_leader_yields_again_and_again(polling: Polling) -> None:
    """Peers may have regained their sight, so a blind leader offers the lease every minute."""
    leader = polling.candidate()
    await leader.turn()
    leader.handicap = ReasonsNotToLead(events_unreadable=True)
    for _ in range(2):
        assert await leader.turn() is LeaseState.STANDBY
        await leader.turn()
        polling.clock.move(YIELD_S + RELEASED_WAIT_S + 0.1)
        assert await leader.turn() is LeaseState.LEADER
        assert await leader.turn() is LeaseState.LEADER
        polling.clock.move(60.1)


async def test_a_blind_leader_yields_to_a_victim(polling: Polling) -> None:
    """S7: the victim reads events; the blind leader took the lease back again and again."""
    leader, victim = polling.candidate(), polling.candidate("web-2", seed=1)
    await leader.turn()
    leader.handicap = ReasonsNotToLead(events_unreadable=True)
    victim.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    assert await leader.turn() is LeaseState.STANDBY
    polling.clock.move(0.5)
    assert await victim.turn() is LeaseState.STANDBY
    polling.clock.move(YIELD_S - 0.5)
    assert await leader.turn() is LeaseState.STANDBY
    polling.clock.move(0.5)
    assert await victim.turn() is LeaseState.LEADER


async def test_an_unable_leader_comes_after_a_victim_and_yields_ever_more_rarely(
    polling: Polling,
) -> None:
    """Leadership that an agent cannot use moves on; without a successor it keeps trying."""
    leader, victim = polling.candidate(), polling.candidate("web-2", seed=1)
    await leader.turn()
    assert not leader.elector.yielded_in_vain
    victim.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    leader.handicap = ReasonsNotToLead(unable="cannot write")
    assert await leader.turn() is LeaseState.STANDBY
    assert await victim.turn() is LeaseState.STANDBY
    polling.clock.move(YIELD_S)
    assert await leader.turn() is LeaseState.STANDBY
    assert await victim.turn() is LeaseState.LEADER
    assert await leader.turn() is LeaseState.STANDBY
    await victim.elector.stop()
    for kept_s in (60, 120):
        assert await leader.turn() is LeaseState.STANDBY
        polling.clock.move(YIELD_S + UNABLE_WAIT_S)
        assert (await leader.turn() is LeaseState.LEADER) is (kept_s == 60)
        polling.clock.move(
            0 if kept_s == 60 else RELEASED_WAIT_S - UNABLE_WAIT_S
        )  # it was the last to release it
        assert await leader.turn() is LeaseState.LEADER
        assert leader.elector.yielded_in_vain
        since = polling.clock.monotonic()
        while await leader.turn() is LeaseState.LEADER:
            polling.clock.move(1)
        assert polling.clock.monotonic() - since == kept_s
        assert not leader.elector.yielded_in_vain


async def test_a_standby_returns_when_its_wait_is_over(polling: Polling) -> None:
    """However rarely a large set reads the lease, a wait is not longer than it has to be."""
    standby = polling.candidate(peers=200)
    standby.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    assert await standby.elector.turn() <= YIELD_S_OF_LARGE_SET
    polling.clock.move(YIELD_S_OF_LARGE_SET - 0.5)
    assert await standby.elector.turn() <= 0.5
    polling.clock.move(0.5)
    assert await standby.turn() is LeaseState.LEADER


async def test_a_clock_that_keeps_jumping_moves_leadership(polling: Polling) -> None:
    """S4 lets nothing pass after a jump; a VM whose clock never rests hands over instead."""
    leader, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    await leader.turn()
    for _ in range(5):
        assert leader.elector.state is LeaseState.LEADER
        polling.clock.wall_error_s -= 3
        assert leader.refused()
        await leader.turn()
    assert leader.elector.state is LeaseState.STANDBY
    assert await peer.turn() is LeaseState.LEADER
    assert await leader.turn() is LeaseState.STANDBY
    await peer.elector.stop()
    assert await leader.turn() is LeaseState.STANDBY
    polling.clock.move(60)  # the jumps are long ago
    assert await leader.turn() is LeaseState.LEADER


async def test_a_clock_that_was_set_once_does_not_matter(polling: Polling) -> None:
    """A correction of any size is over with the next renewal."""
    leader = polling.candidate()
    await leader.turn()
    for step_s in (3600.0, -86_400.0, 5.0):
        polling.clock.wall_error_s += step_s
        assert await leader.turn() is LeaseState.LEADER
        assert not leader.refused()


async def test_quarantine_keeps_out_of_the_election(polling: Polling) -> None:
    """Who resigns gives the lease back, stays out for half a minute and may then try again."""
    leader = polling.candidate()
    await leader.turn()
    leader.elector.resign()
    assert await leader.turn() is LeaseState.STANDBY
    assert polling.holder() is None
    polling.asked.clear()
    polling.clock.move(29.9)
    assert await leader.turn() is LeaseState.STANDBY
    assert polling.asked == []
    polling.clock.move(0.2)
    assert await leader.turn() is LeaseState.LEADER


async def test_stop_releases_after_the_writes_have_ended(polling: Polling) -> None:
    """A stopped leader lets its writes finish, then a peer can lead at once."""
    leader, peer = polling.candidate(), polling.candidate("web-2", seed=1)
    await leader.turn()
    await leader.elector.stop()
    assert leader.calls == ["look", "quiesce"]
    assert leader.elector.state is LeaseState.STANDBY
    assert await peer.turn() is LeaseState.LEADER


async def test_stop_of_a_standby_asks_nothing(polling: Polling) -> None:
    """Who holds nothing releases nothing."""
    standby = polling.candidate()
    polling.asked.clear()
    await standby.elector.stop()
    assert polling.asked == standby.calls == []


async def test_a_release_that_fails_ends_the_tenure_all_the_same(
    polling: Polling, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether storage heard of it or not: whoever gave up writes nothing any more."""
    leader = polling.candidate()
    await leader.turn()
    caplog.set_level(logging.INFO)
    polling.fault(Effect.REPLY, status=500)
    await leader.elector.stop()
    assert leader.elector.state is LeaseState.STANDBY
    assert leader.refused()
    assert "standby: the lease could not be released, it will expire" in caplog.messages


async def test_nothing_leaves_after_the_release_has_left(polling: Polling) -> None:
    """S4: a release can be done long before its reply arrives, so it closes the fence itself."""
    leader = polling.candidate()
    await leader.turn()
    polling.fault(Effect.HANG_AFTER, times=1)
    stopping = asyncio.create_task(leader.elector.stop())
    await polling.server.wait_until(lambda: polling.holder() is None)
    assert not stopping.done()
    assert leader.refused()
    assert not leader.elector.leading
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)


async def test_a_loss_during_a_renewal_is_final(polling: Polling) -> None:
    """When storage refuses a write while a renewal is under way, the renewal counts no more."""
    leader = polling.candidate()
    await leader.turn()
    polling.clock.move(RENEW_S)
    polling.asked.clear()
    with held_replies(polling.server, "web.json"):
        turn = asyncio.create_task(leader.turn())
        await polling.server.wait_until(lambda: "renew" in polling.asked)
        leader.elector.lost("storage refused a write")
        leader.elector.lost("and another one")
    assert await turn is LeaseState.STANDBY
    assert leader.refused()


async def test_trouble_is_told_once(polling: Polling, caplog: pytest.LogCaptureFixture) -> None:
    """A storage that is away is reported once, and once more when it was back in between."""
    candidate = polling.candidate()

    def reported() -> int:
        return sum("lease cannot be reached" in record.getMessage() for record in caplog.records)

    polling.fault(Effect.REPLY, status=503)
    for _ in range(3):
        await candidate.turn()
    assert reported() == 1
    polling.heal()
    assert await candidate.turn() is LeaseState.LEADER
    polling.fault(Effect.REPLY, status=503)
    for _ in range(3):
        polling.clock.move(RENEW_S)
        await candidate.turn()
    assert reported() == 2


async def test_the_set_as_a_whole_looks_at_a_bounded_pace(polling: Polling) -> None:
    """A standby of a large set reads more rarely, with jitter, and soon enough for a takeover."""
    await polling.candidate("web-2").turn()
    for peers, middle in ((3, 1.0), (12, 3.0), (20, 5.0), (200, 5.0)):
        standby = polling.candidate(peers=peers).elector
        pauses = {await standby.turn() for _ in range(5)}
        assert len(pauses) == 5
        assert all(0.5 * middle <= pause <= 1.5 * middle for pause in pauses)


async def test_the_blob_is_made_when_it_is_not_there(polling: Polling) -> None:
    """A deleted blob is created again, and its lease is free."""
    polling.server.world.blobs.containers.clear()
    polling.server.container_url("lb-drain")
    candidate = polling.candidate()
    assert await candidate.turn() is LeaseState.LEADER
    assert polling.holder() == "web-1"


async def test_run_takes_turns_until_cancelled(polling: Polling) -> None:
    """The loop acquires, and a wake makes it look at once."""
    candidate = polling.candidate()
    running = asyncio.create_task(candidate.elector.run())
    await polling.server.wait_until(lambda: candidate.elector.leading)
    candidate.handicap = ReasonsNotToLead(frozenset({"event-1"}))
    candidate.elector.wake()
    await polling.server.wait_until(lambda: candidate.elector.state is LeaseState.STANDBY)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
