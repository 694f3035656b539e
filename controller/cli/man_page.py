"""The manual page, generated from the parser, so that it agrees with `--help`. Pure.

Decision 0010 explains why no library does this.
"""

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from controller.cli.parser_tree import arguments, walk
from controller.config.schema import STORAGE_CONNECTION_STRING

WIDTH = 72
"""Columns of text; escapes can add some, and troff tools complain above 80."""
SPECIAL = str.maketrans(
    {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
)
"""Characters that roff interprets, or replaces with typographic variants."""


def page(parser: argparse.ArgumentParser, version: str, config: Path) -> str:
    """Return the page in roff for man(1). `config` is the default configuration file."""
    return "\n".join([*_lines(parser, version, config), ""])


def _lines(parser: argparse.ArgumentParser, version: str, config: Path) -> Iterator[str]:
    commands = [(" ".join(path), command) for path, command in walk(parser) if path]
    yield f'.TH LB\\-DRAIN 8 "" "lb\\-drain {_text(version)}" "System administration"'
    # No hyphenation and no justification: a user copies commands from the page.
    yield from (".nh", ".ad l")
    yield ".SH NAME"
    yield r"lb\-drain \- drain the VMs of a set around host maintenance in Azure"
    yield ".SH SYNOPSIS"
    for name, command in commands:
        if command.get_default("command"):
            yield from (".nf", f"{_usage(parser, name, command)}", ".fi")
    yield ".SH DESCRIPTION"
    yield from _wrapped(parser.description or "")
    yield ".SH COMMANDS"
    for name, command in commands:
        yield f".SS {_text(name)}"
        yield from _wrapped(command.description or "")
        for action in arguments(command):
            yield from _entry(form(action, whole=True), help_text(action))
    yield ".SH FILES"
    yield from _entry(str(config), "configuration, identical on every VM of the set")
    yield from _entry(
        f"{config}.before", "configuration that init --force or an upgrade has replaced"
    )
    yield from _entry("/opt/lb-drain", "installed versions, each with its dependencies")
    yield ".SH ENVIRONMENT"
    yield from _entry(
        "LB_DRAIN_TABLE_KEY",
        "overrides a setting of the file: LB_DRAIN_POLICY_LEAD_TIME_S is lead_time_s in [policy]. "
        "Settings in [[...]] cannot be overridden. check-config shows every setting",
    )
    yield from _entry("https_proxy, no_proxy", "proxy for requests to Resource Manager and storage")
    yield from _entry(
        STORAGE_CONNECTION_STRING,
        "connection string of a storage emulator on this host; on Azure the agent uses the managed "
        "identity instead",
    )
    yield ".SH EXIT STATUS"
    for code, meaning in _exit_codes(parser.epilog or ""):
        yield from _entry(code, meaning)
    yield ".SH EXAMPLES"
    examples = (line for _, command in commands for line in examples_in(command.epilog or ""))
    yield ".nf"
    yield from (_text(example) for example in dict.fromkeys(examples))
    yield ".fi"
    yield ".SH SEE ALSO"
    yield r".BR systemctl (1),"
    yield r".BR journalctl (1)"


def _usage(parser: argparse.ArgumentParser, name: str, command: argparse.ArgumentParser) -> str:
    shown = [form(action, whole=False) for action in arguments(command)]
    lines = textwrap.wrap(
        " ".join([f"{parser.prog} {name}", *(each.replace(" ", "\0") for each in shown)]),
        WIDTH,
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return "\n".join(_text(line.replace("\0", " ")) for line in lines)


def form(action: argparse.Action, *, whole: bool) -> str:
    """Return an argument as `[--notice S]`; with `whole`, every spelling and no brackets."""
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    value = metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
    if not action.option_strings:
        value = value or action.dest.upper()
        value = f"{value} ..." if action.nargs in ("+", "*") else value
        return value if whole or action.nargs not in ("?", "*") else f"[{value}]"
    value = "" if action.nargs == 0 else f" {value or action.dest.upper()}"
    value = f"{value} ..." if action.nargs == "+" else value
    spellings = ", ".join(action.option_strings if whole else action.option_strings[:1])
    return f"{spellings}{value}" if whole or action.required else f"[{spellings}{value}]"


def help_text(action: argparse.Action) -> str:
    """Return the help of an argument."""
    return (action.help or "") % {"default": action.default}


def _exit_codes(epilog: str) -> Iterable[tuple[str, str]]:
    return re.findall(r"(\d+(?: and \d+)*) ([^;]+)", epilog)


def examples_in(epilog: str) -> list[str]:
    """Return the examples in the epilog of a command."""
    examples = epilog.partition("\n\n")[0].removeprefix("example: ")
    return [line.strip() for line in examples.splitlines()]


def _entry(term: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield f".B {_text(term)}"
    yield from _wrapped(text)


def _wrapped(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False):
        yield _text(line)


def _text(text: str) -> str:
    """Return text that roff prints unchanged; a leading dot would start a roff request."""
    escaped = text.translate(SPECIAL)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped
