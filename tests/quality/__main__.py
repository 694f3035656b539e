"""Check the whole tree: `python -m tests.quality [sizes] [prose] [names]`.

Prints every violation as `path:line: description` and a count per file. Exits with 1 if there is
one. Without an argument all checks run. `--only TEXT` limits the files to paths that contain TEXT.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tests.quality.finding import Finding
from tests.quality.prose import python_findings, python_name_findings, text_file_findings
from tests.quality.sizes import size_findings

ROOT = Path(__file__).parents[2]
PRODUCT = ("controller/**/*.py",)
TEXTS = (
    "*.md",
    "docs/**/*.md",
    "deploy/**/*.md",
    "tests/**/*.md",
    "controller/status/page/page.*",
    "deploy/*.service",
    "deploy/*.catalog",
    "deploy/*.sh",
    "deploy/*.yaml",
    "deploy/ansible/**/*.yml",
    "deploy/prometheus/*.yml",
    "deploy/grafana/*.json",
    "deploy/azure-monitor/*.json",
    "deploy/azuredeploy.json",
)
Check = Callable[[str, str], Iterator[Finding]]
CHECKS: Mapping[str, tuple[tuple[Check, tuple[str, ...]], ...]] = {
    "sizes": ((size_findings, PRODUCT),),
    "prose": ((python_findings, PRODUCT), (text_file_findings, TEXTS)),
    "names": ((python_name_findings, PRODUCT),),
}


def findings(checks: Iterable[str], *, root: Path = ROOT, only: str = "") -> list[Finding]:
    """Return every violation of these checks, in the order of the files."""
    found = set[Finding]()
    for name in checks:
        for check, patterns in CHECKS[name]:
            for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
                where = path.relative_to(root).as_posix()
                if only in where:
                    found.update(check(where, path.read_text(encoding="utf-8")))
    return sorted(found)


def main(arguments: list[str]) -> int:
    """Run the checks that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"one of {', '.join(CHECKS)}")
    parser.add_argument("--only", default="", help="only files whose path contains this text")
    options = parser.parse_args(arguments)
    checks = options.checks or list(CHECKS)
    if unknown := sorted(set(checks) - set(CHECKS)):
        parser.error(f"no such check: {', '.join(unknown)}")
    found = findings(checks, only=options.only)
    for each in found:
        print(each)
    counts = Counter(each.path for each in found)
    total = f"{len(found)} violation(s) in {len(counts)} file(s)" if found else "no violations"
    print(f"\n{', '.join(checks)}: {total}")
    for path, count in counts.most_common(20):
        print(f"{count:>6}  {path}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
