"""What the VM's own side knows of its machine."""

import pytest

from controller.vm_side.machine import reachable


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("10.0.0.4", "10.0.0.4"),
        ("localhost", "localhost"),
    ],
)
def test_the_responder_is_reached_where_it_listens(host: str, expected: str) -> None:
    """A listener on every address is reached on loopback."""
    assert reachable(host) == expected
