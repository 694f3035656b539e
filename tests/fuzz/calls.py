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

from controller.azure import network_bodies
from controller.azure.http.arm_client import Arm
from controller.azure.http.arm_reader import ArmReader
from controller.azure.http.call import Caller
from controller.azure.http.identity import managed_identity
from controller.azure.http.request_waits import RequestWaits
from controller.azure.http.session import TrafficKind
from controller.azure.maintenance import MaintenanceState
from controller.core.azure_names import fold, load_balancer_of
from controller.core.resources import Nic, Pool, PowerState
from controller.errors import ControllerError
from controller.simulator.services import http_values
from tests.fuzz import oracles
from tests.fuzz.adapters import (
    ARM,
    IDENTITY_REPLY,
    SETTINGS,
    InMemoryAdapters,
    Simulated,
    new_world,
)
from tests.fuzz.memory import NEXT_REPLY, Request, Runtime, Service
from tests.fuzz.world import APP, CACHE, IN_POOL, NIC_2, ON_NIC, SET, VM_2
from tests.support.write_guards import OPEN_GUARD, open_guard

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

    traffic: TrafficKind
    act: Callable[[InMemoryAdapters], Awaitable[Any]]
    judge: Callable[[Outcome], None]


@functools.cache
def _adapters() -> InMemoryAdapters:
    """Return adapters whose services follow scripts."""
    return InMemoryAdapters({traffic: Service() for traffic in TrafficKind}, Runtime())


def play(name: str, script: bytes) -> Outcome:
    """Make one call while its service is answered from a script."""
    call = CALLS[name]
    adapters = _adapters()
    service = adapters.services[call.traffic]
    for traffic, each in adapters.services.items():
        each.start(b"")
        helps = traffic is TrafficKind.IDENTITY and call.traffic is not traffic
        each.otherwise = IDENTITY_REPLY if helps else b""
    service.start(script)
    replies = list(service.script)
    try:
        result = adapters.run(call.act)
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
        TrafficKind.IMDS: http_values.Service.IMDS,
        TrafficKind.IDENTITY: http_values.Service.IMDS,
        TrafficKind.ARM: http_values.Service.ARM,
        TrafficKind.BLOB: http_values.Service.BLOB,
    }
    services = {traffic: Simulated(kind, world, runtime) for traffic, kind in kinds.items()}
    adapters = InMemoryAdapters(services, runtime)
    found: dict[str, bytes] = {}
    for name, call in CALLS.items():
        services[call.traffic].replies.clear()
        adapters.run(call.act)
        found[name] = NEXT_REPLY.join(services[call.traffic].replies)
    return found


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
        statuses = [each for each in statuses if isinstance(each, dict)]
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
    """The set found is the one the VM names, and the members are listed apart."""
    _reads(outcome)
    if outcome.result is not None:
        vm, availability_set = (
            oracles.strict(oracles.body_of(reply)) for reply in outcome.replies[:2]
        )
        assert fold(vm["id"]) == fold(VM_2)
        assert fold(availability_set["id"]) == fold(outcome.result.set_id)
        _told_apart(outcome.result.vm_ids)


def _members(outcome: Outcome) -> None:
    """The set is the one asked for, and each VM of it is there once."""
    _reads(outcome)
    if outcome.result is not None:
        body = oracles.strict(oracles.body_of(outcome.replies[0]))
        assert fold(body["id"]) == fold(SET)
        entries = [each for each in body["properties"]["virtualMachines"] if isinstance(each, dict)]
        listed = [fold(each["id"]) for each in entries if isinstance(each.get("id"), str)]
        assert {fold(vm.vm_id) for vm in outcome.result} <= set(listed)
        _told_apart([vm.vm_id for vm in outcome.result])
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
            change = network_bodies.with_memberships if back else network_bodies.without_memberships
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
            change = network_bodies.with_addresses if back else network_bodies.without_addresses
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


async def _write_ledger(adapters: InMemoryAdapters) -> str:
    blob = adapters.azure.state_blob(BLOB_NAME)
    content = await blob.read()
    return await blob.write(LEDGER_BYTES, content.etag, LEASE_ID, OPEN_GUARD)


