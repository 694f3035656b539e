"""Mutants of a module: every small change to its source that a test ought to notice.

A mutant is one replaced piece of text, so that it can be shown as a change of a line. It is named
by the scope it stands in and by that line before and after, never by a line number: such a name
still fits after the code around it has moved.

Not changed: docstrings, bodies of protocols, annotations, decorators, messages (text with blanks)
and imports.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Pow: ("**", "*"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
UNWRAPPED = {"sorted", "fold", "fold_address", "short"}
"""Functions of one argument that give back something of its kind."""
NORMALIZING = {"astimezone", "casefold", "removeprefix", "rstrip"}
"""The same for methods."""
REMOVABLE = (ast.Expr, ast.AugAssign, ast.Assign, ast.AnnAssign, ast.Raise, ast.Continue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change to one module."""

    module: str
    scope: str
    """Qualified name of the function or class that the change is in; empty at module level."""
    before: str
    after: str
    """The changed lines, joined into one."""
    lines: range
    at_import: bool
    """Outside of any function: it takes effect when the module is imported."""
    source: str
    """The whole module as changed."""

    @property
    def name(self) -> tuple[str, str, str]:
        """What tells this change from others, wherever the code around it moves."""
        where = f"{self.module}.{self.scope}" if self.scope else self.module
        return where, self.before, self.after

    def __str__(self) -> str:
        where, before, after = self.name
        return f"{where}: {before}  ->  {after or '(nothing)'}"


