#!/usr/bin/env bash
# Builds the bundle for the VMs: wheel, lock file, units, catalog, installer, and the sha256 of each.
# The same commit gives the same bytes, so that the bundle can be verified before it is installed.
# usage: bundle.sh [DIRECTORY]       (default: dist)
set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-dist}
: "${PYTHON:=python3}"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=$work/lb-drain
# Only committed files.
[ -z "$(git status --porcelain)" ] || echo "bundle.sh: uncommitted changes are not included" >&2
mkdir "$work/source"
git archive HEAD | tar --extract --directory "$work/source"
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$files" "$work/source"
install -m 755 "$work/source/deploy/install.sh" "$files"
install -m 644 "$work/source"/deploy/{requirements.lock,service.sh,lb-drain{,-probe}.service,lb-drain.catalog} "$files"
(cd "$files" && sha256sum -- *.whl install.sh lb-drain.{catalog,service} lb-drain-probe.service requirements.lock service.sh >SHA256SUMS)
version=$(basename "$files"/*.whl | cut -d- -f2)
mkdir -p "$out"
tar --create --directory "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --format=ustar \
    --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX lb-drain |
    gzip --no-name --best >"$out/lb-drain-$version.tar.gz"
cd "$out"
echo "built $PWD/lb-drain-$version.tar.gz" >&2
sha256sum "lb-drain-$version.tar.gz"
