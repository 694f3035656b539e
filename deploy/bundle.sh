#!/usr/bin/env bash
# Makes the one file that goes to every VM: wheel, lock file, unit, catalog, installer, and the sha256
# of each.
# The same commit gives the same bytes, so that anybody can check what is about to be installed.
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
# What was committed, and nothing else that lies about.
[ -z "$(git status --porcelain)" ] || echo "bundle.sh: changes that are not committed are left out" >&2
mkdir "$work/source"
git archive HEAD | tar --extract --directory "$work/source"
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$files" "$work/source"
install -m 755 "$work/source/deploy/install.sh" "$files"
install -m 644 "$work/source"/deploy/{requirements.lock,lb-drain.service,lb-drain.catalog} "$files"
(cd "$files" && sha256sum -- *.whl install.sh lb-drain.{catalog,service} requirements.lock >SHA256SUMS)
version=$(basename "$files"/*.whl | cut -d- -f2)
mkdir -p "$out"
tar --create --directory "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --format=ustar \
    --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX lb-drain |
    gzip --no-name --best >"$out/lb-drain-$version.tar.gz"
cd "$out"
echo "made $PWD/lb-drain-$version.tar.gz" >&2
sha256sum "lb-drain-$version.tar.gz"
