"""A fixed share of the mutants of the core, and of the tools that make them, in every test run.

`python -m tests.mutation` judges all of them.
"""

import random
from textwrap import dedent

import pytest

from . import suite, survivors
from .mutants import mutants

SAMPLE = 40
SEED = 20260105


def changes(source: str) -> set[tuple[str, str]]:
    return {(each.before, each.after) for each in mutants("m", dedent(source))}


@pytest.mark.timeout(600)
def test_a_sample_of_the_mutants_is_noticed_by_unit_tests() -> None:
    """What the core does is specified: a small change to it fails a test, or is explained."""
    inside = [
        mutant
        for module in suite.MODULES
        for mutant in suite.mutants_of(module)
        # The order of a set is left to chance here, and with it whether sorting is missed.
        if not mutant.at_import and "sorted(" not in mutant.before
    ]
    chosen = random.Random(SEED).sample(inside, SAMPLE)
    table = survivors.read()
    noticed = dict(suite.judge(chosen, suite.measure(suite.UNIT)))
    assert len(noticed) == SAMPLE
    alive = [mutant for mutant, notice in noticed.items() if notice is None]
    assert [str(mutant) for mutant in alive if not table.explains(mutant.name)] == []


def test_explanations_are_of_mutants_that_exist() -> None:
    """The table of survivors names the code as it is, and gives every one a reason."""
    names = {mutant.name for module in suite.MODULES for mutant in suite.mutants_of(module)}
    assert sorted(set(survivors.read().reasons) - names) == []


def test_what_is_changed() -> None:
    """Comparisons, connectives, arithmetic, values, conditions, calls and statements."""
    assert changes("def f(a):\n    return a < 1") == {
        ("return a < 1", "return a <= 1"),
        ("return a < 1", "return a >= 1"),
        ("return a < 1", "return a < 2"),
        ("return a < 1", "return a < 0"),
        ("return a < 1", "return None"),
    }
    found = changes("""
        def f(a, b) -> bool:
            log(a, level=1)
            return not a and (b or g(b))
    """)
    assert {after for before, after in found if before.startswith("log")} == {
        "pass",
        "log(a, )",
        "log(a, level=2)",
        "log(a, level=0)",
    }
    assert {after for before, after in found if before.startswith("return")} == {
        "return True",
        "return False",
        "return a and (b or g(b))",
        "return not a or (b or g(b))",
        "return not a",
        "return (b or g(b))",
        "return not a and (b and g(b))",
        "return not a and (b )",
        "return not a and (g(b))",
    }


def test_what_is_left_alone() -> None:
    """Docstrings, annotations, decorators, messages, imports and names of types."""
    assert changes('''
            """A module."""
            from m import n
            Key = tuple[int, 1]
            @decorated(1)
            class C:
                """A class."""
                field: "int | 1"
            def f(a: "x < 1") -> "y":
                """A function."""
                raise_("a message of several words")
        ''') == {('raise_("a message of several words")', "pass")}


def test_a_name_outlives_what_moves_around_it() -> None:
    """A survivor is found again after lines were added above it, and never by its number."""
    source = "def f(a):\n    return a or None\n"
    names = {each.name for each in mutants("m", source)}
    moved = {each.name for each in mutants("m", f"import x\n\n\n{source}")}
    assert names == moved
