"""What sets state about a shared pool, as its blob stores it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.core.shared_pools import PoolShare, PoolShares
from controller.errors import ContractViolation
from controller.storage.shared_pool_json import (
    MAX_BODY_BYTES,
    MAX_MACHINES,
    MAX_SHARES,
    decode_shares,
    encode_shares,
)
from controller.storage.shared_pool_store import shared_pool_blob_name

POOL = (
    "/subscriptions/S/resourceGroups/RG/providers/Microsoft.Network/loadBalancers/web"
    "/backendAddressPools/App"
)
SHARE = PoolShare(
    availability_set_id="/sets/a",
    members=("nic-1", "nic-2"),
    out=("nic-1",),
    written_at=datetime(2026, 1, 5, 12, tzinfo=UTC),
)
SHARES = PoolShares(pool_id=POOL, shares=(SHARE,))


def document(**changes: Any) -> bytes:
    """Return the content with changes at its top level."""
    return json.dumps({**json.loads(encode_shares(SHARES)), **changes}).encode()


def share(**changes: Any) -> dict[str, Any]:
    """Return the share of one set with changes."""
    return {**json.loads(encode_shares(SHARES))["shares"][0], **changes}


def test_round_trip() -> None:
    """What was written is read."""
    assert decode_shares(encode_shares(SHARES), POOL) == SHARES


def test_an_empty_blob_states_nothing() -> None:
    """A blob without content is one that was never written."""
    assert decode_shares(b"", POOL) == PoolShares(pool_id=POOL)


def test_fields_of_a_newer_version_are_kept() -> None:
    """A field that this version does not know is written back."""
    read = decode_shares(document(version="1.7", colour="red"), POOL)
    assert json.loads(encode_shares(read)) == {
        **json.loads(document()),
        "version": "1.7",
        "colour": "red",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        document(version="2.0"),
        document(shares=None),
        document(shares=[{}]),
        document(shares=json.loads(document())["shares"] * (MAX_SHARES + 1)),
        document(
            shares=[{**json.loads(document())["shares"][0], "out": ["n"] * (MAX_MACHINES + 1)}]
        ),
        document(shares=[{**json.loads(document())["shares"][0], "members": "nic-1"}]),
        b" " * MAX_BODY_BYTES + encode_shares(SHARES),
    ],
    ids=range(10),
)
def test_other_content_is_refused(body: bytes) -> None:
    """Content that is something else, too large, or of another major version is never used."""
    with pytest.raises(ContractViolation, match="shares"):
        decode_shares(body, POOL)


def test_one_blob_per_pool() -> None:
    """The name is the folded id of the pool, so that every set finds the same blob."""
    assert shared_pool_blob_name(POOL) == "pools/s/rg/microsoft.network/web/app.json"
    assert shared_pool_blob_name(POOL.upper()) == shared_pool_blob_name(POOL)
    assert shared_pool_blob_name(POOL) != shared_pool_blob_name(POOL.replace("web", "api"))


def test_a_share_replaces_the_one_of_its_set() -> None:
    """A set has one share, however its id is spelled, and the others stay as they are."""
    other = replace(SHARE, availability_set_id="/sets/b")
    mine = replace(SHARE, availability_set_id="/SETS/A", out=())
    assert replace(SHARES, shares=(SHARE, other)).with_share(mine).shares == (mine, other)
