"""Manual drains over real sockets: two users at once, a broken blob, a workstation, rolls."""

import asyncio
import json
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.azure.http.session import Azure, open_azure
from controller.errors import ContractViolation, ControllerError, NotDone, NotFound, SetupError
from controller.operator.controls import hand_over
from controller.operator.drain_client import connect
from controller.operator.forgetting import absent, forget, wait_until_forgotten
from controller.operator.overrides import override, unset
from controller.operator.rolling import RollingRunner, abandon, order
from controller.operator.rolling_task import Task
from controller.operator.shell_task import addresses_of, command_task
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.storage.drain_request_store import DrainRequestStore, drain_requests_blob_name
from tests.component.conftest import OpenClient
from tests.support.az_login import write_az
from tests.support.in_process_set import QUICK, InProcessSet
from tests.support.patience import PATIENCE_S

ASKED = "web.requests.json"

YIELD_S = 2.0
"""How long an agent whose own VM is next leaves a free lease to others."""


@asynccontextmanager
async def azure_of(bench: InProcessSet) -> AsyncIterator[Azure]:
    async with open_azure(bench.settings(bench.config("web-1")), bench.clock, {}) as azure:
        yield azure


def blob(bench: InProcessSet) -> dict[str, Any]:
    found = bench.world.blobs.find(bench.ledger_path.replace("web.json", ASKED))
    return dict(json.loads(found.body)) if found and found.body else {}


# --- the blob ---


async def test_two_people_at_once_lose_nothing(bench: InProcessSet, clients: OpenClient) -> None:
    """The second writer reads again, so both requests stay."""
    async with clients() as one, clients() as other:
        await one.requests.refresh_if_exists()
        await other.requests.refresh_if_exists()
        await asyncio.gather(
            one.drain("web-1", for_s=600, reason=""), other.drain("WEB-2", for_s=600, reason="")
        )
    assert {each["vm"] for each in blob(bench)["requests"]} == {"web-1", "web-2"}


