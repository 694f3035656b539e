"""How shared state is stored: JSON objects that pydantic models describe.

A model describes one object: its keys in the order in which they are written, and their types.
Reading returns the value of the core that the model names; `written` takes the same fields from
that value. Rules:
- A format is versioned `major.minor`. A newer minor version may add fields: a value keeps them in
  `extra` and they are written back in their places, so that agents of neighbouring versions can
  take turns. Another major version is refused.
- A field whose default is an empty text or list is optional: it is written only if it has a value.
  So is an instant with the default `OPTIONAL`.
- What is not valid is refused as a whole, with the place and the problem (laws S3, S5).
"""

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    InstanceOf,
    ModelWrapValidatorHandler,
    PlainValidator,
    ValidationError,
    model_validator,
)

from controller.core import strict_json
from controller.core.blob_limits import MAX_COUNT, MAX_ID_CHARACTERS
from controller.core.resources import NOTHING_EXTRA
from controller.errors import ContractViolation, NewerFormat

MAX_DIGITS = 6
"""Of a version number; int() refuses thousands of digits."""
YEARS = range(1970, 9000)
"""Of an instant; an instant plus a drain or a lead time must stay in the calendar."""

_EXPECTED = {
    "model_type": "an object",
    "is_instance_of": "text",
    "int_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
}
_MODELS: dict[type[Any], "type[Stored]"] = {}
"""By the type of the value that they describe."""


def _instant(value: object) -> datetime:
    if not isinstance(value, str):
        raise unexpected(value, "text")
    try:
        instant = datetime.fromisoformat(value)
        known = instant.tzinfo is not None
        instant = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{value[:60]!r} is not a timestamp") from None
    if not known:
        raise ValueError(f"{value[:60]!r} has no time zone")
    if instant.year not in YEARS:
        raise ValueError(f"{value[:60]!r} is not between {YEARS.start} and {YEARS.stop}")
    return instant


def _bounded(value: str) -> str:
    if len(value) > MAX_ID_CHARACTERS:
        raise ValueError(f"has {len(value)} characters, the limit is {MAX_ID_CHARACTERS}")
    return value


Text = Annotated[InstanceOf[str], AfterValidator(_bounded)]
"""A text that identifies something, and is never cut. It may have halves of surrogate pairs, which
pydantic's own str refuses."""
LongText = InstanceOf[str]
"""A text for people: the value that is made of it cuts it."""
Instant = Annotated[datetime, PlainValidator(_instant)]
"""An instant with a time zone, in UTC."""
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
Flag = Annotated[bool, Field(strict=True)]


OPTIONAL: Any = Field(default=None, json_schema_extra={"optional": True})
"""The default of an instant that is written only if it is known."""


class Stored(BaseModel):
    """One JSON object. The value has the model's fields and `extra`; a constant is only in JSON."""

    value_type: ClassVar[type[Any]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Register the model by the type that it describes."""
        super().__pydantic_init_subclass__(**kwargs)
        _MODELS[cls.value_type] = cls

    @model_validator(mode="wrap")
    @classmethod
    def _value(cls, data: Any, validate: ModelWrapValidatorHandler["Stored"]) -> Any:
        model = validate(data)
        wanted = {field.name for field in fields(cls.value_type)}
        given = {name: getattr(model, name) for name in cls.model_fields if name in wanted}
        if "extra" in wanted:
            keys = set(cls.keys())
            given["extra"] = {key: each for key, each in data.items() if key not in keys}
        return cls.value_type(**given)

    @classmethod
    def value_in(cls, document: object) -> Any:
        """Return the value of `value_type` that a document holds; raise ValidationError."""
        return cls.model_validate(document)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the keys of the object, in the order in which they are written."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())


class _Versioned(BaseModel):
    version: Text


def read(model: type[Stored], body: bytes, *, what: str, major: int) -> tuple[Any, int]:
    """Return the value that `body` holds, and the minor version.

    Raises:
        ContractViolation: it holds something else, or another major version. The message
            names the problem and its place.
    """
    # Messages of errors are kept in it, and those may hold whatever a reply held.
    document = strict_json.loads(body, f"the {what}", halves=True)
    try:
        minor = _minor(_Versioned.model_validate(document).version, what=what, major=major)
        return model.value_in(document), minor
    except ValidationError as error:
        raise ContractViolation(_message(error, what)) from None


def _minor(version: str, *, what: str, major: int) -> int:
    found, _, minor = version.partition(".")
    parts = (found, minor)
    if not all(part.isascii() and part.isdigit() and len(part) <= MAX_DIGITS for part in parts):
        raise ContractViolation(f"{what}: version {version[:40]!r} is not of the form major.minor")
    if int(found) != major:
        kind = NewerFormat if int(found) > major else ContractViolation
        raise kind(
            f"the {what} blob has version {version[:40]}, this agent supports {major}.x: "
            "upgrade this agent; the blob was left untouched"
        )
    return int(minor)


def _message(error: ValidationError, what: str) -> str:
    """Return the place and the problem of the first error."""
    first = error.errors(include_url=False)[0]
    kind, found = first["type"], cast("object", first["input"])
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    if kind == "missing":
        return f"{what}{place}: is missing"
    if kind == "value_error":
        return f"{what}{place}: {first.get('ctx', {}).get('error')}"
    if kind in _EXPECTED:
        return f"{what}{place}: {unexpected(found, _EXPECTED[kind])}"
    return f"{what}{place}: is not between 0 and {MAX_COUNT}"


def unexpected(value: object, wanted: str) -> ValueError:
    """Return the error of a value that has the wrong type."""
    return ValueError(f"expected {wanted}, found {strict_json.kind_of(value)}")


def written(value: object) -> Any:
    """Return a value of the core as JSON has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, tuple):
        return [written(each) for each in cast("tuple[object, ...]", value)]
    model = _MODELS.get(type(value))
    if model is None:
        return value
    members: dict[str, object] = {}
    for key, (name, field) in zip(model.keys(), model.model_fields.items(), strict=True):
        member = getattr(value, name, field.default)
        required = field.default not in ("", ()) and field.json_schema_extra is None
        if required or member != field.default:
            members[key] = written(member)
    return {**getattr(value, "extra", NOTHING_EXTRA), **members}


def dump(value: object, *, version: str) -> bytes:
    """Return a blob's content: ASCII, one field a line, for people who open it."""
    return json.dumps({**written(value), "version": version}, indent=1).encode("ascii")
