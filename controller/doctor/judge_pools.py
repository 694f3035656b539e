"""Judgements about the configured pools: found, who is in them, probes, floors. Pure."""

import difflib
from shlex import quote

from controller.azure.survey import Balancer, Rule, attachments_of
from controller.core.inventory import Inventory
from controller.core.model import (
    Floor,
    Pool,
    PoolKind,
    Vm,
    fold,
    load_balancer_of,
    short,
)
from controller.doctor.advice import az, group_and_name, unanswered
from controller.doctor.facts import Facts, Failed
from controller.doctor.findings import Finding, failed, passed, skipped, warned
from controller.errors import NotFound
from controller.look import LeaseLook
from controller.settings import BackendPool

POOL_IDS = "[].backendAddressPools[].id"
KINDS = {PoolKind.NIC: "NIC-based", PoolKind.ADDRESS: "IP-based", PoolKind.EMPTY: "empty"}


def judge_pools(facts: Facts) -> list[Finding]:
    """Return the findings about the pools, check by check."""
    pools, inventory = facts.settings.backend_pools, facts.inventory()
    names = facts.settings.pool_names()
    return [
        *(_found(facts, pool, names[pool.id]) for pool in pools),
        *(_members(facts, inventory, pool, names[pool.id]) for pool in pools),
        _left_out(facts, inventory),
        *(finding for pool in pools for finding in _probes(facts, pool, names[pool.id])),
        *(_floor(facts, inventory, pool, names[pool.id]) for pool in pools),
    ]


def _found(facts: Facts, pool: BackendPool, subject: str) -> Finding:
    check, balancer = "pool", facts.balancer_of(pool.id)
    lb_id = load_balancer_of(pool.id)
    if isinstance(balancer, Failed) and isinstance(balancer.error, NotFound):
        group = lb_id.split("/")[4]
        return failed(
            check,
            f"there is no load balancer {lb_id}",
            (
                az("network lb list", resource_group=group, query=POOL_IDS, output="tsv")
                + "  # the ids that there are",
                f'id of the right one in [[backend_pools]], instead of "{pool.id}"',
            ),
            subject=subject,
        )
    if not isinstance(balancer, Balancer):
        return unanswered(facts, check, balancer, subject=subject)
    found = facts.pool(pool.id)
    if found is None:
        return _misspelt(pool, balancer, subject)
    sku = balancer.load_balancer.sku
    if fold(sku) == "basic":
        group, name = group_and_name(lb_id)
        return failed(
            check,
            f"{lb_id} has the Basic SKU, which Azure has retired and the agent does not manage",
            (
                "Install-Module AzureBasicLoadBalancerUpgrade  # in PowerShell",
                f"Start-AzBasicLoadBalancerUpgrade -ResourceGroupName {quote(group)} "
                f"-BasicLoadBalancerName {quote(name)}",
            ),
            subject=subject,
        )
    if found.failed:
        return warned(
            check,
            f"{found.pool_id} is in provisioningState Failed: Azure may refuse writes",
            (az("resource update", ids=lb_id),),
            subject=subject,
        )
    what = f"{KINDS[found.kind]}, {sku}, {len(found.members)} members"
    return passed(check, what, subject=subject)


def _misspelt(pool: BackendPool, balancer: Balancer, subject: str) -> Finding:
    known = {short(each.pool_id): each.pool_id for each in balancer.load_balancer.pools}
    folded = {fold(name): name for name in known}
    close = difflib.get_close_matches(fold(short(pool.id)), folded, n=1, cutoff=0.5)
    lb_id = balancer.load_balancer.load_balancer_id
    if close:
        right = known[folded[close[0]]]
        mend = (f'id = "{right}" in [[backend_pools]], instead of "{pool.id}"',)
    else:
        group, name = group_and_name(lb_id)
        mend = (
            az(
                "network lb address-pool create",
                resource_group=group,
                lb_name=name,
                name=short(pool.id),
            )
            + "  # or take the pool out of [[backend_pools]]",
        )
    return failed(
        "pool",
        f"{lb_id} has no pool {short(pool.id)}; it has {', '.join(known) or 'none'}",
        mend,
        subject=subject,
    )


def _members(facts: Facts, inventory: Inventory, pool: BackendPool, subject: str) -> Finding:
    check, found = "members", facts.pool(pool.id)
    if found is None:
        return skipped(check, f"pool {subject}", subject=subject)
    if not facts.complete:
        return skipped(check, "nics", subject=subject)
    everyone = inventory.members(pool.id)
    peers = [vm for vm in facts.seen_vms if fold(vm.name) in everyone]
    names = {fold(vm.name) for vm in facts.seen_vms}
    strangers = sorted(everyone - names)
    ours = ", ".join(vm.name for vm in peers)
    if not peers and not facts.out(pool.id):
        return warned(
            check,
            "no VM of this availability set is in it, so there is nothing to drain",
            (
                _join(facts, found, facts.seen_vms[0])
                if facts.seen_vms
                else "take it out of [[backend_pools]]",
            ),
            subject=subject,
        )
    if strangers:
        return warned(
            check,
            f"{ours}; and, of no VM of this set: {', '.join(map(short, strangers))}: they count as "
            "in service, and nobody here drains them",
            ("an agent on their availability set, too; nothing if they are meant to be there",),
            subject=subject,
        )
    return passed(check, ours, subject=subject)


