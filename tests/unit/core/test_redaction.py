"""Redaction of texts of any length."""

from controller.core.redaction import LONGEST_SECRET, MAX_SCANNED, redact_lines, redact_start

CANARY = "c4n4ryC4N4RYc4n4ry"


def test_of_a_long_text_the_start_is_kept() -> None:
    """A text is kept up to the limit; of a longer one, the end of what is searched is dropped."""
    assert redact_start("x" * MAX_SCANNED) == "x" * MAX_SCANNED
    assert redact_start("x" * (MAX_SCANNED + 1)) == "x" * (MAX_SCANNED - LONGEST_SECRET)


def test_half_a_secret_is_not_shown() -> None:
    """A secret that lies across the end of what is searched leaves no trace."""
    key = CANARY * 5
    text = "-" * (MAX_SCANNED - 40) + key[:86] + "=="
    assert CANARY[:8] not in redact_start(text)


def test_each_line_is_redacted_for_itself() -> None:
    """A secret ends with its line, and a line that is cut does not cost the next one."""
    text = f"a\nBearer {CANARY}\n{'x' * (MAX_SCANNED + 1)}\n\nb"
    first, second, third, *rest = redact_lines(text).split("\n")
    assert (first, second, rest) == ("a", "Bearer [redacted]", ["", "b"])
    assert third == "x" * (MAX_SCANNED - LONGEST_SECRET)
