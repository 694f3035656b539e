"""The settings of `[azure]`: endpoints, identity and api-versions."""

import re
from typing import cast

from pydantic import Field, ValidationInfo, field_validator

from controller.config.api_versions import COMPUTE_VERSIONS, NETWORK_VERSIONS
from controller.config.base import Section, check_ca_file, check_origin
from controller.config.clouds import CLOUDS, CloudName

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_API_VERSION = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")


class Azure(Section):
    """Endpoints and identity: for sovereign clouds, Azure Stack Hub, the simulator; `[azure]`."""

    cloud: CloudName = "AzurePublicCloud"
    """The cloud, which sets the Resource Manager endpoint and the audience of its tokens."""
    resource_manager_endpoint: str = ""
    """URL of Azure Resource Manager. Empty (default): the endpoint of the cloud."""
    imds_endpoint: str = "http://169.254.169.254"
    """URL of the instance metadata service, which supports plain HTTP only."""
    ca_file: str = ""
    """Absolute path of a PEM file with additional trusted certificate authorities. Empty: none."""
    client_id: str = ""
    """Client ID of a user-assigned managed identity. Empty (default): the system-assigned one."""
    compute_api_version: str = COMPUTE_VERSIONS.pinned
    """The api-version of requests to Microsoft.Compute. Set an older one for Azure Stack Hub, or
    for a cloud that does not have this one."""
    network_api_version: str = NETWORK_VERSIONS.pinned
    """The api-version of requests to Microsoft.Network, likewise."""
    poll_fallback_s: float = Field(default=1, gt=0, le=60, allow_inf_nan=False)
    """Seconds between polls of a running operation if Azure sends no Retry-After. The SDK's default
    of 30 would use up the notice."""

    @property
    def token_audience(self) -> str:
        """The resource of Resource Manager tokens."""
        return CLOUDS[self.cloud].token_audience

    @field_validator("resource_manager_endpoint")
    @classmethod
    def _check_resource_manager(cls, value: str, info: ValidationInfo) -> str:
        if value:
            return check_origin(value, scheme="https")
        cloud = cast("CloudName | None", info.data.get("cloud"))
        return CLOUDS[cloud].resource_manager_endpoint if cloud else value

    @field_validator("imds_endpoint")
    @classmethod
    def _check_imds(cls, value: str) -> str:
        return check_origin(value, scheme="http")

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, value: str) -> str:
        return check_ca_file(value)

    @field_validator("client_id")
    @classmethod
    def _check_client_id(cls, value: str) -> str:
        if value and _GUID.fullmatch(value) is None:
            raise ValueError(
                "is not a GUID; copy the 'Client ID' of the user-assigned managed identity"
            )
        return value

    @field_validator("compute_api_version", "network_api_version")
    @classmethod
    def _check_api_version(cls, value: str) -> str:
        if _API_VERSION.fullmatch(value) is None:
            raise ValueError('is not an api-version, such as "2024-05-01"')
        return value
