"""Checks of permissions, of the ledger's blob, and of the other agents of the set. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import unquote

from controller.azure.admin_states import is_refusal
from controller.azure.topology import references_of
from controller.azure.vm_set import VmSet
from controller.core.agent_presence import AgentState
from controller.core.azure_names import fold, short
from controller.core.lease import LEASED
from controller.core.resources import PoolKind
from controller.core.vm_phase import rotation_of
from controller.doctor.facts import DoctorFacts, Failed, Known, Skipped
from controller.doctor.failed_reads import not_known
from controller.doctor.obstacles import remove_obstacle
from controller.doctor.remedies import (
    AGAIN,
    assign_blob_role,
    assign_role,
    az,
    is_elsewhere,
    storage_names,
)
from controller.doctor.report import Finding, Result, failed, passed, skipped, warned
from controller.errors import ContractViolation, Denied, Obstacle, SetupError
from controller.status.ledger_view import LeaseStatus
from controller.system.service_manager import MANAGER

_ABSENT = (AgentState.STOPPED, AgentState.SILENT)


def check_access(facts: DoctorFacts) -> list[Finding]:
    """Return the findings about the permissions of this identity, and about the agents."""
    return [
        *([] if facts.settings.policy.close_only else _network_writes(facts)),
        _blob_read(facts),
        _blob_write(facts),
        _agents(facts),
    ]


def _network_writes(facts: DoctorFacts) -> list[Finding]:
    nics = _nic_writes(facts)
    if facts.settings.policy.admin_state:
        nics = [_if_needed(finding) for finding in nics]
    return [*nics, *_pool_writes(facts), _operations(facts)]


def _if_needed(finding: Finding) -> Finding:
    """Return what is only needed where adminState does not work, as a warning."""
    if finding.result is not Result.FAIL:
        return finding
    message = f"{finding.message}; needed only for pools that do not take adminState"
    return replace(finding, result=Result.WARN, message=message)


def _nic_writes(facts: DoctorFacts) -> list[Finding]:
    check = "write-nics"
    if not (facts.complete and facts.pools):
        return [skipped(check, "pool" if facts.complete else "nics")]
    drained = ", ".join(entry.vm for entry in facts.ledger.entries)
    not_tried = f"not tried on {drained}, which the ledger records as drained"
    if facts.nic_writes:
        good = "the identity can write the NICs in the pools and join what they refer to"
        return _probed(facts, check, facts.nic_writes, f"{good}; {not_tried}" if drained else good)
    if all(pool.kind is PoolKind.ADDRESS for pool in facts.pools):
        return []
    if drained:
        return [warned(check, not_tried, (AGAIN,))]
    return [skipped(check, "members")]


def _pool_writes(facts: DoctorFacts) -> list[Finding]:
    check, by_state = "write-pools", facts.settings.policy.admin_state
    not_tried = "not tried: the agents have taken VMs out of this pool"
    findings = [
        warned(check, not_tried, (AGAIN,), subject=short(pool.pool_id))
        for pool in facts.pools
        if (pool.kind is PoolKind.ADDRESS or by_state)
        and pool.kind is not PoolKind.EMPTY
        and fold(pool.pool_id) not in facts.pool_writes
    ]
    refused = {
        pool_id: known
        for pool_id, known in facts.pool_writes.items()
        if by_state and isinstance(known, Failed) and is_refusal(known.error)
    }
    findings += [_refuses_state(pool_id, known) for pool_id, known in refused.items()]
    writes = {key: known for key, known in facts.pool_writes.items() if key not in refused}
    if writes:
        kind = "pools" if by_state else "IP-based pools"
        findings += _probed(facts, check, writes, f"the identity can write the {kind}")
    return findings


def _refuses_state(pool_id: str, known: Failed) -> Finding:
    return warned(
        "write-pools",
        f"the pool does not take adminState, so VMs are removed from it: {known.error}",
        ('assign the role for NIC-based pools too, or set mechanism = "pool" in [policy]',),
        subject=short(pool_id),
    )


def _probed(
    facts: DoctorFacts, check: str, writes: Mapping[str, Known[bool]], good: str
) -> list[Finding]:
    """Return one finding for each kind of problem, or one finding if there is none."""
    denied: dict[str, dict[str, list[str]]] = {}
    others: dict[object, list[tuple[str, Failed | Skipped]]] = {}
    unconditional: list[str] = []
    for resource_id, known in writes.items():
        name = short(resource_id)
        error = known.error if isinstance(known, Failed) else None
        if isinstance(error, Denied) and error.obstacle is Obstacle.ROLE and error.lacks:
            for action, scope in error.lacks:
                denied.setdefault(action, {}).setdefault(scope, []).append(name)
        elif not isinstance(known, bool):
            kind: object = type(error)
            if isinstance(error, Denied):
                kind = (error.obstacle, error.action, error.scope)
            others.setdefault(kind, []).append((name, known))
        elif not known:
            unconditional.append(name)
    findings = [_missing(facts, check, action, scopes) for action, scopes in denied.items()]
    for alike in others.values():
        subject = ", ".join(name for name, _ in alike)
        findings.append(not_known(facts, check, alike[0][1], subject=subject))
    if unconditional:
        findings.append(
            warned(
                check,
                "Azure accepts a write with a wrong etag (the probe wrote the existing content), "
                "so two clients can overwrite each other's changes",
                ("do not change these resources with other clients while agents run",),
                subject=", ".join(unconditional),
            )
        )
    return findings or [passed(check, f"{good} ({len(writes)} tried, nothing changed)")]


def _missing(
    facts: DoctorFacts, check: str, action: str, scopes: Mapping[str, list[str]]
) -> Finding:
    error = Denied("", action=action, scope=",".join(scopes))
    assignments = [*not_known(facts, check, Failed(error)).fix, *_linked_assignments(facts, action)]
    resources = ", ".join(dict.fromkeys(name for names in scopes.values() for name in names))
    return failed(
        check,
        f"{resources}: the managed identity lacks {action} on {', '.join(scopes)} (or that "
        "resource does not exist)",
        tuple(dict.fromkeys(assignments)),
    )


def _linked_assignments(facts: DoctorFacts, action: str) -> Iterator[str]:
    """Yield the assignments on what the NICs in the pools refer to in other resource groups.

    Azure names one missing permission at a time, and only of the resource that it meets first.
    """
    managed = {fold(pool.pool_id) for pool in facts.pools}
    for nic in facts.known_nics:
        if any(fold(each) in managed for ip in nic.ip_configurations for each in ip.pool_ids):
            for reference in references_of(nic):
                if is_elsewhere(facts, reference):
                    yield assign_role(facts, action, reference)


def _operations(facts: DoctorFacts) -> Finding:
    check = "read-operations"
    if facts.operations is None:
        return passed(check, "the identity can read the long-running operations that writes start")
    return not_known(facts, check, facts.operations)


def _blob_read(facts: DoctorFacts) -> Finding:
    check = "read-ledger"
    if not isinstance(facts.lease, LeaseStatus):
        return _blob(facts, check, facts.lease)
    if not _has_blob_name(facts):
        return passed(
            check,
            "the identity can read blobs of the container; the name of the ledger's blob is not "
            "known without the set",
        )
    return passed(check, f"the identity can read {facts.blob_url}")


def _has_blob_name(facts: DoctorFacts) -> bool:
    """Return whether the name of the ledger's blob is known."""
    return bool(facts.settings.election.blob_name) or isinstance(facts.availability_set, VmSet)


