"""Bodies of load balancing rules and of their health: parsing. Pure."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import cast

from controller.azure.http.json_reader import Json, child, children, text
from controller.core.azure_names import fold, fold_address, nic_of
from controller.core.resources import (
    HealthProbe,
    LoadBalancingRule,
    MembershipKey,
    PoolHealth,
)
from controller.errors import ContractViolation


def parse_rules(properties: Json) -> tuple[LoadBalancingRule, ...]:
    """Return the rules of a load balancer that name pools; none where the list cannot be used."""
    found: list[LoadBalancingRule] = []
    with suppress(ContractViolation):
        probes = {fold(probe.probe_id): probe for probe in _probes(properties)}
        for entry in children(properties, "loadBalancingRules", "a load balancer"):
            details = child(entry, "properties", "a rule")
            pools = [child(details, "backendAddressPool", "a rule")]
            pools += children(details, "backendAddressPools", "a rule")
            pool_ids = dict.fromkeys(text(pool, "id") for pool in pools if text(pool, "id"))
            if text(entry, "id") and pool_ids:
                rule = LoadBalancingRule(
                    rule_id=text(entry, "id"),
                    pool_ids=tuple(pool_ids),
                    backend_port=_number(details, "backendPort", 0),
                    probe=probes.get(fold(text(child(details, "probe", "a rule"), "id"))),
                )
                found.append(rule)
    return tuple(found)


def _probes(properties: Json) -> list[HealthProbe]:
    """Return the health probes; the documented defaults stand for what is missing.

    `numberOfProbes` is the older name of the threshold; portals write both (Microsoft docs, Load
    Balancer, Probe: `intervalInSeconds` 15, `probeThreshold` 1).
    """
    found: list[HealthProbe] = []
    for entry in children(properties, "probes", "a load balancer"):
        details = child(entry, "properties", "a probe")
        threshold = _number(details, "probeThreshold", 0) or _number(details, "numberOfProbes", 1)
        found.append(
            HealthProbe(
                probe_id=text(entry, "id"),
                port=_number(details, "port", 0),
                protocol=text(details, "protocol"),
                interval_s=_number(details, "intervalInSeconds", 15),
                threshold=max(1, threshold),
                path=text(details, "requestPath"),
                when_all_down=text(details, "noHealthyBackendsBehavior"),
            )
        )
    return found


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
