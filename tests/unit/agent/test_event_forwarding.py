"""What a leader makes of the blobs in which agents forward events."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.agent.event_forwarding import EventForwarder, ForwardedReader
from controller.agent.present_set import PresentSet
from controller.azure.blob import Content
from controller.azure.container import ListedBlob, Listing
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.forwarded_events import RENEWED_S, STANDS_FOR, ForwardedEvents, forwarded
from controller.core.resources import Vm
from controller.errors import (
    Conflict,
    ControllerError,
    Denied,
    NotFound,
    OutcomeUnknown,
    Throttled,
)
from controller.storage.forwarded_events_store import (
    MAX_BODY_BYTES,
    decode_forwarded,
    encode_forwarded,
    forwarded_blob_name,
    forwarded_folder,
)
from tests.support.clocks import StoppedClock
from tests.support.planner_scenario import PlannerScenario, at, event

LEDGER = "s/rg/flex.json"
FLEX = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/flex"


class Container:
    """The blobs of a container, by name, and when each was written."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.read: list[str] = []
        self.failures: dict[str, ControllerError] = {}

    def forward(self, vm: str, *, said_at_s: float = 0) -> None:
        """Let the agent of a VM forward a reboot of it; storage receives that at 0 s."""
        reboot = forwarded(event(vm, event_id=f"E-{vm}", not_before=1), (vm,))
        found = ForwardedEvents(vm=vm, at=at(said_at_s), events=(reboot,))
        self.bodies[forwarded_blob_name(LEDGER, vm)] = encode_forwarded(found)

    async def list(self, *, prefix: str) -> Listing:
        found = (
            ListedBlob(
                name=name, etag=str(hash(body)), size=1, written_at=at(0), lease_state="available"
            )
            for name, body in self.bodies.items()
            if name.startswith(prefix)
        )
        return Listing(blobs=tuple(found), at=at(0))

    def blob_of(self, name: str) -> Any:
        container = self

        class Blob:
            async def read(self) -> Content:
                container.read.append(name)
                if name in container.failures:
                    raise container.failures[name]
                body = container.bodies[name]
                return Content(body=body, etag="x", lease_state="available", lease_status="")

        return Blob()


class Leader:
    """A reader of web-1, which leads."""

    def __init__(self) -> None:
        self.container, self.vms = Container(), tuple[Vm, ...]()
        container: Any = self.container
        self.reader = ForwardedReader(
            lambda: container,
            container.blob_of,
            folder=forwarded_folder(LEDGER),
            vm="web-1",
            present_set=PresentSet(FLEX),
            clock=StoppedClock(),
            leading=lambda: True,
            vms=lambda: self.vms,
        )

    def events(self, seconds: float = 10) -> list[str]:
        """Return the ids of the events that count then."""
        return sorted(each.event_id for each in self.reader.events(at(seconds)))


@pytest.fixture
def leader() -> Leader:
    """Return a leader to which the agents of web-1, web-2 and web-3 have forwarded an event."""
    leader = Leader()
    for vm in ("web-1", "web-2", "web-3"):
        leader.container.forward(vm)
    return leader


async def test_what_other_agents_forward_counts(leader: Leader) -> None:
    """Its own document shows a leader the events of its own VM; what is unchanged is not read."""
    await leader.reader.step()
    await leader.reader.step()
    assert leader.events() == ["E-web-2", "E-web-3"]
    assert len(leader.container.read) == 2


