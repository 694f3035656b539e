"""What the fuzz runs found, each as the input that did the harm and what it has to come to now."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from controller.errors import ContractViolation, ControllerError, NotFound, NotSent, OutcomeUnknown
from tests.fuzz.calls import conversations, play
from tests.fuzz.memory import NEXT_REPLY
from tests.fuzz.targets import TARGETS, hold

Edit = Callable[[dict[str, Any]], object]


def spoilt(
    name: str,
    number: int = 0,
    *,
    status: int = 0,
    body: bytes | None = None,
    edit: Edit | None = None,
    **headers: str,
) -> bytes:
    """Return the good conversation of a call with one reply changed."""
    replies = conversations()[name].split(NEXT_REPLY)
    head, _, content = replies[number].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    if status:
        first = f"HTTP/1.1 {status} Whatever"
    for key, value in headers.items():
        name = key.replace("_", "-").casefold()
        lines = [line for line in lines if not line.casefold().startswith(f"{name}:")]
        lines += [f"{name}: {value}"] * bool(value)
    if edit is not None:
        value = json.loads(content)
        edit(value)
        content = json.dumps(value).encode()
    replies[number] = "\r\n".join([first, *lines]).encode() + b"\r\n\r\n"
    replies[number] += content if body is None else body
    return NEXT_REPLY.join(replies)


def other_id(body: dict[str, Any]) -> None:
    body["id"] = body["id"].replace("web", "elsewhere")


def without(*path: str) -> Edit:
    def edit(body: dict[str, Any]) -> None:
        at = body
        for step in path[:-1]:
            at = at[step]
        del at[path[-1]]

    return edit


def odd_address(body: dict[str, Any]) -> None:
    for entry in body["properties"]["loadBalancerBackendAddresses"]:
        entry["properties"]["ipAddress"] = "_" + entry["properties"]["ipAddress"]


def twice(body: dict[str, Any]) -> None:
    machines = body["properties"]["virtualMachines"]
    machines.append({"id": machines[0]["id"].upper()})


def odd_vm(body: dict[str, Any]) -> None:
    del body["value"][0]["properties"]["networkProfile"]


PUT, POLL = 1, 2
JSON = "application/json"
SYNCHRONOUS = {"status": 201, "azure_asyncoperation": ""}
HUGE = b'{"id": %s}' % (b"9" * 5000)
FINDINGS: list[tuple[str, dict[str, Any], type[ControllerError] | None]] = [
    # Another resource than the one asked for, or half of it
    ("compute.power", {"edit": other_id}, ContractViolation),
    ("compute.power", {"edit": without("properties", "networkProfile")}, ContractViolation),
    ("compute.discover", {"edit": other_id}, ContractViolation),
    ("compute.discover", {"number": 1, "edit": other_id}, ContractViolation),
    ("compute.members", {"edit": other_id}, ContractViolation),
    ("compute.members", {"edit": twice}, None),
    ("compute.members", {"edit": without("properties", "virtualMachines")}, ContractViolation),
    ("compute.members", {"number": 1, "edit": odd_vm}, None),
    ("network.load_balancer", {"edit": other_id}, ContractViolation),
    ("network.nic", {"edit": without("properties")}, ContractViolation),
    ("network.remove_from_nic", {"number": -1, "edit": other_id}, OutcomeUnknown),
    ("network.restore_to_pool", {"number": -1, "edit": other_id}, OutcomeUnknown),
    # Bodies over which the SDK stumbles
    ("network.restore_to_nic", {"number": PUT, **SYNCHRONOUS, "body": b'"text"'}, OutcomeUnknown),
    ("network.restore_to_nic", {"number": POLL, "body": b'"text"'}, OutcomeUnknown),
    ("network.remove_from_pool", {"number": PUT, **SYNCHRONOUS, "body": b"[]"}, OutcomeUnknown),
    ("network.remove_from_pool", {"number": POLL, "body": b"[5]"}, OutcomeUnknown),
    ("compute.discover", {"body": HUGE}, ContractViolation),
    ("network.nic", {"body": HUGE}, ContractViolation),
    ("network.nic", {"content_encoding": "gzip"}, ContractViolation),
    ("blob.renew", {"status": 400, "body": b"5", "content_type": JSON}, ContractViolation),
    ("blob.acquire", {"status": 409, "body": b"true", "content_type": JSON}, ContractViolation),
    (
        "blob.create",
        {"status": 404, "body": b'{"error": {"code": "A", "message": [""]}}', "content_type": JSON},
        NotFound,
    ),
    # An address that only looks like the one that is wanted
    ("network.remove_from_pool", {"edit": odd_address}, None),
    # Headers over which the SDK stumbles
    ("blob.read", {"last_modified": "yesterday"}, ContractViolation),
    ("blob.read", {"content_range": "bytes"}, ContractViolation),
    ("blob.read", {"content_range": "bytes 0-17/many"}, ContractViolation),
    (
        "network.remove_from_nic",
        {"number": PUT, "azure_asyncoperation": "https://[/"},
        OutcomeUnknown,
    ),
    # A ledger that was cut off is no empty one
    ("blob.read", {"body": b""}, OutcomeUnknown),
    ("blob.read", {"body": b'{"version": "1.1"} '}, ContractViolation),
    # Tokens that cannot be sent
    (
        "token",
        {"body": b'{"access_token": "a\\nb", "expires_in": 9, "resource": "r"}'},
        ContractViolation,
    ),
    ("token", {"body": b'{"access_token": "a", "expires_in": "soon", "resource": "r"}'}, NotSent),
]


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    FINDINGS,
    ids=[f"{name}-{number}" for number, (name, *_) in enumerate(FINDINGS)],
)
def test_a_finding_in_a_conversation(
    name: str, change: dict[str, Any], expected: type[ControllerError] | None
) -> None:
    """The reply that did harm once is refused as what it means for the caller, or does none."""
    script = spoilt(name, **change)
    hold(TARGETS[name], script)
    with pytest.raises(expected) if expected else nullcontext():
        TARGETS[name].run(script)


def test_a_stray_416_makes_no_ledger_an_empty_one() -> None:
    """The SDK reads nothing after a 416, whatever it is about; the blob is asked for its size."""
    read = conversations()["blob.read"]
    script = [
        spoilt("blob.read", status=416),
        spoilt("blob.read", status=200),
        conversations()["blob.read_properties"],
    ]
    assert play("blob.read", read).result.body
    outcome = play("blob.read", NEXT_REPLY.join(script))
    assert isinstance(outcome.error, ContractViolation)
    assert [request.method for request in outcome.requests] == ["GET", "GET", "HEAD"]


def test_an_empty_blob_is_an_empty_ledger() -> None:
    """What a blob that was just created answers is read as nothing, with its etag."""
    content = play(
        "blob.read", NEXT_REPLY.join(conversations()["blob.write"].split(NEXT_REPLY)[:3])
    )
    assert content.result.body == b""
    assert content.result.etag
