"""Safeguards that can be switched off, to show that something notices.

Every switch patches the product for the length of a block; the product knows nothing of it. Beside
each stands the law that has to break within a few hundred seeds: a safeguard that nothing misses is
untested, or not needed.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from azure.core import MatchConditions

from controller import elector
from controller.azure import bodies, failures, network
from controller.azure.blob import LedgerBlob
from controller.azure.departure import Fence
from controller.azure.network import Network
from controller.core import acknowledgement, model, removal, restoration
from controller.core.model import NicMembership, load_balancer_of
from controller.elector import Elector
from controller.errors import LeaseLost
from controller.ledger_store import LedgerStore
from controller.watcher import Watcher

Block = AbstractContextManager[object]


@dataclass(frozen=True, slots=True)
class Safeguard:
    """One safeguard: the law that needs it, and how to do without."""

    law: str
    off: Any
    """Makes the block in which it is off."""


def _returning(value: object) -> Any:
    def constant(*_arguments: object, **_options: object) -> object:
        return value

    return constant


def _never(where: Any, name: str, value: object) -> Any:
    return lambda: patch.object(where, name, _returning(value))


def _without_if_match(kind: str) -> Any:
    real = network._options

    def options(resource_id: str, *arguments: Any) -> dict[str, Any]:
        given = real(resource_id, *arguments)
        if kind in resource_id.casefold():
            given["headers"] = {}
        return given

    return lambda: patch.object(network, "_options", options)


def _ledger_without_if_match() -> Block:
    real = LedgerBlob.write

    async def write(self: LedgerBlob, body: bytes, etag: str, lease_id: str, fence: Fence) -> str:
        return await real(self, body, "*", lease_id, fence)

    return patch.object(LedgerBlob, "write", write)


def _ledger_without_lease_id() -> Block:
    async def write(self: LedgerBlob, body: bytes, etag: str, lease_id: str, fence: Fence) -> str:
        async with self._call("write", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            reply = await self._client.upload_blob(
                body,
                overwrite=True,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
                fence=fence,
            )
            return str(reply["etag"])

    return patch.object(LedgerBlob, "write", write)


def _without_write_ahead() -> Block:
    async def write(self: LedgerStore, wanted: Any, _elector: Elector) -> bool:
        self.ledger = wanted
        return True

    return patch.object(LedgerStore, "write", write)


def _without_verifying() -> Block:
    real_nic, real_pool = Network._put_nic, Network._put_pool

    async def put_nic(self: Network, nic_id: str, edit: bodies.Edit, fence: Any) -> Any:
        await real_nic(self, nic_id, edit, fence)
        return bodies.parse_nic(edit.body, self._clock.now())

    async def put_pool(self: Network, pool_id: str, edit: bodies.Edit, fence: Any) -> Any:
        await real_pool(self, pool_id, edit, fence)
        return edit.body

    return _all(
        patch.object(Network, "_put_nic", put_nic), patch.object(Network, "_put_pool", put_pool)
    )


def _restoring_every_pool() -> Block:
    real = Network.restore_to_nic

    async def restore(self: Network, nic_id: str, memberships: Any, fence: Any) -> Any:
        first = memberships[0]
        owner = load_balancer_of(first.pool_id)
        body = await self._get_nic(nic_id)
        every = {
            pool.pool_id: NicMembership(
                pool_id=pool.pool_id, nic_id=nic_id, ip_configuration=first.ip_configuration
            )
            for pool in (await self.load_balancer(owner)).pools
        }
        assert body
        known = {membership.pool_id.casefold() for membership in memberships}
        added = tuple(m for pool, m in sorted(every.items()) if pool.casefold() not in known)
        return await real(self, nic_id, (*memberships, *added), fence)

    return patch.object(Network, "restore_to_nic", restore)


def _case_sensitive() -> Block:
    """Compare names and ids as they are spelled, in every module that folds them."""

    def fold(name: str) -> str:
        return name.rstrip("/")

    modules = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("controller.") and ".simulator" not in name
    ]
    return _all(
        *(
            patch.object(module, "fold", fold)
            for module in modules
            if getattr(module, "fold", None) is model.fold
        )
    )


@contextmanager
def _all(*blocks: Block) -> Iterator[None]:
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(block)
        yield


def _without_yielding() -> Block:
    return _all(
        patch.object(elector, "must_yield", _returning(False)),
        patch.object(elector, "may_acquire", _returning(True)),
    )


def _still_held(self: Elector) -> bool:
    return self.term is not None


SWITCHES: Mapping[str, Safeguard] = MappingProxyType(
    {
        "case-folding": Safeguard("L1 converge", _case_sensitive),
        "date-correction": Safeguard("S7 in time", _never(Watcher, "_correct", None)),
        "floor": Safeguard("S2 floor", _never(removal, "_floor_allows", True)),
        "if-match-on-ledger": Safeguard("S5 write-ahead", _ledger_without_if_match),
        "if-match-on-nic": Safeguard("S3 exact", _without_if_match("/networkinterfaces/")),
        "if-match-on-pool": Safeguard("S3 exact", _without_if_match("/backendaddresspools/")),
        "lease-deadline": Safeguard(
            "S4 fence", lambda: patch.object(Elector, "_valid", _still_held)
        ),
        "lease-id-on-ledger": Safeguard("L1 converge", _ledger_without_lease_id),
        "ledger-says-what": Safeguard("S3 exact", _restoring_every_pool),
        "observed-out": Safeguard("S1 ack", _never(acknowledgement, "_ready", True)),
        "power-state": Safeguard("S6 no early return", _never(restoration, "_runs", True)),
        "retry-after": Safeguard("H1 quiet", _never(failures, "retry_after", None)),
        "two-clean-polls": Safeguard(
            "S6 no early return", _never(restoration, "_two_clean_polls", True)
        ),
        "verify-by-get": Safeguard("S1 ack", _without_verifying),
        "write-ahead": Safeguard("S5 write-ahead", _without_write_ahead),
        "yielding": Safeguard("S7 in time", _without_yielding),
    }
)


@contextmanager
def without(name: str) -> Iterator[None]:
    """Switch one safeguard off; an empty name switches none."""
    block = SWITCHES[name].off() if name else nullcontext()
    with block:
        yield
