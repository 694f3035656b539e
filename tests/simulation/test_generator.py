"""The scenarios that the generator draws: what they have to contain, whatever the agents do."""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields

import controller
from controller.agent.tuning import DEFAULT_TUNING
from controller.config import schema
from controller.config.base import Section
from tests.simulation import drawn_shapes, hardships, later_seeds
from tests.simulation.request_faults import NARROW_KINDS
from tests.simulation.scenario import Scenario
from tests.simulation.scenario_generator import draw

SEEDS = range(3000)
NEAR = 3.0
"""A duration this many times shorter or longer is near enough to a constant to straddle it."""
OF_AGENTS = ("agent", "azure", "core", "status", "storage")
"""Packages whose constants decide how an agent behaves."""
NO_WAITS = {
    "controller.agent.event_watcher.CORRECTED_AT_ONCE_S",  # compared with how wrong a clock is
    "controller.core.verdict_rules.MISSED_WITHIN_S",  # six hours; a unit test covers its both sides
    "controller.core.verdicts.MISSED_WITHIN_S",
    "controller.azure.maintenance.PERFORM_DEADLINE_S",  # of a command, which no agent runs
}


def _constants() -> Iterator[tuple[str, float]]:
    """Yield every time constant of the agent, in seconds, by its full name."""
    for found in pkgutil.walk_packages(controller.__path__, "controller."):
        if found.name.split(".")[1] not in OF_AGENTS:
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            own = name.isupper() and name.endswith("_S")
            if own and isinstance(value, int | float) and f"{found.name}.{name}" not in NO_WAITS:
                yield f"{found.name}.{name}", float(value)
    for field in fields(DEFAULT_TUNING):
        yield f"tuning {field.name}", float(getattr(DEFAULT_TUNING, field.name))
    for section in (schema.Election, schema.PolicySection, schema.Watch):
        yield from _defaults(section)


def _defaults(section: type[Section]) -> Iterator[tuple[str, float]]:
    for name, field in section.model_fields.items():
        if name.endswith("_s") and isinstance(field.default, int | float):
            yield f"{section.__name__}.{name}", float(field.default)


def _scenarios() -> Iterator[Scenario]:
    return (draw(seed) for seed in SEEDS)


def test_every_time_constant_is_straddled() -> None:
    """Faults last shorter and longer than each constant, and not by much."""
    durations_s = {storm.until_s - storm.from_s for each in _scenarios() for storm in each.storms}
    missed = [
        f"{name} = {value:g}"
        for name, value in _constants()
        if value > 0
        and not (
            any(value / NEAR <= each < value for each in durations_s)
            and any(value < each <= value * NEAR for each in durations_s)
        )
    ]
    assert missed == []


def test_every_hardship_is_drawn() -> None:
    """Each hardship is laid over some seeds, and over no more than its share."""
    first = later_seeds.FIRST_NARROW_SEED
    for hardship in hardships.HARDSHIPS:
        plain = [Scenario(seed=first + seed, acts=(), calm_at_s=60.0) for seed in SEEDS]
        changed = sum(hardship.lay_over(each) != each for each in plain)
        assert 0 < changed <= 1.5 * hardship.share * len(SEEDS), hardship.name


def test_every_narrow_fault_is_drawn() -> None:
    """One kind of request of one VM fails for good, in later seeds only."""
    first = later_seeds.FIRST_NARROW_SEED
    (hardship,) = (each for each in hardships.HARDSHIPS if each.draw is hardships.one_request)
    drawn: set[str] = set()
    for seed in range(first - 5000, first + 10_000):
        laid_over = hardship.lay_over(Scenario(seed=seed, acts=(), calm_at_s=60.0))
        assert seed >= first or not laid_over.storms
        drawn.update(storm.kind for storm in laid_over.storms)
        assert not laid_over.storms or {each.vm for each in laid_over.storms} == laid_over.unable
    assert drawn == NARROW_KINDS.keys()


def test_large_sets_are_rare() -> None:
    """Some sets are large, and few enough not to slow a campaign down."""
    large = sum(each.vms in drawn_shapes.LARGE for each in _scenarios())
    assert 0 < large <= len(SEEDS) / 100


def test_sets_are_spread() -> None:
    """Some sets have two load balancers of a kind, other groups, and members of some pools."""
    shapes = [each.shape for each in _scenarios()]
    assert any(each.moved_pools and each.balancer_group for each in shapes)
    assert any(each.network_group for each in shapes)
    assert any(each.outside for each in shapes)
    assert any(each.more_configurations for each in shapes)


def test_some_sets_share_their_pools() -> None:
    """Another set is beside some, with its own name or with the same one, and has events."""
    plain = [Scenario(seed=seed, acts=(), calm_at_s=60.0) for seed in SEEDS]
    laid_over = map(drawn_shapes.lay_over, plain)
    beside = [each for each in laid_over if each.second_set is not None]
    assert 0 < len(beside) <= 2 * drawn_shapes.SECOND_SHARE * len(SEEDS)
    assert {each.second_set.name for each in beside if each.second_set} == {"web", "shop"}
    assert all("shop-" in str(each.acts) for each in beside)


def test_acts_are_in_order() -> None:
    """Acts of a scenario are sorted, and none lies before its beginning."""
    for each in _scenarios():
        times = [act.at_s for act in each.acts]
        assert times == sorted(times), each.seed
        assert all(at_s >= 0 for at_s in times), each.seed


def test_what_an_act_spoils_another_one_puts_right() -> None:
    """However hardships are combined, only what they call unable stays broken for good."""
    pairs = {"odd_vm": "plain_vm", "lose_role": "regain_role", "Down": "None"}
    for each in _scenarios():
        unended: Counter[tuple[object, ...]] = Counter()
        for act in each.acts:
            what = str(act.arguments.get("state", act.what))
            subject = (act.arguments.get("vm"), act.arguments.get("action"))
            if what in pairs and act.arguments.get("vm") not in each.unable:
                unended[(pairs[what], *subject)] += 1
            unended.pop((what, *subject), None)
        assert not unended, each.seed


def test_some_sets_leave_by_their_probe_alone() -> None:
    """All VMs of such a set can close; lower seeds keep their histories."""
    first = later_seeds.FIRST_PROBE_SEED
    later = [draw(seed) for seed in range(first, first + 100)]
    by_probe = [each for each in later if each.policy.get("mechanism") == "probe"]
    assert 5 <= len(by_probe) <= 40
    assert all(habits.responder for each in by_probe for habits in each.habits.values())
    earlier = (draw(seed) for seed in (*range(100), *range(first - 100, first)))
    assert all(each.policy.get("mechanism") != "probe" for each in earlier)
