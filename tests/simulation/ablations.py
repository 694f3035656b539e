"""Safeguards that can be switched off, to show that something notices.

Every switch patches the product for the length of a block; the product knows nothing of it. `LAWS`
names the law that has to break within a few hundred seeds, or the safeguard is untested.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType

Switch = Callable[[], AbstractContextManager[object]]
SWITCHES: Mapping[str, tuple[str, Switch]] = MappingProxyType({})


@contextmanager
def without(name: str) -> Iterator[None]:
    """Switch one safeguard off; an empty name switches none."""
    switch = SWITCHES[name][1] if name else nullcontext
    with switch():
        yield
