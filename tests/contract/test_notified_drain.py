"""What people are told of a whole maintenance: agents against the simulated Azure."""

import json
from collections import Counter

import pytest

from controller.core.happenings import Told, told_in
from controller.core.ledger import Ledger
from controller.errors import ConfigError
from controller.simulator.wire import Service

from .in_process import Bench
from .receivers import CANARY, Hook


def channel(hook: Hook) -> str:
    return f'kind = "webhook"\nurl = "{hook.url}"'


def told_of(bench: Bench) -> Told:
    """Return what the ledger says was told."""
    blob = bench.ledger()
    return told_in(Ledger(extra=blob)) or Told()


async def test_a_drain_is_told_from_beginning_to_end(bench: Bench, hook: Hook) -> None:
    """Every happening of a maintenance arrives once, also when the leader changes in the middle."""
    channels = (channel(hook),)
    first = await bench.lead("web-1", channels=channels)
    await bench.announce("web-2", started_s=3)
    wanted = {"received", "drained", "acknowledged", "started"}
    await bench.until("out", lambda: set(hook.told()) == wanted)
    ids = {body["id"] for body in hook.bodies}
    await bench.until("noted", lambda: ids <= set(told_of(bench).ids))
    bench.start("web-3", channels=channels)
    await bench.stop(first)
    await bench.until("web-3 leads", lambda: bench.ledger()["leader"] == "web-3")
    await bench.until("restored", lambda: "restored" in hook.told())
    await bench.until("over", lambda: not bench.ledger()["entries"])
    await bench.until("noted", lambda: hook.bodies[-1]["id"] in told_of(bench).ids)
    assert Counter(hook.told()) == dict.fromkeys([*wanted, "restored"], 1)
    assert {body["agent"] for body in hook.bodies} == {"web-1", "web-3"}
    assert CANARY not in json.dumps(bench.ledger())
    assert not bench.logged(CANARY)


async def test_a_leader_that_is_itself_hit_leaves_the_telling_to_its_successor(
    bench: Bench, hook: Hook
) -> None:
    """The lease changes hands as soon as the event is known; it is told once, by who takes over."""
    channels = (channel(hook),)
    await bench.lead("web-1", channels=channels)
    bench.start("web-3", channels=channels)
    await bench.requests(2, "/lb-drain/", "HEAD")
    await bench.announce("web-1", started_s=2)
    await bench.until("restored", lambda: "restored" in hook.told())
    await bench.until("over", lambda: not bench.ledger()["entries"])
    await bench.until("noted", lambda: hook.bodies[-1]["id"] in told_of(bench).ids)
    wanted = ["received", "drained", "acknowledged", "started", "restored"]
    assert Counter(hook.told()) == dict.fromkeys(wanted, 1)


async def test_a_cancelled_event_is_told(bench: Bench, hook: Hook) -> None:
    """Received, drained, cancelled and restored: each once."""
    overrides = {"policy": {"acknowledge": False, "connection_drain_s": 0, "restore_settle_s": 0.2}}
    await bench.lead("web-1", channels=(channel(hook),), overrides=overrides)
    ident = await bench.announce("web-2")
    await bench.until("drained", lambda: "drained" in hook.told())
    bench.world.cancel_event(ident)
    await bench.server.notify()
    await bench.until("over", lambda: not bench.ledger()["entries"])
    await bench.until("told", lambda: {"cancelled", "restored"} <= set(hook.told()))
    assert Counter(hook.told()) == dict.fromkeys(
        ["received", "drained", "cancelled", "restored"], 1
    )


async def test_a_drain_does_not_wait_for_a_receiver(bench: Bench, hook: Hook) -> None:
    """With a receiver that hangs for ever a VM is drained, acknowledged and back all the same."""
    hook.hanging.clear()
    await bench.lead("web-1", channels=(channel(hook),))
    await bench.announce("web-2")
    await hook.until(lambda: hook.requests)
    await bench.until(
        "back",
        lambda: "in service" in [line["what"] for line in bench.ledger()["transitions"]],
        within_s=10,
    )
    assert hook.bodies == []


async def test_an_agent_tells_that_it_cannot_read_events(
    bench: Bench, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that fails is told by the agent that needs it, and so is its return."""
    monkeypatch.setattr("controller.core.happenings.SILENT_S", 0.0)
    await bench.lead("web-1", channels=(channel(hook),))
    bench.fault(Service.IMDS, status=500)
    await bench.until("silent", lambda: hook.told() == ["silent"])
    bench.heal()
    await bench.until("again", lambda: hook.told() == ["silent", "answers_again"])
    assert {body["vm"] for body in hook.bodies} == {"web-1"}


async def test_nothing_is_noted_when_nobody_is_told(bench: Bench) -> None:
    """Without a channel the ledger is written as often as before, and says nothing of this."""
    await bench.lead("web-1")
    await bench.announce("web-2")
    await bench.until("out", lambda: bench.ledger()["entries"])
    await bench.until("over", lambda: not bench.ledger()["entries"])
    assert "told" not in bench.ledger()


async def test_an_agent_does_not_start_without_its_secrets(bench: Bench) -> None:
    """That is for the operator to change: the agent ends, and says what is missing."""
    agent = bench.agent("web-1", channels=('kind = "slack"\nurl_env = "NOT_SET"',))
    with pytest.raises(ConfigError, match=r"notifications\[0\]: has url_env"):
        await agent.run()
