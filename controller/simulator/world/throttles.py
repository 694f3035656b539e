"""Providers that refuse requests for a while: of one identity, for one resource or all."""

from dataclasses import dataclass

from controller.simulator.world.bodies import key


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Until when a provider refuses what a principal sends."""

    principal: str
    """Casefolded; "" is every principal."""
    provider: str
    resource: str
    """Part of the path, casefolded; "" is every resource."""
    writes_only: bool
    until: float


class Throttles:
    """The refusals in force."""

    def __init__(self) -> None:
        self.blocked: dict[tuple[str, str], float] = {}
        """When each empty bucket of Microsoft.Compute serves again, by principal and bucket."""
        self._throttles: list[Throttle] = []

    def begin(
        self,
        *,
        provider: str,
        until: float,
        principal: str = "",
        resource: str = "",
        writes_only: bool = False,
    ) -> None:
        """Refuse with 429 until an instant, with the remaining seconds in Retry-After.

        `provider` is Microsoft.Compute or Microsoft.Network. `resource` is a part of the path.
        """
        self._throttles.append(
            Throttle(
                principal=principal.casefold(),
                provider=provider.casefold(),
                resource=key(resource),
                writes_only=writes_only,
                until=until,
            )
        )

    def end(self) -> None:
        """End all refusals."""
        self._throttles.clear()
        self.blocked.clear()

    def remaining_s(
        self, principal: str, provider: str, method: str, path: str, now: float
    ) -> float:
        """Return for how long a request like this is refused; 0 if it is not."""
        self._throttles = [each for each in self._throttles if each.until > now]
        matching = (
            each.until - now
            for each in self._throttles
            if each.principal in ("", principal.casefold())
            and each.provider == provider.casefold()
            and each.resource in key(path)
            and not (each.writes_only and method in ("GET", "HEAD"))
        )
        return max(matching, default=0.0)
