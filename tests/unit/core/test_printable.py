"""Text from outside: printable, short and without secrets."""

import pytest

from controller.core.printable import excerpt, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1, in use: 50 %", "web-1, in use: 50 %"),
        ("Zürich 東京", "Zürich 東京"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202e\ud800", r"\u202e\ud800"),
    ],
)
def test_only_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    """Line breaks, control sequences and lone surrogates are escaped, and all else is kept."""
    assert printable(text) == shown
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("length", "shown"), [(9, "a" * 9), (10, "a" * 10), (11, "a" * 10 + "...")]
)
def test_an_excerpt_is_cut_at_its_limit(length: int, shown: str) -> None:
    """An excerpt has at most `limit` characters, and the dots appear only if text is missing."""
    assert excerpt("a" * length, limit=10) == shown


def test_an_excerpt_is_short_after_escaping() -> None:
    """Escaping does not make an excerpt longer than its limit."""
    assert excerpt("\x1b" * 9, limit=10) == r"\x1b\x1b\x" + "..."


def test_an_excerpt_is_one_line_without_secrets() -> None:
    """An excerpt joins lines and replaces tokens."""
    assert excerpt("no\n  Bearer abc.def\nhere") == "no Bearer [redacted] here"


@pytest.mark.parametrize(("spaces", "shown"), [(97, "ab c"), (98, "ab...")])
def test_an_excerpt_reads_ten_times_its_limit(spaces: int, shown: str) -> None:
    """Text after ten times the limit is never read, and the dots report that it is missing."""
    assert excerpt(f"ab{' ' * spaces}c", limit=10) == shown


def test_text_that_ends_in_blanks_is_complete() -> None:
    """An excerpt of exactly ten times its limit has nothing to leave out."""
    assert excerpt(f"ab{' ' * 98}", limit=10) == "ab"
    assert excerpt(f"ab{' ' * 99}", limit=10) == "ab..."


def test_an_excerpt_has_300_characters_unless_a_limit_is_given() -> None:
    """The text of an error fits on the status page and in one line of a log."""
    assert excerpt("a" * 300) == "a" * 300
    assert excerpt("a" * 301) == "a" * 300 + "..."
