#!/usr/bin/env bash
# Installs, upgrades, rolls back and removes the agent on one VM. Debian, Ubuntu, RHEL and
# compatible systems, SLES.
#
# Each version has its own environment in /opt/lb-drain/versions; `current` names the one that runs. The
# script builds a new version beside the current one and switches with a rename, so that the old version
# stays until the new one works. It installs nothing whose hash is not listed.
set -euo pipefail
umask 022

usage() {
    cat <<'END'
usage: install.sh [--config FILE] [--wheel FILE] [--sha256 HEX] [--wheels DIR] [--python FILE]
                  [--root DIR] [--timeout SECONDS] [--no-wait]
       install.sh --rollback [--root DIR] [--timeout SECONDS] [--no-wait]
       install.sh --uninstall [--purge] [--force] [--root DIR]

Without a command: install, or upgrade an existing installation. requirements.lock, both units,
lb-drain.catalog, service.sh and the wheel are taken from the directory of this script. The responder of the health
probe, lb-drain-probe, runs if [probe] listen is set.

  --config FILE      check it and install it as /etc/lb-drain/config.toml
  --wheel FILE       wheel of lb-drain
  --sha256 HEX       sha256 of the wheel (default: from SHA256SUMS beside it)
  --wheels DIR       take all other wheels from this directory, use no index
  --python FILE      Python 3.11 or newer to build with (default: the system's)
  --root DIR         install under DIR instead of /, to try it; it runs only there
  --timeout SECONDS  wait this long until the agent is ready (180)
  --no-wait          do not wait; this also disables the automatic rollback
  --rollback         switch back to the previous version
  --uninstall        remove everything except the configuration
  --purge            also remove the configuration
  --force            remove it also while a VM is out of rotation, or if that is unknown

exit codes: 0 success; 1 failed, or rolled back; 2 wrong usage; 3 first installation, not ready yet
END
}

refuse() { printf 'install.sh: %s\n' "$*" >&2; usage >&2; exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ! -f "$here/service.sh" ]; then
    printf 'lb-drain: there is no service.sh beside install.sh\n' >&2
    exit 1
fi
# shellcheck source-path=SCRIPTDIR source=service.sh
. "$here/service.sh"
# shellcheck disable=SC2034 # read by service.sh
forced_by="run this again with --force"
command='' config='' wheel='' sha256='' wheels='' python='' root='' timeout_s=180 wait=yes purge=no force=no
while [ $# -gt 0 ]; do
    case $1 in
        --config | --wheel | --sha256 | --wheels | --python | --root | --timeout)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            case $1 in
                --config) config=$2 ;;
                --wheel) wheel=$2 ;;
                --sha256) sha256=$2 ;;
                --wheels) wheels=$2 ;;
                --python) python=$2 ;;
                --root) root=$2 ;;
                --timeout) timeout_s=$2 ;;
            esac
            shift
            ;;
        --no-wait) wait=no ;;
        --rollback | --uninstall)
            [ -z "$command" ] || refuse "use either --rollback or --uninstall"
            command=${1#--}
            ;;
        --purge) purge=yes ;;
        --force) force=yes ;;
        --help) usage; exit 0 ;;
        *) refuse "unknown option $1" ;;
    esac
    shift
done
if [ -n "$command" ] && [ -n "$config$wheel$sha256$wheels$python" ]; then
    refuse "--$command does not take installation options"
fi
[ $purge = no ] || [ "$command" = uninstall ] || refuse "--purge requires --uninstall"
[ $force = no ] || [ "$command" = uninstall ] || refuse "--force requires --uninstall"
command=${command:-install}
[[ $timeout_s =~ ^[0-9]+$ ]] || refuse "--timeout takes whole seconds, not $timeout_s"
[[ $sha256 =~ ^([0-9a-fA-F]{64})?$ ]] || refuse "--sha256 takes 64 hexadecimal digits"
if [ -n "$root" ]; then
    [ -d "$root" ] || die "--root: there is no directory $root"
    root=$(cd "$root" && pwd)
    root=${root%/}
elif [ "$(id -u)" != 0 ]; then
    die "run this script as root (or with --root DIR)"
fi

