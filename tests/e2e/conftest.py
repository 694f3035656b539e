"""The fixture of the end-to-end cases: a rig per test."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from .rig import Rig, open_rig

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def rigged(tmp_path: Path) -> OpenRig:
    """Return what opens a rig; its arguments are those of `open_rig`, but for the directory."""
    return partial(open_rig, tmp_path)
