"""Refusals of Resource Manager: what ends the handling of a request with an error reply."""

from dataclasses import dataclass, field

from controller.simulator.world.bodies import Json


@dataclass(slots=True)
class Refusal(Exception):
    """Ends the handling of a request with an error reply."""

    status: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict[str, str])
    gateway: bool = False
    """Whether ARM answered itself, without asking a provider."""


def error(code: str, message: str, details: list[Json] | None = None) -> Json:
    """Return the error envelope."""
    inner: Json = {"code": code, "message": message}
    if details is not None:
        inner["details"] = details
    return {"error": inner}
