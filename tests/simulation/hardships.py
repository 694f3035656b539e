"""What makes a set hard to look after: each is laid over a drawn scenario, by a source of its own.

A hardship changes the seeds that it is laid over, and no others. `HARDSHIPS` lists those that every
campaign draws, each with its share of the seeds.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from controller.simulator.world.access import CONTAINERS
from tests.simulation.harsh_acts import ODD_EVENTS, ODD_VMS, SPOILT
from tests.simulation.later_seeds import FIRST_NARROW_SEED
from tests.simulation.manual_drains import several_askers
from tests.simulation.request_faults import ALL_KINDS, NARROW_KINDS
from tests.simulation.scenario import Act, ClockError, Scenario, Storm
from tests.simulation.targeted_faults import LONGEST_INTERREGNUM_S, short_notice, trial_of
from tests.simulation.world_events import LEADER, STANDBY

DURATIONS_S = (0.1, 0.3, 0.7, 1.5, 3.5, 8.0, 12.0, 22.0, 40.0, 75.0, 150.0, 400.0, 700.0, 1300.0)
"""How long faults last; below and above every time constant of the agent."""
LONGEST_S = 4000.0
LONGEST_LAG_S = 50.0
"""How long reads lag: what an agent wrote shows after a minute, or it never took effect."""
WAITS_S = (1, 4, 10, 45, 120, 300, 1200)
"""What throttled requests are asked to wait."""
NETWORK = "Microsoft.Network"
PERMISSIONS = (
    f"{NETWORK}/networkInterfaces/write",
    f"{NETWORK}/networkInterfaces/read",
    f"{NETWORK}/loadBalancers/read",
    f"{NETWORK}/loadBalancers/backendAddressPools/write",
    f"{NETWORK}/loadBalancers/backendAddressPools/join/action",
    f"{NETWORK}/locations/operations/read",
    "Microsoft.Compute/virtualMachines/read",
    f"{CONTAINERS}/blobs/read",
    f"{CONTAINERS}/blobs/write",
)
ODD_FOR_S = 380.0
"""So long after the calm has begun an odd reply may last; a maintenance is over by then."""
NOTICE_S = 320.0
"""The shortest ordinary notice, and what an agent needs to see it."""

Draw = Callable[[random.Random, Scenario], Scenario]


@dataclass(frozen=True, slots=True)
class Hardship:
    """One kind, and the share of the seeds that it is laid over."""

    share: float
    draw: Draw

    @property
    def name(self) -> str:
        """What the hardship is called."""
        return self.draw.__name__

    def lay_over(self, scenario: Scenario) -> Scenario:
        """Return the scenario, with this hardship if its seed has it."""
        source = random.Random(f"{self.name} {scenario.seed}")
        return self.draw(source, scenario) if source.random() < self.share else scenario


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with every hardship that its seed has."""
    for hardship in HARDSHIPS:
        scenario = hardship.lay_over(scenario)
    return scenario


def with_acts(scenario: Scenario, *acts: Act) -> Scenario:
    """Return the scenario with further acts, in order."""
    ordered = sorted((*scenario.acts, *acts), key=lambda act: act.at_s)
    return replace(scenario, acts=tuple(ordered))


def maintenance(at_s: float, vm: str, **options: Any) -> Act:
    """Return an ordinary maintenance of one VM."""
    given = {
        "event_type": "Reboot",
        "vms": (vm,),
        "notice_s": NOTICE_S,
        "duration_s": -1,
        "impact_s": 8.0,
        "started_s": 20.0,
    }
    return Act(at_s, "event", {**given, **options})


def _some_vm(source: random.Random, scenario: Scenario) -> str:
    return f"web-{source.randint(1, scenario.vms)}"


def prolonged(scenario: Scenario, until_s: float) -> Scenario:
    """Return the scenario with a calm that begins at `until_s` at the earliest."""
    later_s = max(0.0, until_s - scenario.calm_at_s)
    acts = tuple(
        replace(act, at_s=act.at_s + later_s) if act.at_s > scenario.calm_at_s else act
        for act in scenario.acts
    )
    return replace(scenario, acts=acts, calm_at_s=scenario.calm_at_s + later_s)


def without_late_events(scenario: Scenario) -> tuple[Act, ...]:
    """Return the acts without the events of the calm; what ends a trouble stays."""
    return tuple(
        act for act in scenario.acts if act.at_s < scenario.calm_at_s or act.what != "event"
    )


# --- faults of services


