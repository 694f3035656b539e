"""The wrapper around every request to Azure: a deadline, the mapping of errors, and an observer."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from controller.azure.http.api_versions import ApiVersion
from controller.azure.http.error_mapping import translate
from controller.azure.http.request_labels import outcome_of, request_name
from controller.clock import Clock
from controller.errors import VersionRefused

Observer = Callable[[str, str, str, float], None]
"""Called after every request with service, operation, outcome and duration in seconds."""


def ignore_outcome(service: str, operation: str, outcome: str, duration_s: float) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Runs requests to one service."""

    service: str
    clock: Clock
    observer: Observer = ignore_outcome
    version: ApiVersion | None = None
    """The api-version of the requests; None for a service without a configurable one."""

    def name_of(self, operation: str) -> str:
        """Return the name of a request in messages."""
        return request_name(self.service, operation)

    @asynccontextmanager
    async def call(self, operation: str, deadline_s: float) -> AsyncGenerator[None]:
        """Run the body within `deadline_s` seconds, which include the time to get a token.

        Raises:
            ControllerError: the request failed. The original exception is its cause.
        """
        started = self.clock.monotonic()
        outcome = "bug"
        try:
            async with asyncio.timeout(deadline_s):
                yield
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as error:
            translated = translate(error, self.name_of(operation))
            if translated is None:
                raise
            translated.service = translated.service or self.service
            outcome = outcome_of(translated)
            if isinstance(translated, VersionRefused) and self.version is not None:
                translated.args = (f"{translated}: {self.version.remedy(translated)}",)
                self.version.refused(translated)
            if translated is error:
                raise
            raise translated from error
        finally:
            self.observer(self.service, operation, outcome, self.clock.monotonic() - started)
