"""The settings of `lb-drain update-watch`: `[update_watch]`.

The command watches an Azure Stack Hub from any machine that reaches its administrator endpoint.
"""

import os
import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from controller.config.base import Section, check_ca_file, check_origin
from controller.system.paths import DEFAULTS

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TENANT = re.compile(r"[A-Za-z0-9.-]{1,253}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._()-]{0,89}")
_API_VERSION = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")
_SCOPE = re.compile(r"https://[A-Za-z0-9._:/-]{1,500}/\.default")
_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")
API_VERSION = "2016-05-01"
"""Every Azure Stack Hub has it; 2021-07-01 adds states only (Microsoft's OpenAPI)."""


class UpdateWatch(Section):
    """The updates of an Azure Stack Hub, for `lb-drain update-watch`; `[update_watch]`."""

    endpoint: str
    """URL of the administrator endpoint: "https://adminmanagement.REGION.FQDN"."""
    subscription: str
    """Id of the default provider subscription."""
    location: str
    """Region of the Hub; its resource group is System.REGION."""
    authority: str
    """URL that issues tokens: "https://login.microsoftonline.com", or the host of AD FS,
    "https://adfs.REGION.FQDN"."""
    tenant: str
    """Id or name of the Entra ID tenant, or "adfs"."""
    client_id: str
    """Client id of the service principal; it needs the role Reader on the subscription."""
    scope: str
    """Scope of the tokens: the audience of the administrator endpoint, as its /metadata/endpoints
    lists it, followed by "/.default"."""
    secret_file: str = ""
    """Absolute path of a file that holds the client secret. Either this or certificate_file."""
    certificate_file: str = ""
    """Absolute path of a PEM file with certificate and private key (RSA, without a password)."""
    ca_file: str = ""
    """Absolute path of a PEM file with the certificate authority of the Hub. Empty (default): the
    authorities that this host trusts."""
    api_version: str = API_VERSION
    """The api-version of requests to Microsoft.Update.Admin."""
    poll_s: float = Field(default=60, ge=1, le=3600, allow_inf_nan=False)
    """Seconds from one poll to the next. With --once the timer decides."""
    timeout_s: float = Field(default=60, ge=1, le=600, allow_inf_nan=False)
    """Timeout of one poll, in seconds."""
    failed_polls: int = Field(default=5, ge=1, le=1000)
    """Failed polls in a row after which the state of the update is reported as unknown. The
    privileged endpoints are asked then, and again after as many further failed polls."""
    long_run_s: float = Field(default=259_200, ge=60, le=2_592_000, allow_inf_nan=False)
    """Seconds after which a run that is still in progress is reported, once."""
    command: Annotated[tuple[str, ...], Field(strict=False, max_length=64)] = ()
    """Program, by its absolute path, and arguments that print the XML of Get-AzureStackUpdateStatus
    of the privileged endpoint that follows as the last argument. No shell reads them."""
    privileged_endpoints: Annotated[tuple[str, ...], Field(strict=False, max_length=10)] = ()
    """Names or addresses of the privileged endpoints, in the order in which they are tried."""
    command_timeout_s: float = Field(default=60, gt=0, le=600, allow_inf_nan=False)
    """Seconds after which the command is stopped, for each endpoint."""
    state_file: str = str(DEFAULTS.state_directory / "update-watch.json")
    """Absolute path of the file that keeps what was reported and how many polls failed."""

    @property
    def uses_adfs(self) -> bool:
        """Whether tokens come from AD FS."""
        return self.tenant == "adfs"

    @field_validator("endpoint", "authority")
    @classmethod
    def _check_origin(cls, value: str) -> str:
        return check_origin(value, scheme="https")

    @field_validator("subscription", "client_id")
    @classmethod
    def _check_guid(cls, value: str) -> str:
        return _checked(value, _GUID, "is not a GUID")

    @field_validator("location")
    @classmethod
    def _check_location(cls, value: str) -> str:
        return _checked(value, _NAME, 'is not the name of a region, such as "east"')

    @field_validator("tenant")
    @classmethod
    def _check_tenant(cls, value: str) -> str:
        tenant = _checked(value, _TENANT, 'is not the id or name of a tenant, nor "adfs"')
        return "adfs" if tenant.casefold() == "adfs" else tenant

    @field_validator("scope")
    @classmethod
    def _check_scope(cls, value: str) -> str:
        return _checked(
            value, _SCOPE, 'must be the audience of the endpoint, https://..., with "/.default"'
        )

    @field_validator("api_version")
    @classmethod
    def _check_api_version(cls, value: str) -> str:
        return _checked(value, _API_VERSION, f'is not an api-version, such as "{API_VERSION}"')

    @field_validator("secret_file", "certificate_file", "state_file")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if value and not (os.path.isabs(value) and value.isprintable() and os.path.basename(value)):
            raise ValueError("must be the absolute path of a file")
        return value

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, value: str) -> str:
        return check_ca_file(value)

    @field_validator("command")
    @classmethod
    def _check_command(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and not os.path.isabs(value[0]):
            raise ValueError("must begin with the absolute path of a program")
        if any("\0" in part for part in value):
            raise ValueError("must not contain NUL characters")
        return value

    @field_validator("privileged_endpoints")
    @classmethod
    def _check_endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            _checked(each, _ENDPOINT, 'must be host names or addresses, such as "10.0.0.224"')
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> "UpdateWatch":
        """Check that the keys fit together. The secret is not read here, only by the command."""
        if bool(self.secret_file) == bool(self.certificate_file):
            raise ValueError("needs either secret_file or certificate_file: set one of the two")
        if not self.state_file:
            raise ValueError("has no state_file; remove the key to use the default")
        if bool(self.command) != bool(self.privileged_endpoints):
            raise ValueError("needs both command and privileged_endpoints, or neither")
        return self


def _checked(value: str, pattern: re.Pattern[str], problem: str) -> str:
    if pattern.fullmatch(value) is None:
        raise ValueError(problem)
    return value
