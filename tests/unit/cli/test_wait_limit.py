"""How long `--wait` waits: every command has the same limit."""

import argparse
import asyncio

import pytest

from controller.cli import drain_session
from controller.cli.drain_session import time_limit
from controller.cli.main import build_parser
from controller.cli.options import LONGEST_WAIT, duration
from controller.cli.parser_tree import arguments, walk
from controller.errors import WaitOver


async def test_a_wait_without_a_timeout_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set without a leader reaches no result: a script must not hang for ever."""
    monkeypatch.setattr(drain_session, "LONGEST_WAIT_S", 0.01)
    with pytest.raises(WaitOver, match="not reached"):
        async with time_limit(None, lambda: "not reached"):
            await asyncio.Event().wait()


async def test_a_timeout_replaces_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be longer too."""
    monkeypatch.setattr(drain_session, "LONGEST_WAIT_S", 0.0)
    async with time_limit(60, lambda: "not reached"):
        await asyncio.sleep(0.01)


def test_every_command_that_waits_has_the_limit() -> None:
    """Each `--wait` has a `--timeout`, whose help states the default."""
    waiting = {path: parser for path, parser in walk(build_parser()) if "--wait" in options(parser)}
    assert set(waiting) == {("drain",), ("restore",), ("forget",)}
    for parser in waiting.values():
        assert f"(default: {LONGEST_WAIT})" in options(parser)["--timeout"]
    assert duration(1)(LONGEST_WAIT) == drain_session.LONGEST_WAIT_S


def options(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the help of each option."""
    return {name: str(each.help) for each in arguments(parser) for name in each.option_strings}
