"""A Debian package. Needs `dpkg-deb`."""

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from deploy.release import tree
from deploy.release.source import Source

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CALLS = {
    "preinst": "case $1 in install | upgrade) before_install ;; esac\n",
    "postinst": "case $1 in configure | abort-upgrade) after_install ;; esac\n",
    "prerm": (
        "case $1 in\n"
        "    remove | deconfigure) before_remove ;;\n"
        "    upgrade | failed-upgrade) before_upgrade ;;\n"
        "esac\n"
    ),
    "postrm": "case $1 in remove) after_remove ;; purge) purge ;; esac\n",
}
# The field requires an address, and the project has none: SECURITY.md describes how to report.
MAINTAINER = "The lb-drain-controller authors <noreply@localhost>"
CONTROL = """Package: lb-drain
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: libc6 (>= 2.28), python{python}, systemd
Section: admin
Priority: optional
Description: drains VMs out of Azure Load Balancer pools around host maintenance
 One agent runs on each VM of an availability set. The agents elect a leader,
 which takes a VM out of its backend pools before Azure maintains it, and puts
 it back afterwards. The package contains an environment of its own in
 /opt/lb-drain. Its configuration is /etc/lb-drain/config.toml, which the
 command "lb-drain init" writes.
"""
# The environment consists of wheels as they are on the package index.
OVERRIDES = """# An add-on package belongs to /opt (Filesystem Hierarchy Standard).
lb-drain: dir-or-file-in-opt *
# Libraries of wheels, with the versions and hashes of the run-time lock.
lb-drain: embedded-library *
lb-drain: unstripped-binary-or-object *
lb-drain: shared-library-lacks-prerequisites *
lb-drain: library-not-linked-against-libc *
lb-drain: executable-not-elf-or-script *
lb-drain: unusual-interpreter *
lb-drain: script-not-executable *
lb-drain: extra-license-file *
lb-drain: package-contains-documentation-outside-usr-share-doc *
# The scripts start and stop the agent in an order of their own, so that a VM stays in rotation.
lb-drain: maintainer-script-calls-systemctl *
lb-drain: maintainer-script-calls-service *
# The project has no address for mail.
lb-drain: bogus-mail-host *
lb-drain: bogus-mail-host-in-debian-changelog *
"""


def deb_version(version: str, target: tree.Target) -> str:
    """Return the version for dpkg: a pre-release is older, one for a newer Python newer."""
    return re.sub(r"(?<=\d)(?=(?:a|b|rc|\.dev)\d)", "~", version) + f"-1+{target.tag}"


def build(files: Path, source: Source, target: tree.Target, to: Path) -> Path:
    """Build a package of a tree; return its path."""
    version = deb_version(source.version, target)
    architecture = ARCHITECTURES[target.machine]
    root = files.with_name(f"{files.name}-deb")
    shutil.copytree(files, root, symlinks=True)
    documents = root / tree.DOCUMENTS
    license_text = (source.directory / "LICENSE").read_text()
    (documents / "copyright").write_text(_copyright(license_text))
    tree.compress(documents / "changelog.gz", (source.directory / "CHANGELOG.md").read_text())
    tree.compress(documents / "changelog.Debian.gz", _history(version, source))
    overrides = root / "usr/share/lintian/overrides/lb-drain"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(OVERRIDES)
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        CONTROL.format(
            version=version,
            architecture=architecture,
            maintainer=MAINTAINER,
            size=_kib(root),
            python=target.python,
        )
    )
    (control / "md5sums").write_text(_sums(root))
    for name, text in tree.scripts(source, CALLS).items():
        (control / name).write_text(text)
        (control / name).chmod(0o755)
    tree.normalise(root, source.epoch)
    package = to / f"lb-drain_{version}_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "-z2", "--build", str(root), str(package)],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(source.epoch)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    shutil.rmtree(root)
    return package


def _copyright(text: str) -> str:
    lines = "\n".join(f" {line}" if line else " ." for line in text.strip().splitlines())
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: lb-drain\n"
        "Comment: The licenses of the libraries are in the directories *.dist-info below\n"
        " /opt/lb-drain.\n\n"
        "Files: *\n"
        f"Copyright: {_holder(text)}\n"
        f"License: Expat\n{lines}\n"
    )


def _history(version: str, source: Source) -> str:
    date = format_datetime(datetime.fromtimestamp(source.epoch, UTC))
    return (
        f"lb-drain ({version}) unstable; urgency=medium\n\n"
        "  * The changes of this version are in changelog.gz.\n\n"
        f" -- {MAINTAINER}  {date}\n"
    )


def _holder(text: str) -> str:
    found = re.search(r"Copyright \(c\) (.+)", text)
    return found[1] if found else "the authors"


def _kib(root: Path) -> int:
    return sum(-(-path.lstat().st_size // 1024) for path in root.rglob("*") if path.is_file())


def _sums(root: Path) -> str:
    """Return the list with which dpkg finds damage; it protects from nothing else."""
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.parts
    )
    return "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}"
        f"  {path.relative_to(root)}\n"
        for path in files
    )
