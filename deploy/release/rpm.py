"""An RPM package for RHEL, its derivatives, and SLES. Needs `rpmbuild`."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy.release import tree
from deploy.release.source import Source

# In an upgrade rpm runs `pre` of the new package, replaces the files, runs `preun` and `postun` of
# the old one with 1, and `posttrans` of the new one.
CALLS = {
    "pre": 'if [ "$1" -gt 1 ]; then before_upgrade; else before_install; fi\n',
    "posttrans": "after_install\n",
    "preun": '[ "$1" != 0 ] || before_remove\n',
    "postun": '[ "$1" != 0 ] || after_remove\n',
}
SPEC = """%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%global _build_id_links none
%global _buildhost reproducible
%global use_source_date_epoch_as_buildtime 1
%global clamp_mtime_to_source_date_epoch 1
%global _binary_payload w9.gzdio
%global _binary_filedigest_algorithm 8

Name: lb-drain
Version: {version}
Release: 1.{tag}
Summary: Drains VMs out of Azure Load Balancer pools around host maintenance
License: MIT
AutoReqProv: no
Requires: bash
Requires: systemd
Requires: {interpreter}

%description
One agent runs on each VM of an availability set. The agents elect a leader,
which takes a VM out of its backend pools before Azure maintains it, and puts
it back afterwards. The package contains an environment of its own in
/opt/lb-drain. Its configuration is /etc/lb-drain/config.toml, which the
command "lb-drain init" writes.

%install
cp -a {files}/. %{{buildroot}}

%files
%defattr(-,root,root,-)
%dir /etc/lb-drain
/opt/lb-drain
/usr/bin/lb-drain
/usr/lib/systemd/system/lb-drain.service
/usr/lib/systemd/system/lb-drain-probe.service
/usr/lib/systemd/catalog/lb-drain.catalog
/usr/share/bash-completion/completions/lb-drain
/usr/share/zsh/site-functions/_lb-drain
/usr/share/fish/vendor_completions.d/lb-drain.fish
%doc /usr/share/doc/lb-drain
/usr/share/man/man8/lb-drain.8.gz
"""


def rpm_version(version: str) -> str:
    """Return the version for rpm, to which a pre-release is older."""
    return re.sub(r"(?<=\d)(?=(?:a|b|rc)\d)|\.(?=dev\d)", "~", version)


def build(files: Path, source: Source, target: tree.Target, to: Path) -> Path:
    """Build a package of a tree; return its path."""
    root = files.with_name(f"{files.name}-rpm")
    shutil.copytree(files, root / "files", symlinks=True)
    zsh = root / "files/usr/share/zsh"
    (zsh / "vendor-completions").rename(zsh / "site-functions")
    shutil.copyfile(source.directory / "LICENSE", root / "files" / tree.DOCUMENTS / "LICENSE")
    tree.normalise(root / "files", source.epoch)
    spec = SPEC.format(
        version=rpm_version(source.version),
        tag=target.tag,
        interpreter=target.interpreter,
        files=root / "files",
    )
    for name, text in tree.scripts(source, CALLS).items():
        body = text.partition("\n")[2].replace("%", "%%")
        spec += f"\n%{name} -p /bin/bash\n{body}"
    (root / "lb-drain.spec").write_text(spec)
    command = ["rpmbuild", "--quiet", "-bb", "--target", target.machine]
    command += ["--define", f"_topdir {root}/top", "--define", f"_rpmdir {root}/built"]
    command += ["--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"]
    subprocess.run(
        [*command, str(root / "lb-drain.spec")],
        env={**os.environ, "SOURCE_DATE_EPOCH": str(source.epoch)},
        check=True,
    )
    (built,) = (root / "built").iterdir()
    package = to / built.name
    shutil.move(built, package)
    shutil.rmtree(root)
    return package
