"""`python -m tests.simulation` says what is wrong, and its exit code says what was found."""

import pytest

from tests.simulation import crash_points
from tests.simulation.__main__ import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["simulation", *arguments])
    return main()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "5"], "'5' is not of the form A..B"),
        (["--seeds", "20..10"], "'20..10' is not of the form A..B, with A below B"),
        (["--seeds", "7..7"], "with A below B"),
        (["--story"], "add --seed N"),
        (["--crash-points", "nowhere"], "choose from"),
    ],
)
def test_wrong_arguments_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    """Nothing is played, least of all an empty range without any broken law."""
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--crash-points"], ["--crash-points", "all"]])
def test_all_crash_points_are_those_of_every_scenario(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Whether asked for by name or not."""
    explored: list[str] = []

    def explore(name: str, _jobs: int) -> crash_points.Tried:
        explored.append(name)
        return crash_points.Tried(name)

    monkeypatch.setattr(crash_points, "explore", explore)
    assert run(monkeypatch, *arguments) == 0
    assert explored == list(crash_points.SCENARIOS)


def test_one_seed_without_a_safeguard_ends_well_when_its_law_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a campaign does: what is looked for is the broken law."""
    assert run(monkeypatch, "--seed", "6") == 0
    assert run(monkeypatch, "--seed", "6", "--ablate", "floor") == 0
    assert run(monkeypatch, "--seed", "6", "--ablate", "retry-after") == 1
