"""Who is told of what, and how: `[[notifications]]`, one table per channel.

The URL of a chat's webhook is as good as a password, so both are secrets: they may stand in a file
of their own or in an environment variable, which `run` reads when it starts. Nothing shows them.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from controller.core.happenings import Kind
from controller.section import Section, is_loopback, split_url

KINDS = tuple(kind.value for kind in Kind)
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
)
"""What a template may name."""
SECRETS = frozenset({"url", "password"})
"""Keys whose values nothing repeats."""

_LONGEST_SECRET = 4096
_MAILBOX = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?")
_MAIL_ONLY = ("host", "username", "password", "password_file", "password_env", "sender", "to")
_URL_ONLY = ("url", "url_file", "url_env")
_NO_SECRET = SecretStr("")


class Notification(Section):
    """One channel; `[[notifications]]`."""

    kind: Literal["webhook", "slack", "teams", "email"]
    """`webhook` posts JSON, `slack` and `teams` post cards to their webhooks, `email` mails."""
    on: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Which happenings are told. Empty (default): all."""
    template: str = Field(default="", max_length=2000)
    """Text of a message, with fields such as {text} or {vm}. Empty (default): the text alone."""
    url: SecretStr = _NO_SECRET
    """Where to post; a secret."""
    url_file: str = ""
    """Absolute path of a file that holds the URL."""
    url_env: str = ""
    """Name of an environment variable that holds the URL."""
    host: str = Field(default="", max_length=255)
    """Mail server."""
    port: int = Field(default=587, ge=1, le=65535)
    """Port of the mail server; 587 is for submission."""
    encryption: Literal["starttls", "tls", "none"] = "starttls"
    """How the mail server is spoken to; `none` is for one on this host."""
    username: str = ""
    """User of the mail server. Empty (default): no authentication."""
    password: SecretStr = _NO_SECRET
    """Password of that user; a secret."""
    password_file: str = ""
    """Absolute path of a file that holds the password."""
    password_env: str = ""
    """Name of an environment variable that holds the password."""
    sender: str = ""
    """Mail address that messages come from."""
    to: Annotated[tuple[str, ...], Field(strict=False, max_length=50)] = ()
    """Mail addresses that messages go to."""

    @field_validator("on")
    @classmethod
    def _check_on(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in KINDS:
                raise ValueError(
                    f"names {_capped(name)}, which never happens; {_nearest(name, KINDS)}"
                )
        return value

    @field_validator("template")
    @classmethod
    def _check_template(cls, value: str) -> str:
        try:
            parts = list(Formatter().parse(value))
        except ValueError as error:
            raise ValueError(f"is not a template ({error}); write {{{{ for a brace") from None
        for _, name, spec, conversion in parts:
            if name is None:
                continue
            if name not in TEMPLATE_FIELDS:
                raise ValueError(
                    f"names the field {{{_capped(name)}}}, which does not exist; "
                    f"known: {', '.join(TEMPLATE_FIELDS)}"
                )
            if spec or conversion:
                raise ValueError(f"must name {{{name}}} without a conversion or format")
        return value

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        if value and _HOST.fullmatch(value) is None:
            raise ValueError("is not a host name or address")
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
        """Hold that the keys belong together.

        A secret that is kept elsewhere is not looked for: other commands than `run`, and other
        users, need not be able to read it.
        """
        mail = self.kind == "email"
        for name in _URL_ONLY if mail else _MAIL_ONLY:
            if getattr(self, name) not in ("", (), _NO_SECRET):
                raise ValueError(f'has {name}, which kind = "{self.kind}" does not use; remove it')
        if not mail:
            if not _source("url", self.url, self.url_file, self.url_env):
                raise ValueError("needs url, or url_file or url_env that says where the URL is")
            if self.url:
                self.secret_url({})
            return self
        for name in ("host", "sender", "to"):
            if not getattr(self, name):
                raise ValueError(f"has no {name}, which mail needs")
        source = _source("password", self.password, self.password_file, self.password_env)
        if bool(source) != bool(self.username):
            raise ValueError("needs both username and password, or neither of them")
        if self.encryption == "none" and self.username and not is_loopback(self.host):
            raise ValueError(
                'would send the password readable; use encryption = "starttls" or "tls"'
            )
        return self

    def wants(self, kind: Kind) -> bool:
        """Tell whether this channel is told of happenings of this kind."""
        return not self.on or kind.value in self.on

    def secret_url(self, environ: Mapping[str, str]) -> str:
        """Return the URL, wherever it is kept.

        Raises:
            ValueError: it cannot be had or used; the message does not repeat it.
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
        """Return the password, wherever it is kept; empty if there is none.

        Raises:
            ValueError: it cannot be had.
        """
        return _secret("password", self.password, self.password_file, self.password_env, environ)


def _source(name: str, value: SecretStr, file: str, variable: str) -> str:
    """Return the key that says where a secret is; empty if there is none."""
    given = [f"{name}{end}" for end, it in (("", value), ("_file", file), ("_env", variable)) if it]
    if len(given) > 1:
        raise ValueError(f"has {' and '.join(given)}; keep one of them")
    if file and not os.path.isabs(file):
        raise ValueError(f"has {name}_file, which must be an absolute path")
    return given[0] if given else ""


def _secret(
    name: str, value: SecretStr, file: str, variable: str, environ: Mapping[str, str]
) -> str:
    if variable:
        if not environ.get(variable):
            raise ValueError(f"has {name}_env, and that variable is not set; set it or correct it")
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


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name.casefold(), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _capped(text: str) -> str:
    """Show a wrong word, unless it may be a secret that was put there by mistake."""
    if "://" in text or "@" in text:
        return "a URL"
    return ascii(text[:40])[1:-1]
