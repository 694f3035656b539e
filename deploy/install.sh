#!/usr/bin/env bash
# Installs, upgrades, rolls back and removes the agent on one VM. Debian, Ubuntu, RHEL and its kin, SLES.
#
# Each version has an environment of its own in /opt/lb-drain/versions; `current` names the one that
# runs. A new one is built beside it, and only a rename makes it current, so that the old one is there
# until the new one has shown that it works. Nothing is installed whose hash was not written down.
set -euo pipefail
umask 022

usage() {
    cat <<'END'
usage: install.sh [--config FILE] [--wheel FILE] [--sha256 HEX] [--wheels DIR] [--python FILE]
                  [--root DIR] [--timeout SECONDS] [--no-wait]
       install.sh --rollback [--root DIR] [--timeout SECONDS] [--no-wait]
       install.sh --uninstall [--purge] [--root DIR]

Without a command: install, or upgrade what is there. requirements.lock, lb-drain.service,
lb-drain.catalog and the wheel are taken from beside this script.

  --config FILE      check it and make it /etc/lb-drain/config.toml
  --wheel FILE       wheel of lb-drain
  --sha256 HEX       its sha256; otherwise the one in SHA256SUMS beside it
  --wheels DIR       take all other wheels from this directory, ask no index
  --python FILE      Python to build with, 3.11 or newer; otherwise that of the system is found
  --root DIR         install below DIR instead of /, to try it; it runs there only
  --timeout SECONDS  wait this long for the agent to be ready (180)
  --no-wait          do not wait, and so never roll back
  --rollback         make the version before the current one current again
  --uninstall        remove all but the configuration
  --purge            remove the configuration, too

exit codes: 0 done; 1 not done, or undone; 2 wrong usage; 3 installed for the first time, not yet ready
END
}

say() { printf 'lb-drain: %s\n' "$*"; }
die() { printf 'lb-drain: %s\n' "$*" >&2; exit 1; }
refuse() { printf 'install.sh: %s\n' "$*" >&2; usage >&2; exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command='' config='' wheel='' sha256='' wheels='' python='' root='' timeout_s=180 wait=yes purge=no
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
            [ -z "$command" ] || refuse "say one of --rollback and --uninstall"
            command=${1#--}
            ;;
        --purge) purge=yes ;;
        --help) usage; exit 0 ;;
        *) refuse "unknown option $1" ;;
    esac
    shift
done
if [ -n "$command" ] && [ -n "$config$wheel$sha256$wheels$python" ]; then
    refuse "--$command takes nothing to install"
fi
[ $purge = no ] || [ "$command" = uninstall ] || refuse "--purge goes with --uninstall"
command=${command:-install}
[[ $timeout_s =~ ^[0-9]+$ ]] || refuse "--timeout takes whole seconds, not $timeout_s"
[[ $sha256 =~ ^([0-9a-fA-F]{64})?$ ]] || refuse "--sha256 takes 64 hexadecimal digits"
if [ -n "$root" ]; then
    [ -d "$root" ] || die "--root: there is no directory $root"
    root=$(cd "$root" && pwd)
    root=${root%/}
elif [ "$(id -u)" != 0 ]; then
    die "must run as root (or with --root, into a directory)"
fi

home=$root/opt/lb-drain
versions=$home/versions
etc=$root/etc/lb-drain
unit=$root/etc/systemd/system/lb-drain.service
link=$root/usr/local/bin/lb-drain linked=../../../opt/lb-drain/bin/lb-drain
share=$root/usr/local/share
# What a version brings besides the agent, and where it goes.
extras=(
    "completion.bash:$share/bash-completion/completions/lb-drain"
    "completion.zsh:$share/zsh/site-functions/_lb-drain"
    "completion.fish:$share/fish/vendor_completions.d/lb-drain.fish"
    "lb-drain.8:$share/man/man8/lb-drain.8"
    "lb-drain.catalog:$root/usr/local/lib/systemd/catalog/lb-drain.catalog"
)

# --- the service ----------------------------------------------------------------------------------

# Where no systemd runs (an image, a scratch root) only files are changed.
booted() { [ -d "$root/run/systemd/system" ]; }

