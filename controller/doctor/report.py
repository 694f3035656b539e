"""The report of the doctor: one finding per check, and the worst result as an exit code. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Result(Enum):
    """The result of a check, from best to worst."""

    PASS = "pass"  # noqa: S105 - not a password
    SKIP = "skip"
    """Not checked, because another check failed; the finding of that check has the fix."""
    WARN = "warn"
    """The agent works, but not as well as it could; or the check could not be completed."""
    FAIL = "fail"
    """The agent cannot do its job."""


_ORDER = tuple(Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str
    """A stable name."""
    result: Result
    message: str
    """What the check found, in one sentence."""
    subject: str = ""
    """The resource that was checked, where there are several."""
    fix: tuple[str, ...] = ()
    """Commands to run or lines to change, in order; every failure has some."""

    def __post_init__(self) -> None:
        if self.result is Result.FAIL and not self.fix:
            raise ValueError(f"the failure of {self.check} has no fix")

    @property
    def title(self) -> str:
        """Check and subject."""
        return f"{self.check} {self.subject}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings, in the order in which to read them."""

    vm: str
    """Empty when the metadata service did not answer."""
    availability_set_id: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Result:
        """The worst result. A skipped check is never worse than the check that it depends on."""
        results = (finding.result for finding in self.findings)
        return max(results, key=_ORDER.index, default=Result.PASS)

    @property
    def failed(self) -> bool:
        """Whether the agent cannot do its job."""
        return self.worst is Result.FAIL

    def as_json(self) -> dict[str, object]:
        """Return the object of `lb-drain doctor --json`."""
        return {
            "vm": self.vm or None,
            "availability_set": self.availability_set_id or None,
            "result": self.worst.value,
            "findings": [
                {
                    "check": finding.check,
                    "subject": finding.subject or None,
                    "result": finding.result.value,
                    "message": finding.message,
                    "fix": list(finding.fix),
                }
                for finding in self.findings
            ],
        }


def passed(check: str, message: str, *, subject: str = "") -> Finding:
    """Return the finding of a check that passed."""
    return Finding(check=check, result=Result.PASS, message=message, subject=subject)


def skipped(check: str, needs: str, *, subject: str = "") -> Finding:
    """Return the finding of a check that needs the result of another check, `needs`."""
    message = f"not checked: needs {needs}"
    return Finding(check=check, result=Result.SKIP, message=message, subject=subject)


def warned(check: str, message: str, fix: Iterable[str] = (), *, subject: str = "") -> Finding:
    """Return a warning."""
    return Finding(
        check=check, result=Result.WARN, message=message, subject=subject, fix=tuple(fix)
    )


def failed(check: str, message: str, fix: Iterable[str], *, subject: str = "") -> Finding:
    """Return a failure and how to fix it."""
    return Finding(
        check=check, result=Result.FAIL, message=message, subject=subject, fix=tuple(fix)
    )
