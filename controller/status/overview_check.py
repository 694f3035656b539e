"""Whether an answer is an overview: what answers at the address of the agent may be anything.

Pure: no I/O, no clock.
"""

from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from controller.errors import ContractViolation
from controller.status.overview_schema import VERSION, Overview


def checked_overview(answer: object) -> Overview:
    """Return the answer of an agent as an overview. New keys and new words in it are allowed.

    Raises:
        ContractViolation: it is something else, or of another version; the message names the place.
    """
    found = cast("dict[str, object]", answer) if isinstance(answer, dict) else {}
    if found.get("version") != VERSION:
        version = str(found.get("version"))[:40]
        raise ContractViolation(
            f"overview: version {version}, this command supports {VERSION}: use the command of the "
            "version of the agent"
        )
    if place := _wrong(answer, Overview):
        raise ContractViolation(
            f"overview{place} is missing, or not what this version expects: use the command of the "
            "version of the agent"
        )
    return cast("Overview", answer)


def _wrong(value: Any, kind: Any) -> str:
    """Return the place of the first value that is of another kind; empty if there is none."""
    if is_typeddict(kind):
        return _wrong_member(value, get_type_hints(kind))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        places = [_wrong(value, each) for each in arguments]
        return "" if "" in places else max(places, key=len)
    if origin is list:
        items = cast("list[object]", value) if isinstance(value, list) else None
        return " " if items is None else _wrong_item(items, arguments[0])
    if origin is dict:
        return "" if isinstance(value, dict) else " "
    plain = str if origin is Literal else type(None) if kind is None else kind
    accepted = (int, float) if plain is float else plain
    right = isinstance(value, accepted) and (plain is bool or not isinstance(value, bool))
    return "" if right else " "


def _wrong_member(value: Any, members: dict[str, Any]) -> str:
    if not isinstance(value, dict):
        return " "
    for name, kind in members.items():
        if name not in value:
            return f".{name}"
        if place := _wrong(value[name], kind):
            return f".{name}{place.strip()}"
    return ""


def _wrong_item(value: list[object], kind: Any) -> str:
    for index, item in enumerate(value):
        if place := _wrong(item, kind):
            return f"[{index}]{place.strip()}"
    return ""
