"""How `lb-drain init` asks how the application takes part in a drain."""

from collections.abc import Callable

import pytest

from controller.setup.participation import ask_participation

FLAG = {"policy.close": True, "drain.flag_file": "/run/lb-drain/draining"}


def typing(*answers: str) -> Callable[[str], str]:
    """Return what asks, and gets these answers in turn."""
    left = list(answers)
    return lambda _: left.pop(0)


@pytest.mark.parametrize(
    ("answers", "values"),
    [
        (("",), FLAG),
        (("1",), {"policy.close": False}),
        (("2",), FLAG),
        (("3", "", ""), {**FLAG, "probe.listen": "0.0.0.0:9810", "probe.check": ""}),
        (
            ("3", "80", "tcp://127.0.0.1:8080"),
            {**FLAG, "probe.listen": "0.0.0.0:80", "probe.check": "tcp://127.0.0.1:8080"},
        ),
    ],
)
def test_the_answers_are_settings(answers: tuple[str, ...], values: dict[str, object]) -> None:
    """Enter chooses the flag file, which an application may look at or not."""
    assert ask_participation(typing(*answers)) == values


@pytest.mark.parametrize(
    "answers",
    [
        ("no", "0", "2"),
        ("3", "port", "70000", "9810", ""),
        ("3", "", "http://example.com/", "ftp://127.0.0.1/", ""),
    ],
)
def test_a_wrong_answer_is_asked_for_again(
    answers: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each wrong answer is named, and the last one counts."""
    assert ask_participation(typing(*answers))["policy.close"]
    assert capsys.readouterr().out.count("the answer") == 2