home=$root/opt/lb-drain
# shellcheck disable=SC2034 # read by service.sh
interpreter=$home/current/bin/python
versions=$home/versions
etc=$root/etc/lb-drain
units=$root/etc/systemd/system
unit=$units/lb-drain.service probe_unit=$units/lb-drain-probe.service
link=$root/usr/local/bin/lb-drain linked=../../../opt/lb-drain/bin/lb-drain
share=$root/usr/local/share
# Files that a version installs besides the agent, and their destinations.
extras=(
    "completion.bash:$share/bash-completion/completions/lb-drain"
    "completion.zsh:$share/zsh/site-functions/_lb-drain"
    "completion.fish:$share/fish/vendor_completions.d/lb-drain.fish"
    "lb-drain.8:$share/man/man8/lb-drain.8"
    "lb-drain.catalog:$root/usr/local/lib/systemd/catalog/lb-drain.catalog"
)

# The responder that answers must have one after it.
keep_responder() { # VERSION [FILE]
    responder_answers || return 0
    if [ -f "$versions/${1:-none}/lb-drain-probe.service" ] && [ -n "$(address lb-drain-probe \
        probe.listen "$versions/$1/bin/lb-drain" "${2:-$etc/config.toml}")" ]; then
        return 0
    fi
    refuse_to_end_responder
}

# A version that refuses the configuration with which the present one runs would end the agent.
keep_agent() { # VERSION
    local problems
    [ -f "$etc/config.toml" ] && [ -x "$home/bin/lb-drain" ] || return 0
    problems=$(accepts lb-drain "$versions/$1/bin/lb-drain") && return 0
    accepts lb-drain "$home/bin/lb-drain" >/dev/null || return 0
    die "$1 refuses $etc/config.toml, and the version that runs accepts it: correct the file; nothing was" \
        "changed. $problems"
}

# --- versions -------------------------------------------------------------------------------------

named() { basename "$(readlink "$home/$1" 2>/dev/null)" 2>/dev/null || true; }

point() { # replace the link with a rename, so that it always exists
    ln -sfn "versions/$2" "$home/$1.new"
    mv -T "$home/$1.new" "$home/$1"
}

switch_to() {
    point current "$1"
    install -d -m 755 "$home/bin"
    ln -sfn ../current/bin/lb-drain "$home/bin/lb-drain"
    install -D -m 644 "$versions/$1/lb-drain.service" "$unit"
    if [ -f "$versions/$1/lb-drain-probe.service" ]; then
        install -D -m 644 "$versions/$1/lb-drain-probe.service" "$probe_unit"
    else
        stop_responder
        rm -f "$probe_unit"
    fi
    if [ ! -e "$link" ] && [ ! -L "$link" ]; then
        install -d -m 755 "$(dirname "$link")"
        ln -s "$linked" "$link"
    fi
    local each
    for each in "${extras[@]}"; do
        if [ -f "$versions/$1/${each%%:*}" ]; then
            install -D -m 644 "$versions/$1/${each%%:*}" "${each#*:}"
        else
            rm -f "${each#*:}"
        fi
    done
    compile_catalog
}

