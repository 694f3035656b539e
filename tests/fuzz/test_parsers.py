"""Whatever a service, a proxy or a hand makes of a good reply: the errors of the tree, or no harm.

`python -m tests.fuzz` looks further, for as long as one likes.
"""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.azure.imds_document import parse_document
from controller.core.planning.actions import Acknowledge, ChangeMembership
from tests.fuzz.calls import CALLS, conversations, play
from tests.fuzz.grammar import mutated
from tests.fuzz.targets import EVENT, TARGETS, hold
from tests.fuzz.world import LEDGER, decide

EXAMPLES = 60
"""Per target. All of them together take half a minute."""
ALWAYS_REFUSED = {"error_reply"}


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - ALWAYS_REFUSED))
def test_good_input_is_taken(name: str) -> None:
    """What the mutations begin with is no error, or they would begin behind the parser."""
    target = TARGETS[name]
    target.run(target.seeds()[0])


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_hostile_input_does_no_harm(name: str, data: st.DataObject) -> None:
    """Of any input comes an error of the tree in few words, or what the judges of it allow."""
    target = TARGETS[name]
    hold(target, data.draw(mutated(target.seeds())))


@pytest.mark.parametrize(
    ("events", "restored", "acknowledged"), [([], True, False), ([EVENT], False, True)]
)
def test_the_decisions_that_are_judged_are_made(
    events: list[object], *, restored: bool, acknowledged: bool
) -> None:
    """A good document brings the VM back, or is acknowledged: the judges have something to see."""
    document = parse_document(json.dumps({"Events": events}).encode())
    actions = decide(document, LEDGER).actions
    writes = [each for each in actions if isinstance(each, ChangeMembership)]
    assert any(write.restore for write in writes) is restored
    assert any(isinstance(each, Acknowledge) for each in actions) is acknowledged


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((each, "PUT") for each in CALLS if "remove_" in each or "restore_" in each),
        ("maintenance.perform", "POST"),
    ],
)
def test_the_writes_that_are_judged_are_sent(name: str, method: str) -> None:
    """A good conversation contains the write, or there would be nothing to judge."""
    outcome = play(name, conversations()[name])
    assert [request.method for request in outcome.writes] == [method]
    assert outcome.error is None
