"""What the doctor says: one finding per check, and the worst of them as an exit code. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How a check came out; the later, the worse."""

    PASS = "pass"  # noqa: S105 - not a password
    SKIP = "skip"
    """Not checked, because what it depends on failed; that finding says what to do."""
    WARN = "warn"
    """The agent works, with less than it could have; or this could not be told."""
    FAIL = "fail"
    """The agent cannot do its job."""


_ORDER = tuple(Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check and how it came out."""

    check: str
    """A stable name."""
    verdict: Verdict
    what: str
    """What was found, in one sentence."""
    subject: str = ""
    """What it was found about, where there are several."""
    mend: tuple[str, ...] = ()
    """Commands to run or lines to change, in order; every failure has some."""

    def __post_init__(self) -> None:
        if self.verdict is Verdict.FAIL and not self.mend:
            raise ValueError(f"the failure of {self.check} does not say what mends it")

    @property
    def title(self) -> str:
        """Check and subject."""
        return f"{self.check} {self.subject}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All findings, in the order in which to read them."""

    vm: str
    """Empty when the metadata service did not say."""
    availability_set_id: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Verdict:
        """The worst verdict. What was skipped is no worse than why it was."""
        verdicts = (finding.verdict for finding in self.findings)
        return max(verdicts, key=_ORDER.index, default=Verdict.PASS)

    @property
    def failed(self) -> bool:
        """Whether the agent cannot do its job."""
        return self.worst is Verdict.FAIL

    def as_json(self) -> dict[str, object]:
        """Return the object of `lb-drain doctor --json`."""
        return {
            "vm": self.vm or None,
            "availability_set": self.availability_set_id or None,
            "verdict": self.worst.value,
            "findings": [
                {
                    "check": finding.check,
                    "subject": finding.subject or None,
                    "verdict": finding.verdict.value,
                    "what": finding.what,
                    "mend": list(finding.mend),
                }
                for finding in self.findings
            ],
        }


def passed(check: str, what: str, *, subject: str = "") -> Finding:
    """Return a finding that all is well."""
    return Finding(check=check, verdict=Verdict.PASS, what=what, subject=subject)


def skipped(check: str, needs: str, *, subject: str = "") -> Finding:
    """Return a finding that nothing could be found, because `needs` failed."""
    return Finding(
        check=check, verdict=Verdict.SKIP, what=f"not checked: needs {needs}", subject=subject
    )


def warned(check: str, what: str, mend: Iterable[str] = (), *, subject: str = "") -> Finding:
    """Return a warning."""
    return Finding(check=check, verdict=Verdict.WARN, what=what, subject=subject, mend=tuple(mend))


def failed(check: str, what: str, mend: Iterable[str], *, subject: str = "") -> Finding:
    """Return a failure and what mends it."""
    return Finding(check=check, verdict=Verdict.FAIL, what=what, subject=subject, mend=tuple(mend))
