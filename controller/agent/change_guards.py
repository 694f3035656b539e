"""What is checked right before a write leaves, and what is recorded when it does (laws S1, S4, S6).

Between the decision to write and its first byte the lease can expire, an event or a drain request
can appear for a VM that is about to be restored, and a VM whose event is about to be acknowledged
can be put back.
"""

from collections.abc import Callable
from functools import partial

from controller.agent.event_watcher import EventWatcher
from controller.agent.operator_blobs import OperatorBlobs
from controller.agent.tenure import Tenure
from controller.agent.working_state import WorkingState
from controller.azure.http.write_guard import WriteGuard
from controller.azure.network import MembershipGuard
from controller.config.in_force import ConfigurationInForce
from controller.core.action_keys import ActionKey
from controller.core.planning import operator_controls
from controller.core.planning.actions import Acknowledge, ChangeMembership
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.views import keeps_out
from controller.core.resources import Membership, member_key
from controller.errors import Outdated

InFlight = Callable[[], frozenset[ActionKey]]
"""Returns the targets of the actions under way."""


class ChangeGuards:
    """Makes the guards of one agent's writes.

    Args:
        tenure: whether a write may leave.
        state: where writes are recorded.
        watcher, operator, configuration: whether a VM still has to stay out, or in.
        mechanisms: the ways to take a VM out of rotation.
    """

    def __init__(
        self,
        *,
        tenure: Tenure,
        state: WorkingState,
        watcher: EventWatcher,
        operator: OperatorBlobs,
        configuration: ConfigurationInForce,
        mechanisms: Mechanisms,
    ) -> None:
        self._tenure, self._state = tenure, state
        self._watcher, self._operator, self._configuration = watcher, operator, configuration
        self._mechanisms = mechanisms

    def for_acknowledgement(self, action: Acknowledge, number: int, busy: InFlight) -> WriteGuard:
        """Return the guard of an acknowledgement.

        Args:
            action: the acknowledgement.
            number: the tenure that sends it.
            busy: returns the targets of the actions under way.
        """
        return WriteGuard(check=partial(self._check_acknowledgement, action, number, busy))

    def of_tenure(self, number: int) -> WriteGuard:
        """Return the guard of a write that depends on nothing but leadership.

        Args:
            number: the tenure that sends it.
        """
        return WriteGuard(check=partial(self._tenure.check, number))

    def for_change(self, action: ChangeMembership, number: int) -> MembershipGuard:
        """Return the guard of a write to a NIC or pool.

        Args:
            action: the write.
            number: the tenure that sends it.
        """

        def guard(skipped: tuple[Membership, ...]) -> WriteGuard:
            return WriteGuard(
                check=partial(self._check, action, number),
                sent=partial(self._sent, action, skipped),
                accepted=partial(self._state.ability.accepted, action.key),
            )

        return guard

    def _check_acknowledgement(self, action: Acknowledge, number: int, busy: InFlight) -> None:
        """Law S1: since the acknowledgement was planned, what was read may be too old or differ."""
        self._tenure.check(number)
        ledger = self._tenure.ledger
        observed = self._state.observation(
            watcher=self._watcher,
            operator=self._operator,
            in_flight=busy(),
            pool_ids=ledger.pool_ids,
        )
        policy, now = self._configuration.policy, self._watcher.now()
        evidence = Evidence(observed, ledger, policy, now, self._mechanisms)
        if not operator_controls.may_acknowledge(action.event_id, evidence):
            raise Outdated("the event or its VMs changed meanwhile, they are read again first")

    def _check(self, action: ChangeMembership, number: int) -> None:
        self._tenure.check(number)
        if action.restore:
            self._check_wanted(action)
        elif self._operator.controls.controls.pause is not None:
            raise Outdated("removals were paused meanwhile")

    def _check_wanted(self, action: ChangeMembership) -> None:
        """Law S6: since the restore was planned, its VM may have to stay out again."""
        document, now = self._watcher.document, self._watcher.now()
        policy = self._configuration.policy
        places = {member_key(membership) for membership in action.memberships}
        for entry in self._tenure.ledger.entries:
            if any(member_key(membership) in places for membership in entry.memberships):
                for request in self._operator.requests.requests or ():
                    if request.covers(entry.vm, now):
                        raise Outdated(f"a drain of {entry.vm} was requested meanwhile")
                for event in document.events if document else ():
                    if event.affects(entry.vm) and keeps_out(event, entry, policy, now):
                        raise Outdated(f"an event for {entry.vm} was announced meanwhile")

    def _sent(self, action: ChangeMembership, skipped: tuple[Membership, ...]) -> None:
        changed = [each for each in action.memberships if each not in skipped]
        self._state.writes.sending(action.target, action.resource_id, changed, self._watcher.now())
