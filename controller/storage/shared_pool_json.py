"""What sets state about a shared pool, as its blob stores it; see `stored_json` for the rules.

Every set that may write the container writes this blob, so its content is bounded when it is read.
"""

from dataclasses import replace

from pydantic import Field

from controller.core.shared_pools import MINOR, PoolShare, PoolShares
from controller.errors import ContractViolation
from controller.storage.stored_json import Instant, Stored, Text, dump, read

MAJOR = 1
MAX_BODY_BYTES = 1024 * 1024
"""Enough for every member that Azure allows in a pool, twice per set."""
MAX_SHARES = 50
"""Availability sets in one pool."""
MAX_MACHINES = 5000
"""Machines of one set in one pool; Azure allows 5,000 (Microsoft docs, limits)."""


class StoredShare(Stored):
    """What one set states."""

    value_type = PoolShare

    availability_set_id: Text
    members: tuple[Text, ...] = Field(max_length=MAX_MACHINES)
    out: tuple[Text, ...] = Field(max_length=MAX_MACHINES)
    written_at: Instant


class StoredShares(Stored):
    """The whole content of the blob."""

    value_type = PoolShares

    version: Text
    pool_id: Text
    shares: tuple[StoredShare, ...] = Field(max_length=MAX_SHARES)


def encode_shares(shares: PoolShares) -> bytes:
    """Return the content as JSON, with the fields of newer minor versions in their places."""
    return dump(shares, version=f"{MAJOR}.{max(shares.minor, MINOR)}")


def decode_shares(body: bytes, pool_id: str) -> PoolShares:
    """Return what `body` states; empty content states nothing.

    Raises:
        ContractViolation: the content is something else, too large, or of another major version.
    """
    if not body:
        return PoolShares(pool_id=pool_id)
    if len(body) > MAX_BODY_BYTES:
        raise ContractViolation(f"shares: {len(body)} bytes, the limit is {MAX_BODY_BYTES}")
    value, minor = read(StoredShares, body, what="shares", major=MAJOR)
    shares: PoolShares = replace(value, minor=minor)
    return shares
