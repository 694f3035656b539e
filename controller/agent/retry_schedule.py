"""When to try again what failed: one back-off per key, counted on the monotonic clock.

A wall clock that is corrected while a target waits must not shorten the wait.
"""

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from controller.clock import Clock
from controller.core.action_keys import ActionKey
from controller.core.backoff import backoff_s, is_refusal, is_routine
from controller.core.observation import Deferral
from controller.errors import ControllerError, retry_after_of
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.reconcile")

SPREAD_S = 0.2
"""Jitter added to a Retry-After, so that agents do not all return in the same instant."""
LOG_EVERY = 10
"""Of failures in a row, the first and then each tenth is logged."""


def is_logged(attempt: int) -> bool:
    """Return whether an attempt is logged: the first one, and then each tenth."""
    return attempt == 1 or attempt % LOG_EVERY == 0


class BackoffTable:
    """Keys that failed, when each is due again, and how often each failed in a row.

    Args:
        clock: wall and monotonic clock.
        entropy: source of jitter.
        on_failure: called after every recorded failure.
        quiet: log nothing; the caller reports what fails.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        entropy: random.Random,
        on_failure: Callable[[], None],
        quiet: bool = False,
    ) -> None:
        self._quiet = quiet
        self._clock, self._entropy, self._on_failure = clock, entropy, on_failure
        self._due: dict[ActionKey, tuple[float, Deferral]] = {}
        self._attempts: dict[ActionKey, int] = {}
        self._excused: dict[ActionKey, int] = {}

    def only_asked(self) -> "BackoffTable":
        """Return a new table with those waits that Azure has asked for: they outlast a tenure."""
        table = BackoffTable(
            self._clock, entropy=self._entropy, on_failure=self._on_failure, quiet=self._quiet
        )
        for key, (due, deferral) in self._due.items():
            if deferral.asked:
                table._due[key] = due, deferral
                table._attempts[key] = self._attempts.get(key, 0)
                table._excused[key] = self._excused.get(key, 0)
        return table

    @property
    def active(self) -> Mapping[ActionKey, Deferral]:
        """Deferral by key, of all that are not due again."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._due = {key: each for key, each in self._due.items() if each[0] > monotonic}
        return {
            key: replace(deferral, until=now + timedelta(seconds=due - monotonic))
            for key, (due, deferral) in self._due.items()
        }

    def reported(self, key: ActionKey) -> dict[ActionKey, str]:
        """Return what operators have to know of a key that waits; empty if that is nothing."""
        _, deferral = self._due.get(key, (0.0, None))
        return {key: deferral.message} if deferral and deferral.message else {}

    @property
    def failures(self) -> Mapping[ActionKey, int]:
        """Failures in a row, by key."""
        return dict(self._attempts)

    @property
    def excused(self) -> Mapping[ActionKey, int]:
        """How many of these failures do not depend on what was sent, by key."""
        return dict(self._excused)

    def failed(
        self, key: ActionKey, error: ControllerError, *, what: str, hold: bool = True
    ) -> None:
        """Record a failure: defer the key for Retry-After, or else by exponential back-off.

        Args:
            key: what failed.
            error: how it failed.
            what: what was tried, for the log.
            hold: report the failure as a hold. False if the thing can be done in another way.
        """
        attempts = self._attempts[key] = self._attempts.get(key, 0) + 1
        if not is_refusal(error):
            self._excused[key] = self._excused.get(key, 0) + 1
        wait_s = backoff_s(attempts, jitter=self._entropy.random())
        if (retry_after_s := retry_after_of(error)) is not None:
            wait_s = retry_after_s + SPREAD_S * self._entropy.random()
        routine, message = is_routine(error, attempts=attempts), f"{what}: {error}"
        self.defer(
            key,
            wait_s=wait_s,
            reason=type(error).__name__,
            message="" if routine or not hold else message,
            asked=retry_after_s is not None,
            what=message,
        )
        if is_logged(attempts) and not self._quiet:
            level = logging.INFO if routine else logging.WARNING
            again = f" (attempt {attempts})" if attempts > 1 else ""
            log(logger, level, message + again, event="azure_request_failed", outcome=error.word())
        self._on_failure()

    def defer(
        self,
        key: ActionKey,
        *,
        wait_s: float,
        reason: str,
        message: str = "",
        asked: bool = False,
        what: str = "",
    ) -> None:
        """Leave the key alone for `wait_s` seconds."""
        deferral = Deferral(
            until=self._clock.now(),
            reason=reason,
            message=message,
            attempts=self._attempts.get(key, 0),
            asked=asked,
            what=what,
        )
        self._due[key] = (self._clock.monotonic() + wait_s, deferral)

    def clear(self, key: ActionKey) -> None:
        """Forget the failures of a key that has succeeded."""
        self._due.pop(key, None)
        self._attempts.pop(key, None)
        self._excused.pop(key, None)
