"""What may come of a reply, judged without the code under test: naive and strict."""

import json
from collections.abc import Iterator
from typing import Any

from controller.core.resources import AddressMembership, NicMembership
from tests.fuzz.memory import Request

POOLS = "loadBalancerBackendAddressPools"
ADDRESSES = "loadBalancerBackendAddresses"


class Twice(ValueError):
    """A JSON object holds a key twice."""


def strict(body: bytes, *, halves: bool = False) -> Any:
    """Return the JSON value in `body`. Raises ValueError for whatever a strict reader refuses.

    `halves` of surrogate pairs are allowed where we have written them ourselves.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Twice(str(pairs)[:200])
        return found

    def refuse(text: str) -> Any:
        raise ValueError(text)

    value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=refuse)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode(errors="surrogatepass" if halves else "strict")
    return value


def body_of(reply: bytes) -> bytes:
    """Return what follows the headers."""
    return reply.partition(b"\r\n\r\n")[2]


def parts(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers by lower-case name, and body; a status that is none is 599."""
    head, _, body = reply.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    code = first.split(" ")[1:2]
    number = code[0][:3] if code else ""
    status = int(number) if number.isascii() and number.isdigit() else 599
    pairs = (line.partition(":") for line in lines)
    return status, {name.casefold(): value.strip() for name, _, value in pairs}, body


def same(one: object, other: object) -> bool:
    """Tell whether two JSON values are the same text, so that 1 is neither 1.0 nor true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# --- event documents -----------------------------------------------------------------------------


def all_events(body: bytes) -> Iterator[dict[str, list[Any]]]:
    """Yield every event that `body` could be read to hold: each key with all its values."""
    document = json.loads(body.decode("utf-8-sig"), object_pairs_hook=list)
    for key, events in document:
        for event in events if key == "Events" else ():
            found: dict[str, list[Any]] = {}
            if isinstance(event, list) and all(isinstance(pair, tuple) for pair in event):
                for name, value in event:
                    found.setdefault(name, []).append(value)
            yield found


# --- writes --------------------------------------------------------------------------------------


def fold(name: str) -> str:
    """Return what Azure's names and ids are compared by.

    One underscore before them means nothing, as in very old event documents.
    """
    return name.removeprefix("_").casefold().rstrip("/")


def check_nic_write(
    asked: str,
    before: bytes,
    request: Request,
    memberships: tuple[NicMembership, ...],
    *,
    back: bool,
) -> None:
    """The write goes to the NIC asked for, on condition of its etag, with only the wanted edit."""
    _check_address(asked, before, request)
    check_nic_edit(before, request.body, memberships, back=back)


def check_pool_write(
    asked: str,
    before: bytes,
    request: Request,
    memberships: tuple[AddressMembership, ...],
    *,
    back: bool,
) -> None:
    """The write goes to the pool asked for, on condition of its etag, with only the wanted edit."""
    _check_address(asked, before, request)
    check_pool_edit(before, request.body, memberships, back=back)


def _check_address(asked: str, before: bytes, request: Request) -> None:
    received = strict(before)
    assert fold(received["id"]) == fold(asked), received["id"]
    assert fold(request.path.partition("?")[0]) == fold(asked), request.path
    assert request.headers["if-match"] == received["etag"].strip() != ""


def check_nic_edit(
    before: bytes, after: bytes, memberships: tuple[NicMembership, ...], *, back: bool
) -> None:
    """The body sent is the body received but for the wanted memberships (S3 exact)."""
    received, sent = strict(before), strict(after)
    wanted = {(fold(m.ip_configuration), fold(m.pool_id)) for m in memberships}
    assert same(_without_pools(received), _without_pools(sent)), "something else was changed"
    names = [fold(each["name"]) for each in _configurations(received)]
    assert len(set(names)) == len(names), "a NIC that has two ipConfigurations of one name"
    for old, new in zip(_configurations(received), _configurations(sent), strict=True):
        ours = {pool for name, pool in wanted if name == fold(old["name"])}
        others = [[p for p in _pools(each) if fold(p["id"]) not in ours] for each in (old, new)]
        assert same(*others), "another membership was changed"
        standing = [fold(pool["id"]) for pool in _pools(new) if fold(pool["id"]) in ours]
        assert set(standing) == (ours if back else set()), standing


def check_pool_edit(
    before: bytes, after: bytes, memberships: tuple[AddressMembership, ...], *, back: bool
) -> None:
    """The body sent is the body received but for the wanted addresses (S3 exact)."""
    received, sent = strict(before), strict(after)
    wanted = {membership.ip_address for membership in memberships}
    old, new = _addresses(received), _addresses(sent)
    received["properties"].pop(ADDRESSES, None)
    sent["properties"].pop(ADDRESSES, None)
    assert same(received, sent), "something else was changed"
    assert same(_others(old, wanted), _others(new, wanted)), "another address was changed"
    standing = {_ip(entry) for entry in new if _ip(entry) in wanted}
    assert standing == (wanted if back else set()), standing


def _configurations(nic: dict[str, Any]) -> list[dict[str, Any]]:
    return nic["properties"]["ipConfigurations"]


def _pools(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    return configuration["properties"].get(POOLS) or []


def _without_pools(nic: dict[str, Any]) -> Any:
    bare = json.loads(json.dumps(nic))
    for configuration in _configurations(bare):
        configuration["properties"].pop(POOLS, None)
    return bare


def _addresses(pool: dict[str, Any]) -> list[dict[str, Any]]:
    return pool["properties"].get(ADDRESSES) or []


def _ip(entry: dict[str, Any]) -> Any:
    return (entry.get("properties") or {}).get("ipAddress")


def _others(entries: list[dict[str, Any]], wanted: set[str]) -> list[dict[str, Any]]:
    return [entry for entry in entries if _ip(entry) not in wanted]