def long_fault(source: random.Random, scenario: Scenario) -> Scenario:
    """One fault lasts for anything from an instant to an hour, with a maintenance meanwhile."""
    longest = source.random() < 0.03
    length_s = LONGEST_S if longest else source.choice(DURATIONS_S) * source.uniform(0.8, 1.25)
    kind = source.choice([*sorted(ALL_KINDS), "cut", "cut", "cut", "cut"])
    if kind.endswith("stale"):
        length_s = min(length_s, LONGEST_LAG_S)
    from_s = source.uniform(0, scenario.calm_at_s * 0.8)
    storm = Storm(
        kind,
        from_s,
        from_s + length_s,
        chance=1.0 if kind == "cut" else source.choice((0.5, 1.0, 1.0)),
        vm=source.choice(("", _some_vm(source, scenario))),
        service=source.choice(("imds", "arm", "blob")) if kind == "cut" else "",
    )
    scenario = prolonged(scenario, storm.until_s)
    if scenario.vms > 1:
        event = maintenance(from_s + source.random() * length_s, _some_vm(source, scenario))
        scenario = with_acts(scenario, event)
    slower = {"leader_poll_s": 2, "standby_poll_s": 15} if length_s > 300 else {}
    return replace(
        scenario,
        storms=(*scenario.storms[:2], storm),
        watch={**scenario.watch, **slower},
        look_s=6.0 if slower else scenario.look_s,
    )


def odd_services(source: random.Random, scenario: Scenario) -> Scenario:
    """Compute, instance metadata and operations fail as the other services do."""
    kinds = [kind for kind in sorted(ALL_KINDS) if kind.startswith(("compute", "inst", "operat"))]
    storms: list[Storm] = []
    for kind in source.sample(kinds, source.choice((1, 2, 3))):
        from_s = source.uniform(0, scenario.calm_at_s * 0.8)
        until_s = min(scenario.calm_at_s, from_s + source.choice((8.0, 30.0, 75.0)))
        vm = source.choice(("", _some_vm(source, scenario)))
        storms.append(Storm(kind, from_s, until_s, chance=source.choice((0.3, 0.7, 1.0)), vm=vm))
    return replace(scenario, storms=(*scenario.storms, *storms))


def throttled(source: random.Random, scenario: Scenario) -> Scenario:
    """Azure asks one identity, or everybody, to wait before the next request."""
    vm = _some_vm(source, scenario)
    kind = source.choice(("compute 429", "network throttled"))
    path = ""
    if kind == "network throttled":
        path = source.choice(("", f"/networkinterfaces/{vm}-nic", "/networkinterfaces", "/loadb"))
    from_s = source.uniform(0, scenario.calm_at_s * 0.6)
    wait_s = source.choice(WAITS_S)
    storm = Storm(
        kind,
        from_s,
        min(scenario.calm_at_s, from_s + source.choice((2.0, 10.0, 40.0))),
        vm=source.choice(("", _some_vm(source, scenario))),
        path=path,
        wait_s=wait_s,
    )
    return replace(
        scenario,
        storms=(*scenario.storms[:2], storm),
        converge_within_s=scenario.converge_within_s + wait_s,
    )


def away_at_start(source: random.Random, scenario: Scenario) -> Scenario:
    """Agents start while something that they need is away."""
    kind = source.choice(("cut", "cut", "arm 404", "compute 404", "token away", "instance 500"))
    length_s = source.choice((8.0, 22.0, 40.0, 75.0, 150.0))
    storm = Storm(
        kind,
        0.0,
        length_s,
        vm=source.choice(("", _some_vm(source, scenario))),
        service=source.choice(("imds", "arm", "blob")) if kind == "cut" else "",
    )
    scenario = prolonged(scenario, length_s)
    return replace(scenario, storms=(*scenario.storms[:1], storm))


