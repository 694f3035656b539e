"""The doctor of a set whose VMs leave by adminState: which pools take it, and what is needed."""

from dataclasses import replace
from typing import Any

import pytest

from controller.config.schema import Settings
from controller.doctor.facts import DoctorFacts, Failed
from controller.doctor.report import Finding, Result
from controller.doctor.run import run_checks
from controller.errors import ControllerError, Denied, OutcomeUnknown, ServiceFault, StateRefused
from tests.support.doctor_facts import APP, LB, VMS, balancer_of, healthy, read, settings

POOL_WRITE = "Microsoft.Network/loadBalancers/backendAddressPools/write"
NIC_WRITE = "Microsoft.Network/networkInterfaces/write"


def by_state(**facts: Any) -> DoctorFacts:
    given = settings().model_dump(mode="json")
    given["policy"]["mechanism"] = "admin-state"
    known = {"settings": Settings.model_validate(given), "pool_writes": {APP.casefold(): True}}
    return replace(healthy(), **{**known, **facts})


def finding(facts: DoctorFacts, check: str) -> Finding:
    return next(each for each in run_checks(facts).findings if each.check == check)


def refused_by_azure() -> ControllerError:
    error = ServiceFault("pool put: 400 ModificationOfNICIpConfigBackendPoolNotSupported")
    error.status = 400
    return error


def test_pools_of_nics_are_written() -> None:
    """The permission is probed for every pool."""
    assert finding(by_state(), "write-pools").result is Result.PASS


@pytest.mark.parametrize("error", [refused_by_azure(), StateRefused("its list is not complete")])
def test_a_pool_that_refuses_is_a_warning(error: ControllerError) -> None:
    """Its VMs are removed instead, which is what the finding says."""
    found = finding(by_state(pool_writes={APP.casefold(): Failed(error)}), "write-pools")
    assert found.result is Result.WARN
    assert "VMs are removed from it" in found.message


def test_a_missing_permission_names_its_role() -> None:
    """The role for adminState contains the write of pools, and none of NICs."""
    error = Denied("no", action=POOL_WRITE, scope=APP)
    found = finding(by_state(pool_writes={APP.casefold(): Failed(error)}), "write-pools")
    assert found.result is Result.FAIL
    assert "deploy/roles/admin-state.json" in found.fix[0]


def test_what_is_not_known_is_not_taken_for_a_refusal() -> None:
    """A reply that did not come says nothing about the pool."""
    unknown = Failed(OutcomeUnknown("no answer"))
    found = finding(by_state(pool_writes={APP.casefold(): unknown}), "write-pools")
    assert "VMs are removed from it" not in found.message


def test_the_write_of_nics_is_only_needed_where_adminstate_does_not_work() -> None:
    """Without that permission the agent works, as long as its pools take adminState."""
    denied = Failed(Denied("no", action=NIC_WRITE, scope="nic"))
    writes = dict.fromkeys(healthy().nic_writes, denied)
    found = finding(by_state(nic_writes=writes), "write-nics")
    assert found.result is Result.WARN
    assert found.message.endswith("needed only for pools that do not take adminState")
    assert finding(replace(healthy(), nic_writes=writes), "write-nics").result is Result.FAIL


def test_a_rule_without_a_probe_fails_for_two_reasons() -> None:
    """Down has no effect there."""
    rule = {"backendAddressPool": {"id": APP}, "backendPort": 80, "protocol": "Tcp"}
    rules = [{"id": f"{LB}/loadBalancingRules/rule", "name": "rule", "properties": rule}]
    balancers = {LB.casefold(): read(balancer_of(*VMS, loadBalancingRules=rules))}
    found = finding(by_state(load_balancers=balancers), "probe")
    assert found.result is Result.FAIL
    assert "adminState Down has no effect without a probe" in found.message
    ordinary = finding(replace(healthy(), load_balancers=balancers), "probe")
    assert "adminState" not in ordinary.message
