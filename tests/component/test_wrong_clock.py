"""Commands on a machine whose clock is wrong, or whose user has no name."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controller.clock import CorrectedClock
from controller.operator.controls import pause
from controller.operator.drain_client import DrainClient, connect
from tests.component.conftest import OpenClient
from tests.component.test_controls import stored, with_client
from tests.component.test_manual_drain import blob
from tests.support.in_process_set import InProcessSet


async def with_wrong_clock(
    bench: InProcessSet, ahead: timedelta, work: Callable[[DrainClient], Any]
) -> list[str]:
    """Do something on a machine whose clock is ahead, or behind; return what is reported."""
    reported: list[str] = []
    async with connect(
        bench.settings(bench.config("web-1")),
        environ={},
        clock=CorrectedClock(bench.clock, ahead),
        report=reported.append,
    ) as client:
        await work(client)
    return reported


async def test_a_drain_from_a_clock_that_is_behind_is_in_force(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Its end is not over before it begins, and the user reads that the clock is wrong."""
    await bench.lead("web-1")
    reported = await with_wrong_clock(
        bench, timedelta(hours=-1), lambda client: client.drain("web-2", for_s=600, reason="")
    )
    await bench.until("web-2 is out", lambda: bench.inside("web-2") == [])
    [line] = [line for line in reported if "clock" in line]
    # The header Date has whole seconds, and the reply takes a moment.
    assert re.fullmatch(
        r"This clock is -3(600|59\d) s off; times are by the clock of Azure\.", line
    )


async def test_a_clock_that_is_ahead_ends_no_control_of_others(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A command drops the controls that are over, by the clock of Azure."""
    agent = await bench.lead("web-1")
    await bench.stop(agent)
    await with_client(bench, lambda client: pause(client, for_s=3600, reason="migration"))

    async def tidy(client: DrainClient) -> None:
        await client.controls.change(lambda known: known.in_force(client.now()))

    await with_wrong_clock(bench, timedelta(days=1), tidy)
    assert stored(bench)["pause"]["reason"] == "migration"


async def test_a_clock_that_is_ahead_withdraws_what_is_in_force(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """The request has not ended, whatever the clock of this machine shows."""
    await bench.lead("web-1")
    async with clients() as client:
        await client.drain("web-2", for_s=600, reason="")
    await with_wrong_clock(bench, timedelta(hours=1), lambda client: client.restore("web-2"))
    assert blob(bench)["requests"][0]["ended_at"]


async def test_a_user_without_a_name_is_a_number(
    bench: InProcessSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container can run as an id that no passwd has."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)

    async def requester(client: DrainClient) -> str:
        return client.requester

    assert (await with_client(bench, requester)).startswith("user ")
