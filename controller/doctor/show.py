"""What `lb-drain doctor` prints: a table of the checks, then what mends them, ready to copy."""

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from controller.doctor.findings import Finding, Report, Verdict

STYLES = {
    Verdict.PASS: "green",
    Verdict.SKIP: "dim",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
}


def show(console: Console, report: Report) -> None:
    """Print a report."""
    table = Table(Column(""), Column("check"), Column("found", overflow="fold"), box=None)
    for finding in report.findings:
        table.add_row(_verdict(finding), Text(_plain(finding.title)), Text(_plain(finding.what)))
    console.print(table)
    mends: dict[tuple[str, ...], list[Finding]] = {}
    for finding in report.findings:
        if finding.mend:
            mends.setdefault(finding.mend, []).append(finding)
    for lines, findings in mends.items():
        console.print()
        for finding in findings:
            console.print(_verdict(finding), Text(_plain(finding.title)))
        for line in lines:
            command, _, note = _plain(line).partition("  # ")
            if note:
                console.print(Text(f"    # {note}", style="dim"), soft_wrap=True)
            # Never wrapped: a command has to survive being copied.
            console.print(Text(f"    {command}"), soft_wrap=True)
    console.print()
    console.print(_summary(report))


def _plain(text: str) -> str:
    """Return what a terminal only shows: names come from Azure, and could be anything."""
    return "".join(each if each.isprintable() else "?" for each in text)


def _verdict(finding: Finding) -> Text:
    return Text(finding.verdict.value.upper(), style=STYLES[finding.verdict])


def _summary(report: Report) -> Text:
    counts = {
        verdict: sum(finding.verdict is verdict for finding in report.findings)
        for verdict in Verdict
    }
    told = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    end = {
        Verdict.FAIL: "mend what failed before the service is started",
        Verdict.WARN: "the service can be started; look at the warnings",
    }
    return Text(f"{told}: {end.get(report.worst, 'the service can be started')}")
