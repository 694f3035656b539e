"""The facts of a healthy set, for tests that change single facts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.azure.imds import Poll
from controller.azure.imds_document import Instance
from controller.azure.network_bodies import parse_load_balancer, parse_nic
from controller.azure.topology import Subnet, parse_load_balancer_details
from controller.azure.vm_set import VmSet
from controller.config.schema import Settings
from controller.core.events import EventDocument
from controller.core.ledger import Entry, Ledger
from controller.core.resources import NicMembership, PowerState, Vm
from controller.doctor.facts import DoctorFacts
from controller.doctor.report import Finding, Report
from controller.doctor.run import run_checks
from controller.status.ledger_view import LeaseStatus

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web"
NETWORK = f"{GROUP}/providers/Microsoft.Network"
COMPUTE = f"{GROUP}/providers/Microsoft.Compute"
LB = f"{NETWORK}/loadBalancers/lb"
APP, SPARE = f"{LB}/backendAddressPools/app", f"{LB}/backendAddressPools/spare"
SUBNET = f"{NETWORK}/virtualNetworks/net/subnets/default"
NAT = f"{NETWORK}/natGateways/nat"
VMS = ("web-1", "web-2", "web-3")
IDENTITY = "99999999-2222-4333-8444-555555555555"


def settings(**pool: Any) -> Settings:
    return Settings.model_validate(
        {
            "backend_pools": [{"id": APP, **pool}],
            "election": {"container_url": "https://account.blob.core.windows.net/lb-drain"},
        }
    )


def nic_id(vm: str) -> str:
    return f"{NETWORK}/networkInterfaces/{vm}-nic"


def nic_of(vm: str, *pools: str) -> dict[str, Any]:
    order = int(vm[-1])
    properties: dict[str, Any] = {
        "privateIPAddress": f"10.0.0.{order}",
        "subnet": {"id": SUBNET},
        "loadBalancerBackendAddressPools": [{"id": pool} for pool in pools],
    }
    return {
        "id": nic_id(vm),
        "etag": "1",
        "properties": {
            "virtualMachine": {"id": f"{COMPUTE}/virtualMachines/{vm}"},
            "ipConfigurations": [{"name": "ipconfig1", "properties": properties}],
        },
    }


def balancer_of(*vms: str, **properties: Any) -> dict[str, Any]:
    """A public load balancer whose pool app holds these VMs and has one probed rule."""
    members = [{"id": f"{nic_id(vm)}/ipConfigurations/ipconfig1"} for vm in vms]
    rule = {
        "backendAddressPool": {"id": APP},
        "backendPort": 8080,
        "protocol": "Tcp",
        "probe": {"id": f"{LB}/probes/http"},
    }
    return {
        "id": LB,
        "sku": {"name": "Standard"},
        "properties": {
            "frontendIPConfigurations": [
                {"name": "front", "properties": {"publicIPAddress": {"id": "ip"}}}
            ],
            "backendAddressPools": [
                {"id": APP, "properties": {"backendIPConfigurations": members}},
                {"id": SPARE, "properties": {}},
            ],
            "loadBalancingRules": [{"name": "rule", "properties": rule}],
            "probes": [{"name": "http"}],
            **properties,
        },
    }


def read(balancer: dict[str, Any]) -> Any:
    return parse_load_balancer_details(balancer, parse_load_balancer(balancer, NOW))


def healthy() -> DoctorFacts:
    """Return the facts of a healthy set before the first agent has started."""
    nics = {nic_id(vm).casefold(): parse_nic(nic_of(vm, APP), NOW) for vm in VMS}
    instance = Instance(
        name="web-1",
        vm_id=f"{COMPUTE}/virtualMachines/web-1",
        subscription_id="11111111-2222-4333-8444-555555555555",
        resource_group="web",
        location="westeurope",
        environment="AzurePublicCloud",
    )
    return DoctorFacts(
        settings=settings(),
        proxies=(),
        identity_overrides=(),
        instance=instance,
        poll=Poll(document=EventDocument(incarnation=1), date=NOW),
        poll_sent_at=NOW + timedelta(seconds=0.4),
        poll_answered_at=NOW + timedelta(seconds=0.6),
        principal_id=IDENTITY,
        availability_set=VmSet(
            set_id=f"{COMPUTE}/availabilitySets/set",
            vm_ids=tuple(f"{COMPUTE}/virtualMachines/{vm}" for vm in VMS),
        ),
        vms=tuple(
            Vm(
                name=vm,
                vm_id=f"{COMPUTE}/virtualMachines/{vm}",
                nic_ids=(nic_id(vm),),
                power=PowerState.RUNNING,
            )
            for vm in VMS
        ),
        nic_list=None,
        nics=nics,
        load_balancers={LB.casefold(): read(balancer_of(*VMS))},
        shared_pools={},
        subnets={
            SUBNET.casefold(): Subnet(subnet_id=SUBNET, nat_gateway_id=NAT, route_table_id="")
        },
        operations=None,
        blob_url="https://account.blob.core.windows.net/lb-drain/s/web/set.json",
        lease=LeaseStatus(lease_state="available", ledger=Ledger(), at=NOW),
        blob_write=None,
        nic_writes=dict.fromkeys(nics, True),
        pool_writes={},
    )


def of(report: Report, check: str) -> Finding:
    (found,) = [each for each in report.findings if each.check == check]
    return found


def judged(check: str, **facts: Any) -> Finding:
    """Return the finding of a check when some facts are other than healthy."""
    return of(run_checks(replace(healthy(), **facts)), check)


def with_nics(*bodies: dict[str, Any]) -> dict[str, Any]:
    nics = {body["id"].casefold(): parse_nic(body, NOW) for body in bodies}
    return {**healthy().nics, **nics}


def entry(vm: str) -> Entry:
    membership = NicMembership(pool_id=APP, nic_id=nic_id(vm), ip_configuration="ipconfig1")
    return Entry(vm=vm, vm_id="", events=(), memberships=(membership,), recorded_at=NOW)
