"""Readers for the JSON that Azure sends: every value is checked before it is used.

A body that breaks the documented shape raises ContractViolation. An absent property is empty only
where Azure documents it as optional.
"""

from collections.abc import Mapping
from typing import Any, cast

from controller.core import strict_json
from controller.core.azure_names import fold
from controller.core.printable import excerpt
from controller.errors import ContractViolation

MAX_NAME_CHARACTERS = 1024
"""Limit for an id or a name; the longest that Azure allows has half of that."""
Json = dict[str, Any]
"""A JSON object as Azure sent it, unknown properties included."""


def raw(pipeline_response: Any, _model: object, _headers: object) -> object:
    """Return the body as received; for the SDK's `cls` argument."""
    return json_of(pipeline_response.http_response, "the reply")


def json_of(response: Any, what: str) -> object:
    """Return the body of an SDK response. The SDK's own reader accepts more than JSON."""
    return strict_json.loads(cast("bytes", response.content), what)


def as_object(value: object, what: str) -> Json:
    """Return `value` if it is a JSON object."""
    if not isinstance(value, dict):
        raise ContractViolation(f"{excerpt(what)} is {strict_json.kind_of(value)}, not an object")
    return cast("Json", value)


def verified_body(resource_id: str, body: Json) -> Json:
    """Return the body if it is that of the requested resource."""
    found = text(body, "id")
    if fold(found) != fold(resource_id):
        raise ContractViolation(
            f"the reply for {resource_id} is about {excerpt(found) or 'nothing'}"
        )
    return body


def child(parent: Mapping[str, Any], key: str, what: str) -> Json:
    """Return an object property; absent and null are an empty object."""
    value = cast("object", parent.get(key))
    return {} if value is None else as_object(value, f"{key} of {what}")


def required_child(parent: Mapping[str, Any], key: str, what: str) -> Json:
    """Return an object property that Azure always sends.

    Without it the body is incomplete. Read as empty, it would mean that a pool has no members.
    """
    if parent.get(key) is None:
        raise ContractViolation(f"{excerpt(what)} has no {key}")
    return child(parent, key, what)


def children(parent: Mapping[str, Any], key: str, what: str) -> list[Json]:
    """Return a list of objects; Azure uses absent and empty inconsistently, so both are empty."""
    value = cast("object", parent.get(key))
    if value is None:
        return []
    if not isinstance(value, list):
        raise ContractViolation(
            f"{key} of {excerpt(what)} is {strict_json.kind_of(value)}, not a list"
        )
    return [as_object(item, f"an entry of {key} of {what}") for item in cast("list[object]", value)]


def text(parent: Mapping[str, Any], key: str) -> str:
    """Return a text property; absent and null are empty."""
    value = cast("object", parent.get(key))
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ContractViolation(f"{key} is {strict_json.kind_of(value)}, not text")
    return value


def required_text(parent: Mapping[str, Any], key: str, what: str) -> str:
    """Return a text property that Azure always sends."""
    value = text(parent, key)
    if not value:
        raise ContractViolation(f"{excerpt(what)} has no {key}")
    if len(value) > MAX_NAME_CHARACTERS:
        raise ContractViolation(f"{excerpt(what)} has a {key} of {len(value)} characters")
    return value
