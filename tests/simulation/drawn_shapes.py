"""Draws how the resources of a set are spread: large sets, several load balancers, odd members."""

import random
from dataclasses import replace

from tests.simulation.scenario import Act, Scenario, SecondSet, Shape

LARGE = (24, 60, 200)
"""Numbers of VMs of a large set."""
LARGE_SHARE = 1 / 200
SHARE = 0.3
"""So many scenarios have a set that is spread."""
SECOND_SHARE = 0.03
"""So many scenarios have another set with agents in the same pools."""
LARGE_ACTS = 4
"""A large set has few events, or a history would take minutes."""


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with the shape that its seed gives to the set."""
    shaped = _shaped(scenario)
    captive = shaped.settings.get("outbound_needs_public_pool")
    beside = second_set(scenario.seed) and shaped.vms not in LARGE and not captive
    return _beside_another(shaped) if beside else shaped


def second_set(seed: int) -> bool:
    """Return whether another set shares the pools, in the scenario of a seed."""
    return random.Random(f"second set {seed}").random() < SECOND_SHARE


def _beside_another(scenario: Scenario) -> Scenario:
    """Add a set with agents of its own, and with maintenances at about the same time."""
    source = random.Random(f"beside {scenario.seed}")
    vms, calm_s = source.choice((1, 2, 2, 3)), scenario.calm_at_s
    acts: list[Act] = []
    times = [source.uniform(4, calm_s * 0.8) for _ in range(source.choice((1, 2, 3)))]
    times += [calm_s + source.uniform(33, 45)] if source.random() < 0.5 else []
    for at_s in times:
        named = tuple(f"shop-{each}" for each in range(1, vms + 1))
        event = {
            "event_type": source.choice(("Reboot", "Reboot", "Freeze", "Redeploy")),
            "vms": tuple(source.sample(named, source.choice((1, 1, vms)))),
            "notice_s": 320.0 if at_s > calm_s else source.choice((60.0, 120.0, 320.0)),
            "duration_s": -1,
            "impact_s": source.uniform(3, 15),
            "started_s": source.uniform(10, 20),
        }
        acts.append(Act(at_s, "event", event))
    if source.random() < 0.3:
        given = {"vm": "shop-1", "restart_s": source.choice((1.0, 20.0, None))}
        acts.append(Act(source.uniform(3, calm_s), "crash", given))
    names = source.choice((("shop", "web-rg"), ("web", "shop-rg")))
    return replace(
        scenario,
        patience_s=max(scenario.patience_s, 100.0) if times[-1] > calm_s else scenario.patience_s,
        second_set=SecondSet(vms=vms, name=names[0], resource_group=names[1]),
        acts=tuple(sorted((*scenario.acts, *acts), key=lambda act: act.at_s)),
    )


def _shaped(scenario: Scenario) -> Scenario:
    source = random.Random(f"shape {scenario.seed}")
    lot = source.random()
    if lot < LARGE_SHARE:
        return _large(source, scenario)
    if lot < LARGE_SHARE + SHARE:
        return _spread(source, scenario)
    return scenario


def _large(source: random.Random, scenario: Scenario) -> Scenario:
    vms = source.choice(LARGE)
    return replace(
        scenario,
        vms=vms,
        nics_per_vm=1,
        ipv6=False,
        pools=scenario.pools[:1],
        ip_pools=scenario.ip_pools[:1],
        settings={**scenario.settings, "operation_latency_s": 1.0, "operation_jitter_s": 0.0},
        watch={**scenario.watch, "standby_poll_s": 60},
        clocks={},
        acts=scenario.acts[:LARGE_ACTS],
        storms=scenario.storms[:1],
        look_s=6.0,
        idle_s=5.0,
    )


def _spread(source: random.Random, scenario: Scenario) -> Scenario:
    captive = bool(scenario.settings.get("outbound_needs_public_pool"))
    pools = scenario.pools
    if pools and not scenario.ipv6 and not captive and source.random() < 0.6:
        pools = ("app", "api")
    several = len(pools) > 1 and not scenario.ipv6 and not captive
    moved = pools[1:] if several and source.random() < 0.7 else ()
    every = [*pools, *scenario.ip_pools]
    members = [
        (f"web-{order}", pool)
        for order in range(1, scenario.vms + 1)
        for pool in every
        if not scenario.ipv6
    ]
    most = max(0, len(members) - 1)
    absent = source.sample(members, min(most, source.choice((0, 1, 1, 3))))
    shape = Shape(
        network_group=source.choice(("", "net-rg")),
        balancer_group=source.choice(("", "lb-rg")) if moved else "",
        moved_pools=moved,
        outside=() if captive else tuple(sorted(absent)),
        more_configurations=source.choice((0, 0, 1, 2)),
    )
    return replace(
        scenario,
        pools=pools,
        shape=shape,
        foreign_vms=0 if captive else max(scenario.foreign_vms, source.choice((0, 0, 2))),
        floors={**dict.fromkeys(pools, 1), **scenario.floors},
    )
