"""A fixed share of the mutants of the core, and of the tools that make them, in every test run.

`python -m tests.mutation` judges all of them.
"""

import hashlib
from dataclasses import replace
from textwrap import dedent

import pytest

from tests.mutation import suite, survivors
from tests.mutation.mutants import Mutant, mutants

ONE_IN = 180
"""The share of the mutants that is in the sample."""


def changes(source: str) -> set[tuple[str, str]]:
    return {(each.before, each.after) for each in mutants("m", dedent(source))}


def is_in_sample(mutant: Mutant) -> bool:
    """Choose by the name of the mutant: code that is changed exchanges its own mutants only."""
    digest = hashlib.sha256("\n".join(mutant.name).encode()).digest()
    return int.from_bytes(digest[:8], "big") % ONE_IN == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sample_of_the_mutants_is_noticed_by_unit_tests() -> None:
    """What the core does is specified: a small change to it fails a test, or is explained."""
    inside = [
        mutant
        for module in suite.MODULES
        for mutant in suite.mutants_of(module)
        # The order of a set is left to chance here, and with it whether sorting is missed.
        if not mutant.at_import and "sorted(" not in mutant.before
    ]
    chosen = [mutant for mutant in inside if is_in_sample(mutant)]
    assert 0.5 < len(chosen) * ONE_IN / len(inside) < 2
    table = survivors.read()
    noticed = dict(suite.judge(chosen, suite.measure(suite.UNIT)))
    assert len(noticed) == len(chosen)
    alive = [mutant for mutant, notice in noticed.items() if notice is None]
    assert [str(mutant) for mutant in alive if not table.explains(mutant.name)] == []


def test_the_sample_depends_on_nothing_around_a_mutant() -> None:
    """Code that moves, or that other code was added to, keeps its mutants in the sample or out."""
    for mutant in suite.mutants_of(suite.MODULES[0]):
        moved = replace(mutant, lines=range(7, 8), source=f"import x\n{mutant.source}")
        assert is_in_sample(moved) == is_in_sample(mutant)


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
    """Docstrings, empty bodies, annotations, decorators, messages, imports and names of types."""
    assert changes('''
            """A module."""
            from m import n
            Key = tuple[int, 1]
            @decorated(1)
            class C:
                """A class."""
                field: "int | 1"
                def g(self) -> bool:
                    """A question."""
                    ...
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
