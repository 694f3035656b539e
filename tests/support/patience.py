"""How tests wait for what other tasks and processes do.

A busy machine starts a process in ten seconds, and an event loop on it stands still for seconds. So
no test waits for a time: it waits for all that it asserts, and a bound ends only what is broken.
"""

import asyncio
from collections.abc import Callable, Set

PATIENCE_S = 120.0
"""After this long a wait has failed; a wait that succeeds costs what it takes."""


async def wait_for(
    changed: asyncio.Condition,
    what: str,
    holds: Callable[[], object],
    *,
    seen: Callable[[], object],
) -> None:
    """Wait until `holds()`, checked after each notification; fail with `what` and what is seen."""
    try:
        async with asyncio.timeout(PATIENCE_S), changed:
            await changed.wait_for(lambda: bool(holds()))
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; seen: {seen()}") from None


async def new_tasks_end(before: Set[asyncio.Task[object]]) -> None:
    """Wait until every task that was not there `before` has ended; fail with those that do not."""
    left = asyncio.all_tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE_S)
    assert left == set()
