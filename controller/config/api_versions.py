"""The api-versions of Resource Manager that this package is tested with.

A client that follows the newest version breaks where a cloud lags behind (seen: 400
`NoRegisteredProviderFound`, Azure/azure-sdk-for-js#9297), and its bodies change with every update
of an SDK. So each service has one pinned version, which an operator can change.

Standard library only.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRange:
    """The api-versions of one service that can be used."""

    key: str
    """The configuration key."""
    oldest: str
    pinned: str
    """The default: the version of the recorded traffic that the tests compare with."""
    newest: str


COMPUTE_VERSIONS = VersionRange(
    key="azure.compute_api_version", oldest="2021-03-01", pinned="2025-04-01", newest="2026-04-01"
)
NETWORK_VERSIONS = VersionRange(
    key="azure.network_api_version", oldest="2021-05-01", pinned="2025-05-01", newest="2026-03-01"
)
