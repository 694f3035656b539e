"""A third mechanism, added by registration only: the application answers the probe, or does not.

A toy: each VM has an application that refuses the probe on request. Its pool membership stays.
What this file defines is what a mechanism needs: a membership, a view, the mechanism, its adapter,
and the registrations. The stored form follows from the membership.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from controller.agent.adapters import build_adapters
from controller.agent.mechanism_adapter import Adapters
from controller.agent.working_state import WorkingState
from controller.azure.network import MembershipGuard, Network
from controller.clock import Clock
from controller.core.action_keys import ActionKey, action_key
from controller.core.azure_names import fold, short
from controller.core.drain_history import Step
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import ChangeMembership, Phase, Read, ReadView
from controller.core.planning.mechanism import (
    Mechanisms,
    Proof,
    removal_over_at,
)
from controller.core.planning.mechanisms import MECHANISMS
from controller.core.planning.planner import plan
from controller.core.planning.pool_membership import Rotation
from controller.core.planning.views import Views
from controller.core.policy import Policy
from controller.core.resources import Membership, MembershipKey, NicMembership, Vm
from controller.errors import OutcomeUnknown
from controller.storage import ledger_json
from controller.storage.ledger_json import stored_form
from tests.component.test_reconciler import BACK_OFF_S, CONNECTION_DRAIN_S, leading
from tests.support.planner_scenario import APP, PlannerScenario, at, event, phase

# --- the core's side -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeMembership:
    """One VM that answers the probe of one pool."""

    pool_id: str
    vm: str

    @property
    def key(self) -> MembershipKey:
        return (fold(self.pool_id), "probe", fold(self.vm))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeView:
    """What an application was last seen to answer."""

    answers: bool
    observed_at: datetime


def probe_id(vm: str) -> str:
    return f"/probes/{fold(vm)}"


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The application refuses the probe: the load balancer sends no new connections."""

    name: str = "probe"
    membership_type: type[Any] = ProbeMembership
    shared: bool = False
    keeps_body: bool = False

    def resource_id(self, membership: ProbeMembership) -> str:
        return probe_id(membership.vm)

    def target(self, membership: ProbeMembership) -> ActionKey:
        return action_key("write", probe_id(membership.vm))

    def key(self, membership: ProbeMembership, *, restore: bool) -> ActionKey:
        return self.target(membership)

    def shown_by(self, membership: ProbeMembership) -> Read:
        return self._read(membership.vm)

    def refers_to(self, membership: ProbeMembership) -> Iterator[Read]:
        return iter(())

    def label(self, memberships: tuple[ProbeMembership, ...]) -> str:
        return f"the probe of {memberships[0].vm} ({short(memberships[0].pool_id)})"

    def under(self, policy: Policy) -> "ProbeAnswer":
        return self

    def to_record(self, views: Views, membership: Membership) -> Membership | None:
        return membership

    def in_rotation(self, observed: Observation, ledger: Ledger, joined: Rotation) -> Rotation:
        return {
            vm: self._answering(observed, vm, memberships) for vm, memberships in joined.items()
        }

    def unseen(self, views: Views, vm: Vm) -> Iterator[Read]:
        if self._view(views.observed, vm.name) is None:
            yield self._read(vm.name)

    def old_view(self, views: Views, membership: ProbeMembership) -> Read | None:
        view = self._view(views.observed, membership.vm)
        old = views.age_s(view.observed_at if view else None) > 10
        return self._read(membership.vm) if old else None

    def reads_to_record(self, views: Views, vm: Vm) -> Iterator[Read]:
        view = self._view(views.observed, vm.name)
        if views.age_s(view.observed_at if view else None) > 10:
            yield self._read(vm.name)

    def is_failed(self, views: Views, membership: ProbeMembership) -> bool:
        return False

    def is_over_due(self, views: Views, membership: ProbeMembership) -> bool:
        return False

    def proofs_out(self, views: Views, vm: Vm, entry: Entry) -> Iterator[Proof]:
        for membership in self._of(entry):
            resource_id, since = probe_id(membership.vm), entry.recorded_at
            if entry.restoring_at is not None:
                since = max(since, views.conclusive_from(resource_id, since=entry.restoring_at))
            yield self._proof(views, membership.vm, since)

    def rotation_views(
        self, views: Views, vm: Vm, entry: Entry, *, since: datetime
    ) -> Iterator[Proof]:
        yield self._proof(views, vm.name, since)

    def proofs_back(self, views: Views, entry: Entry) -> Iterator[Proof]:
        for membership in self._of(entry):
            out = not views.membership.is_member(membership)
            since = removal_over_at(views, entry, probe_id(membership.vm), out=out)
            yield self._proof(views, membership.vm, since)

    def identified(self, views: Views, vm: Vm, membership: ProbeMembership) -> Membership:
        return membership

    def unknown_owner(self, views: Views, vm: Vm, membership: ProbeMembership) -> Iterator[Read]:
        return iter(())

    def obstacle(self, views: Views, entry: Entry, membership: ProbeMembership) -> str:
        return ""

    def _of(self, entry: Entry) -> list[ProbeMembership]:
        return [m for m in entry.memberships if isinstance(m, ProbeMembership)][:1]

    def _read(self, vm: str) -> Read:
        return ReadView(mechanism=self.name, resource_id=probe_id(vm))

    def _view(self, observed: Observation, vm: str) -> ProbeView | None:
        view = observed.views.get(probe_id(vm))
        return view if isinstance(view, ProbeView) else None

    def _answering(
        self, observed: Observation, vm: str, memberships: tuple[Membership, ...]
    ) -> tuple[Membership, ...]:
        view = self._view(observed, vm)
        if view is not None and not view.answers:
            return ()
        return tuple(ProbeMembership(pool_id=each.pool_id, vm=vm) for each in memberships)

    def _proof(self, views: Views, vm: str, since: datetime) -> Proof:
        view = self._view(views.observed, vm)
        seen_at = view.observed_at if view else None
        return Proof(since=since, seen_at=seen_at, read=self._read(vm))