def odd_fields(source: random.Random, scenario: Scenario) -> Scenario:
    """Fields of events and of VM bodies have a type or a value that is not documented.

    In half of the seeds they stay while other VMs have an ordinary maintenance (law S7).
    """
    end_s, stays = scenario.calm_at_s, source.random() < 0.5
    at_s = source.uniform(3, end_s * 0.6)
    until_s = end_s + ODD_FOR_S if stays else end_s
    vms = max(3, scenario.vms) if stays else scenario.vms
    odd = f"web-{vms}" if stays else _some_vm(source, scenario)
    acts: list[Act] = []
    if source.random() < 0.6:
        how, for_s = source.choice(sorted(ODD_EVENTS)), until_s - at_s - source.uniform(0, 2)
        acts.append(Act(at_s, "odd_event", {"vm": odd, "how": how, "for_s": for_s}))
    elif not stays:
        acts.append(Act(at_s, "repeated_event"))
    if not acts or source.random() < 0.6:
        how = source.choice(sorted(ODD_VMS))
        acts.append(Act(source.uniform(0, at_s), "odd_vm", {"vm": odd, "how": how}))
        acts.append(Act(until_s, "plain_vm", {"vm": odd}))
    if stays:
        acts.append(maintenance(end_s + 35.0, "web-1"))
        floors, kept = dict.fromkeys(scenario.floors, 1), without_late_events(scenario)
        converge_within_s = scenario.converge_within_s + ODD_FOR_S  # the next inventory can be late
        scenario = replace(
            scenario, vms=vms, floors=floors, acts=kept, converge_within_s=converge_within_s
        )
    return with_acts(scenario, *acts)


# --- agents that are not able


def lost_roles(source: random.Random, scenario: Scenario) -> Scenario:
    """The identity of a VM loses a permission for a while."""
    acts: list[Act] = []
    for _ in range(source.choice((1, 1, 2))):
        given = {"vm": _some_vm(source, scenario), "action": source.choice(PERMISSIONS)}
        at_s = source.uniform(0, scenario.calm_at_s * 0.8)
        acts += [
            Act(at_s, "lose_role", given),
            Act(source.uniform(at_s, scenario.calm_at_s), "regain_role", given),
        ]
    return with_acts(scenario, *acts)


def unable(source: random.Random, scenario: Scenario) -> Scenario:
    """One VM cannot reach a service, or lacks a permission, for good; the others can do its work.

    Maintenances in the calm have to find their VMs out (law S7), whoever leads. Where a VM that is
    out reaches no service, the others could not: they may be out.
    """
    if scenario.settings.get("outbound_needs_public_pool"):
        return scenario
    scenario, vm, from_s = _one_is_unable(source, scenario)
    if source.random() < 0.5:
        service = source.choice(("arm", "arm", "imds", "blob"))
        storm = Storm("cut", from_s, float("inf"), vm=vm, service=service)
        return replace(scenario, storms=(*scenario.storms, storm))
    given = {"vm": vm, "action": source.choice(PERMISSIONS)}
    return with_acts(scenario, Act(from_s, "lose_role", given))


def one_request(source: random.Random, scenario: Scenario) -> Scenario:
    """One kind of request of one VM fails for good, as `unable`: all its others succeed."""
    captive = scenario.settings.get("outbound_needs_public_pool")
    if scenario.seed < FIRST_NARROW_SEED or scenario.unable or captive:
        return scenario
    scenario, vm, from_s = _one_is_unable(source, scenario)
    storm = Storm(source.choice(sorted(NARROW_KINDS)), from_s, float("inf"), vm=vm)
    return replace(scenario, storms=(*scenario.storms, storm))


def _one_is_unable(source: random.Random, scenario: Scenario) -> tuple[Scenario, str, float]:
    """Return a set of three VMs or more, the one that lacks something, and from when on."""
    vms = max(3, scenario.vms)
    vm = source.choice(("web-1", f"web-{source.randint(1, vms)}"))  # web-1 mostly leads
    from_s = source.uniform(1, scenario.calm_at_s)
    at_s = scenario.calm_at_s + LONGEST_INTERREGNUM_S
    late = maintenance(at_s, source.choice((STANDBY, STANDBY, LEADER)))
    acts = sorted((*without_late_events(scenario), late), key=lambda act: act.at_s)
    scenario = replace(
        scenario,
        vms=vms,
        floors=dict.fromkeys(scenario.floors, 1),
        unable=frozenset({vm}),
        acts=tuple(acts),
        patience_s=100.0,
    )
    return scenario, vm, from_s


def wrong_clocks(source: random.Random, scenario: Scenario) -> Scenario:
    """Clocks are wrong by up to a day, and are set while agents run."""
    far = (-86_400.0, -3_600.0, -700.0, 700.0, 3_600.0, 86_400.0)
    clocks = dict(scenario.clocks)
    for order in range(1, scenario.vms + 1):
        if source.random() < 0.5:
            clocks[f"web-{order}"] = ClockError(source.choice(far), source.uniform(-2e-4, 2e-4))
    steps = [
        Act(
            source.uniform(5, scenario.calm_at_s),
            "step_clock",
            {"vm": _some_vm(source, scenario), "by_s": source.choice((*far, -30.0, 1.5, 30.0))},
        )
        for _ in range(source.choice((0, 1, 1, 3)))
    ]
    # The SDK compares the end of a token with the clock. Where that is an hour late, a token is
    # used for an hour too long, once in its lifetime.
    settings = {**scenario.settings, "token_lifetime_s": 86_400.0}
    return with_acts(replace(scenario, clocks=clocks, settings=settings), *steps)


