"""Every key of the configuration: where it is in the file, and which environment variable sets it.

A location is the path to a key: names of tables and keys, and indexes in arrays of tables.
"""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import cast, get_args, get_origin

from pydantic import BaseModel

from controller.config.backend_pool import BackendPool
from controller.config.hints import shown
from controller.config.notifications import Notification
from controller.config.schema import Settings
from controller.config.vm_side import Hook

Location = tuple[str | int, ...]
ENVIRONMENT_PREFIX = "LB_DRAIN_"
ARRAYS: Mapping[str, type[BaseModel]] = {
    "backend_pools": BackendPool,
    "notifications": Notification,
    "hooks": Hook,
}
"""The arrays of tables. No environment variable sets their keys."""


def _types(
    model: type[BaseModel], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type]]:
    """Yield every key with one value, and the type of that value."""
    for name, field in model.model_fields.items():
        kind = table_of(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _types(kind, (*at, name))
        elif name not in ARRAYS:
            yield (*at, name), _type_of(cast("object", field.annotation))


def table_of(annotation: object) -> object:
    """Return the type of a key; of a table that can be absent, the type of the table."""
    given = [each for each in get_args(annotation) if each is not NoneType]
    return given[0] if get_origin(annotation) is UnionType and len(given) == 1 else annotation


def _type_of(kind: object) -> type:
    """Return the type that the text of an environment variable is converted to."""
    if get_origin(kind) is tuple:
        return tuple
    return kind if isinstance(kind, type) else str


TYPES: Mapping[tuple[str, ...], type] = dict(_types(Settings))
"""The type of every key outside the arrays of tables."""
VARIABLES: Mapping[str, tuple[str, ...]] = {
    ENVIRONMENT_PREFIX + "_".join(at).upper(): at for at in TYPES
}
"""The environment variables and the keys that they set."""


def value_of(kind: type, text: str) -> object:
    """Return a value of this type from text; the text itself if it is none, which is refused."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.strip().casefold(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text  # validation reports the problem
    return text


def values_in(node: object, at: Location = ()) -> Iterator[tuple[Location, object]]:
    """Yield every value in nested tables and arrays, with its location. None is no value."""
    if isinstance(node, dict):
        for key, value in cast("dict[str, object]", node).items():
            yield from values_in(value, (*at, key))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(cast("list[object]", node)):
            yield from values_in(value, (*at, index))
    elif node is not None:
        yield at, node


def dotted(at: Location) -> str:
    """Return a location as operators write it: `backend_pools[0].id`. A URL in it is not shown."""
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{shown(part, instead='(a URL)')}"
        for part in at
    )
    return "".join(parts).removeprefix(".")


def siblings(at: Location) -> list[str]:
    """Return the valid keys of the table that holds this key."""
    if at[0] in ARRAYS and len(at) > 1:
        return list(ARRAYS[str(at[0])].model_fields)
    depth = len(at) - 1
    tables = [known[depth] for known in TYPES if known[:depth] == at[:depth]]
    return sorted({*tables, *ARRAYS} if depth == 0 else set(tables))
