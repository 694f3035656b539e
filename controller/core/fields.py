"""Typed reading of the JSON that agents keep in blobs, which remembers what nobody asked for.

What a newer minor version has added is kept and written back (`rest`), so that agents of
neighbouring versions can take turns.

Pure: standard library only, no I/O.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from controller.core.model import Extra
from controller.errors import ContractViolation

MOST_DIGITS = 6
"""Of a version number; more is no version, and int() refuses thousands of them."""

MOST_NUMBER = 10**18
"""Of an epoch or a position; counting gets nowhere near it."""

YEARS = range(1970, 9000)
"""Of an instant; adding a drain or a lead time to one must not leave the calendar."""

T = TypeVar("T")


def minor_of(version: str, *, major: int, what: str) -> int:
    """Return the minor version of what begins with `major`.

    Raises:
        ContractViolation: it is no version, or one of another major version.
    """
    found, _, minor = version.partition(".")
    parts = (found, minor)
    if not all(part.isascii() and part.isdigit() and len(part) <= MOST_DIGITS for part in parts):
        raise ContractViolation(f"{what}: version {version[:40]!r} is not of the form major.minor")
    if int(found) != major:
        raise ContractViolation(
            f"the {what} has version {version[:40]}, this agent knows {major}.x: "
            f"upgrade this agent; the {what} was left untouched"
        )
    return int(minor)


def instant_out(instant: datetime | None) -> str | None:
    """Return an instant as it is written."""
    return None if instant is None else instant.astimezone(UTC).isoformat()


@dataclass(slots=True)
class Fields:
    """Typed access to one JSON object, which remembers what nobody asked for."""

    value: object
    where: str
    asked: set[str] = field(default_factory=set[str])

    def _object(self) -> Mapping[str, Any]:
        value = self.value
        if not isinstance(value, dict):
            raise ContractViolation(f"{self.where}: expected an object, found {_kind(value)}")
        return cast("Mapping[str, Any]", value)

    def _get(self, name: str, wanted: type[T]) -> T:
        self.asked.add(name)
        found: object = self._object().get(name)
        if not isinstance(found, wanted) or (isinstance(found, bool) and wanted is not bool):
            raise ContractViolation(
                f"{self.where}.{name}: expected {wanted.__name__}, found {_kind(found)}"
            )
        return found

    def text(self, name: str) -> str:
        return self._get(name, str)

    def integer(self, name: str) -> int:
        number = self._get(name, int)
        if not 0 <= number <= MOST_NUMBER:
            raise ContractViolation(f"{self.where}.{name}: is not between 0 and {MOST_NUMBER}")
        return number

    def flag(self, name: str) -> bool:
        return self._get(name, bool)

    def instant(self, name: str) -> datetime:
        text = self.text(name)
        try:
            instant = datetime.fromisoformat(text)
            known = instant.tzinfo is not None
            instant = instant.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ContractViolation(f"{self.where}.{name}: {text[:60]!r} is no instant") from error
        if not known:
            raise ContractViolation(f"{self.where}.{name}: {text[:60]!r} has no time zone")
        if instant.year not in YEARS:
            raise ContractViolation(f"{self.where}.{name}: {text[:60]!r} is out of all reckoning")
        return instant

    def instant_or_none(self, name: str) -> datetime | None:
        self.asked.add(name)
        return None if self._object().get(name) is None else self.instant(name)

    def each(self, name: str, read: "Callable[[Fields], T]") -> tuple[T, ...]:
        values = cast("list[object]", self._get(name, list))
        return tuple(
            read(Fields(value, f"{self.where}.{name}[{index}]"))
            for index, value in enumerate(values)
        )

    def texts(self, name: str) -> tuple[str, ...]:
        return self.each(name, lambda fields: fields.itself())

    def itself(self) -> str:
        if not isinstance(self.value, str):
            raise ContractViolation(f"{self.where}: expected str, found {_kind(self.value)}")
        return self.value

    def object_or_none(self, name: str, read: "Callable[[Fields], T]") -> T | None:
        self.asked.add(name)
        value = self._object().get(name)
        return None if value is None else read(Fields(value, f"{self.where}.{name}"))

    def rest(self) -> Extra:
        return {name: value for name, value in self._object().items() if name not in self.asked}


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
