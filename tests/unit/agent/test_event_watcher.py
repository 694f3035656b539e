"""The watcher over the real metadata client and a real socket, on a clock the test owns."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller.agent.event_watcher import EventWatcher
from controller.azure.imds import Imds
from controller.clock import CorrectedClock
from controller.core.events import EventStatus, ScheduledEvent
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from tests.support.clocks import StoppedClock
from tests.support.held_replies import held_replies


class Post:
    """A watcher and the metadata service it watches."""

    def __init__(
        self,
        server: SimulatorServer,
        clock: StoppedClock,
        watcher: EventWatcher,
        rehearsed: list[ScheduledEvent],
    ) -> None:
        self.server, self.world = server, server.world
        self.clock, self.watcher, self.rehearsed = clock, watcher, rehearsed
        self.forwarded_known = True
        self.heard = 0
        watcher.on_poll(self._hear)

    def _hear(self) -> None:
        self.heard += 1

    def fault(self, effect: Effect = Effect.REPLY, **options: Any) -> None:
        self.server.faults.add(Fault(service=Service.IMDS, effect=effect, **options))

    def heal(self) -> None:
        self.server.faults.clear()

    def polls(self) -> int:
        return self.world.request_counts["imds", "web-1", "GET"]


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    clock = StoppedClock()
    world = build_world(now=clock.azure(), settings=WorldSettings(imds_limit=False))
    async with (
        SimulatorServer(world, tmp_path, clock=clock.azure) as server,
        aiohttp.ClientSession() as session,
    ):
        imds = Imds(session, endpoint=server.imds_url("web-1"), clock=clock, timeout_s=2)
        rehearsed: list[ScheduledEvent] = []
        watcher = EventWatcher(
            imds=imds,
            clock=CorrectedClock(clock),
            leader_poll_s=1,
            standby_poll_s=15,
            added=lambda _: tuple(rehearsed),
            complete=lambda: made.forwarded_known,
        )
        made = Post(server, clock, watcher, rehearsed)
        yield made


def reported(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


async def test_the_event_of_a_rehearsal_is_in_the_document(post: Post) -> None:
    """It is announced and gone as any event, and never takes the place of one of Azure."""
    await post.watcher.poll()
    real = post.world.events.schedule("Reboot", "web-2")
    test = ScheduledEvent(
        event_id="test-1", event_type="Freeze", status=EventStatus.SCHEDULED, resources=("web-1",)
    )
    post.rehearsed += [test, replace(test, event_id=real.event_id)]
    await post.watcher.poll()
    assert post.watcher.document is not None
    found = {each.event_id: each.event_type for each in post.watcher.document.events}
    assert found == {real.event_id: "Reboot", "test-1": "Freeze"}
    assert len(post.watcher.document.events) == 2
    assert post.watcher.clean_documents[-1] == post.watcher.document
    post.rehearsed.clear()
    await post.watcher.poll()
    [seen] = [each for each in post.watcher.seen_events.known() if each.gone]
    assert seen.event == test


async def test_the_metadata_service_decides_about_an_event_that_it_has_shown(post: Post) -> None:
    """S6: an agent that died with its VM still forwards it; one that was never shown counts."""
    real = post.world.events.schedule("Reboot", "web-2")
    await post.watcher.poll()
    assert post.watcher.document is not None
    [shown] = post.watcher.document.events
    other = replace(shown, event_id="E-2", forwarded=True)
    post.rehearsed += [replace(shown, event_id=shown.event_id.lower(), forwarded=True), other]
    post.world.events.cancel(real.event_id)
    await post.watcher.poll()
    assert post.watcher.document.events == (other,)
    assert other in post.watcher.clean_documents[-1].events


async def test_an_agent_that_leads_no_more_does_not_see_the_end_of_what_others_forward(
    post: Post,
) -> None:
    """V1: the event may begin while another agent leads."""
    forwarded = ScheduledEvent(
        event_id="E-2",
        event_type="Reboot",
        status=EventStatus.SCHEDULED,
        resources=("web-2",),
        forwarded=True,
    )
    post.rehearsed.append(forwarded)
    post.watcher.lead(True)
    await post.watcher.poll()
    post.rehearsed.clear()
    post.watcher.lead(False)
    for leading in (False, True):
        post.watcher.lead(leading)
        await post.watcher.poll()
        [seen] = post.watcher.seen_events.known()
        assert (seen.gone, seen.gone_at) == (True, None)
        assert seen.left_within(1, post.watcher.now())  # a VM closes alone only if that allows it


async def test_a_good_poll_is_kept_and_told(post: Post) -> None:
    """The document, its instant and its age are known after the first poll."""
    before = post.watcher.document
    assert before is None
    assert post.watcher.age_s() == float("inf")
    event = post.world.events.schedule("Reboot", "web-2")
    await post.watcher.poll()
    assert post.watcher.document is not None
    assert [each.event_id for each in post.watcher.document.events] == [event.event_id]
    assert post.watcher.document_at == post.watcher.now()
    assert post.watcher.age_s() == 0
    post.clock.move(7)
    assert post.watcher.age_s() == 7
    assert post.heard == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"status": 500},
        {"status": 410},
        {"status": 200, "body": "{}"},
        {"effect": Effect.EMPTY_200},
        {"effect": Effect.RESET_BEFORE},
    ],
    ids=str,
)
async def test_a_bad_poll_is_no_observation(
    post: Post, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The last good document stays and ages, the clean run starts again, one warning (S6)."""
    await post.watcher.poll()
    await post.watcher.poll()
    document = post.watcher.document
    assert len(post.watcher.clean_documents) == 2
    post.clock.move(3)
    post.fault(**bad)
    await post.watcher.poll()
    await post.watcher.poll()
    assert post.watcher.document is document
    assert post.watcher.clean_documents == ()
    assert post.watcher.age_s() == 3
    assert post.watcher.failures == 2
    assert post.heard == 4
    assert reported(caplog, "could not be read") == 1
    post.heal()
    caplog.set_level("INFO")
    await post.watcher.poll()
    assert (post.watcher.failures, len(post.watcher.clean_documents)) == (0, 1)
    assert reported(caplog, "can be read again") == 1


