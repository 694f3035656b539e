"""Judgements about permissions, the ledger's blob, and the other agents of the set. Pure."""

from collections.abc import Mapping
from shlex import quote
from urllib.parse import urlsplit

from controller.azure.compute import AvailabilitySet
from controller.azure.survey import Subnet
from controller.core.model import PoolKind, fold, short
from controller.doctor.advice import AGAIN, az, grant_blobs, storage, unanswered
from controller.doctor.facts import Facts, Failed, Known, Unasked
from controller.doctor.findings import Finding, failed, passed, skipped, warned
from controller.errors import ConfigError, ContractViolation, Denied
from controller.look import LeaseLook

ONE_AT_A_TIME = "lb-drain doctor, again: Azure names one missing permission at a time"


def judge_access(facts: Facts) -> list[Finding]:
    """Return the findings about what this identity may do, and who else does it."""
    return [
        *_nic_writes(facts),
        *_pool_writes(facts),
        _operations(facts),
        _blob_read(facts),
        _blob_write(facts),
        _agents(facts),
    ]


def _nic_writes(facts: Facts) -> list[Finding]:
    check = "write-nics"
    if not (facts.complete and facts.pools):
        return [skipped(check, "pool" if facts.complete else "nics")]
    out = ", ".join(entry.vm for entry in facts.ledger.entries)
    if facts.nic_writes:
        good = "the NICs in the pools may be changed, and everything they refer to may be joined"
        but = f"; not tried on {out}, out of rotation" if out else ""
        return _rehearsed(facts, check, facts.nic_writes, good + but)
    if all(pool.kind is PoolKind.ADDRESS for pool in facts.pools):
        return []
    if out:
        return [warned(check, f"not tried on {out}, out of rotation", (AGAIN,))]
    return [skipped(check, "members")]


def _pool_writes(facts: Facts) -> list[Finding]:
    check = "write-pools"
    findings = [
        warned(check, "not tried, VMs are out of it now", (AGAIN,), subject=short(pool.pool_id))
        for pool in facts.pools
        if pool.kind is PoolKind.ADDRESS and fold(pool.pool_id) not in facts.pool_writes
    ]
    if facts.pool_writes:
        good = "the IP-based pools may be changed"
        findings += _rehearsed(facts, check, facts.pool_writes, good)
    return findings


def _rehearsed(
    facts: Facts, check: str, writes: Mapping[str, Known[bool]], good: str
) -> list[Finding]:
    """Return one finding for each kind of trouble, or one that there is none."""
    denied: dict[str, dict[str, list[str]]] = {}
    others: dict[type, list[tuple[str, Failed | Unasked]]] = {}
    ignored: list[str] = []
    for resource_id, known in writes.items():
        name = short(resource_id)
        if isinstance(known, Failed) and isinstance(known.error, Denied) and known.error.action:
            scopes = denied.setdefault(known.error.action, {})
            scopes.setdefault(known.error.scope, []).append(name)
        elif not isinstance(known, bool):
            kind = type(known.error) if isinstance(known, Failed) else Unasked
            others.setdefault(kind, []).append((name, known))
        elif not known:
            ignored.append(name)
    findings = [_missing(facts, check, action, scopes) for action, scopes in denied.items()]
    for alike in others.values():
        subject = ", ".join(name for name, _ in alike)
        findings.append(unanswered(facts, check, alike[0][1], subject=subject))
    if ignored:
        findings.append(
            warned(
                check,
                "Azure takes writes whose condition does not hold (these wrote what was there "
                "already): two writers would not notice each other",
                ("let nobody else write these while agents run",),
                subject=", ".join(ignored),
            )
        )
    return findings or [passed(check, f"{good} ({len(writes)} tried, nothing changed)")]


