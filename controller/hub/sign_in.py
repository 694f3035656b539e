"""The identity behind the polls of a Hub: a service principal in Entra ID or AD FS.

A Hub has no managed identity (Microsoft docs, Azure Stack Hub instance metadata service). The
credentials are the synchronous ones of azure-identity, in a thread: they request tokens with MSAL,
which finds the token endpoint of AD FS. The asynchronous ones request `/oauth2/v2.0/token`, which
AD FS does not have (Azure/azure-sdk-for-python#12696 is open for them). Instance discovery is off,
because it asks a host on the internet about the configured authority.
"""

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import CertificateCredential, ClientSecretCredential

from controller.config.update_watch import UpdateWatch
from controller.core.printable import excerpt
from controller.errors import ConfigError, Denied, NotSent
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.hub")

MAX_SECRET_BYTES = 64 * 1024
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 10
"""Of each of the two requests for a token. A thread cannot be cancelled, so they are short."""

Credential = ClientSecretCredential | CertificateCredential


class ServicePrincipal:
    """The credential of the polls.

    Each call signs in: azure-core keeps the token until shortly before it expires, and asks for
    another one if the Hub refuses it. A second cache would return the refused one again, and an
    update of the Hub can make all its tokens invalid. After a refusal the secret is read again.

    Args:
        settings: authority, tenant, client and the file with the secret.

    Raises:
        ConfigError: the secret or the certificate cannot be read or used.
    """

    def __init__(self, settings: UpdateWatch) -> None:
        self._settings, self._open = settings, _opener(settings)

    async def get_token(self, *scopes: str, **_options: object) -> AccessToken:
        """Return a token.

        Raises:
            Denied: the identity provider refuses the service principal.
            NotSent: it does not answer, so no poll was sent.
        """
        settings = self._settings
        where = f"sign-in at {settings.authority} as {settings.client_id}"
        try:
            return await asyncio.to_thread(self._sign_in, *scopes)
        except ClientAuthenticationError as error:
            reason = excerpt(str(error.message))
            if not _is_refusal(error):
                raise NotSent(f"{where}: no token ({reason})") from None
            with suppress(ConfigError):  # the file may have a new secret, for the next poll
                self._open = _opener(settings)
            raise Denied(
                f"{where} was refused: {reason}. Check client_id, tenant, scope and the secret or "
                "certificate in [update_watch], and whether it has expired"
            ) from None
        except (AzureError, OSError, ValueError) as error:
            raise NotSent(f"{where}: no token ({excerpt(str(error))})") from None

    def _sign_in(self, *scopes: str) -> AccessToken:
        with self._open() as credential:
            return credential.get_token(*scopes)

    async def close(self) -> None:
        """Close nothing: no connection outlives a request for a token."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


def _opener(settings: UpdateWatch) -> Callable[[], Credential]:
    """Return what makes a credential. Raises ConfigError if it cannot."""
    options: dict[str, Any] = {
        "authority": settings.authority,
        "disable_instance_discovery": True,
        "retry_total": 0,  # the next poll tries again
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
    }
    if settings.uses_adfs and settings.ca_file:
        # AD FS has a certificate of the Hub's authority, Entra ID has a public one.
        options["connection_verify"] = settings.ca_file
    key = "secret_file" if settings.secret_file else "certificate_file"
    path = Path(settings.secret_file or settings.certificate_file)
    secret, who = _read_secret(key, path), (settings.tenant, settings.client_id)
    opener: Callable[[], Credential]
    try:
        if key == "secret_file":
            opener = partial(ClientSecretCredential, *who, secret.decode().strip(), **options)
        else:
            opener = partial(CertificateCredential, *who, certificate_data=secret, **options)
        opener().close()
    except ValueError:
        # The message of the library can repeat a part of the file.
        raise ConfigError(
            f"update_watch.{key}: {path} cannot be used: it must hold a client secret as text, or "
            "for certificate_file a certificate and its RSA key as PEM without a password"
        ) from None
    return opener


def _is_refusal(error: ClientAuthenticationError) -> bool:
    """Return whether the identity provider has refused; otherwise it was not understood, or failed.

    azure-identity reports an error of OAuth without its reply, and any other failure with a cause.
    """
    status = getattr(error.response, "status_code", None) or 400
    return error.__cause__ is None and 400 <= status < 500 and status not in {408, 429}


def _read_secret(key: str, path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            secret = stream.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"update_watch.{key}: {path} cannot be read ({error.strerror}): create it, readable "
            "for the user of this command only"
        ) from None
    if not secret.strip() or len(secret) > MAX_SECRET_BYTES:
        raise ConfigError(
            f"update_watch.{key}: {path} is empty or longer than {MAX_SECRET_BYTES} bytes"
        )
    if mode & stat.S_IRWXO:
        message = (
            f"update_watch.{key}: other users of this host can read or change {path}: "
            f"run chmod o-rwx {path}, and consider the secret as known"
        )
        log(logger, logging.WARNING, message)
    return secret
