"""The fixture of the end-to-end cases: a rig per test."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.support.process_set import ProcessSet, open_process_set

OpenRig = Callable[..., AbstractAsyncContextManager[ProcessSet]]


@pytest.fixture
def rigged(tmp_path: Path) -> OpenRig:
    """Return an opener of process sets; it takes the arguments of `open_process_set`."""
    return partial(open_process_set, tmp_path)
