"""Rules of load balancers and their health, on the shapes that Microsoft documents."""

from types import SimpleNamespace
from typing import Any

import pytest

from controller import errors
from controller.azure import rule_health
from controller.azure.rule_health_bodies import members_down, parse_rules, pool_health
from controller.core.resources import LoadBalancingRule
from tests.support.clocks import StoppedClock
from tests.support.planner_scenario import at

LB = "/subscriptions/s/resourceGroups/web-rg/providers/Microsoft.Network/loadBalancers/web"
APP, API = (f"{LB}/backendAddressPools/{name}" for name in ("app", "api"))
RULE = f"{LB}/loadBalancingRules/http"
NIC = "/subscriptions/s/resourceGroups/web-rg/providers/Microsoft.Network/networkInterfaces/nic"


def rule(**properties: Any) -> dict[str, Any]:
    return {"name": "http", "id": RULE, "properties": properties}


def rules(*entries: object) -> dict[str, Any]:
    return {"loadBalancingRules": list(entries)}


def member(state: object, address: str = "10.0.0.4", nic: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {"ipAddress": address, "state": state, "reason": f"{state}_Probe"}
    return entry | ({"networkInterfaceIPConfigurationId": nic} if nic else {})


def health(*entries: object) -> dict[str, Any]:
    return {"up": 1, "down": 1, "loadBalancerBackendAddresses": list(entries)}


@pytest.mark.parametrize(
    ("properties", "pool_ids"),
    [
        ({"backendAddressPool": {"id": APP}}, (APP,)),
        ({"backendAddressPools": [{"id": APP}, {"id": API}]}, (APP, API)),
        ({"backendAddressPool": {"id": APP}, "backendAddressPools": [{"id": APP}]}, (APP,)),
    ],
)
def test_a_rule_names_its_pools(properties: dict[str, Any], pool_ids: tuple[str, ...]) -> None:
    """A rule names one pool or several, and often the same one in both places."""
    assert parse_rules(rules(rule(**properties))) == (
        LoadBalancingRule(rule_id=RULE, pool_ids=pool_ids),
    )


@pytest.mark.parametrize(
    "properties",
    [
        {},
        rules(rule()),
        rules({"properties": {"backendAddressPool": {"id": APP}}}),
        {"loadBalancingRules": "none"},
        rules(["no rule"]),
        rules(rule(backendAddressPool="app")),
    ],
)
def test_rules_that_cannot_be_used_are_none(properties: dict[str, Any]) -> None:
    """An odd rule is no reason to refuse a load balancer."""
    assert parse_rules(properties) == ()


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "no rule",
        {"id": f"{RULE}s", "properties": {"backendAddressPool": "app"}},
        {"id": f"{RULE}s", "properties": {"backendAddressPools": [None]}},
        {"properties": {"backendAddressPool": {"id": APP}, "backendPort": 443}},
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_rule_that_cannot_be_read_stands_for_one_to_every_pool(odd: object, first: bool) -> None:
    """S1: the other rules do not prove that a VM gets no new connection, or has none left."""
    good = rule(backendAddressPool={"id": APP}, backendPort=80)
    pools = {"backendAddressPools": [{"id": APP}, {"id": API}, "odd"]}
    found = parse_rules({**rules(*((odd, good) if first else (good, odd))), **pools})
    known = LoadBalancingRule(rule_id=RULE, pool_ids=(APP,), backend_port=80)
    assert sorted(found, key=lambda each: each.rule_id) == [
        LoadBalancingRule(rule_id="", pool_ids=(APP, API)),
        known,
    ]


def test_a_probe_that_cannot_be_read_hides_no_rule() -> None:
    """S1: a rule with such a probe counts as one without a probe, the others have theirs."""
    probes = [{"id": "p", "properties": {"port": 80}}, {"id": "q", "properties": "odd"}, None]
    entries = [
        rule(backendAddressPool={"id": APP}, probe={"id": "q"}),
        rule(backendAddressPool={"id": APP}, probe={"id": "p"}),
    ]
    found = parse_rules({**rules(*entries), "probes": probes})
    assert [each.probe.port if each.probe else None for each in found] == [None, 80]


async def test_no_member_is_down_by_a_rule_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S1: while one rule is not known, no member is down by every rule."""

    async def post(_operation: str, _path: str) -> dict[str, Any]:
        return health(member("Up", "10.0.0.4"), member("Down", "10.0.0.5"))

    monkeypatch.setattr(rule_health, "ArmAction", lambda *_: SimpleNamespace(post=post))
    no_arm: Any = None
    client = rule_health.RuleHealth(no_arm, clock=StoppedClock())
    known = LoadBalancingRule(rule_id=RULE, pool_ids=(APP,))
    unread = LoadBalancingRule(rule_id="", pool_ids=(APP, API))
    (whole,) = await client.of_pools((known,), (APP,))
    assert len(whole.down_by_every_rule) == 1
    (part,) = await client.of_pools((known, unread), (APP,))
    assert (part.down, part.down_by_every_rule) == (whole.down, frozenset())


def test_members_that_are_down_are_known_by_nic_and_address() -> None:
    """The report names an address and, for a NIC, its ipConfiguration, in any spelling."""
    body = health(
        member("Up", "10.0.0.4", f"{NIC}1/ipConfigurations/a"),
        member("Down", "10.0.0.5", f"{NIC}2/ipConfigurations/A".upper()),
        member("down", "10.0.0.6"),
    )
    assert members_down(body, APP.upper()) == {
        (APP.casefold(), "address", "10.0.0.5"),
        (APP.casefold(), f"{NIC}2".casefold(), "a"),
        (APP.casefold(), "address", "10.0.0.6"),
    }


@pytest.mark.parametrize(
    "body",
    [
        health(),
        health(member("Down"), member("Down", "10.0.0.5")),
        health(member("Down"), member("Draining", "10.0.0.5")),
        health(member("Down"), member(None, "10.0.0.5")),
        {},
    ],
)
def test_a_rule_without_a_member_that_is_up_says_nothing(body: dict[str, Any]) -> None:
    """A rule that nothing answers holds back no drain."""
    assert members_down(body, APP) == frozenset()


def test_unknown_states_are_not_down() -> None:
    """Only a member that is reported as down does not count."""
    body = health(member("Up"), member("Draining", "10.0.0.5"), member(7, "10.0.0.6"))
    assert members_down(body, APP) == frozenset()


@pytest.mark.parametrize("entries", ["none", ["no member"], {"a": 1}])
def test_a_report_with_another_shape_is_refused(entries: object) -> None:
    """A report that breaks the documented shape is not used."""
    with pytest.raises(errors.ContractViolation):
        members_down({"loadBalancerBackendAddresses": entries}, APP)


def test_down_by_one_rule_is_not_down_by_every_rule() -> None:
    """S1, S2: the floor does not count a member of which one rule is sure; proof needs them all."""
    one, both = ("app", "nic", "first"), ("app", "nic", "second")
    health = pool_health("app", [frozenset({one, both}), frozenset({both})], at(0))
    assert health.down == {one, both}
    assert health.down_by_every_rule == {both}
    silent = pool_health("app", [frozenset({both}), frozenset()], at(0))
    assert silent.down_by_every_rule == frozenset()
    assert pool_health("app", [], at(0)).down_by_every_rule == frozenset()
