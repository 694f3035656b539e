"""Running the core's own tests against mutants: one forked process each, nothing on disk changed.

A worker collects the tests once. For every mutant it forks a child that puts the changed code into
the function it belongs to and runs the tests that reach it, quickest first, until one fails. What
takes effect on import needs a child that has imported nothing of the core yet, and imports it anew.

The properties come with few examples. What a child may use is bounded in processor time, not in
seconds on the wall, so that an endless loop counts as noticed and a busy machine does not.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import SimpleQueue, get_context
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import coverage
import hypothesis
import hypothesis.stateful
import pytest

import controller.errors  # noqa: F401  else every child would import it anew
from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
CORE = ROOT / "controller" / "core"
UNIT_TESTS = ROOT / "tests" / "unit"
PATHS = {
    ".".join(path.relative_to(CORE).with_suffix("").parts): path
    for path in sorted(CORE.rglob("[a-z]*.py"))
}
"""Every module of the core by its name below `controller.core`."""
MODULES = tuple(PATHS)
PACKAGES = ("core", *sorted({name.partition(".")[0] for name in MODULES if "." in name}))
"""Folders of `tests/unit` that test the core: one for the core, one for each package in it."""
UNIT = tuple(
    path for package in PACKAGES for path in sorted((UNIT_TESTS / package).rglob("test_*.py"))
)
PROPERTY = tuple(sorted((ROOT / "tests" / "property").glob("test_*.py")))
EXAMPLES = 60
"""Of every property, for one mutant: all of them take long and notice little more."""
SETTINGS = "_hypothesis_internal_use_settings"
"""Where hypothesis keeps what a test asks for, which no profile overrides."""
PROCESSOR_S = 60.0
"""For one mutant; all tests together need a quarter of that."""
MEASURE_S = 600.0
WORKER_S = 3600.0
"""For what a worker does itself, which is little."""
OPTIONS = ("-x", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:terminalreporter")
NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Reached:
    """Which tests reach which lines of the core, quickest first."""

    files: tuple[Path, ...]
    tests: tuple[str, ...]
    by_line: dict[str, dict[int, list[int]]]
    """By module and line: numbers of tests."""

    def by(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach a changed line, quickest first.

        If it runs when the core is imported: all unit tests, and the properties of that module.
        """
        lines = self.by_line[mutant.module]
        numbers = {number for line in mutant.lines for number in lines.get(line, ())}
        if mutant.at_import or not numbers:
            numbers = {number for reached in lines.values() for number in reached}
            numbers |= {n for n, test in enumerate(self.tests) if test.startswith("tests/unit/")}
        return [self.tests[number] for number in sorted(numbers)]


def mutants_of(module: str) -> list[Mutant]:
    """Return the mutants of one module of the core."""
    return mutants(module, PATHS[module].read_text(encoding="utf-8"))


def measure(files: tuple[Path, ...] = (*UNIT, *PROPERTY)) -> Reached:
    """Run all tests of these files once, unchanged.

    Raises:
        SystemExit: one of them fails, and nothing can be said of mutants.
    """
    said = fork(lambda: _measured(files), processor_s=MEASURE_S)
    if not said:
        raise SystemExit("the tests fail without any change: run pytest first")
    tests, by_line = json.loads(said)
    return Reached(
        files=files,
        tests=tuple(tests),
        by_line={
            module: {int(line): numbers for line, numbers in lines.items()}
            for module, lines in by_line.items()
        },
    )


def judge(
    todo: Sequence[Mutant], reached: Reached, *, jobs: int = 1
) -> Iterator[tuple[Mutant, str | None]]:
    """Yield every mutant with the test that noticed it, or what else gave it away; else None."""
    context = get_context("fork")
    reported: SimpleQueue[tuple[int, str | None] | None] = context.SimpleQueue()
    parts = [range(first, len(todo), jobs) for first in range(jobs)]
    workers = [
        context.Process(target=_work, args=(todo, part, reached, reported)) for part in parts
    ]
    for worker in workers:
        worker.start()
    while jobs:
        if (news := reported.get()) is None:
            jobs -= 1
        else:
            number, notice = news
            yield todo[number], notice
    for worker in workers:
        worker.join()


