"""The api-version of the requests to one service, and what follows when Azure refuses it.

A cloud that lags behind refuses a version in one of three forms: 400 `NoRegisteredProviderFound`
and 400 `InvalidApiVersionParameter`, which list the supported versions (Azure/azure-cli#28496), and
404 `InvalidResourceType`, which can look like a missing resource (Azure/azure-powershell#10299).
"""

import logging
import re

from controller.config.api_versions import VersionRange
from controller.errors import VersionRefused

_log = logging.getLogger("lbdrain.azure")

REFUSALS = frozenset(
    {
        "invalidapiversionparameter",
        "invalidresourcetype",
        "noregisteredproviderfound",
    }
)
"""Codes of a refused api-version, in lower case."""
_VERSION = re.compile(r"20\d\d-\d\d-\d\d(?:-[a-z]+)?")
_SUPPORTED = re.compile(r"supported (?:api-?)?versions are", re.IGNORECASE)
MOST_VERSIONS = 200
"""Of the versions in a reply, no more are read; Microsoft.Network has about 80."""


def supported_versions(text: str) -> tuple[str, ...]:
    """Return the api-versions that a refusal lists as supported; none if it lists none."""
    start = _SUPPORTED.search(text)
    found = _VERSION.findall(text, start.end()) if start else []
    return tuple(dict.fromkeys(found[:MOST_VERSIONS]))


class ApiVersion:
    """The version in use. It changes when Azure refuses it and supports another tested one.

    Args:
        tested: the versions that can be used.
        configured: the version to start with; empty for the pinned one.
    """

    def __init__(self, tested: VersionRange, configured: str = "") -> None:
        self._tested = tested
        self.value = configured or tested.pinned

    def refused(self, error: VersionRefused) -> None:
        """Change to the newest supported version in the tested range, if there is one."""
        newest = max(self._usable(error.supported), default="")
        if newest in {"", self.value} or self.value in error.supported:
            return
        _log.warning(
            "Azure does not support api-version %s here, so %s is used from now on. "
            'Set %s = "%s" to use it from the start',
            self.value,
            newest,
            self._tested.key,
            newest,
        )
        self.value = newest

    def remedy(self, error: VersionRefused) -> str:
        """Return what the operator can do about a refusal."""
        usable = self._usable(error.supported)
        if usable:
            return f'set {self._tested.key} = "{max(usable)}"'
        stable = [each for each in error.supported if len(each) == len("2024-05-01")]
        newest = f"; the newest that Azure names is {max(stable)}" if stable else ""
        return f"set {self._tested.key} to a version that this cloud supports{newest}"

    def _usable(self, supported: tuple[str, ...]) -> list[str]:
        oldest, newest = self._tested.oldest, self._tested.newest
        return [each for each in supported if len(each) == len(oldest) and oldest <= each <= newest]
