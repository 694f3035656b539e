"""The Azure clouds that can be configured, and what differs between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

CloudName = Literal["AzurePublicCloud", "AzureUSGovernment", "AzureChinaCloud"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """One cloud."""

    imds_name: str
    """Its name in the instance metadata (compute.azEnvironment)."""
    resource_manager_endpoint: str
    """As azure-mgmt-core lists it."""
    token_audience: str
    """The resource of Resource Manager tokens, as azure-mgmt-core lists it."""
    storage_suffix: str
    """Domain of storage accounts."""


CLOUDS: Mapping[CloudName, Cloud] = MappingProxyType(
    {
        "AzurePublicCloud": Cloud(
            imds_name="AzurePublicCloud",
            resource_manager_endpoint="https://management.azure.com",
            token_audience="https://management.azure.com",  # noqa: S106 -- a URL
            storage_suffix="core.windows.net",
        ),
        "AzureUSGovernment": Cloud(
            imds_name="AzureUSGovernmentCloud",
            resource_manager_endpoint="https://management.usgovcloudapi.net",
            token_audience="https://management.core.usgovcloudapi.net",  # noqa: S106 -- a URL
            storage_suffix="core.usgovcloudapi.net",
        ),
        "AzureChinaCloud": Cloud(
            imds_name="AzureChinaCloud",
            resource_manager_endpoint="https://management.chinacloudapi.cn",
            token_audience="https://management.chinacloudapi.cn",  # noqa: S106 -- a URL
            storage_suffix="core.chinacloudapi.cn",
        ),
    }
)


def one_container(host: str, path: str) -> bool:
    """Return whether a path can name a container: of Azure it has one part, of an emulator two."""
    suffixes = tuple(f".blob.{cloud.storage_suffix}" for cloud in CLOUDS.values())
    return path.strip("/").count("/") == 0 or not host.casefold().endswith(suffixes)
