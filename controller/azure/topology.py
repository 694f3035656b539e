"""The network around the pools, for `doctor` and `init`: rules, probes, subnets, public addresses.

Agents read none of it, so their roles need not allow it. The caller has to report what it could
not read.
"""

from dataclasses import dataclass
from typing import Any, cast

from controller.azure import network_bodies
from controller.azure.http.arm_client import READ_TIMEOUT_S, Arm
from controller.azure.http.arm_reader import ArmReader
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.json_reader import (
    Json,
    as_object,
    child,
    children,
    required_child,
    required_text,
    text,
    verified_body,
)
from controller.azure.http.resource_id import ResourceId
from controller.azure.http.token_claims import display_name_of, principal_of
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.resources import LoadBalancer, Nic
from controller.errors import ContractViolation


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancingRule:
    """One load balancing rule."""

    name: str
    pool_ids: tuple[str, ...]
    probe_id: str
    """Empty when the rule has no health probe."""
    protocol: str
    backend_port: int
    outbound_snat: bool
    """Whether the members of its pools reach the internet through it, if its frontend is public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancerDetails:
    """A load balancer with its rules and probes."""

    load_balancer: LoadBalancer
    public: bool
    """Whether a frontend has a public address."""
    rules: tuple[LoadBalancingRule, ...]
    probe_names: tuple[str, ...]
    outbound_pool_ids: tuple[str, ...]
    """Pools with an outbound rule."""

    @property
    def outbound_pools(self) -> tuple[str, ...]:
        """Pools whose members reach the internet through this load balancer."""
        if not self.public:
            return ()
        with_snat = (rule for rule in self.rules if rule.outbound_snat)
        by_rules = (pool_id for rule in with_snat for pool_id in rule.pool_ids)
        return tuple(dict.fromkeys((*self.outbound_pool_ids, *by_rules)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """The outbound connectivity of a subnet. An id is empty when there is no such resource."""

    subnet_id: str
    nat_gateway_id: str
    route_table_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachments:
    """The resources of a NIC that decide the outbound connectivity of its VM."""

    subnet_ids: tuple[str, ...]
    public_ip_ids: tuple[str, ...]


class Topology:
    """Client of Microsoft.Network for reads that an agent does not need. It writes nothing."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore_outcome) -> None:
        self._arm = arm
        self._clock = clock
        self._caller = Caller(
            service="network", clock=clock, observer=observer, version=arm.network_version
        )
        self._reader = ArmReader(arm, self._caller)

    async def principal_id(self) -> str:
        """Get a token for Resource Manager and return the object id in it, empty if absent."""
        async with self._caller.call("token", READ_TIMEOUT_S):
            token = await self._arm.credential.get_token(self._arm.scope)
        return principal_of(token.token)

    async def caller_name(self) -> str:
        """Return a readable name of the identity that gets the tokens; empty if unknown."""
        async with self._caller.call("token", READ_TIMEOUT_S):
            token = await self._arm.credential.get_token(self._arm.scope)
        return display_name_of(token.token)

    async def load_balancer(self, load_balancer_id: str) -> LoadBalancerDetails:
        """Return a load balancer with its rules and probes, from one GET."""
        reply = await self._get("load_balancer_get", load_balancer_id)
        body = verified_body(load_balancer_id, reply)
        load_balancer = network_bodies.parse_load_balancer(body, self._clock.now())
        for problem in load_balancer.problems.values():
            raise ContractViolation(problem)
        return parse_load_balancer_details(body, load_balancer)

    async def load_balancers_in_same_group(self, resource_id: str) -> tuple[str, ...]:
        """Return the ids of the load balancers in the resource group of a resource."""
        target = ResourceId.parse(resource_id)
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Network/loadBalancers"
        )
        listed = await self._reader.entries("load_balancer_list", path)
        return tuple(required_text(body, "id", "a load balancer") for body in listed)

    async def subnet(self, subnet_id: str) -> Subnet:
        """Return a subnet."""
        ResourceId.parse(subnet_id)
        return parse_subnet(verified_body(subnet_id, await self._get("subnet_get", subnet_id)))

    async def _get(self, operation: str, path: str) -> Json:
        return await self._reader.get(operation, path)


