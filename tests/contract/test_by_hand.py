"""Requests by hand against real sockets: two people at once, a broken blob, a workstation."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.azure.session import Azure, open_azure
from controller.by_hand.command import addresses_of, command_task
from controller.by_hand.hand import Hand, open_hand
from controller.by_hand.roll import Roller, Task, abandon, order
from controller.config import load
from controller.errors import ConfigError, ContractViolation, ControllerError, NotDone
from controller.request_store import RequestStore, requests_name_of
from controller.simulator.faults import Effect
from controller.simulator.wire import Service

from .in_process import Bench

OpenHand = Callable[[], AbstractAsyncContextManager[Hand]]
ASKED = "web.requests.json"


@pytest.fixture
def said() -> list[str]:
    """What whoever asks is told."""
    return []


@pytest.fixture
def hands(bench: Bench, said: list[str], monkeypatch: pytest.MonkeyPatch) -> OpenHand:
    """Return what opens a hand on web-1, quick to look."""
    monkeypatch.setattr("controller.by_hand.hand.LOOK_S", 0.05)
    monkeypatch.setattr("controller.by_hand.hand.AGAIN_S", 0.05)
    monkeypatch.setattr("controller.request_store.EVERY_S", 0.1)
    path = bench.config("web-1")
    bench.settings(path)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Hand]:
        settings = load(path, {}).settings
        async with open_hand(settings, environ={}, clock=bench.clock, say=said.append) as hand:
            yield hand

    return opened


@asynccontextmanager
async def azure_of(bench: Bench) -> AsyncIterator[Azure]:
    async with open_azure(bench.settings(bench.config("web-1")), bench.clock, {}) as azure:
        yield azure


def blob(bench: Bench) -> dict[str, Any]:
    found = bench.world.blobs.find(bench.ledger_path.replace("web.json", ASKED))
    return dict(json.loads(found.body)) if found and found.body else {}


# --- the blob ---


async def test_two_people_at_once_lose_nothing(bench: Bench, hands: OpenHand) -> None:
    """Whoever comes second reads again, so both requests stand."""
    async with hands() as one, hands() as other:
        await one.requests.refresh()
        await other.requests.refresh()
        await asyncio.gather(
            one.drain("web-1", for_s=600, reason=""), other.drain("WEB-2", for_s=600, reason="")
        )
    assert {each["vm"] for each in blob(bench)["requests"]} == {"web-1", "web-2"}


async def test_a_reply_that_was_lost_is_no_second_request(bench: Bench, hands: OpenHand) -> None:
    """A write whose outcome is unknown is read back, and was there."""
    async with hands() as hand:
        await hand.restore("web-1")
        bench.fault(
            Service.BLOB, Effect.RESET_AFTER, method="PUT", path_contains="requests", times=1
        )
        await hand.drain("web-1", for_s=600, reason="")
    assert len(blob(bench)["requests"]) == 1


async def test_a_blob_that_changes_all_the_time_is_given_up(bench: Bench, hands: OpenHand) -> None:
    """After some tries whoever asks is told to try again."""
    async with hands() as hand:
        await hand.drain("web-1", for_s=600, reason="")
        bench.fault(Service.BLOB, method="PUT", path_contains="requests", status=412)
        with pytest.raises(ControllerError, match="changes all the time"):
            await hand.drain("web-2", for_s=600, reason="")


async def test_what_is_no_request_is_left_alone(bench: Bench, hands: OpenHand) -> None:
    """The message names the blob and says what to do; nothing is overwritten."""
    async with azure_of(bench) as azure, hands() as hand:
        await azure.ledger(hand_blob(bench)).replace(b"[]", "")
        with pytest.raises(ContractViolation, match="repair the blob or delete it"):
            await hand.drain("web-1", for_s=600, reason="")
    found = bench.world.blobs.find(bench.ledger_path.replace("web.json", ASKED))
    assert found is not None
    assert found.body == b"[]"


def hand_blob(bench: Bench) -> str:
    return requests_name_of(bench.ledger_path.split("/", 3)[3])


async def test_a_blob_that_was_deleted_holds_no_requests(bench: Bench) -> None:
    """Deleting it withdraws everything, which is a change; another look finds none."""
    async with azure_of(bench) as azure:
        store = RequestStore(azure.ledger("some.requests.json"))
        assert not await store.refresh()
        await azure.ledger("some.requests.json").create()
        assert await store.refresh()
        assert not await store.refresh()
        del bench.world.blobs.containers[bench_container(bench)].blobs["some.requests.json"]
        assert await store.refresh()
        assert not await store.refresh()


def bench_container(bench: Bench) -> tuple[str, str]:
    account, container = bench.ledger_path.split("/")[1:3]
    return account, container


async def test_without_a_container_the_command_that_makes_one_is_told(bench: Bench) -> None:
    """It is a matter of the configuration, not of the request."""
    settings = bench.settings(bench.config("web-1"))
    election = settings.election.model_copy(
        update={"container_url": settings.election.container_url + "-not"}
    )
    async with open_azure(
        settings.model_copy(update={"election": election}), bench.clock, {}
    ) as azure:
        store = RequestStore(azure.ledger("x.requests.json"))
        with pytest.raises(ConfigError, match="az storage container create"):
            await store.change(lambda requests: requests)


# --- with a leader ---


async def test_a_leader_that_cannot_read_the_requests_keeps_to_what_it_knows(
    bench: Bench, hands: OpenHand
) -> None:
    """Law S6: the VM stays out, and it is told once that the blob cannot be read."""
    await bench.lead("web-1")
    async with hands() as hand:
        request = await hand.drain("web-2", for_s=600, reason="")
        await hand.until_out(request)
        bench.fault(Service.BLOB, method="HEAD", path_contains="requests", status=503)
        await bench.requests(3, "requests.json", "HEAD")
        assert bench.inside("web-2") == []
        assert len(bench.logged("the requests made by hand cannot be read")) == 1
        bench.heal()
        await hand.restore("web-2")
        await hand.until_back("web-2")
    assert bench.inside("web-2")


@pytest.mark.parametrize("vm", ["web-9", "web-2"])
async def test_a_request_that_cannot_be_met_says_why(
    bench: Bench, hands: OpenHand, vm: str
) -> None:
    """A name that is not in the set at once; a VM that is in no pool when the leader has looked."""
    await bench.lead("web-1")
    async with hands() as hand:
        for pool in bench.inside("web-2"):
            bench.world.remove_membership(pool, bench.world.vm("web-2").nic_ids[0])
        with pytest.raises(NotDone, match=r"is not in this availability set|in no managed pool"):
            await hand.until_out(await hand.drain(vm, for_s=600, reason=""))


async def test_whoever_waits_learns_that_somebody_else_ended_it(
    bench: Bench, hands: OpenHand
) -> None:
    """Without a leader nothing happens, and a withdrawal by another person is told by name."""
    async with hands() as hand, hands() as other:
        request = await hand.drain("web-2", for_s=600, reason="")
        waiting = asyncio.create_task(hand.until_out(request))
        await bench.requests(2, "requests.json", "HEAD")
        await other.restore("web-2")
        with pytest.raises(NotDone, match=r"withdrawn by .* on web-1"):
            await waiting


async def test_a_request_that_was_never_met_in_time_says_so(bench: Bench, hands: OpenHand) -> None:
    """Whoever waits is not left waiting when its time is over; nobody led."""
    async with hands() as hand:
        request = await hand.drain("web-2", for_s=60, reason="")
        bench.clock.ahead_s = 61
        with pytest.raises(NotDone, match="within the time of the request"):
            await hand.until_out(request)


async def test_a_set_without_a_leader_is_told(
    bench: Bench, hands: OpenHand, said: list[str]
) -> None:
    """When nobody takes the lease for a while, whoever waits knows why nothing happens."""
    async with hands() as hand:
        request = await hand.drain("web-2", for_s=600, reason="")
        bench.clock.ahead_s = 11
        waiting = asyncio.create_task(hand.until_out(request))
        await bench.requests(2, "requests.json", "HEAD")
        waiting.cancel()
    assert "no agent leads the set: nothing happens until one does" in said


async def test_a_standby_looks_before_it_competes_whether_its_own_vm_is_wanted(
    bench: Bench, hands: OpenHand
) -> None:
    """It reads no requests otherwise, and would take the lease only to hand it over."""
    await bench.lead("web-2")
    standby = bench.start("web-1")
    await bench.until("web-1 is at home", lambda: standby.ready()[0])
    assert not standby._handicap()
    async with hands() as hand:
        await hand.drain("web-1", for_s=600, reason="")
    bench.clock.ahead_s += 3
    await standby._look()
    assert standby._handicap()


# --- from a workstation ---


async def test_a_workstation_acts_as_whoever_is_logged_in(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the id of the set the metadata service is not asked, and `az` gives the token."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("AZ_TOKENS", str(tmp_path / "tokens.json"))
    principal = "web-1"
    tokens = {
        audience: bench.world.issuer.issue(principal, audience, bench.clock.epoch(), 3600)[1]
        for audience in ("https://management.azure.com", "https://storage.azure.com")
    }
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    script = tmp_path / "az"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "wanted = sys.argv[sys.argv.index('--resource') + 1].rstrip('/')\n"
        "token = json.load(open(os.environ['AZ_TOKENS']))[wanted]\n"
        "print(json.dumps({'accessToken': token, 'expires_on': 4102444800, "
        "'expiresOn': '2100-01-01 00:00:00.000000', 'tokenType': 'Bearer'}))\n"
    )
    script.chmod(0o755)
    settings = bench.settings(bench.config("web-1"))
    before = bench.world.request_counts.copy()
    async with open_hand(
        settings,
        environ={"SUDO_USER": "ann"},
        clock=bench.clock,
        say=lambda _: None,
        availability_set_id=bench.world.availability_set_id,
    ) as hand:
        assert hand.vms == ("web-1", "web-2", "web-3")
        assert hand.who.startswith("ann on ")
        assert hand.who.endswith(f", as {principal}")
        await hand.drain("web-2", for_s=600, reason="")
    assert [each["vm"] for each in blob(bench)["requests"]] == ["web-2"]
    asked = {key[0] for key in bench.world.request_counts - before}
    assert "imds" not in asked


# --- rolls ---


def task(*done: str, what: str = "patch") -> Task:
    finished = list(done)

    async def work(vm: str) -> None:
        finished.append(vm)

    async def healthy(vm: str) -> None:
        assert vm in finished

    return Task(what=what, work=work, healthy=healthy)


async def test_only_one_roll_goes_on_at_a_time(
    bench: Bench, hands: OpenHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one is refused; to go on with one that lives is refused; another's is not mine."""
    monkeypatch.setattr("controller.by_hand.roll.BEAT_S", 0.1)
    monkeypatch.setattr("controller.by_hand.roll.SILENT_S", 15)
    async with hands() as hand, hands() as other:
        rolling = asyncio.create_task(Roller(hand, task(), for_s=600).begin(("web-2",)))
        await bench.until("the roll", lambda: blob(bench).get("roll"))
        with pytest.raises(NotDone, match=r"has not ended, with web-2 left"):
            await Roller(other, task(), for_s=600).begin(("web-3",))
        with pytest.raises(NotDone, match="goes on"):
            await Roller(other, task(), for_s=600).resume()
        with pytest.raises(NotDone, match="is another one: patch"):
            await Roller(other, task(what="reboot"), for_s=600).resume()
        with pytest.raises(NotDone, match="goes on: end it there"):
            await abandon(other)
        rolling.cancel()
        await asyncio.gather(rolling, return_exceptions=True)
        assert (await abandon(other)).left == ("web-2",)
        with pytest.raises(NotDone, match="no unfinished roll"):
            await abandon(other)
        with pytest.raises(NotDone, match="no unfinished roll"):
            await Roller(other, task(), for_s=600).resume()


