"""Two availability sets in one pool: what each may count on, and what it claims before it leaves.

The scenarios are two planners over one blob, which storage writes only for the etag that its writer
has read.
"""

from dataclasses import dataclass, field, replace

import pytest

from controller.core.azure_names import fold
from controller.core.planning.actions import PublishShare, ReadSharedPool
from controller.core.policy import Floor
from controller.core.shared_pools import PoolShare, PoolShares, SharedPool
from tests.support.planner_scenario import (
    API,
    APP,
    PlannerScenario,
    address,
    at,
    event,
    ip_id,
    nic_id,
    reasons,
    writes,
)

PASSES = 12


@dataclass
class PoolBlob:
    """The blob of the pool."""

    content: PoolShares = field(default_factory=lambda: PoolShares(pool_id=APP))
    version: int = 0

    def read(self, set_id: str, now: float) -> SharedPool:
        """Return what an agent of a set reads."""
        etag = str(self.version) if self.version else ""
        return SharedPool(
            shares=self.content, availability_set_id=set_id, etag=etag, observed_at=at(now)
        )

    def write(self, action: PublishShare) -> bool:
        """Write the content, if its writer has read the present one."""
        if action.etag != (str(self.version) if self.version else ""):
            return False
        self.content, self.version = action.shares, self.version + 1
        return True


@dataclass
class OneSet:
    """One of two sets that share the pool, with a leader of its own."""

    set_id: str
    vms: list[str]
    blob: PoolBlob
    scene: PlannerScenario = field(default_factory=PlannerScenario)

    def __post_init__(self) -> None:
        self.scene.inside = {vm: [APP] for vm in self.vms}

    def announce(self, *vms: str) -> None:
        """Announce an event for VMs of this set."""
        self.scene.events = [event(*vms)] if vms else []

    def floor(self, number: int, *, percent: bool = False, ignore: bool = False) -> None:
        """Set `min_in_service`."""
        floor = Floor(number=number, percent=percent, ignores_other_sets=ignore)
        self.scene.policy = replace(self.scene.policy, pools={APP: floor})

    def see(self, *others: "OneSet") -> None:
        """See in the pool what the other sets have in it."""
        self.scene.strangers = [ip_id(vm) for other in others for vm in other.inside]

    @property
    def inside(self) -> list[str]:
        """The VMs of this set that are in the pool."""
        return [vm for vm, pools in self.scene.inside.items() if pools]

    def step(self) -> None:
        """Plan once, and carry out what was planned; a write of the blob can be refused."""
        planned = self.scene.adopt(**({} if self.scene.shared else {"shared_pools": {}}))
        for action in planned.actions:
            if isinstance(action, ReadSharedPool):
                self.scene.shared = self.blob.read(self.set_id, self.scene.now)
            if isinstance(action, PublishShare):
                done = self.blob.write(action)
                known = self.scene.shared
                assert known
                outdated = replace(known, observed_at=at(-999999))
                self.scene.shared = (
                    self.blob.read(self.set_id, self.scene.now) if done else outdated
                )
        for write in writes(planned):
            for vm in self.scene.inside:
                if write.resource_id == nic_id(vm):
                    self.scene.inside[vm] = [APP] if write.restore else []


def two_sets(size: int, number: int, *, percent: bool = False) -> tuple[OneSet, OneSet]:
    """Return two sets of this size in one pool, with the same floor."""
    blob = PoolBlob()
    sets = tuple(
        OneSet(f"/sets/{name}", [f"{name}-{n}" for n in range(1, size + 1)], blob)
        for name in ("a", "b")
    )
    for each in sets:
        each.floor(number, percent=percent)
    return sets[0], sets[1]


def play(*sets: OneSet, passes: int = PASSES) -> int:
    """Let the leaders take turns; return the fewest members that the pool ever had."""
    fewest = sum(len(each.inside) for each in sets)
    for _ in range(passes):
        for each in sets:
            each.see(*(other for other in sets if other is not each))
        for each in sets:  # both have the same view of the pool
            each.step()
            each.scene.now += 1
        fewest = min(fewest, sum(len(each.inside) for each in sets))
    return fewest


def test_both_leave_at_once() -> None:
    """S2: of two sets with one VM each and one event each, only one VM leaves."""
    a, b = two_sets(1, 1)
    play(a, b)
    a.announce("a-1")
    b.announce("b-1")
    assert play(a, b) == 1
    assert len(a.inside) + len(b.inside) == 1


@pytest.mark.parametrize(
    ("number", "percent", "left"), [(50, True, 4), (4, False, 4), (7, False, 7)]
)
def test_a_floor_that_two_sets_keep_together(number: int, percent: bool, left: int) -> None:
    """S2: a floor of the whole pool is kept, whichever sets the VMs that leave belong to."""
    a, b = two_sets(4, number, percent=percent)
    play(a, b)
    b.announce(*b.vms)
    play(b, a)
    a.announce(*a.vms)
    assert play(a, b) == left