@pytest.mark.parametrize("body", [b"{", b" " * (MAX_BODY_BYTES + 1), b'{"version": "9.0"}'])
async def test_events_that_cannot_be_read_are_reported_once(
    leader: Leader, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """L2: what was read before counts on, and the others count."""
    await leader.reader.step()
    name = forwarded_blob_name(LEDGER, "web-2")
    leader.container.bodies[name] = body
    for _ in range(2):
        await leader.reader.step()
    assert leader.events() == ["E-web-2", "E-web-3"]
    (record,) = caplog.records
    assert name in record.message


@pytest.mark.parametrize(
    "failure", [Conflict("409 BlobArchived"), Denied("403"), OutcomeUnknown("no answer")], ids=str
)
async def test_a_blob_that_storage_does_not_return_hides_no_other(
    leader: Leader, failure: ControllerError
) -> None:
    """S7: a new leader has read none before, and every leader stops at the same one."""
    leader.container.failures[forwarded_blob_name(LEDGER, "web-2")] = failure
    with pytest.raises(type(failure)):
        await leader.reader.step()
    assert leader.events() == ["E-web-3"]
    leader.container.failures.clear()
    await leader.reader.step()
    assert leader.events() == ["E-web-2", "E-web-3"]


async def test_the_agent_of_a_deleted_vm_withdraws_nothing(leader: Leader) -> None:
    """L1: what it left does not count, once the VMs of the set are known."""
    await leader.reader.step()
    leader.vms = (Vm(name="WEB-2", vm_id="/2", nic_ids=()),)
    assert leader.events() == ["E-web-2"]


async def test_the_clock_of_storage_counts(leader: Leader) -> None:
    """S6: that of a VM can be an hour slow."""
    leader.container.forward("web-2", said_at_s=-3600)
    await leader.reader.step()
    ends_s = timedelta(seconds=1) + STANDS_FOR
    assert leader.events(ends_s.total_seconds() - 1) == ["E-web-2", "E-web-3"]
    assert leader.events(ends_s.total_seconds()) == []


async def test_what_is_withdrawn_does_not_count(leader: Leader) -> None:
    """Also when the whole blob is gone."""
    await leader.reader.step()
    del leader.container.bodies[forwarded_blob_name(LEDGER, "web-2")]
    await leader.reader.step()
    assert leader.events() == ["E-web-3"]


class Forwarding:
    """The agent of web-2, and what it has written."""

    in_scale_set = True

    def __init__(self, *shown: ScheduledEvent) -> None:
        self.written, self.now, self.found = list[bytes](), at(0), b""
        document = EventDocument(incarnation=1, events=shown)
        watcher: Any = SimpleNamespace(
            document=document,
            clean_documents=(document, document),
            now=lambda: self.now,
            clock=StoppedClock(),
        )
        self.watcher, self.failure, self.tries = watcher, cast("ControllerError | None", None), 0
        coverage: Any = SimpleNamespace(
            unknown=(), polled=lambda: None, is_in_scale_set=lambda: self.in_scale_set
        )
        blob: Any = self
        policy = PlannerScenario().policy
        self.forwarder = EventForwarder(
            coverage,
            blob,
            vm="web-2",
            watcher=self.watcher,
            policy=lambda: policy,
        )

    name = forwarded_blob_name(LEDGER, "web-2")

    async def read(self) -> Content:
        if not self.found:
            raise NotFound("no blob")
        return Content(body=self.found, etag="x", lease_state="available", lease_status="")

    async def replace(self, body: bytes, _etag: str) -> str:
        self.tries += 1
        if self.failure is not None:
            raise self.failure
        self.written.append(body)
        return "x"

    async def poll(self) -> list[str]:
        """Poll once, and return the ids of the events that stand forwarded then."""
        task = asyncio.create_task(self.forwarder.run())
        self.forwarder.polled()
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not self.written:
            return []
        found = decode_forwarded(self.written[-1], Forwarding.name)
        return [each.event_id for each in found.events]

    def show(self, *shown: ScheduledEvent) -> None:
        """Let the next documents show these events."""
        document = EventDocument(incarnation=2, events=shown)
        self.watcher.document, self.watcher.clean_documents = document, (document, document)


async def test_what_is_forwarded_is_withdrawn_although_the_set_is_no_scale_set_any_more() -> None:
    """S6: a set can be turned back; converted again, the event would count as if announced."""
    agent = Forwarding(event("web-2", event_id="E-1"))
    assert await agent.poll() == ["E-1"]
    agent.in_scale_set = False
    agent.show()
    assert await agent.poll() == []


@pytest.mark.parametrize(
    ("failure", "tries", "reports"),
    [
        (Throttled("429", retry_after_s=60), 3, 0),
        (OutcomeUnknown("no answer"), 9, 0),
        (Denied("403"), 9, 1),
    ],
    ids=["throttled", "silent", "denied"],
)
async def test_storage_that_takes_no_event_is_asked_as_often_as_it_requests(
    failure: ControllerError, tries: int, reports: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that leads polls every second. A refusal that lasts is reported, once."""
    agent = Forwarding(event("web-2", event_id="E-1"))
    agent.failure = failure
    for _ in range(3):
        for _ in range(3):
            await agent.poll()
        agent.watcher.clock.move(60)
    assert agent.tries == tries
    assert sum("cannot be forwarded" in each.message for each in caplog.records) == reports
    agent.failure = None
    assert await agent.poll() == ["E-1"]


async def test_nothing_is_forwarded_in_an_availability_set() -> None:
    """The document of the leader shows the events of all VMs."""
    agent = Forwarding(event("web-2", event_id="E-1"))
    agent.in_scale_set = False
    assert await agent.poll() == []
    agent.in_scale_set = True
    assert await agent.poll() == ["E-1"]


async def test_what_an_agent_forwards() -> None:
    """S7: every event of its VM, also one that shares its id with another one and is acknowledged
    by no agent; not what other agents forward, and no rehearsal."""
    shared = replace(event("web-2", event_id="E-1"), acknowledgeable=False)
    other = replace(event("web-2", event_id="E-2"), acknowledgeable=False, forwarded=True)
    test = replace(event("web-2", event_id="test-1"), acknowledgeable=False)
    agent = Forwarding(shared, replace(shared, duration_s=90), other, test)
    await agent.forwarder.step()
    found = decode_forwarded(agent.written[-1], Forwarding.name)
    assert [each.event_id for each in found.events] == ["E-1"]


@pytest.mark.parametrize(
    ("later_s", "writes"),
    [(0.0, 1), (RENEWED_S - 1, 1), (RENEWED_S, 2), (-3600.0, 2)],
    ids=["at once", "early", "due", "the clock was an hour fast"],
)
async def test_an_agent_renews_what_it_forwards(later_s: float, writes: int) -> None:
    """S6: the event would not count any more, although the agent still sees it."""
    agent = Forwarding(event("web-2"))
    await agent.forwarder.step()
    agent.now = at(later_s)
    await agent.forwarder.step()
    assert len(agent.written) == writes


async def test_what_an_earlier_run_has_forwarded_is_not_renewed_unseen() -> None:
    """S7: renewed after its end, the event would stand as if it were announced again."""
    agent = Forwarding()
    earlier = forwarded(event("web-2"), ("web-2",))
    agent.found = encode_forwarded(ForwardedEvents(vm="web-2", at=at(0), events=(earlier,)))
    document, agent.now = agent.watcher.document, at(RENEWED_S)
    agent.watcher.clean_documents = (document,)
    await agent.forwarder.step()
    assert agent.written == []
    agent.watcher.clean_documents = (document, document)
    await agent.forwarder.step()
    assert decode_forwarded(agent.written[-1], Forwarding.name).events == ()