def _left_out(facts: Facts, inventory: Inventory) -> Finding:
    check = "left-out"
    if not facts.complete:
        return skipped(check, "nics")
    pools = [pool for each in facts.settings.backend_pools if (pool := facts.pool(each.id))]
    if not pools:
        return skipped(check, "pool")
    if not isinstance(facts.lease, LeaseLook):
        return skipped(check, "read-ledger")  # whoever is out may be out because of us
    inside = {name for pool in pools for name in inventory.members(pool.pool_id)}
    recorded = {fold(entry.vm) for entry in facts.ledger.entries}
    left_out = [vm for vm in facts.seen_vms if fold(vm.name) not in inside | recorded]
    if not left_out:
        return passed(check, "every VM of the set is in a configured pool")
    return warned(
        check,
        f"in no configured pool: {', '.join(vm.name for vm in left_out)}; an event that names one "
        "of them is not acknowledged, unless acknowledge_unmanaged is on",
        tuple(_join(facts, pools[0], vm) for vm in left_out),
    )


def _join(facts: Facts, pool: Pool, vm: Vm) -> str:
    """Return the command that puts a VM into a pool."""
    nic = next((n for n in facts.seen_nics if fold(n.nic_id) in map(fold, vm.nic_ids)), None)
    if nic is None:
        return f"put {vm.vm_id} into {pool.pool_id}"
    configuration = nic.ip_configurations[0]
    if pool.kind is PoolKind.ADDRESS:
        group, name = group_and_name(load_balancer_of(pool.pool_id))
        subnets = attachments_of(nic).subnet_ids
        network = subnets[0].rsplit("/", 2)[0] if subnets else "VNET"
        return az(
            "network lb address-pool address add",
            resource_group=group,
            lb_name=name,
            pool_name=short(pool.pool_id),
            name=vm.name,
            vnet=network,
            ip_address=configuration.private_ip,
        )
    group, name = group_and_name(nic.nic_id)
    return az(
        "network nic ip-config address-pool add",
        resource_group=group,
        nic_name=name,
        ip_config_name=configuration.name,
        address_pool=pool.pool_id,
    )


def _probes(facts: Facts, pool: BackendPool, subject: str) -> list[Finding]:
    check, balancer = "probe", facts.balancer_of(pool.id)
    if not isinstance(balancer, Balancer) or facts.pool(pool.id) is None:
        return [skipped(check, f"pool {subject}", subject=subject)]
    rules = [rule for rule in balancer.rules if fold(pool.id) in map(fold, rule.pool_ids)]
    if not rules:
        group, name = group_and_name(balancer.load_balancer.load_balancer_id)
        mend = az("network lb rule list", resource_group=group, lb_name=name, output="table")
        what = "no load balancing rule uses this pool, so no client gets to it"
        return [warned(check, what, (mend,), subject=subject)]
    bare = [rule for rule in rules if not rule.probe_id]
    if not bare:
        told = ", ".join(f"{rule.name} by {short(rule.probe_id)}" for rule in rules)
        return [passed(check, told, subject=subject)]
    return [_unprobed(balancer, rule, subject) for rule in bare]


def _unprobed(balancer: Balancer, rule: Rule, subject: str) -> Finding:
    group, name = group_and_name(balancer.load_balancer.load_balancer_id)
    mend: list[str] = []
    probe = balancer.probe_names[0] if balancer.probe_names else "lb-drain"
    if not balancer.probe_names:
        mend.append(
            az(
                "network lb probe create",
                resource_group=group,
                lb_name=name,
                name=probe,
                protocol="Tcp",
                port=str(rule.backend_port),
                interval="5",
            )
        )
    mend.append(
        az(
            "network lb rule update",
            resource_group=group,
            lb_name=name,
            name=rule.name,
            probe_name=probe,
        )
    )
    return failed(
        "probe",
        f"the rule {rule.name} has no health probe: clients are sent to a restored VM before its "
        "service answers",
        mend,
        subject=subject,
    )


def _floor(facts: Facts, inventory: Inventory, pool: BackendPool, subject: str) -> Finding:
    check = "floor"
    if facts.pool(pool.id) is None:
        return skipped(check, f"pool {subject}", subject=subject)
    if not facts.complete:
        return skipped(check, "nics", subject=subject)
    full = len(inventory.members(pool.id) | facts.out(pool.id))
    if not full:
        return skipped(check, f"members {subject}", subject=subject)
    number, percent = pool.floor
    least = Floor(number=number, percent=percent).members(full=full)
    what = f"min_in_service = {_shown(pool.min_in_service)}: {least} of {full} must stay"
    if least < full:
        return passed(check, f"{what}, so {full - least} can be out at once", subject=subject)
    room = f'"{100 * (full - 1) // full}%"' if percent else str(full - 1)
    mend = f"min_in_service = {room} in [[backend_pools]] of {pool.id}"
    if full == 1 and not percent:
        mend += "; then there is nobody in service meanwhile: better put a second VM into the pool"
    return failed(check, f"{what}, so no VM can ever be taken out of it", (mend,), subject=subject)


def _shown(floor: int | str) -> str:
    return f'"{floor}"' if isinstance(floor, str) else str(floor)
