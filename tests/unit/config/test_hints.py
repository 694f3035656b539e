"""The words of a problem: suggested names, and wrong texts that are safe to show."""

from pathlib import Path

import pytest

from controller.config.hints import nearest, shown
from controller.config.loader import InvalidConfigError, parse


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("REBOOT", "did you mean Reboot?"),
        ("rebot", "did you mean Reboot?"),
        ("zzz", "known: Freeze, Reboot"),
        ("", "known: Freeze, Reboot"),
    ],
)
def test_nearest_name(name: str, hint: str) -> None:
    """The closest name is suggested whatever its case, else all names in their order."""
    assert nearest(name, ("Freeze", "Reboot")) == hint


def test_nearest_name_with_another_introduction() -> None:
    """The list of all names starts with the given words."""
    assert nearest("zzz", ("a",), otherwise="remove it; known") == "remove it; known: a"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("lead_time_s", "lead_time_s"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 60 + "..."),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("https://host/c", "a URL"),
        ("c?sig=s3cret", "a URL"),
        ("user@host", "a URL"),
    ],
)
def test_a_shown_text_is_short_printable_and_without_secrets(text: str, safe: str) -> None:
    """A wrong text is cut, stays on one line, and is not shown if it can contain a secret."""
    assert shown(text) == safe


def test_a_syntax_error_is_shown_with_its_place() -> None:
    """The place in the file, at the end of the parser's message, is not cut off."""
    with pytest.raises(InvalidConfigError, match=r"\(at line 1, column \d+\); correct it there"):
        parse("a key that is not one\n", {}, Path("config.toml"))
