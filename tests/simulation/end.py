"""What the world must look like in the end (law S3)."""

import copy
from collections.abc import Iterator
from typing import Any

from controller.simulator.bodies import Json, key

from .truth import Truth, members_of


def differences(truth: Truth) -> Iterator[str]:
    """Yield what is not as it was, but for what people wanted otherwise."""
    excused = {name for entry in truth.ledger.get("entries", []) for name in members_of(entry)}
    for pool, members in truth.pools.items():
        for name, member in members.items():
            away = member.vm in truth.gone or (pool, name) in excused
            if member.inside != member.wanted and not away:
                stands = "stands" if member.inside else "does not stand"
                yield f"{member.vm} {stands} in {pool.rsplit('/', 1)[-1]} in the end"
    yield from _bodies(truth)


def _bodies(truth: Truth) -> Iterator[str]:
    """Compare what nobody but people may change: all of a NIC, and of an address, but for pools."""
    before = {key(nic["id"]): nic for nic in truth.start.nics.values()}
    for nic in truth.world.nics.values():
        old = copy.deepcopy(before[key(nic["id"])])
        if tags := truth.tags.get(key(nic["id"])):
            old["tags"] = {**old.get("tags", {}), **tags}
        yield from _compare(_image(old), _image(nic), nic["name"])
    for pool_id in truth.world.pool_ids():
        new, old_pool = truth.world.find_pool(pool_id), truth.start.find_pool(pool_id)
        entries = {entry["properties"]["ipAddress"]: entry for entry in _addresses(old_pool)}
        for entry in _addresses(new):
            address = entry["properties"]["ipAddress"]
            untouched = address in entries and not str(entry["name"]).startswith("by-hand")
            if untouched and entry != entries[address]:
                yield f"address {address} of {pool_id.rsplit('/', 1)[-1]} is not what it was"


def _addresses(pool: Json | None) -> list[Any]:
    return pool["properties"]["loadBalancerBackendAddresses"] if pool is not None else []


def _image(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = ("etag", "provisioningState", "loadBalancerBackendAddressPools")
        return {name: _image(part) for name, part in value.items() if name not in left_out}
    return [_image(part) for part in value] if isinstance(value, list) else value


def _compare(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _compare(old.get(name), new.get(name), f"{path}/{name}")
    elif old != new:
        yield f"{path} was {old!r} and is {new!r}"
