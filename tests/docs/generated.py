"""Parts of pages that are generated from the code when the site is built.

A page has a place for a part between two comments that name it. What it says there is read in the
repository only.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.command_reference import commands
from tests.docs.configuration_reference import configuration
from tests.docs.metric_reference import metrics
from tests.docs.overview_reference import overview

PAGES = Path(__file__).parents[2] / "docs"
PARTS: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "configuration": configuration,
    "metrics": metrics,
    "overview": overview,
}
"""What generates each part."""

_PLACE = re.compile(r"<!-- generated: (?P<name>[a-z]+) -->\n.*?<!-- end -->", re.DOTALL)


def part_names(text: str) -> list[str]:
    """Return the names of the generated parts of a page."""
    return [match["name"] for match in _PLACE.finditer(text)]


def complete(text: str) -> str:
    """Return a page with its generated parts."""
    return _PLACE.sub(lambda match: PARTS[match["name"]](), text)
