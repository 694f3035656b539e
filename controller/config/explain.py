"""What is wrong with a configuration, one line for each problem: place, key, problem, correction.

No line repeats a URL or a secret, and no line is long, whatever the file contains.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic_core import ErrorDetails

from controller.config.hints import nearest, shown
from controller.config.keys import ARRAYS, TYPES, Location, dotted, siblings
from controller.config.notifications import SECRETS

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
    ("update_watch",): "that table with the administrator endpoint of the Hub and the sign-in",
    ("update_watch", "endpoint"): "the URL of the administrator endpoint of the Hub",
    ("update_watch", "scope"): 'the audience of the endpoint with "/.default"',
    ("update_watch", "authority"): "the URL that issues tokens, of Entra ID or AD FS",
    ("update_watch", "tenant"): 'the id of the tenant, or "adfs"',
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "max_length": "shorter: at most"}


def explain(
    errors: Iterable[ErrorDetails], *, path: Path, text: str, origins: Mapping[Location, str]
) -> list[str]:
    """Return a line for each error of pydantic about the file `path` that contains `text`."""
    lines, found = _lines(text), list(errors)
    return [
        f"{_place(item['loc'], path, lines, origins)}: {dotted(item['loc'])}: {_problem(item)}"
        for item in found
        if not _is_consequence(item, found)
    ]


def _is_consequence(item: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Return whether a list is too short only because its items are wrong."""
    at = item["loc"]
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(at) and other["loc"][: len(at)] == at for other in found
    )


def _place(
    at: Location, path: Path, lines: Mapping[Location, int], origins: Mapping[Location, str]
) -> str:
    """Return the environment variable or the line of the file that set this key."""
    origin = origins.get(at, "")
    if origin.startswith("environment"):
        return origin
    line = next((lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in lines), None)
    return f"{path}:{line}" if line else str(path)


def _problem(item: ErrorDetails) -> str:
    kind, limits = item["type"], item.get("ctx", {})
    at = item["loc"]
    if kind == "extra_forbidden":
        problem = f"is not a setting; {_meant(at)}"
    elif kind == "missing":
        problem = f"is required; add {_REQUIRED.get(at, 'it')}"
    elif kind == "too_short":
        problem = f"is empty; add {_REQUIRED['backend_pools',]}"
    elif kind == "literal_error":
        problem = f"must be {limits['expected']}, is {_value(item['input'])}"
    elif kind == "value_error":
        problem = str(limits["error"])
    elif kind in _EXPECTED:
        expected = _EXPECTED[kind]
        if kind == "tuple_type" and at[-1] in ARRAYS:
            expected += f" of tables, [[{at[-1]}]]"
        problem = f"{expected}, is {'a secret' if at[-1] in SECRETS else _value(item['input'])}"
    elif bounds := [f"{word} {limits[key]:g}" for key, word in _BOUNDS.items() if key in limits]:
        problem = f"must be {bounds[0]}, is {_value(item['input'])}"
    else:
        problem = item["msg"]
    return problem


def _value(value: object) -> str:
    """Return a wrong value as TOML writes it, capped; of tables and arrays only what they are."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of too many digits"
    return shown(ascii(value))


def _meant(at: Location) -> str:
    """Name the key that was meant: the same key in another table, or a similar one in this."""
    key = str(at[-1])
    tables = [dotted(known) for known in TYPES if known[-1] == key and "events" not in known]
    if tables:
        return f"it belongs elsewhere: {tables[0]}"
    return nearest(key, sorted(siblings(at)), otherwise="remove it; known")


# --- the lines of a file ---

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]")
_ASSIGNMENT = re.compile(r"""\s*([\w."'-]+(?:\s*\.\s*[\w"'-]+)*)\s*=""")
_LONGEST_KEY = 300
"""Characters of a line to search: every key is shorter, and patterns are slow on long lines."""


def _lines(text: str) -> dict[Location, int]:
    """Map keys to line numbers, which tomllib does not report.

    Only headers and `key =` lines are read, so a key in an inline table has its table's line.
    """
    lines: dict[Location, int] = {}
    arrays: dict[str, int] = {}
    table: Location = ()
    for number, whole in enumerate(text.splitlines(), start=1):
        line = whole[:_LONGEST_KEY]
        if header := _HEADER.match(line):
            table = _split(header[2])
            if header[1] == "[[":
                arrays[header[2]] = arrays.get(header[2], -1) + 1
                table = (*table, arrays[header[2]])
            lines.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            lines.setdefault((*table, *_split(assignment[1])), number)
    return lines


def _split(key: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in key.split("."))