async def test_a_reply_that_was_lost_is_no_second_request(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A write whose outcome is unknown is read back, and was there."""
    async with clients() as client:
        await client.restore("web-1")
        bench.fault(
            Service.BLOB, Effect.RESET_AFTER, method="PUT", path_contains="requests", times=1
        )
        await client.drain("web-1", for_s=600, reason="")
    assert len(blob(bench)["requests"]) == 1


async def test_a_blob_that_changes_all_the_time_is_given_up(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """After some tries the user gets an error that asks to try again."""
    async with clients() as client:
        await client.drain("web-1", for_s=600, reason="")
        bench.fault(Service.BLOB, method="PUT", path_contains="requests", status=412)
        with pytest.raises(
            ControllerError, match=r"other writers changed the blob .* 5 times in a row"
        ):
            await client.drain("web-2", for_s=600, reason="")


async def test_what_is_no_request_is_left_alone(bench: InProcessSet, clients: OpenClient) -> None:
    """The message names the blob and says what to do; nothing is overwritten."""
    async with azure_of(bench) as azure, clients() as client:
        await azure.state_blob(requests_blob(bench)).replace(b"[]", "")
        with pytest.raises(ContractViolation, match="repair the blob or delete it"):
            await client.drain("web-1", for_s=600, reason="")
    found = bench.world.blobs.find(bench.ledger_path.replace("web.json", ASKED))
    assert found is not None
    assert found.body == b"[]"


def requests_blob(bench: InProcessSet) -> str:
    return drain_requests_blob_name(bench.ledger_path.split("/", 3)[3])


async def test_a_blob_that_was_deleted_is_created_again_with_what_was_known(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A reply without the blob withdraws nothing, and the next change puts back what was read."""
    async with clients() as client:
        kept = await client.drain("web-1", for_s=600, reason="")
        del bench.world.blobs.containers[bench_container(bench)].blobs[requests_blob(bench)]
        with pytest.raises(NotFound):
            await client.requests.refresh()
        assert client.requests.requests.requests == (kept,)
        await client.drain("web-2", for_s=600, reason="")
    assert [each["vm"] for each in blob(bench)["requests"]] == ["web-1", "web-2"]


async def test_one_404_of_an_existing_blob_overwrites_nothing(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A writer that is told that there is no blob creates it only if there is none."""
    async with clients() as client, clients() as other:
        await client.drain("web-1", for_s=600, reason="")
        bench.fault(
            Service.BLOB,
            method="HEAD",
            path_contains="requests",
            status=404,
            headers=(("x-ms-error-code", "BlobNotFound"),),
            times=1,
        )
        await other.drain("web-2", for_s=600, reason="")
    assert [each["vm"] for each in blob(bench)["requests"]] == ["web-1", "web-2"]


def bench_container(bench: InProcessSet) -> tuple[str, str]:
    account, container = bench.ledger_path.split("/")[1:3]
    return account, container


async def test_without_a_container_the_error_has_the_command_that_creates_one(
    bench: InProcessSet,
) -> None:
    """The error states what is missing in Azure, and it is not a matter of the request."""
    settings = bench.settings(bench.config("web-1"))
    election = settings.election.model_copy(
        update={"container_url": settings.election.container_url + "-not"}
    )
    async with open_azure(
        settings.model_copy(update={"election": election}), bench.clock, {}
    ) as azure:
        store = DrainRequestStore(azure.state_blob("x.requests.json"))
        with pytest.raises(SetupError, match="az storage container create"):
            await store.change(lambda requests: requests)


# --- with a leader ---


async def test_a_leader_that_cannot_read_the_requests_keeps_to_what_it_knows(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Law S6: the VM stays out, and the failed read of the blob is logged once."""
    await bench.lead("web-1")
    async with clients() as client:
        request = await client.drain("web-2", for_s=600, reason="")
        await client.wait_until_drained(request)
        bench.fault(Service.BLOB, method="HEAD", path_contains="requests", status=503)
        await bench.until("logged", lambda: bench.logged("the drain requests cannot be read"))
        await bench.requests(3, "requests.json", "HEAD")
        assert bench.inside("web-2") == []
        assert len(bench.logged("the drain requests cannot be read")) == 1
        bench.heal()
        await client.restore("web-2")
        await client.wait_until_in_service("web-2")
    assert bench.inside("web-2")


async def test_the_wait_is_that_of_the_whole_set(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """A value that is in force on all agents counts, also if it was set during the wait."""
    await bench.lead("web-1")
    settings = bench.settings(bench.config("web-1"))
    async with clients() as client, clients() as other:
        assert client.connection_drain_s == 0.2
        request = await client.drain("web-2", for_s=600, reason="")
        for assignment in ("connection_drain_s=300", "lead_time_s=600"):
            await override(other, settings, assignment, pool="", for_s=600, reason="")
        waiting = asyncio.create_task(client.wait_until_drained(request))
        await bench.until("web-2 is out", lambda: bench.inside("web-2") == [])
        await asyncio.sleep(1)
        assert not waiting.done()
        assert (client.connection_drain_s, client.policy.lead_time_s) == (300, 600)
        await unset(other, settings, "connection_drain_s", pool="")
        await waiting
        assert client.connection_drain_s == 0.2
    assert not [line for line in reported if "cannot be read" in line]


async def test_controls_that_cannot_be_read_do_not_end_the_wait(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """The file of this machine counts, and the command states that once."""
    await bench.lead("web-1")
    bench.fault(Service.BLOB, method="HEAD", path_contains="controls", status=403)
    async with clients() as client:
        await client.wait_until_drained(await client.drain("web-2", for_s=600, reason=""))
    assert len([line for line in reported if "so connection_drain_s is that of" in line]) == 1


@pytest.mark.parametrize("vm", ["web-9", "web-2"])
async def test_a_request_that_cannot_be_met_says_why(
    bench: InProcessSet, clients: OpenClient, vm: str
) -> None:
    """A name that is not in the set at once; a VM that is in no pool when the leader has looked."""
    await bench.lead("web-1")
    async with clients() as client:
        for pool in bench.inside("web-2"):
            bench.world.remove_membership(pool, bench.world.vm("web-2").nic_ids[0])
        with pytest.raises(NotDone, match=r"is not in this availability set|in no managed pool"):
            await client.wait_until_drained(await client.drain(vm, for_s=600, reason=""))


async def test_a_withdrawal_by_another_user_ends_the_wait(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Without a leader nothing happens, and the error names the user who withdrew the request."""
    async with clients() as client, clients() as other:
        request = await client.drain("web-2", for_s=600, reason="")
        waiting = asyncio.create_task(client.wait_until_drained(request))
        await bench.requests(2, "requests.json", "HEAD")
        await other.restore("web-2")
        with pytest.raises(NotDone, match=r"withdrawn by .* on web-1"):
            await waiting


async def test_the_end_of_an_earlier_drain_is_no_news(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """A command begins with what it causes, also right after another one has ended."""
    await bench.lead("web-1")
    async with clients() as client:
        first = await client.drain("web-2", for_s=600, reason="")
        await client.wait_until_drained(first)
        await client.restore("web-2")
        await client.wait_until_in_service("web-2")
    assert any("in service" in line for line in reported)
    reported.clear()
    async with clients() as client:
        await client.wait_until_drained(await client.drain("web-2", for_s=600, reason="again"))
    assert "drain requested" in reported[0]
    assert not [line for line in reported if "in service" in line]


async def test_a_request_that_was_never_met_in_time_says_so(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Without a leader the wait ends when the time of the request is over."""
    async with clients() as client:
        request = await client.drain("web-2", for_s=60, reason="")
        bench.clock.ahead_s = 61
        with pytest.raises(NotDone, match="expired before the VM was out of rotation"):
            await client.wait_until_drained(request)


async def test_a_set_without_a_leader_is_reported(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """If no agent takes the lease for a while, the user learns why nothing happens."""
    async with clients() as client:
        request = await client.drain("web-2", for_s=600, reason="")
        bench.clock.ahead_s = 11
        waiting = asyncio.create_task(client.wait_until_drained(request))
        told = "The set has no leader: nothing happens until an agent leads."
        await bench.until("reported", lambda: told in reported)
        waiting.cancel()


async def test_a_standby_looks_before_it_competes_whether_its_own_vm_is_wanted(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """It reads no requests otherwise, and would take the lease only to hand it over."""
    overrides = {"election": {**QUICK["election"], "yield_s": YIELD_S}}
    leader = await bench.lead("web-2", overrides=overrides)
    standby = bench.start("web-1", overrides=overrides)
    await bench.until("web-1 has started", lambda: standby.live_status.ready()[0])
    async with clients() as client:
        await client.drain("web-1", for_s=600, reason="")
    sent: list[tuple[str, float]] = []

    def note(request: Any, _reply: object) -> None:
        action = request.headers.get("x-ms-lease-action", "")
        if request.path.endswith("requests.json"):
            sent.append(("read", time.monotonic()))
        elif action in {"release", "acquire"}:
            sent.append((action, time.monotonic()))

    bench.server.observers.append(note)
    await bench.stop(leader)
    await bench.until("web-1 leads", lambda: bench.ledger()["leader"] == "web-1")
    actions = [what for what, _ in sent]
    released, acquired = actions.index("release"), actions.index("acquire")
    assert "read" in actions[released:acquired], "web-1 did not look before it competed"
    waited_s = sent[acquired][1] - sent[released][1]
    assert waited_s >= YIELD_S - 0.1, "web-1 did not wait for another agent"


# --- several requests for one VM ---


async def test_an_operator_ends_own_requests_and_no_other(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Of several requests for a VM those of the caller are withdrawn; the others are listed."""
    await bench.lead("web-1")
    async with clients() as ann, clients() as ben:
        ann.requester, ben.requester = "ann", "ben"
        await ann.drain("web-2", for_s=600, reason="disk")
        request = await ben.drain("web-2", for_s=600, reason="")
        await ben.wait_until_drained(request)
        found = await ben.restore("web-2")
        assert [each.by for each in found.withdrawn] == ["ben"]
        assert [each.by for each in found.standing] == ["ann"]
        await bench.requests(3, "requests.json", "HEAD")
        assert not bench.inside("web-2")
        assert (await ben.restore("web-2")).standing == ()
        await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))


async def test_a_request_that_is_not_yours_is_chosen_by_its_id(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """With several requests of others, the command lists them and asks which one is meant."""
    async with clients() as ann, clients() as eve:
        ann.requester, eve.requester = "ann", "eve"
        first = await ann.drain("web-2", for_s=600, reason="disk")
        await ann.drain("web-2", for_s=600, reason="")
        with pytest.raises(NotDone, match=r"no request of yours(.|\n)*by ann \(disk\)(.|\n)*--all"):
            await eve.restore("web-2")
        with pytest.raises(NotDone, match="no request with the id R-9"):
            await eve.restore("web-2", request_id="R-9")
        found = await eve.restore("web-2", request_id=first.request_id.upper())
        assert found.withdrawn[0].reason == "disk"
        await ann.drain("web-2", for_s=600, reason="")
        assert len((await eve.restore("web-2", of_everyone=True)).withdrawn) == 2
        assert (await eve.restore("web-2")).withdrawn == ()


async def test_a_request_that_only_the_ledger_knows_is_withdrawn(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A blob that was emptied keeps no VM out for longer than the operator wants."""
    await bench.lead("web-1")
    async with clients() as client, clients() as other:
        request = await client.drain("web-2", for_s=6000, reason="")
        await client.wait_until_drained(request)
        found = bench.world.blobs.find(bench.ledger_path.replace("web.json", ASKED))
        assert found is not None
        found.body, found.etag = b"", bench.world.blobs.next_etag()
        await bench.until("web-1 read it", lambda: bench.world.blobs.find(bench.ledger_path))
        assert [each.request_id for each in (await other.restore("web-2")).withdrawn] == [
            request.request_id
        ]
        await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))


# --- several VMs ---


async def test_several_vms_are_requested_together(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """One write requests all, each is reported when it is drained, and one command ends all."""
    await bench.lead("web-1")
    drained: dict[str, str] = {}
    async with clients() as client:
        requests = await client.drain_all(("WEB-3", "web-2"), for_s=600, reason="")
        assert [each.vm for each in requests] == ["web-3", "web-2"]
        await client.wait_until_all_drained(
            requests, lambda request, pools: drained.update({request.vm: pools})
        )
        assert drained == dict.fromkeys(("web-3", "web-2"), "web-lb/app")
        found = await client.restore_all(("web-2", "web-3"))
        assert [len(each.withdrawn) for each in found.values()] == [1, 1]
        for vm in found:
            await client.wait_until_in_service(vm)
    assert bench.inside("web-2")
    assert bench.inside("web-3")


@pytest.mark.parametrize(
    ("vms", "problems"),
    [
        (
            ("web-2", "web-22"),
            r"^web-22 is not in .* set; did you mean web-2\? Its VMs are web-1, ",
        ),
        (("web-2", "WEB-2"), "^WEB-2 is named twice: name each VM once$"),
        (("zz", "web-2", "web-2"), "^zz is not in .* set; its VMs are .*\nweb-2 is named twice"),
    ],
)
async def test_nothing_is_done_when_one_name_is_wrong(
    bench: InProcessSet, clients: OpenClient, vms: tuple[str, ...], problems: str
) -> None:
    """Every wrong name is listed, and no VM is requested or restored."""
    async with clients() as client:
        kept = await client.drain("web-2", for_s=600, reason="")
        with pytest.raises(NotDone, match=problems):
            await client.drain_all(vms, for_s=600, reason="")
        with pytest.raises(NotDone, match=problems):
            await client.restore_all(vms)
        assert client.requests.requests.requests == (kept,)


async def test_a_request_for_a_vm_outside_the_set_can_be_withdrawn(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """The hold about it names that command."""
    async with clients() as client:
        client.vms = (*client.vms, "web-9")
        await client.drain("web-9", for_s=600, reason="")
    async with clients() as client:
        assert len((await client.restore("web-9")).withdrawn) == 1


async def test_one_vm_that_cannot_be_drained_keeps_no_other_waiting(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """The others are waited for, and the end of the wait names the one."""
    await bench.lead("web-1")
    for pool in bench.inside("web-2"):
        bench.world.remove_membership(pool, bench.world.vm("web-2").nic_ids[0])
    drained: list[str] = []
    async with clients() as client:
        requests = await client.drain_all(("web-2", "web-3"), for_s=600, reason="")
        with pytest.raises(NotDone, match=r"^web-2 is in no managed pool"):
            await client.wait_until_all_drained(requests, lambda each, _: drained.append(each.vm))
    assert drained == ["web-3"]


# --- below the floor ---


async def test_a_forced_drain_goes_below_the_floor(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """A drain that the floor holds is forced; request and history have the operator and why."""
    await bench.lead("web-1", overrides={"backend_pools": {"min_in_service": 3}})
    async with clients() as client:
        await client.drain("web-2", for_s=600, reason="")
        await bench.until("the floor holds it", lambda: bench.ledger().get("holds"))
        (forced,) = await client.drain_all(("web-2",), for_s=600, reason="now", forced=True)
        await client.wait_until_drained(forced)
    assert [each.get("forced") for each in blob(bench)["requests"]] == [None, True]
    details = [each["detail"] for each in bench.ledger()["transitions"]]
    assert any("below min_in_service, forced by" in each and ": now" in each for each in details)


# --- from a workstation ---


async def test_a_workstation_uses_the_account_of_az_login(
    bench: InProcessSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the id of the set the metadata service is not asked, and `az` gives the token."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    principal = "web-1"
    write_az(tmp_path, bench.world, principal=principal, now=bench.clock.epoch())
    settings = bench.settings(bench.config("web-1"))
    before = bench.world.request_counts.copy()
    async with connect(
        settings,
        environ={"SUDO_USER": "ann"},
        clock=bench.clock,
        report=lambda _: None,
        availability_set_id=bench.world.availability_set_id,
    ) as client:
        assert client.vms == ("web-1", "web-2", "web-3")
        assert client.requester.startswith("ann on ")
        assert client.requester.endswith(f", as {principal}")
        await client.drain("web-2", for_s=600, reason="")
    assert [each["vm"] for each in blob(bench)["requests"]] == ["web-2"]
    asked = {key[0] for key in bench.world.request_counts - before}
    assert "imds" not in asked


# --- rolls ---


def task(*done: str, what: str = "patch") -> Task:
    finished = list(done)

    async def work(vm: str) -> None:
        finished.append(vm)

    async def wait_until_healthy(vm: str) -> None:
        assert vm in finished

    return Task(what=what, work=work, wait_until_healthy=wait_until_healthy)


@pytest.mark.parametrize(
    ("check", "health"),
    [("", "its health was not checked"), ("true", "the check succeeded")],
)
def test_a_roll_reports_what_it_knows_of_the_health(check: str, health: str) -> None:
    """K8: without a check nothing is known, and nothing is claimed."""
    rolled = command_task("patch", addresses={}, check=check, settle_s=0, check_for_s=1)
    assert rolled.health == health


async def test_only_one_roll_goes_on_at_a_time(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one is refused; to go on with one that lives is refused; another's is not mine."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_TIMEOUT_S", PATIENCE_S)
    async with clients() as client, clients() as other:
        rolling = asyncio.create_task(RollingRunner(client, task(), for_s=600).begin(("web-2",)))
        await bench.until("the roll", lambda: blob(bench).get("roll"))
        with pytest.raises(NotDone, match=r"has not ended; remaining VMs: web-2\."):
            await RollingRunner(other, task(), for_s=600).begin(("web-3",))
        with pytest.raises(NotDone, match="is in progress"):
            await RollingRunner(other, task(), for_s=600).resume()
        with pytest.raises(NotDone, match="has another command: patch"):
            await RollingRunner(other, task(what="reboot"), for_s=600).resume()
        with pytest.raises(NotDone, match="is in progress: end it there"):
            await abandon(other)
        rolling.cancel()
        await asyncio.gather(rolling, return_exceptions=True)
        assert (await abandon(other)).remaining == ("web-2",)
        with pytest.raises(NotDone, match="no unfinished rolling run"):
            await abandon(other)
        with pytest.raises(NotDone, match="no unfinished rolling run"):
            await RollingRunner(other, task(), for_s=600).resume()


async def test_a_runner_that_was_taken_over_stops(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that go on with one roll would take two VMs out."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.1)
    async with clients() as client, clients() as other:
        rolling = asyncio.create_task(RollingRunner(client, task(), for_s=600).begin(("web-2",)))
        await bench.until("the roll", lambda: blob(bench).get("roll"))
        await other.requests.change(
            lambda requests: replace(
                requests, roll=requests.roll and replace(requests.roll, process_id="another")
            )
        )
        with pytest.raises(NotDone, match="abandoned, or another process"):
            await rolling


@pytest.mark.parametrize("what", ["patch", "patch " * 100], ids=["short", "long"])
async def test_a_roll_of_a_runner_that_died_is_taken_over(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Without signs of life it is resumed by another process, and ends."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_TIMEOUT_S", 0.3)
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.1)
    async with clients() as client, clients() as other:
        rolling = asyncio.create_task(
            RollingRunner(client, task(what=what), for_s=600).begin(("web-2",))
        )
        await bench.until("the roll", lambda: blob(bench).get("roll"))
        bench.fault(Service.BLOB, method="PUT", path_contains="requests", status=503)
        rolling.cancel()  # and nothing can be written of it any more
        await asyncio.gather(rolling, return_exceptions=True)
        assert not blob(bench)["roll"]["failed"]
        bench.heal()
        await bench.lead("web-1")
        await RollingRunner(other, task(what=what), for_s=600).resume()
    assert blob(bench)["roll"]["done"] == ["web-2"]
    await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))


async def test_a_heartbeat_that_meets_the_end_of_its_own_roll_is_no_failure(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the reply to the last write is on its way, heartbeats find the roll ended."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.05)
    await bench.lead("web-1")
    async with clients() as client:

        def delay_the_end(text: str) -> None:
            if text == "web-2: in service":
                bench.fault(
                    Service.BLOB,
                    Effect.DELAY,
                    method="PUT",
                    path_contains="requests",
                    delay_s=0.5,
                )

        client.report = delay_the_end
        await RollingRunner(client, task(), for_s=600).begin(("web-2",))
    assert blob(bench)["roll"]["ended_at"]
    assert not blob(bench)["roll"]["failed"]


async def test_storage_that_fails_for_a_while_costs_a_roll_nothing(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """A failed write is retried and reported once."""
    await bench.lead("web-1")
    async with clients() as client:
        work = task()

        async def then_storage_fails(vm: str) -> None:
            await work.work(vm)
            bench.fault(Service.BLOB, method="PUT", path_contains="requests", status=503, times=3)

        failing = Task(
            what="x", work=then_storage_fails, wait_until_healthy=work.wait_until_healthy
        )
        await RollingRunner(client, failing, for_s=600).begin(("web-2",))
    assert len([text for text in reported if "cannot be written now" in text]) == 1
    assert blob(bench)["roll"]["ended_at"]


async def test_a_vm_at_which_nothing_was_done_comes_back_when_a_roll_fails(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Only what may be half done is kept out of rotation."""
    await bench.lead("web-1")
    async with clients() as client:
        for pool in bench.inside("web-2"):
            bench.world.remove_membership(pool, bench.world.vm("web-2").nic_ids[0])
        with pytest.raises(NotDone, match="in no managed pool"):
            await RollingRunner(client, task(), for_s=600).begin(("web-2",))
    assert blob(bench)["requests"][0]["ended_at"]
    assert blob(bench)["roll"]["failed"].startswith("web-2: web-2 is in no managed pool")


async def test_the_agents_that_read_a_roll_show_it(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """The leader reads it every few seconds; what a standby has read once can be over."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    leader = await bench.lead("web-1")
    async with clients() as client:
        finished = asyncio.Event()

        async def work(_vm: str) -> None:
            await finished.wait()

        async def healthy(_vm: str) -> None:
            return

        rolled = Task(what="patch", work=work, wait_until_healthy=healthy)
        rolling = asyncio.create_task(RollingRunner(client, rolled, for_s=600).begin(("web-2",)))
        await bench.until("shown", lambda: leader.live_status.overview()["rolling_run"])
        run = leader.live_status.overview()["rolling_run"]
        assert run is not None
        assert (run["what"], run["remaining"]) == ("patch", ["web-2"])
        standby = await bench.stand_by("web-3")
        async with clients() as other:
            assert await hand_over(other, "web-3", reason="restart") == "web-3"
        await bench.until("shown", lambda: standby.live_status.overview()["rolling_run"])
        assert leader.live_status.overview()["rolling_run"] is None
        finished.set()
        await rolling
    await bench.until("ended", lambda: standby.live_status.overview()["rolling_run"] is None)


async def test_a_roll_waits_for_vms_that_are_out_for_another_reason(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """One VM at a time counts those that maintenance has taken out."""
    await bench.lead("web-1")
    async with clients() as client:
        await bench.announce("web-3", notice_s=600, started_s=600)
        await bench.until("web-3 out", lambda: not bench.inside("web-3"))
        rolling = asyncio.create_task(RollingRunner(client, task(), for_s=600).begin(("web-2",)))
        waits = "web-2 waits until web-3 is back in rotation."
        await bench.until("the roll waits", lambda: waits in reported)
        assert bench.inside("web-2")
        for event in bench.world.events.events:
            bench.world.events.complete(event.event_id)
        await bench.server.notify()
        await rolling


async def test_a_roll_neither_ends_nor_disturbs_the_drain_of_another_operator(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """A roll waits for a VM that another operator has drained, and ends only its own requests."""
    await bench.lead("web-1")
    async with clients() as client, clients() as ann:
        ann.requester = "ann"
        repair = await ann.drain("web-2", for_s=6000, reason="disk")
        await ann.wait_until_drained(repair)
        rolling = asyncio.create_task(RollingRunner(client, task(), for_s=600).begin(("web-2",)))
        waits = "web-2 waits until its drain by another operator ends: by ann (disk)"
        await bench.until("the roll waits", lambda: any(waits in text for text in reported))
        assert len(blob(bench)["requests"]) == 1
        await ann.restore("web-2")
        await rolling
    assert blob(bench)["roll"]["done"] == ["web-2"]


async def test_a_roll_ends_only_its_own_request(bench: InProcessSet, clients: OpenClient) -> None:
    """A VM that another operator drains during the work stays out after it."""
    await bench.lead("web-1")
    async with clients() as client, clients() as ann:
        ann.requester = "ann"
        finished = asyncio.Event()

        async def work(vm: str) -> None:
            await ann.drain(vm, for_s=6000, reason="disk")
            finished.set()

        async def healthy(_vm: str) -> None:
            return

        rolled = Task(what="x", work=work, wait_until_healthy=healthy)
        rolling = asyncio.create_task(RollingRunner(client, rolled, for_s=600).begin(("web-2",)))
        await finished.wait()
        await bench.until(
            "the roll's request ended", lambda: blob(bench)["requests"][0]["ended_at"]
        )
        await bench.requests(3, "requests.json", "HEAD")
        assert not bench.inside("web-2")
        await ann.restore("web-2")
        await rolling
    assert bench.inside("web-2")


async def test_a_roll_that_cannot_extend_its_drain_stops_its_work(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without storage the drain ends after its time: work must not go on, nor count as done."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.2)
    monkeypatch.setattr("controller.operator.rolling.GUARD_INTERVAL_S", 0.1)
    await bench.lead("web-1")
    async with clients() as client:
        worked: list[str] = []

        async def work(vm: str) -> None:
            bench.fault(Service.BLOB, method="PUT", path_contains="requests", status=503)
            await bench.requests(2, "requests", "PUT")
            bench.clock.ahead_s += 92
            await asyncio.Event().wait()
            worked.append(vm)

        async def healthy(_vm: str) -> None:
            raise AssertionError

        rolled = Task(what="x", work=work, wait_until_healthy=healthy)
        with pytest.raises(NotDone, match="web-2: the drain ends, and it could not be extended"):
            await RollingRunner(client, rolled, for_s=100).begin(("web-2",))
    assert not worked
    bench.heal()
    bench.clock.ahead_s += 20
    await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))
    assert blob(bench)["roll"]["done"] == []


async def test_a_roll_whose_drain_is_withdrawn_stops_its_work(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who restores the VM during the work ends the roll, and its report names that."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.1)
    await bench.lead("web-1")
    async with clients() as client, clients() as eve:
        eve.requester = "eve"

        async def work(vm: str) -> None:
            await eve.restore(vm)
            await asyncio.Event().wait()

        async def healthy(_vm: str) -> None:
            raise AssertionError

        rolled = Task(what="x", work=work, wait_until_healthy=healthy)
        with pytest.raises(NotDone, match="web-2: its drain was withdrawn by eve"):
            await RollingRunner(client, rolled, for_s=600).begin(("web-2",))
    await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))
    assert blob(bench)["roll"]["failed"]


async def test_a_command_gets_name_and_address_and_its_failure_counts(
    bench: InProcessSet, tmp_path: Path
) -> None:
    """Both are variables of the shell, so nothing in them can become a command."""
    out = tmp_path / "out"
    async with azure_of(bench) as azure:
        addresses = await addresses_of(azure, bench.world.availability_set_id)
    assert set(addresses) == {"web-1", "web-2", "web-3"}
    run = command_task(
        f'echo "$ROLL_VM $ROLL_ADDRESS" > {shlex.quote(str(out))}',
        addresses=addresses,
        check="",
        settle_s=0,
        check_for_s=1,
    )
    await run.work("Web-2")
    await run.wait_until_healthy("Web-2")
    assert out.read_text() == f"Web-2 {addresses['web-2']}\n"
    failing = command_task("exit 3", addresses={}, check="false", settle_s=0, check_for_s=0.2)
    with pytest.raises(NotDone, match="exit code 3"):
        await failing.work("web-2")
    with pytest.raises(NotDone, match="did not succeed within"):
        await failing.wait_until_healthy("web-2")


async def test_a_command_ends_with_its_roll(tmp_path: Path) -> None:
    """Who interrupts a roll leaves nothing running behind."""
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    run = command_task(
        f"echo $$ > {pipe}; exec sleep 600", addresses={}, check="", settle_s=0, check_for_s=1
    )
    working = asyncio.ensure_future(run.work("web-2"))
    shell = int(await asyncio.to_thread(pipe.read_text))
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    with pytest.raises(ProcessLookupError):
        os.kill(shell, 0)


def test_a_roll_takes_the_vm_it_runs_on_last() -> None:
    """By name otherwise, as people write it."""
    assert order(("web-2", "Web-3", "web-1"), "WEB-1") == ("web-2", "Web-3", "web-1")
    assert order(("b", "a"), "elsewhere") == ("a", "b")


# --- giving up what is lost ---


async def test_what_is_lost_is_given_up(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """The leader drops exactly the entry that the operator saw, with a line of history."""
    entry = {
        "vm": "web-2",
        "vm_id": "/vm/web-2",
        "events": [],
        "memberships": [],
        "lost": [
            {
                "kind": "nic",
                "pool_id": f"{bench.world.pool_ids()[0]}-deleted",
                "nic_id": "/nic/web-2",
                "ip_configuration": "ipconfig1",
                "position": 0,
            }
        ],
        "recorded_at": "2026-01-05T12:00:00.123456+00:00",
        "gone": False,
    }
    ledger = {
        "version": "1.2",
        "epoch": 3,
        "leader": "",
        "entries": [entry],
        "holds": [],
        "transitions": [],
    }
    bench.put_ledger(json.dumps(ledger).encode())
    await bench.lead()
    await bench.until(
        "the loss is held", lambda: "lost" in [h["reason"] for h in bench.ledger()["holds"]]
    )
    async with clients() as client:
        with pytest.raises(NotDone, match=r"web-2 is not restored to app-deleted: .*forget web-2"):
            await client.wait_until_in_service("web-2")
        with pytest.raises(NotDone, match="nothing of web-1 is lost"):
            await absent(client, "web-1")
        found = await absent(client, "WEB-2")
        await forget(client, found)
        await wait_until_forgotten(client, found)
    assert bench.ledger()["entries"] == []
    assert any("web-2: drain ended without a restore" in line for line in reported)
