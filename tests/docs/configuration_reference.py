"""The reference of the configuration, from the schema that validates it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from controller.config.descriptions import descriptions
from controller.config.keys import ARRAYS, table_of
from controller.config.schema import Settings
from tests.docs.markdown import code, table

Schema = Mapping[str, Any]

_TABLE_NAME = re.compile(r"; `\[.*?\]`")
_TYPES = {"boolean": "true or false", "integer": "whole number", "string": "text"}


def configuration() -> str:
    """Return every table with its keys, limits, defaults and descriptions."""
    schema = Settings.model_json_schema()
    return "\n\n".join(_sections(Settings, schema["$defs"]))


def _sections(
    model: type[BaseModel],
    schemas: Mapping[str, Schema],
    at: tuple[str, ...] = (),
    about: str = "",
) -> Iterator[str]:
    keys = _keys(model, schemas[model.__name__]) if at else ""
    if keys:
        name = f"[[{at[0]}]]" if at[0] in ARRAYS else f"[{'.'.join(at)}]"
        yield f"## `{name}`\n\n{' '.join(about.split())}\n\n{keys}"
    below = descriptions(model)
    for name, field in model.model_fields.items():
        kind = field.annotation if at else ARRAYS.get(name, table_of(field.annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            text = below[name] if at else _TABLE_NAME.sub("", kind.__doc__ or "")
            yield from _sections(kind, schemas, (*at, name), text)


def _keys(model: type[BaseModel], schema: Schema) -> str:
    about = descriptions(model)
    rows = [
        (
            code(name),
            about[name],
            _values(schema["properties"][name]),
            _default(schema, name),
        )
        for name, field in model.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    ]
    return table(("key", "meaning", "value", "default"), rows) if rows else ""


def _values(schema: Schema) -> str:
    """Return which values a key can have."""
    if "anyOf" in schema:
        return " or ".join(_values(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(code(json.dumps(each)) for each in schema["enum"])
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if schema.get("format") == "password":
        return "text, secret"
    kind = _TYPES.get(schema["type"], str(schema["type"]))
    if schema["type"] == "array":
        kind = f"list of {'numbers' if schema['items']['type'] == 'integer' else 'texts'}"
    return kind + _limits(schema)


def _limits(schema: Schema) -> str:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    low = f"from {lowest:,g}" if lowest is not None else ""
    low = low or (f"above {above:,g}" if above is not None else "")
    high = f"to {highest:,g}" if highest is not None else ""
    return f" {low}{' ' if low and high else ''}{high}".rstrip()


def _default(schema: Schema, name: str) -> str:
    if name in schema.get("required", ()):
        return "required"
    return code(json.dumps(schema["properties"][name].get("default"), ensure_ascii=False))
