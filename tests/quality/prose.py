"""Where people read text in this tree, and the listed words found there.

Read are Markdown (without code), docstrings, comments and messages of Python code, and the text of
the files beside it (status page, alert rules, unit, scripts). A string constant is a message when
it contains a blank between words; other strings are keys and values, which are a contract.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.quality.finding import Finding
from tests.quality.word_list import name_findings, text_findings

_CODE = re.compile(
    r"^(?P<fence>```|~~~).*?^(?P=fence)[^\n]*$|`[^`]*`|\]\([^)]*\)|<[^>\n]*>",
    re.MULTILINE | re.DOTALL,
)
_MESSAGE = re.compile(r"[A-Za-z,.:;)}]\s+[A-Za-z({]")


def text_file_findings(path: str, text: str) -> Iterator[Finding]:
    """Yield the listed words in a text file; code between backticks is not read."""
    blanked = _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    for offset, what in text_findings(blanked):
        yield Finding(path, 1 + blanked.count("\n", 0, offset), what)


def python_findings(path: str, source: str) -> Iterator[Finding]:
    """Yield the listed words in the docstrings, messages and comments of a module."""
    for line, text in _texts(source):
        for found in text_file_findings(path, text):
            yield Finding(path, line + found.line - 1, found.text)


def python_name_findings(path: str, source: str) -> Iterator[Finding]:
    """Yield every name that a module defines and that contains a listed word."""
    for line, name in sorted(set(_defined(ast.parse(source)))):
        for what in name_findings(name):
            yield Finding(path, line, what)


def _texts(source: str) -> Iterator[tuple[int, str]]:
    inside = set[ast.AST]()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.JoinedStr():
                inside.update(node.values)
                # A placeholder is as good as a word, so that the text around it stays whole.
                whole = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}"
                    for part in node.values
                )
                if _MESSAGE.search(whole):
                    yield node.lineno, whole
            case ast.Constant(value=str(text)) if node not in inside and _MESSAGE.search(text):
                yield node.lineno, text
            case _:
                pass
    yield from _comments(source)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield every comment, adjacent lines joined."""
    first, last, lines = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if lines and line != last + 1:
            yield first, "\n".join(lines)
            lines = []
        first = first if lines else line
        lines.append(token.string.lstrip("# "))
        last = line
    if lines:
        yield first, "\n".join(lines)


def _defined(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case _:
                pass
