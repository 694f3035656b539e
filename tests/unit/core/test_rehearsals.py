"""What counts as a rehearsal."""

from dataclasses import dataclass

import pytest

from controller.core.rehearsals import is_test, only_tests


@dataclass(frozen=True)
class Why:
    """A reason of a drain."""

    event_id: str


@pytest.mark.parametrize(
    ("event_id", "expected"),
    [
        ("test-1f2e", True),
        ("TEST-1F2E", True),
        ("test", False),
        ("latest-1f2e", False),
        ("602d9444-d2cd-49c7-8624-8643e7171297", False),
        ("", False),
    ],
)
def test_prefix(event_id: str, expected: bool) -> None:
    """An id that begins with the prefix, in any case, is of a rehearsal; no other is."""
    assert is_test(event_id) is expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((), False),
        (("test-1",), True),
        (("test-1", "test-2"), True),
        (("test-1", "E-2"), False),
        (("E-1",), False),
    ],
)
def test_real_reason_is_no_test(ids: tuple[str, ...], expected: bool) -> None:
    """A VM that is out for a real reason too is not out for a test."""
    assert only_tests(map(Why, ids)) is expected
