"""What mends what Azure refuses: commands with the ids filled in. Pure.

Whatever comes from a reply or a file is quoted: these lines are copied into shells.
"""

import json
from shlex import quote
from urllib.parse import urlsplit

from controller.azure.imds import Instance
from controller.core.model import fold, short
from controller.doctor.facts import Facts, Failed, Unasked
from controller.doctor.findings import Finding, failed, skipped, warned
from controller.errors import (
    Conflict,
    Denied,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)

AGAIN = "lb-drain doctor, in a minute"
WRITE_NIC = "Microsoft.Network/networkInterfaces/write"
_PASSING = (Conflict, ServiceFault, Throttled)
_UNREACHED = (NotSent, OutcomeUnknown)


class Shell(str):
    """Text that a shell expands; everything else is quoted."""

    __slots__ = ()


def az(words: str, /, **options: str | tuple[str, ...]) -> str:
    """Return an az command; `lb_name="x"` becomes `--lb-name x`, a tuple several values."""
    parts = ["az", words]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        parts.append(f"--{name.replace('_', '-')}")
        parts += [each if isinstance(each, Shell) else quote(each) for each in values]
    return " ".join(parts)


def unanswered(facts: Facts, check: str, known: Failed | Unasked, *, subject: str = "") -> Finding:
    """Return the finding about what could not be asked, or was not answered."""
    if isinstance(known, Unasked):
        return skipped(check, known.needs, subject=subject)
    error, said = known.error, str(known.error)
    if isinstance(error, _PASSING):
        return warned(check, f"could not be told now: {said}", (AGAIN,), subject=subject)
    mend: tuple[str, ...] = (AGAIN,)
    if isinstance(error, Denied):
        mend = grant(facts, error.action, error.scope) if error.action else _refused(facts)
    elif isinstance(error, _UNREACHED):
        mend = reach(facts)
    return failed(check, said, mend, subject=subject)


def _refused(facts: Facts) -> tuple[str, ...]:
    return (
        "[azure] cloud and client_id must be those of this subscription and identity",
        assign_identity(facts),
    )


def grant(facts: Facts, action: str, scopes: str) -> tuple[str, ...]:
    """Return the commands that allow one action more, in a role of its own.

    What an agent reads, it reads for whole resource groups, and so it does with NICs that it
    writes; anything else is allowed where Azure missed it.
    """
    wanted = sorted({_where(action, each.strip()) for each in scopes.split(",")})
    name = f"lb-drain {action.removeprefix('Microsoft.').replace('/', ' ')}"
    definition = {
        "Name": name,
        "Description": "What lb-drain doctor found missing.",
        "Actions": [action],
        "AssignableScopes": sorted({_subscription(each) for each in wanted}),
    }
    create = az("role definition create", role_definition=json.dumps(definition))
    return (create, *(_assign(facts, name, each) for each in wanted))


def grant_blobs(facts: Facts) -> str:
    """Return the command that lets the identity read and write the blobs of the container."""
    account, container = storage(facts)
    found = az("storage account show", name=account, query="id", output="tsv")
    scope = Shell(f'"$({found})"{quote(f"/blobServices/default/containers/{container}")}')
    return _assign(facts, "Storage Blob Data Contributor", scope)


def storage(facts: Facts) -> tuple[str, str]:
    """Return the names of the storage account and the container."""
    url = urlsplit(facts.settings.election.container_url)
    parts = url.path.strip("/").split("/")
    # Emulators have the account in the path, Azure in the host.
    account = parts[0] if len(parts) > 1 else (url.hostname or "").split(".", 1)[0]
    return account, parts[-1]


def assign_identity(facts: Facts) -> str:
    """Return the command that gives this VM its identity."""
    client_id = facts.settings.azure.client_id
    if not client_id:
        return az("vm identity assign", ids=_vm_id(facts))
    query = f"[?clientId=='{client_id}'].id"
    found = Shell(f'"$({az("identity list", query=query, output="tsv")})"')
    return az("vm identity assign", ids=_vm_id(facts), identities=found)


def reach(facts: Facts) -> tuple[str, ...]:
    """Return how to find out what is in the way of Azure's services."""
    azure, election = facts.settings.azure, facts.settings.election
    certificate = f" --cacert {quote(azure.ca_file)}" if azure.ca_file else ""
    proxies = " ".join(facts.proxies)
    by_proxy = (
        f"unset {proxies}  # or see to it that this proxy lets it through: requests to Resource "
        "Manager and to storage go by way of it",
    )
    return (by_proxy if proxies else ()) + tuple(
        f"curl --silent --show-error --head{certificate} {quote(url)}  # any answer will do: "
        "without one, name resolution, a route, a firewall or a network security group is in the "
        "way"
        for url in (f"{azure.resource_manager_endpoint}/", election.container_url)
    )


def group_and_name(resource_id: str) -> tuple[str, str]:
    """Return resource group and name of a top-level resource."""
    return resource_id.split("/")[4], short(resource_id)


def _vm_id(facts: Facts) -> str:
    return facts.instance.vm_id if isinstance(facts.instance, Instance) else "VM_ID"


def _principal(facts: Facts) -> str:
    """Return the identity's object id, or what prints it."""
    if isinstance(facts.principal, str) and facts.principal:
        return facts.principal
    query = "identity.principalId"
    return Shell(f'"$({az("vm show", ids=_vm_id(facts), query=query, output="tsv")})"')


def _assign(facts: Facts, role: str, scope: str) -> str:
    return az(
        "role assignment create",
        assignee_object_id=_principal(facts),
        assignee_principal_type="ServicePrincipal",
        role=role,
        scope=scope,
    )


def _where(action: str, scope: str) -> str:
    parts = scope.split("/")
    if len(parts) < 5 or fold(parts[3]) != "resourcegroups":
        return "/".join(parts[:3])
    return "/".join(parts[:5]) if action.endswith("/read") or action == WRITE_NIC else scope


def _subscription(scope: str) -> str:
    return "/".join(scope.split("/")[:3])