def _blob_write(facts: DoctorFacts) -> Finding:
    check = "write-ledger"
    if facts.blob_write is not None:
        return _blob(facts, check, facts.blob_write)
    return passed(check, "the identity can write and lease it (tried, nothing changed)")


def _blob(facts: DoctorFacts, check: str, known: Failed | Skipped) -> Finding:
    if not isinstance(known, Failed):
        return not_known(facts, check, known)
    error = known.error
    if isinstance(error, SetupError):
        return _no_container(facts, check)
    if isinstance(error, Denied) and error.obstacle is Obstacle.ROLE:
        if error.action:
            return failed(check, str(error), (assign_blob_role(facts),))
        error = Denied(str(error), obstacle=Obstacle.FIREWALL)
    if isinstance(error, Denied) and error.obstacle is Obstacle.FIREWALL:
        what = f"{error}. If the role is assigned, the firewall of the storage account blocks it"
        return failed(check, what, remove_obstacle(facts, error))
    if isinstance(error, ContractViolation):
        command = az(
            "storage blob download",
            auth_mode="login",
            blob_url=facts.blob_url,
            file="ledger.json",
        )
        return failed(check, str(error), (command,))
    return not_known(facts, check, known)


def _no_container(facts: DoctorFacts, check: str) -> Finding:
    account, container = storage_names(facts)
    create = az("storage container create", account_name=account, name=container, auth_mode="login")
    return failed(
        check,
        f"there is no container {container} at {facts.settings.election.container_url}",
        (f"{create}  # or correct container_url in [election]; all VMs must have the same",),
    )


