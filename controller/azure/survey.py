"""Reads for people: who we are to Azure, what lies around the pools, which pools there are.

The doctor and the first run need them. Nothing here is asked by an agent, so its roles need not
allow it: a subnet, for example, may be unreadable, and the caller then has to say what it could
not see.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, cast

from controller.azure import bodies
from controller.azure.arm import (
    Arm,
    Json,
    ResourceId,
    SlimClient,
    about,
    as_object,
    child,
    children,
    part,
    required,
    text,
)
from controller.azure.failures import Caller, Observer, ignore
from controller.clock import Clock
from controller.core.model import LoadBalancer, Nic
from controller.errors import NotFound

NETWORK_VERSION = "2024-05-01"
READ_TIMEOUT_S = 15.0
LIST_TIMEOUT_S = 60.0
NAMES = ("upn", "unique_name", "preferred_username", "app_displayname", "appid", "oid")
"""Claims of an access token that say who somebody is, the most readable first."""
NO_OPERATION = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One load balancing rule."""

    name: str
    pool_ids: tuple[str, ...]
    probe_id: str
    """Empty when nothing tells the load balancer whether a member answers."""
    protocol: str
    backend_port: int
    snat: bool
    """Whether it gives the members of its pools a way out, if its frontend is public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """A load balancer with what surrounds its pools."""

    load_balancer: LoadBalancer
    public: bool
    """Whether a frontend has a public address."""
    rules: tuple[Rule, ...]
    probe_names: tuple[str, ...]
    outbound_pool_ids: tuple[str, ...]
    """Pools that outbound rules lead out of."""

    @property
    def ways_out(self) -> tuple[str, ...]:
        """Pools whose members reach the internet through this load balancer."""
        if not self.public:
            return ()
        by_rules = (pool_id for rule in self.rules if rule.snat for pool_id in rule.pool_ids)
        return tuple(dict.fromkeys((*self.outbound_pool_ids, *by_rules)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """What a subnet says about the way out of it."""

    subnet_id: str
    nat_gateway_id: str
    route_table_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """What of a NIC gives its VM a way out."""

    subnet_ids: tuple[str, ...]
    public_ip_ids: tuple[str, ...]


class Survey:
    """Client of what only people want to know. Reads only."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore) -> None:
        self._arm = arm
        self._clock = clock
        self._caller = Caller(service="survey", clock=clock, observer=observer)
        self._slim = SlimClient(arm, self._caller)

    async def principal(self) -> str:
        """Get a token for Resource Manager; return whose it is, empty when it does not say."""
        async with self._caller.call("token", READ_TIMEOUT_S):
            token = await self._arm.credential.get_token(self._arm.scope)
        return principal_of(token.token)

    async def caller(self) -> str:
        """Return who the token for Resource Manager is for, as people say it; empty if unknown."""
        async with self._caller.call("token", READ_TIMEOUT_S):
            token = await self._arm.credential.get_token(self._arm.scope)
        return _claim(token.token, *NAMES)

    async def balancer(self, load_balancer_id: str) -> Balancer:
        """Return a load balancer with its rules and probes, from one GET."""
        body = about(load_balancer_id, await self._get(load_balancer_id))
        return parse_balancer(body, bodies.parse_load_balancer(body, self._clock.now()))

    async def balancers_beside(self, resource_id: str) -> tuple[str, ...]:
        """Return the ids of the load balancers in the resource group of another resource."""
        target = ResourceId.parse(resource_id)
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Network/loadBalancers"
        )
        params = {"api-version": NETWORK_VERSION}
        listed = await self._slim.list("load_balancer_list", path, params, LIST_TIMEOUT_S)
        return tuple(required(body, "id", "a load balancer") for body in listed)

    async def subnet(self, subnet_id: str) -> Subnet:
        """Return a subnet."""
        ResourceId.parse(subnet_id)
        return parse_subnet(about(subnet_id, await self._get(subnet_id)))

    async def check_operations(self, subscription: str, location: str) -> None:
        """Find out whether operations may be followed, by asking for one that never was.

        Raises:
            Denied: they may not.
        """
        path = (
            f"/subscriptions/{subscription}/providers/Microsoft.Network"
            f"/locations/{location}/operations/{NO_OPERATION}"
        )
        try:
            await self._get(path)
        except NotFound:
            return

    async def _get(self, path: str) -> Json:
        return await self._slim.get("get", path, NETWORK_VERSION, READ_TIMEOUT_S)


