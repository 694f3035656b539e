"""What the scenes share: commands of the person on web-1, and a receiver of notifications."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import pytest

from tests.support.in_process_set import InProcessSet
from tests.support.lb_drain import printed
from tests.support.receivers import Hook, open_hook

DENIED = json.dumps(
    {
        "error": {
            "code": "AuthorizationFailed",
            "message": "The client 'c' with object id 'o' does not have authorization to perform "
            "action 'Microsoft.Network/networkInterfaces/write' over scope '/s' or the scope is "
            "invalid.",
        }
    }
)
"""What Resource Manager answers when a write is not allowed."""


class Person(Protocol):
    """Runs a command with the configuration of web-1; returns what it prints."""

    async def __call__(self, *arguments: str, code: int = 0) -> str: ...


@pytest.fixture
def person(bench: InProcessSet) -> Person:
    """Return what runs a command on web-1, whose agents read the requests often."""
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    return partial(printed, bench.config("web-1"))


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """Receive the notifications of the leader."""
    async with open_hook() as opened:
        yield opened


def channel(hook: Hook) -> dict[str, Any]:
    """Return the options of an agent that sends notifications."""
    return {"channels": (f'kind = "webhook"\nurl = "{hook.url}"',)}


def floor(number: int) -> dict[str, Any]:
    """Return the options of an agent that keeps so many members in service."""
    return {"overrides": {"backend_pools": {"min_in_service": number}}}
