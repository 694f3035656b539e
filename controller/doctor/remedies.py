"""The commands that fix what the checks find, with the ids filled in. Pure.

Everything that comes from a reply or a file is quoted: these lines are copied into shells.
"""

from shlex import quote
from urllib.parse import urlsplit

from controller.azure.imds_document import Instance
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.resources import PoolKind
from controller.doctor.facts import DoctorFacts
from controller.doctor.roles import Role, role_for

AGAIN = "lb-drain doctor, in a minute"


class Shell(str):
    """Text that a shell expands; everything else is quoted."""

    __slots__ = ()


SHORTEST_S = 5
"""The shortest interval of a probe in Azure."""
THRESHOLD = 2
"""It outlasts the second in which an upgrade starts the responder again. The runbook has the same
numbers (`deploy/README.md`, prepare your application)."""


def probe_times(within_s: float = SHORTEST_S * THRESHOLD) -> dict[str, str]:
    """Return the interval and threshold with which a probe notices a VM that closes.

    Args:
        within_s: how fast; below two intervals one refused probe has to be enough.
    """
    threshold = max(1, min(THRESHOLD, int(within_s // SHORTEST_S)))
    return {"interval": str(SHORTEST_S), "probe_threshold": str(threshold)}


def az(words: str, /, **options: str | tuple[str, ...]) -> str:
    """Return an az command; `lb_name="x"` becomes `--lb-name x`, a tuple several values."""
    parts = ["az", words]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        parts.append(f"--{name.replace('_', '-')}")
        parts += [each if isinstance(each, Shell) else quote(each) for each in values]
    return " ".join(parts)


def assign_role(facts: DoctorFacts, action: str, scope: str) -> str:
    """Return the command that assigns the role of `deploy/roles` that contains an action."""
    kinds = {pool.kind for pool in facts.pools}
    role = role_for(
        action,
        has_only_ip_pools=kinds == {PoolKind.ADDRESS},
        close_only=facts.settings.policy.close_only,
        admin_state=facts.settings.policy.admin_state,
    )
    where = _assignment_scope(facts, role, scope.strip())
    return (
        _assign(facts, _role_name(facts, role), where)
        + f"  # deploy/roles/{role.value}.json defines the role; it must contain {action}"
    )


def assign_blob_role(facts: DoctorFacts) -> str:
    """Return the command that lets the identity read and write the blobs of the container."""
    account, container = storage_names(facts)
    found = az("storage account show", name=account, query="id", output="tsv")
    scope = Shell(f'"$({found})"{quote(f"/blobServices/default/containers/{container}")}')
    return (
        _assign(facts, _role_name(facts, Role.LEDGER), scope)
        + f"  # deploy/roles/{Role.LEDGER.value}.json defines the role; the built-in role 'Storage "
        "Blob Data Contributor' also contains what is missing"
    )


def _role_name(facts: DoctorFacts, role: Role) -> str:
    """Return the name of a role: names are unique in a tenant, so it ends with a subscription."""
    if isinstance(facts.instance, Instance):
        return f"{role.label} {facts.instance.subscription_id}"
    return f"{role.label} {short(_subscription(facts.settings.backend_pools[0].id))}"


def storage_names(facts: DoctorFacts) -> tuple[str, str]:
    """Return the names of the storage account and the container."""
    url = urlsplit(facts.settings.election.container_url)
    parts = url.path.strip("/").split("/")
    # Emulators have the account in the path, Azure in the host.
    account = parts[0] if len(parts) > 1 else (url.hostname or "").split(".", 1)[0]
    return account, parts[-1]


def assign_identity(facts: DoctorFacts) -> str:
    """Return the command that assigns this VM its managed identity."""
    client_id = facts.settings.azure.client_id
    if not client_id:
        return az("vm identity assign", ids=vm_id_of(facts))
    query = f"[?clientId=='{client_id}'].id"
    found = Shell(f'"$({az("identity list", query=query, output="tsv")})"')
    return az("vm identity assign", ids=vm_id_of(facts), identities=found)


def connection_tests(facts: DoctorFacts) -> tuple[str, ...]:
    """Return the commands that show why Azure's services cannot be reached."""
    azure, election = facts.settings.azure, facts.settings.election
    certificate = f" --cacert {quote(azure.ca_file)}" if azure.ca_file else ""
    proxies = " ".join(facts.proxies)
    unset = (
        f"unset {proxies}  # or configure this proxy to allow these hosts: requests to Resource "
        "Manager and storage use it",
    )
    return (unset if proxies else ()) + tuple(
        f"curl --silent --show-error --head{certificate} {quote(url)}  # must get a reply, with "
        "any status; if not, check name resolution, routes, firewalls and network security groups"
        for url in (f"{azure.resource_manager_endpoint}/", election.container_url)
    )


def group_and_name(resource_id: str) -> tuple[str, str]:
    """Return resource group and name of a top-level resource."""
    return resource_id.split("/")[4], short(resource_id)


def in_group(facts: DoctorFacts, resource_id: str) -> dict[str, str]:
    """Return the options of an az command that name the resource group of a resource.

    They name the subscription too if it is not that of this VM: without it az looks in the one
    that it is signed in to.
    """
    options = {"resource_group": group_and_name(resource_id)[0]}
    parts, here = resource_id.split("/"), facts.instance
    if isinstance(here, Instance) and fold(parts[2]) != fold(here.subscription_id):
        options["subscription"] = parts[2]
    return options


def vm_id_of(facts: DoctorFacts) -> str:
    """Return the id of this VM, or a placeholder while it is not known."""
    return facts.instance.vm_id if isinstance(facts.instance, Instance) else "VM_ID"


def _principal_id(facts: DoctorFacts) -> str:
    """Return the identity's object id, or a command substitution that finds it."""
    if isinstance(facts.principal_id, str) and facts.principal_id:
        return facts.principal_id
    query = "identity.principalId"
    return Shell(f'"$({az("vm show", ids=vm_id_of(facts), query=query, output="tsv")})"')


def _assign(facts: DoctorFacts, role: str, scope: str) -> str:
    return az(
        "role assignment create",
        assignee_object_id=_principal_id(facts),
        assignee_principal_type="ServicePrincipal",
        role=role,
        scope=scope,
    )


def _assignment_scope(facts: DoctorFacts, role: Role, scope: str) -> str:
    """Return where to assign a role, as `deploy/roles/README.md` describes it.

    That is the whole resource group for the groups of the set and its pools. In any other group,
    for example that of a shared network, it is only the resource that Azure named.
    """
    if role is Role.OPERATIONS:
        return _subscription(scope)
    return scope if is_elsewhere(facts, scope) else _group(scope)


def is_elsewhere(facts: DoctorFacts, resource_id: str) -> bool:
    """Return whether a resource is in no resource group of the set, its NICs and its pools."""
    ids = (
        *(vm.vm_id for vm in facts.known_vms),
        *(nic_id for vm in facts.known_vms for nic_id in vm.nic_ids),
        *(load_balancer_of(pool.id) for pool in facts.settings.backend_pools),
        *([facts.instance.vm_id] if isinstance(facts.instance, Instance) else []),
    )
    return fold(_group(resource_id)) not in {fold(_group(each)) for each in ids}


def _group(scope: str) -> str:
    """Return the resource group of a resource; the subscription if it is in none."""
    parts = scope.split("/")
    in_group = len(parts) >= 5 and fold(parts[3]) == "resourcegroups"
    return "/".join(parts[:5]) if in_group else _subscription(scope)


def _subscription(scope: str) -> str:
    return "/".join(scope.split("/")[:3])
