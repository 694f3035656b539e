"""The worlds with a second source: which seeds have them, and what they hold."""

from dataclasses import replace

from controller.config.events import Events
from tests.simulation.drawn_second_source import lay_over
from tests.simulation.later_seeds import FIRST_LATER_SEED
from tests.simulation.request_faults import SECOND_KINDS
from tests.simulation.scenario import Scenario

SEEDS = range(FIRST_LATER_SEED, FIRST_LATER_SEED + 400)


def drawn(seed: int) -> Scenario:
    """Return what a seed lays over a plain scenario."""
    return lay_over(Scenario(seed=seed, calm_at_s=60.0))


def test_lower_seeds_stay_as_they_are() -> None:
    """Their histories are regressions."""
    for seed in (0, 1, 250_499, FIRST_LATER_SEED - 1):
        plain = Scenario(seed=seed, calm_at_s=60.0)
        assert lay_over(plain) is plain


def test_new_worlds_hold_both_and_much_that_is_wrong() -> None:
    """Each of the two, both, and neither; rows that lie; sets that do not publish; no role."""
    found = [drawn(seed) for seed in SEEDS]
    kinds = {tuple(sorted(each.events)) for each in found}
    assert kinds == {
        (),
        ("resource_graph",),
        ("acknowledge_through",),
        ("acknowledge_through", "resource_graph"),
    }
    asking = [each for each in found if each.events.get("resource_graph")]
    assert {each.publishes for each in asking} == {True, False}
    lies = {each.settings["resource_graph_lie"] for each in asking}
    assert {"", "Completed", "Canceled"} < lies
    two = [each for each in found if each.events.get("acknowledge_through")]
    assert {each.may_acknowledge for each in two} == {True, False}
    storms = {storm.kind for each in found for storm in each.storms}
    assert storms == SECOND_KINDS.keys()
    assert all(Events.model_validate(dict(each.events)) for each in found)


def test_a_seed_draws_the_same_again() -> None:
    """Nothing but the seed decides."""
    assert drawn(FIRST_LATER_SEED + 7) == drawn(FIRST_LATER_SEED + 7)
    assert drawn(FIRST_LATER_SEED + 7) != replace(
        drawn(FIRST_LATER_SEED + 8), seed=FIRST_LATER_SEED + 7
    )
