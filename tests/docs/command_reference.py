"""The reference of the commands, from the parser that reads them."""

import argparse
from collections.abc import Iterator

from controller.cli.main import build_parser
from controller.cli.man_page import examples_in, form, help_text
from controller.cli.parser_tree import arguments, walk
from tests.docs.markdown import code, table


def commands() -> str:
    """Return every command with its purpose, arguments and examples."""
    return "\n\n".join(
        _command(" ".join(path), command) for path, command in walk(build_parser()) if path
    )


def _command(name: str, command: argparse.ArgumentParser) -> str:
    return "\n\n".join(_parts(name, command))


def _parts(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"{'#' * (2 + name.count(' '))} lb-drain {name}"
    yield " ".join((command.description or "").split())
    rows = [(code(form(each, whole=True)), help_text(each)) for each in arguments(command)]
    if rows:
        yield table(("argument", "meaning"), rows)
    examples = examples_in(command.epilog or "")
    if examples:
        yield "\n".join(("```sh", *examples, "```"))
