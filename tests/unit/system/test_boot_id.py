"""What identifies the boot of the machine."""

import pytest

from controller.system.boot_id import BOOT_ID, boot_id_of, is_other_boot


def test_the_unit_gives_the_boot_id() -> None:
    """The sandbox of the unit hides the file of the kernel."""
    assert boot_id_of({"BOOT_ID": "abc"}) == "abc"
    assert len(boot_id_of({"BOOT_ID": "x" * 1000})) == 64


def test_without_it_the_kernel_has_the_boot_id() -> None:
    """As in a shell, or in the demo."""
    expected = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
    assert boot_id_of({}) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("a-b", "c-d", True), ("a-b", "ab", False), ("", "ab", False), ("ab", "", False)],
)
def test_two_boots_differ_if_both_are_known(one: str, other: str, *, expected: bool) -> None:
    """systemd writes an id without hyphens, the kernel with them; Windows has none."""
    assert is_other_boot(one, other) is expected