def parse_load_balancer_details(body: Json, load_balancer: LoadBalancer) -> LoadBalancerDetails:
    """Return the load balancer with its rules and probes."""
    what = load_balancer.load_balancer_id
    properties = required_child(body, "properties", what)
    fronts = [
        child(front, "properties", what)
        for front in children(properties, "frontendIPConfigurations", what)
    ]
    outbound = [
        child(rule, "properties", what) for rule in children(properties, "outboundRules", what)
    ]
    return LoadBalancerDetails(
        load_balancer=load_balancer,
        public=any(front.get("publicIPAddress") or front.get("publicIPPrefix") for front in fronts),
        rules=tuple(
            _rule(entry, what) for entry in children(properties, "loadBalancingRules", what)
        ),
        probe_names=tuple(
            required_text(probe, "name", f"a probe of {what}")
            for probe in children(properties, "probes", what)
        ),
        outbound_pool_ids=tuple(
            required_text(
                child(rule, "backendAddressPool", what), "id", f"an outbound rule of {what}"
            )
            for rule in outbound
        ),
    )


def _rule(entry: Json, what: str) -> LoadBalancingRule:
    name = required_text(entry, "name", f"a rule of {what}")
    properties = required_child(entry, "properties", name)
    # Azure returns a rule's pools in one of these properties, or in both.
    references = [
        child(properties, "backendAddressPool", name),
        *children(properties, "backendAddressPools", name),
    ]
    port = cast("object", properties.get("backendPort"))
    return LoadBalancingRule(
        name=name,
        pool_ids=tuple(dict.fromkeys(text(each, "id") for each in references if each)),
        probe_id=text(child(properties, "probe", name), "id"),
        protocol=text(properties, "protocol"),
        backend_port=port if isinstance(port, int) else 0,
        outbound_snat=properties.get("disableOutboundSnat") is not True,
    )


def parse_subnet(body: Json) -> Subnet:
    """Return the subnet in `body`."""
    subnet_id = required_text(body, "id", "a subnet")
    properties = required_child(body, "properties", subnet_id)
    return Subnet(
        subnet_id=subnet_id,
        nat_gateway_id=text(child(properties, "natGateway", subnet_id), "id"),
        route_table_id=text(child(properties, "routeTable", subnet_id), "id"),
    )


def references_of(nic: Nic) -> tuple[str, ...]:
    """Return the ids of the resources of other types that the body of a NIC refers to.

    A write of the NIC needs a join permission on each of these (Microsoft docs, linked scopes).
    """
    found: dict[str, None] = {}

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for name, part in cast("dict[str, object]", value).items():
                if name == "id" and isinstance(part, str) and part.startswith("/subscriptions/"):
                    found.setdefault(part)
                walk(part)
        elif isinstance(value, list):
            for part in cast("list[object]", value):
                walk(part)

    walk(as_object(nic.body, "a NIC").get("properties"))
    own = (fold(nic.nic_id), fold(nic.vm_id))
    return tuple(each for each in found if not fold(each).startswith(own))


def attachments_of(nic: Nic) -> Attachments:
    """Return the subnets and public addresses of a NIC that was read with its body."""
    properties = required_child(as_object(nic.body, "a NIC"), "properties", nic.nic_id)
    configurations: list[dict[str, Any]] = [
        required_child(entry, "properties", nic.nic_id)
        for entry in children(properties, "ipConfigurations", nic.nic_id)
    ]

    def ids_of(key: str) -> tuple[str, ...]:
        found = (text(child(each, key, nic.nic_id), "id") for each in configurations)
        return tuple(dict.fromkeys(each for each in found if each))

    return Attachments(
        subnet_ids=ids_of("subnet"),
        public_ip_ids=ids_of("publicIPAddress"),
    )