def principal_of(token: str) -> str:
    """Return the object id in an access token, without believing anything else of it."""
    return _claim(token, "oid")


def _claim(token: str, *names: str) -> str:
    """Return the first of these claims that is a decent text; empty if none is."""
    try:
        middle = token.split(".")[1]
        claims: object = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError, RecursionError, binascii.Error):
        return ""
    if not isinstance(claims, dict):
        return ""
    for name in names:
        found = cast("dict[str, object]", claims).get(name)
        if isinstance(found, str) and found and found.isprintable() and len(found) < 100:
            return found
    return ""


def parse_balancer(body: Json, load_balancer: LoadBalancer) -> Balancer:
    """Return what surrounds the pools of a load balancer."""
    what = load_balancer.load_balancer_id
    properties = part(body, "properties", what)
    fronts = [
        child(front, "properties", what)
        for front in children(properties, "frontendIPConfigurations", what)
    ]
    outbound = [
        child(rule, "properties", what) for rule in children(properties, "outboundRules", what)
    ]
    return Balancer(
        load_balancer=load_balancer,
        public=any(front.get("publicIPAddress") or front.get("publicIPPrefix") for front in fronts),
        rules=tuple(
            _rule(entry, what) for entry in children(properties, "loadBalancingRules", what)
        ),
        probe_names=tuple(
            required(probe, "name", f"a probe of {what}")
            for probe in children(properties, "probes", what)
        ),
        outbound_pool_ids=tuple(
            required(child(rule, "backendAddressPool", what), "id", f"an outbound rule of {what}")
            for rule in outbound
        ),
    )


def _rule(entry: Json, what: str) -> Rule:
    name = required(entry, "name", f"a rule of {what}")
    properties = part(entry, "properties", name)
    # Azure names a rule's pools twice, or once, in either form.
    references = [
        child(properties, "backendAddressPool", name),
        *children(properties, "backendAddressPools", name),
    ]
    port = cast("object", properties.get("backendPort"))
    return Rule(
        name=name,
        pool_ids=tuple(dict.fromkeys(text(each, "id") for each in references if each)),
        probe_id=text(child(properties, "probe", name), "id"),
        protocol=text(properties, "protocol"),
        backend_port=port if isinstance(port, int) else 0,
        snat=properties.get("disableOutboundSnat") is not True,
    )


def parse_subnet(body: Json) -> Subnet:
    """Return the subnet in `body`."""
    subnet_id = required(body, "id", "a subnet")
    properties = part(body, "properties", subnet_id)
    return Subnet(
        subnet_id=subnet_id,
        nat_gateway_id=text(child(properties, "natGateway", subnet_id), "id"),
        route_table_id=text(child(properties, "routeTable", subnet_id), "id"),
    )


def attachments_of(nic: Nic) -> Attachments:
    """Return what a NIC, as read with its body, is attached to."""
    properties = part(as_object(nic.body, "a NIC"), "properties", nic.nic_id)
    configurations: list[dict[str, Any]] = [
        part(entry, "properties", nic.nic_id)
        for entry in children(properties, "ipConfigurations", nic.nic_id)
    ]

    def named(key: str) -> tuple[str, ...]:
        found = (text(child(each, key, nic.nic_id), "id") for each in configurations)
        return tuple(dict.fromkeys(each for each in found if each))

    return Attachments(
        subnet_ids=named("subnet"),
        public_ip_ids=named("publicIPAddress"),
    )
