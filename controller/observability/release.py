"""The version of this package."""

from functools import lru_cache
from importlib.metadata import version

PACKAGE = "lb-drain-controller"


@lru_cache(maxsize=1)  # the status page asks every second
def release() -> str:
    """Return the version of the installed package."""
    return version(PACKAGE)
