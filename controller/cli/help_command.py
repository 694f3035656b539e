"""`lb-drain help` and `lb-drain version`: the words that other programs take, too."""

import argparse
from importlib.metadata import version

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.parser_tree import commands as commands_of


def add_parser(commands: CommandGroup) -> None:
    """Add the commands."""

    def show_help(options: argparse.Namespace) -> int:
        parser = commands.parser
        for word in options.words:
            known = commands_of(parser)
            if not known:
                commands.parser.error(f"{parser.prog} has no commands: {word!r} is too much")
            if word not in known:
                # The parser refuses the word as it always does, with the nearest one.
                parser.parse_args([word])
            parser = known[word]
        parser.print_help()
        return EXIT_OK

    def show_version(_options: argparse.Namespace) -> int:
        print(version("lb-drain-controller"))
        return EXIT_OK

    parser = commands.add(
        "help",
        show_help,
        summary="print the help of lb-drain or of a command",
        details="The same as --help.",
        examples=("drain", "maintenance start"),
    )
    parser.add_argument("words", metavar="COMMAND", nargs="*", help="the words of the command")
    commands.add(
        "version",
        show_version,
        summary="print the version",
        details="The same as --version.",
        examples=("> version-before-the-upgrade",),
    )
