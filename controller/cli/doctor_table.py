"""What `lb-drain doctor` prints: a table of the checks, then the commands that fix problems."""

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from controller.core.printable import printable
from controller.doctor.report import Finding, Report, Result

STYLES = {
    Result.PASS: "green",
    Result.SKIP: "dim",
    Result.WARN: "yellow",
    Result.FAIL: "bold red",
}


def show(console: Console, report: Report) -> None:
    """Print a report."""
    table = Table(Column(""), Column("check"), Column("found", overflow="fold"), box=None)
    for finding in report.findings:
        table.add_row(
            _result(finding), Text(printable(finding.title)), Text(printable(finding.message))
        )
    console.print(table)
    fixes: dict[tuple[str, ...], list[Finding]] = {}
    for finding in report.findings:
        if finding.fix:
            fixes.setdefault(finding.fix, []).append(finding)
    for lines, findings in fixes.items():
        console.print()
        for finding in findings:
            console.print(_result(finding), Text(printable(finding.title)))
        for line in lines:
            command, _, note = printable(line).partition("  # ")
            if note:
                console.print(Text(f"    # {note}", style="dim"), soft_wrap=True)
            # Never wrapped: a command has to survive being copied.
            console.print(Text(f"    {command}"), soft_wrap=True)
    console.print()
    console.print(_summary(report))


def _result(finding: Finding) -> Text:
    return Text(finding.result.value.upper(), style=STYLES[finding.result])


def _summary(report: Report) -> Text:
    counts = {
        result: sum(finding.result is result for finding in report.findings) for result in Result
    }
    summary = ", ".join(f"{count} {result.value}" for result, count in counts.items() if count)
    end = {
        Result.FAIL: "fix the failures before you start the service",
        Result.WARN: "you can start the service; read the warnings",
    }
    return Text(f"{summary}: {end.get(report.worst, 'you can start the service')}")
