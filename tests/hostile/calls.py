"""Every call of an adapter as a conversation with a service that says whatever it likes.

The real SDK clients read the replies; see `memory` for what stands in for the network. Each call
has its judge, which sees what came of it and every request that was received.
"""

import functools
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from controller.azure import bodies, session
from controller.azure.arm import Arm, SlimClient
from controller.azure.failures import Caller
from controller.azure.maintenance import MaintenanceState
from controller.azure.session import Traffic
from controller.core.model import Membership, Nic, Pool, PowerState, fold, load_balancer_of
from controller.errors import ControllerError
from controller.simulator import wire

from . import oracles
from .bench import ARM, IDENTITY_REPLY, SETTINGS, Bench, Simulated, new_world
from .memory import NEXT_REPLY, Request, Runtime, Service
from .world import APP, CACHE, IN_POOL, NIC_2, ON_NIC, SET, VM_2

LEASE_ID = "aaaaaaaa-0000-4000-8000-000000000001"
BLOB_NAME = "set.json"
LEDGER_BYTES = b'{"version": "1.1"}'


@dataclass(frozen=True)
class Outcome:
    """What came of one conversation."""

    result: Any
    """None when the call was refused, or returns nothing."""
    error: ControllerError | None
    replies: list[bytes]
    requests: list[Request]

    @property
    def writes(self) -> list[Request]:
        """Requests that could change something in Resource Manager."""
        return [each for each in self.requests if each.method not in {"GET", "HEAD"}]


@dataclass(frozen=True)
class Call:
    """One call of an adapter."""

    traffic: Traffic
    act: Callable[[Bench], Awaitable[Any]]
    judge: Callable[[Outcome], None]


@functools.cache
def _bench() -> Bench:
    """Return adapters whose services follow scripts."""
    return Bench({traffic: Service() for traffic in Traffic}, Runtime())


def play(name: str, script: bytes) -> Outcome:
    """Make one call while its service is answered from a script."""
    call = CALLS[name]
    bench = _bench()
    service = bench.services[call.traffic]
    for traffic, each in bench.services.items():
        each.start(b"")
        helps = traffic is Traffic.IDENTITY and call.traffic is not traffic
        each.otherwise = IDENTITY_REPLY if helps else b""
    service.start(script)
    replies = list(service.script)
    try:
        result = bench.run(call.act)
    except ControllerError as error:
        return Outcome(None, error, replies, service.received)
    return Outcome(result, None, replies, service.received)


def converse(name: str, script: bytes) -> None:
    """Make one call, judge what came of it, and raise the error if it was one."""
    outcome = play(name, script)
    CALLS[name].judge(outcome)
    if outcome.error is not None:
        raise outcome.error


@functools.cache
def conversations() -> dict[str, bytes]:
    """Return one good conversation per call, in an order in which each can succeed."""
    world, runtime = new_world(), Runtime()
    kinds = {
        Traffic.IMDS: wire.Service.IMDS,
        Traffic.IDENTITY: wire.Service.IMDS,
        Traffic.ARM: wire.Service.ARM,
        Traffic.BLOB: wire.Service.BLOB,
    }
    services = {traffic: Simulated(kind, world, runtime) for traffic, kind in kinds.items()}
    bench = Bench(services, runtime)
    found: dict[str, bytes] = {}
    for name, call in CALLS.items():
        services[call.traffic].replies.clear()
        bench.run(call.act)
        found[name] = NEXT_REPLY.join(services[call.traffic].replies)
    return found


def _no_fence(_spared: tuple[Membership, ...] = ()) -> None:
    """Let every write pass."""


# --- judges --------------------------------------------------------------------------------------


def _reads(outcome: Outcome) -> None:
    """A read writes nothing."""
    assert outcome.writes == []


def _about(resource_id: str, name: Callable[[Any], str]) -> Callable[[Outcome], None]:
    """A read of one resource never returns another."""

    def judge(outcome: Outcome) -> None:
        _reads(outcome)
        if outcome.result is not None:
            assert fold(name(outcome.result)) == fold(resource_id), name(outcome.result)

    return judge


def _power(outcome: Outcome) -> None:
    """Only the VM that was asked for can be found running."""
    _reads(outcome)
    if outcome.result is PowerState.RUNNING:
        body = oracles.strict(oracles.body_of(outcome.replies[0]))
        assert fold(body["id"]) == fold(VM_2)
        statuses = body["properties"]["instanceView"]["statuses"]
        assert "powerstate/running" in [str(each.get("code")).casefold() for each in statuses]


