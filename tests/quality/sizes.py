"""Size limits of product code, so that every module, class and function can be read in one sitting.

Lines are physical lines: docstrings, comments and blank lines count. A class or function begins at
its `class` or `def` line; decorators do not count. Every function in the body of a class is a
method, properties included.
"""

import ast
from collections.abc import Iterator

from tests.quality.finding import Finding

MODULE_LINES = 400
CLASS_LINES = 250
METHODS = 25
FUNCTION_LINES = 60


def size_findings(path: str, source: str) -> Iterator[Finding]:
    """Yield every definition in a module that is over a limit, and the module itself."""
    lines = len(source.splitlines())
    if lines > MODULE_LINES:
        yield Finding(path, 1, f"the module has {lines} lines, the limit is {MODULE_LINES}")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef():
                yield from _class(path, node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                lines = _lines(node)
                if lines > FUNCTION_LINES:
                    what = f"function {node.name} has {lines} lines"
                    yield Finding(path, node.lineno, f"{what}, the limit is {FUNCTION_LINES}")
            case _:
                pass


def _class(path: str, node: ast.ClassDef) -> Iterator[Finding]:
    lines = _lines(node)
    if lines > CLASS_LINES:
        what = f"class {node.name} has {lines} lines"
        yield Finding(path, node.lineno, f"{what}, the limit is {CLASS_LINES}")
    methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
    if methods > METHODS:
        what = f"class {node.name} has {methods} methods"
        yield Finding(path, node.lineno, f"{what}, the limit is {METHODS}")


def _lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