def _work(
    todo: Sequence[Mutant],
    part: Sequence[int],
    reached: Reached,
    reported: "SimpleQueue[tuple[int, str | None] | None]",
) -> None:
    """Judge some of the mutants, without importing anything of the core in this process."""

    def tell(number: int, said: str) -> None:
        reported.put((number, None if said == NOBODY else said or "the end of its process"))

    def inside() -> str:
        plugin = _Inside({n: todo[n] for n in part if not todo[n].at_import}, reached, tell)
        pytest.main(_arguments(reached.files), plugins=[plugin])
        return ""

    def anew(mutant: Mutant) -> Callable[[], str]:
        return lambda: _noticed_anew(mutant, reached.by(mutant))

    try:
        fork(inside, processor_s=WORKER_S)
        for number in part:
            if todo[number].at_import:
                tell(number, fork(anew(todo[number]), processor_s=PROCESSOR_S))
    finally:
        reported.put(None)


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


# --- mutants inside functions ---


class _Inside:
    """Takes the place of pytest's own loop over the tests."""

    def __init__(
        self, todo: dict[int, Mutant], reached: Reached, tell: Callable[[int, str], None]
    ) -> None:
        self._todo, self._reached, self._tell = todo, reached, tell
        self._failed = False

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            _limit(item)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for number, mutant in self._todo.items():
            tests = [items[test] for test in self._reached.by(mutant)]
            self._tell(number, fork(self._work(mutant, tests), processor_s=PROCESSOR_S))
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    def _work(self, mutant: Mutant, tests: list[pytest.Item]) -> Callable[[], str]:
        def work() -> str:
            _put_in_place(mutant)
            for test in tests:
                test.config.hook.pytest_runtest_protocol(item=test, nextitem=None)
                if self._failed:
                    return test.nodeid
            return NOBODY

        return work


def _put_in_place(mutant: Mutant) -> None:
    """Give a function of the imported module its changed code."""
    found: object = importlib.import_module(f"controller.core.{mutant.module}")
    code = compile(mutant.source, str(PATHS[mutant.module]), "exec", dont_inherit=True)
    for name in mutant.scope.split("."):
        found = vars(found)[name]
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, classmethod):
        found = found.__func__
    assert isinstance(found, FunctionType), mutant
    found.__code__ = code


# --- mutants that take effect on import ---


def _noticed_anew(mutant: Mutant, tests: list[str]) -> str:
    sys.meta_path.insert(0, _Changed(mutant))
    files = dict.fromkeys(test.partition("::")[0] for test in tests)
    watch = _Watch(tests)
    code = pytest.main(_arguments([ROOT / file for file in files]), plugins=[watch])
    return NOBODY if code == pytest.ExitCode.OK else watch.failed or "import"


class _Watch:
    """Chooses tests, limits properties, and remembers what failed."""

    def __init__(self, tests: list[str]) -> None:
        self._order = {test: number for number, test in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._order]
        items.sort(key=lambda item: self._order[item.nodeid])
        for item in items:
            _limit(item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from other source than its file holds."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"controller.core.{mutant.module}"
        self._path = str(PATHS[mutant.module])
        self._source = mutant.source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._path, "exec", dont_inherit=True), module.__dict__)


# --- without any mutant ---


def _measured(files: Sequence[Path]) -> str:
    measuring = coverage.Coverage(data_file=None, config_file=False, include=[f"{CORE}/*"])
    record = _Record(measuring)
    measuring.start()
    code = pytest.main(_arguments(files), plugins=[record])
    measuring.stop()
    if code != pytest.ExitCode.OK:
        return ""
    tests = sorted(record.took_s, key=lambda test: record.took_s[test])
    number = {test: n for n, test in enumerate(tests)}
    data = measuring.get_data()
    by_line: dict[str, dict[int, list[int]]] = {module: {} for module in MODULES}
    names = {str(path): module for module, path in PATHS.items()}
    for file in data.measured_files():
        if module := names.get(file):
            for line, contexts in data.contexts_by_lineno(file).items():
                by_line[module][line] = [number[context] for context in contexts if context]
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


def _arguments(files: Sequence[Path]) -> list[str]:
    return [*map(str, files), f"--rootdir={ROOT}", *OPTIONS]


def _limit(item: pytest.Item) -> None:
    """Let a property try few examples, and not look for the smallest that fails."""
    test = getattr(item, "function", None)
    given = getattr(test, SETTINGS, None)
    if given is not None:
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        setattr(test, SETTINGS, hypothesis.settings(given, max_examples=EXAMPLES, phases=phases))