def test_the_second_leaves_when_the_first_is_back() -> None:
    """L2: a claim ends with the entry, and the other set goes on."""
    a, b = two_sets(1, 1)
    play(a, b)
    a.announce("a-1")
    b.announce("b-1")
    play(a, b)
    first, second = (a, b) if not a.inside else (b, a)
    first.announce()
    for _ in range(6):  # minutes, until the restore has settled
        first.scene.now += 60
        second.scene.now += 60
        second.scene.events = [event(*second.vms, not_before=second.scene.now + 300)]
        assert play(a, b) >= 1
    assert (first.inside, second.inside) == (first.vms, [])


def test_members_that_no_set_states_do_not_count() -> None:
    """S2: a machine of which nothing is known can leave at any moment; the hold names the cure."""
    a, b = two_sets(1, 1)
    a.see(b)
    a.announce("a-1")
    a.step()
    a.step()
    planned = a.scene.plan()
    assert (reasons(planned), a.inside) == ({"a-1": "floor"}, ["a-1"])
    assert 'or set shared = "ignore" for this pool' in planned.holds[0].message


def test_own_members_are_enough() -> None:
    """L2: a set that keeps the floor by itself waits for no other set."""
    a, b = two_sets(3, 2)
    a.see(b)
    a.announce("a-1")
    for _ in range(4):
        a.step()
    assert a.inside == ["a-2", "a-3"]
    share = a.blob.content.share_of("/SETS/A")
    assert share is not None
    assert share.out == (fold(nic_id("a-1")),)


def test_an_operator_counts_every_member() -> None:
    """`shared = "ignore"` counts all members, and states nothing to other sets."""
    a, b = two_sets(1, 1)
    a.floor(1, ignore=True)
    a.see(b)
    a.announce("a-1")
    for _ in range(3):
        a.step()
    assert (a.inside, a.blob.version) == ([], 0)


def test_a_pool_without_other_machines_has_no_blob() -> None:
    """H1: a set that shares no pool neither reads nor writes the blob of a pool."""
    scene = PlannerScenario(events=[event()])
    kinds = {type(action) for action in (*scene.adopt().actions, *scene.adopt().actions)}
    assert not kinds & {ReadSharedPool, PublishShare}


def test_a_new_leader_reads_the_blob_once() -> None:
    """S2: a set whose machines are all out is known from the blob alone."""
    scene = PlannerScenario()
    assert ReadSharedPool(APP) in scene.plan(shared_pools={}).actions


def test_an_idle_set_states_its_members_once() -> None:
    """H1: nothing is written while nothing changes, and the blob is read with every inventory."""
    a, b = two_sets(2, 1)
    play(a, b)
    version = a.blob.version
    assert version == 2
    play(a, b)
    assert a.blob.version == version
    play(a, b)
    a.scene.now += 250
    assert not any(isinstance(each, ReadSharedPool) for each in a.scene.plan().actions)
    a.scene.now += 300
    assert any(isinstance(each, ReadSharedPool) for each in a.scene.plan().actions)


def test_what_a_set_states_of_others_changes_nothing() -> None:
    """A share can only state machines of other sets out; it makes none of ours serve or leave."""
    a, _ = two_sets(1, 1)
    forged = PoolShare(
        availability_set_id="/sets/evil",
        members=(fold(nic_id("a-1")), "unknown"),
        out=(fold(nic_id("a-1")),),
        written_at=at(0),
    )
    a.blob.content = replace(a.blob.content, shares=(forged,))
    a.blob.version = 1
    a.scene.shared = a.blob.read(a.set_id, 0)
    a.announce("a-1")
    a.step()
    assert reasons(a.scene.plan()) == {"a-1": "floor"}


def test_addresses_are_machines_too() -> None:
    """S2: a member of an IP-based pool is stated by its address."""
    a, _ = two_sets(1, 1)
    a.scene.addresses = {APP: [address("other", "10.9.9.9")]}
    share = PoolShare(
        availability_set_id="/sets/b", members=("10.9.9.9",), out=(), written_at=at(0)
    )
    a.blob.content, a.blob.version = PoolShares(pool_id=APP, shares=(share,)), 1
    a.announce("a-1")
    for _ in range(5):
        a.step()
    assert a.inside == []


def test_a_set_states_only_what_is_in_the_pool() -> None:
    """A VM that is in other pools alone is no member here."""
    a, b = two_sets(2, 1)
    a.scene.inside["a-2"] = [API]
    a.scene.policy = replace(a.scene.policy, pools={APP: Floor(number=1), API: Floor(number=1)})
    a.see(b)
    a.step()
    a.step()
    share = a.blob.content.share_of("/sets/a")
    assert share is not None
    assert share.members == (fold(nic_id("a-1")),)


class Unwritable(PoolBlob):
    """A blob that this agent may only read."""

    def write(self, action: PublishShare) -> bool:
        """Refuse the content."""
        return False


def test_nothing_is_recorded_before_it_is_stated() -> None:
    """S2: as long as the other sets cannot know that a VM leaves, its removal does not begin."""
    a, b = two_sets(3, 1)
    a.blob = Unwritable()
    a.see(b)
    a.announce("a-1")
    for _ in range(6):
        a.step()
    assert (a.scene.ledger.entries, a.inside) == ((), a.vms)
