"""The clients of a management SDK: one for each subscription, created when it is first needed."""

import asyncio
import ctypes
import importlib
import sys
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from controller.azure.http.arm_client import Arm
from controller.core.azure_names import fold

C = TypeVar("C")


class SdkClients(Generic[C]):
    """The clients of one SDK package.

    Only a leader needs an SDK, so the package is imported with the first client.
    """

    def __init__(self, arm: Arm, package: str, class_name: str) -> None:
        self._arm = arm
        self._package, self._class_name = package, class_name
        self._clients: dict[str, C] = {}

    async def of(self, subscription: str) -> C:
        """Return the client of a subscription."""
        client = self._clients.get(fold(subscription))
        if client is None:
            sdk = await _load(self._package)
            client = self._clients[fold(subscription)] = cast(
                "C",
                getattr(sdk, self._class_name)(
                    self._arm.credential, subscription, **self._arm.client_options()
                ),
            )
        return client


async def _load(package: str) -> Any:
    """Import an SDK package without blocking the event loop.

    The import takes most of a second of processor time, several seconds without compiled bytecode,
    and leaves megabytes of garbage in the heap of a process that then runs for months.
    """
    if not _is_loaded(package):
        await asyncio.to_thread(importlib.import_module, package)
        with suppress(OSError, AttributeError):  # not every C library can return memory
            ctypes.CDLL(None).malloc_trim(0)
    return sys.modules[package]


def _is_loaded(package: str) -> bool:
    """Return whether a package can be used: another write may be importing it in its thread."""
    module = sys.modules.get(package)
    return module is not None and not getattr(module.__spec__, "_initializing", False)
