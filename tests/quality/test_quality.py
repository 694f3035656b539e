"""The quality checks find what they are for, and nothing else."""

from pathlib import Path

import pytest

from tests.quality.__main__ import CHECKS, findings, main
from tests.quality.prose import python_findings, python_name_findings, text_file_findings
from tests.quality.sizes import size_findings


def sizes(source: str) -> list[str]:
    return [str(each) for each in sorted(size_findings("m.py", source))]


def prose(text: str) -> list[str]:
    return [str(each) for each in text_file_findings("m.md", text)]


def python(source: str) -> list[str]:
    return [str(each) for each in python_findings("m.py", source)]


def test_a_module_at_its_limits_is_accepted() -> None:
    """400 lines, 250 lines and 25 methods of a class, and 60 lines of a function are allowed."""
    function = "def f():\n" + "    pass\n" * 59
    methods = "".join(f"    def m{n}(self): pass\n" for n in range(25))
    body = f"class C:\n{methods}" + "    x = 1\n" * 224
    padding = "\n" * (400 - len((function + body).splitlines()))
    assert sizes(function + body + padding) == []


def test_everything_over_a_limit_is_listed() -> None:
    """One line or one method more is a violation that names the definition."""
    function = "@decorated\nasync def f():\n" + "    pass\n" * 60
    methods = "".join(f"    def m{n}(self): pass\n" for n in range(26))
    body = f"class C:\n{methods}" + "    x = 1\n" * 224
    padding = "\n" * (401 - len((function + body).splitlines()))
    assert sizes(function + body + padding) == [
        "m.py:1: the module has 401 lines, the limit is 400",
        "m.py:2: function f has 61 lines, the limit is 60",
        "m.py:63: class C has 251 lines, the limit is 250",
        "m.py:63: class C has 26 methods, the limit is 25",
    ]


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("It tells whether a VM is out.", "tells whether"),
        ("The agent was told.", "told"),
        ("Nobody leads.", "Nobody"),
        ("Drain a VM by\nhand.", "by hand"),
        ("Two of them failed.", "of them"),
        ("It takes a look.", "a look"),
        ("Good. Who leads writes.", "Who"),
    ],
)
def test_a_listed_word_is_found(sentence: str, word: str) -> None:
    """Every listed word is reported with what to write instead, also across a line break."""
    assert any(f"'{word}': " in line for line in prose(sentence))


def test_plain_text_questions_and_code_are_accepted() -> None:
    """Plain sentences, questions, code blocks and inline code contain no violation."""
    assert prose("Who leads? The agent that holds the lease.\n") == []
    assert prose("Run `told` to see.\n\n```\nnobody told\n```\n\nThe kingdom looks fine.\n") == []


def test_docstrings_messages_and_comments_are_read_and_keys_are_not() -> None:
    """Text in Python code is checked with its line; a string of one word is a key."""
    source = '''"""A module.

Nobody reads it.
"""
KEY = "told"
message = f"{KEY}: nobody has {KEY} yet"
call(1)  # the first part
# was told
'''
    found = python(source)
    assert [line.partition(": ")[0] for line in found] == ["m.py:3", "m.py:6", "m.py:8"]


def test_a_defined_name_with_a_listed_word_is_found() -> None:
    """Definitions are checked word by word; a name that is only used is not."""
    source = "def told_in(look): lookup = outlook = look.say\nclass OutingView: pass\n"
    found = [str(each) for each in python_name_findings("m.py", source)]
    assert [line.partition(": instead")[0] for line in found] == [
        "m.py:1: name 'look'",
        "m.py:1: name 'told_in'",
        "m.py:2: name 'OutingView'",
    ]


def test_the_tree_that_is_checked_exists(tmp_path: Path) -> None:
    """Every check reads files of this tree, and a tree without violations has none."""
    (tmp_path / "README.md").write_text("Nobody.")
    assert [each.path for each in findings(CHECKS, root=tmp_path)] == ["README.md"]
    assert findings(CHECKS, root=tmp_path, only="docs") == []


def test_an_unknown_check_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelled check must not pass for a clean one."""
    with pytest.raises(SystemExit):
        main(["size"])
    assert "no such check: size" in capsys.readouterr().err
