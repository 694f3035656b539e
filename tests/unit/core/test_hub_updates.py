"""States and durations of update runs, as a Hub writes them."""

import pytest

from controller.core.hub_updates import RunState, duration_s, duration_text, run_state


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT2H12M5.4579456S", 2 * 3600 + 12 * 60 + 5.4579456),
        ("PT14H43M50.0644552S", 53_030.0644552),
        ("P1DT2H", 93_600),
        ("PT0S", 0),
        ("PT45M", 2700),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    """ISO 8601 durations of days, hours, minutes and seconds, with fractions."""
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "2:12:05", "P1M", "P1Y2D", "PT5", "-PT5S", "PT1e9S", "PT" + "9" * 40 + "H"],
)
def test_another_text_is_no_duration(text: str) -> None:
    """A length that is not fixed, not a number, or absurd, is unknown and not an error."""
    assert duration_s(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min 0 s"),
        (7925.46, "2 h 12 min"),
        (93_600, "1 d 2 h"),
        (-5, "0 s"),
    ],
)
def test_a_duration_is_shown_with_two_units(seconds: float, text: str) -> None:
    """People read the two largest units."""
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("InProgress", RunState.IN_PROGRESS),
        ("SUCCEEDED", RunState.SUCCEEDED),
        ("failed", RunState.FAILED),
        ("Unknown", RunState.UNKNOWN),
        ("Paused", RunState.UNKNOWN),
        ("", RunState.UNKNOWN),
    ],
)
def test_a_state_that_is_not_documented_is_unknown(text: str, state: RunState) -> None:
    """No state is taken for success or failure by a guess."""
    assert run_state(text) is state
