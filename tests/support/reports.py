"""Test reports that can be sent from a worker process to the one that prints them.

Hostile input contains lone surrogates, which UTF-8 cannot encode. A log line or a failure that
quotes such input would end the worker of pytest-xdist instead of being reported.
"""

from typing import Any


def encodable(value: Any) -> Any:
    """Return nested data with every lone surrogate written as an escape, such as \\udc80."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {encodable(name): encodable(part) for name, part in value.items()}
        case list():
            return [encodable(part) for part in value]
        case tuple():
            return tuple(encodable(part) for part in value)
        case _:
            return value
