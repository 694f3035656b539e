"""Which ports count as service ports, and when they are not all known."""

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from controller.core.azure_names import load_balancer_of
from controller.core.resources import LoadBalancer, LoadBalancingRule
from controller.errors import ControllerError, Throttled
from controller.vm_side.service_ports import ServicePorts
from tests.support.planner_scenario import APP, at

if TYPE_CHECKING:
    from controller.azure.network import Network

NAME = load_balancer_of(APP).rpartition("/")[2]


class FakeNetwork:
    """Replies in turn; the last one stays."""

    def __init__(self, *replies: LoadBalancer | ControllerError) -> None:
        self._replies = list(replies)

    async def load_balancer(self, load_balancer_id: str) -> LoadBalancer:
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, ControllerError):
            raise reply
        return reply


class Waits:
    """Notes how long the reader sleeps, and lets no time pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, most: int = 100) -> None:
        self.seconds: list[float] = []
        self._most = most
        monkeypatch.setattr(ServicePorts, "_wanted_within", self._wait)

    async def _wait(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        if len(self.seconds) >= self._most:
            raise asyncio.CancelledError
        return False


def balancer(*ports: int, pool_id: str = APP) -> LoadBalancer:
    """Return a load balancer with one rule for each of these ports."""
    rules = tuple(
        LoadBalancingRule(rule_id=f"rule-{port}", pool_ids=(pool_id,), backend_port=port)
        for port in ports
    )
    return LoadBalancer(
        load_balancer_id=load_balancer_of(APP), sku="Standard", pools=(), rules=rules,
        observed_at=at(0),
    )  # fmt: skip


def ports(
    *replies: LoadBalancer | ControllerError, configured: tuple[int, ...] = ()
) -> ServicePorts:
    """Return the service ports of a set with one pool."""
    network = cast("Network", FakeNetwork(*replies))
    return ServicePorts(network, pool_ids=(APP,), configured=configured)


async def test_the_ports_are_not_known_before_the_rules_are_read() -> None:
    """No port is no proof that no connection is left."""
    known = ports(balancer(443, 80))
    assert (known(), known.problem) == ((), f"the rules of {NAME} have not been read")
    await known.read()
    assert (known(), known.problem) == ((80, 443), "")


async def test_what_could_not_be_read_is_read_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon, then ever later, and not before Azure allows it."""
    waits = Waits(monkeypatch)
    known = ports(Throttled("429", retry_after_s=15.0), *[Throttled("429")] * 6, balancer(80))
    await known.read()
    assert waits.seconds == [15, 20, 40, 80, 160, 300, 300]
    assert (known(), known.problem) == ((80,), "")


async def test_it_goes_on_stating_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer that is never read leaves the ports unknown."""
    Waits(monkeypatch, most=3)
    known = ports(ControllerError("403"))
    with pytest.raises(asyncio.CancelledError):
        await known.read()
    assert "have not been read" in known.problem


async def test_a_rule_for_all_ports_needs_configured_ones() -> None:
    """A rule for high availability has the backend port 0: connections can be on any port."""
    known = ports(balancer(0))
    await known.read()
    assert "set service_ports in [drain]" in known.problem
    assert ports(balancer(0), configured=(80,)).problem == ""


async def test_rules_of_other_pools_do_not_count() -> None:
    """A pool without a rule gets no connection through the load balancer."""
    known = ports(balancer(0, 22, pool_id=f"{APP}-other"))
    await known.read()
    assert (known(), known.problem) == ((), "")


async def test_a_port_that_is_added_later_counts_when_the_vm_closes() -> None:
    """S1: connections on it would not be counted, and the VM would be reported as quiet."""
    known = ports(balancer(80, 22), balancer(443, 80))
    running = asyncio.create_task(known.run())
    await asyncio.sleep(0)
    assert known() == (22, 80)
    known.read_again()
    for _ in range(3):
        await asyncio.sleep(0)
    assert known() == (80, 443)
    running.cancel()


async def test_rules_that_cannot_be_read_again_count_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VM becomes quiet also while Resource Manager does not answer."""
    Waits(monkeypatch, most=3)
    known = ports(balancer(80), ControllerError("503"))
    await known.read()
    known.read_again()
    with pytest.raises(asyncio.CancelledError):
        await known.read()
    assert (known(), known.problem) == ((80,), "")


async def test_a_vm_that_closes_waits_for_no_earlier_failure() -> None:
    """L2: Resource Manager answers again, and the next try may be due in five minutes.

    Until then the count of a VM whose rules were never read is no count, and it is not quiet.
    """
    known = ports(ControllerError("503"), balancer(80))
    running = asyncio.create_task(known.run())
    await asyncio.sleep(0)
    assert "have not been read" in known.problem
    known.read_again()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (known(), known.problem) == ((80,), "")
    running.cancel()
