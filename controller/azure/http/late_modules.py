"""Import libraries without a large module that they import and this package never uses.

While a library is imported, a name that it takes from such a module is a stand-in. The module is
loaded when the stand-in is used: called, subclassed, asked for an attribute or by `isinstance`. So
only the time of the import changes for the library. All other code imports the module as usual.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Any, Self

_UNLIKE = (AttributeError, ImportError, TypeError)
"""What a library raises that does more with a name, while it is imported, than a stand-in can."""


def import_without(late: str, *libraries: str) -> None:
    """Import libraries, and not the package `late`, which is loaded when they use it.

    A library that needs the package at once is imported with it.
    """
    with suppress(*_UNLIKE), _StandIns(late):
        for library in libraries:
            importlib.import_module(library)
        return
    for library in libraries:
        importlib.import_module(library)


def _is_special(name: str) -> bool:
    return name.rpartition(".")[2].startswith("__")


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for each module of a package, while it is used as a context manager."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._modules: list[ModuleType] = []

    def __enter__(self) -> Self:
        if self._package not in sys.modules:
            sys.meta_path.insert(0, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.withdraw()

    def withdraw(self) -> None:
        """Let the package be imported as usual from now on."""
        with suppress(ValueError):
            sys.meta_path.remove(self)
        for module in self._modules:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]

    def find_spec(
        self, fullname: str, _path: object, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module of the package."""
        if fullname.partition(".")[0] != self._package or _is_special(fullname):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        """Give a module any name that it is asked for."""

        def stand_in(name: str) -> "_StandIn":
            if _is_special(name):  # what the import system looks for, and modules may lack
                raise AttributeError(name)
            return _StandIn(self, module.__name__, name)

        self._modules.append(module)
        vars(module)["__getattr__"] = stand_in


class _StandIn:
    """Stands for one name of a module, and loads the module when it is used."""

    def __init__(self, stand_ins: _StandIns, module: str, name: str) -> None:
        self._stand_ins, self._module, self._name = stand_ins, module, name

    def _load(self) -> Any:
        self._stand_ins.withdraw()
        module = importlib.import_module(self._module)
        if not hasattr(module, self._name):
            return importlib.import_module(f"{self._module}.{self._name}")
        return getattr(module, self._name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._load()(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        if _is_special(name):  # typing looks for these in every annotation
            raise AttributeError(name)
        return getattr(self._load(), name)

    def __mro_entries__(self, _bases: tuple[object, ...]) -> tuple[Any, ...]:
        return (self._load(),)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._load())
