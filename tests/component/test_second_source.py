"""Real agents with Resource Graph as a second source, against the simulated Azure."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller.agent import second_source_watch
from controller.agent.agent import Agent
from controller.azure.http.session import open_azure
from controller.azure.resource_graph import MAX_PAGES, PATH, QueryResult
from controller.core import second_source
from controller.doctor.report import Result
from controller.doctor.run import examine
from controller.errors import ContractViolation, ControllerError, Denied, ServiceFault, Throttled
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.simulator.world.access import ACKNOWLEDGE
from tests.conftest import OpenSet
from tests.support.in_process_set import NEVER_S, InProcessSet

PUBLISHED = {"scheduledEventsAdditionalPublishingTargets": {
    "eventGridAndResourceGraph": {"enable": True, "scheduledEventsApiVersion": "2020-07-01"}
}}  # fmt: skip
ASKING: dict[str, Any] = {"events": {"resource_graph": True}}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let queries follow each other at once."""
    monkeypatch.setattr(second_source_watch, "CHECK_S", 0.05)
    monkeypatch.setattr(second_source_watch, "BUSY_PERIOD_S", 0.1)
    monkeypatch.setattr(second_source_watch, "IDLE_PERIOD_S", 0.1)


@pytest.fixture
async def graph(open_set: OpenSet) -> AsyncIterator[InProcessSet]:
    """A set that publishes its events at once."""
    async with open_set(settings={"resource_graph_delay_s": 0}) as bench:
        bench.world.scheduled_events_policy = PUBLISHED
        yield bench


def overview(agent: Agent) -> dict[str, Any]:
    """Return what Resource Graph has shown, as the status page has it."""
    found = agent.live_status.overview()["resource_graph"]
    assert found is not None
    return dict(found)


def verdict(bench: InProcessSet) -> dict[str, Any]:
    """Return the last verdict in the ledger."""
    found: list[dict[str, Any]] = bench.ledger().get("verdicts") or [{}]
    return found[-1]


# --- the end of an event -------------------------------------------------------------------------


async def test_the_end_of_a_maintenance_is_confirmed(graph: InProcessSet) -> None:
    """Verdict and history state it; the VM is back as ever."""
    agent = await graph.lead(overrides=ASKING)
    event_id = await graph.announce("web-2")
    await graph.until("confirmed", lambda: verdict(graph).get("end") == "Completed")
    await graph.until("all done", lambda: not graph.ledger()["entries"])
    (line,) = [each for each in graph.ledger()["transitions"] if each["what"] == "end reported"]
    assert (line["vm"], line["detail"]) == ("web-2", f"Reboot {event_id}: Completed")
    shown = agent.live_status.overview()
    assert shown["verdicts"][0]["end"] == "Completed"
    assert shown["verdicts"][0]["text"].endswith("and Azure confirms its end")
    assert overview(agent)["problem"] == ""
    assert graph.reported() == []


async def test_a_cancelled_event_is_known_to_be_cancelled(graph: InProcessSet) -> None:
    """Without Resource Graph that is inferred from its absence."""
    await graph.lead(overrides=ASKING)
    graph.world.events.schedule("Reboot", "web-2", notice_s=NEVER_S, event_id="E-1")
    await graph.server.notify()
    await graph.until("announced", lambda: graph.ledger().get("events"))
    graph.world.events.cancel("E-1")
    await graph.server.notify()
    await graph.until("confirmed", lambda: verdict(graph).get("end") == "Canceled")
    assert verdict(graph)["verdict"] == "cancelled"


