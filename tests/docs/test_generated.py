"""Generated parts of the pages: complete, and in their places."""

from typing import is_typeddict

from controller.cli.main import build_parser
from controller.cli.parser_tree import walk
from controller.config.keys import ARRAYS, TYPES
from controller.observability.metrics import Gauges
from controller.status import overview_schema
from tests.docs.generated import PAGES, PARTS, complete, part_names
from tests.docs.markdown import table

PAGES_WITH_PARTS = {
    page.stem: page.read_text() for page in PAGES.glob("*.md") if part_names(page.read_text())
}


def test_every_part_is_on_one_page() -> None:
    """Each generated part has its place, where it replaces what the repository shows."""
    found = [name for text in PAGES_WITH_PARTS.values() for name in part_names(text)]
    assert sorted(found) == sorted(PARTS)
    for text in PAGES_WITH_PARTS.values():
        (name,) = part_names(text)
        shown = complete(text)
        assert PARTS[name]() in shown
        assert "In the repository" not in shown


def test_every_setting_command_and_metric_is_there() -> None:
    """No key, no command and no gauge is missing in the reference."""
    configuration, commands, metrics = (
        PARTS[name]() for name in ("configuration", "commands", "metrics")
    )
    keys = {at[-1] for at in TYPES} | {key for each in ARRAYS.values() for key in each.model_fields}
    assert [key for key in sorted(keys) if f"\n| `{key}` |" not in configuration] == []
    tables = {".".join(at[:-1]) for at in TYPES}
    assert [each for each in sorted(tables) if f"## `[{each}]`" not in configuration] == []
    names = [" ".join(path) for path, _ in walk(build_parser()) if path]
    assert [name for name in names if f"# lb-drain {name}\n" not in commands] == []
    gauges = Gauges.__annotations__
    assert [name for name in gauges if f"\n| `lbdrain_{name}` |" not in metrics] == []


def test_every_object_of_the_api_is_there() -> None:
    """Each object that another one refers to has its section, and no type is unknown."""
    shown = PARTS["overview"]()
    objects = {
        f"### {name}\n" for name, each in vars(overview_schema).items() if is_typeddict(each)
    }
    assert [each for each in sorted(objects) if each not in shown] == []
    assert "| any |" not in shown


def test_a_table_keeps_its_cells() -> None:
    """A bar or a line break in a text does not end a cell."""
    assert table(("a", "b"), [("1|2", "x\ny")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | x y |"