def _agents(facts: DoctorFacts) -> Finding:
    check = "agents"
    if not isinstance(facts.lease, LeaseStatus):
        return skipped(check, "read-ledger")
    if not _has_blob_name(facts):
        return skipped(check, "set")
    status, ledger = facts.lease, facts.lease.ledger
    rotation = rotation_of(ledger, None)
    suffix = f"; {rotation}" if ledger.entries else ""
    if status.leader:
        return _leader(facts, status, suffix)
    state = f"lease {status.lease_state}, epoch {ledger.epoch}"
    if status.lease_state == LEASED:
        message = f"a client holds the lease, and no agent has recorded that it leads ({state})"
        return warned(check, f"{message}{suffix}", (AGAIN, _break_lease(facts)))
    if ledger.entries:
        return warned(
            check,
            f"no agent leads ({state}), and nothing changes until one does: {rotation}",
            (f"{MANAGER.start}  # on a VM of the set",),
        )
    return passed(check, f"no agent leads yet ({state})")


def _leader(facts: DoctorFacts, status: LeaseStatus, suffix: str) -> Finding:
    check = "agents"
    if absent := _absent_leader(facts, status):
        fix = (f"{MANAGER.status}  # on {status.leader}", AGAIN, _break_lease(facts))
        return warned(check, f"{absent}{suffix}", fix)
    since = f" for {status.lease_age_s:.0f} s" if status.lease_age_s is not None else ""
    return passed(check, f"{status.leader} leads{since}, in epoch {status.ledger.epoch}{suffix}")


def _absent_leader(facts: DoctorFacts, status: LeaseStatus) -> str:
    """Return that the agent which led last does not run, by its presence; empty if it may run."""
    agent = facts.leader_agent
    state = agent.state(status.at) if agent is not None else AgentState.UNKNOWN
    if agent is None or agent.presence is None or state not in _ABSENT:
        return ""
    last = agent.presence.stopped_at or agent.presence.at
    return (
        f"the lease is held, and the agent of {status.leader}, which led last, does not run "
        f"({state.value}, {last:%Y-%m-%d %H:%M} UTC): another client may hold the lease"
    )


def _break_lease(facts: DoctorFacts) -> str:
    account, container = storage_names(facts)
    prefix = f"{facts.settings.election.container_url.rstrip('/')}/"
    command = az(
        "storage blob lease break",
        account_name=account,
        container_name=container,
        blob_name=unquote(facts.blob_url.removeprefix(prefix)),
        auth_mode="login",
    )
    return f"{command}  # if the doctor still warns, and no running agent holds the lease"
