"""`deploy/bundle.sh`: what goes to a VM can be made again by anybody, byte for byte.

Needs the build backend from the index, so it runs where TEST_FROM_INDEX is set, as in `.ci/run`.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("controller", "deploy", "LICENSE", "README.md", "pyproject.toml", ".gitignore")
CARRIED = {
    "SHA256SUMS",
    "install.sh",
    "lb-drain.catalog",
    "lb-drain.service",
    "lb-drain-probe.service",
    "lb_drain_controller-{version}-py3-none-any.whl",
    "requirements.lock",
    "service.sh",
}
pytestmark = pytest.mark.skipif(
    "TEST_FROM_INDEX" not in os.environ,
    reason="TEST_FROM_INDEX is not set: takes the build backend from the index",
)


def make(directory: Path, *, touched_at: float, umask: int) -> Path:
    """Make the bundle from a copy of the sources with a history of its own."""
    for name in SOURCES:
        source, target = ROOT / name, directory / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for path in directory.rglob("*"):
        os.utime(path, (touched_at, touched_at))
        path.chmod(0o777 & ~umask if path.is_dir() or path.suffix == ".sh" else 0o666 & ~umask)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(directory))
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "all")):
        subprocess.run([*git, *command], check=True)
    (directory / "controller/leftover.py").write_text("not committed")
    compiled = directory / "controller/__pycache__/cli.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(os.urandom(8))
    environment = {**os.environ, "PYTHON": sys.executable, "SOURCE_DATE_EPOCH": "1750000000"}
    before = os.umask(umask)
    try:
        subprocess.run([directory / "deploy/bundle.sh"], env=environment, check=True, timeout=600)
    finally:
        os.umask(before)
    (bundle,) = (directory / "dist").iterdir()
    return bundle


def test_the_same_sources_make_the_same_bytes(tmp_path: Path) -> None:
    """Neither place, time, umask nor what lies uncommitted in a checkout changes the bundle, and it
    holds the files that it names and no others."""
    first = make(tmp_path / "a", touched_at=1_600_000_000, umask=0o022)
    second = make(tmp_path / "some/where/else", touched_at=1_700_000_000, umask=0o077)
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()

    with tarfile.open(first) as bundle:
        bundle.extractall(tmp_path, filter="data")
    files = tmp_path / "lb-drain"
    version = first.name.removeprefix("lb-drain-").removesuffix(".tar.gz")
    assert {path.name for path in files.iterdir()} == {
        name.format(version=version) for name in CARRIED
    }
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=files, check=True
    )
    assert len((files / "SHA256SUMS").read_text().splitlines()) == len(CARRIED) - 1
    (wheel,) = files.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert tops == {"controller", f"lb_drain_controller-{version}.dist-info"}
        assert not [name for name in archive.namelist() if "__pycache__" in name]
