"""Which set a ledger belongs to: another one's is refused, one of an older version is claimed."""

import pytest

from controller.core.azure_names import fold
from controller.core.blob_owner import ANY_OWNER, BlobOwner
from controller.core.ledger import Ledger

SET = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/availabilitySets/web"
OWNER = BlobOwner(set_id=SET, vms=("web-1", "web-2"))


@pytest.mark.parametrize("recorded", ["", SET, SET.upper(), SET.casefold()])
def test_the_own_blob_is_accepted(recorded: str) -> None:
    """One that names this set in any spelling, or no set."""
    assert OWNER.other_owner(recorded) == ""


def test_a_blob_of_another_set_is_refused() -> None:
    """The message names the other set and the way out, and nothing in it can be a command."""
    message = OWNER.other_owner(f"{SET}-b\x1b[2J\n")
    assert f"another availability set, {SET}-b\\x1b[2J" in message
    assert "remove election.blob_name" in message
    assert "\n" not in message
    assert len(OWNER.other_owner("x" * 100_000)) < 1000


def test_a_reader_that_does_not_know_its_set_refuses_nothing() -> None:
    """A command with an explicit blob name can read the status without Resource Manager."""
    assert ANY_OWNER.other_owner(SET) == ""
    assert ANY_OWNER.claims("", ()) == ""


@pytest.mark.parametrize(
    ("recorded", "entries", "claimed"),
    [
        ("", (), SET.casefold()),
        ("", ("WEB-2", "db-1"), SET.casefold()),
        ("", ("db-1",), ""),
        (SET, ("db-1",), SET),
    ],
)
def test_a_blob_without_a_set_is_claimed_if_it_is_its_own(
    recorded: str, entries: tuple[str, ...], claimed: str
) -> None:
    """A ledger that records only VMs of others may be that of another set."""
    assert OWNER.claims(recorded, entries) == claimed


FLEX = SET.replace("availabilitySets", "virtualMachineScaleSets")
KNOWN = Ledger(set_id=fold(SET), vms=("web-0",))


@pytest.mark.parametrize(
    ("owner", "ledger", "members"),
    [
        (OWNER, KNOWN, ("web-1", "web-2")),
        (BlobOwner(set_id=SET, vms=("WEB-2", "web-1", "web-2")), KNOWN, ("web-1", "web-2")),
        (ANY_OWNER, KNOWN, ("web-0",)),
        (OWNER, KNOWN.in_set(FLEX), ("web-0",)),
        (OWNER, Ledger(set_id=fold(FLEX)), ()),
        (OWNER, Ledger(), ()),
    ],
    ids=["own", "spelling", "no VMs known", "converted", "scale set", "of no set"],
)
def test_a_ledger_names_the_vms_of_its_availability_set(
    owner: BlobOwner, ledger: Ledger, members: tuple[str, ...]
) -> None:
    """Up to its conversion: a scale set can have 1,000 VMs, and needs no names."""
    assert owner.members(ledger) == members