def _maintenance(outcome: Outcome) -> None:
    """Maintenance counts as open only if the reply for this VM says so in so many words."""
    _about(VM_2, lambda found: found.vm_id)(outcome)
    if outcome.result is not None and outcome.result.state is MaintenanceState.SELF_SERVICE:
        body = oracles.strict(oracles.body_of(outcome.replies[0]))
        status = body["properties"]["instanceView"]["maintenanceRedeployStatus"]
        assert status["isCustomerInitiatedMaintenanceAllowed"] is True


def _sent_once(outcome: Outcome) -> None:
    """Whatever is answered, the VM is not maintained twice."""
    assert len(outcome.writes) <= 1


def _discovered(outcome: Outcome) -> None:
    """The set found is the one the VM names, and the members are told apart."""
    _reads(outcome)
    if outcome.result is not None:
        vm, availability_set = (
            oracles.strict(oracles.body_of(reply)) for reply in outcome.replies[:2]
        )
        assert fold(vm["id"]) == fold(VM_2)
        assert fold(availability_set["id"]) == fold(outcome.result.availability_set_id)
        _told_apart(outcome.result.vm_ids)


def _members(outcome: Outcome) -> None:
    """The set is the one asked for, and each VM of it is there once."""
    _reads(outcome)
    if outcome.result is not None:
        body = oracles.strict(oracles.body_of(outcome.replies[0]))
        assert fold(body["id"]) == fold(SET)
        listed = [fold(each["id"]) for each in body["properties"]["virtualMachines"]]
        assert [fold(vm.vm_id) for vm in outcome.result] == listed
        _told_apart(listed)
        _told_apart([vm.name for vm in outcome.result])


def _told_apart(names: Any) -> None:
    folded = [fold(name) for name in names]
    assert len(set(folded)) == len(folded), "one VM twice"


def _nic_write(*, back: bool) -> Callable[[Outcome], None]:
    def judge(outcome: Outcome) -> None:
        assert len(outcome.writes) <= 1, "sent twice"
        for request in outcome.writes:
            before = oracles.body_of(outcome.replies[0])
            oracles.check_nic_write(NIC_2, before, request, ON_NIC, back=back)
        if isinstance(outcome.result, Nic):
            change = bodies.with_memberships if back else bodies.without_memberships
            edit = change(json.loads(oracles.body_of(outcome.replies[0])), ON_NIC)
            assert fold(outcome.result.nic_id) == fold(NIC_2)
            (item,) = ON_NIC
            inside = any(
                fold(pool) == fold(item.pool_id)
                for configuration in outcome.result.ip_configurations
                if fold(configuration.name) == fold(item.ip_configuration)
                for pool in configuration.pool_ids
            )
            assert inside is (back and item not in edit.absent), "not verified"

    return judge


def _pool_write(*, back: bool) -> Callable[[Outcome], None]:
    def judge(outcome: Outcome) -> None:
        assert len(outcome.writes) <= 1, "sent twice"
        for request in outcome.writes:
            before = oracles.body_of(outcome.replies[0])
            oracles.check_pool_write(CACHE, before, request, IN_POOL, back=back)
        if isinstance(outcome.result, Pool):
            change = bodies.with_addresses if back else bodies.without_addresses
            edit = change(json.loads(oracles.body_of(outcome.replies[0])), IN_POOL)
            assert fold(outcome.result.pool_id) == fold(CACHE)
            (item,) = IN_POOL
            found = [each.address.ip_address for each in outcome.result.members if each.address]
            inside = item.ip_address in found
            assert inside is (back and item not in edit.absent), "not verified"

    return judge


def _content(outcome: Outcome) -> None:
    """The content is the body of the reply, whole, and its etag is there."""
    _reads(outcome)
    if outcome.result is not None:
        assert outcome.result.etag
        total = re.search(rb"content-range: bytes [^/\r]*/(\d{1,9})\r", outcome.replies[0].lower())
        assert total is None or len(outcome.result.body) == int(total[1]), "half a ledger"
        whole = [oracles.body_of(reply) for reply in outcome.replies]
        plain = not any(b"content-encoding" in reply.lower() for reply in outcome.replies)
        assert not plain or outcome.result.body in whole, "half a ledger"


def _anything(_outcome: Outcome) -> None:
    """The error, if any, is all there is to judge."""


def _acknowledged(outcome: Outcome) -> None:
    """One request went out."""
    assert [request.method for request in outcome.requests] == ["POST"]


