"""Loading the SDK packages, which only a leader needs."""

import asyncio
import builtins
import threading
from pathlib import Path

import pytest

from controller.azure.http import sdk_clients

SLOW = """
import builtins, time
builtins.slow_sdk_begins.set()
time.sleep(0.3)
class Client: ...
"""


async def test_two_writes_load_a_package_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No write uses a package that the thread of another write has not finished to import."""
    (tmp_path / "slow_sdk.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    begins = threading.Event()
    monkeypatch.setattr(builtins, "slow_sdk_begins", begins, raising=False)
    first = asyncio.create_task(sdk_clients._load("slow_sdk"))
    await asyncio.to_thread(begins.wait)
    second = await sdk_clients._load("slow_sdk")
    assert second.Client is (await first).Client
