"""One command per task, in the environment that README's installation makes: `nox -s lint`.

`nox -l` lists the tasks. Sessions run in the environment of nox itself, because the lock file pins
every tool; nothing is installed by a session. What follows `--` goes to the tool:
`nox -s test -- tests/unit/core`.
"""

import sys

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "quality", "test"]
PYTEST = ("-m", "pytest", "-n", "4", "--dist", "loadfile")
QUICK, SLOW = ("-m", "not slow"), ("-m", "slow and not campaign")


def python(session: nox.Session, *arguments: str) -> None:
    """Run a module with the Python that runs nox."""
    session.run(sys.executable, *arguments, external=True)


def tool(session: nox.Session, name: str, *arguments: str) -> None:
    """Run a tool that is installed beside the Python that runs nox."""
    session.run(f"{sys.prefix}/bin/{name}", *arguments, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, lint rules, import layers and known insecure patterns."""
    tool(session, "ruff", "format", "--check", ".")
    tool(session, "ruff", "check", ".")
    tool(session, "lint-imports")
    bandit = ("bandit", "--quiet", "--recursive")
    # B105 and B106 take any word for a password; ruff asks the same (S105, S106), with a reason.
    # B606: `lb-drain probe` replaces its own process; ruff asks the same there (S606).
    skipped = ("--skip", "B105,B106,B606")
    tool(session, *bandit, "controller", "--exclude", "controller/simulator", *skipped)
    # The simulator's loads have to be repeatable (B311), and it only writes XML (B406).
    tool(session, *bandit, "controller/simulator", "--skip", "B105,B106,B311,B406")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: strict in controller/, basic in tests/; controller/ also as on Windows."""
    tool(session, "mypy")
    tool(session, "mypy", "--strict", "--platform", "win32", "controller")
    session.env["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"
    pyright = ("pyright", "--pythonpath", sys.executable)
    tool(session, *pyright)
    tool(session, *pyright, "--pythonplatform", "Windows", "controller")


@nox.session
def quality(session: nox.Session) -> None:
    """Check size limits, plain English and standard names."""
    python(session, "-m", "tests.quality", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Check the documentation: plain English, links, commands, generated parts; build the site."""
    python(session, "-m", "tests.quality", "prose", "--only", ".md")
    python(session, "-m", "pytest", "tests/deploy/test_runbook.py", "tests/docs")
    session.notify("site")


@nox.session
def site(session: nox.Session) -> None:
    """Build the documentation site into build/site; every warning is an error."""
    strict = ("--fail-on-warning", "--keep-going", "--quiet")
    python(session, "-m", "sphinx", *strict, "-c", "docs", ".", "build/site")


@nox.session
def test(session: nox.Session) -> None:
    """Run the quick tests."""
    python(session, *PYTEST, *QUICK, *session.posargs)


@nox.session
def full(session: nox.Session) -> None:
    """Run the tests that CI runs: the quick ones, then the slow ones."""
    python(session, *PYTEST, *QUICK, *session.posargs)
    python(session, *PYTEST, *SLOW, *session.posargs)


@nox.session
def campaign(session: nox.Session) -> None:
    """Play the histories of past faults that CI does not play."""
    python(session, *PYTEST, "-m", "campaign", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure lines and branches that the quick tests reach; fail below the floor."""
    tool(session, "coverage", "erase")
    tool(session, "coverage", "run", *PYTEST, *QUICK, *session.posargs)
    tool(session, "coverage", "combine", "--quiet")
    tool(session, "coverage", "report")


@nox.session
def simulate(session: nox.Session) -> None:
    """Play seeded histories of whole agents and hold them against the laws."""
    arguments = session.posargs or ["--seeds", "0..1000", "--jobs", "2"]
    python(session, "-m", "tests.simulation", *arguments)


@nox.session
def mutate(session: nox.Session) -> None:
    """Change the core one place at a time; some test has to notice."""
    python(session, "-m", "tests.mutation", *(session.posargs or ["--jobs", "2"]))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure drain, failover, idle load and footprint."""
    python(session, "-m", "tests.benchmarks", *session.posargs)


@nox.session
def ansible(session: nox.Session) -> None:
    """Check the Ansible role."""
    session.chdir("deploy/ansible")
    tool(session, "ansible-lint", "--offline", "--strict", "-q", "-c", ".ansible-lint.yml", ".")


@nox.session
def release(session: nox.Session) -> None:
    """Build a release from the last commit: all packages, checksums, bill of materials."""
    python(session, "-m", "deploy.release", *session.posargs)


@nox.session
def azure_cli(session: nox.Session) -> None:
    """Run the commands of operators with the real Azure CLI (downloads it) on the simulator."""
    python(session, "-m", "tests.azure_cli", *session.posargs)
