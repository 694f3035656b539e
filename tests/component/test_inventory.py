"""The inventory against the simulated Azure: what it costs, and what it does without a list."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.core.ability import UNABLE_AFTER_S, operation_of
from controller.core.azure_names import load_balancer_of, short
from controller.core.planning.actions import ReadLoadBalancer, ReadNic, ReadPower
from controller.core.presence import Existence
from controller.core.resources import PowerState
from controller.errors import ControllerError, Denied, ServiceFault
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Request
from tests.support.inventory import Open
from tests.support.inventory import open_inventory as inventory_of

VM_LIST, NIC_LIST = "/virtualMachines", "/networkInterfaces"
WAIT = (("Retry-After", "1200"),)


@pytest.fixture
def open_inventory(tmp_path: Path) -> Open:
    """Return what opens an inventory of a world with these options."""
    return partial(inventory_of, tmp_path)


# --- cost (H1) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vms", "others", "lists"),
    [(1, 0, True), (3, 0, True), (3, 1000, True), (60, 0, True), (60, 300, True), (60, 0, False)],
)
async def test_reads_of_an_idle_set(
    open_inventory: Open, vms: int, others: int, lists: bool
) -> None:
    """H1: below 60 reads an hour, beside 1000 other VMs too, and when Azure refuses the lists."""
    async with open_inventory(vms=vms, foreign_vms=others) as inventory:
        if not lists:
            inventory.fault(VM_LIST, status=403)
            inventory.fault(NIC_LIST, status=403)
        assert 0 < await inventory.reads_in_an_hour() < 60
        assert len(inventory.known) == vms
        assert not inventory.problems


async def test_the_first_inventory_beside_many_others_is_cheap(open_inventory: Open) -> None:
    """H1: a long list is left as soon as single reads cost no more."""
    async with open_inventory(vms=3, foreign_vms=1000) as inventory:
        await inventory.reader.read()
        assert inventory.asked.total() <= 2 + 2 * (3 + 3)
        assert len(inventory.known) == 3


async def test_single_reads_renew_every_vm_in_turn(open_inventory: Open) -> None:
    """Without lists every VM and NIC is still read again, some in each inventory."""
    async with open_inventory(vms=25) as inventory:
        inventory.fault(VM_LIST, status=403)
        inventory.fault(NIC_LIST, status=403)
        await inventory.reader.read()
        inventory.asked.clear()
        for _ in range(3):
            await inventory.read()
        names = {vm.name for vm in inventory.world.peers()}
        assert {each for each in inventory.asked if each in names} == names
        assert all(inventory.asked[f"{name}-nic"] for name in names)


async def test_what_an_inventory_reads_is_no_inability(open_inventory: Open) -> None:
    """S7: one failure before it does not hand over the lease when the next event is due."""
    async with open_inventory(vms=3) as inventory:
        await inventory.reader.read()
        (lb, *_), nic = inventory.world.pool_ids(), inventory.state.cache.nics[0]
        ability = inventory.state.ability
        for action in (ReadLoadBalancer(load_balancer_of(lb)), ReadNic(nic.nic_id)):
            ability.begin(1)
            operation = operation_of(action)
            ability.tried(operation, action.key, ServiceFault("500"))
            ability.planned({operation})
            inventory.clock.move(UNABLE_AFTER_S)
            assert ability.inability(1)
            await inventory.reader.read()
            assert ability.inability(1) is None


# --- without a list (L2) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 400, "body": '{"error": {"code": "InvalidParameter", "message": "x"}}'},
        {"status": 403},
        {"status": 404},
        {"status": 429, "headers": WAIT},
        {"status": 502, "body": "<html>"},
        {"status": 200, "body": "["},
        {"status": 200, "body": '{"value": [5, null, {"id": []}], "nextLink": {}}'},
        {"effect": Effect.RESET_BEFORE},
    ],
    ids=str,
)
@pytest.mark.parametrize("which", [VM_LIST, NIC_LIST])
async def test_a_list_that_fails_is_replaced(
    open_inventory: Open, which: str, answer: dict[str, Any]
) -> None:
    """L2: every VM and NIC is known, whatever their list answers."""
    async with open_inventory(vms=3) as inventory:
        inventory.fault(which, **answer)
        await inventory.reader.read()
        assert len(inventory.known) == 3
        assert not inventory.problems


async def test_an_inventory_returns_why_it_does_not_describe_every_vm(open_inventory: Open) -> None:
    """K1: another agent may have the permission; a VM that Azure describes wrongly is no reason."""
    async with open_inventory(vms=3) as inventory:
        assert await inventory.reader.read() is None
        inventory.fault(VM_LIST, status=403)
        inventory.fault(lambda request: request.path.endswith("/web-1"), status=403)
        assert isinstance(await inventory.reader.read(), Denied)


async def test_a_cut_chain_of_pages_costs_only_the_rest(open_inventory: Open) -> None:
    """L2: the pages that were read are used; only VMs on the other ones are read singly."""
    async with open_inventory(vms=9) as inventory:
        inventory.world.settings.list_page_size = 3
        inventory.fault(
            lambda request: (
                request.path.endswith(VM_LIST) and len(request.query) > 2  # a later page
            ),
            status=500,
        )
        await inventory.reader.read()
        assert len(inventory.known) == 9
        singles = sum(inventory.asked[vm.name] for vm in inventory.world.peers())
        assert singles == 6


async def test_pages_that_repeat_end(open_inventory: Open) -> None:
    """A list that refers to itself is left, and a VM that is on two pages is one VM."""
    async with open_inventory(vms=3) as inventory:
        url = f"{inventory.server.arm_url}{VM_LIST}?api-version=2025-04-01"
        body = {"value": [{"id": vm.resource_id} for vm in inventory.world.peers()] * 2}
        inventory.fault(VM_LIST, status=200, body=json.dumps({**body, "nextLink": url}))
        await inventory.reader.read()
        assert inventory.asked["virtualMachines"] <= 3
        assert len(inventory.state.cache.vms) == len(inventory.known) == 3


async def test_an_empty_page_with_a_next_link_is_not_the_end(open_inventory: Open) -> None:
    """Azure sends empty pages; the entries on the next one are found."""
    async with open_inventory(vms=3) as inventory:
        real: list[str] = []

        def first(request: Request) -> bool:
            real.append(request.path)
            return request.path.endswith(VM_LIST) and len(real) < 4

        link = f"{inventory.server.arm_url}{inventory.world.availability_set_id}"
        path = link.rpartition("/availabilitySets")[0] + VM_LIST
        query = "?api-version=2025-04-01&$expand=instanceView"
        body = json.dumps({"value": [], "nextLink": path + query})
        inventory.fault(first, status=200, body=body)
        await inventory.reader.read()
        assert len(inventory.known) == 3


async def test_a_refused_expand_is_remembered(open_inventory: Open) -> None:
    """K4: Azure refuses the list with instance views once; afterwards it is read without them."""
    async with open_inventory(vms=3) as inventory:
        refused: list[Request] = []

        def expanded(request: Request) -> bool:
            hit = request.path.endswith(VM_LIST) and bool(request.parameter("$expand"))
            refused.extend([request] * hit)
            return hit

        inventory.fault(expanded, status=400, body='{"error": {"code": "X", "message": "y"}}')
        for _ in range(3):
            await inventory.read()
        assert len(refused) == 1
        assert len(inventory.known) == 3
        vm_id = inventory.world.vm("web-1").resource_id
        assert await inventory.reader.power(ReadPower(vm_id)) is PowerState.RUNNING


async def test_the_set_is_not_found_once(open_inventory: Open) -> None:
    """K2: a 404 of the set hides no VM: those that are known stay."""
    async with open_inventory(vms=3) as inventory:
        await inventory.reader.read()
        inventory.fault(short(inventory.world.availability_set_id), status=404)
        await inventory.read()
        assert len(inventory.known) == 3
        assert inventory.state.inventory.holes_in_a_row == 1
        inventory.heal()
        await inventory.read()
        assert inventory.state.inventory.holes_in_a_row == 0


async def test_the_set_is_not_found_at_first(open_inventory: Open) -> None:
    """K2: the VMs that were in the set when the agent started are read by their names."""
    async with open_inventory(vms=3) as inventory:
        inventory.fault(short(inventory.world.availability_set_id), status=404)
        await inventory.reader.read()
        assert len(inventory.known) == 3


@pytest.mark.parametrize(("status", "reported"), [(403, True), (503, True), (404, False)])
async def test_a_set_that_cannot_be_read(open_inventory: Open, status: int, reported: bool) -> None:
    """K8: that added VMs are not known is reported when it lasts; the known VMs stay in use."""
    async with open_inventory(vms=3) as inventory:
        await inventory.reader.read()
        inventory.fault(short(inventory.world.availability_set_id), status=status)
        await inventory.read()
        assert not inventory.state.set_read.problem
        await inventory.read()
        assert bool(inventory.state.set_read.problem) is reported
        assert len(inventory.known) == 3
        inventory.heal()
        await inventory.read()
        assert not inventory.state.set_read.problem
        presence = inventory.state.cache.presence[inventory.world.availability_set_id.casefold()]
        assert presence.existence is Existence.PRESENT


async def test_one_odd_entry_of_the_set(open_inventory: Open) -> None:
    """K4: an entry of the set that cannot be read hides no other VM."""
    async with open_inventory(vms=3) as inventory:
        ids: list[Any] = [{"id": vm.resource_id} for vm in inventory.world.peers()]
        body = {
            "id": inventory.world.availability_set_id,
            "properties": {"virtualMachines": [None, {"id": 7}, ids[0], ids[0]]},
        }
        inventory.fault(short(body["id"]), status=200, body=json.dumps(body))
        await inventory.reader.read()
        assert len(inventory.known) == 3, "the others are known from the start"


# --- waits (K1) ----------------------------------------------------------------------------------


async def test_one_vm_that_is_throttled(open_inventory: Open) -> None:
    """L2: a 429 of one VM defers that VM; it is found by its NIC, and asked for later."""
    async with open_inventory(vms=3) as inventory:
        inventory.fault(VM_LIST, status=429, headers=WAIT)
        inventory.fault("/virtualMachines/web-2", status=429, headers=WAIT)
        await inventory.reader.read()
        assert set(inventory.problems) == {"web-2"}
        assert len(inventory.known) == 3
        await inventory.read()
        assert inventory.asked["web-2"] == 1
        inventory.heal()
        inventory.clock.move(1201)
        await inventory.read()
        assert not inventory.problems


async def test_a_known_vm_that_is_throttled_is_not_set_aside(open_inventory: Open) -> None:
    """L2: what is known of a VM stays in use while Azure asks to wait."""
    async with open_inventory(vms=3) as inventory:
        await inventory.reader.read()
        inventory.fault(VM_LIST, status=429, headers=WAIT)
        inventory.fault("/virtualMachines/web-2", status=429, headers=WAIT)
        await inventory.read()
        assert not inventory.problems
        assert len(inventory.known) == 3


async def test_a_load_balancer_that_is_throttled_is_read_by_its_pools(
    open_inventory: Open,
) -> None:
    """K1: the pools are read by themselves, and the load balancer not before Azure allows it."""
    async with open_inventory(vms=3, pools=("app", "admin")) as inventory:
        owner = load_balancer_of(inventory.world.pool_id("app"))
        inventory.fault(short(owner), status=429, headers=WAIT)
        for _ in range(3):
            await inventory.reader.load_balancer(owner)
        assert {short(pool.pool_id) for pool in inventory.state.cache.pools} == {"app", "admin"}
        assert inventory.asked[short(owner)] == 1


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("status", [500, 503, 403])
async def test_each_pool_waits_as_long_as_azure_asked(
    open_inventory: Open, failing: int, status: int
) -> None:
    """H1: a pool is not read before Retry-After has passed, whatever the other pools answer."""
    async with open_inventory(vms=1, pools=("app", "api")) as it:
        await it.read()
        order = ("app", "api")
        other, asked_to_wait = order[failing], order[1 - failing]
        it.fault("/loadBalancers/web-lb", status=status)
        it.fault(f"/{other}", status=status)
        it.fault(f"/{asked_to_wait}", status=429, headers=WAIT)
        it.asked.clear()
        for _ in range(15):
            await it.reader.read()
            it.clock.move(60)  # 900 s in all, less than Azure asked to wait
        assert it.asked[asked_to_wait] == 1
        assert it.asked[other] > 1


async def test_a_load_balancer_that_only_its_list_shows(open_inventory: Open) -> None:
    """K4: the role of an agent need not allow reads of single pools."""
    async with open_inventory(vms=3, pools=("app", "admin")) as inventory:
        owner = load_balancer_of(inventory.world.pool_id("app"))
        inventory.fault(short(owner), status=429, headers=WAIT)
        inventory.fault(lambda request: "/backendAddressPools/" in request.path, status=403)
        for _ in range(3):
            await inventory.reader.load_balancer(owner)
        assert {short(pool.pool_id) for pool in inventory.state.cache.pools} == {"app", "admin"}
        assert inventory.asked[short(owner)] == 1


async def test_an_odd_pool_of_a_load_balancer(open_inventory: Open) -> None:
    """K4: a pool that cannot be read hides no other; by itself it may be readable."""
    async with open_inventory(vms=3, pools=("app", "admin")) as inventory:
        owner = load_balancer_of(inventory.world.pool_id("app"))
        found = inventory.world.load_balancer_of(inventory.world.pool_id("app"))
        assert found is not None
        body = copy.deepcopy(found)
        body["properties"]["backendAddressPools"][0]["properties"] = "odd"
        inventory.fault(short(owner), status=200, body=json.dumps(body))
        await inventory.reader.load_balancer(owner)
        assert {short(pool.pool_id) for pool in inventory.state.cache.pools} == {"app", "admin"}
        assert all(pool.members for pool in inventory.state.cache.pools)
        inventory.fault("/backendAddressPools/app", status=200, body="{}")
        inventory.fault("/loadBalancers", status=200, body=json.dumps({"value": [body]}))
        inventory.clock.move(60)
        with pytest.raises(ControllerError):
            await inventory.reader.load_balancer(owner)
        (admin,) = [each for each in inventory.state.cache.pools if short(each.pool_id) == "admin"]
        assert admin.observed_at == inventory.clock.now()


async def test_a_nic_that_is_throttled_is_read_by_its_list(open_inventory: Open) -> None:
    """K1: a NIC comes with its body from the list while a GET of it has to wait."""
    async with open_inventory(vms=3) as inventory:
        nic_id = inventory.world.vm("web-2").nic_ids[0]
        inventory.fault(short(nic_id), status=429, headers=WAIT)
        for _ in range(2):
            await inventory.reader.nic(ReadNic(nic_id))
        nic = inventory.state.cache.nic(nic_id)
        assert nic is not None
        assert nic.body
        assert inventory.asked[short(nic_id)] == 1


@pytest.mark.parametrize("ways", [1, 2])
async def test_a_power_state_that_is_throttled(open_inventory: Open, ways: int) -> None:
    """K1: the power state comes from the instance view, or from the list, when a GET must wait."""
    async with open_inventory(vms=3) as inventory:
        vm_id = inventory.world.vm("web-2").resource_id
        for ending in ("/virtualMachines/web-2", "/web-2/instanceView")[:ways]:
            inventory.fault(ending, status=429, headers=WAIT)
        for _ in range(2):
            assert await inventory.reader.power(ReadPower(vm_id)) is PowerState.RUNNING
        assert inventory.asked["web-2"] == 1


async def test_nothing_of_compute_and_no_nic(open_inventory: Open) -> None:
    """An inventory that shows no VM at all is an error, and asks for no long wait of its own."""
    async with open_inventory(vms=3) as inventory:
        inventory.fault(lambda _request: True, status=429, headers=WAIT)
        for _ in range(2):
            with pytest.raises(ControllerError) as refused:
                await inventory.reader.read()
            assert refused.value.retry_after_s is None
        assert inventory.state.cache.inventory_at is None
        inventory.heal()
        inventory.clock.move(1201)
        await inventory.reader.read()
        assert len(inventory.known) == 3


# --- what operators have to know -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "unread"),
    [
        ((NIC_LIST, "/networkInterfaces/web-2-nic"), "web-2-nic"),
        (("/loadBalancers/web-lb", "/loadBalancers", "/backendAddressPools/app"), "web-lb"),
    ],
)
async def test_what_cannot_be_read_is_unread_until_the_inventory_reads_it(
    open_inventory: Open, faults: tuple[str, ...], unread: str
) -> None:
    """H1: a failure that lasts is reported once, also while its next read is not due."""
    async with open_inventory(vms=3) as inventory:
        for ending in faults:
            inventory.fault(ending, status=403)
        for _ in range(5):
            await inventory.read()
            inventory.clock.move(60)
            assert [short(key.resource.partition("?")[0]) for key in inventory.state.unread] == [
                unread
            ]
        inventory.heal()
        await inventory.read()
        assert not inventory.state.unread


async def test_a_read_of_its_own_ends_what_the_inventory_left_unread(
    open_inventory: Open,
) -> None:
    """A pass that needs the NIC has read it: the report ends before the next inventory."""
    async with open_inventory(vms=3) as inventory:
        inventory.fault(NIC_LIST, status=403)
        inventory.fault("/networkInterfaces/web-2-nic", status=403)
        await inventory.read()
        assert len(inventory.state.still_unread()) == 1
        inventory.heal()
        inventory.clock.move(60)
        await inventory.reader.nic(ReadNic(inventory.world.vm("web-2").nic_ids[0]))
        assert inventory.state.still_unread() == {}


# --- old replies ---------------------------------------------------------------------------------


async def test_an_old_reply_about_a_load_balancer_is_replaced_by_its_pools(
    open_inventory: Open,
) -> None:
    """S5: the pools are read by themselves; what the old reply shows is not believed."""
    async with open_inventory(vms=3) as inventory:
        await inventory.reader.read()
        pool_id = inventory.world.pool_id("app")
        owner = inventory.world.load_balancer_of(pool_id)
        assert owner is not None
        before = json.dumps(owner)
        inventory.world.remove_membership(pool_id, inventory.world.vm("web-1").nic_ids[0])
        await inventory.reader.load_balancer(load_balancer_of(pool_id))
        inventory.fault("/loadBalancers/web-lb", status=200, body=before)
        await inventory.reader.load_balancer(load_balancer_of(pool_id))
        (pool,) = inventory.state.cache.pools
        assert len(pool.members) == 2
        assert inventory.asked["app"] == 1


async def test_an_old_reply_about_a_nic_is_a_failed_read(open_inventory: Open) -> None:
    """S5: the pass that needs the NIC reads it again later; the newer view stays."""
    async with open_inventory(vms=3) as inventory:
        nic_id = inventory.world.vm("web-1").nic_ids[0]
        before = json.dumps(inventory.world.nics[nic_id.casefold()])
        await inventory.reader.nic(ReadNic(nic_id))
        inventory.world.remove_membership(inventory.world.pool_id("app"), nic_id)
        await inventory.reader.nic(ReadNic(nic_id))
        known = inventory.state.cache.nic(nic_id)
        inventory.fault(short(nic_id), status=200, body=before)
        with pytest.raises(ControllerError, match="an older state"):
            await inventory.reader.nic(ReadNic(nic_id))
        assert inventory.state.cache.nic(nic_id) == known
