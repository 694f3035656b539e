"""The vocabulary: spellings, policy, floors, ids."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.azure_names import (
    fold,
    fold_address,
    load_balancer_of,
    nic_of,
    resource_group_of,
    short,
)
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.events import EventSource, EventStatus, ScheduledEvent
from controller.core.observation import Deferral, Observation
from controller.core.policy import EventAction, Floor
from controller.core.resources import AddressMembership, Nic, NicMembership, PoolKind, PowerState
from tests.support.policies import make_event_policy, make_policy

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
EVENT = ScheduledEvent(
    event_id="E",
    event_type="Reboot",
    status=EventStatus.SCHEDULED,
    resources=("_Web-1", "web-2"),
    not_before=T0,
)


def test_words_of_azure_and_of_the_ledger() -> None:
    """Statuses and sources are spelled as Azure does."""
    assert [status.value for status in EventStatus] == ["Scheduled", "Started", "Unknown"]
    assert [source.value for source in EventSource] == ["Platform", "User", "Unknown"]


def test_unknown_event_types() -> None:
    """Defaults are as documented, and who knows nothing writes one thing at a time."""
    policy, event = make_policy(pools={}), make_event_policy()
    assert (policy.lead_time_s, policy.connection_drain_s, policy.restore_settle_s) == (900, 30, 15)
    assert (policy.acknowledge, policy.acknowledge_unmanaged, policy.acknowledge_ignored) == (
        True,
        False,
        False,
    )
    assert (event.action, event.min_duration_s, event.acknowledge) == (EventAction.DRAIN, 0, True)
    assert not Floor(number=1).percent
    nothing = Observation(document=None)
    assert (nothing.write_slots, nothing.inventory_period_s) == (1, 300)
    assert Deferral(until=T0, reason="Busy").attempts == 0


def test_words_of_pools_and_vms() -> None:
    """Messages and status show these words."""
    assert [action.value for action in EventAction] == ["drain", "ignore"]
    assert [kind.value for kind in PoolKind] == ["nic", "address", "empty"]
    assert DRAIN_REQUEST == "Request"
    assert [power.value for power in PowerState] == ["running", "not running", "gone", "unknown"]


def test_a_body_is_handed_on_and_never_looked_into() -> None:
    """Two views of a NIC that differ in the opaque body are equal, and no body is logged."""
    seen = Nic(nic_id="n", vm_id="v", etag="1", ip_configurations=(), observed_at=T0, body="secret")
    assert seen == replace(seen, body="other")
    assert hash(seen) == hash(replace(seen, body=["not", "hashable"]))
    assert "secret" not in repr(seen)
    assert replace(seen, body="x").body == "x"


def test_what_a_newer_version_added_is_no_part_of_a_membership() -> None:
    """A membership is the same with and without the fields that this version does not know."""
    place = NicMembership(pool_id="p", nic_id="n", ip_configuration="c")
    assert place.position == 0
    assert place == replace(place, extra={"news": []})
    assert hash(place) == hash(replace(place, extra={"news": []}))
    listed = AddressMembership(pool_id="p", name="a", ip_address="10.0.0.1", body="{}")
    assert listed == replace(listed, extra={"news": []})
    assert hash(listed) == hash(replace(listed, extra={"news": []}))


def test_an_event_without_details() -> None:
    """A duration that is not given is unknown, and an unknown duration counts as long."""
    silent = ScheduledEvent(
        event_id="E", event_type="Freeze", status=EventStatus.SCHEDULED, resources=()
    )
    assert (silent.duration_s, silent.not_before) == (-1, None)
    assert silent.source is EventSource.UNKNOWN
    assert make_policy(pools={}).impacting(silent)


def test_fold() -> None:
    """Case, the old underscore and a trailing slash make no difference."""
    assert fold("_WEB-1") == fold("web-1") == fold("Web-1/")
    assert fold("web_1") != fold("web1")


def test_fold_address() -> None:
    """IPv6 addresses are equal in all their spellings; what is no address equals itself only."""
    assert fold_address("FD00:0:0::1") == fold_address("fd00::1")
    assert fold_address("10.0.0.1") == "10.0.0.1"
    assert fold_address("_10.0.0.1") == "_10.0.0.1"
    assert fold_address("10.0.0.1/") == "10.0.0.1/"


def test_affects() -> None:
    """An event names its VMs in Azure's spelling."""
    assert EVENT.affects("WEB-1")
    assert EVENT.affects("Web-2")
    assert not EVENT.affects("web-3")


def test_membership_keys() -> None:
    """A membership is the same in any spelling, and whatever its position or entry name."""
    a = NicMembership(pool_id="/P", nic_id="/N", ip_configuration="C", position=1)
    b = NicMembership(pool_id="/p", nic_id="/n", ip_configuration="c")
    assert a.key == b.key
    c = AddressMembership(pool_id="/P", name="x", ip_address="fd00:0::1", body="{}")
    d = AddressMembership(pool_id="/p", name="y", ip_address="FD00::1", body="")
    assert c.key == d.key
    assert a.key != c.key