@pytest.mark.parametrize("lie", ["Completed", "Canceled"])
async def test_an_end_that_is_a_lie_moves_nothing(graph: InProcessSet, lie: str) -> None:
    """Laws S1 and S6: a VM stays out while the metadata service announces its event."""
    graph.world.settings.resource_graph_lie = lie
    agent = await graph.lead(overrides=ASKING)
    event_id = await graph.announce("web-2", started_s=NEVER_S)
    await graph.until("out", lambda: not graph.inside("web-2"))
    await graph.until("contradiction", lambda: overview(agent)["early_ends"] == [event_id])
    for _ in range(3):
        await graph.requests(1, PATH, "POST")
    assert not graph.inside("web-2")
    assert verdict(graph).get("end", "") == ""
    assert graph.world.changes("member_in") == []


# --- disagreement --------------------------------------------------------------------------------


async def test_an_event_that_no_agent_reads_is_held_up_to_operators(
    graph: InProcessSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document is empty, Resource Graph announces: the set may be blind."""
    monkeypatch.setattr(second_source, "UNSEEN_AFTER_S", 0.3)
    graph.document({"DocumentIncarnation": 1, "Events": []})
    agent = await graph.lead(overrides=ASKING)
    event_id = await graph.announce("web-2")
    await graph.until("held", lambda: graph.ledger().get("holds"))
    (hold,) = graph.ledger()["holds"]
    assert (hold["subject"], hold["reason"]) == (event_id, "event_unseen")
    assert graph.inside("web-2")
    assert [each["title"] for each in agent.live_status.overview()["problems"]] == [
        f"{event_id} is announced, and no agent reads it"
    ]
    graph.heal()
    await graph.until("read", lambda: not graph.ledger()["holds"])


async def test_an_event_that_is_not_published_is_information(
    graph: InProcessSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown and logged, and nothing is held."""
    monkeypatch.setattr(second_source, "UNPUBLISHED_AFTER_S", 0.3)
    graph.world.scheduled_events_policy = None
    agent = await graph.lead(overrides=ASKING)
    event_id = await graph.announce("web-2", started_s=NEVER_S)
    await graph.until("shown", lambda: overview(agent)["unpublished"] == [event_id])
    await graph.until("logged", lambda: graph.logged("Resource Graph does not show it", "INFO"))
    assert graph.ledger()["holds"] == []


async def test_it_is_not_asked_by_default_nor_by_a_standby(graph: InProcessSet) -> None:
    """Only the leader of a set that opts in asks."""
    asked: list[str] = []
    graph.server.observers.append(lambda request, _: asked.append(request.path))
    first = await graph.lead("web-1")
    standby = await graph.stand_by("web-2", overrides=ASKING)
    await graph.announce("web-3")
    await graph.until("over", lambda: verdict(graph).get("verdict") == "drained")
    assert PATH not in asked
    assert [each.live_status.overview()["resource_graph"] for each in (first, standby)] == [
        None
    ] * 2


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ({"status": 403, "body": '{"error":{"code":"AuthorizationFailed","message":"no"}}'}, "403"),
        ({"status": 429, "headers": (("Retry-After", "7"),)}, "429"),
        ({"status": 503}, "503"),
        ({"status": 200, "body": "{}"}, "not a list of rows"),
        ({"status": 200, "body": '{"data":[7,{"properties":{}}]}'}, ""),
        ({"effect": Effect.GARBAGE}, "not JSON"),
        ({"effect": Effect.OVERSIZED}, "a page of more than"),
        ({"effect": Effect.EMPTY_200}, "not JSON"),
        ({"effect": Effect.RESET_BEFORE}, "Resource Graph query"),
    ],
)
async def test_a_query_that_fails_changes_nothing_but_its_report(
    graph: InProcessSet, fault: dict[str, Any], problem: str
) -> None:
    """The maintenance takes its course; the problem is shown."""
    graph.fault(Service.ARM, method="POST", path_contains="Microsoft.ResourceGraph", **fault)
    agent = await graph.lead(overrides=ASKING)
    await graph.announce("web-2")
    await graph.until("over", lambda: verdict(graph).get("verdict") == "drained")
    await graph.until("all done", lambda: not graph.ledger()["entries"])
    shown = overview(agent)
    assert problem in shown["problem"]
    assert bool(shown["set_aside"]) is (problem == "")
    assert verdict(graph).get("end", "") == ""


