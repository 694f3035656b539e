"""What one leader has recorded, sent and seen the end of."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold
from controller.core.ledger import Entry, Ledger
from controller.core.planning.write_log import WriteLog
from controller.core.resources import MembershipKey
from tests.support.planner_scenario import API, APP, at, membership, nic_id, vm_id

TARGET = ActionKey("write", "nic")
NIC = nic_id("web-1")
APP_KEY, API_KEY = membership("web-1").key, membership("web-1", API).key


def ledger(*pools: str, **fields: Any) -> Ledger:
    """Return a ledger with one entry of web-1."""
    known: dict[str, Any] = {
        "vm": "web-1",
        "vm_id": vm_id("web-1"),
        "events": (),
        "memberships": tuple(membership("web-1", pool) for pool in pools),
        "recorded_at": at(0),
    }
    return Ledger(entries=(Entry(**{**known, **fields}),))


@pytest.fixture
def sent() -> WriteLog:
    """Return the account of a leader that has recorded web-1 in APP."""
    account = WriteLog()
    account.recorded(Ledger(), ledger(APP))
    return account


def test_what_is_recorded_here_is_unsent_until_it_leaves(sent: WriteLog) -> None:
    """S3: from then on a removal of ours may have taken it out."""
    assert sent.unsent == {APP_KEY}
    sent.sending(TARGET, NIC.upper(), [membership("web-1")], at(5))
    assert sent.unsent == set()
    assert sent.sent_at == {fold(NIC): at(5)}


def test_what_a_predecessor_recorded_may_have_been_sent_by_it() -> None:
    """S5: a leader vouches only for what it recorded itself."""
    account = WriteLog()
    account.recorded(ledger(APP), ledger(APP, API))
    assert account.unsent == {API_KEY}


def test_what_was_refused_was_never_sent(sent: WriteLog) -> None:
    """S3: a refusal takes back what that write sent for the first time, and nothing else."""
    sent.recorded(ledger(APP), ledger(APP, API))
    sent.sending(TARGET, NIC, [membership("web-1")], at(5))
    sent.starting(TARGET)
    sent.sending(TARGET, NIC, [membership("web-1"), membership("web-1", API)], at(9))
    sent.refused(TARGET)
    assert sent.unsent == {API_KEY}
    sent.refused(TARGET)
    assert sent.unsent == {API_KEY}


def test_an_entry_that_is_over_is_forgotten(sent: WriteLog) -> None:
    """What no entry names is nobody's to judge."""
    sent.recorded(ledger(APP), Ledger())
    assert sent.unsent == set()


OVER: dict[str, Any] = {"out_at": at(10), "restored_at": at(60)}


@pytest.mark.parametrize(
    ("before", "after", "unsent"),
    [
        (OVER, {"recorded_at": at(90)}, {APP_KEY}),
        (OVER, {**OVER, "restored_at": None}, set()),
        ({**OVER, "out_at": None}, {"recorded_at": at(90)}, set()),
        ({**OVER, "restored_at": None}, {"recorded_at": at(90)}, set()),
    ],
    ids=["recorded again", "out again", "removal never seen", "in a pool again"],
)
def test_only_a_maintenance_that_is_over_begins_anew(
    sent: WriteLog, before: dict[str, Any], after: dict[str, Any], unsent: set[MembershipKey]
) -> None:
    """S5: before its removal was seen to take effect, a late one of ours may still do so."""
    sent.sending(TARGET, NIC, [membership("web-1")], at(5))
    sent.recorded(ledger(APP, **before), ledger(APP, **after))
    assert sent.unsent == unsent


def test_the_end_counts_for_what_was_sent(sent: WriteLog) -> None:
    """S1: an action that had nothing to send proves nothing of a write from before it."""
    sent.starting(TARGET)
    sent.sending(TARGET, NIC, [membership("web-1")], at(5))
    sent.starting(TARGET)
    sent.ended(TARGET, NIC, at(7))
    assert sent.ended_at == {}
    sent.sending(TARGET, NIC, [membership("web-1")], at(8))
    sent.ended(TARGET, NIC.upper(), at(9))
    assert sent.ended_at == {fold(NIC): at(9)}


def test_a_ledger_may_hold_several_entries(sent: WriteLog) -> None:
    """Each entry is compared with its own past."""
    other = replace(
        ledger(APP).entries[0], vm="web-2", memberships=(membership("web-2"),), recorded_at=at(3)
    )
    sent.sending(TARGET, NIC, [membership("web-1")], at(5))
    sent.recorded(ledger(APP), replace(ledger(APP), entries=(*ledger(APP).entries, other)))
    assert sent.unsent == {membership("web-2").key}


def test_what_a_wrong_clock_recorded_is_not_waited_for(sent: WriteLog) -> None:
    """S5: a write of the future was sent by now at the latest; when it ended is not known."""
    sent.sending(TARGET, NIC, [membership("web-1")], at(3600))
    sent.ended(TARGET, NIC, at(3605))
    sent.forget_future(at(3600), at(3595))
    assert (sent.sent_at, sent.ended_at) == ({fold(NIC): at(3600)}, {}), "only what is later"
    sent.forget_future(at(15), at(10))
    sent.forget_future(at(25), at(20))
    assert sent.sent_at == {fold(NIC): at(10)}, "as of the first time"