def odd(post: Post, *entries: object) -> None:
    """Let the service answer with these entries."""
    post.heal()
    body = json.dumps({"DocumentIncarnation": 9, "Events": list(entries)})
    post.fault(status=200, body=body)


GOOD = {
    "EventId": "good",
    "EventType": "Reboot",
    "EventStatus": "Scheduled",
    "Resources": ["web-3"],
}
KNOWN = {**GOOD, "EventId": "known", "Resources": ["web-2"]}


@pytest.mark.parametrize(
    "entry", [{**KNOWN, "Resources": None}, {**KNOWN, "EventType": 1}, {"EventId": 5}, 5]
)
async def test_a_known_event_that_is_odd_now_stays_known(
    post: Post, entry: object, caplog: pytest.LogCaptureFixture
) -> None:
    """S6: an event that is set aside stays known, is not acknowledged, and is logged once."""
    odd(post, KNOWN, GOOD)
    await post.watcher.poll()
    await post.watcher.poll()
    assert len(post.watcher.clean_documents) == 2
    odd(post, entry, GOOD)
    for _ in range(3):
        await post.watcher.poll()
        assert post.watcher.clean_documents == ()
        assert post.watcher.document is not None
        events = {each.event_id: each for each in post.watcher.document.events}
        assert {key: each.acknowledgeable for key, each in events.items()} == {
            "good": True,
            "known": False,
        }
        assert events["known"].affects("web-2")
    assert post.watcher.failures == 0
    assert reported(caplog, "an event is set aside") == 1
    odd(post, GOOD)
    await post.watcher.poll()
    await post.watcher.poll()
    assert post.watcher.document is not None
    assert [each.event_id for each in post.watcher.document.events] == ["good"]
    assert len(post.watcher.clean_documents) == 2


@pytest.mark.parametrize("entry", [{"EventId": 5}, 5, {**GOOD, "EventId": "E-2", "Resources": 1}])
async def test_an_event_of_another_source_outlasts_an_entry_that_is_set_aside(
    post: Post, entry: object
) -> None:
    """S6: the metadata service has not shown it, and does not decide about it."""
    added = ScheduledEvent(
        event_id="E-2",
        event_type="Reboot",
        status=EventStatus.SCHEDULED,
        resources=("web-2",),
        forwarded=True,
    )
    post.rehearsed.append(added)
    await post.watcher.poll()
    odd(post, entry)
    await post.watcher.poll()
    post.heal()
    for shown in ((added,), (added,), ()):
        post.rehearsed[:] = shown
        await post.watcher.poll()
        assert post.watcher.document is not None
        assert post.watcher.document.events == shown


async def test_another_event_that_goes_meanwhile_is_gone(post: Post) -> None:
    """An odd event with a readable id keeps no other event alive."""
    odd(post, KNOWN, GOOD)
    await post.watcher.poll()
    odd(post, {**GOOD, "Resources": 1})
    await post.watcher.poll()
    assert post.watcher.document is not None
    assert [each.event_id for each in post.watcher.document.events] == ["good"]


async def test_only_the_newest_two_clean_documents_are_kept(post: Post) -> None:
    """The run of clean polls is as long as a restore needs, and ends with the newest."""
    for _ in range(3):
        await post.watcher.poll()
    post.world.events.schedule("Reboot", "web-2")
    await post.watcher.poll()
    older, newest = post.watcher.clean_documents
    assert older.events == ()
    assert newest is post.watcher.document


async def test_a_new_leader_starts_a_new_clean_run(post: Post) -> None:
    """What a standby saw is not enough to restore on; going on to lead changes nothing."""
    await post.watcher.poll()
    await post.watcher.poll()
    post.watcher.lead(True)
    assert post.watcher.clean_documents == ()
    assert post.watcher.document is not None
    await post.watcher.poll()
    post.watcher.lead(True)
    assert len(post.watcher.clean_documents) == 1


