"""The notifications of whole maintenances: agents against the simulated Azure."""

import json
from collections import Counter

import pytest

from controller.core.ledger import Ledger
from controller.core.notices.notice import DeliveredNotices
from controller.errors import ConfigError
from controller.simulator.services.http_values import Service
from controller.storage.notices_json import load_delivered
from tests.support.in_process_set import NEVER_S, InProcessSet
from tests.support.receivers import CANARY, Hook


def channel(hook: Hook) -> str:
    return f'kind = "webhook"\nurl = "{hook.url}"'


def delivered_in(bench: InProcessSet) -> DeliveredNotices:
    """Return the delivered notices in the ledger."""
    blob = bench.ledger()
    return load_delivered(Ledger(extra=blob)) or DeliveredNotices()


async def test_every_notice_of_a_drain_arrives_once(bench: InProcessSet, hook: Hook) -> None:
    """Every happening of a maintenance arrives once, also when the leader changes in the middle."""
    channels = (channel(hook),)
    first = await bench.lead("web-1", channels=channels)
    event = await bench.announce("web-2", started_s=NEVER_S)
    wanted = {"received", "drained", "acknowledged", "started"}
    await bench.until("out", lambda: set(hook.kinds()) == wanted)
    ids = {body["id"] for body in hook.bodies}
    await bench.until("noted", lambda: ids <= set(delivered_in(bench).ids))
    bench.start("web-3", channels=channels)
    await bench.stop(first)
    await bench.until("web-3 leads", lambda: bench.ledger()["leader"] == "web-3")
    bench.world.events.complete(event)
    await bench.server.notify()
    await bench.until("over", lambda: {"handled", "restored"} <= set(hook.kinds()))
    await bench.until("over", lambda: not bench.ledger()["entries"])
    await bench.until("noted", lambda: hook.bodies[-1]["id"] in delivered_in(bench).ids)
    assert Counter(hook.kinds()) == dict.fromkeys([*wanted, "handled", "restored"], 1)
    assert {body["agent"] for body in hook.bodies} == {"web-1", "web-3"}
    assert CANARY not in json.dumps(bench.ledger())
    assert not bench.logged(CANARY)


async def test_a_leader_under_maintenance_leaves_its_notices_to_the_next(
    bench: InProcessSet, hook: Hook
) -> None:
    """The leader changes as soon as the event is known; the next one sends each notice once."""
    channels = (channel(hook),)
    await bench.lead("web-1", channels=channels)
    await bench.stand_by("web-3", channels=channels)
    await bench.announce("web-1", started_s=2)
    await bench.until("restored", lambda: "restored" in hook.kinds())
    await bench.until("over", lambda: not bench.ledger()["entries"])
    await bench.until("noted", lambda: hook.bodies[-1]["id"] in delivered_in(bench).ids)
    wanted = ["received", "drained", "acknowledged", "started", "handled", "restored"]
    assert Counter(hook.kinds()) == dict.fromkeys(wanted, 1)


async def test_a_cancelled_event_is_reported(bench: InProcessSet, hook: Hook) -> None:
    """Received, drained, cancelled and restored: each once."""
    overrides = {"policy": {"acknowledge": False, "connection_drain_s": 0, "restore_settle_s": 0.2}}
    await bench.lead("web-1", channels=(channel(hook),), overrides=overrides)
    ident = await bench.announce("web-2")
    await bench.until("drained", lambda: "drained" in hook.kinds())
    bench.world.events.cancel(ident)
    await bench.server.notify()
    await bench.until("over", lambda: not bench.ledger()["entries"])
    await bench.until("reported", lambda: {"cancelled", "restored"} <= set(hook.kinds()))
    assert Counter(hook.kinds()) == dict.fromkeys(
        ["received", "drained", "cancelled", "restored"], 1
    )


async def test_a_drain_does_not_wait_for_a_receiver(bench: InProcessSet, hook: Hook) -> None:
    """With a receiver that hangs for ever a VM is drained, acknowledged and back all the same."""
    hook.hanging.clear()
    await bench.lead("web-1", channels=(channel(hook),))
    await bench.announce("web-2")
    await hook.until(lambda: hook.requests)
    await bench.until(
        "back",
        lambda: "in service" in [line["what"] for line in bench.ledger()["transitions"]],
    )
    assert hook.bodies == []


async def test_an_agent_reports_that_it_cannot_read_events(
    bench: InProcessSet, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent that needs a failing service reports it, and its return."""
    monkeypatch.setattr("controller.core.notices.agent_notices.OUTAGE_S", 0.0)
    await bench.lead("web-1", channels=(channel(hook),))
    bench.fault(Service.IMDS, status=500)
    await bench.until("silent", lambda: hook.kinds() == ["silent"])
    bench.heal()
    await bench.until("again", lambda: hook.kinds() == ["silent", "answers_again"])
    assert {body["vm"] for body in hook.bodies} == {"web-1"}


async def test_without_a_channel_the_ledger_has_no_notices(bench: InProcessSet) -> None:
    """Without a channel the ledger is not annotated."""
    await bench.lead("web-1")
    await bench.announce("web-2")
    await bench.until("out", lambda: bench.ledger()["entries"])
    await bench.until("over", lambda: not bench.ledger()["entries"])
    assert "told" not in bench.ledger()


async def test_an_agent_does_not_start_without_its_secrets(bench: InProcessSet) -> None:
    """The agent ends with an error that names what is missing."""
    agent = bench.agent("web-1", channels=('kind = "slack"\nurl_env = "NOT_SET"',))
    with pytest.raises(ConfigError, match=r"notifications\[0\]: has url_env"):
        await agent.run()
