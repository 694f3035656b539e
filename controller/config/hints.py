"""Words for a problem: the name that was probably meant, and a wrong text that is safe to show."""

import difflib
import re
from collections.abc import Iterable

_SECRET = re.compile(r"://|[?&]sig=|@")
"""What can carry a secret, in whatever key an operator put it by mistake."""


def nearest(name: str, known: Iterable[str], *, otherwise: str = "known") -> str:
    """Return a hint: the known name closest to `name`, else all known names after `otherwise`.

    Case does not matter.
    """
    names = list(known)
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[close[0]]}?" if close else f"{otherwise}: {', '.join(names)}"


def shown(text: str, *, instead: str = "a URL", longest: int = 60) -> str:
    """Return `text` on one line, cut to `longest`, or `instead` if it can carry a secret."""
    if _SECRET.search(text):
        return instead
    printable = text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
    return printable if len(printable) <= longest else f"{printable[:longest]}..."
