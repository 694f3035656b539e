"""The planner, the status page and the metrics give one answer to which VM is in which pool."""

import re
from dataclasses import replace
from typing import Any

import pytest

from controller.agent.resource_cache import ResourceCache, all_rules
from controller.clock import SystemClock
from controller.config.schema import Settings
from controller.core.ledger import Ledger
from controller.core.planning.actions import Phase, Plan
from controller.core.planning.planner import plan
from controller.core.policy import Floor
from controller.core.resources import IpConfiguration, Nic, Pool
from controller.observability.systemd_notify import SystemdNotifier
from controller.observability.transition_log import TransitionReporter
from controller.status.overview import overview
from controller.status.snapshot import AgentHealth, AgentSnapshot
from tests.support.admin_states import StateScenario
from tests.support.planner_scenario import APP, PlannerScenario, at, event, ip_id, phase

NOW = 100.0


def views(*, nic_lists: bool, nic_at: float, pool_lists: bool, pool_at: float) -> ResourceCache:
    """Return a cache with one VM, one view of its NIC and one of the pool."""
    scene = PlannerScenario(inside={"web-1": [APP]})
    seen = scene.observe()
    pools = (APP,) if nic_lists else ()
    nic: Nic = replace(
        seen.nics[0],
        ip_configurations=(IpConfiguration(name="ipconfig1", pool_ids=pools),),
        observed_at=at(nic_at),
    )
    pool: Pool = replace(
        seen.pools[0],
        members=seen.pools[0].members if pool_lists else (),
        observed_at=at(pool_at),
    )
    assert [each.ip_configuration_id for each in seen.pools[0].members] == [ip_id("web-1")]
    cache = ResourceCache([APP])
    cache.put_vms(seen.vms, at(NOW))
    cache.put_nic(nic)
    cache.put_pool(pool)
    return cache


def planned(cache: ResourceCache) -> Plan:
    scene = PlannerScenario(inside={"web-1": [APP]}, now=NOW)
    known: dict[str, Any] = {"vms": cache.vms, "nics": cache.nics, "pools": cache.pools}
    return plan(scene.observe(**known), Ledger(), scene.policy, at(NOW))


def page_says(cache: ResourceCache) -> list[dict[str, object]]:
    facts = AgentSnapshot(
        now=at(NOW),
        health=AgentHealth(role="leader"),
        lease_duration_s=30,
        policy=PlannerScenario().policy,
        pool_names={APP.casefold(): "app"},
        vms=cache.vms,
        nics=cache.nics,
        pools=cache.pools,
        peers=("web-1",),
        plan=planned(cache),
        consecutive_failures={},
    )
    (row,) = overview(facts)["vms"]
    return [dict(each) for each in row["pools"]]


def test_page_and_metric_agree_about_adminstate() -> None:
    """A VM that is held Down is in no pool for planner, page and metric."""
    scene = StateScenario(inside={"web-1": [APP]}, now=NOW, events=[event()])
    scene.policy = replace(scene.policy, pools={APP: Floor(number=0)})
    scene.settle(NOW)
    scene.states[APP, "web-1"] = "Down"
    observed = scene.observe()
    cache = ResourceCache([APP])
    cache.put_vms(observed.vms, at(NOW))
    cache.put_nic(observed.nics[0])
    cache.put_pool(observed.pools[0])
    cache.rules["web"] = observed.rules
    facts = AgentSnapshot(
        now=at(NOW),
        health=AgentHealth(role="leader"),
        lease_duration_s=30,
        policy=scene.policy,
        pool_names={APP.casefold(): "app"},
        ledger=scene.ledger,
        vms=cache.vms,
        nics=cache.nics,
        pools=cache.pools,
        rules=all_rules(cache),
        peers=("web-1",),
        plan=scene.settle(NOW + 5),
        consecutive_failures={},
    )
    (row,) = overview(facts)["vms"]
    assert [dict(each) for each in row["pools"]] == [{"pool": "app", "inside": False}]
    assert not cache.membership(scene.ledger).keys(APP)


def metric_says(cache: ResourceCache) -> float:
    settings = Settings.model_validate(
        {
            "backend_pools": [{"id": APP}],
            "election": {"container_url": "https://127.0.0.1/account/lb-drain"},
        }
    )
    reporter = TransitionReporter(settings, SystemdNotifier({}), SystemClock())
    reporter.members(cache.membership(Ledger()), Ledger())
    text = reporter.metrics.render().decode()
    (value,) = re.findall(r"^lbdrain_members_in_rotation\{[^}]*\} (\S+)", text, re.MULTILINE)
    return float(value)


@pytest.mark.parametrize(
    ("seen", "inside"),
    [
        ({"nic_lists": True, "nic_at": 0, "pool_lists": False, "pool_at": 60}, False),
        ({"nic_lists": False, "nic_at": 60, "pool_lists": True, "pool_at": 0}, False),
        ({"nic_lists": True, "nic_at": 60, "pool_lists": False, "pool_at": 0}, True),
        ({"nic_lists": False, "nic_at": 0, "pool_lists": True, "pool_at": 60}, True),
    ],
)
def test_planner_page_and_metric_agree(seen: dict[str, Any], inside: bool) -> None:
    """Where the views of a NIC and of its pool differ, all of them count the newer one."""
    cache = views(**seen)
    assert phase(planned(cache)) is (Phase.IN_SERVICE if inside else Phase.UNMANAGED)
    assert page_says(cache) == ([{"pool": "app", "inside": True}] if inside else [])
    assert metric_says(cache) == (1 if inside else 0)
    assert cache.pools_without_peers(Ledger()) == (() if inside else (APP,))
