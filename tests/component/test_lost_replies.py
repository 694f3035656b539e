"""Writes of operators whose reply is lost, or that meet what others have written."""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from controller.core.controls import Controls, Decision, EventControl, Override
from controller.errors import NotDone, NotSent, OutcomeUnknown
from controller.operator.controls import withdraw
from controller.operator.forgetting import absent, wait_until_forgotten
from controller.operator.overrides import override, overrides
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from tests.component.conftest import OpenClient
from tests.component.test_manual_drain import blob
from tests.support.in_process_set import InProcessSet


def lose_the_reply(store: Any, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Any]) -> None:
    """The next write arrives, its reply does not, and something else happens before the next."""

    async def replaced(body: bytes, etag: str) -> str:
        monkeypatch.undo()
        await store._blob.replace(body, etag)
        await then()
        raise OutcomeUnknown("reset")

    monkeypatch.setattr(store._blob, "replace", replaced)


async def test_a_request_that_was_withdrawn_does_not_come_back(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """The drain is withdrawn before its author knows that it was written."""
    async with clients() as client, clients() as eve:
        with pytest.MonkeyPatch.context() as patched:
            lose_the_reply(client.requests, patched, lambda: eve.restore("web-2"))
            await client.drain("web-2", for_s=600, reason="")
    (request,) = blob(bench)["requests"]
    assert request["ended_at"]


async def test_a_change_that_cannot_be_read_back_is_not_called_a_failure(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Who tries again would drain twice: the message states that it may be in effect."""
    async with clients() as client:
        with pytest.MonkeyPatch.context() as patched:

            async def unreachable() -> None:
                raise NotSent("refused")

            async def then() -> None:
                patched.setattr(client.requests._blob, "read_properties", unreachable)

            lose_the_reply(client.requests, patched, then)
            with pytest.raises(OutcomeUnknown, match=r"not known whether the blob .* was changed"):
                await client.drain("web-2", for_s=600, reason="")
    assert blob(bench)["requests"]


async def test_storage_that_never_replies_is_not_taken_for_other_writers(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """No other client has written anything."""
    async with clients() as client:
        bench.fault(Service.BLOB, Effect.RESET_BEFORE, method="PUT", path_contains="requests")
        with pytest.raises(OutcomeUnknown, match="not known whether"):
            await client.drain("web-2", for_s=600, reason="")


async def test_an_override_that_is_not_valid_here_does_not_forbid_others(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A newer version, or a file with other pools, has set something that this one refuses."""
    settings = bench.settings(bench.config("web-1"))
    async with clients() as client:
        now = client.now()
        newer = Override(
            key="of_a_newer_version",
            pool="",
            value="1",
            by="ann",
            reason="",
            at=now,
            until=now + timedelta(hours=1),
        )
        await client.controls.change(lambda known: known.overriding(newer))

        async def set_it(assignment: str) -> None:
            await override(client, settings, assignment, pool="", for_s=600, reason="")

        await set_it("lead_time_s=600")
        with pytest.raises(NotDone, match=r"policy\.lead_time_s: must be more than 0") as refused:
            await set_it("lead_time_s=0")
        assert "of_a_newer_version" not in str(refused.value)
        assert [each.key for each in await overrides(client)] == [
            "of_a_newer_version",
            "lead_time_s",
        ]


def put_ledger(bench: InProcessSet, *, lost: bool, steps: tuple[str, ...] = ()) -> None:
    place = {
        "kind": "nic",
        "pool_id": "/pools/app",
        "nic_id": "/nic/web-2",
        "ip_configuration": "ipconfig1",
        "position": 0,
    }
    entry = {
        "vm": "web-2",
        "vm_id": "/vm/web-2",
        "events": [],
        "memberships": [],
        "lost": [place],
        "recorded_at": "2026-01-05T12:00:00+00:00",
        "gone": False,
    }
    lines = [
        {"at": "2026-01-05T13:00:00+00:00", "vm": "web-2", "what": step, "detail": ""}
        for step in steps
    ]
    ledger = {
        "version": "1.2",
        "epoch": 3,
        "leader": "",
        "entries": [entry] if lost else [],
        "holds": [],
        "transitions": lines,
    }
    bench.put_ledger(json.dumps(ledger).encode())


@pytest.mark.parametrize(
    ("steps", "forgotten"),
    [
        (("place exists again", "in service"), False),
        (("membership dropped", "in service"), True),
        (("forgotten",), True),
        ((), True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
async def test_what_was_restored_is_not_called_forgotten(
    bench: InProcessSet, clients: OpenClient, steps: tuple[str, ...], forgotten: bool
) -> None:
    """The place exists again just before the leader reads the request."""
    put_ledger(bench, lost=True)
    async with clients() as client:
        entry = await absent(client, "web-2")
        put_ledger(bench, lost=False, steps=steps)
        if forgotten:
            await wait_until_forgotten(client, entry)
        else:
            with pytest.raises(NotDone, match="web-2 is not forgotten: what was lost exists again"):
                await wait_until_forgotten(client, entry)


async def test_an_ambiguous_decision_is_not_called_absent(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Two events are held, and their first characters name both."""
    async with clients() as client:
        now = client.now()
        for event_id in ("AAAA-1", "AAAA-2"):
            held = EventControl(
                event_id=event_id,
                decision=Decision.HOLD,
                by="ann",
                reason="",
                at=now,
                until=now + timedelta(hours=1),
            )
            await client.controls.change(partial(Controls.deciding, control=held))
        with pytest.raises(NotDone, match="begin with AAAA: AAAA-1, AAAA-2"):
            await withdraw(client, "AAAA", Decision.HOLD)
        assert (await withdraw(client, "AAAA-2", Decision.HOLD)).event_id == "AAAA-2"