# --- people


def put_back(source: random.Random, scenario: Scenario) -> Scenario:
    """A template is applied again while VMs are out, once or again and again.

    In half of the seeds the event waits for its NotBefore, and so is acknowledged again and again.
    """
    if scenario.vms < 2:
        return scenario
    period_s, at_s = source.choice((7.0, 20.0, 60.0)), source.uniform(4, 20)
    first_s = at_s + source.uniform(5, 25)
    acts = [maintenance(at_s, _some_vm(source, scenario), notice_s=source.choice((80.0, 150.0)))]
    acts += [
        Act(first_s + order * period_s, "put_back")
        for order in range(source.choice((1, 2, 6)))
        if first_s + order * period_s < scenario.calm_at_s
    ]
    starts = source.choice((None, scenario.settings.get("ack_starts_event_after_s")))
    settings = {**scenario.settings, "ack_starts_event_after_s": starts}
    return with_acts(replace(scenario, settings=settings), *acts)


def put_back_in_calm(source: random.Random, scenario: Scenario) -> Scenario:
    """A template is applied again and again while a VM is out, and nothing else happens."""
    if scenario.vms < 2:
        return scenario
    at_s, period_s = source.uniform(10, 15), source.choice((7.0, 13.0, 26.0))
    times = [at_s + 25 + period_s * order for order in range(int(100 / period_s))]
    return with_acts(
        replace(scenario, acts=(), storms=(), calm_at_s=max(scenario.calm_at_s, times[-1] + 5)),
        maintenance(at_s, _some_vm(source, scenario), notice_s=150.0),
        *(Act(each, "put_back") for each in times),
    )


def held_down(source: random.Random, scenario: Scenario) -> Scenario:
    """A member is Down while another one has to leave a pool at its floor, and nothing else."""
    if not scenario.pools or scenario.vms < 2:
        return scenario
    pool = source.choice(scenario.pools)
    down, leaving = source.sample(range(1, scenario.vms + 1), 2)
    at_s = source.uniform(8, max(9.0, scenario.calm_at_s - 70))
    given = {"vm": f"web-{down}", "pool": pool}
    return with_acts(
        replace(scenario, acts=(), floors={**scenario.floors, pool: scenario.vms - 1}),
        Act(at_s, "admin_state", {**given, "state": "Down"}),
        maintenance(at_s + source.uniform(14, 20), f"web-{leaving}", notice_s=150.0),
        Act(at_s + source.uniform(40, 60), "admin_state", {**given, "state": "None"}),
    )


def strangers(source: random.Random, scenario: Scenario) -> Scenario:
    """Machines of other sets join and leave the pools, under floors in percent."""
    pools = (*scenario.pools, *scenario.ip_pools)
    if not pools or scenario.settings.get("outbound_needs_public_pool"):
        return scenario
    acts: list[Act] = []
    for order in range(1, 4):
        pool = source.choice(pools)
        times = sorted(source.uniform(3, scenario.calm_at_s) for _ in range(2))
        for at_s, what in zip(times, ("leave_pool", "join_pool"), strict=True):
            acts.append(Act(at_s, what, {"vm": f"other-{order}", "pool": pool}))
    percent = source.choice(("25%", "50%", "60%"))
    return with_acts(
        replace(
            scenario,
            foreign_vms=3,
            floors={**scenario.floors, **dict.fromkeys(pools[:1], percent)},
        ),
        *acts,
    )


def other_settings(source: random.Random, scenario: Scenario) -> Scenario:
    """The configurations of the agents of one set differ."""
    own = {
        f"web-{order}": {
            "connection_drain_s": source.choice((0, 3, 20)),
            "restore_settle_s": source.choice((0, 5)),
            "max_parallel_writes": source.choice((1, 4, 64)),
        }
        for order in range(1, scenario.vms + 1)
        if source.random() < 0.6
    }
    return replace(scenario, own_policy=own)


def two_versions(source: random.Random, scenario: Scenario) -> Scenario:
    """Some agents have an older version, which does not record everything that a newer one does."""
    names = [f"web-{order}" for order in range(1, scenario.vms + 1)]
    older = source.sample(names, source.randint(1, len(names)))
    return replace(scenario, older=frozenset(older))


