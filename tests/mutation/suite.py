"""Running the core's own tests against a mutant: one forked process each, nothing on disk changes.

The parent has imported what tests need, but nothing of the core. A child puts the changed source in
front of the import system and runs the tests that reach the changed lines, quickest first, until
one fails; the properties come last, with few examples. What it may use is bounded in processor
time, not in seconds on the wall, so that an endless loop counts as noticed and a busy machine does
not.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import coverage
import hypothesis
import hypothesis.stateful
import pytest

import controller.errors  # noqa: F401  else every child would import it anew

from .mutants import Mutant

ROOT = Path(__file__).parents[2]
CORE = ROOT / "controller" / "core"
MODULES = tuple(sorted(path.stem for path in CORE.glob("[a-z]*.py")))
UNIT = tuple(
    path for name in MODULES if (path := ROOT / "tests" / "unit" / f"test_{name}.py").exists()
)
PROPERTY = tuple(sorted((ROOT / "tests" / "property").glob("test_*.py")))
EXAMPLES = 60
"""Of every property, for one mutant: all of them take long and notice little more."""
SETTINGS = "_hypothesis_internal_use_settings"
"""Where hypothesis keeps what a test asks for, which no profile overrides."""
PROCESSOR_S = 20.0
"""For all unit tests of one mutant, and again for its properties; they need a third of that."""
OPTIONS = ("-x", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:terminalreporter")


@dataclass(frozen=True, slots=True)
class Reached:
    """Which tests reach which lines of the core, quickest first."""

    tests: tuple[str, ...]
    by_line: dict[str, dict[int, list[int]]]
    """By module and line: numbers of tests."""

    def by(self, mutant: Mutant) -> frozenset[str]:
        """Return the tests that reach a changed line.

        If it runs when the core is imported: all unit tests, and the properties of that module.
        """
        lines = self.by_line[mutant.module]
        numbers = {number for line in mutant.lines for number in lines.get(line, ())}
        if not numbers:
            numbers = {number for reached in lines.values() for number in reached}
            numbers |= {n for n, test in enumerate(self.tests) if test.startswith("tests/unit/")}
        return frozenset(self.tests[number] for number in numbers)


def measure() -> Reached:
    """Run all tests once, unchanged.

    Raises:
        SystemExit: one of them fails, and nothing can be said of mutants.
    """
    said = fork(_measured, processor_s=20 * PROCESSOR_S)
    if not said:
        raise SystemExit("the tests fail without any change: run pytest first")
    tests, by_line = json.loads(said)
    return Reached(
        tests=tuple(tests),
        by_line={
            module: {int(line): numbers for line, numbers in lines.items()}
            for module, lines in by_line.items()
        },
    )


def noticed_by(mutant: Mutant, tests: Collection[str]) -> str | None:
    """Return the test that fails because of a mutant, or what else gave it away; None if none."""

    def run() -> str:
        sys.meta_path.insert(0, _Changed(mutant))
        return _first_failure(UNIT, tests) or _first_failure(PROPERTY, tests) or "nobody"

    said = fork(run, processor_s=2 * PROCESSOR_S)
    return None if said == "nobody" else said or "processor time"


def fork(work: Callable[[], str], *, processor_s: float) -> str:
    """Return what `work` returns in a process of its own; empty when that process is stopped."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            signal.setitimer(signal.ITIMER_PROF, processor_s)  # its signal ends the process
            said = work()
            with os.fdopen(writer, "w", encoding="utf-8") as stream:
                stream.write(said)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


# --- in a child ---


def _first_failure(files: Sequence[Path], tests: Collection[str]) -> str:
    wanted = {test.partition("::")[0] for test in tests}
    chosen = [str(path) for path in files if path.relative_to(ROOT).as_posix() in wanted]
    if not chosen:
        return ""
    watch = _Watch(tests)
    code = pytest.main([*chosen, f"--rootdir={ROOT}", *OPTIONS], plugins=[watch])
    if code == pytest.ExitCode.OK:
        return ""
    return watch.failed or "import"


class _Watch:
    """Chooses tests, limits properties, and remembers what failed."""

    def __init__(self, tests: Collection[str]) -> None:
        self._tests = tests
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._tests]
        for item in items:
            _limit(item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid


def _limit(item: pytest.Item) -> None:
    """Let a property try few examples, and not look for the smallest that fails."""
    test = getattr(item, "function", None)
    given = getattr(test, SETTINGS, None)
    if given is not None:
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        setattr(test, SETTINGS, hypothesis.settings(given, max_examples=EXAMPLES, phases=phases))


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from other source than its file holds."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"controller.core.{mutant.module}"
        self._path = str(CORE / f"{mutant.module}.py")
        self._source = mutant.source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._path, "exec", dont_inherit=True), module.__dict__)


def _measured() -> str:
    measuring = coverage.Coverage(
        data_file=None, config_file=False, include=[f"{CORE}/*"], timid=False
    )
    record = _Record(measuring)
    measuring.start()
    files = [str(path) for path in (*UNIT, *PROPERTY)]
    code = pytest.main([*files, f"--rootdir={ROOT}", *OPTIONS], plugins=[record])
    measuring.stop()
    if code != pytest.ExitCode.OK:
        return ""
    tests = sorted(record.took_s, key=lambda test: record.took_s[test])
    number = {test: n for n, test in enumerate(tests)}
    data = measuring.get_data()
    by_line: dict[str, dict[int, list[int]]] = {module: {} for module in MODULES}
    for file in data.measured_files():
        module = Path(file).stem
        for line, contexts in data.contexts_by_lineno(file).items():
            if "" not in contexts and module in by_line:
                by_line[module][line] = [number[context] for context in contexts]
    return json.dumps([tests, by_line])


class _Record:
    """Tells coverage which test is running, and how long each took."""

    def __init__(self, measuring: coverage.Coverage) -> None:
        self._measuring = measuring
        self.took_s: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            _limit(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._measuring.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.took_s[report.nodeid] = self.took_s.get(report.nodeid, 0) + report.duration
