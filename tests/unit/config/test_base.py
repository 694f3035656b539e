"""What all tables of the configuration share."""

import pytest

from controller.config.base import is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("127.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("", False),
        (None, False),
    ],
)
def test_only_an_address_of_this_host_is_loopback(host: str | None, expected: bool) -> None:
    """A name that merely starts like a loopback address is another host."""
    assert is_loopback(host) is expected