def second_agents(source: random.Random, scenario: Scenario) -> Scenario:
    """A second agent runs on a VM for a while."""
    at_s = source.uniform(2, scenario.calm_at_s * 0.7)
    given = {
        "vm": _some_vm(source, scenario),
        "for_s": source.uniform(5, scenario.calm_at_s - at_s),
    }
    return with_acts(scenario, Act(at_s, "second_process", given))


# --- blobs


def lost_blobs(source: random.Random, scenario: Scenario) -> Scenario:
    """The ledger or the drain requests are deleted, overwritten, or restored from a backup."""
    if trial_of(scenario.seed) is short_notice:
        return scenario  # nobody promises anything with so little notice while the ledger is gone
    blob = source.choice(("ledger", "requests"))
    at_s = source.uniform(8, scenario.calm_at_s * 0.9)
    what, given = source.choice(
        (
            ("delete_blob", {}),
            ("restore_blob", {}),
            # What is no ledger, or no list of requests, waits for a person, and so for no law.
            ("spoil_blob", {"how": "empty"}),
        )
    )
    backup = Act(source.uniform(4, at_s), "back_up", {"blob": blob})
    return with_acts(scenario, backup, Act(at_s, what, {"blob": blob, **given}))


def spoilt_blobs(source: random.Random, scenario: Scenario) -> Scenario:
    """The ledger or the drain requests hold something else until an operator repairs them."""
    blob, how = source.choice(sorted(SPOILT))
    at_s = source.uniform(8, scenario.calm_at_s * 0.9)
    repaired_s = at_s + source.choice((4.0, 22.0, 40.0, 75.0)) * source.uniform(0.8, 1.25)
    return with_acts(
        prolonged(scenario, repaired_s),
        Act(at_s, "spoil_blob", {"blob": blob, "how": how}),
        Act(repaired_s, "repair_blob", {"blob": blob}),
    )


# --- resources created again


def created_again(source: random.Random, scenario: Scenario) -> Scenario:
    """VMs, NICs and pools are deleted and created again under their names."""
    if scenario.settings.get("outbound_needs_public_pool"):
        return scenario  # a set whose pool is emptied is cut off for good
    pools = (*scenario.pools, *scenario.ip_pools)
    vm = _some_vm(source, scenario)
    acts: list[Act] = []
    for _ in range(source.choice((1, 1, 2))):
        what, given = source.choice(
            (
                ("recreate_vm", {"vm": vm, "nics": source.choice(("keep", "recreate"))}),
                ("recreate_nic", {"vm": vm}),
                (
                    "recreate_pool",
                    {"pool": source.choice(pools), "members": source.choice(("none", "same"))},
                ),
            )
        )
        acts.append(Act(source.uniform(6, scenario.calm_at_s), what, given))
    return with_acts(scenario, *acts)


def balancers_again(source: random.Random, scenario: Scenario) -> Scenario:
    """A load balancer, with all its pools, is deleted and created again under its name."""
    if scenario.settings.get("outbound_needs_public_pool"):
        return scenario  # a set whose pool is emptied is cut off for good
    pool = source.choice((*scenario.pools, *scenario.ip_pools))
    acts = [
        Act(
            source.uniform(6, scenario.calm_at_s),
            "recreate_balancer",
            {"pool": pool, "members": source.choice(("none", "same"))},
        )
        for _ in range(source.choice((1, 1, 2)))
    ]
    return with_acts(scenario, *acts)


HARDSHIPS: tuple[Hardship, ...] = (
    Hardship(0.05, odd_services),
    Hardship(0.04, other_settings),
    Hardship(0.05, strangers),
    Hardship(0.05, long_fault),
    Hardship(0.05, throttled),
    Hardship(0.04, away_at_start),
    Hardship(0.05, odd_fields),
    Hardship(0.05, lost_roles),
    Hardship(0.05, put_back),
    Hardship(0.08, unable),
    Hardship(0.04, second_agents),
    Hardship(0.04, wrong_clocks),
    Hardship(0.04, lost_blobs),
    Hardship(0.04, created_again),
    Hardship(0.03, held_down),
    Hardship(0.02, put_back_in_calm),
    Hardship(0.03, several_askers),
    Hardship(0.03, spoilt_blobs),
    Hardship(0.02, balancers_again),
    Hardship(0.08, one_request),
)
"""What every campaign draws."""