def _token(outcome: Outcome) -> None:
    """Only a token that was given is sent, in one header."""
    if outcome.result is not None:
        (sent,) = outcome.result
        body = oracles.body_of(outcome.replies[0])
        assert sent.headers["authorization"].partition(" ")[2].encode("latin-1") in body


# --- calls ---------------------------------------------------------------------------------------


async def _write_ledger(bench: Bench) -> str:
    blob = bench.azure.ledger(BLOB_NAME)
    content = await blob.read()
    return await blob.write(LEDGER_BYTES, content.etag, LEASE_ID, lambda: None)


async def _present_token(bench: Bench) -> list[Request]:
    """Get a token for an identity that has none yet, and send it; return what was received."""
    identity, arm_session = bench.connect(Traffic.IDENTITY), bench.connect(Traffic.ARM)
    async with identity, arm_session:
        arm = Arm(
            endpoint=ARM,
            scope="https://management.azure.com/.default",
            credential=session.managed_identity(SETTINGS, identity),
            session=arm_session,
        )
        client = SlimClient(arm, Caller(service="compute", clock=bench.runtime.clock))
        bench.services[Traffic.ARM].start(b"HTTP/1.1 200 OK\r\n\r\n{}")
        await client.get("vm_get", VM_2, "2024-07-01", 15)
    return bench.services[Traffic.ARM].received


CALLS: dict[str, Call] = {
    "imds.instance": Call(Traffic.IMDS, lambda bench: bench.azure.imds.instance(), _reads),
    "imds.poll": Call(Traffic.IMDS, lambda bench: bench.azure.imds.poll(), _reads),
    "compute.discover": Call(
        Traffic.ARM, lambda bench: bench.azure.compute.discover(VM_2), _discovered
    ),
    "compute.members": Call(Traffic.ARM, lambda bench: bench.azure.compute.members(SET), _members),
    "compute.power": Call(Traffic.ARM, lambda bench: bench.azure.compute.power(VM_2), _power),
    "maintenance.status": Call(
        Traffic.ARM, lambda bench: bench.azure.maintenance.status(VM_2), _maintenance
    ),
    "maintenance.perform": Call(
        Traffic.ARM, lambda bench: bench.azure.maintenance.perform(VM_2), _sent_once
    ),
    "network.load_balancer": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.load_balancer(load_balancer_of(APP)),
        _about(load_balancer_of(APP), lambda found: found.load_balancer_id),
    ),
    "network.glance": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.glance(load_balancer_of(CACHE)),
        _about(load_balancer_of(CACHE), lambda found: found.load_balancer_id),
    ),
    "network.nics_in": Call(
        Traffic.ARM, lambda bench: bench.azure.network.nics_in([NIC_2]), _reads
    ),
    "network.nic": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.nic(NIC_2),
        _about(NIC_2, lambda found: found.nic_id),
    ),
    "network.pool": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.pool(CACHE),
        _about(CACHE, lambda found: found.pool_id),
    ),
    "network.remove_from_nic": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.remove_from_nic(None, NIC_2, ON_NIC, _no_fence),
        _nic_write(back=False),
    ),
    "network.restore_to_nic": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.restore_to_nic(NIC_2, ON_NIC, _no_fence),
        _nic_write(back=True),
    ),
    "network.remove_from_pool": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.remove_from_pool(CACHE, IN_POOL, _no_fence),
        _pool_write(back=False),
    ),
    "network.restore_to_pool": Call(
        Traffic.ARM,
        lambda bench: bench.azure.network.restore_to_pool(CACHE, IN_POOL, _no_fence),
        _pool_write(back=True),
    ),
    "blob.create": Call(
        Traffic.BLOB, lambda bench: bench.azure.ledger(BLOB_NAME).create(), _anything
    ),
    "blob.acquire": Call(
        Traffic.BLOB, lambda bench: bench.azure.ledger(BLOB_NAME).acquire(LEASE_ID, 30), _anything
    ),
    "blob.write": Call(Traffic.BLOB, _write_ledger, _anything),
    "blob.read": Call(Traffic.BLOB, lambda bench: bench.azure.ledger(BLOB_NAME).read(), _content),
    "blob.peek": Call(Traffic.BLOB, lambda bench: bench.azure.ledger(BLOB_NAME).peek(), _reads),
    "blob.renew": Call(
        Traffic.BLOB, lambda bench: bench.azure.ledger(BLOB_NAME).renew(LEASE_ID), _anything
    ),
    "blob.release": Call(
        Traffic.BLOB, lambda bench: bench.azure.ledger(BLOB_NAME).release(LEASE_ID), _anything
    ),
    "imds.acknowledge": Call(
        Traffic.IMDS,
        lambda bench: bench.azure.imds.acknowledge(
            ["A123BC45-1234-5678-AB90-ABCDEF123456"], lambda: None
        ),
        _acknowledged,
    ),
    "token": Call(Traffic.IDENTITY, _present_token, _token),
}


