"""What the VM's own side knows of its machine."""

import pytest

from controller.vm_side.machine import BOOT_ID, boot_id_of, reachable


def test_the_unit_gives_the_boot_id() -> None:
    """The sandbox of the unit hides the file of the kernel."""
    assert boot_id_of({"BOOT_ID": "abc"}) == "abc"
    assert len(boot_id_of({"BOOT_ID": "x" * 1000})) == 64


def test_without_it_the_kernel_has_the_boot_id() -> None:
    """As in a shell, or in the demo."""
    expected = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
    assert boot_id_of({}) == expected


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
