"""The table of this package names tests that exist, and every test of this package."""

import ast
import re
from pathlib import Path

import pytest

from tests.component import operator_scenes

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
NAMED = re.findall(r"^    (?:(\S+\.py)::)?(test_\w+)$", operator_scenes.__doc__ or "", re.MULTILINE)


def names_in(path: Path) -> set[str]:
    """Return the names of the tests of a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, kinds))
    return {each.name for each in found if each.name.startswith("test_")}


SCENES = {name for path in HERE.glob("test_f*.py") for name in names_in(path)}


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_named_test_exists(file: str, name: str) -> None:
    """Who reads a line of the table finds its proof."""
    assert name in (names_in(TESTS / file) if file else SCENES)


def test_every_scene_is_in_the_table() -> None:
    """A test of this package is the proof of something that an operator said."""
    assert {name for file, name in NAMED if not file} == SCENES


def test_each_line_of_the_table_is_read() -> None:
    """An indented line is a test; each of the eleven scenes has its heading."""
    lines = (operator_scenes.__doc__ or "").splitlines()
    assert len([line for line in lines if line.startswith("    ")]) == len(NAMED)
    assert len([line for line in lines if re.match(r"F\d+\. ", line)]) == 11
