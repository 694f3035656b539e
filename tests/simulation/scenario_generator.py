"""From a seed to a scenario: which set, which maintenance, which people, which weather.

Swarm testing: every seed leaves out most kinds of trouble and has much of the others, because
histories in which everything is possible are all alike. What is drawn here is all there is to a
seed; `python -m tests.simulation --seed N --story` prints it.
"""

import random
from dataclasses import replace
from typing import Any

from tests.simulation import (
    drawn_admin_state,
    drawn_closing,
    drawn_second_source,
    drawn_sets,
    drawn_shapes,
    hardships,
    manual_drains,
    targeted_faults,
)
from tests.simulation.request_faults import JOURNEYS, KINDS
from tests.simulation.scenario import Act, ClockError, Scenario, Storm

EVENT_TYPES = ("Reboot", "Reboot", "Reboot", "Freeze", "Freeze", "Redeploy", "Preempt", "Terminate")
DAY_S = 86_400.0
CHURN_S = (30.0, 75.0)
"""How long the troubles last."""


def draw(seed: int) -> Scenario:
    """Return the scenario of a seed, with everything that is laid over it."""
    scenario = manual_drains.lay_over(targeted_faults.lay_over(_drawn(seed)))
    hard = hardships.lay_over(drawn_shapes.lay_over(scenario))
    hard = drawn_admin_state.lay_over(drawn_closing.lay_over(hard))
    hard = drawn_sets.lay_over(hard)
    hard = drawn_second_source.lay_over(hard)
    return replace(hard, acts=tuple(sorted(hard.acts, key=lambda act: act.at_s)))


def _drawn(seed: int) -> Scenario:
    source = random.Random(f"scenario {seed}")
    vms = source.choice((1, 2, 2, 2, 3, 3, 3, 4, 6))
    churn_s = source.uniform(*CHURN_S)
    pools, ip_pools = _pools(source)
    names = [f"web-{order}" for order in range(1, vms + 1)]
    election = source.choice(
        (
            {"lease_duration_s": 15, "renew_period_s": 3, "request_timeout_s": 2},
            {"lease_duration_s": 15, "renew_period_s": 5, "request_timeout_s": 4},
            {"lease_duration_s": 30, "renew_period_s": 8, "request_timeout_s": 4},
            {"lease_duration_s": 24, "renew_period_s": 6, "request_timeout_s": 3, "yield_s": 3},
        )
    )
    lead_time_s = source.choice((900, 900, 900, 240, 120))
    acknowledge = source.random() < 0.88
    # A set whose only way out is its public pool: whoever is drained is cut off.
    captive = bool(pools) and vms >= 3 and source.random() < 0.12
    storms = _storms(source, names, churn_s)
    # Whose last member is deleted, a captive set cannot even be restored.
    types = EVENT_TYPES[:-2] if captive else EVENT_TYPES
    acts = _events(source, names, churn_s, lead_time_s, types, acknowledge=acknowledge)
    acts += [] if captive else _people(source, names, pools, ip_pools, churn_s)
    acts += _accidents(source, names, churn_s)
    afterwards = _afterwards(source, names, churn_s)
    acts += afterwards
    return Scenario(
        seed=seed,
        vms=vms,
        nics_per_vm=2 if source.random() < 0.2 else 1,
        pools=pools,
        ip_pools=ip_pools,
        ipv6=bool(pools) and source.random() < 0.1,
        foreign_vms=1 if source.random() < 0.15 and not captive else 0,
        settings={**_settings(source), "outbound_needs_public_pool": captive},
        policy={
            "lead_time_s": lead_time_s,
            "connection_drain_s": source.choice((0, 2, 5, 12)),
            "restore_settle_s": source.choice((0, 3, 8)),
            "acknowledge": acknowledge,
            "acknowledge_unmanaged": source.random() < 0.2,
            "acknowledge_ignored": source.random() < 0.3,
            "max_parallel_writes": source.choice((1, 2, 64, 64)),
        },
        election=election,
        watch={
            "leader_poll_s": source.choice((1, 1, 2)),
            "standby_poll_s": source.choice((5, 15, 15)),
            "timeout_s": source.choice((3, 5)),
            "first_timeout_s": source.choice((10, 130)),
        },
        floors={name: 1 if captive else _floor(source, vms) for name in (*pools, *ip_pools)},
        shout=source.random() < 0.25,
        wait_after_expiry_s=source.choice((0, 0, 0, 20, 60)),
        clocks=_clocks(source, names),
        acts=tuple(sorted(acts, key=lambda act: act.at_s)),
        storms=tuple(storms),
        calm_at_s=churn_s,
        # Looking is half of all requests, and seldom what matters.
        look_s=source.choice((1.0, 4.0, 6.0, 6.0)),
        boot_s=source.uniform(2, 15),
        patience_s=100.0 if afterwards else 50.0,
    )


