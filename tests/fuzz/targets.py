"""Every parser of remote data as one function of bytes, and what must hold of whatever it is fed.

1. Nothing leaves a parser but the errors of `controller.errors`, and none that means a bug.
2. No message is longer than a log line should be, and none holds a secret.
3. A reply that cannot be right never becomes a write, an acknowledgement, or a VM that comes back.
4. What was read and written again is the same.

`TARGETS` is the one list; `hold` runs one of them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.config.loader import InvalidConfigError
from controller.core.azure_names import load_balancer_of
from controller.core.drain_history import Step, Transition
from controller.core.ledger import Hold, Ledger
from controller.errors import ControllerError, InvariantViolation
from controller.storage.ledger_json import encode_ledger
from tests.fuzz import calls, parsers
from tests.fuzz.adapters import ARM, BLOB, IMDS, TOKEN
from tests.fuzz.memory import NEXT_REPLY, START
from tests.fuzz.world import APP, CACHE, IN_POOL, LEDGER, NIC_2, as_bytes, recorded, stored

MOST_CHARACTERS = 1500
"""Of one message: an excerpt of a reply, and the ids of ours around it."""


@dataclass(frozen=True)
class Target:
    """One parser."""

    name: str
    run: Callable[[bytes], None]
    """Feeds it, and judges what it made of that. May raise the errors of the tree."""
    seeds: Callable[[], Sequence[bytes]]
    """Good input."""
    secrets: tuple[str, ...] = (TOKEN,)
    """What no message may hold: what we were given, not what a service says of itself."""


def hold(target: Target, data: bytes) -> None:
    """Feed one target; whatever must not be is raised as an AssertionError, or as it is."""
    try:
        target.run(data)
    except InvariantViolation:
        raise
    except InvalidConfigError as error:
        for problem in error.problems:
            _check_message(problem, target.secrets)
    except ControllerError as error:
        _check_message(str(error), target.secrets)


def _check_message(message: str, secrets: Sequence[str]) -> None:
    assert message, "an error without a word"
    assert len(message) <= MOST_CHARACTERS, f"{len(message)} characters: {message[:200]}"
    assert not any(secret in message for secret in secrets), message
    message.encode()  # what cannot be encoded cannot be logged


# --- seeds ---------------------------------------------------------------------------------------

EVENT: dict[str, Any] = {
    "EventId": "A123BC45-1234-5678-AB90-ABCDEF123456",
    "EventStatus": "Scheduled",
    "EventType": "Reboot",
    "ResourceType": "VirtualMachine",
    "Resources": ["web-2"],
    "NotBefore": "Sun, 01 Mar 2026 12:05:00 GMT",
    "Description": "Host server is undergoing maintenance.",
    "EventSource": "Platform",
    "DurationInSeconds": -1,
}
OTHER_EVENT = {**EVENT, "EventId": "B", "Resources": ["web-1", "web-2"], "EventStatus": "Started"}


def _documents() -> list[bytes]:
    return [
        as_bytes({"DocumentIncarnation": 5, "Events": events})
        for events in ([], [EVENT], [EVENT, OTHER_EVENT])
    ]


def _ledgers() -> list[bytes]:
    full = Ledger(
        epoch=7,
        leader="web-1",
        leader_since=START,
        entries=LEDGER.entries,
        holds=(Hold(subject="web-3", reason="floor", message="wait", since=START),),
        transitions=(Transition(at=START, vm="web-2", step=Step.RECORDED, detail="app"),),
        extra={"future": {"deep": [1.5, None, "text"]}},
    )
    return [b"", encode_ledger(Ledger()), encode_ledger(full)]


ENVELOPE = {
    "error": {
        "code": "AnotherOperationInProgress",
        "message": "Another operation is in progress; it can be retried in 12.5 seconds.",
        "details": [
            {"code": "LinkedAuthorizationFailed", "message": "SCOPE"},
            {"code": "Inner", "message": "deeper", "details": []},
        ],
    },
    "status": "Canceled",
}
DENIAL = (
    "The client 'x' with object id 'y' does not have authorization to perform action "
    "'Microsoft.Network/networkInterfaces/write' over scope '/subscriptions/s' or the scope is "
    "invalid."
)


def _error_replies() -> list[bytes]:
    bodies = (
        as_bytes(ENVELOPE),
        as_bytes({"error": {"code": "AuthorizationFailed", "message": DENIAL}}),
        as_bytes({"error": "invalid_request", "error_description": "Identity not found"}),
        b"<html><h1>502 Bad Gateway</h1></html>",
        *recorded("nic_07_get_404.json", "lb_08_put_412.json"),
    )
    statuses = (409, 403, 400, 502, 404, 412)
    return [
        b"HTTP/1.1 %d Whatever\r\nRetry-After: 7\r\nx-ms-request-id: r\r\n\r\n%s" % (status, body)
        for status, body in zip(statuses, bodies, strict=True)
    ]


CONFIGURATION = f"""[[backend_pools]]
id = "{APP}"
min_in_service = "50%"
[[backend_pools]]
id = "{CACHE}"
[election]
container_url = "{BLOB}/account/lb-drain"
blob_name = "set.json"
lease_duration_s = 30
[policy]
lead_time_s = 900.5
dry_run = true
[policy.events.Freeze]
action = "ignore"
min_duration_s = 5
[watch]
leader_poll_s = 1
[azure]
cloud = "AzurePublicCloud"
resource_manager_endpoint = "{ARM}"
imds_endpoint = "{IMDS}"
ca_file = "/does/not/exist.pem"
client_id = "11111111-2222-4333-8444-555555555555"
[server]
listen = "127.0.0.1:9808"
"""
ENVIRONMENT = """LB_DRAIN_POLICY_LEAD_TIME_S=60
LB_DRAIN_POLICY_DRY_RUN=true
LB_DRAIN_ELECTION_LEASE_DURATION_S=60
LB_DRAIN_SERVER_LISTEN=[::1]:0
LB_DRAIN_ELECTION_CONTAINER_URL=https://127.0.0.1/account/lb-drain?sig=SECRET
HOME=/root"""


def _configurations() -> list[bytes]:
    good = CONFIGURATION.replace("ca_file", "# ca_file")
    return [
        each.encode() for each in (good, CONFIGURATION, good + NEXT_REPLY.decode() + ENVIRONMENT)
    ]


DATES = (
    b"Mon, 19 Sep 2016 18:29:47 GMT",
    b"2016-09-19T18:29:47.0000000Z",
    b"2016-09-19T18:29:47+02:00",
    b"",
)
NIC_BODIES = ("nic_03_get_200.json", "nic_02_put_201.json")
POOL_BODIES = (
    "LBBackendAddressPoolWithBackendAddressesGet.json",
    "pool_06_get_200.json",
    "pool_11_get_200.json",
)


def _pools() -> list[bytes]:
    return [as_bytes(stored(CACHE)), as_bytes(stored(APP)), *recorded(*POOL_BODIES)]


def _load_balancers() -> list[bytes]:
    held = [as_bytes(stored(load_balancer_of(pool))) for pool in (APP, CACHE)]
    return [*held, *recorded("lb_01_get_200.json", "lb_03_get_200.json")]


_PARSERS = (
    Target("event_document", parsers.event_document, _documents),
    Target(
        "instance_document",
        parsers.instance_document,
        lambda: [*recorded("GetInstanceMetadata.json")],
    ),
    Target("not_before", parsers.not_before, lambda: DATES),
    Target("nic", parsers.nic, lambda: [as_bytes(stored(NIC_2)), *recorded(*NIC_BODIES)]),
    Target("pool", parsers.pool, _pools),
    Target("remembered_address", parsers.remembered_address, lambda: [IN_POOL[0].body.encode()]),
    Target("load_balancer", parsers.load_balancer, _load_balancers),
    Target("ledger", parsers.ledger, _ledgers),
    Target("error_reply", parsers.error_reply, _error_replies),
    Target(
        "retry_after",
        parsers.retry_after,
        lambda: [*DATES, b"120", b"0.5\nretried in 3 seconds", b"\nretried after 12.5 seconds"],
    ),
    Target("configuration", parsers.configuration, _configurations, ("SECRET@", "sig=SECRET")),
)


def _conversation(name: str) -> Target:
    return Target(
        name, functools.partial(calls.converse, name), functools.partial(calls.seeds, name)
    )


TARGETS: Mapping[str, Target] = {
    target.name: target for target in (*_PARSERS, *map(_conversation, calls.CALLS))
}
"""By name, parsers of bodies first, then whole conversations."""
