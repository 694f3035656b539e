"""Requests to the control endpoint, and the checks of their fields.

A wrong field raises ValueError with one sentence for the client.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Literal, Union, cast, get_args, get_origin

from controller.simulator.services.faults import FaultBook
from controller.simulator.world.world import World

UNIONS = (Union, UnionType)
"""`Literal["x"] | None` is the first, `float | None` the second."""

Json = dict[str, object]


class MissingError(Exception):
    """The resource in the path does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCall:
    """One request to the control endpoint."""

    world: World
    faults: FaultBook
    name: str
    """The variable part of the path."""
    query: Mapping[str, str]
    body: Json
    traffic: Json | None


def only(body: Json, *known: str) -> None:
    """Refuse fields other than `known`."""
    if unknown := sorted(set(body) - set(known)):
        raise ValueError(f"unknown field {unknown[0]!r}; known fields: {', '.join(known)}")


def as_list(value: object, name: str) -> list[object]:
    """Return a field that must be a list."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list")  # noqa: TRY004 - a value, not a type
    return cast("list[object]", value)


def as_texts(value: object, name: str) -> list[str]:
    """Return a field that must be a list of texts."""
    return [str(checked(name, item, str)) for item in as_list(value, name)]


def checked(name: str, value: object, hint: object) -> object:
    """Return `value` if it is what `hint` allows: bool, int, float, str, Literal, or a union."""
    if _allows(hint, value):
        return value
    raise ValueError(f"{name} must be {_describe(hint)}, not {value!r}")


def _allows(hint: object, value: object) -> bool:
    if get_origin(hint) in UNIONS:
        return any(_allows(part, value) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is int or hint is float:
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, cast("type", hint))


def _describe(hint: object) -> str:
    if get_origin(hint) in UNIONS:
        return " or ".join(_describe(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(value) for value in get_args(hint))
    words: Mapping[object, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        NoneType: "null",
    }
    return words[hint]
