"""Build a release from the last commit: `python -m deploy.release`.

Writes wheel, sdist, bundle, .deb, .rpm, the bill of materials and SHA256SUMS, and signs the last
one if a key is given. The same commit gives the same bytes. Needs an index, git, dpkg-deb and
rpmbuild.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from deploy.release import bill, deb, rpm, source, tree

ROOT = Path(__file__).parents[2]
# Debian 12, RHEL 8 and 9, SLES 15; Ubuntu 24.04, RHEL 10; Debian 13.
PYTHONS = ("3.11", "3.12", "3.13")
SIGNATURE_NAMESPACE = "lb-drain"


def run(*command: str | Path, at: source.Source) -> None:
    """Run a tool whose output has to be the same each time.

    Raises:
        ReleaseError: it fails.
    """
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(at.epoch),
        "PYTHON": sys.executable,
    }
    if subprocess.run([str(each) for each in command], env=environment, check=False).returncode:
        raise source.ReleaseError(f"{Path(str(command[0])).name} failed")


def distributions(at: source.Source, to: Path) -> Path:
    """Build wheel and sdist, and check that the package index accepts them; return the wheel."""
    run(sys.executable, "-m", "build", "--outdir", to, at.directory, at=at)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(to.iterdir()), at=at)
    (wheel,) = to.glob("*.whl")
    return wheel


def bundle(at: source.Source, wheel: Path, to: Path) -> None:
    """Build the bundle; its wheel was built a second time, and has to be the same.

    Raises:
        ReleaseError: it differs.
    """
    run(ROOT / "deploy/bundle.sh", to, at=at)
    with tarfile.open(to / f"lb-drain-{at.version}.tar.gz") as archive:
        member = archive.extractfile(f"lb-drain/{wheel.name}")
        if member is None or member.read() != wheel.read_bytes():
            raise source.ReleaseError("two builds of the wheel differ: something is not pinned")


def packages(
    at: source.Source, parts: tree.Parts, targets: list[tree.Target], work: Path, to: Path
) -> None:
    """Build a .deb and an .rpm for each target, and the bill of materials of the first one."""
    for number, target in enumerate(targets):
        files = work / f"{target.tag}-{target.machine}"
        tree.build(files, at, parts, target)
        if number == 0:
            libraries = files / tree.HOME / "lib" / f"python{target.python}" / "site-packages"
            text = bill.bill_of(libraries, at, parts.lock.read_text())
            (to / f"lb-drain-{at.version}.cdx.json").write_text(text)
        for kind, builder in (("dpkg-deb", deb.build), ("rpmbuild", rpm.build)):
            if shutil.which(kind) is None:
                raise source.ReleaseError(
                    f"{kind} is not installed (Debian packages dpkg-dev, rpm)"
                )
            builder(files, at, target, to)
        shutil.rmtree(files)


def checksums(to: Path) -> Path:
    """Write the sha256 of every file; return the list."""
    names = sorted(path.name for path in to.iterdir())
    lines = [f"{hashlib.sha256((to / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    sums = to / "SHA256SUMS"
    sums.write_text("".join(lines))
    return sums


def release(options: argparse.Namespace, work: Path) -> None:
    """Check the last commit and build everything of it."""
    former = options.out.exists() and any(options.out.iterdir())
    if former and not (options.out / "SHA256SUMS").exists():
        raise source.ReleaseError(f"{options.out} has files that are no release: remove them")
    at = source.export(ROOT, work / "source")
    if not options.snapshot:
        source.check(ROOT, at)
    to = work / "dist"
    to.mkdir()
    wheel = distributions(at, to)
    bundle(at, wheel, to)
    targets = [
        tree.Target(python, machine) for machine in options.machine for python in options.python
    ]
    lock = at.deploy / "requirements.lock"
    parts = tree.Parts(wheel, lock, options.wheels, tree.command_texts(at))
    packages(at, parts, targets, work, to)
    (to / "CHANGES.md").write_text(f"{at.changes()}\n")
    sums = checksums(to)
    if options.sign_key:
        signer = ("ssh-keygen", "-Y", "sign", "-q", "-n", SIGNATURE_NAMESPACE)
        run(*signer, "-f", options.sign_key, sums, at=at)
    shutil.rmtree(options.out, ignore_errors=True)
    shutil.copytree(to, options.out)
    print(f"{at.version} of {at.commit[:12]} is built in {options.out}:")
    print("".join(f"  {path.name}\n" for path in sorted(options.out.iterdir())), end="")
    if not options.snapshot:
        print(f"next: git tag --sign v{at.version}, and publish these files with CHANGES.md")


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", help="directory to replace (dist)"
    )
    parser.add_argument(
        "--snapshot", action="store_true", help="do not check tree, CHANGELOG.md and tag"
    )
    parser.add_argument("--sign-key", type=Path, help="private SSH key that signs SHA256SUMS")
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument(
        "--machine", nargs="+", default=("x86_64",), choices=tuple(deb.ARCHITECTURES)
    )
    parser.add_argument("--wheels", type=Path, help="take the libraries from this directory")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        try:
            release(options, Path(work))
        except source.ReleaseError as error:
            print(f"release: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