def _pools(source: random.Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    by_nic, by_address = source.choice(((1, 0), (1, 0), (2, 0), (1, 1), (0, 1), (0, 2), (2, 1)))
    return ("app", "api")[:by_nic], ("internal", "admin")[:by_address]


def _floor(source: random.Random, vms: int) -> int | str:
    return source.choice((0, 1, 1, 1, max(0, vms - 1), "50%", "34%"))


def _settings(source: random.Random) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "operation_latency_s": source.choice((1.0, 3.0, 6.0, 12.0)),
        "pool_operation_latency_s": source.choice((1.0, 3.0, 8.0)),
        "operation_jitter_s": source.choice((0.0, 0.0, 4.0, 25.0)),
        "membership_visible_after": source.choice((0.1, 0.5, 1.0)),
        "conflict_mode": source.choice(("parallel", "serial")),
        "busy_status": source.choice((429, 409)),
        "busy_retry_after": source.random() < 0.3,
        "lro_retry_after_s": 10 if source.random() < 0.1 else None,
        "failed_write_keeps_body": source.random() < 0.3,
        "superseded_write_survives": source.random() < 0.7,
        "ack_starts_event_after_s": source.choice((0.0, 2.0, 10.0, None)),
        "unknown_ack_status": source.choice((400, 404, 200)),
        "event_ids_change": source.random() < 0.2,
        "incarnation_jumps": source.random() < 0.3,
        "not_before_format": source.choice(("rfc1123", "rfc1123", "iso8601")),
        "first_imds_call_s": source.choice((0.0, 0.0, 0.0, 8.0, 40.0)),
        "read_lag_s": source.choice((0.0, 0.0, 0.0, 3.0)),
        "token_lifetime_s": source.choice((86_400.0, 86_400.0, 600.0)),
    }
    return settings


def _clocks(source: random.Random, names: list[str]) -> dict[str, ClockError]:
    if source.random() < 0.6:
        return {}
    return {
        name: ClockError(source.choice((-30.0, -8.0, 0.0, 8.0, 30.0)), source.uniform(-2e-4, 2e-4))
        for name in names
        if source.random() < 0.7
    }


# --- maintenance


def _events(
    source: random.Random,
    names: list[str],
    churn_s: float,
    lead_time_s: float,
    types: tuple[str, ...],
    *,
    acknowledge: bool,
) -> list[Act]:
    acts: list[Act] = []
    for _ in range(source.choice((1, 1, 2, 2, 3, 4, 8))):
        event_type = source.choice(types)
        count = source.choice((1, 1, 1, 2, len(names)))
        vms = tuple(source.sample(names, min(count, len(names))))
        if source.random() < 0.12:
            vms = tuple(vm.upper() for vm in vms)
        if source.random() < 0.06:
            vms = (*vms, source.choice(("other-1", "stranger")))
        options: dict[str, Any] = {
            "event_type": event_type,
            "vms": vms,
            "source": "User" if source.random() < 0.25 else "Platform",
            "notice_s": _notice(source, lead_time_s, acknowledge=acknowledge),
            "duration_s": source.choice((0, 3, 5, 9, 60, -1)) if event_type == "Freeze" else -1,
            "impact_s": source.uniform(2, 9) if event_type == "Freeze" else source.uniform(4, 25),
            "impact_delay_s": source.choice((0.0, 1.0, 4.0)),
            "started_s": source.uniform(10, 40),
        }
        if source.random() < 0.15:
            options["cancel_after_s"] = source.uniform(0.5, 40)
        elif source.random() < 0.15:
            options["started_first"] = True
        if source.random() < 0.12:
            options["auto_approve_after_s"] = source.uniform(0.5, 30)
        if source.random() < 0.15 and event_type in ("Freeze", "Reboot", "Redeploy"):
            options["late_impact"] = (source.uniform(8, 12), source.uniform(0.5, 3))
        if source.random() < 0.1:
            options["impact"] = source.choice(("", "frozen"))
        acts.append(Act(source.uniform(4, churn_s * 0.8), "event", options))
    return acts


def _notice(source: random.Random, lead_time_s: float, *, acknowledge: bool) -> float:
    """Return a notice in seconds: from the shortest ever seen to a week.

    What lies days ahead is never waited for: it is taken back in the end.
    """
    if not acknowledge:
        return source.choice((30.0, 60.0, 90.0))
    return source.choice(
        (30.0, 60.0, 120.0, 300.0, 300.0, 319.0, 600.0, 900.0, lead_time_s + 25.0, 7 * DAY_S)
    )