prune() {
    local directory name
    for directory in "$versions"/*/; do
        name=$(basename "$directory")
        case $name in
            "$(named current)" | "$(named previous)") ;;
            *) rm -rf "${directory:?}" ;;
        esac
    done
}

# --- Python ---------------------------------------------------------------------------------------

fits() {
    [ -x "$1" ] && "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Only the system's Python: the unit hides home directories, so it cannot start a Python in one.
find_python() {
    local each
    for each in /usr/bin/python3 /usr/bin/python3.{14,13,12,11}; do
        if fits "$each"; then
            python=$each
            return 0
        fi
    done
    return 1
}

install_python() {
    local distribution
    # shellcheck disable=SC1091
    distribution=$(. /etc/os-release && echo " $ID ${ID_LIKE:-} ")
    case $distribution in
        *" debian "* | *" ubuntu "*)
            apt-get update -qq
            if /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
            else
                DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3.11-venv
            fi
            ;;
        *" rhel "* | *" fedora "*) dnf install -y -q python3.11 ;;
        *" sles "* | *" suse "*) zypper --non-interactive --quiet install python311 ;;
        *) return 1 ;;
    esac
}

choose_python() {
    if [ -n "$python" ]; then
        fits "$python" || die "$python is not a Python 3.11 or newer with venv"
    elif ! find_python; then
        [ -z "$root" ] || die "no Python 3.11 or newer with venv in /usr/bin; install one, or use --python"
        report "installing a Python with the package manager"
        if ! install_python >&2 || ! find_python; then
            die "found no Python 3.11 or newer with venv in /usr/bin; install one, then run this again"
        fi
    fi
}

# --- commands -------------------------------------------------------------------------------------

find_wheel() {
    if [ -z "$wheel" ]; then
        local found=("$here"/lb_drain_controller-*.whl)
        [ ${#found[@]} = 1 ] || die "there are several wheels beside install.sh; use --wheel"
        wheel=${found[0]}
    fi
    [ -f "$wheel" ] || die "there is no wheel $wheel"
    local name sums
    name=$(basename "$wheel")
    sums=$(dirname "$wheel")/SHA256SUMS
    if [ -z "$sha256" ]; then
        [ -f "$sums" ] || die "no hash to check $name: use --sha256, or put SHA256SUMS beside it"
        sha256=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1 }' "$sums")
        [[ $sha256 =~ ^[0-9a-f]{64}$ ]] || die "SHA256SUMS does not contain exactly one hash for $name"
    fi
    sha256=${sha256,,}
}

do_install() {
    find_wheel
    choose_python
    for each in requirements.lock lb-drain.service lb-drain-probe.service lb-drain.catalog service.sh; do
        [ -f "$here/$each" ] || die "there is no $each beside install.sh"
    done
    [ -z "$config" ] || [ -f "$config" ] || die "there is no file $config"
    [ -z "$wheels" ] || [ -d "$wheels" ] || die "there is no directory $wheels"

    # Check and install the same private copy, which no other user can change.
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    local name
    name=$(basename "$wheel")
    cp "$wheel" "$work/$name"
    echo "$sha256  $work/$name" | sha256sum --check --quiet --status ||
        die "$name does not have the sha256 $sha256: it was damaged or replaced; nothing was changed"

    # The same wheel, pins, unit, catalog and Python are the same version, which is not built again.
    local identity version
    identity=$({
        echo "$sha256"
        cat "$here"/{requirements.lock,lb-drain.service,lb-drain-probe.service,lb-drain.catalog}
        "$python" -VV
    } | sha256sum | cut -c1-12)
    version=$(cut -d- -f2 <<<"$name")-$identity
    build "$version" "$name"

    local before former='' config_changed=no unit_changed=no
    before=$(named current)
    if [ -n "$config" ]; then
        "$versions/$version/bin/lb-drain" check-config "$config" >/dev/null ||
            die "$config is not valid for this version; nothing was changed"
        cmp -s "$config" "$etc/config.toml" || config_changed=yes
    else
        keep_agent "$version"
    fi
    cmp -s "$versions/$version/lb-drain.service" "$unit" &&
        cmp -s "$versions/$version/lb-drain-probe.service" "$probe_unit" || unit_changed=yes
    keep_responder "$version" "$config"
    if [ "$before" = "$version" ] && [ $config_changed$unit_changed = nono ] && nothing_to_start; then
        report "$version is already installed; nothing was changed"
        return
    fi
    install -d -m 755 "$etc"
    [ ! -f "$etc/config.toml" ] || former=$work/config.toml
    [ -z "$former" ] || cp -p "$etc/config.toml" "$former"
    if [ $config_changed = yes ]; then
        [ -z "$former" ] || keep_config "$former"
        install -m 644 "$config" "$etc/config.toml"
    fi
    switch_to "$version"

    if [ ! -f "$etc/config.toml" ]; then
        report "$etc/config.toml does not exist: the agent is not started. Next, as root:" \
            "$home/bin/lb-drain init; $home/bin/lb-drain doctor; systemctl enable --now lb-drain"
    elif booted; then
        start
        if [ $wait = yes ] && ! await_ready; then
            # Without a configuration no agent ran before: there is nothing to go back to.
            if [ -z "$before" ] || [ -z "$former" ]; then
                start_responder
                report "$version is installed, but not ready after $timeout_s s: journalctl --unit lb-drain"
                exit 3
            fi
            undo "$version" "$before" "$former"
        fi
    fi
    # Only now: before this line a rollback goes to the older version.
    [ "${before:-$version}" = "$version" ] || point previous "$before"
    prune
    if [ "$before" != "$version" ]; then
        report "$version is installed${before:+, in place of $before}"
    elif [ $config_changed = yes ]; then
        report "$version is kept; the configuration was changed"
    else
        report "$version is kept; its units were installed and started again"
    fi
}

# Keep a replaced configuration for the operator, and each that was kept before, as `lb-drain init` does.
keep_config() { # FILE
    local copy=$etc/config.toml.before number=0
    while [ -e "$copy" ] && ! cmp -s "$1" "$copy"; do
        number=$((number + 1))
        copy=$etc/config.toml.before.$number
    done
    cp -p "$1" "$copy"
}

undo() { # VERSION BEFORE CONFIG
    report "$1 is not ready: rolling back to $2"
    # Its own copy: a config.toml.before can be of another time.
    cmp -s "$3" "$etc/config.toml" || cp -p "$3" "$etc/config.toml"
    switch_to "$2"
    prune
    start
    await_ready || die "$1 did not become ready, and neither did $2: journalctl --unit lb-drain"
    die "$1 did not become ready; $2 runs again: journalctl --unit lb-drain"
}

build() {
    local directory=$versions/$1
    [ ! -f "$directory/complete" ] || return 0
    rm -rf "$directory"
    install -d -m 755 "$home" "$versions"
    "$python" -I -m venv "$directory"
    local pip=("$directory/bin/python" -I -m pip --disable-pip-version-check --quiet --no-input install
        --require-hashes --no-deps --only-binary :all: --no-cache-dir)
    [ -z "$wheels" ] || pip+=(--no-index --find-links "$(cd "$wheels" && pwd)")
    # The lock lists every package: pip resolves and compiles nothing.
    echo "$work/$2 --hash=sha256:$sha256" >"$work/wheel.txt"
    if ! "${pip[@]}" -r "$here/requirements.lock" -r "$work/wheel.txt" ||
        ! "$directory/bin/lb-drain" --version >/dev/null; then
        rm -rf "$directory"
        die "$1 could not be built; nothing was changed"
    fi
    install -m 644 "$here"/{lb-drain.service,lb-drain-probe.service,lb-drain.catalog} "$directory"
    local shell
    for shell in bash zsh fish; do
        "$directory/bin/lb-drain" completion $shell >"$directory/completion.$shell"
    done
    "$directory/bin/lb-drain" manual >"$directory/lb-drain.8"
    # A later rollback or uninstall must not need the bundle.
    install -m 755 "${BASH_SOURCE[0]}" "$directory/install.sh"
    install -m 644 "$here/service.sh" "$directory"
    chmod -R go-w "$directory"
    if [ -z "$root" ] && command -v restorecon >/dev/null; then
        restorecon -R "$home"
    fi
    touch "$directory/complete"
}

do_rollback() {
    local before after
    before=$(named current) after=$(named previous)
    [ -f "$versions/${after:-none}/complete" ] || die "there is no version before this one"
    keep_agent "$after"
    keep_responder "$after"
    point previous "$before"
    switch_to "$after"
    if booted && [ -f "$etc/config.toml" ]; then
        start
        [ $wait = no ] || await_ready || die "$after is not ready after $timeout_s s: journalctl --unit lb-drain"
    fi
    report "$after is installed, in place of $before"
}

do_uninstall() {
    ! responder_answers || refuse_to_end_responder
    refuse_if_out
    if booted; then
        systemctl disable --now --quiet lb-drain 2>/dev/null || true
    fi
    stop_responder
    rm -rf "$home" "$unit" "$probe_unit"
    # Remove the link only if this script created it.
    [ "$(readlink "$link" || true)" != "$linked" ] || rm "$link"
    local each
    for each in "${extras[@]}"; do
        rm -f "${each#*:}"
    done
    compile_catalog
    [ $purge = no ] || rm -rf "$etc"
    ! booted || systemctl daemon-reload
    report "the agent is removed; blob, roles and role assignments are still there"
}

if [ -f "$home/package" ]; then
    die "the package lb-drain installed the agent: use the package manager, or remove the package first"
elif [ -f "$home/pyvenv.cfg" ]; then
    die "$home was not created by this script: stop lb-drain, remove that directory, and run the script again"
fi
install -d -m 755 "$home"
exec 9>"$home/.lock"
flock --nonblock 9 || die "another install.sh is running"
"do_$command"
