"""What every command has in common: its parser, its exit codes, and the group it is added to."""

import argparse
import difflib
import re
import textwrap
from collections.abc import Callable
from typing import NoReturn

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CONFIG = 0, 1, 2, 78
EXIT_WAIT_OVER = 124
"""As of timeout(1): the wait has ended, and what was requested goes on."""
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
EXIT_CODES = """\
exit codes: 0 done; 1 failed, the message gives the reason; 2 wrong arguments;
            78 the configuration must be changed; 124 --timeout ended the wait;
            130 and 143 ended by ^C or SIGTERM"""

HELP_COLUMNS = 78
MOST_CHOICES = 12
"""More choices than this are not listed in a message."""

Handler = Callable[[argparse.Namespace], int]
"""Runs a command and returns its exit code."""

_INVALID_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


class CommandParser(argparse.ArgumentParser):
    """A parser that suggests the nearest valid choice when an argument is misspelled."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with code 2."""
        found = _INVALID_CHOICE.search(message)
        choices = re.findall(r"[\w-]+", found[2]) if found else []
        nearest = difflib.get_close_matches(found[1], choices, n=1) if found else []
        if found and nearest:
            message = f"invalid choice: {found[1]!r}; did you mean {nearest[0]!r}?"
        elif found and len(choices) > MOST_CHOICES:
            message = f"invalid choice: {found[1]!r}; {self.prog} --help lists the commands"
        super().error(message)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps help texts without breaking paths and options at their hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class CommandGroup:
    """The commands below a parser.

    Args:
        parser: gets the commands.
        prefix: the words that precede a command in an example, such as "lb-drain simulate".
        metavar: names a command in the usage line.
        required: whether a command must be given.
    """

    def __init__(
        self, parser: argparse.ArgumentParser, *, prefix: str, metavar: str, required: bool
    ) -> None:
        self.parser = parser
        self._prefix = prefix
        self._commands = parser.add_subparsers(title="commands", required=required, metavar=metavar)
        if not required:
            # argparse shows an optional command like a required one. This usage line is set after
            # the commands were added, because they take their own program name from it.
            parser.usage = f"%(prog)s [options]\n       %(prog)s {metavar} ..."

    def add(
        self,
        name: str,
        handler: Handler,
        *,
        summary: str,
        details: str = "",
        examples: tuple[str, ...],
    ) -> argparse.ArgumentParser:
        """Add a command and return its parser.

        Args:
            summary: shown in the list of commands.
            details: follows the summary in the help of the command.
            examples: arguments, without the prefix and the name.
        """
        description = f"{summary[0].upper()}{summary[1:]}. {details}".rstrip()
        shown = "\n         ".join(
            " ".join(filter(None, (self._prefix, name, example))) for example in examples
        )
        parser = self._commands.add_parser(
            name,
            help=summary,
            # Wrapped here: the formatter keeps the lines of description and epilog.
            description=textwrap.fill(description, HELP_COLUMNS, break_on_hyphens=False),
            epilog=f"example: {shown}\n\n{EXIT_CODES}",
            formatter_class=HelpFormatter,
        )
        parser.set_defaults(command=handler)
        return parser
