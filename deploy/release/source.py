"""The committed tree that a release is built from."""

import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path


class ReleaseError(Exception):
    """The release cannot be built; the text states what to do."""


def git(root: Path, *arguments: str) -> str:
    """Return what git prints, without the last line break."""
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ReleaseError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.rstrip("\n")


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a commit, exported to a directory of their own."""

    directory: Path
    commit: str
    epoch: int
    """The time of the commit, in seconds since 1970: the time of everything that is built."""

    @property
    def version(self) -> str:
        """The version of the project."""
        project = tomllib.loads((self.directory / "pyproject.toml").read_text())["project"]
        return str(project["version"])

    @property
    def deploy(self) -> Path:
        """The directory with installer, units and scripts."""
        return self.directory / "deploy"

    def changes(self) -> str:
        """Return the section of CHANGELOG.md about the version; the unreleased one without it."""
        text = (self.directory / "CHANGELOG.md").read_text()
        return section(text, self.version) or section(text, "Unreleased")


def export(root: Path, to: Path) -> Source:
    """Write the files of the last commit to a directory."""
    to.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-C", str(root), "archive", "HEAD"], capture_output=True, check=True
    )
    subprocess.run(["tar", "--extract", "--directory", str(to)], input=archive.stdout, check=True)
    commit = git(root, "rev-parse", "HEAD")
    return Source(to, commit, int(git(root, "log", "-1", "--format=%ct")))


def section(changelog: str, version: str) -> str:
    """Return the text below the heading of a version: `## 1.2.3 - 2030-01-31`."""
    heading = rf"^## {re.escape(version)}(?: - \d{{4}}-\d\d-\d\d)?\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def check(root: Path, source: Source) -> None:
    """Check that the last commit can become the release of its version.

    Raises:
        ReleaseError: the tree is not clean, the changelog does not fit, or the tag is taken.
    """
    version, changelog = source.version, (source.directory / "CHANGELOG.md").read_text()
    if changed := git(root, "status", "--porcelain"):
        raise ReleaseError(f"uncommitted changes: {changed.splitlines()[0].strip()}, ...")
    if not re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        raise ReleaseError(
            f"CHANGELOG.md has no heading '## {version} - YYYY-MM-DD': rename 'Unreleased', or "
            "correct the version in pyproject.toml; --snapshot builds without it"
        )
    if not section(changelog, version):
        raise ReleaseError(f"CHANGELOG.md has no entry for {version}")
    if section(changelog, "Unreleased"):
        raise ReleaseError(f"CHANGELOG.md has unreleased entries: move them to {version}")
    tag = f"v{version}"
    tagged = git(root, "tag", "--list", tag) and git(root, "rev-list", "-n", "1", tag)
    if tagged and tagged != source.commit:
        raise ReleaseError(f"the tag {tag} names another commit: raise the version")