# --- replies that tell of trouble, as Azure spells them ------------------------------------------


def _refusal(status: int, code: str, message: str = "", **headers: str) -> bytes:
    body = {"error": {"code": code, "message": message, "details": []}}
    lines = [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"x-ms-error-code: {code}", *lines])
    return f"{head}\r\nContent-Type: application/json\r\n\r\n{json.dumps(body)}".encode()


_DENIED = _refusal(
    403,
    "AuthorizationFailed",
    "The client 'x' does not have authorization to perform action "
    "'Microsoft.Network/networkInterfaces/write' over scope '/subscriptions/s' or the scope is "
    "invalid.",
)
_ARM = (
    _refusal(404, "ResourceNotFound", "The Resource was not found."),
    _refusal(429, "TooManyRequests", "retried after 5 seconds", Retry_After="17"),
    _refusal(409, "AnotherOperationInProgress", "It can be retried in 12.5 seconds."),
    _refusal(503, "ServerBusy", Retry_After="Sun, 01 Mar 2026 12:00:09 GMT"),
    _DENIED,
)
_BLOB = (
    _refusal(404, "ContainerNotFound"),
    _refusal(404, "BlobNotFound"),
    _refusal(403, "AuthorizationPermissionMismatch"),
    _refusal(409, "LeaseAlreadyPresent"),
    _refusal(412, "LeaseIdMismatchWithBlobOperation"),
    _refusal(412, "ConditionNotMet"),
    b"HTTP/1.1 409 Whatever\r\nContent-Type: application/xml\r\n\r\n"
    b"<?xml version='1.0'?><Error><Code>LeaseLost</Code><Message>A lease</Message></Error>",
)
_TOKEN = tuple(
    b"HTTP/1.1 %d Whatever\r\nContent-Type: application/json\r\n\r\n%s" % (status, body)
    for status, body in (
        (400, b'{"error": "invalid_request", "error_description": "Identity not found"}'),
        (404, b"{}"),
        (410, b'"gone"'),
        (403, b'{"error": "unreachable host"}'),
        (500, b'{"error": "unknown", "error_description": "try again"}'),
    )
)
_ENDED = tuple(
    b"HTTP/1.1 200 Whatever\r\nContent-Type: application/json\r\n\r\n"
    b'{"status": "%s", "error": {"code": "%s", "message": "m"}}' % (status, code)
    for status, code in (
        (b"Failed", b"InternalServerError"),
        (b"Canceled", b"CanceledAndSupersededDueToAnotherOperation"),
        (b"Failed", b"AnotherOperationInProgress"),
        (b"Failed", b"LinkedAuthorizationFailed"),
        (b"InProgress", b"x"),
    )
)


def _paged(script: bytes) -> bytes:
    """Return the conversation with its last reply, a list, on two pages."""
    *before, last = script.split(NEXT_REPLY)
    next_link = f'"nextLink": "{ARM}/subscriptions/next?api-version=1", "value"'.encode()
    return NEXT_REPLY.join([*before, last.replace(b'"value"', next_link, 1), last])


def seeds(name: str) -> list[bytes]:
    """Return the good conversation of a call, and all the ways it can go wrong in good order."""
    good = conversations()[name]
    first, *rest = good.split(NEXT_REPLY)
    match name.split("."):
        case ["blob", _]:
            return [good, *_BLOB]
        case ["token"]:
            return [good, *_TOKEN]
        case ["imds", _]:
            return [good, *_ARM]
        case ["maintenance", "perform"]:
            return [good, *_ARM, *(NEXT_REPLY.join([first, end]) for end in (*_ENDED, *_ARM))]
        case ["network", _] if rest:
            put = rest[0]
            ends = [NEXT_REPLY.join([first, put, end]) for end in _ENDED]
            refused = [NEXT_REPLY.join([first, refusal]) for refusal in _ARM]
            return [good, *ends, *refused, first]
        case _:
            return [good, _paged(good), *_ARM]