async def test_a_runner_that_was_taken_over_stops(
    bench: Bench, hands: OpenHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that go on with one roll would take two VMs out."""
    monkeypatch.setattr("controller.by_hand.roll.BEAT_S", 0.1)
    async with hands() as hand, hands() as other:
        rolling = asyncio.create_task(Roller(hand, task(), for_s=600).begin(("web-2",)))
        await bench.until("the roll", lambda: blob(bench).get("roll"))
        await other.requests.change(
            lambda requests: replace(
                requests, roll=requests.roll and replace(requests.roll, runner="another")
            )
        )
        with pytest.raises(NotDone, match="given up, or taken over"):
            await rolling


async def test_a_roll_of_a_runner_that_died_is_taken_over(
    bench: Bench, hands: OpenHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without signs of life it is resumed by another process, and ends."""
    monkeypatch.setattr("controller.by_hand.roll.SILENT_S", 0.3)
    monkeypatch.setattr("controller.by_hand.roll.BEAT_S", 0.1)
    async with hands() as hand, hands() as other:
        rolling = asyncio.create_task(Roller(hand, task(), for_s=600).begin(("web-2",)))
        await bench.until("the roll", lambda: blob(bench).get("roll"))
        bench.fault(Service.BLOB, method="PUT", path_contains="requests", status=503)
        rolling.cancel()  # and nothing can be written of it any more
        await asyncio.gather(rolling, return_exceptions=True)
        assert not blob(bench)["roll"]["failed"]
        bench.heal()
        await bench.lead("web-1")
        await Roller(other, task(), for_s=600).resume()
    assert blob(bench)["roll"]["done"] == ["web-2"]
    await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))


