"""Loading the SDK packages, which only a leader with something to do needs."""

import asyncio
import builtins
import ctypes
import importlib
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller.azure.http.arm_client import Arm
from controller.azure.http.request_waits import RequestWaits
from controller.azure.http.sdk_clients import SdkClients
from controller.errors import NotSent
from tests.support.clocks import ShiftedClock

SLOW = """
import builtins
builtins.slow_sdk_begins.set()
builtins.slow_sdk_goes_on.wait()
class Client:
    def __init__(self, *arguments, **options): ...
"""


THREAD = """
import threading
loaded_by = threading.current_thread()
class Client:
    def __init__(self, *arguments, **options): ...
"""


class NoToken:
    """A credential that is not asked."""

    async def get_token(self, *_scopes: str, **_options: object) -> None: ...


@pytest.fixture
async def arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Arm]:
    """Yield what clients are made from; packages are looked for in `tmp_path`."""
    monkeypatch.syspath_prepend(tmp_path)
    async with aiohttp.ClientSession() as session:
        yield Arm(
            endpoint="https://127.0.0.1:9",
            scope="https://127.0.0.1:9/.default",
            credential=NoToken(),  # type: ignore[arg-type]
            session=session,
            waits=RequestWaits(ShiftedClock()),
        )


async def test_a_package_is_loaded_in_a_thread(arm: Arm, tmp_path: Path) -> None:
    """The event loop renews the lease meanwhile, and the first client finds it loaded."""
    (tmp_path / "quick_sdk.py").write_text(THREAD)
    clients = SdkClients[Any](arm, "quick_sdk", "Client")
    await clients.load()
    assert sys.modules["quick_sdk"].loaded_by is not threading.main_thread()
    assert isinstance(await clients.of("subscription"), sys.modules["quick_sdk"].Client)


async def test_a_write_during_the_load_waits_for_its_end(
    arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No write uses a package that the thread of another task has not finished to import."""
    (tmp_path / "slow_sdk.py").write_text(SLOW)
    begins, goes_on = threading.Event(), threading.Event()
    monkeypatch.setattr(builtins, "slow_sdk_begins", begins, raising=False)
    monkeypatch.setattr(builtins, "slow_sdk_goes_on", goes_on, raising=False)
    clients = SdkClients[Any](arm, "slow_sdk", "Client")
    loading = asyncio.create_task(clients.load())
    await asyncio.to_thread(begins.wait)
    writing = asyncio.create_task(clients.of("subscription"))
    goes_on.set()
    assert isinstance(await writing, sys.modules["slow_sdk"].Client)
    await loading


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("import no_such_module", "ModuleNotFoundError", id="something is missing"),
        pytest.param("class Client", "SyntaxError", id="cut short"),
        pytest.param("import asyncio; asyncio.no_such_name", "AttributeError", id="other version"),
    ],
)
async def test_a_package_that_cannot_be_loaded_is_reported_and_tried_again(
    arm: Arm, tmp_path: Path, text: str, reason: str
) -> None:
    """The error names the package, the reason and the remedy; a later attempt can succeed."""
    package = f"broken_{reason.lower()}"
    source = tmp_path / f"{package}.py"
    source.write_text(text)
    clients = SdkClients[Any](arm, package, "Client")
    with pytest.raises(NotSent, match=rf"{package} cannot be loaded \({reason}: .*install"):
        await clients.load()
    with pytest.raises(NotSent, match=reason):
        await clients.of("subscription")
    source.write_text(THREAD)
    importlib.invalidate_caches()
    assert await clients.of("subscription")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(TypeError("expected str, not NoneType"), id="Windows"),
        pytest.param(OSError("no such library"), id="static"),
        pytest.param(AttributeError("undefined symbol: malloc_trim"), id="musl"),
    ],
)
async def test_a_c_library_that_returns_no_memory_is_no_damage(
    arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The package is loaded all the same."""

    def refuse(_name: object) -> None:
        raise error

    package = f"sdk_without_{type(error).__name__.lower()}"
    (tmp_path / f"{package}.py").write_text(THREAD)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    await SdkClients[Any](arm, package, "Client").load()
    assert package in sys.modules