def _missing(facts: Facts, check: str, action: str, scopes: Mapping[str, list[str]]) -> Finding:
    error = Denied("", action=action, scope=",".join(scopes))
    mend = unanswered(facts, check, Failed(error)).mend
    about = ", ".join(name for names in scopes.values() for name in names)
    return failed(
        check,
        f"{about}: the managed identity lacks {action} on {', '.join(scopes)} (or that does not "
        "exist)",
        (*mend, ONE_AT_A_TIME),
    )


def _operations(facts: Facts) -> Finding:
    check = "follow-operations"
    if facts.operations is None:
        return passed(check, "operations that writes begin may be followed to their end")
    return unanswered(facts, check, facts.operations)


def _blob_read(facts: Facts) -> Finding:
    check = "read-ledger"
    if not isinstance(facts.lease, LeaseLook):
        return _blob(facts, check, facts.lease)
    if not _named(facts):
        return passed(check, "blobs of the container can be read; which is ours the set would tell")
    return passed(check, f"{facts.blob_url} can be read")


def _named(facts: Facts) -> bool:
    """Tell whether the name of the ledger's blob is known."""
    return bool(facts.settings.election.blob_name) or isinstance(facts.home, AvailabilitySet)


def _blob_write(facts: Facts) -> Finding:
    check = "write-ledger"
    if facts.blob_write is not None:
        return _blob(facts, check, facts.blob_write)
    return passed(check, "it may be written and leased (tried, nothing changed)")


def _blob(facts: Facts, check: str, known: Failed | Unasked) -> Finding:
    if not isinstance(known, Failed):
        return unanswered(facts, check, known)
    account, container = storage(facts)
    error = known.error
    if isinstance(error, ConfigError):
        return failed(
            check,
            f"there is no container {container} at {facts.settings.election.container_url}",
            (
                az(
                    "storage container create",
                    account_name=account,
                    name=container,
                    auth_mode="login",
                )
                + "  # unless container_url in [election] is wrong; all VMs must have the same",
            ),
        )
    if isinstance(error, Denied) and error.action:
        return failed(check, str(error), (grant_blobs(facts),))
    if isinstance(error, Denied):
        host = urlsplit(facts.settings.election.container_url).hostname or ""
        subnets = sorted(known_subnets(facts)) or ["SUBNET_ID"]
        return failed(
            check,
            f"{error}: if the role is there, a firewall of the account keeps this VM out",
            (
                *(
                    az("storage account network-rule add", account_name=account, subnet=each)
                    for each in subnets
                ),
                f"getent hosts {quote(host)}  # with a private endpoint: must be its address",
            ),
        )
    if isinstance(error, ContractViolation):
        command = az(
            "storage blob download",
            auth_mode="login",
            blob_url=facts.blob_url,
            file="ledger.json",
        )
        return failed(check, str(error), (command,))
    return unanswered(facts, check, known)


def known_subnets(facts: Facts) -> set[str]:
    """Return the ids of the subnets that the VMs of the pools are in."""
    return {each.subnet_id for each in facts.subnets.values() if isinstance(each, Subnet)}


def _agents(facts: Facts) -> Finding:
    check = "agents"
    if not isinstance(facts.lease, LeaseLook):
        return skipped(check, "read-ledger")
    if not _named(facts):
        return skipped(check, "availability-set")
    look, ledger = facts.lease, facts.lease.ledger
    out = ", ".join(entry.vm for entry in ledger.entries)
    if look.leader:
        held = f"; out of rotation: {out}" if out else ""
        since = f" for {look.lease_age_s:.0f} s" if look.lease_age_s is not None else ""
        return passed(check, f"{look.leader} leads{since}, in epoch {ledger.epoch}{held}")
    if out:
        return warned(
            check,
            f"nobody leads (lease {look.lease_state}, epoch {ledger.epoch}), and {out} is out of "
            "rotation until somebody does",
            ("systemctl start lb-drain  # on a VM of the set",),
        )
    return passed(check, f"nobody leads yet (lease {look.lease_state}, epoch {ledger.epoch})")
