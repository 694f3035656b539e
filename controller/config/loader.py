"""One TOML file, plus `LB_DRAIN_*` overrides, to validated settings.

Every problem is found in one go and reported with its place, so that an operator fixes the file
once, not once for each restart. `controller.config.explain` writes the problems.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from controller.config.azure import Azure
from controller.config.explain import explain
from controller.config.hints import nearest, shown
from controller.config.keys import (
    ENVIRONMENT_PREFIX,
    TYPES,
    VARIABLES,
    Location,
    dotted,
    value_of,
    values_in,
)
from controller.config.schema import STORAGE_CONNECTION_STRING, Settings
from controller.config.watch_settings import WatchSettings
from controller.errors import ConfigError
from controller.system.paths import DEFAULTS

MINIMAL_FILE = """a minimal file is
    [[backend_pools]]
    id = "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.Network/loadBalancers/<lb>/backendAddressPools/<pool>"
    [election]
    container_url = "https://<account>.blob.core.windows.net/<container>\""""  # noqa: E501

DEFAULT_CONFIG = Path(str(DEFAULTS.config))

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and where each value came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Dotted key to "file", "environment LB_DRAIN_…" or "default"."""


@dataclass(frozen=True, slots=True)
class LoadedWatch:
    """The settings of `lb-drain update-watch`, and where each value came from."""

    settings: WatchSettings
    origins: Mapping[str, str]


class InvalidConfigError(ConfigError):
    """Everything that is wrong with the configuration, one line for each problem."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(path: Path, environ: Mapping[str, str]) -> LoadedSettings:
    """Read the file, apply the environment and validate. Raises InvalidConfigError."""
    return parse(_read(path), environ, path)


def parse(text: str, environ: Mapping[str, str], path: Path) -> LoadedSettings:
    """Load `text` as the content of the file `path`, which need not exist."""
    settings, origins = _parsed(Settings, text, environ, path)
    return LoadedSettings(settings, origins)


def load_watch(path: Path, environ: Mapping[str, str]) -> LoadedWatch:
    """Read what `lb-drain update-watch` needs of the file. Raises InvalidConfigError."""
    settings, origins = _parsed(WatchSettings, _read(path), environ, path)
    return LoadedWatch(settings, origins)


def load_either(path: Path, environ: Mapping[str, str]) -> LoadedSettings | LoadedWatch:
    """Read a file of the agent, or one that is for `lb-drain update-watch` only."""
    text = _read(path)
    document = _document(text, path)
    if "update_watch" in document and not {"backend_pools", "election"} & document.keys():
        return load_watch(path, environ)
    return parse(text, environ, path)


def _parsed(
    model: type[M], text: str, environ: Mapping[str, str], path: Path
) -> tuple[M, Mapping[str, str]]:
    """Return the validated settings, and the origin of each value by dotted key."""
    document = _document(text, path)
    origins: dict[Location, str] = {location: "file" for location, _ in values_in(document)}
    problems: list[str] = []
    for variable in sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX)):
        location = VARIABLES.get(variable)
        if location is None:
            hint = nearest(variable, sorted(VARIABLES), otherwise="remove it; known")
            problems.append(f"environment: {shown(variable)} is not a setting; {hint}")
        elif _put(document, location, environ[variable]):
            _replace_origins(origins, document, location, f"environment {variable}")
    context = {"loopback_http_storage": bool(environ.get(STORAGE_CONNECTION_STRING))}
    try:
        settings = model.model_validate(document, context=context)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=True)
        lines = explain(errors, path=path, text=text, origins=origins)
        raise InvalidConfigError((*lines, *problems)) from None
    if problems:
        raise InvalidConfigError(tuple(problems))
    values = dict(values_in(settings.model_dump()))
    # A list that a variable has emptied has no value that could have an origin.
    empty = {at for at, origin in origins.items() if at in TYPES and origin != "file"}
    every = {dotted(at): origins.get(at, "default") for at in (*values, *empty)}
    return settings, MappingProxyType(every)


