"""`python -m deploy.release`: what it refuses, and what it builds from the last commit.

The whole release takes libraries from the index, so it runs where TEST_FROM_INDEX is set.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from deploy.release import bill, deb, rpm, source, tree
from deploy.release.source import ReleaseError
from tests.deploy.test_run_time_lock import pinned

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\n## Unreleased\n\n{unreleased}\n\n## 1.2.0 - 2030-01-31\n\n{released}\n"


def repository(directory: Path, *, unreleased: str = "", released: str = "- One.") -> Path:
    """Make a repository with one commit, ready to be released but for what is given."""
    directory.mkdir()
    (directory / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    text = CHANGELOG.format(unreleased=unreleased, released=released)
    (directory / "CHANGELOG.md").write_text(text)
    commit(directory)
    return directory


def commit(directory: Path) -> None:
    """Commit everything."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(directory))
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "all")):
        subprocess.run([*git, *command], check=True)


def checked(root: Path, to: Path) -> source.Source:
    """Export the last commit and check it."""
    at = source.export(root, to)
    source.check(root, at)
    return at


def test_a_tree_that_can_be_released(tmp_path: Path) -> None:
    """A clean tree with its version in the changelog passes, and the tag of this commit too."""
    root = repository(tmp_path / "a")
    at = checked(root, tmp_path / "b")
    assert (at.version, at.changes()) == ("1.2.0", "- One.")
    subprocess.run(["git", "-C", root, "tag", "v1.2.0"], check=True)
    assert checked(root, tmp_path / "c").commit == at.commit
    assert at.epoch > 1_700_000_000


def test_what_is_refused(tmp_path: Path) -> None:
    """Each reason is named: changes, a changelog that does not fit, a version that was released."""
    root = repository(tmp_path / "dirty")
    (root / "more").touch()
    with pytest.raises(ReleaseError, match=r"uncommitted changes: \?\? more"):
        checked(root, tmp_path / "1")
    with pytest.raises(ReleaseError, match=r"unreleased entries: move them to 1\.2\.0"):
        checked(repository(tmp_path / "late", unreleased="- Two."), tmp_path / "2")
    with pytest.raises(ReleaseError, match=r"no entry for 1\.2\.0"):
        checked(repository(tmp_path / "empty", released=""), tmp_path / "3")
    root = repository(tmp_path / "other")
    (root / "pyproject.toml").write_text('[project]\nversion = "1.3.0"\n')
    commit(root)
    with pytest.raises(ReleaseError, match=r"no heading '## 1\.3\.0 - YYYY-MM-DD'"):
        checked(root, tmp_path / "4")
    root = repository(tmp_path / "released")
    subprocess.run(["git", "-C", root, "tag", "v1.2.0"], check=True)
    (root / "more").touch()
    commit(root)
    with pytest.raises(ReleaseError, match="raise the version"):
        checked(root, tmp_path / "5")
    with pytest.raises(ReleaseError, match="git rev-parse failed"):
        source.git(tmp_path / "5", "rev-parse", "nothing")


def test_versions_of_packages() -> None:
    """A pre-release is older than its release, for dpkg and for rpm; a newer Python is newer."""
    assert deb.deb_version("1.2.0rc1", tree.Target("3.12")) == "1.2.0~rc1-1+py312"
    assert rpm.rpm_version("1.2.0rc1") == "1.2.0~rc1"
    for version in ("1.2.0a1", "1.2.0.dev1"):
        older, newer = (deb.deb_version(each, tree.Target()) for each in (version, "1.2.0"))
        assert "~" in rpm.rpm_version(version)
        if shutil.which("dpkg"):
            subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)


def test_a_lock_for_one_python_is_refused(tmp_path: Path) -> None:
    """A line of the lock that depends on the Python would depend on the one that builds."""
    (tmp_path / "wheel").touch()
    lock = tmp_path / "lock"
    lock.write_text("a==1 ; python_version < '3.12' \\\n    --hash=sha256:00\n")
    at = source.Source(tmp_path, "0" * 40, 0)
    with pytest.raises(ReleaseError, match="for one Python only: a==1"):
        tree.build(tmp_path / "files", at, tree.Parts(tmp_path / "wheel", lock), tree.Target())


def test_the_lock_fits_every_python() -> None:
    """No line of the run-time lock is for one Python only."""
    text = (ROOT / "deploy/requirements.lock").read_text()
    assert "python_version" not in text
    assert "python_full_version" not in text