async def test_storage_that_fails_for_a_while_costs_a_roll_nothing(
    bench: Bench, hands: OpenHand, said: list[str]
) -> None:
    """What could not be written is written again, and that is told once."""
    await bench.lead("web-1")
    async with hands() as hand:
        work = task()

        async def then_storage_fails(vm: str) -> None:
            await work.work(vm)
            bench.fault(Service.BLOB, method="PUT", path_contains="requests", status=503, times=3)

        failing = Task(what="x", work=then_storage_fails, healthy=work.healthy)
        await Roller(hand, failing, for_s=600).begin(("web-2",))
    assert len([text for text in said if "cannot be written now" in text]) == 1
    assert blob(bench)["roll"]["ended_at"]


async def test_a_vm_at_which_nothing_was_done_comes_back_when_a_roll_fails(
    bench: Bench, hands: OpenHand
) -> None:
    """Only what may be half done is kept out of rotation."""
    await bench.lead("web-1")
    async with hands() as hand:
        for pool in bench.inside("web-2"):
            bench.world.remove_membership(pool, bench.world.vm("web-2").nic_ids[0])
        with pytest.raises(NotDone, match="in no managed pool"):
            await Roller(hand, task(), for_s=600).begin(("web-2",))
    assert blob(bench)["requests"][0]["ended_at"]
    assert blob(bench)["roll"]["failed"].startswith("web-2: web-2 is in no managed pool")


