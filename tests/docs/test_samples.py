"""What pages show is what the commands print: its shape, not its times."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import scenes
from tests.docs.samples import Sample, headers, samples, shape
from tests.docs.scenes import SCENES
from tests.docs.stage import Stage, stage

SAMPLES = samples()
RENEW = "renew the pages with: python -m tests.docs samples"


def differences(shown: str, printed: str) -> list[str]:
    """Return how the output of a page differs from what the commands print now.

    Headers of tables and the first line have to be equal. Of the other lines, which depend on the
    moment, a quarter can be missing.
    """
    old, new = shape(shown), shape(printed)
    missing = [line for line in old if line not in new]
    found = [f"not printed any more: {line}" for line in headers(old) + old[:2] if line in missing]
    found += [f"printed and not shown: {line}" for line in headers(new) if line not in old]
    if len(missing) > len(old) / 4:
        found += [f"missing: {line}" for line in missing]
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Stage]:
    """A stage for one scene."""
    with stage(tmp_path) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_pages_show_what_commands_print(name: str, opened: Stage) -> None:
    """Each command of a page, run in its scene, prints what the page shows."""
    SCENES[name](opened)
    found = {
        sample: differences(SAMPLES[sample].shown, printed)
        for sample, printed in opened.outputs.items()
    }
    assert {sample: each for sample, each in found.items() if each} == {}, RENEW


def test_each_sample_is_part_of_a_scene() -> None:
    """A sample has the name of its page, its commands, and output; the scenes name every sample."""
    source = Path(scenes.__file__).read_text()
    for name, sample in SAMPLES.items():
        assert f'"{name}"' in source
        assert name.startswith(f"{sample.page.stem}-")
        assert sample.commands
        assert len(sample.shown.splitlines()) >= len(sample.commands)


def test_times_and_numbers_are_no_difference() -> None:
    """Two runs of one command have the same shape."""
    first = "web-1, for 11 s   epoch: 1\n  18:49:14  web-1: is the leader\nVM   role \n──────\n"
    other = "web-1, for 2 min 3 s  epoch: 12\n 08:00:01 web-1: is the leader\n VM  role\n──\n"
    assert shape(first) == shape(other)
    assert differences(first, other) == []


def test_a_renamed_column_and_another_first_line_are_differences() -> None:
    """A page that shows an older output is found."""
    page = "$ lb-drain status\nleader: web-1\nVM phase\n───\na\nb\nc\nd\ne\n"
    assert differences(page, page.replace("phase", "state")) == [
        "not printed any more: VM phase",
        "printed and not shown: VM state",
    ]
    assert differences(page, page.replace("leader", "Leader")) == [
        "not printed any more: leader: web-1"
    ]
    assert differences(page, page.replace("a\nb\nc", "x\ny\nz"))[0] == "missing: a"
    assert differences(page, page.replace("d\ne\n", "d\n")) == []


def test_commands_of_a_sample_are_found() -> None:
    """Lines with a prompt are commands, all others are output."""
    sample = Sample(Path("x.md"), "x", "$ a\nout\n$ b c\n")
    assert sample.commands == ["a", "b c"]
