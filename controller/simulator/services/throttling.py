"""Request quotas: Resource Manager's for each principal, and those of the two providers.

Resource Manager has token buckets (Microsoft docs, Resource Manager throttling). Microsoft.Compute
has its own for each principal and resource: once one is empty, everything in it is refused until
the time in Retry-After has passed (Azure/azure-rest-api-specs#270, #3044). `Throttles` adds what a
scenario decides: a provider that refuses one identity for a while.
"""

import math
from datetime import UTC, datetime

from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.http_values import Request
from controller.simulator.world.access import Bucket
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.world import World

REMAINING = "x-ms-ratelimit-remaining"
READS = ("GET", "HEAD")


def charge(world: World, principal: str, request: Request, headers: dict[str, str]) -> None:
    """Count a request of `principal`; refuse it if a quota is used up. Adds to `headers`."""
    _charge_subscription(world, principal, request.method, headers)
    path = request.path.casefold()
    if "/providers/microsoft.maintenance/" in path:
        _check_throttles(world, principal, "Microsoft.Maintenance", request)
    elif "/providers/microsoft.compute/" in path:
        _check_throttles(world, principal, "Microsoft.Compute", request)
        _charge_compute(world, principal, request, headers)
    elif "/providers/microsoft.network/" in path:
        _check_throttles(world, principal, "Microsoft.Network", request)


def _charge_subscription(
    world: World, principal: str, method: str, headers: dict[str, str]
) -> None:
    settings = world.settings
    reading = method in READS
    kind = "reads" if reading else "writes"
    bucket = world.buckets.setdefault((principal, kind), Bucket(world.now))
    left, allowed = bucket.take(
        world.now,
        size=settings.read_bucket if reading else settings.write_bucket,
        refill_per_s=settings.read_refill_per_s if reading else settings.write_refill_per_s,
        enforced=settings.throttle,
    )
    headers[f"{REMAINING}-subscription-{kind}"] = str(left)
    headers[f"{REMAINING}-subscription-global-{kind}"] = str(left * 15)
    if not allowed:
        message = "Number of requests for the subscription and operation type exceeded the limit."
        retry = _retry_after(world, settings.subscription_retry_after_s)
        raise Refusal(429, error("SubscriptionRequestsThrottled", message), retry)


def _charge_compute(
    world: World, principal: str, request: Request, headers: dict[str, str]
) -> None:
    settings = world.settings
    resource = _compute_resource(request.path)
    if request.method not in READS:
        group, size, refill_per_s = "UpdateVM", settings.compute_write_bucket, 0.2
    elif resource.rpartition("/")[2] in ("virtualmachines", "availabilitysets"):
        group, size = "HighCostGet", settings.compute_list_bucket
        refill_per_s = settings.compute_list_refill_per_s
    else:
        group, size = "LowCostGet", settings.compute_read_bucket
        refill_per_s = settings.compute_read_refill_per_s
    where = (principal, f"{group} {resource}")
    blocked_until = world.throttles.blocked.get(where, 0.0)
    if settings.throttle and world.now < blocked_until:
        raise _compute_refusal(world, group, size, blocked_until - world.now)
    bucket = world.buckets.setdefault(where, Bucket(world.now))
    left, allowed = bucket.take(
        world.now, size=size, refill_per_s=refill_per_s, enforced=settings.throttle
    )
    headers[f"{REMAINING}-resource"] = f"Microsoft.Compute/{group};{left}"
    headers["x-ms-request-charge"] = "1"
    if not allowed:
        wait_s = settings.compute_retry_after_s
        world.throttles.blocked[where] = world.now + wait_s
        raise _compute_refusal(world, group, size, wait_s)


def _compute_resource(path: str) -> str:
    """Return the VM or set that a request is about, or the list."""
    return "/".join(key(path).split("/")[:9])


def _check_throttles(world: World, principal: str, provider: str, request: Request) -> None:
    remaining_s = world.throttles.remaining_s(
        principal, provider, request.method, request.path, world.now
    )
    if remaining_s <= 0:
        return
    if provider == "Microsoft.Compute":
        raise _compute_refusal(world, "HighCostGet", 0, remaining_s)
    message = "Number of requests for the subscription and operation type exceeded the limit."
    raise Refusal(429, error("TooManyRequests", message, []), _retry_after(world, remaining_s))


def _compute_refusal(world: World, group: str, size: int, wait_s: float) -> Refusal:
    """429 of Microsoft.Compute; the message of its detail is JSON in a text."""
    at = datetime.fromtimestamp(world.now, UTC).isoformat()
    measured = (
        f'{{"operationGroup":"{group}","startTime":"{at}","endTime":"{at}",'
        f'"allowedRequestCount":{size},"measuredRequestCount":{size + 1}}}'
    )
    detail: Json = {"code": "TooManyRequests", "target": group, "message": measured}
    message = (
        "The server rejected the request because too many requests have been received for this "
        "subscription."
    )
    body = error("OperationNotAllowed", message, [detail])
    return Refusal(429, body, _retry_after(world, wait_s))


def _retry_after(world: World, wait_s: float) -> dict[str, str]:
    if not world.settings.throttle_retry_after:
        return {}
    return {"Retry-After": str(max(1, math.ceil(wait_s)))}
