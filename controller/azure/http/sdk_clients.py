"""The clients of a management SDK: one for each subscription, created when it is first needed."""

import asyncio
import ctypes
import importlib
import sys
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from controller.azure.http.arm_client import Arm
from controller.core.azure_names import fold
from controller.core.printable import excerpt
from controller.errors import NotSent

C = TypeVar("C")
_DAMAGED = (
    AttributeError,
    EOFError,
    ImportError,
    MemoryError,
    NameError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What Python raises for a file that is missing, cut or unreadable, or of another version."""


class SdkClients(Generic[C]):
    """The clients of one SDK package.

    Only a leader with something to do needs an SDK, so the package is imported by `load`, or with
    the first client.
    """

    def __init__(self, arm: Arm, package: str, class_name: str) -> None:
        self._arm = arm
        self._package, self._class_name = package, class_name
        self._clients: dict[str, C] = {}

    async def of(self, subscription: str) -> C:
        """Return the client of a subscription; raise NotSent as `load` does."""
        client = self._clients.get(fold(subscription))
        if client is None:
            client_of = getattr(await self._loaded(), self._class_name)
            client = self._clients[fold(subscription)] = cast(
                "C", client_of(self._arm.credential, subscription, **self._arm.client_options())
            )
        return client

    async def load(self) -> None:
        """Import the package, so that no request waits for it.

        Raises:
            NotSent: the package cannot be imported. The next call tries again.
        """
        await self._loaded()

    async def _loaded(self) -> Any:
        """Return the package; import it without blocking the event loop.

        The import takes a quarter of a second of processor time, several seconds without compiled
        bytecode, and leaves megabytes of garbage in the heap of a process that then runs for
        months.
        """
        if not _is_loaded(self._package):
            try:
                await asyncio.to_thread(_import, self._package)
            except _DAMAGED as error:
                reason = excerpt(f"{type(error).__name__}: {error}")
                raise NotSent(
                    f"the Python package {self._package} cannot be loaded ({reason}), so this "
                    "agent sends no request that needs it: install the service again on this VM"
                ) from error
        return sys.modules[self._package]


def _import(package: str) -> None:
    importlib.import_module(package)
    with suppress(AttributeError, OSError, TypeError):  # not every C library can return memory
        ctypes.CDLL(None).malloc_trim(0)


def _is_loaded(package: str) -> bool:
    """Return whether a package can be used: another write may be importing it in its thread."""
    module = sys.modules.get(package)
    return module is not None and not getattr(module.__spec__, "_initializing", False)