@pytest.mark.parametrize(
    ("floor", "full", "members"),
    [
        (Floor(number=1), 9, 1),
        (Floor(number=3), 2, 3),
        (Floor(number=50, percent=True), 4, 2),
        (Floor(number=50, percent=True), 3, 2),
        (Floor(number=1, percent=True), 1, 1),
        (Floor(number=34, percent=True), 3, 2),
        (Floor(number=33, percent=True), 3, 1),
        (Floor(number=100, percent=True), 7, 7),
        (Floor(number=0, percent=True), 7, 0),
        (Floor(number=50, percent=True), 0, 0),
    ],
)
def test_floor_rounds_up(floor: Floor, full: int, members: int) -> None:
    """S2: half of three members is two."""
    assert floor.members(full=full) == members


def test_every_documented_type_has_a_policy() -> None:
    """The five types of Azure are drained for; deletions are not agreed to by default."""
    assert dict(make_policy(pools={}).events) == {
        "Freeze": make_event_policy(min_duration_s=5),
        "Reboot": make_event_policy(),
        "Redeploy": make_event_policy(),
        "Preempt": make_event_policy(acknowledge=False),
        "Terminate": make_event_policy(acknowledge=False),
    }


def test_policy_by_type_ignores_case() -> None:
    """`freeze` is Freeze; an unknown type is drained for and not acknowledged."""
    policy = make_policy(pools={})
    assert policy.for_type("fREEZE") == make_event_policy(min_duration_s=5)
    assert policy.for_type("Surprise") == make_event_policy(acknowledge=False)
    assert not policy.for_type("Preempt").acknowledge
    assert not policy.for_type("Terminate").acknowledge


@pytest.mark.parametrize(
    ("duration_s", "impacting"), [(-1, True), (0, False), (8, False), (9, True)]
)
def test_impacting_by_duration(duration_s: int, impacting: bool) -> None:
    """A duration below the minimum is ignored; an unknown one counts as long."""
    policy = make_policy(pools={}, events={"Freeze": make_event_policy(min_duration_s=9)})
    event = ScheduledEvent(
        event_id="E",
        event_type="Freeze",
        status=EventStatus.SCHEDULED,
        resources=(),
        duration_s=duration_s,
    )
    assert policy.impacting(event) is impacting
    ignored = make_policy(pools={}, events={"Freeze": make_event_policy(action=EventAction.IGNORE)})
    assert not ignored.impacting(event)


@pytest.mark.parametrize(
    ("status", "source", "not_before", "due"),
    [
        (EventStatus.SCHEDULED, EventSource.PLATFORM, T0, T0 - timedelta(seconds=900)),
        (EventStatus.SCHEDULED, EventSource.UNKNOWN, T0, T0 - timedelta(seconds=900)),
        (EventStatus.SCHEDULED, EventSource.USER, T0, None),
        (EventStatus.SCHEDULED, EventSource.PLATFORM, None, None),
        (EventStatus.STARTED, EventSource.PLATFORM, None, None),
        (EventStatus.STARTED, EventSource.PLATFORM, T0, None),
        (EventStatus.UNKNOWN, EventSource.PLATFORM, T0, None),
    ],
)
def test_drain_at(
    status: EventStatus, source: EventSource, not_before: datetime | None, due: datetime | None
) -> None:
    """Lead time before NotBefore; at once for User events, started ones and unreadable instants."""
    event = ScheduledEvent(
        event_id="E",
        event_type="Reboot",
        status=status,
        resources=(),
        not_before=not_before,
        source=source,
    )
    assert make_policy(pools={}).drain_at(event, T0) == due


@pytest.mark.parametrize(
    ("changes", "now_s", "due"),
    [
        ({}, -901, False),
        ({}, -900, True),
        ({}, 1, True),
        ({"not_before": None}, -901, True),
        ({"source": EventSource.USER}, -901, True),
        ({"status": EventStatus.STARTED}, -901, True),
        ({"status": EventStatus.UNKNOWN}, -900, False),
        ({"status": EventStatus.UNKNOWN, "not_before": None}, 1, False),
        ({"status": EventStatus.UNKNOWN, "source": EventSource.USER}, 1, False),
        ({"event_type": "Freeze", "duration_s": 4}, 1, False),
        ({"event_type": "Freeze", "duration_s": 4, "status": EventStatus.STARTED}, 1, False),
        ({"event_type": "Freeze", "duration_s": 5}, 1, True),
        ({"event_type": "Surprise"}, -900, True),
    ],
)
def test_is_due(changes: dict[str, Any], now_s: int, due: bool) -> None:
    """An impacting event is due from `drain_at`; an undocumented status never is."""
    event = replace(EVENT, **changes)
    assert make_policy(pools={}).is_due(event, T0 + timedelta(seconds=now_s)) is due


def test_ids() -> None:
    """Ids are taken apart without regard to case, and keep their spelling."""
    assert (
        load_balancer_of("/x/LoadBalancers/Web/BackendAddressPools/App") == "/x/LoadBalancers/Web"
    )
    assert nic_of("/x/N/IPConfigurations/C") == ("/x/N", "C")
    assert short("/a/b/App/") == "App"
    nic = "/subscriptions/S/resourceGroups/RG/providers/Microsoft.Network/networkInterfaces/N"
    assert (
        resource_group_of(nic)
        == resource_group_of(nic.upper())
        == ("/subscriptions/s/resourcegroups/rg")
    )