async def query(bench: InProcessSet) -> QueryResult:
    """Ask once, as the agent does."""
    settings = bench.settings(bench.config("web-1", ASKING))
    vms = [vm.resource_id for vm in bench.world.peers()]
    async with open_azure(settings, bench.clock, {}) as azure:
        return await azure.resource_graph.scheduled_events(bench.world.availability_set_id, vms, ())


async def test_every_page_is_read(graph: InProcessSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply with several pages is one answer."""
    monkeypatch.setattr("controller.azure.resource_graph.PAGE_ROWS", 2)
    wanted = {graph.world.events.schedule("Reboot", "web-1").event_id for _ in range(5)}
    found = await query(graph)
    assert {each.event_id for each in found.reply.rows} == wanted


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        ({"data": [], "$skipToken": "again"}, (), ContractViolation),
        (
            {"data": [], "$skipToken": "more"},
            (("x-ms-user-quota-remaining", "0"), ("x-ms-user-quota-resets-after", "00:00:05")),
            Throttled,
        ),
        ({"data": [], "$skipToken": 7}, (), ContractViolation),
    ],
)
async def test_a_reply_that_does_not_end_is_not_used(
    graph: InProcessSet,
    body: dict[str, Any],
    headers: tuple[tuple[str, str], ...],
    expected: type[ControllerError],
) -> None:
    """A token that repeats, and pages beyond the quota: nothing of the reply counts."""
    graph.fault(Service.ARM, method="POST", path_contains="ResourceGraph", status=200,
                body=json.dumps(body), headers=headers)  # fmt: skip
    with pytest.raises(expected):
        await query(graph)


async def test_pages_have_a_limit(graph: InProcessSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A huge reply is refused as a whole."""
    monkeypatch.setattr("controller.azure.resource_graph.PAGE_ROWS", 1)
    for _ in range(MAX_PAGES + 1):
        graph.world.events.schedule("Reboot", "web-1")
    with pytest.raises(ContractViolation, match="does not end"):
        await query(graph)


async def test_errors_are_those_of_resource_manager(graph: InProcessSet) -> None:
    """A refusal names the permission; Retry-After is heard."""
    graph.world.roles.revoke("web-1", "Microsoft.Compute/availabilitySets/read")
    with pytest.raises(Denied, match="ResourceGraph/resources/read"):
        await query(graph)
    graph.fault(Service.ARM, path_contains="ResourceGraph", status=500)
    with pytest.raises(ServiceFault):
        await query(graph)


# --- the doctor ----------------------------------------------------------------------------------


async def findings(bench: InProcessSet) -> dict[str, Result]:
    """Return what the doctor finds about the second source and the second acknowledgement."""
    both = {"events": {"resource_graph": True, "acknowledge_through": "imds-then-arm"}}
    settings = bench.settings(bench.config("web-1", both))
    report = await examine(settings, environ={}, clock=bench.clock)
    wanted = {"resource-graph", "event-publishing", "arm-acknowledgement"}
    return {each.check: each.result for each in report.findings if each.check in wanted}


async def test_the_doctor_finds_what_is_missing_and_changes_nothing(graph: InProcessSet) -> None:
    """The policy of the set and the role; the probe acknowledges no event."""
    event = graph.world.events.schedule("Reboot", "web-2", notice_s=NEVER_S)
    graph.world.scheduled_events_policy = None
    assert await findings(graph) == {
        "resource-graph": Result.PASS,
        "event-publishing": Result.WARN,
        "arm-acknowledgement": Result.FAIL,
    }
    graph.world.scheduled_events_policy = PUBLISHED
    graph.world.roles.assign("web-1", ACKNOWLEDGE, f"/subscriptions/{graph.world.subscription}")
    assert set((await findings(graph)).values()) == {Result.PASS}
    assert event.acknowledged_by == []
