"""The commands that remove what Azure refuses lastingly, one function for each kind. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from shlex import quote
from types import MappingProxyType
from urllib.parse import urlsplit

from controller.azure.topology import Subnet
from controller.core.azure_names import short
from controller.doctor.facts import DoctorFacts
from controller.doctor.remedies import (
    Shell,
    assign_identity,
    assign_role,
    az,
    connection_tests,
    storage_names,
    vm_id_of,
)
from controller.errors import Denied, Obstacle

Fix = tuple[str, ...]
_SUBSCRIPTION = re.compile(
    r"subscription '([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})'", re.IGNORECASE
)


def remove_obstacle(facts: DoctorFacts, error: Denied) -> Fix:
    """Return what removes the obstacle of a refusal."""
    return _REMEDIES[error.obstacle](_Remedies(facts, error))


@dataclass(frozen=True, slots=True)
class _Remedies:
    """What removes each kind of obstacle."""

    facts: DoctorFacts
    error: Denied

    def role(self) -> Fix:
        lines = [assign_role(self.facts, action, scope) for action, scope in self.error.lacks]
        return tuple(dict.fromkeys(lines)) or (
            "[azure] cloud and client_id must be those of this subscription and identity",
            assign_identity(self.facts),
        )

    def deny_assignment(self) -> Fix:
        url = f"{_first(self.error.scope)}/providers/Microsoft.Authorization/denyAssignments"
        return (
            az("rest", method="get", url=f"{url}?api-version=2022-04-01")
            + "  # lists the deny assignments on this resource and their exclusions",
            "the owner of the deny assignment (a deployment stack, a managed application or a "
            "managed service) must exclude the managed identity; no role overrides it",
        )

    def tenant(self) -> Fix:
        return (
            az("account show", subscription=short(self.error.scope), query="tenantId")
            + "  # must be the tenant of the VMs",
            "use only resources of the tenant of the VMs on the NICs and in the pools; no role "
            "reaches across tenants",
        )

    def lock(self) -> Fix:
        scope = _first(self.error.scope) or "SCOPE"
        locks = f"{scope}/providers/Microsoft.Authorization/locks?api-version=2016-09-01"
        query = "value[?properties.level=='ReadOnly'].id"
        found = Shell(f'"$({az("rest", method="get", url=locks, query=query, output="tsv")})"')
        return (
            az("lock delete", ids=found) + "  # the agents cannot write below a read-only lock; a "
            "lock of the level CanNotDelete does not disturb them",
        )

    def policy(self) -> Fix:
        assignment = _first(self.error.scope)
        if not assignment:
            return (az("policy state list", query="[?complianceState=='NonCompliant']"),)
        scope, _, name = assignment.partition(
            "/providers/Microsoft.Authorization/policyAssignments/"
        )
        return (
            az("policy assignment show", name=name, scope=scope),
            "make the NIC or pool compliant, or exempt it: "
            + az(
                "policy exemption create",
                name="lb-drain",
                policy_assignment=assignment,
                exemption_category="Waiver",
                scope=_group_of_the_set(self.facts),
            ),
        )

    def subscription(self) -> Fix:
        # The refusal names the subscription: a pool can be in another one than the VM.
        named = _SUBSCRIPTION.search(str(self.error))
        here = vm_id_of(self.facts).split("/")[2:3] or ["SUBSCRIPTION"]
        return (
            az("account show", subscription=named[1] if named else here[0], query="state")
            + "  # must print Enabled; a disabled subscription is read-only: its billing owner "
            "enables it again",
        )

    def provider(self) -> Fix:
        names = ("Microsoft.Network", "Microsoft.Compute", "Microsoft.Storage")
        return tuple(az("provider register", namespace=name, wait=()) for name in names)

    def account(self) -> Fix:
        account, _ = storage_names(self.facts)
        return (
            az("storage account show", name=account, query="id")
            + "  # the account is disabled because its subscription is: enable that, or set "
            "container_url in [election] to an account of another one, on all VMs",
        )

    def firewall(self) -> Fix:
        account, _ = storage_names(self.facts)
        host = urlsplit(self.facts.settings.election.container_url).hostname or ""
        known = {each.subnet_id for each in self.facts.subnets.values() if isinstance(each, Subnet)}
        allow = (
            az("storage account network-rule add", account_name=account, subnet=each)
            for each in sorted(known) or ["SUBNET_ID"]
        )
        return (
            *allow,
            f"getent hosts {quote(host)}  # with a private endpoint: must print its address",
        )

    def key(self) -> Fix:
        return (
            "unset AZURE_STORAGE_CONNECTION_STRING  # the account accepts no keys: without this "
            "variable the agent uses the managed identity",
        )

    def immutable(self) -> Fix:
        account, container = storage_names(self.facts)
        return (
            az(
                "storage container immutability-policy show",
                account_name=account,
                container_name=container,
            ),
            _own_container(account),
        )

    def archived(self) -> Fix:
        account, _ = storage_names(self.facts)
        return (
            az("storage blob set-tier", blob_url=self.facts.blob_url, tier="Hot", auth_mode="login")
            + "  # takes up to 15 hours; then exclude the container from the lifecycle rules",
            _own_container(account),
        )

    def blob_type(self) -> Fix:
        delete = az("storage blob delete", blob_url=self.facts.blob_url, auth_mode="login")
        return (
            f"{delete}  # the agents create it again; do so only while no VM is out of rotation",
        )

    def authentication(self) -> Fix:
        return (
            "timedatectl set-ntp true  # a token is valid for its time only",
            "[azure] cloud must be the cloud of this subscription, and the storage account must be "
            "in the tenant of the managed identity",
        )

    def identities(self) -> Fix:
        query = "values(identity.userAssignedIdentities)[].clientId"
        return (
            'client_id = "…" in [azure]: the client id of the identity that has the roles',
            az("vm show", ids=vm_id_of(self.facts), query=query, output="tsv")
            + "  # lists the client ids",
        )

    def identity(self) -> Fix:
        return (assign_identity(self.facts),)

    def proxy(self) -> Fix:
        return connection_tests(self.facts)


def _own_container(account: str) -> str:
    create = az(
        "storage container create", account_name=account, name="lb-drain-agents", auth_mode="login"
    )
    return f"{create}  # or: a container of its own; set container_url in [election] on all VMs"


def _first(scopes: str) -> str:
    return scopes.split(",", maxsplit=1)[0].strip()


def _group_of_the_set(facts: DoctorFacts) -> str:
    return "/".join(vm_id_of(facts).split("/")[:5])


_REMEDIES: Mapping[Obstacle, Callable[[_Remedies], Fix]] = MappingProxyType(
    {
        Obstacle.ROLE: _Remedies.role,
        Obstacle.DENY_ASSIGNMENT: _Remedies.deny_assignment,
        Obstacle.TENANT: _Remedies.tenant,
        Obstacle.LOCK: _Remedies.lock,
        Obstacle.POLICY: _Remedies.policy,
        Obstacle.SUBSCRIPTION: _Remedies.subscription,
        Obstacle.PROVIDER: _Remedies.provider,
        Obstacle.ACCOUNT: _Remedies.account,
        Obstacle.FIREWALL: _Remedies.firewall,
        Obstacle.KEY: _Remedies.key,
        Obstacle.IMMUTABLE: _Remedies.immutable,
        Obstacle.ARCHIVED: _Remedies.archived,
        Obstacle.BLOB_TYPE: _Remedies.blob_type,
        Obstacle.AUTHENTICATION: _Remedies.authentication,
        Obstacle.IDENTITY: _Remedies.identity,
        Obstacle.IDENTITIES: _Remedies.identities,
        Obstacle.PROXY: _Remedies.proxy,
    }
)