def test_each_file_of_the_lock_has_its_hash_in_the_bill() -> None:
    """Names are normalised, and every sha256 of a package is found."""
    lock = (ROOT / "deploy/requirements.lock").read_text()
    hashes = bill.locked_hashes(lock)
    assert sum(map(len, hashes.values())) == lock.count("--hash=sha256:")
    assert bill.name_of("Typing_Extensions>=4; extra == 'a'") == "typing-extensions"
    assert len(hashes["typing-extensions"]) == 2


def test_a_bill_of_an_environment(tmp_path: Path) -> None:
    """It is valid, lists each library with its license and files, and what needs what."""
    for name, more in {
        "lb_drain_controller": "License-Expression: MIT\nRequires-Dist: Some.Thing>=1\n",
        "some_thing": "License: BSD\nRequires-Dist: other; extra == 'x'\n",
    }.items():
        (info := tmp_path / f"{name}-1.0.dist-info").mkdir()
        header = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n"
        (info / "METADATA").write_text(header + more)
    at = source.Source(tmp_path, "0" * 40, 1_750_000_000)
    lock = f"# Made by\nsome-thing==1.0 \\\n    --hash=sha256:{'a' * 64}\n"
    content = json.loads(bill.bill_of(tmp_path, at, lock))
    assert content["metadata"]["component"]["licenses"] == [{"expression": "MIT"}]
    (library,) = content["components"]
    assert (library["name"], library["licenses"]) == ("some-thing", [{"license": {"name": "BSD"}}])
    (reference,) = library["externalReferences"]
    assert reference["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert content["dependencies"] == [
        {
            "ref": "pkg:pypi/lb-drain-controller@1.0",
            "dependsOn": ["pkg:pypi/some-thing@1.0"],
        },
        {"ref": "pkg:pypi/some-thing@1.0", "dependsOn": []},
    ]
    assert bill.bill_of(tmp_path, at, lock) == bill.bill_of(tmp_path, at, lock)


@pytest.mark.slow
@pytest.mark.skipif(
    "TEST_FROM_INDEX" not in os.environ,
    reason="TEST_FROM_INDEX is not set: takes tools and libraries from the index",
)
def test_a_whole_release(tmp_path: Path) -> None:
    """Of the last commit: every artefact, checksums, a signature, a valid bill, and a program that
    runs out of the .deb."""
    python = next(
        (each for each in ("3.11", "3.12", "3.13") if Path(f"/usr/bin/python{each}").exists()), ""
    )
    if not python or not shutil.which("rpmbuild") or not shutil.which("dpkg-deb"):
        pytest.skip("needs a Python of the system, dpkg-deb and rpmbuild (dpkg-dev, rpm)")
    key, out = tmp_path / "key", tmp_path / "dist"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    command = [sys.executable, "-m", "deploy.release", "--snapshot", "--python", python]
    done = subprocess.run(
        [*command, "--sign-key", key, "--out", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (package,) = out.glob("*.deb")
    assert len([*out.glob("*.rpm")]) == len([*out.glob("*.whl")]) == 1
    sums = (out / "SHA256SUMS").read_bytes()
    assert len(sums.splitlines()) == len([*out.iterdir()]) - 2
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    signers = tmp_path / "allowed_signers"
    signers.write_text(f"lb-drain {key.with_suffix('.pub').read_text()}")
    verify: list[str | Path] = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        signers,
        "-I",
        "lb-drain",
        "-n",
        "lb-drain",
    ]
    subprocess.run([*verify, "-s", out / "SHA256SUMS.sig"], input=sums, check=True)

    (listed,) = out.glob("*.cdx.json")
    content = json.loads(listed.read_text())
    names = {each["name"] for each in content["components"]}
    lock = ROOT / "deploy/requirements.lock"
    for_windows = re.findall(r"(?m)^(\S+)==\S+ ; sys_platform == 'win32'", lock.read_text())
    assert names == pinned(lock).keys() - set(for_windows)
    assert content["metadata"]["component"]["name"] == "lb-drain-controller"
    assert len(content["dependencies"]) == len(names) + 1
    (sdist,) = out.glob("lb_drain_controller-*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/controller/__main__.py") for name in archive.getnames())

    root = tmp_path / "root"
    subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
    program = root / "opt/lb-drain/bin/lb-drain"
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == content["metadata"]["component"]["version"]
    config = tmp_path / "config.toml"
    config.write_text("nothing = 1\n")
    refused = subprocess.run([program, "check-config", config], capture_output=True, check=False)
    assert refused.returncode == 78
