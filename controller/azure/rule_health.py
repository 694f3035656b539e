"""The health of load balancing rules: which members of a pool pass the probe, as Azure sees it.

`POST .../loadBalancingRules/{rule}/health` answers 202, and its `Location` the members with their
state and its reason (Microsoft docs, Manage Azure Load Balancer health status). It needs
`Microsoft.Network/loadBalancers/loadBalancingRules/health/action`, which is no part of the shipped
role, so a refusal is neither counted nor logged.
"""

from collections.abc import Iterable

from controller.azure.http.arm_action import ArmAction
from controller.azure.http.arm_client import Arm
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.resource_id import ResourceId
from controller.azure.rule_health_bodies import members_down, pool_health
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.resources import LoadBalancingRule, MembershipKey, PoolHealth


class RuleHealth:
    """Client for the health of rules."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore_outcome) -> None:
        self._clock, self._observer = clock, observer
        # Without the api-version of the service: where a cloud does not know this action, the
        # version of everything else stays.
        caller = Caller(service="network", clock=clock, observer=self._observe)
        self._action = ArmAction(arm, caller)

    async def of_pools(
        self, rules: Iterable[LoadBalancingRule], pool_ids: Iterable[str]
    ) -> tuple[PoolHealth, ...]:
        """Return what the rules show of these pools, as of now.

        A rule without a member that is up shows nothing about one drain, and is not used. Of a
        rule that could not be read there is no health: no member is down by every rule then.

        Raises:
            ControllerError: the health of a rule could not be read.
        """
        at = self._clock.now()
        down: dict[str, list[frozenset[MembershipKey]]] = {fold(each): [] for each in pool_ids}
        for rule in rules:
            for pool_id in {fold(each) for each in rule.pool_ids} & down.keys():
                if not rule.rule_id:
                    down[pool_id].append(frozenset())
                    continue
                ResourceId.parse(rule.rule_id)
                body = await self._action.post("rule_health", f"{rule.rule_id}/health")
                down[pool_id].append(members_down(body, pool_id))
        return tuple(pool_health(pool_id, by_rule, at) for pool_id, by_rule in sorted(down.items()))

    def _observe(self, service: str, operation: str, outcome: str, duration_s: float) -> None:
        if outcome == "ok":
            self._observer(service, operation, outcome, duration_s)
