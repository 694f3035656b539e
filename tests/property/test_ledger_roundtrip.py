"""The ledger round trip, for every ledger there can be."""

import json
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.core.azure_names import fold
from controller.core.drain_history import Step, Transition
from controller.core.ledger import (
    MAX_TRANSITIONS,
    MINOR,
    Entry,
    EventReference,
    Hold,
    Ledger,
)
from controller.core.resources import AddressMembership, AdminMembership, NicMembership
from controller.errors import ContractViolation
from controller.storage.ledger_json import decode_ledger, encode_ledger

BOUNDED = settings(max_examples=150)

texts = st.text(max_size=20)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
instants = st.integers(0, 2**53).map(lambda us: EPOCH + timedelta(microseconds=us))
maybe = st.none() | instants
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)  # what JSON has
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v), max_leaves=5
)
extras = st.dictionaries(texts.map(lambda name: f"x-{name}"), values, max_size=2)
memberships = (
    st.builds(
        NicMembership,
        pool_id=texts,
        nic_id=texts,
        ip_configuration=texts,
        position=st.integers(0, 99),
        admin_state=texts,
        lacks=texts,
        extra=extras,
    )
    | st.builds(
        AddressMembership, pool_id=texts, name=texts, ip_address=texts, body=texts, extra=extras
    )
    | st.builds(
        AdminMembership,
        pool_id=texts,
        nic_id=texts,
        ip_configuration=texts,
        name=texts,
        ip_address=texts,
        admin_state=texts,
        vm_guid=texts,
        nic_guid=texts,
        extra=extras,
    )
)
references = st.builds(
    EventReference,
    event_id=texts,
    event_type=texts,
    not_before=maybe,
    acknowledged_at=maybe,
    extra=extras,
)
entries = st.builds(
    Entry,
    vm=texts,
    vm_id=texts,
    events=st.lists(references, max_size=2).map(tuple),
    memberships=st.lists(memberships, max_size=3).map(tuple),
    recorded_at=instants,
    out_at=maybe,
    restoring_at=maybe,
    restored_at=maybe,
    gone=st.booleans(),
    extra=extras,
)
holds = st.builds(Hold, subject=texts, reason=texts, message=texts, since=instants, extra=extras)
lines = st.builds(
    Transition,
    at=instants,
    vm=texts,
    step=st.sampled_from(Step) | texts,
    detail=texts,
    extra=extras,
)
ledgers = st.builds(
    Ledger,
    epoch=st.integers(0, 10**18),
    leader=texts,
    entries=st.lists(entries, max_size=3, unique_by=lambda entry: fold(entry.vm)).map(tuple),
    holds=st.lists(holds, max_size=2).map(tuple),
    transitions=st.lists(lines, max_size=2).map(tuple),
    minor=st.integers(MINOR, 9),
    extra=extras,
)


@given(ledgers)
@BOUNDED
def test_what_is_written_is_read(ledger: Ledger) -> None:
    """Decoding what was encoded gives the same ledger, fields of newer versions included."""
    again = decode_ledger(encode_ledger(ledger))
    assert again == ledger
    assert encode_ledger(again) == encode_ledger(ledger)
    for one, other in zip(ledger.entries, again.entries, strict=True):
        for mine, read in zip(one.memberships, other.memberships, strict=True):
            assert isinstance(mine, NicMembership | AddressMembership | AdminMembership)
            assert isinstance(read, NicMembership | AddressMembership | AdminMembership)
            assert (mine.key, mine.extra) == (read.key, read.extra)


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
@example(b"")
@BOUNDED
def test_anything_else_is_refused(body: bytes) -> None:
    """Whatever is no ledger raises the one error that means: stop, and leave it untouched."""
    try:
        assert decode_ledger(body) == Ledger()
        assert body == b""
    except ContractViolation:
        assert body != b""


@given(ledgers, st.data())
@BOUNDED
def test_a_cut_off_ledger_is_refused(ledger: Ledger, data: st.DataObject) -> None:
    """No proper beginning of a ledger is taken for a ledger."""
    body = encode_ledger(ledger)
    length = data.draw(st.integers(1, len(body) - 1))
    try:
        decode_ledger(body[:length])
    except ContractViolation:
        return
    raise AssertionError(body[:length])


@given(st.lists(lines, max_size=8), st.integers(0, MAX_TRANSITIONS // 4), st.integers(0, 2**31))
@settings(BOUNDED, max_examples=20)
def test_history_is_bounded(some: list[Transition], times: int, second: int) -> None:
    """However much happens, the ledger stays small and keeps the newest."""
    ledger, history = Ledger(), some * times
    for line in history:
        ledger = ledger.noting(at=line.at, vm=line.vm, step=Step.RECORDED, detail=line.detail)
    newest = EPOCH + timedelta(seconds=second)
    ledger = ledger.noting(at=newest, vm="web-1", step=Step.LEADS)
    assert len(ledger.transitions) == min(MAX_TRANSITIONS, len(history) + 1)
    assert ledger.transitions[-1].step == Step.LEADS
