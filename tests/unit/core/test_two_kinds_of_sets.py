"""An availability set and a flexible scale set, and the ledger that goes from one to the other."""

import pytest

from controller.core.azure_names import SetKind, fold
from controller.core.ledger import Ledger
from controller.storage.ledger_json import decode_ledger, encode_ledger

COMPUTE = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute"
WEB, FLEX = f"{COMPUTE}/availabilitySets/web", f"{COMPUTE}/virtualMachineScaleSets/Flex"


@pytest.mark.parametrize(
    ("set_id", "kind"),
    [
        (WEB, "availability set"),
        (FLEX, "scale set"),
        (FLEX.upper(), "scale set"),
        (f"{COMPUTE}/availabilitySets/virtualMachineScaleSets", "availability set"),
        ("", "availability set"),
    ],
)
def test_the_id_names_the_kind(set_id: str, kind: str) -> None:
    """Whatever the case; a set that is not known counts as the kind that there was first."""
    assert SetKind.of(set_id).value == kind


def test_a_ledger_notes_the_set_that_azure_made_of_its_own() -> None:
    """The set for which it was begun stays: the other blobs name that one, too."""
    ledger = Ledger(set_id=fold(WEB))
    converted = ledger.in_set(FLEX)
    assert (converted.set_id, converted.converted_to) == (fold(WEB), fold(FLEX))
    assert converted.present_set_id == fold(FLEX)
    assert converted.in_set(FLEX.upper()) is converted
    assert converted.in_set(WEB) == ledger


@pytest.mark.parametrize(
    ("recorded", "read"),
    [(fold(WEB), WEB), (fold(WEB), ""), ("", FLEX)],
    ids=["the same set", "nothing was read", "no set is recorded"],
)
def test_a_ledger_stays_as_it_is(recorded: str, read: str) -> None:
    """H1: without a conversion nothing is written."""
    ledger = Ledger(set_id=recorded)
    assert ledger.in_set(read) is ledger


def test_the_conversion_is_stored() -> None:
    """A ledger without one has the content that older versions write."""
    ledger = Ledger(set_id=fold(WEB), epoch=3)
    assert b"converted_to" not in encode_ledger(ledger)
    assert decode_ledger(encode_ledger(ledger.in_set(FLEX))).present_set_id == fold(FLEX)
