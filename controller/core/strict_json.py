"""JSON as a reply must be: text with exactly one meaning, which can be written back unchanged.

`json.loads` accepts more than that. Of a duplicate key it keeps the last value, so an event, or a
whole list of ipConfigurations, can vanish. It accepts NaN and numbers outside the range of a float,
which are written as text that no other reader accepts. It accepts halves of surrogate pairs, which
no header, URL or log can hold, and nesting that a copy of the value would not survive. Such a text
has no reliable meaning, so it is refused as a whole.

Pure: standard library only, no I/O.
"""

import json
import math
from typing import Any, cast

from controller.errors import ContractViolation

MAX_DEPTH = 64
"""Azure's deepest bodies have about a dozen levels; copying takes a few stack frames for each."""


def loads(text: bytes | str, what: str, *, halves: bool = False) -> object:
    """Return the value in `text`; bytes must be UTF-8, with or without a byte order mark.

    `halves` allows halves of surrogate pairs, for content that agents have written.

    Raises:
        ContractViolation: it is not JSON, or could be read in more than one way. The message
            begins with `what`.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = cast("object", json.loads(decoded, object_pairs_hook=_unique))
        _check(value, halves=halves)
    except RecursionError as error:
        raise ContractViolation(f"{what} is not JSON: nested too deeply") from error
    except ValueError as error:
        raise ContractViolation(f"{what} is not JSON: {str(error)[:120]}") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!a} comes twice")
        found[key] = value
    return found


def _check(value: object, *, halves: bool) -> None:
    """Walk the value without recursion; raise ValueError for what cannot be written again."""
    errors = "surrogatepass" if halves else "strict"
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                members = cast("dict[str, object]", each)
                below.extend(members)
                below.extend(members.values())
            elif isinstance(each, list):
                below.extend(cast("list[object]", each))
            elif isinstance(each, str):
                each.encode(errors=errors)
            elif isinstance(each, float) and not math.isfinite(each):
                raise ValueError("a number that no other reader takes")
        if not below:
            return
        level = below
    raise ValueError("nested too deeply")


def kind_of(value: object) -> str:
    """Return in words what a JSON value is: `an object`, `a list`, `text`, `a number`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    kinds = ((dict, "an object"), (list, "a list"), (str, "text"))
    return next((words for kind, words in kinds if isinstance(value, kind)), "a number")