WITH_PROBE = Mechanisms((*MECHANISMS, ProbeAnswer()))

# --- the agent's side ----------------------------------------------------------------------------


@dataclass
class Applications:
    """The applications of the set, and the adapter that talks to them."""

    closed: set[str] = field(default_factory=set)
    changes: list[str] = field(default_factory=list)
    failing: int = 0
    """So many changes take effect without a reply."""
    state: WorkingState | None = None
    clock: Clock | None = None

    async def apply(self, action: ChangeMembership, guard: MembershipGuard) -> datetime:
        write = guard(())
        write.check()
        write.sent()
        self.changes.append(str(action))
        (self.closed.discard if action.restore else self.closed.add)(action.resource_id)
        if self.failing:
            self.failing -= 1
            raise OutcomeUnknown("the application did not reply")
        return self._look(action.resource_id).observed_at

    async def read(self, resource_id: str) -> None:
        self._look(resource_id)

    def forget_body(self, resource_id: str) -> None:
        raise AssertionError("no body is kept")

    def _look(self, resource_id: str) -> ProbeView:
        assert self.state is not None
        assert self.clock is not None
        answers = resource_id not in self.closed
        view = ProbeView(answers=answers, observed_at=self.clock.now())
        self.state.cache.views[resource_id] = view
        return view

    def adapters(self, network: Network, state: WorkingState, clock: Clock) -> Adapters:
        self.state, self.clock = state, clock
        return {**build_adapters(network, state, clock), "probe": self}


@pytest.fixture(autouse=True)
def _stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ledger_json.MEMBERSHIPS, "probe", stored_form(ProbeAnswer()))


# --- what it does --------------------------------------------------------------------------------


def test_the_planner_drains_and_restores_with_a_registered_mechanism() -> None:
    """Record, close, see closed, and open again, as for a NIC; no NIC is changed."""
    scene = PlannerScenario(events=[event()])
    ledger, answers = Ledger(), True

    def pass_(now: float) -> Any:
        nonlocal ledger
        scene.now = now
        views = {
            probe_id(name): ProbeView(answers=answers or name != "web-1", observed_at=at(now))
            for name in scene.inside
        }
        observed = scene.observe(views=views)
        for _ in range(3):
            planned = plan(observed, ledger, scene.policy, at(now), mechanisms=WITH_PROBE)
            if planned.ledger is None:
                return planned
            ledger = planned.ledger
        raise AssertionError("the ledger never says it all")

    planned = pass_(0)
    assert [str(action) for action in planned.actions] == ["remove the probe of web-1 (app)"]
    assert ledger.entries[0].memberships == (ProbeMembership(pool_id=APP, vm="web-1"),)
    answers = False
    assert phase(pass_(5)) is Phase.OUT
    scene.events = []
    planned = pass_(300)
    assert [str(action) for action in planned.actions] == ["restore the probe of web-1 (app)"]
    answers = True
    pass_(305)
    assert phase(pass_(330)) is Phase.IN_SERVICE
    assert ledger.entries == ()


@pytest.mark.parametrize("failing", [0, 1])
async def test_the_agent_drains_and_restores_with_a_registered_mechanism(
    tmp_path: Path, failing: int
) -> None:
    """The whole path: ledger in the blob, write guard, adapter, acknowledgement, restore."""
    applications = Applications(failing=failing)
    async with leading(
        tmp_path, "app", mechanisms=WITH_PROBE, adapters=applications.adapters
    ) as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        assert applications.closed == {probe_id("web-2")}
        (entry,) = ledger_json.decode_ledger(
            ledger_json.encode_ledger(leader.reconciler.ledger)
        ).entries
        assert [type(each) for each in entry.memberships] == [ProbeMembership]
        await leader.after(BACK_OFF_S)
        await leader.after(CONNECTION_DRAIN_S)
        await leader.round()
        steps = [line.step for line in leader.reconciler.ledger.transitions]
        assert steps[1:] == [Step.ANNOUNCED, Step.RECORDED, Step.OUT, Step.ACKNOWLEDGED]
        await leader.maintain(event_id)
        assert applications.closed == set()
        assert leader.inside("app") == ["web-1", "web-2", "web-3"], "the pool never changed"
        assert not [each for each in leader.asked if each.startswith("PUT web-2")]


def test_nic_memberships_are_left_to_their_own_mechanism() -> None:
    """The registry finds a mechanism by the type of the membership."""
    nic = NicMembership(pool_id=APP, nic_id="/nics/a", ip_configuration="c")
    assert WITH_PROBE.of(nic).name == "nic"
    assert WITH_PROBE.of(ProbeMembership(pool_id=APP, vm="a")).name == "probe"
