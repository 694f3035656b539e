"""The reference of `/api/v1/overview`, from the types that describe it."""

from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from controller.config.descriptions import descriptions_in
from controller.status.overview_schema import Overview
from tests.docs.markdown import code, table


def overview() -> str:
    """Return every object with its keys, the whole object first."""
    sections: list[str] = []
    left: list[type] = [Overview]
    seen: set[type] = set()
    while left:
        kind = left.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        hints = get_type_hints(kind)
        left += [found for hint in hints.values() for found in _objects(hint)]
        about = descriptions_in(kind)
        rows = [(code(key), _shown(hint), about.get(key, "")) for key, hint in hints.items()]
        purpose = " ".join((kind.__doc__ or "").split())
        sections.append(
            f"### {kind.__name__}\n\n{purpose}\n\n{table(('key', 'type', 'meaning'), rows)}"
        )
    return "\n\n".join(sections)


def _objects(hint: Any) -> list[type]:
    """Return the objects that a type contains."""
    if is_typeddict(hint):
        return [hint]
    return [found for each in get_args(hint) for found in _objects(each)]


def _shown(hint: Any) -> str:
    """Return a type in the words of JSON."""
    if is_typeddict(hint):
        return f"[{hint.__name__}](#{hint.__name__.casefold()})"
    arguments = [each for each in get_args(hint) if each is not type(None)]
    nullable = " or null" if type(None) in get_args(hint) else ""
    if get_origin(hint) is list:
        return f"array of {_shown(arguments[0])}"
    if get_origin(hint) is dict:
        return f"object of {_shown(arguments[1])}"
    if not arguments:
        names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
        return names.get(hint, "any")
    if all(isinstance(each, str) for each in arguments):
        return ", ".join(code(each) for each in arguments) + nullable
    return " or ".join(_shown(each) for each in arguments) + nullable
