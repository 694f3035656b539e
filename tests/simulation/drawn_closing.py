"""Draws in which scenarios the VMs close before they leave their pools, and how that goes wrong.

Everything comes from a source of its own: the other draws of a seed do not move, and the scenarios
without it stay as they were.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.drawn_shapes import LARGE
from tests.simulation.later_seeds import FIRST_PROBE_SEED
from tests.simulation.scenario import Act, Habits, Scenario, Storm

SHARE = 0.5
PROBE_SHARE = 0.3
"""Of the scenarios that close."""
STAGES = ("closing", "closed", "opening", "opened")
CALLS = (
    "set_flag",
    "after set_flag",
    "clear_flag",
    "after clear_flag",
    "connections",
    "refused_probes",
    "readiness",
    "renew_flag",
    "hook closing",
    "hook opening",
)
"""Where an agent can die."""
REPORTS = ".vms/"
SPOILT_REPORTS = ("garbage", "huge", "another VM", "earlier drain")
SILENT_S = 170.0
"""How long storage can be silent: an agent opens after 60 s, when its application is ready."""


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with the closing side that its seed gives to the set."""
    if not closes(scenario.seed):
        return scenario
    source = random.Random(f"closing side {scenario.seed}")
    names = [f"web-{order}" for order in range(1, scenario.vms + 1)]
    closing = replace(
        scenario,
        policy={
            **scenario.policy,
            "close": True,
            "acknowledge_when": source.choice(("closed", "closed", "out")),
            "restore_ready_timeout_s": source.choice((10, 30)),
            "restore_when_not_ready": source.choice(("hold", "open")),
        },
        drain={
            "quiet_s": source.choice((0, 1, 2)),
            "open_after_s": source.choice((60, 60, 90, 3600)),
        },
        hooks=tuple(stage for stage in STAGES if source.random() < 0.4),
        # An older agent does not close its VM, and waits for no VM that does.
        own_policy={
            **scenario.own_policy,
            **{vm: {**scenario.own_policy.get(vm, {}), "close": False} for vm in scenario.older},
        },
        habits={vm: _habits(source, until_s=scenario.calm_at_s) for vm in names},
    )
    for trouble, chance in TROUBLES.items():
        if source.random() < chance:
            closing = trouble(source, closing, names)
    return _by_probe(closing)


def _by_probe(scenario: Scenario) -> Scenario:
    """Return the scenario with VMs that leave rotation by their probe answer alone, in its share.

    Each VM can close then: one without a responder, or whose flag cannot be written, is held.
    """
    source = random.Random(f"by probe {scenario.seed}")
    late = scenario.seed >= FIRST_PROBE_SEED
    if not late or scenario.older or scenario.own_policy or source.random() >= PROBE_SHARE:
        return scenario
    able = {
        vm: replace(habits, responder=True, probed_by_rule=True, read_only=False)
        for vm, habits in scenario.habits.items()
    }
    policy = {**scenario.policy, "mechanism": "probe", "acknowledge_when": "closed"}
    return replace(scenario, policy=policy, habits=able)


def closes(seed: int) -> bool:
    """Return whether VMs close, in the scenario of a seed."""
    return random.Random(f"closes {seed}").random() < SHARE


def _habits(source: random.Random, *, until_s: float) -> Habits:
    dies = frozenset(
        (source.choice(CALLS), source.choice((1, 1, 2))) for _ in range(source.choice((0, 0, 1, 2)))
    )
    return Habits(
        ends_within_s=source.choice((0.0, 3.0, 10.0)),
        never_quiet=source.random() < 0.15,
        uncounted=source.random() < 0.05,
        read_only=source.random() < 0.05,
        responder=source.random() < 0.75,
        probed_by_rule=source.random() < 0.5,
        hooks={
            stage: (source.choice(("done", "done", "failed", "hanging")), source.uniform(0, 6))
            for stage in STAGES
        },
        ready_after_s=source.choice((0.0, 5.0, 20.0)),
        dies=dies,
        dies_until_s=until_s,
    )


def _reports_lost(source: random.Random, scenario: Scenario, names: list[str]) -> Scenario:
    """Reports cannot be written, or the leader cannot read them."""
    storm = Storm(
        source.choice(("blob 503", "blob hangs", "blob loses replies", "blob loses writes")),
        source.uniform(0, scenario.calm_at_s * 0.5),
        scenario.calm_at_s,
        chance=source.choice((0.3, 1.0)),
        vm=source.choice(("", source.choice(names))),
        path=REPORTS,
    )
    return replace(scenario, storms=(*scenario.storms, storm))


def _reports_spoilt(source: random.Random, scenario: Scenario, names: list[str]) -> Scenario:
    """Something else writes into the blobs of the reports."""
    acts = [
        Act(
            source.uniform(5, scenario.calm_at_s),
            "spoil_report",
            {"vm": source.choice(names), "how": source.choice(SPOILT_REPORTS)},
        )
        for _ in range(source.choice((1, 3, 6)))
    ]
    return replace(scenario, acts=(*scenario.acts, *acts))


def _silence_before(source: random.Random, scenario: Scenario, names: list[str]) -> Scenario:
    """Storage stops to answer shortly before events start; nothing can be recorded any more."""
    at_s = source.uniform(8, 25)
    events = tuple(
        Act(
            at_s + source.uniform(1, 4),
            "event",
            {
                "event_type": "Reboot",
                "vms": (vm,),
                "notice_s": source.uniform(20, 90),
                "impact_s": source.uniform(4, 15),
                "started_s": 15.0,
            },
        )
        for vm in source.sample(names, min(len(names), source.choice((1, 2, 3))))
    )
    vm = source.choice(("", "", events[0].arguments["vms"][0]))  # type: ignore[index]
    storm = Storm("cut", at_s, scenario.calm_at_s, vm=str(vm), service="blob")
    return replace(scenario, acts=(*scenario.acts, *events), storms=(*scenario.storms, storm))


def _silence_while_closed(source: random.Random, scenario: Scenario, names: list[str]) -> Scenario:
    """Storage stops to answer while a VM is closed, and its event is withdrawn."""
    if scenario.vms in LARGE:
        return scenario
    at_s = scenario.calm_at_s * 0.4
    event = {
        "event_type": "Reboot",
        "vms": (source.choice(names),),
        "notice_s": 600.0,
        "cancel_after_s": source.uniform(14, 20),
    }
    until_s = at_s + SILENT_S
    storm = Storm("cut", at_s + 12.0, until_s, service="blob")
    calm_at_s = max(until_s, scenario.calm_at_s)
    later_s = calm_at_s - scenario.calm_at_s
    acts = tuple(
        replace(act, at_s=act.at_s + later_s) if act.at_s > scenario.calm_at_s else act
        for act in scenario.acts
        # Agents forget a ledger that is lost for so long.
        if not act.what.endswith("_blob")
    )
    return replace(
        scenario,
        drain={**scenario.drain, "open_after_s": 60},
        acts=(*acts, Act(at_s, "event", event)),
        storms=(*scenario.storms, storm),
        calm_at_s=calm_at_s,
    )


TROUBLES: dict[Callable[[random.Random, Scenario, list[str]], Scenario], float] = {
    _reports_lost: 0.2,
    _reports_spoilt: 0.2,
    _silence_before: 0.15,
    _silence_while_closed: 0.08,
}
"""What goes wrong on top of the rest, and in how many of the scenarios that close."""