# Where the agent answers, settings of the unit's environment included; nothing where it does not.
listening() {
    # shellcheck disable=SC2016
    systemctl show --property Environment --value lb-drain |
        xargs sh -c 'lb_drain=$1 file=$2; shift 2; exec env "$@" "$lb_drain" check-config "$file"' \
            sh "$home/bin/lb-drain" "$etc/config.toml" 2>/dev/null |
        awk '$1 == "server.listen" && $2 ~ /:/ { print $2 }' || true
}

ready() {
    # Active means that the agent has told systemd that it takes part.
    systemctl is-active --quiet lb-drain || return 1
    local listen
    listen=$(listening)
    [ -n "$listen" ] || return 0
    "$home/current/bin/python" -I -c '
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.exit(opener.open(f"http://{sys.argv[1]}/readyz", timeout=5).status != 200)
' "$listen" 2>/dev/null
}

nothing_to_start() {
    ! booted || [ ! -f "$etc/config.toml" ] || systemctl is-enabled --quiet lb-drain
}

await_ready() {
    local end=$((SECONDS + timeout_s))
    until ready; do
        # 78: the configuration must be changed, and systemd does not try again.
        ! systemctl is-failed --quiet lb-drain || return 1
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 1
    done
}

start() {
    systemctl daemon-reload
    systemctl enable --quiet lb-drain
    # Stopped first: what answers afterwards is the new one. It does not block after that: until Azure
    # lets it in, an agent stays in its start for as long as it takes.
    systemctl stop lb-drain
    systemctl reset-failed lb-drain 2>/dev/null || true
    systemctl start --no-block lb-drain
}

# --- versions -------------------------------------------------------------------------------------

named() { basename "$(readlink "$home/$1" 2>/dev/null)" 2>/dev/null || true; }

point() { # a link is replaced by a rename: there is no moment without one
    ln -sfn "versions/$2" "$home/$1.new"
    mv -T "$home/$1.new" "$home/$1"
}

