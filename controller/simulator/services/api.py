"""The entry point of a simulated Azure: finds the caller, applies a fault, calls the service.

Pure over the world, the fault book and the injected `now`; `server.py` puts sockets around it, and
tests on virtual time call it directly.
"""

from dataclasses import replace
from typing import assert_never

from controller.simulator.services import arm, blob, hub, imds
from controller.simulator.services.connectivity import connectivity
from controller.simulator.services.faults import OVERSIZED_BYTES, Effect, Fault, FaultBook
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.world.access import OPERATOR
from controller.simulator.world.world import World

GARBAGE = b"\xff\xfe\x00{<not what you expected"


def handle(world: World, faults: FaultBook, request: Request, now: float) -> Reply:
    """Answer one request as Azure would at `now` (epoch seconds)."""
    world.advance(now)
    vm = calling_vm(world, request)
    if vm is not None:
        delivery = connectivity(world, vm, request.service)
        if delivery is not Delivery.NORMAL:
            return Reply(status=503, delivery=delivery)
    fault = faults.take(request, vm, now)
    if fault is None:
        return _remembered(faults, request, _dispatch(world, request, now))
    world.record("fault", request.path, effect=fault.effect.value, vm=vm or "", by=request.method)
    return _under_fault(world, faults, request, now, fault)


def calling_vm(world: World, request: Request) -> str | None:
    """Return the VM that sends this request, even with an invalid token; None if unknown."""
    if request.service is Service.IMDS:
        return request.vm
    if request.service is Service.HUB:
        return None
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.casefold() != "bearer":
        return None
    token = world.issuer.read(credential.strip())
    return None if token is None else token.principal


def _dispatch(world: World, request: Request, now: float) -> Reply:
    match request.service:
        case Service.IMDS:
            return imds.handle(world, request, now)
        case Service.ARM:
            return arm.handle(world, request, now)
        case Service.BLOB:
            return blob.handle(
                world.blobs,
                request,
                now,
                caller=lambda token: world.caller(token, blob.AUDIENCE, now),
            )
        case Service.HUB:
            return hub.handle(world, request, now)
        case _:
            assert_never(request.service)


def _remembered(faults: FaultBook, request: Request, reply: Reply) -> Reply:
    faults.remember(request, reply)
    return reply


def _under_fault(
    world: World, faults: FaultBook, request: Request, now: float, fault: Fault
) -> Reply:
    """Answer a request as a fault rule requires."""
    match fault.effect:
        case Effect.REPLY:
            reply = Reply(
                status=fault.status, headers=dict(fault.headers), body=fault.body.encode()
            )
        case Effect.EMPTY_200:
            reply = Reply(status=200)
        case Effect.HANG:
            reply = Reply(status=503, delivery=Delivery.HANG)
        case Effect.RESET_BEFORE:
            reply = Reply(status=503, delivery=Delivery.RESET)
        case Effect.HANG_AFTER:
            reply = replace(_dispatch(world, request, now), delivery=Delivery.HANG)
        case Effect.RESET_AFTER:
            reply = replace(_dispatch(world, request, now), delivery=Delivery.RESET)
        case Effect.DELAY:
            reply = _dispatch(world, request, now)
        case Effect.GARBAGE:
            body = fault.body.encode() or GARBAGE
            reply = replace(_dispatch(world, request, now), body=body)
        case Effect.OVERSIZED:
            reply = replace(_dispatch(world, request, now), body=b" " * OVERSIZED_BYTES)
        case Effect.OPERATION:
            return _with_operation_outcome(world, request, now, fault)
        case Effect.STALE:
            reply = faults.stale_reply(request) or _remembered(
                faults, request, _dispatch(world, request, now)
            )
        case _:
            assert_never(fault.effect)
    return replace(reply, delay_s=reply.delay_s + fault.delay_s)


def _with_operation_outcome(world: World, request: Request, now: float, fault: Fault) -> Reply:
    """Let the operation of this write fail as the rule requires. A refused write starts none."""
    world.writes.plan(request.path, fault.operation, fault.delay_s or None)
    reply = _dispatch(world, request, now)
    if reply.status >= 300:
        world.writes.unplan(request.path)
    return reply


__all__ = ["OPERATOR", "calling_vm", "handle"]