def mutants(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of the source."""
    text = _Text(source)
    found: dict[str, Mutant] = {}
    for scope, at_import, start, end, new in sorted(
        _Finder(text).changes(), key=lambda each: each[2:]
    ):
        changed = text.replaced(start, end, new)
        if changed in found:
            continue
        before, after, lines = text.difference(start, end, new)
        found[changed] = Mutant(
            module=module,
            scope=scope,
            before=before,
            after=after,
            lines=lines,
            at_import=at_import,
            source=changed,
        )
    return list(found.values())


class _Text:
    """The source as bytes, because that is what the columns of a syntax tree count."""

    def __init__(self, source: str) -> None:
        self.bytes = source.encode()
        self.tree = ast.parse(source)
        self._starts = [0]
        for line in self.bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def of(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.bytes[start:end].decode()

    def find(self, pattern: str, start: int, end: int) -> tuple[int, int]:
        """Return where an operator stands between two operands."""
        match = re.search(pattern.encode(), self.bytes[start:end])
        assert match is not None, (pattern, self.bytes[start:end])
        return start + match.start(), start + match.end()

    def replaced(self, start: int, end: int, new: str) -> str:
        return (self.bytes[:start] + new.encode() + self.bytes[end:]).decode()

    def difference(self, start: int, end: int, new: str) -> tuple[str, str, range]:
        """Return the lines that a change touches, before and after it, and their numbers."""
        first = max(n for n, at in enumerate(self._starts) if at <= start)
        last = max(n for n, at in enumerate(self._starts) if at < max(end, start + 1))
        left, right = self._starts[first], self._starts[last + 1]
        before = self.bytes[left:right].decode()
        after = (self.bytes[left:start] + new.encode() + self.bytes[end:right]).decode()
        return _joined(before), _joined(after), range(first + 1, last + 2)


def _joined(lines: str) -> str:
    return " ".join(line.strip() for line in lines.splitlines() if line.strip())


Change = tuple[str, bool, int, int, str]
"""Scope, whether it runs at import, start, end, and what stands there instead."""


class _Finder(ast.NodeVisitor):
    """Walks a module and yields its changes."""

    def __init__(self, text: _Text) -> None:
        self._text = text
        self._scope: list[str] = []
        self._returns: list[str] = []
        self._changes: list[Change] = []

    def changes(self) -> list[Change]:
        self.visit(self._text.tree)
        return self._changes

    def _replace(self, node: ast.expr | ast.stmt | ast.keyword, new: str) -> None:
        self._add(*self._text.span(node), new)

    def _add(self, start: int, end: int, new: str) -> None:
        self._changes.append((".".join(self._scope), not self._returns, start, end, new))

    # --- what is entered ---

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope.append(node.name)
        self._body(node.body)
        self._scope.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._scope.append(node.name)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._returns.append(ast.unparse(node.returns) if node.returns else "")
        self._body(node.body)
        self._returns.pop()
        self._scope.pop()

    def visit_Module(self, node: ast.Module) -> None:
        self._body(node.body)

    def _body(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if _does_nothing(statement) or isinstance(statement, ast.Import | ast.ImportFrom):
                continue
            if self._returns:
                self._removed(statement)
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        # A name for a type, or for what a module exports, changes nothing when the program runs.
        value = node.value
        union = isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
        alias = not self._scope and (union or isinstance(value, ast.Subscript))
        if not alias and ast.unparse(node.targets[0]) != "__all__":
            self.generic_visit(node)

    # --- statements ---

    def _removed(self, statement: ast.stmt) -> None:
        if isinstance(statement, REMOVABLE):
            self._replace(statement, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and ast.unparse(node.value) not in {"None", "True", "False"}:
            boolean = self._returns[-1] == "bool"
            for value in ("True", "False") if boolean else ("None",):
                self._replace(node.value, value)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._condition(node.test)
        self.visit(node.test)
        self._body(node.body)
        self._body(node.orelse)

    def visit_For(self, node: ast.For) -> None:
        self._replace(node.iter, "()")
        self.visit(node.iter)
        self._body(node.body)
        self._body(node.orelse)

    def visit_Try(self, node: ast.Try) -> None:
        self._body(node.body)
        for handler in node.handlers:
            self._body(handler.body)

    def visit_Match(self, node: ast.Match) -> None:
        for case in node.cases:
            if case.guard is not None:
                self._condition(case.guard)
                self.visit(case.guard)
            self._body(case.body)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        old, new = ARITHMETIC[type(node.op)]
        _, left = self._text.span(node.target)
        right, _ = self._text.span(node.value)
        start, end = self._text.find(re.escape(old) + "=", left, right)
        self._add(start, end, f"{new}=")
        self.visit(node.value)

    # --- conditions ---

    def _condition(self, test: ast.expr) -> None:
        self._replace(test, "True")
        self._replace(test, "False")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            old, news = COMPARISONS[type(operator)]
            _, left_end = self._text.span(left)
            right_start, _ = self._text.span(right)
            pattern = old.replace(" ", r"\s+") if old[0] in "in" else re.escape(old)
            start, end = self._text.find(pattern, left_end, right_start)
            for new in news:
                self._add(start, end, new)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        spans = [self._text.span(value) for value in node.values]
        gaps = [
            self._text.find(rf"\b{old}\b", left[1], right[0]) for left, right in pairwise(spans)
        ]
        for start, end in gaps:
            self._add(start, end, new)
        begin, finish = self._text.span(node)
        self._add(begin, self._text.find(r"\S", gaps[0][1], finish)[0], "")
        for (start, _), end in zip(gaps, [*(gap[0] for gap in gaps[1:]), finish], strict=True):
            self._add(start, end, "")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if not isinstance(node.operand, ast.Constant):
            start, _ = self._text.span(node)
            self._add(start, start + (4 if isinstance(node.op, ast.Not) else 1), "")
        self.generic_visit(node)

    # --- values ---

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC:
            old, new = ARITHMETIC[type(node.op)]
            _, left = self._text.span(node.left)
            right, _ = self._text.span(node.right)
            self._add(*self._text.find(re.escape(old), left, right), new)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        match node.value:
            case bool(value):
                self._replace(node, str(not value))
            case int(value) | float(value):
                self._replace(node, repr(value + 1))
                self._replace(node, repr(value - 1))
            case str(value) if value and " " not in value:
                self._replace(node, repr(f"{value}~" if len(value) > 1 else "~"))
            case _:
                pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # the columns inside such a string are not exact in every version of Python

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id=name) if name in SWAPPED:
                self._replace(node.func, SWAPPED[name])
            case ast.Name(id=name) if name in UNWRAPPED:
                self._replace(node, f"({self._text.of(node.args[0])})")
            case ast.Name(id="cast"):
                self.visit(node.args[1])
                return
            case ast.Name(id="TypeVar"):
                return
            case ast.Attribute(value=value, attr=name) if name in NORMALIZING:
                self._replace(node, self._text.of(value))
            case _:
                pass
        for keyword in node.keywords:
            self._drop(node, keyword)
        self.generic_visit(node)

    def _drop(self, node: ast.Call, keyword: ast.keyword) -> None:
        """A keyword argument that is left to its default."""
        start, end = self._text.span(keyword)
        _, finish = self._text.span(node)
        comma = re.compile(rb"\s*,\s*").match(self._text.bytes, end, finish)
        self._add(start, comma.end() if comma else end, "")

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self._elements(node.elts)
        self.generic_visit(node)

    def _elements(self, elements: Iterable[ast.expr]) -> None:
        for element in elements:
            if isinstance(element, ast.Starred):
                self._replace(element, "*()")

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                self._replace(value, "{}")
        self.generic_visit(node)


def _does_nothing(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and (isinstance(statement.value.value, str) or statement.value.value is ...)
    )
