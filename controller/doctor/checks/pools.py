"""Checks of the configured pools: existence, members, probes, min_in_service. Pure."""

import difflib
from dataclasses import replace
from shlex import quote

from controller.azure.topology import LoadBalancerDetails, LoadBalancingRule, attachments_of
from controller.config.backend_pool import BackendPool
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.planning.pool_membership import PoolMembership
from controller.core.resources import Pool, PoolKind, Vm
from controller.core.shared_pools import SharedPool
from controller.doctor.facts import DoctorFacts, Failed, Skipped
from controller.doctor.failed_reads import not_known
from controller.doctor.remedies import az, group_and_name, in_group, probe_times
from controller.doctor.report import Finding, failed, passed, skipped, warned
from controller.errors import NotFound
from controller.status.ledger_view import LeaseStatus

POOL_IDS = "[].backendAddressPools[].id"


def check_pools(facts: DoctorFacts) -> list[Finding]:
    """Return the findings about the pools, check by check."""
    pools, membership = facts.settings.backend_pools, facts.membership()
    names = facts.settings.pool_names()
    subjects = [(pool, names[fold(pool.id)]) for pool in pools]
    return [
        *(_found(facts, pool, name) for pool, name in subjects),
        *(_members(facts, membership, pool, name) for pool, name in subjects),
        _unmanaged_vms(facts, membership),
        *(finding for pool, name in subjects for finding in _probes(facts, pool, name)),
        *(_min_in_service(facts, membership, pool, name) for pool, name in subjects),
    ]