def _afterwards(source: random.Random, names: list[str], churn_s: float) -> list[Act]:
    """Return ordinary maintenance with ordinary notice, when everything works again."""
    if source.random() < 0.6:
        return []
    count = source.choice((1, 1, 2))
    return [
        Act(
            churn_s + 35.0 + 4 * order,
            "event",
            {
                "event_type": source.choice(("Reboot", "Freeze", "Redeploy")),
                "vms": tuple(source.sample(names, min(len(names), source.choice((1, 1, 2))))),
                "notice_s": source.choice((320.0, 600.0)),
                "duration_s": -1,
                "impact_s": source.uniform(3, 15),
                "started_s": source.uniform(8, 15),
            },
        )
        for order in range(count)
    ]


# --- people


def _people(
    source: random.Random,
    names: list[str],
    pools: tuple[str, ...],
    ip_pools: tuple[str, ...],
    churn_s: float,
) -> list[Act]:
    if source.random() < 0.45:
        return []
    every = [*pools, *ip_pools]
    deeds: list[tuple[str, dict[str, Any]]] = []
    vm = source.choice(names)
    if source.random() < 0.5:
        deeds += [("edit_tags", {"vm": source.choice(names), "value": str(n)}) for n in range(6)]
    if source.random() < 0.3:
        deeds.append(("leave_pool", {"vm": vm, "pool": source.choice(every)}))
    if source.random() < 0.3:
        deeds.append(("join_pool", {"vm": vm, "pool": source.choice(every)}))
    if ip_pools and source.random() < 0.4:
        deeds += [
            ("add_address", {"pool": source.choice(ip_pools), "address": f"10.9.0.{n + 4}"})
            for n in range(4)
        ]
    if len(every) > 1 and source.random() < 0.1:
        deeds.append(("delete_pool", {"pool": every[-1]}))
    if len(names) > 1 and source.random() < 0.1:
        deeds.append(("delete_vm", {"vm": names[-1]}))
    if source.random() < 0.15:
        deeds += [("stop_vm", {"vm": vm}), ("start_vm", {"vm": vm})]
    if source.random() < 0.15:
        deeds.append(("fail_nic", {"vm": source.choice(names)}))
    if source.random() < 0.25:
        deeds.append(("break_lease", {"period_s": source.choice((0, 0, 5))}))
    times = sorted(source.uniform(6, churn_s * 0.95) for _ in deeds)
    if deeds and deeds[0][0] != "stop_vm":
        source.shuffle(deeds)
    return [Act(at_s, what, given) for at_s, (what, given) in zip(times, deeds, strict=True)]


# --- accidents and weather


def _accidents(source: random.Random, names: list[str], churn_s: float) -> list[Act]:
    acts: list[Act] = []
    if source.random() < 0.45:
        for _ in range(source.choice((1, 1, 2, 4))):
            restart_s = source.choice((1.0, 5.0, 20.0, None))
            given = {"vm": source.choice(names), "restart_s": restart_s}
            acts.append(Act(source.uniform(3, churn_s), "crash", given))
    if source.random() < 0.4:
        for _ in range(source.choice((1, 1, 2, 3))):
            given = {
                "vm": source.choice(names),
                "for_s": source.choice((0.7, 3.0, 9.0, 20.0, 45.0)),
                "clock_stands_still": source.random() < 0.5,
            }
            acts.append(Act(source.uniform(3, churn_s), "freeze", given))
    return acts


def _storms(source: random.Random, names: list[str], churn_s: float) -> list[Storm]:
    if source.random() < 0.12:
        return []
    kinds = source.sample(sorted(KINDS) + list(JOURNEYS), source.choice((1, 2, 3, 4, 6)))
    if source.random() < 0.35:
        kinds.append("cut")
    storms: list[Storm] = []
    for kind in kinds:
        for _ in range(source.choice((1, 1, 2))):
            from_s = source.uniform(0, churn_s * 0.8)
            length_s = source.choice((4.0, 15.0, 40.0, churn_s))
            storms.append(
                Storm(
                    kind,
                    from_s,
                    min(churn_s, from_s + length_s),
                    chance=1.0 if kind == "cut" else source.choice((0.1, 0.3, 0.6, 1.0)),
                    vm=source.choice(("", source.choice(names))),
                    service=source.choice(("imds", "arm", "blob", "")) if kind == "cut" else "",
                )
            )
    return storms