async def _present_token(adapters: InMemoryAdapters) -> list[Request]:
    """Get a token for an identity that has none yet, and send it; return what was received."""
    clock = adapters.runtime.clock
    identity, arm_session = (
        adapters.connect(TrafficKind.IDENTITY),
        adapters.connect(TrafficKind.ARM),
    )
    credential = managed_identity(SETTINGS.azure, identity, clock)
    async with identity, arm_session, credential:
        arm = Arm(
            endpoint=ARM,
            scope="https://management.azure.com/.default",
            credential=credential,
            session=arm_session,
            waits=RequestWaits(clock),
        )
        client = ArmReader(arm, Caller(service="compute", clock=clock, version=arm.compute_version))
        adapters.services[TrafficKind.ARM].start(b"HTTP/1.1 200 OK\r\n\r\n{}")
        await client.get("vm_get", VM_2)
    return adapters.services[TrafficKind.ARM].received


CALLS: dict[str, Call] = {
    "imds.instance": Call(
        TrafficKind.IMDS, lambda adapters: adapters.azure.imds.instance(), _reads
    ),
    "imds.poll": Call(TrafficKind.IMDS, lambda adapters: adapters.azure.imds.poll(), _reads),
    "compute.discover": Call(
        TrafficKind.ARM, lambda adapters: adapters.azure.compute.discover(VM_2), _discovered
    ),
    "compute.members": Call(
        TrafficKind.ARM, lambda adapters: adapters.azure.compute.members(SET), _members
    ),
    "compute.vm": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.compute.vm(VM_2),
        _about(VM_2, lambda found: found.vm_id),
    ),
    "compute.power": Call(
        TrafficKind.ARM, lambda adapters: adapters.azure.compute.power(VM_2), _power
    ),
    "maintenance.status": Call(
        TrafficKind.ARM, lambda adapters: adapters.azure.maintenance.status(VM_2), _maintenance
    ),
    "maintenance.perform": Call(
        TrafficKind.ARM, lambda adapters: adapters.azure.maintenance.perform(VM_2), _sent_once
    ),
    "network.load_balancer": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.network.load_balancer(load_balancer_of(APP)),
        _about(load_balancer_of(APP), lambda found: found.load_balancer_id),
    ),
    "network.nics_in": Call(
        TrafficKind.ARM, lambda adapters: adapters.azure.network.nics_in([NIC_2]), _reads
    ),
    "network.nic": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.network.nic(NIC_2),
        _about(NIC_2, lambda found: found.nic_id),
    ),
    "network.pool": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.network.pool(CACHE),
        _about(CACHE, lambda found: found.pool_id),
    ),
    "network.remove_from_nic": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.network.remove_from_nic(None, NIC_2, ON_NIC, open_guard),
        _nic_write(back=False),
    ),
    "network.restore_to_nic": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.network.restore_to_nic(NIC_2, ON_NIC, open_guard),
        _nic_write(back=True),
    ),
    "network.remove_from_pool": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.network.remove_from_pool(CACHE, IN_POOL, open_guard),
        _pool_write(back=False),
    ),
    "network.restore_to_pool": Call(
        TrafficKind.ARM,
        lambda adapters: adapters.azure.network.restore_to_pool(CACHE, IN_POOL, open_guard),
        _pool_write(back=True),
    ),
    "blob.create": Call(
        TrafficKind.BLOB, lambda adapters: adapters.azure.state_blob(BLOB_NAME).create(), _anything
    ),
    "blob.acquire": Call(
        TrafficKind.BLOB,
        lambda adapters: adapters.azure.state_blob(BLOB_NAME).acquire(LEASE_ID, 30),
        _anything,
    ),
    "blob.write": Call(TrafficKind.BLOB, _write_ledger, _anything),
    "blob.read": Call(
        TrafficKind.BLOB, lambda adapters: adapters.azure.state_blob(BLOB_NAME).read(), _content
    ),
    "blob.read_properties": Call(
        TrafficKind.BLOB,
        lambda adapters: adapters.azure.state_blob(BLOB_NAME).read_properties(),
        _reads,
    ),
    "blob.renew": Call(
        TrafficKind.BLOB,
        lambda adapters: adapters.azure.state_blob(BLOB_NAME).renew(LEASE_ID),
        _anything,
    ),
    "blob.release": Call(
        TrafficKind.BLOB,
        lambda adapters: adapters.azure.state_blob(BLOB_NAME).release(LEASE_ID),
        _anything,
    ),
    "imds.acknowledge": Call(
        TrafficKind.IMDS,
        lambda adapters: adapters.azure.imds.acknowledge(
            ["A123BC45-1234-5678-AB90-ABCDEF123456"], OPEN_GUARD
        ),
        _acknowledged,
    ),
    "token": Call(TrafficKind.IDENTITY, _present_token, _token),
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
