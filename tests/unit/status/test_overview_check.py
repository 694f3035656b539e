"""What answers at the address of the agent may be anything."""

import json
from typing import Any

import pytest

from controller.errors import ContractViolation
from controller.status.overview import overview
from controller.status.overview_check import checked_overview
from tests.unit.status.test_overview import facts, leader


def answer(**changes: Any) -> Any:
    """Return what an agent answers, as JSON has it."""
    return {**json.loads(json.dumps(overview(leader()))), **changes}


@pytest.mark.parametrize("shown", [overview(facts()), overview(leader())])
def test_an_overview_is_accepted(shown: Any) -> None:
    """That of an agent that has just started, and that of a leader."""
    assert checked_overview(json.loads(json.dumps(shown))) == shown


def test_new_keys_and_words_are_accepted() -> None:
    """A newer agent may have both."""
    given = answer(added=[1])
    given["agent"]["role"] = "hibernating"
    given["vms"][0]["colour"] = "red"
    assert checked_overview(given) == given


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (None, "version None"),
        ([], "version None"),
        ("<html>", "version None"),
        ({}, "version None"),
        (answer(version=2), "version 2"),
        (answer(version="x" * 9999), "version x"),
        ({"version": 1}, "overview.at"),
        (answer(vms={}), "overview.vms"),
        (answer(vms=[None]), "overview.vms[0]"),
        (answer(vms=[{"vm": 7}]), "overview.vms[0].vm"),
        (answer(lease=None), "overview.lease"),
        (answer(lease={**answer()["lease"], "epoch": "7"}), "overview.lease.epoch"),
        (answer(lease={**answer()["lease"], "epoch": True}), "overview.lease.epoch"),
        (answer(agent={**answer()["agent"], "healthy": 1}), "overview.agent.healthy"),
        (answer(requests=[{"other": []}]), "overview.requests[0]"),
    ],
)
def test_anything_else_is_refused_with_its_place(given: Any, place: str) -> None:
    """No traceback, and a short message."""
    with pytest.raises(ContractViolation) as caught:
        checked_overview(given)
    assert place in str(caught.value)
    assert len(str(caught.value)) < 300
