"""F8: an administrator tries the installation before Azure does."""

import asyncio
import re

import pytest

from controller.core.notices.set_notices import MIN_HOLD_S
from controller.operator.drain_rehearsal import DrainRehearsal
from tests.component.conftest import OpenClient
from tests.component.operator_scenes.conftest import Person, channel, floor
from tests.support.in_process_set import InProcessSet
from tests.support.receivers import Hook


async def test_f8_a_test_drain_times_every_step(bench: InProcessSet, person: Person) -> None:
    """`lb-drain test drain` needs no reboot: record, removal, proof, restore, each with its time.

    The margin that an event would have had is stated, and history marks the drain as a test.
    """
    await bench.lead("web-1")
    shown = await person("test", "drain", "web-2")
    timed = r"^(\w+) +\d\d:\d\d:\d\d +\d+\.\d s  "
    assert re.findall(timed, shown, re.MULTILINE) == [
        "recorded",
        "removed",
        "out",
        "withdrawn",
        "restored",
        "ready",
    ]
    assert "web-2 would have been ready for its event " in shown
    assert "drain requested (TEST, by " in await person("history")
    assert bench.inside("web-2") != []


async def test_f8_a_hold_of_a_test_is_marked_as_one(
    bench: InProcessSet, clients: OpenClient, hook: Hook
) -> None:
    """The floor holds a test drain until a notification is sent: its text contains TEST.

    The hold of a real drain beside it is no test.
    """
    async with clients() as client:
        await bench.lead("web-1", **floor(3), **channel(hook))
        test = asyncio.create_task(DrainRehearsal(client, for_s=600).run("web-2"))
        await bench.until("held", lambda: bench.ledger().get("holds"))
        await client.drain("web-3", for_s=600, reason="")
        await bench.until("both held", lambda: len(bench.ledger().get("holds", [])) == 2)
        bench.clock.ahead_s += MIN_HOLD_S + 1
        await hook.until(lambda: hook.kinds().count("held") == 2)
        test.cancel()
        with pytest.raises(asyncio.CancelledError):
            await test
    texts = {body["vm"]: body["text"] for body in hook.bodies}
    assert texts["web-2"].startswith("TEST: web-2 stays in pool app")
    assert texts["web-3"].startswith("web-3 stays in pool app")


async def test_f8_a_drain_in_a_dry_run_is_refused(bench: InProcessSet, person: Person) -> None:
    """No agent would act, so nothing is requested, and nothing stands when the dry run ends."""
    bench.config("web-1", {"policy": {"dry_run": True}})
    said = await person("drain", "web-3", code=1)
    assert "dry_run = true in [policy], so no agent drains a VM; nothing is requested" in said
    assert not bench.world.blobs.find(bench.ledger_path.replace("web.json", "web.requests.json"))
