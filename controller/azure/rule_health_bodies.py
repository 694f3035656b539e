"""Bodies of load balancing rules and of their health: parsing. Pure."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import cast

from controller.azure.http.json_reader import (
    Json,
    as_object,
    child,
    children,
    required_text,
    text,
)
from controller.core.azure_names import fold, fold_address, nic_of
from controller.core.resources import (
    HealthProbe,
    LoadBalancingRule,
    MembershipKey,
    PoolHealth,
)
from controller.errors import ContractViolation


def parse_rules(properties: Json) -> tuple[LoadBalancingRule, ...]:
    """Return the rules of a load balancer that name pools.

    A rule that cannot be read can send connections to any pool and port, without a probe. It is
    returned as such a rule, without an id: the other rules alone prove nothing about a member.
    """
    probes = {fold(probe.probe_id): probe for probe in _probes(properties)}
    found: list[LoadBalancingRule] = []
    for entry in _entries(properties, "loadBalancingRules"):
        try:
            rule = _rule(as_object(entry, "a rule"), probes)
        except ContractViolation:
            rule = LoadBalancingRule(rule_id="", pool_ids=_pool_ids(properties))
        if rule.pool_ids:
            found.append(rule)
    return tuple(found)


def _rule(entry: Json, probes: Mapping[str, HealthProbe]) -> LoadBalancingRule:
    details = child(entry, "properties", "a rule")
    pools = [child(details, "backendAddressPool", "a rule")]
    pools += children(details, "backendAddressPools", "a rule")
    pool_ids = dict.fromkeys(text(pool, "id") for pool in pools if text(pool, "id"))
    return LoadBalancingRule(
        rule_id=required_text(entry, "id", "a rule") if pool_ids else "",
        pool_ids=tuple(pool_ids),
        backend_port=_number(details, "backendPort", 0),
        probe=probes.get(fold(text(child(details, "probe", "a rule"), "id"))),
    )


def _entries(properties: Json, key: str) -> list[object]:
    """Return the entries of a list, whatever they are; what is no list is one odd entry."""
    value = cast("object", properties.get(key))
    if value is None:
        return []
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _pool_ids(properties: Json) -> tuple[str, ...]:
    """Return the ids of the pools of the load balancer itself."""
    pools = _entries(properties, "backendAddressPools")
    ids = (cast("Json", pool).get("id") for pool in pools if isinstance(pool, dict))
    return tuple(each for each in ids if isinstance(each, str) and each)


def _probes(properties: Json) -> list[HealthProbe]:
    """Return the health probes that can be read; a rule with another one has none."""
    found: list[HealthProbe] = []
    for entry in _entries(properties, "probes"):
        with suppress(ContractViolation):
            found.append(_probe(as_object(entry, "a probe")))
    return found


def _probe(entry: Json) -> HealthProbe:
    """Return a health probe; the documented defaults stand for what is missing.

    `numberOfProbes` is the older name of the threshold; portals write both (Microsoft docs, Load
    Balancer, Probe: `intervalInSeconds` 15, `probeThreshold` 1).
    """
    details = child(entry, "properties", "a probe")
    threshold = _number(details, "probeThreshold", 0) or _number(details, "numberOfProbes", 1)
    return HealthProbe(
        probe_id=text(entry, "id"),
        port=_number(details, "port", 0),
        protocol=text(details, "protocol"),
        interval_s=_number(details, "intervalInSeconds", 15),
        threshold=max(1, threshold),
        path=text(details, "requestPath"),
        when_all_down=text(details, "noHealthyBackendsBehavior"),
    )


def _number(body: Json, key: str, otherwise: int) -> int:
    value = cast("object", body.get(key))
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65_535
    return value if usable and isinstance(value, int) else otherwise


def members_down(body: Json, pool_id: str) -> frozenset[MembershipKey]:
    """Return the members of a pool that are down by the health of one rule."""
    down: set[MembershipKey] = set()
    up = False
    for entry in children(body, "loadBalancerBackendAddresses", "the health of a rule"):
        state = cast("object", entry.get("state"))
        if not isinstance(state, str) or state.casefold() != "down":
            up = up or (isinstance(state, str) and state.casefold() == "up")
            continue
        if address := text(entry, "ipAddress"):
            down.add((fold(pool_id), "address", fold_address(address)))
        if reference := text(entry, "networkInterfaceIPConfigurationId"):
            nic_id, name = nic_of(reference)
            down.add((fold(pool_id), fold(nic_id), fold(name)))
    return frozenset(down) if up else frozenset()


def pool_health(
    pool_id: str, down_by_rule: Sequence[frozenset[MembershipKey]], observed_at: datetime
) -> PoolHealth:
    """Return the health of a pool from the members that each of its rules reports as down."""
    down = frozenset[MembershipKey]().union(*down_by_rule)
    return PoolHealth(
        pool_id=pool_id,
        down=down,
        down_by_every_rule=down.intersection(*down_by_rule),
        observed_at=observed_at,
    )
