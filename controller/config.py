"""One TOML file, plus `LB_DRAIN_*` overrides, to validated settings.

Every problem is found in one go and told with its place, so an operator fixes a file once, not
once per restart. Problems never repeat a URL, which could carry a secret.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controller.errors import ConfigError
from controller.notify_settings import SECRETS, Notification
from controller.settings import STORAGE_CONNECTION_STRING, BackendPool, Settings

__all__ = ["InvalidConfigError", "Loaded", "Settings", "describe", "load", "overridden", "parse"]

ENVIRONMENT_PREFIX = "LB_DRAIN_"
MINIMAL_FILE = """a minimal file is
    [[backend_pools]]
    id = "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.Network/loadBalancers/<lb>/backendAddressPools/<pool>"
    [election]
    container_url = "https://<account>.blob.core.windows.net/<container>\""""  # noqa: E501

DEFAULT_CONFIG = Path("/etc/lb-drain/config.toml")
Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each value came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Dotted key to "file", "environment LB_DRAIN_…" or "default"."""


class InvalidConfigError(ConfigError):
    """Everything that is wrong with the configuration, one line each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Read the file, apply the environment and validate. Raises InvalidConfigError."""
    return parse(_read(path), environ, path)


def parse(text: str, environ: Mapping[str, str], path: Path) -> Loaded:
    """Do the same with what stands, or will stand, in the file `path`."""
    document = _document(text, path)
    origins: dict[Location, str] = {location: "file" for location, _ in _values(document)}
    problems: list[str] = []
    for variable in sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX)):
        location = _VARIABLES.get(variable)
        if location is None:
            known = _nearest(variable, _VARIABLES)
            problems.append(f"environment: {_capped(variable)} is not a setting; {known}")
        elif _put(document, location, environ[variable]):
            origins[location] = f"environment {variable}"
    context = {"loopback_http_storage": bool(environ.get(STORAGE_CONNECTION_STRING))}
    try:
        settings = Settings.model_validate(document, context=context)
    except ValidationError as error:
        lines = _lines(text)
        found = error.errors(include_url=False, include_context=True)
        told = [_tell(item, path, lines, origins) for item in found if not _follows(item, found)]
        raise InvalidConfigError((*told, *problems)) from None
    if problems:
        raise InvalidConfigError(tuple(problems))
    every = {_dotted(at): origins.get(at, "default") for at, _ in _values(settings.model_dump())}
    return Loaded(settings, MappingProxyType(every))


def describe(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Return (dotted key, value as text, origin) of every setting, in the file's order."""
    return [
        (key, str(value).lower() if isinstance(value, bool) else str(value), loaded.origins[key])
        for key, value in (
            (_dotted(at), value) for at, value in _values(loaded.settings.model_dump())
        )
    ]


def overridden(loaded: Loaded) -> dict[str, object]:
    """Return the values that the environment gave, by dotted key."""
    return {
        key: value
        for key, value in (
            (_dotted(at), value) for at, value in _values(loaded.settings.model_dump())
        )
        if loaded.origins[key].startswith("environment")
    }


# --- the file and the environment -----------------------------------------------------------------


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
        raise _refusal(path, f"is not TOML: {_capped(str(error))}; correct that place") from None
    except RecursionError:
        raise _refusal(
            path, "is nested too deeply; no setting is deeper than a table in a table"
        ) from None
    except ValueError:
        # int() takes some thousand digits and no more.
        raise _refusal(
            path, "holds a number of too many digits; no setting has more than ten"
        ) from None
    if not document:
        raise _refusal(path, f"is empty; {MINIMAL_FILE}")
    return document


def _refusal(path: Path, problem: str) -> InvalidConfigError:
    return InvalidConfigError((f"{path}: {problem}",))


def _values(node: object, at: Location = ()) -> Iterator[tuple[Location, object]]:
    """Yield every leaf of nested tables and arrays."""
    if isinstance(node, dict):
        for key, value in cast("dict[str, object]", node).items():
            yield from _values(value, (*at, key))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(cast("list[object]", node)):
            yield from _values(value, (*at, index))
    else:
        yield at, node