def _found(facts: DoctorFacts, pool: BackendPool, subject: str) -> Finding:
    check, balancer = "pool", facts.load_balancer_of(pool.id)
    lb_id = load_balancer_of(pool.id)
    if isinstance(balancer, Failed) and isinstance(balancer.error, NotFound):
        return failed(
            check,
            f"there is no load balancer {lb_id}",
            (
                az("network lb list", **in_group(facts, lb_id), query=POOL_IDS, output="tsv")
                + "  # lists the existing ids",
                f'set id in [[backend_pools]] to an existing id, instead of "{pool.id}"',
            ),
            subject=subject,
        )
    if not isinstance(balancer, LoadBalancerDetails):
        return not_known(facts, check, balancer, subject=subject)
    found = facts.pool(pool.id)
    if found is None:
        return _wrong_name(facts, pool, balancer, subject)
    if balancer.load_balancer.basic:
        group, name = group_and_name(lb_id)
        return failed(
            check,
            f"{lb_id} has the Basic SKU, which Azure has retired; the agent does not support it",
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
    message = f"{found.kind.label}, {balancer.load_balancer.sku}, {len(found.members)} members"
    return passed(check, message, subject=subject)


def _wrong_name(
    facts: DoctorFacts, pool: BackendPool, balancer: LoadBalancerDetails, subject: str
) -> Finding:
    known = {short(each.pool_id): each.pool_id for each in balancer.load_balancer.pools}
    folded = {fold(name): name for name in known}
    close = difflib.get_close_matches(fold(short(pool.id)), folded, n=1, cutoff=0.5)
    lb_id = balancer.load_balancer.load_balancer_id
    if close:
        right = known[folded[close[0]]]
        fix = (f'id = "{right}" in [[backend_pools]], instead of "{pool.id}"',)
    else:
        fix = (
            az(
                "network lb address-pool create",
                **in_group(facts, lb_id),
                lb_name=short(lb_id),
                name=short(pool.id),
            )
            + "  # or remove the pool from [[backend_pools]]",
        )
    return failed(
        "pool",
        f"{lb_id} has no pool {short(pool.id)}; it has {', '.join(known) or 'none'}",
        fix,
        subject=subject,
    )


def _members(
    facts: DoctorFacts, membership: PoolMembership, pool: BackendPool, subject: str
) -> Finding:
    check, found = "members", facts.pool(pool.id)
    if found is None:
        return skipped(check, f"pool {subject}", subject=subject)
    if not facts.complete:
        return skipped(check, "nics", subject=subject)
    members = membership.members(pool.id)
    peers = [vm for vm in facts.known_vms if fold(vm.name) in members]
    names = {fold(vm.name) for vm in facts.known_vms}
    others = sorted(members - names)
    ours = ", ".join(vm.name for vm in peers)
    if not peers and not facts.drained_from(pool.id):
        return warned(
            check,
            "it has no member from this set, so there is nothing to drain",
            (
                _join(facts, found, facts.known_vms[0])
                if facts.known_vms
                else "remove it from [[backend_pools]]",
            ),
            subject=subject,
        )
    if others:
        return _other_members(facts, pool, subject, ours=ours, others=others)
    return passed(check, ours, subject=subject)


def _other_members(
    facts: DoctorFacts, pool: BackendPool, subject: str, *, ours: str, others: list[str]
) -> Finding:
    """Return the finding about a pool that has members outside the availability set (law S2)."""
    check = "members"
    named = f"{ours}; not of this set: {', '.join(map(short, others))}"
    if pool.shared == "ignore":
        return warned(
            check,
            f'{named}. These count as in service (shared = "ignore"), also while another '
            "controller takes them out",
            ('set shared = "coordinate" when the agent runs on their set as well',),
            subject=subject,
        )
    known = facts.shared_pools.get(fold(pool.id))
    if isinstance(known, Skipped):
        return skipped(check, known.needs, subject=subject)
    stated: set[str] = set()
    if isinstance(known, SharedPool):
        stated = {machine for share in known.others for machine in share.members}
    silent = [each for each in others if each not in stated]
    if not silent:
        sets = len(known.others) if isinstance(known, SharedPool) else 0
        what = f"{named}. They take part in the floor ({sets} other set{'s' * (sets > 1)})"
        return passed(check, what, subject=subject)
    why = f": {known.error}" if isinstance(known, Failed) else ""
    return failed(
        check,
        f"{named}. No set states what it takes out of the pool of these: "
        f"{', '.join(map(short, silent))}{why}. They do not count for min_in_service, because "
        "another controller may take them out at the same time",
        (
            "install the agent on their set, with the same election.container_url",
            f'or set shared = "ignore" for {pool.id} if nothing takes these members out',
        ),
        subject=subject,
    )


def _unmanaged_vms(facts: DoctorFacts, membership: PoolMembership) -> Finding:
    check = "unmanaged-vms"
    if not facts.complete:
        return skipped(check, "nics")
    pools = [pool for each in facts.settings.backend_pools if (pool := facts.pool(each.id))]
    if not pools:
        return skipped(check, "pool")
    if not isinstance(facts.lease, LeaseStatus):
        return skipped(check, "read-ledger")  # a VM that is in no pool may be drained
    in_pools = {name for pool in pools for name in membership.members(pool.pool_id)}
    recorded = {fold(entry.vm) for entry in facts.ledger.entries}
    unmanaged = [vm for vm in facts.known_vms if fold(vm.name) not in in_pools | recorded]
    if not unmanaged:
        return passed(check, "every VM of the set is in a configured pool")
    return warned(
        check,
        f"in no configured pool: {', '.join(vm.name for vm in unmanaged)}. The agent does not "
        "acknowledge an event for such a VM, unless acknowledge_unmanaged is on",
        tuple(_join(facts, pools[0], vm) for vm in unmanaged),
    )


def _join(facts: DoctorFacts, pool: Pool, vm: Vm) -> str:
    """Return the command that puts a VM into a pool."""
    nic = next((n for n in facts.known_nics if fold(n.nic_id) in map(fold, vm.nic_ids)), None)
    if nic is None:
        return f"put {vm.vm_id} into {pool.pool_id}"
    configuration = nic.ip_configurations[0]
    if pool.kind is PoolKind.ADDRESS:
        lb_id = load_balancer_of(pool.pool_id)
        subnets = attachments_of(nic).subnet_ids
        network = subnets[0].rsplit("/", 2)[0] if subnets else "VNET"
        return az(
            "network lb address-pool address add",
            **in_group(facts, lb_id),
            lb_name=short(lb_id),
            pool_name=short(pool.pool_id),
            name=vm.name,
            vnet=network,
            ip_address=configuration.private_ip,
        )
    return az(
        "network nic ip-config address-pool add",
        **in_group(facts, nic.nic_id),
        nic_name=short(nic.nic_id),
        ip_config_name=configuration.name,
        address_pool=pool.pool_id,
    )


def _probes(facts: DoctorFacts, pool: BackendPool, subject: str) -> list[Finding]:
    check, balancer = "probe", facts.load_balancer_of(pool.id)
    if not isinstance(balancer, LoadBalancerDetails) or facts.pool(pool.id) is None:
        return [skipped(check, f"pool {subject}", subject=subject)]
    rules = [rule for rule in balancer.rules if fold(pool.id) in map(fold, rule.pool_ids)]
    if not rules:
        lb_id = balancer.load_balancer.load_balancer_id
        fix = az(
            "network lb rule list", **in_group(facts, lb_id), lb_name=short(lb_id), output="table"
        )
        message = "no load balancing rule uses this pool, so it receives no traffic"
        return [warned(check, message, (fix,), subject=subject)]
    without_probe = [rule for rule in rules if not rule.probe_id]
    if not without_probe:
        probes = ", ".join(f"{rule.name}: {short(rule.probe_id)}" for rule in rules)
        return [passed(check, f"every rule has a health probe ({probes})", subject=subject)]
    findings = [_without_probe(facts, balancer, rule, subject) for rule in without_probe]
    if not facts.settings.policy.admin_state:
        return findings
    effect = "; adminState Down has no effect without a probe, so VMs are removed from this pool"
    return [replace(each, message=f"{each.message}{effect}") for each in findings]


def _without_probe(
    facts: DoctorFacts, balancer: LoadBalancerDetails, rule: LoadBalancingRule, subject: str
) -> Finding:
    lb_id = balancer.load_balancer.load_balancer_id
    where, name = in_group(facts, lb_id), short(lb_id)
    fix: list[str] = []
    probe = balancer.probe_names[0] if balancer.probe_names else "lb-drain"
    if not balancer.probe_names:
        fix.append(
            az(
                "network lb probe create",
                **where,
                lb_name=name,
                name=probe,
                protocol="Tcp",
                port=str(rule.backend_port),
                **probe_times(),
            )
        )
    fix.append(
        az(
            "network lb rule update",
            **where,
            lb_name=name,
            name=rule.name,
            probe_name=probe,
        )
    )
    return failed(
        "probe",
        f"the rule {rule.name} has no health probe: a restored VM receives traffic before its "
        "service answers",
        fix,
        subject=subject,
    )


def _min_in_service(
    facts: DoctorFacts, membership: PoolMembership, pool: BackendPool, subject: str
) -> Finding:
    check = "min-in-service"
    if facts.pool(pool.id) is None:
        return skipped(check, f"pool {subject}", subject=subject)
    if not facts.complete:
        return skipped(check, "nics", subject=subject)
    full = len(membership.members(pool.id) | facts.drained_from(pool.id))
    if not full:
        return skipped(check, f"members {subject}", subject=subject)
    percent = pool.floor.percent
    least = pool.floor.members(full=full)
    message = f"min_in_service = {_shown(pool.min_in_service)}: {least} of {full} must stay"
    if least < full:
        return passed(
            check, f"{message}, so {full - least} can be out of rotation at a time", subject=subject
        )
    room = f'"{100 * (full - 1) // full}%"' if percent else str(full - 1)
    fix = f"min_in_service = {room} in [[backend_pools]] of {pool.id}"
    if full == 1 and not percent:
        fix += "; no member is then in service during maintenance: add a second VM to the pool"
    return failed(check, f"{message}, so no VM can ever be removed", (fix,), subject=subject)


def _shown(floor: int | str) -> str:
    return f'"{floor}"' if isinstance(floor, str) else str(floor)
