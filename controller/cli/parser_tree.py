"""A walk over a parser. argparse has no public way to inspect one, so this uses private names."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, cast


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a command, in order."""
    return parser._actions  # pyright: ignore[reportPrivateUsage]


def commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Return the commands below a command, in order."""
    for action in actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            return cast("Mapping[str, argparse.ArgumentParser]", cast("Any", action).choices)
    return {}


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a command without --help and without the commands below it."""
    others = (argparse._HelpAction, argparse._SubParsersAction)  # pyright: ignore[reportPrivateUsage]
    return [action for action in actions(parser) if not isinstance(action, others)]


def walk(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield every command with its words. The parser itself is the first."""
    yield path, parser
    for name, below in commands(parser).items():
        yield from walk(below, (*path, name))