switch_to() {
    point current "$1"
    install -d -m 755 "$home/bin"
    ln -sfn ../current/bin/lb-drain "$home/bin/lb-drain"
    install -D -m 644 "$versions/$1/lb-drain.service" "$unit"
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

# What `journalctl --catalog` explains is a help: nothing fails because it could not be compiled.
compile_catalog() {
    journalctl --update-catalog --root="${root:-/}" 2>/dev/null || true
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

# Of the system: the unit hides home directories, so a Python that lives in one cannot be started.
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
        [ -z "$root" ] || die "no Python 3.11 or newer with venv in /usr/bin; install one, or say --python"
        say "installing a Python with the package manager"
        if ! install_python >&2 || ! find_python; then
            die "found no Python 3.11 or newer with venv in /usr/bin; install one, then run this again"
        fi
    fi
}

# --- commands -------------------------------------------------------------------------------------

find_wheel() {
    if [ -z "$wheel" ]; then
        local found=("$here"/lb_drain_controller-*.whl)
        [ ${#found[@]} = 1 ] || die "there are several wheels beside install.sh; say --wheel"
        wheel=${found[0]}
    fi
    [ -f "$wheel" ] || die "there is no wheel $wheel"
    local name sums
    name=$(basename "$wheel")
    sums=$(dirname "$wheel")/SHA256SUMS
    if [ -z "$sha256" ]; then
        [ -f "$sums" ] || die "no hash to check $name against: say --sha256, or put SHA256SUMS beside it"
        sha256=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1 }' "$sums")
        [[ $sha256 =~ ^[0-9a-f]{64}$ ]] || die "SHA256SUMS has not one hash for $name"
    fi
    sha256=${sha256,,}
}

do_install() {
    find_wheel
    choose_python
    for each in requirements.lock lb-drain.service lb-drain.catalog; do
        [ -f "$here/$each" ] || die "there is no $each beside install.sh"
    done
    [ -z "$config" ] || [ -f "$config" ] || die "there is no file $config"
    [ -z "$wheels" ] || [ -d "$wheels" ] || die "there is no directory $wheels"

    # What is checked is what is installed: a copy that nobody else can change meanwhile.
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    local name
    name=$(basename "$wheel")
    cp "$wheel" "$work/$name"
    echo "$sha256  $work/$name" | sha256sum --check --quiet --status ||
        die "$name does not have the sha256 $sha256: it was damaged or exchanged; nothing was changed"

    # The same wheel, pins, unit, catalog and Python are the same version, and not built again.
    local identity version
    identity=$({
        echo "$sha256"
        cat "$here/requirements.lock" "$here/lb-drain.service" "$here/lb-drain.catalog"
        "$python" -VV
    } | sha256sum | cut -c1-12)
    version=$(cut -d- -f2 <<<"$name")-$identity
    build "$version" "$name"

    local before config_changed=no unit_changed=no
    before=$(named current)
    if [ -n "$config" ]; then
        "$versions/$version/bin/lb-drain" check-config "$config" >/dev/null ||
            die "$config is not a configuration for this version; nothing was changed"
        cmp -s "$config" "$etc/config.toml" || config_changed=yes
    fi
    cmp -s "$versions/$version/lb-drain.service" "$unit" || unit_changed=yes
    if [ "$before" = "$version" ] && [ $config_changed$unit_changed = nono ] && nothing_to_start; then
        say "$version is installed already; nothing was changed"
        return
    fi
    install -d -m 755 "$etc"
    if [ $config_changed = yes ]; then
        [ ! -f "$etc/config.toml" ] || cp -p "$etc/config.toml" "$etc/config.toml.before"
        install -m 644 "$config" "$etc/config.toml"
    fi
    switch_to "$version"

    if [ ! -f "$etc/config.toml" ]; then
        say "there is no $etc/config.toml: the agent is not started"
    elif booted; then
        start
        if [ $wait = yes ] && ! await_ready; then
            if [ -z "$before" ]; then
                say "$version is installed, but not ready after $timeout_s s: journalctl --unit lb-drain"
                exit 3
            fi
            undo "$version" "$before" $config_changed
        fi
    fi
    # Only now: until here an older one was the one to go back to.
    [ "${before:-$version}" = "$version" ] || point previous "$before"
    prune
    say "$version is installed${before:+, in place of $before}"
}

undo() {
    say "$1 is not ready: going back to $2"
    if [ "$3" = yes ] && [ -f "$etc/config.toml.before" ]; then
        mv "$etc/config.toml.before" "$etc/config.toml"
    fi
    switch_to "$2"
    prune
    start
    await_ready || die "$1 did not become ready, nor does $2 now: journalctl --unit lb-drain"
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
    # The lock names everything: nothing is resolved, and nothing is compiled.
    echo "$work/$2 --hash=sha256:$sha256" >"$work/wheel.txt"
    if ! "${pip[@]}" -r "$here/requirements.lock" -r "$work/wheel.txt" ||
        ! "$directory/bin/lb-drain" --version >/dev/null; then
        rm -rf "$directory"
        die "$1 could not be built; nothing was changed"
    fi
    install -m 644 "$here/lb-drain.service" "$here/lb-drain.catalog" "$directory"
    local shell
    for shell in bash zsh fish; do
        "$directory/bin/lb-drain" completion $shell >"$directory/completion.$shell"
    done
    "$directory/bin/lb-drain" manual >"$directory/lb-drain.8"
    # Who rolls back or removes it one day has no bundle at hand.
    install -m 755 "${BASH_SOURCE[0]}" "$directory/install.sh"
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
    point previous "$before"
    switch_to "$after"
    if booted && [ -f "$etc/config.toml" ]; then
        start
        [ $wait = no ] || await_ready || die "$after is not ready after $timeout_s s: journalctl --unit lb-drain"
    fi
    say "$after is installed, in place of $before"
}

do_uninstall() {
    if booted; then
        systemctl disable --now --quiet lb-drain 2>/dev/null || true
    fi
    rm -rf "$home" "$unit"
    # What somebody else put there is not ours.
    [ "$(readlink "$link" || true)" != "$linked" ] || rm "$link"
    local each
    for each in "${extras[@]}"; do
        rm -f "${each#*:}"
    done
    compile_catalog
    [ $purge = no ] || rm -rf "$etc"
    ! booted || systemctl daemon-reload
    say "the agent is removed; blob, roles and role assignments are still there"
}

if [ -f "$home/pyvenv.cfg" ]; then
    die "$home was not made by this script: stop lb-drain, remove that directory, run this again"
fi
install -d -m 755 "$home"
exec 9>"$home/.lock"
flock --nonblock 9 || die "another install.sh is at work"
"do_$command"