async def test_the_document_of_a_new_leader_is_complete_when_forwarded_events_are_known(
    post: Post,
) -> None:
    """The document counts as it was read: what is known meanwhile is added by the next poll."""
    await post.watcher.poll()
    assert post.watcher.is_complete
    post.forwarded_known = False
    post.watcher.lead(True)
    assert not post.watcher.is_complete
    await post.watcher.poll()
    post.forwarded_known = True
    assert not post.watcher.is_complete
    await post.watcher.poll()
    assert post.watcher.is_complete


async def test_the_pace(post: Post) -> None:
    """15 s as standby, 1 s as leader; what the service asks for, if that is longer."""
    assert await post.watcher.poll() == 15
    post.watcher.lead(True)
    assert await post.watcher.poll() == 1
    post.fault(status=429, headers=(("Retry-After", "7"),), times=1)
    assert await post.watcher.poll() == 7
    post.fault(status=429, times=1)
    assert await post.watcher.poll() == 5
    post.watcher.lead(False)
    post.fault(status=500, times=1)
    assert await post.watcher.poll() == 15


async def test_without_a_first_document_a_standby_tries_soon_again(post: Post) -> None:
    """Nobody waits a quarter of a minute for the very first document."""
    post.fault(status=500, times=1)
    assert await post.watcher.poll() == 5


@pytest.mark.parametrize(("wrong_s", "warnings"), [(0, 0), (0.9, 0), (-30, 1), (3600, 1)])
async def test_a_wrong_clock_is_corrected(
    post: Post, wrong_s: float, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock that is off by more than the header can tell is corrected, and reported once."""
    post.clock.wall_error_s = wrong_s
    await post.watcher.poll()
    await post.watcher.poll()
    off = abs(post.watcher.now() - (post.clock.now() - timedelta(seconds=wrong_s)))
    assert off <= timedelta(seconds=2)
    assert reported(caplog, "deadlines are corrected") == warnings
    post.clock.wall_error_s = 0
    await post.watcher.poll()
    await post.watcher.poll()
    assert abs(post.watcher.now() - post.clock.now()) <= timedelta(seconds=1)


@pytest.mark.parametrize(("wrong_s", "believed"), [(-590, True), (-610, False), (90_000, False)])
async def test_one_garbled_date_moves_no_deadline(
    post: Post, wrong_s: float, believed: bool
) -> None:
    """S1, S7: a large correction needs two polls in a row that agree; then it is followed."""
    await post.watcher.poll()
    for _ in range(2):
        post.clock.wall_error_s = wrong_s
        await post.watcher.poll()
        corrected = abs(post.watcher.now() - post.clock.now()) > timedelta(seconds=2)
        assert corrected is believed
        post.clock.wall_error_s = 0
        await post.watcher.poll()
    post.clock.wall_error_s = wrong_s
    await post.watcher.poll()
    await post.watcher.poll()
    off = abs(post.watcher.now() - (post.clock.now() - timedelta(seconds=wrong_s)))
    assert off <= timedelta(seconds=2)


async def test_rounding_never_toggles_the_correction(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    """A clock at the edge of the tolerance is corrected once, or not at all, but not in turns."""
    for wrong_s in (-2.2, -1.8, -2.1, -1.5, -2.4, -1.9):
        post.clock.wall_error_s = wrong_s
        await post.watcher.poll()
    assert reported(caplog, "deadlines are corrected") <= 1


async def test_a_look_polls_only_when_the_last_poll_is_old(post: Post) -> None:
    """Whoever wants a fresh document gets one, at the price of at most one request."""
    await post.watcher.refresh(no_older_than_s=2)
    assert post.polls() == 1
    post.clock.move(2)
    await post.watcher.refresh(no_older_than_s=2)
    assert post.polls() == 1
    post.clock.move(0.1)
    await post.watcher.refresh(no_older_than_s=2)
    assert post.polls() == 2


async def test_one_poll_at_a_time(post: Post) -> None:
    """Whoever asks while a poll is under way waits for it instead of asking beside it."""
    with held_replies(post.server, "scheduledevents"):
        first = asyncio.create_task(post.watcher.poll())
        await post.server.wait_until(lambda: post.polls() == 1)
        second = asyncio.create_task(post.watcher.poll())
        await post.server.notify()
        assert not first.done()
        assert post.polls() == 1
    await asyncio.gather(first, second)
    assert post.polls() == 2


async def test_becoming_leader_hurries_the_next_poll(post: Post) -> None:
    """A standby that starts to lead polls now, not when its quarter of a minute is over."""
    running = asyncio.create_task(post.watcher.run())
    await post.server.wait_until(lambda: post.heard == 1)
    post.watcher.lead(True)
    await post.server.wait_until(lambda: post.heard >= 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
