"""Judgement about the way out: would a VM that is removed still reach anything? Pure.

A VM in a pool of a public load balancer goes out through it. Without another way, removal cuts off
what its drained connections still need, and its own agent (Microsoft docs, Load Balancer, outbound
connections). Default outbound access is no other way: it ends as soon as one VM of the set has a
Standard association, and new networks do not have it at all.
"""

from controller.azure.survey import Balancer, Subnet, attachments_of
from controller.core.model import Nic, Vm, fold, fold_address, short
from controller.doctor.advice import az, group_and_name
from controller.doctor.facts import Facts, Failed
from controller.doctor.findings import Finding, failed, passed, skipped, warned
from controller.errors import Denied

NAT = "lb-drain-nat"


def judge_outbound(facts: Facts) -> list[Finding]:
    """Return whether some VM would lose its only way out."""
    check = "way-out"
    if not facts.complete:
        return [skipped(check, "nics")]
    balancers = [each for each in facts.balancers.values() if isinstance(each, Balancer)]
    unread = [pool.id for pool in facts.settings.backend_pools if facts.pool(pool.id) is None]
    if len(balancers) < len(facts.balancers) or unread:
        return [skipped(check, "pool")]
    captive = [vm for vm in facts.seen_vms if _depends(facts, vm, balancers)]
    if not captive:
        return [passed(check, "no VM goes out through the configured pools only")]
    subnet_ids = {
        fold(each): each
        for vm in captive
        for nic in _nics(facts, vm)
        for each in attachments_of(nic).subnet_ids
    }
    return [_subnet(facts, subnet_id, captive) for subnet_id in subnet_ids.values()]


def _nics(facts: Facts, vm: Vm) -> list[Nic]:
    wanted = {fold(nic_id) for nic_id in vm.nic_ids}
    return [nic for nic in facts.seen_nics if fold(nic.nic_id) in wanted]


def _depends(facts: Facts, vm: Vm, balancers: list[Balancer]) -> bool:
    """Tell whether a VM goes out through managed pools, and has no way out of its own."""
    managed = {fold(pool.id) for pool in facts.settings.backend_pools}
    ways = {fold(pool_id) for each in balancers for pool_id in each.ways_out}
    nics = _nics(facts, vm)
    owned = any(attachments_of(nic).public_ip_ids for nic in nics)
    through = _inside(nics, balancers) & ways
    return bool(through) and through <= managed and not owned


def _inside(nics: list[Nic], balancers: list[Balancer]) -> set[str]:
    """Return the pools that NICs are in, by what they say and by their addresses."""
    configurations = [each for nic in nics for each in nic.ip_configurations]
    addresses = {fold_address(each.private_ip) for each in configurations}
    by_address = {
        fold(pool.pool_id)
        for each in balancers
        for pool in each.load_balancer.pools
        for member in pool.members
        if member.address is not None and fold_address(member.address.ip_address) in addresses
    }
    return by_address | {fold(pool_id) for each in configurations for pool_id in each.pool_ids}


def _subnet(facts: Facts, subnet_id: str, captive: list[Vm]) -> Finding:
    check, subject = "way-out", short(subnet_id)
    names = ", ".join(
        vm.name
        for vm in captive
        for nic in _nics(facts, vm)
        if fold(subnet_id) in map(fold, attachments_of(nic).subnet_ids)
    )
    subnet = facts.subnets.get(fold(subnet_id))
    query = "[natGateway.id, routeTable.id]"
    show = az("network vnet subnet show", ids=subnet_id, query=query)
    if isinstance(subnet, Failed):
        error = subnet.error
        why = f"needs {error.action}" if isinstance(error, Denied) and error.action else error
        return warned(
            check,
            f"{names}: no public address and no other pool that leads out; whether the subnet has "
            f"a NAT gateway could not be seen ({why})",
            (f"{show}  # a NAT gateway, or a route to a firewall, must be there",),
            subject=subject,
        )
    if not isinstance(subnet, Subnet):
        return skipped(check, "nics", subject=subject)
    if subnet.nat_gateway_id:
        what = f"{names}: through the NAT gateway {short(subnet.nat_gateway_id)}"
        return passed(check, what, subject=subject)
    if subnet.route_table_id:
        return warned(
            check,
            f"{names}: only by what the route table {short(subnet.route_table_id)} says",
            (
                az("network route-table show", ids=subnet.route_table_id, query="routes")
                + "  # 0.0.0.0/0 must lead to a firewall that lets Azure's services through",
            ),
            subject=subject,
        )
    group, network = group_and_name(subnet_id.rsplit("/", 2)[0])
    return failed(
        check,
        f"{names}: once out of the pools there is no way out, neither for what drained "
        "connections still need nor for the VM's own agent",
        (
            az("network public-ip create", resource_group=group, name=NAT, sku="Standard"),
            az(
                "network nat gateway create",
                resource_group=group,
                name=NAT,
                public_ip_addresses=NAT,
            ),
            az(
                "network vnet subnet update",
                resource_group=group,
                vnet_name=network,
                name=short(subnet_id),
                nat_gateway=NAT,
            ),
        ),
        subject=subject,
    )
