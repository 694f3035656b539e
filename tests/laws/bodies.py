"""The bodies of NICs and pools, compared with what they must be in the end (law S3)."""

import copy
from collections.abc import Iterator
from typing import Any

from controller.simulator.world.bodies import Json, key
from controller.simulator.world.world import World
from tests.laws.ledger_document import members_of
from tests.laws.replay import Replay

VOLATILE = ("etag", "provisioningState")
"""What every write changes."""
POOLS = "loadBalancerBackendAddressPools"


def bodies_of(world: World) -> dict[str, Json]:
    """Return every NIC, and every pool with addresses, without what each write changes."""
    found: dict[str, Json] = {str(nic["id"]): nic for nic in world.nics.values()}
    for pool_id in world.pool_ids():
        pool = world.find_pool(pool_id)
        if pool is not None:
            found[pool_id] = pool
    images = {name: _image(body, VOLATILE) for name, body in found.items()}
    for image in images.values():
        addresses = image["properties"].get("loadBalancerBackendAddresses")
        if addresses:
            # Azure lists members in any order: the order carries no information.
            addresses.sort(key=lambda entry: str(entry["name"]))
    return images


def _image(value: Any, left_out: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name not in left_out}
        return {name: _image(part, left_out) for name, part in kept.items()}
    if isinstance(value, list):
        return [_image(part, left_out) for part in value]
    return copy.deepcopy(value)


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield a line per difference between two JSON values."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted({*expected, *found}):
            where = f"{path}/{name}"
            if name not in found:
                yield f"{where} is gone: {expected[name]!r}"
            elif name not in expected:
                yield f"{where} was added: {found[name]!r}"
            else:
                yield from differences(expected[name], found[name], where)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for order, (left, right) in enumerate(zip(expected, found, strict=True)):
            yield from differences(left, right, f"{path}[{order}]")
    elif expected != found:
        yield f"{path} was {expected!r} and is {found!r}"


def final_differences(replay: Replay, *, start: World, end: World) -> Iterator[str]:
    """Yield what is not as it was at the start, apart from what people changed.

    What another set has in a pool is left to its own replay: only its ledger tells what is out.
    """
    entries = replay.last_ledger.get("entries", [])
    excused = {name for entry in entries for name in members_of(entry)}
    unjudged = replay.gone | replay.conditions.others
    for pool, members in replay.pools.items():
        for name, member in members.items():
            away = member.vm in unjudged or member.renewed or (pool, name) in excused
            if member.inside != member.wanted and not away:
                stands = "is" if member.inside else "is not"
                yield f"{member.vm} {stands} in {pool.rsplit('/', 1)[-1]} in the end"
    yield from _nics(replay, start, end)
    # What a deleted VM, or one that is still out, has in a pool stays as it was when it was out.
    left = {
        name
        for members in replay.pools.values()
        for name, member in members.items()
        if member.vm in unjudged or (member.renewed and member.held_down)
    }
    for pool_id in end.pool_ids():
        before = {
            entry["properties"]["ipAddress"]: entry
            for entry in _addresses(start.find_pool(pool_id))
        }
        for entry in _addresses(end.find_pool(pool_id)):
            address = entry["properties"]["ipAddress"]
            untouched = address in before and not str(entry["name"]).startswith("by-hand")
            away = address in left or (key(pool_id), address) in excused
            if untouched and not away and entry != before[address]:
                yield f"address {address} of {pool_id.rsplit('/', 1)[-1]} is not what it was"


def _nics(replay: Replay, start: World, end: World) -> Iterator[str]:
    """Compare what only people may change: all of a NIC but its pools."""
    left_out = (*VOLATILE, POOLS)
    renewed = (*left_out, "resourceGuid", "macAddress")
    before = {key(nic["id"]): nic for nic in start.nics.values()}
    for nic in end.nics.values():
        old = copy.deepcopy(before[key(nic["id"])])
        if tags := replay.tags.get(key(nic["id"])):
            old["tags"] = {**old.get("tags", {}), **tags}
        vm = key(nic["properties"].get("virtualMachine", {}).get("id", ""))
        again = not replay.renewed.isdisjoint({key(nic["id"]), vm})
        names = renewed if again else left_out
        yield from differences(_image(old, names), _image(nic, names), str(nic["name"]))


def _addresses(pool: Json | None) -> list[Any]:
    return pool["properties"]["loadBalancerBackendAddresses"] if pool is not None else []
