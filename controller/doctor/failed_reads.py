"""The finding of a check whose facts could not be read. Pure."""

from controller.doctor.facts import DoctorFacts, Failed, Skipped
from controller.doctor.obstacles import remove_obstacle
from controller.doctor.remedies import AGAIN, connection_tests
from controller.doctor.report import Finding, failed, skipped, warned
from controller.errors import (
    Conflict,
    ControllerError,
    Denied,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)

_UNREACHABLE = (NotSent, OutcomeUnknown)
_UNAVAILABLE = frozenset({408, 410})
"""Azure answers with these while it is busy or updates IMDS; the same request succeeds later."""


def not_known(
    facts: DoctorFacts, check: str, known: Failed | Skipped, *, subject: str = ""
) -> Finding:
    """Return the finding for a read that failed or was skipped.

    It is a warning only if the same request can succeed later without any change.
    """
    if isinstance(known, Skipped):
        return skipped(check, known.needs, subject=subject)
    error, message = known.error, str(known.error)
    if is_temporary(error):
        return warned(check, f"cannot be checked now: {message}", (AGAIN,), subject=subject)
    fix: tuple[str, ...] = (AGAIN,)
    if isinstance(error, Denied):
        fix = remove_obstacle(facts, error)
    elif isinstance(error, _UNREACHABLE):
        fix = connection_tests(facts)
    elif isinstance(error, ServiceFault):
        fix = ("change what the message names: Azure refuses the same request again",)
    return failed(check, message, fix, subject=subject)


def is_temporary(error: ControllerError) -> bool:
    """Return whether the same request can succeed later without any change."""
    if isinstance(error, ServiceFault):
        status = error.status or 500
        return status in _UNAVAILABLE or not 400 <= status < 500
    return isinstance(error, Conflict | Throttled)