async def test_a_roll_waits_for_vms_that_are_out_for_another_reason(
    bench: Bench, hands: OpenHand, said: list[str]
) -> None:
    """One VM at a time counts those that maintenance has taken out."""
    await bench.lead("web-1")
    async with hands() as hand:
        await bench.announce("web-3", notice_s=600, started_s=600)
        await bench.until("web-3 out", lambda: not bench.inside("web-3"))
        rolling = asyncio.create_task(Roller(hand, task(), for_s=600).begin(("web-2",)))
        waits = "web-2 waits for web-3 to be back in rotation"
        await bench.until("the roll waits", lambda: waits in said)
        assert bench.inside("web-2")
        for event in bench.world.events.events:
            bench.world.complete_event(event.event_id)
        await bench.server.notify()
        await rolling


async def test_a_command_gets_name_and_address_and_its_failure_counts(
    bench: Bench, tmp_path: Path
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
    await run.healthy("Web-2")
    assert out.read_text() == f"Web-2 {addresses['web-2']}\n"
    failing = command_task("exit 3", addresses={}, check="false", settle_s=0, check_for_s=0.2)
    with pytest.raises(NotDone, match="exit code 3"):
        await failing.work("web-2")
    with pytest.raises(NotDone, match="did not succeed within"):
        await failing.healthy("web-2")


async def test_a_command_ends_with_its_roll(tmp_path: Path) -> None:
    """Who interrupts a roll leaves nothing running behind."""
    told = tmp_path / "told"
    os.mkfifo(told)
    run = command_task(
        f"echo $$ > {told}; exec sleep 600", addresses={}, check="", settle_s=0, check_for_s=1
    )
    working = asyncio.create_task(run.work("web-2"))
    shell = int(await asyncio.to_thread(told.read_text))
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    with pytest.raises(ProcessLookupError):
        os.kill(shell, 0)


def test_a_roll_takes_the_vm_it_runs_on_last() -> None:
    """By name otherwise, as people write it."""
    assert order(("web-2", "Web-3", "web-1"), "WEB-1") == ("web-2", "Web-3", "web-1")
    assert order(("b", "a"), "elsewhere") == ("a", "b")
