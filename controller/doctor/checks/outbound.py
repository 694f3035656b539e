"""Check of outbound connectivity: can a VM still reach Azure after its removal? Pure.

A VM in a pool of a public load balancer reaches the internet through it. Without another path the
removal cuts off the drained connections and the VM's own agent (Microsoft docs, Load Balancer,
outbound connections). Default outbound access is not another path: it ends as soon as one VM of
the set has a Standard association, and new networks do not have it.
"""

from controller.azure.imds_document import Instance
from controller.azure.topology import Subnet, attachments_of
from controller.core.azure_names import fold, short
from controller.core.planning.pool_membership import PoolMembership
from controller.core.resources import Vm
from controller.doctor.facts import DoctorFacts, Failed
from controller.doctor.remedies import az, in_group
from controller.doctor.report import Finding, failed, passed, skipped, warned
from controller.errors import ControllerError, Denied, Obstacle

CHECK = "outbound"
NAT = "lb-drain-nat"


def check_outbound(facts: DoctorFacts) -> list[Finding]:
    """Return whether a VM would lose its only outbound path."""
    if not facts.complete:
        return [skipped(CHECK, "nics")]
    unknown = [pool.id for pool in facts.settings.backend_pools if facts.pool(pool.id) is None]
    if len(facts.known_load_balancers) < len(facts.load_balancers) or unknown:
        return [skipped(CHECK, "pool")]
    membership = facts.membership()
    dependent = [vm for vm in facts.known_vms if _depends_on_pools(facts, membership, vm)]
    if not dependent:
        return [passed(CHECK, "every VM has an outbound path besides the configured pools")]
    subnet_ids = {
        fold(each): each
        for vm in dependent
        for nic in facts.pooled_nics_of(vm)
        for each in attachments_of(nic).subnet_ids
    }
    return [_subnet(facts, subnet_id, dependent) for subnet_id in subnet_ids.values()]


def _depends_on_pools(facts: DoctorFacts, membership: PoolMembership, vm: Vm) -> bool:
    """Return whether all outbound paths of a VM are load balancer rules of managed pools."""
    if any(attachments_of(nic).public_ip_ids for nic in facts.nics_of(vm)):
        return False
    managed = {fold(pool.id) for pool in facts.settings.backend_pools}
    with_outbound = {
        fold(pool_id) for each in facts.known_load_balancers for pool_id in each.outbound_pools
    }
    paths = {fold(each.pool_id) for each in membership.memberships(vm)} & with_outbound
    return bool(paths) and paths <= managed


def _subnet(facts: DoctorFacts, subnet_id: str, dependent: list[Vm]) -> Finding:
    subject = short(subnet_id)
    names = ", ".join(
        vm.name
        for vm in dependent
        for nic in facts.pooled_nics_of(vm)
        if fold(subnet_id) in map(fold, attachments_of(nic).subnet_ids)
    )
    subnet = facts.subnets.get(fold(subnet_id))
    if isinstance(subnet, Failed):
        return _unreadable(subnet_id, names, subnet.error)
    if not isinstance(subnet, Subnet):
        return skipped(CHECK, "nics", subject=subject)
    if subnet.nat_gateway_id:
        message = f"{names}: through the NAT gateway {short(subnet.nat_gateway_id)}"
        return passed(CHECK, message, subject=subject)
    if subnet.route_table_id:
        show = az("network route-table show", ids=subnet.route_table_id, query="routes")
        return warned(
            CHECK,
            f"{names}: only through the routes in {short(subnet.route_table_id)}",
            (f"{show}  # 0.0.0.0/0 must lead to a firewall that allows Azure's services",),
            subject=subject,
        )
    return failed(
        CHECK,
        f"{names}: no outbound path after the removal from the pools, neither for the drained "
        "connections nor for the agent on the VM",
        _create_nat_gateway(facts, subnet_id),
        subject=subject,
    )


def _unreadable(subnet_id: str, names: str, error: ControllerError) -> Finding:
    lacks_role = isinstance(error, Denied) and error.obstacle is Obstacle.ROLE and error.action
    reason = f"needs {lacks_role}" if lacks_role else error
    query = "[natGateway.id, routeTable.id]"
    show = az("network vnet subnet show", ids=subnet_id, query=query)
    return warned(
        CHECK,
        f"{names}: no public address and no other pool with outbound rules; the doctor could not "
        f"read whether the subnet has a NAT gateway ({reason})",
        (f"{show}  # must print a NAT gateway, or a route table that leads to a firewall",),
        subject=short(subnet_id),
    )


def _create_nat_gateway(facts: DoctorFacts, subnet_id: str) -> tuple[str, ...]:
    """Return the commands. The region is that of the VM: by default az takes that of the group."""
    network_id = subnet_id.rsplit("/", 2)[0]
    where = in_group(facts, network_id)
    there = dict(where)
    if isinstance(facts.instance, Instance):
        there["location"] = facts.instance.location
    return (
        az("network public-ip create", **there, name=NAT, sku="Standard"),
        az("network nat gateway create", **there, name=NAT, public_ip_addresses=NAT),
        az(
            "network vnet subnet update",
            **where,
            vnet_name=short(network_id),
            name=short(subnet_id),
            nat_gateway=NAT,
        ),
    )