def _replace_origins(
    origins: dict[Location, str], document: dict[str, Any], at: Location, origin: str
) -> None:
    """Note where a key comes from, with every item if it is a list, instead of the file."""
    for known in [each for each in origins if each[: len(at)] == at]:
        del origins[known]
    node: Any = document
    for key in at:
        node = node[key]
    origins |= {each: origin for each, _ in values_in(node, at)} | {at: origin}


def azure_from_environment(environ: Mapping[str, str]) -> Azure:
    """Return the settings of `[azure]` as the environment sets them, for a command without a file.

    Raises:
        ConfigError: a variable has a value that cannot be used.
    """
    document: dict[str, Any] = {}
    names = {at: name for name, at in VARIABLES.items() if at[0] == "azure" and name in environ}
    for at, name in names.items():
        _put(document, at, environ[name])
    try:
        return Azure.model_validate(document.get("azure", {}))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        lines = (
            f"environment: {names[('azure', str(each['loc'][0]))]} "
            f"{each['msg'].removeprefix('Value error, ')}"
            for each in found
        )
        raise InvalidConfigError(tuple(lines)) from None


def describe(loaded: LoadedSettings | LoadedWatch) -> list[tuple[str, str, str]]:
    """Return (dotted key, value as text, origin) of every setting, in the order of the file."""
    return [
        (key, str(value).lower() if isinstance(value, bool) else str(value), loaded.origins[key])
        for key, value in _by_key(loaded).items()
    ]


def overridden(loaded: LoadedSettings) -> dict[str, object]:
    """Return the values that the environment set, by dotted key; a list is one value."""
    settings = loaded.settings.model_dump()
    found: dict[str, object] = {}
    for at in VARIABLES.values():
        if loaded.origins.get(dotted(at), "").startswith("environment"):
            found[dotted(at)] = reduce(lambda node, key: node[key], at, settings)
    return found


def _by_key(loaded: LoadedSettings | LoadedWatch) -> dict[str, object]:
    return {dotted(at): value for at, value in values_in(loaded.settings.model_dump())}


# --- the file and the environment ---


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise _refusal(
            path, f"does not exist; create it with `lb-drain init`; {MINIMAL_FILE}"
        ) from None
    except OSError as error:
        raise _refusal(
            path, f"cannot be read ({error.strerror}); give a file this user can read"
        ) from None
    except UnicodeDecodeError as error:
        raise _refusal(path, f"is not UTF-8 text at byte {error.start}; save it as UTF-8") from None


def _document(text: str, path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _refusal(
            path, f"is not TOML: {shown(str(error), longest=300)}; correct it there"
        ) from None
    except RecursionError:
        raise _refusal(
            path, "is nested too deeply; no setting is deeper than a table in a table"
        ) from None
    except ValueError:
        # Python refuses to convert a number of more than 4300 digits.
        raise _refusal(
            path, "has a number of too many digits; no setting has more than ten"
        ) from None
    if not document:
        raise _refusal(path, f"is empty; {MINIMAL_FILE}")
    return document


def _items(text: str) -> list[object]:
    """Return the items of a list that a variable holds, separated by commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [int(part) if _is_small_number(part) else part for part in parts]


def _is_small_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _refusal(path: Path, problem: str) -> InvalidConfigError:
    return InvalidConfigError((f"{path}: {problem}",))


def _put(document: dict[str, Any], at: tuple[str, ...], text: str) -> bool:
    """Set one key from the text of a variable; return False if the file has no table for it."""
    value = _items(text) if TYPES[at] is tuple else value_of(TYPES[at], text)
    node: object = document
    for key in at[:-1]:
        node = cast("dict[str, object]", node).setdefault(key, {})
        if not isinstance(node, dict):
            return False
    cast("dict[str, object]", node)[at[-1]] = value
    return True
