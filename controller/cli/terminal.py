"""Output on a terminal, and questions."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

UNWRAPPED_COLUMNS = 2000


def confirmed(question: str) -> bool:
    """Return whether the user confirms; False without a terminal, and after ^D."""
    if sys.stdin is None or sys.stdout is None or not sys.stdin.isatty():
        print(f"{question} Confirm with --yes.", file=sys.stderr)
        return False
    if not sys.stdout.isatty():
        # The question goes to a file: without this line the user waits, and so does the command.
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return input(f"{question} [y/N] ").strip().casefold() in {"y", "yes"}
    except EOFError:
        print(file=sys.stderr)
        return False


def stdout_console() -> "Console":
    """Return a console for stdout. In a file or a pipe, no line is cut or wrapped."""
    from rich.console import Console

    # Without markup: brackets belong to table names of the configuration, or come from Azure.
    return Console(width=None if sys.stdout.isatty() else UNWRAPPED_COLUMNS, markup=False)