def _fields(
    model: type[BaseModel], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type]]:
    """Yield every single-valued key and its type; the arrays of tables have none."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, (*at, name))
        elif name not in _ARRAYS:
            yield (*at, name), kind if isinstance(kind, type) else str


_ARRAYS: Mapping[str, type[BaseModel]] = {
    "backend_pools": BackendPool,
    "notifications": Notification,
}
_KINDS = dict(_fields(Settings))
_VARIABLES = {ENVIRONMENT_PREFIX + "_".join(at).upper(): at for at in _KINDS}


def _put(document: dict[str, Any], at: tuple[str, ...], text: str) -> bool:
    """Set one key from its environment text; False where the file has no table to hold it."""
    value: object = text
    if _KINDS[at] is bool:
        value = {"true": True, "false": False}.get(text.strip().casefold(), text)
    elif _KINDS[at] in (int, float):
        try:
            value = _KINDS[at](text)
        except ValueError:
            value = text  # validation tells what is wrong with it
    node: object = document
    for key in at[:-1]:
        node = cast("dict[str, object]", node).setdefault(key, {})
        if not isinstance(node, dict):
            return False
    cast("dict[str, object]", node)[at[-1]] = value
    return True


# --- telling what is wrong ------------------------------------------------------------------------

_EXPECTED = {
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": 'must be text in "quotes"',
    "model_type": "must be a table of keys",
    "tuple_type": "must be an array",
    "finite_number": "must be an ordinary number",
}
_REQUIRED: dict[Location, str] = {
    ("backend_pools",): "a [[backend_pools]] table with the id of the pool",
    ("election",): "that table with container_url, the URL of a blob container",
    ("election", "container_url"): "the URL of a blob container",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "max_length": "shorter: at most"}


def _follows(item: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Tell whether a list is only too short because its items are wrong."""
    at = item["loc"]
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(at) and other["loc"][: len(at)] == at for other in found
    )


def _tell(
    item: ErrorDetails, path: Path, lines: Mapping[Location, int], origins: Mapping[Location, str]
) -> str:
    at = item["loc"]
    origin = origins.get(at, "")
    if origin.startswith("environment"):
        place = origin
    else:
        line = next((lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in lines), None)
        place = f"{path}:{line}" if line else str(path)
    return f"{place}: {_dotted(at)}: {_explain(item)}"


def _explain(item: ErrorDetails) -> str:
    kind, limits = item["type"], item.get("ctx", {})
    at = item["loc"]
    if kind == "extra_forbidden":
        said = f"is not a setting; {_nearest_key(item['loc'])}"
    elif kind == "missing":
        said = f"is required; add {_REQUIRED.get(item['loc'], 'it')}"
    elif kind == "too_short":
        said = f"is empty; add {_REQUIRED['backend_pools',]}"
    elif kind == "literal_error":
        said = f"must be {limits['expected']}, is {_shown(item['input'])}"
    elif kind == "value_error":
        said = str(limits["error"])
    elif kind in _EXPECTED:
        expected = _EXPECTED[kind]
        if kind == "tuple_type" and at[-1] in _ARRAYS:
            expected += f" of tables, [[{at[-1]}]]"
        said = f"{expected}, is {'a secret' if at[-1] in SECRETS else _shown(item['input'])}"
    elif bounds := [f"{word} {limits[key]:g}" for key, word in _BOUNDS.items() if key in limits]:
        said = f"must be {bounds[0]}, is {_shown(item['input'])}"
    else:
        said = item["msg"]
    return said


def _shown(value: object) -> str:
    """Show a wrong value as TOML has it, capped; tables and arrays by kind only."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of too many digits"
    if isinstance(value, str) and _URL.search(value):
        return "a URL"
    return _capped(ascii(value))


_URL = re.compile(r"://|[?&]sig=|@")
"""What may carry a secret, wherever an operator put it by mistake."""


def _capped(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "..."


def _dotted(at: Location) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in at)
    return "".join(parts).lstrip(".")


def _key(part: str) -> str:
    return "(a URL)" if _URL.search(part) else _capped(part)


def _nearest(name: str, valid: Iterable[str]) -> str:
    known = sorted(valid)
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    if close:
        return f"did you mean {folded[close[0]]}?"
    return f"remove it; known: {', '.join(known)}"


def _nearest_key(at: Location) -> str:
    """Name the key that was meant: the same one in another table, or a similar one in this."""
    key = str(at[-1])
    homes = [".".join(known) for known in _KINDS if known[-1] == key and "events" not in known]
    if homes:
        return f"it belongs elsewhere: {homes[0]}"
    return _nearest(key, _siblings(at))


def _siblings(at: Location) -> list[str]:
    """Return the valid keys of the table that holds this key."""
    if at[0] in _ARRAYS and len(at) > 1:
        return list(_ARRAYS[str(at[0])].model_fields)
    depth = len(at) - 1
    tables = [known[depth] for known in _KINDS if known[:depth] == at[:depth]]
    return sorted({*tables, *_ARRAYS} if depth == 0 else set(tables))


_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]")
_ASSIGNMENT = re.compile(r"""\s*([\w."'-]+(?:\s*\.\s*[\w"'-]+)*)\s*=""")


def _lines(text: str) -> dict[Location, int]:
    """Map keys to line numbers. tomllib tells none; this reads headers and `key =` lines only,
    so a key in an inline table gets its table's line."""
    lines: dict[Location, int] = {}
    arrays: dict[str, int] = {}
    table: Location = ()
    for number, whole in enumerate(text.splitlines(), start=1):
        line = whole[:300]  # keys are shorter, and patterns take long over what is longer
        if header := _HEADER.match(line):
            table = _path(header[2])
            if header[1] == "[[":
                arrays[header[2]] = arrays.get(header[2], -1) + 1
                table = (*table, arrays[header[2]])
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault((*table, *_path(assignment[1])), number)
    return lines


def _path(key: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in key.split("."))
