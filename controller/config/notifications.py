"""Notification channels: `[[notifications]]`, one table for each channel.

The URL of a webhook is as good as a password, so both are secrets. They can be in a file of their
own, which is read for every message, or in an environment variable. No command shows them.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from controller.config.base import Section, is_host, is_loopback, split_url
from controller.config.hints import nearest, shown
from controller.core.notices.digest import WEEKDAYS, Schedule
from controller.core.notices.notice import Notice, NoticeKind

_NOT_CHOSEN = frozenset({NoticeKind.DIGEST, NoticeKind.TEST})
KINDS = tuple(kind.value for kind in NoticeKind if kind not in _NOT_CHOSEN)
"""The kinds that `on` can name; digests and tests reach a channel otherwise."""
TEMPLATE_FIELDS = (
    "text",
    "happening",
    "level",
    "vm",
    "event_id",
    "event_type",
    "not_before",
    "at",
    "agent",
    "availability_set",
    "resource_group",
    "runbook_url",
)
"""The fields that a template can use."""
SECRETS = frozenset({"url", "password"})
"""Keys whose values are never shown."""

_LONGEST_SECRET = 4096
_MAILBOX = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+")
_MAIL_ONLY = ("host", "username", "password", "password_file", "password_env", "sender", "to")
_URL_ONLY = ("url", "url_file", "url_env")
_NO_SECRET = SecretStr("")


class Notification(Section):
    """One channel; `[[notifications]]`."""

    kind: Literal["webhook", "slack", "teams", "email"]
    """`webhook` posts JSON, `slack` and `teams` post to their webhooks, `email` sends mail."""
    on: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The kinds of notifications to send. Empty (default): all kinds."""
    digest: Literal["", "daily", "weekly"] = ""
    """How often this channel gets a digest of events and polls. Empty (default): never."""
    digest_weekday: Literal[
        "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"
    ] = "monday"
    """Day of a weekly digest."""
    digest_hour: int = Field(default=8, ge=0, le=23)
    """Hour of the digest, in UTC."""
    template: str = Field(default="", max_length=2000)
    """Text of a message, with fields such as {text} or {vm}. Empty (default): the field text."""
    url: SecretStr = _NO_SECRET
    """URL to post to; a secret."""
    url_file: str = ""
    """Absolute path of a file that holds the URL."""
    url_env: str = ""
    """Name of an environment variable that holds the URL."""
    host: str = Field(default="", max_length=255)
    """Mail server: its name or IP address, without a port."""
    port: int = Field(default=587, ge=1, le=65535)
    """Port of the mail server; 587 is for submission."""
    encryption: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection to the mail server is protected; `none` is for a server on this host."""
    username: str = ""
    """User name at the mail server. Empty (default): no authentication."""
    password: SecretStr = _NO_SECRET
    """Password of that user; a secret."""
    password_file: str = ""
    """Absolute path of a file that holds the password."""
    password_env: str = ""
    """Name of an environment variable that holds the password."""
    sender: str = ""
    """Mail address of the sender."""
    to: Annotated[tuple[str, ...], Field(strict=False, max_length=50)] = ()
    """Mail addresses of the recipients."""

    @field_validator("on")
    @classmethod
    def _check_on(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in KINDS:
                raise ValueError(
                    f"contains {shown(name)}, which is not a kind of notification; "
                    f"{nearest(name, KINDS)}"
                )
        return value

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        try:
            parts = list(Formatter().parse(value))
        except ValueError as error:
            raise ValueError(f"is not a template ({error}); write a brace as {{{{") from None
        for _, name, spec, conversion in parts:
            if name is None:
                continue
            if name not in TEMPLATE_FIELDS:
                raise ValueError(
                    f"uses the field {{{shown(name)}}}, which does not exist; "
                    f"known: {', '.join(TEMPLATE_FIELDS)}"
                )
            if spec or conversion:
                raise ValueError(f"must use {{{name}}} without a conversion or format")
        return value

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        if value and not is_host(value):
            raise ValueError("is not a host name or IP address; a port belongs in the key port")
        return value

    @field_validator("sender")
    @classmethod
    def _check_sender(cls, value: str) -> str:
        if value:
            _check_mailbox(value)
        return value

    @field_validator("to")
    @classmethod
    def _check_to(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            _check_mailbox(each)
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> "Notification":
        """Check that the keys fit together.

        A secret in a file or in a variable is not read here: only `run` must be able to read it,
        not every command and every user.
        """
        mail = self.kind == "email"
        for name in _URL_ONLY if mail else _MAIL_ONLY:
            if getattr(self, name) not in ("", (), _NO_SECRET):
                raise ValueError(f'has {name}, which kind = "{self.kind}" does not use; remove it')
        if not mail:
            if not _source("url", self.url, self.url_file, self.url_env):
                raise ValueError("needs url, or url_file or url_env with the place of the URL")
            if self.url:
                self.secret_url({})
            return self
        for name in ("host", "sender", "to"):
            if not getattr(self, name):
                raise ValueError(f'has no {name}, which kind = "email" needs')
        source = _source("password", self.password, self.password_file, self.password_env)
        if bool(source) != bool(self.username):
            raise ValueError("needs both username and password, or neither")
        if self.encryption == "none" and self.username and not is_loopback(self.host):
            raise ValueError(
                'would send the password in clear text; use encryption = "starttls" or "tls"'
            )
        return self

    @property
    def schedule(self) -> Schedule | None:
        """When this channel gets a digest; None for never."""
        if not self.digest:
            return None
        weekday = WEEKDAYS.index(self.digest_weekday) if self.digest == "weekly" else None
        return Schedule(hour=self.digest_hour, weekday=weekday)

    def wants(self, notice: Notice) -> bool:
        """Return whether this channel gets this notification."""
        if notice.kind is NoticeKind.DIGEST:
            return self.schedule is not None and self.schedule.name == notice.schedule
        return not self.on or notice.kind.value in self.on

    def secret_url(self, environ: Mapping[str, str]) -> str:
        """Return the URL from the key, the file or the variable.

        Raises:
            ValueError: it cannot be read or used; the message does not repeat it.
        """
        given = _secret("url", self.url, self.url_file, self.url_env, environ)
        try:
            url = split_url(given)
        except ValueError as error:
            raise ValueError(f"has a url that {error}") from None
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname)):
            raise ValueError("has a url that must start with https:// (http:// on this host only)")
        return given

    def secret_password(self, environ: Mapping[str, str]) -> str:
        """Return the password from the key, the file or the variable; empty if there is none.

        Raises:
            ValueError: it cannot be read.
        """
        return _secret("password", self.password, self.password_file, self.password_env, environ)


def _source(name: str, value: SecretStr, file: str, variable: str) -> str:
    """Return the key that holds a secret or names its place; empty if there is none."""
    given = [f"{name}{end}" for end, it in (("", value), ("_file", file), ("_env", variable)) if it]
    if len(given) > 1:
        raise ValueError(f"has {' and '.join(given)}; keep only one")
    if file and not os.path.isabs(file):
        raise ValueError(f"has {name}_file, which must be an absolute path")
    return given[0] if given else ""


def _secret(
    name: str, value: SecretStr, file: str, variable: str, environ: Mapping[str, str]
) -> str:
    if variable:
        if not environ.get(variable):
            raise ValueError(
                f"has {name}_env, but that variable is not set; set it or correct its name"
            )
        return environ[variable].strip()
    if not file:
        return value.get_secret_value()
    try:
        with Path(file).open("rb") as stream:
            text = stream.read(_LONGEST_SECRET + 1).decode().strip()
    except (OSError, ValueError):
        raise ValueError(
            f"has {name}_file, which is not a text file that this user can read"
        ) from None
    if not text or len(text) > _LONGEST_SECRET:
        raise ValueError(f"has {name}_file, which is empty or too long")
    return text


def _check_mailbox(value: str) -> None:
    if _MAILBOX.fullmatch(value) is None or not value.isascii():
        raise ValueError("must be plain mail addresses such as oncall@example.com")
