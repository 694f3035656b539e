"""Commands that pages show with their output, and the shape of an output.

A sample is a block of a page below a comment with its name:

    <!-- sample: NAME -->
    ```console
    $ lb-drain status
    ...
    ```

Lines that start with `$ ` are commands. A scene (`tests.docs.scenes`) runs them when it is time.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs"
SHOWN_ID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
"""The id of an event, as the simulator makes them."""

BORDER = "-"
"""The line below the header of a table."""

_BLOCK = re.compile(
    r"(?P<begin><!-- sample: (?P<name>[a-z0-9-]+) -->\n```console\n)(?P<body>.*?)(?P<end>```\n)",
    re.DOTALL,
)
_SHAPES = (
    # The ledger, which stands in for a metadata service that answers late, has no source.
    (re.compile(r", source [A-Z][a-z]+"), ""),
    (SHOWN_ID, "ID"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "HASH"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( UTC|Z)?"), "TIME"),
    (re.compile(r"\d\d:\d\d:\d\d( UTC)?"), "TIME"),
    (re.compile(r"\b\d+ (day|h|min|s)\b( \d+ (h|min|s)\b)*"), "DURATION"),
    (re.compile(r"\bin \d+:\d\d\b"), "in DURATION"),
    (re.compile(r"(127\.0\.0\.1|localhost):\d+"), "ADDRESS"),
    (re.compile(r"/\S*/(?=lb-drain-sim|web-\d)"), "DIRECTORY/"),
    (re.compile(r"(?<!web-)\b\d+(\.\d+)+\S*"), "VERSION"),
    (re.compile(r"(?<!web-)\b\d+\b"), "NUMBER"),
    (re.compile(r"─+"), BORDER),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True)
class Sample:
    """One block: its page, its commands, and what it shows."""

    page: Path
    name: str
    shown: str

    @property
    def commands(self) -> list[str]:
        """The commands, in order."""
        return [line.removeprefix("$ ") for line in self.shown.splitlines() if line[:2] == "$ "]


def samples() -> dict[str, Sample]:
    """Return every sample of every page by its name."""
    found = [
        Sample(page, match["name"], match["body"])
        for page in sorted(PAGES.glob("*.md"))
        for match in _BLOCK.finditer(page.read_text())
    ]
    by_name = {sample.name: sample for sample in found}
    assert len(by_name) == len(found), "two samples have one name"
    return by_name


def shape(output: str) -> list[str]:
    """Return the lines of an output without what differs between two runs.

    Times, ids, numbers, addresses and the width of tables differ.
    """
    lines: list[str] = []
    for line in output.splitlines():
        text = line
        for pattern, name in _SHAPES:
            text = pattern.sub(name, text)
        text = text.strip()
        if text:
            lines.append(text)
    return lines


def headers(lines: list[str]) -> list[str]:
    """Return the headers of the tables in a shape."""
    return [line for line, below in pairwise(lines) if below == BORDER]


def write(outputs: Mapping[str, str]) -> list[Path]:
    """Put these outputs into their pages; return the pages that changed."""
    changed: list[Path] = []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text()
        new = _BLOCK.sub(
            lambda match: match["begin"] + outputs.get(match["name"], match["body"]) + match["end"],
            text,
        )
        if new != text:
            page.write_text(new)
            changed.append(page)
    return changed
