# shellcheck shell=bash disable=SC2034,SC2154 # service.sh, which comes before it, uses and defines the rest
# What the scripts of a package do. deploy/release puts service.sh and this file into each script of the
# .deb and the .rpm, with a line at the end that calls one of these functions.

# dpkg sets it when it installs into another root without chroot.
root=${DPKG_ROOT:-}
home=$root/opt/lb-drain
etc=$root/etc/lb-drain
unit=$root/usr/lib/systemd/system/lb-drain.service
probe_unit=$root/usr/lib/systemd/system/lb-drain-probe.service
interpreter=$home/bin/python
# A package manager does not wait for an agent, which can wait for access to Azure.
wait=no timeout_s=0
force=${REMOVE_WHILE_OUT:-no}
forced_by="set REMOVE_WHILE_OUT=yes in the environment of the package manager"
# Exists during an upgrade of an agent that is not to be started afterwards.
stopped=$root/run/lb-drain-upgrade-stopped
# The version before, during an upgrade, and for as long as the new one refuses the configuration.
kept=$home/before

before_install() {
    [ ! -e "$home/versions" ] ||
        die "install.sh has installed the agent in $home. Run $home/current/install.sh --uninstall, which" \
            "keeps the configuration, then install the package; nothing was changed"
}

# The agent stops while its files are replaced, and another one leads within two seconds. The responder
# of the health probe runs on: what it needs is in memory.
before_upgrade() {
    before_install
    if booted; then
        if systemctl is-enabled --quiet lb-drain; then
            rm -f "$stopped"
        else
            : >"$stopped"
        fi
        systemctl stop lb-drain
        keep_version
    fi
    remove_bytecode
}

after_install() {
    # The services cannot write below /opt.
    "$interpreter" -I -m compileall -q -j 0 "$home/lib" || report "the agent is not compiled: it starts slowly"
    compile_catalog
    booted || return 0
    if [ ! -e "$stopped" ] && [ -f "$etc/config.toml" ]; then
        start_accepted
        return
    fi
    forget_version
    systemctl daemon-reload
    if [ -e "$stopped" ]; then
        rm -f "$stopped"
        report "the agent is not enabled, and not started"
    else
        report "next, as root: lb-drain init; lb-drain doctor; systemctl enable --now lb-drain"
    fi
}

before_remove() {
    ! responder_answers || refuse_to_end_responder
    refuse_if_out
    if booted; then
        systemctl disable --now --quiet lb-drain 2>/dev/null || true
    fi
    stop_responder
    forget_version
    remove_bytecode
}

after_remove() {
    compile_catalog
    ! booted || systemctl daemon-reload
    report "the agent is removed; configuration, blob, roles and role assignments are still there"
}

purge() {
    rm -f "$etc/config.toml" "$etc/config.toml.before"*
    [ ! -d "$etc" ] || rmdir --ignore-fail-on-non-empty "$etc"
}

# --- a version that refuses the configuration -----------------------------------------------------

# An unattended upgrade would end the agent on every VM: none would lead, and a VM that is out
# would stay out. So the version before runs until the configuration is corrected.

drop_in() { printf '%s' "$root/etc/systemd/system/$1.service.d/version-before.conf"; }

# The package managers replace each file with a rename, so that a link keeps the old one.
keep_version() {
    [ ! -e "$kept/start" ] || return 0 # it runs, because the installed version refused the configuration
    rm -rf "$kept"
    install -d -m 755 "$kept"
    cp -al "$home/bin" "$home/lib" "$home/pyvenv.cfg" "$kept" || rm -rf "$kept"
}

forget_version() {
    local each
    for each in lb-drain lb-drain-probe; do
        rm -f "$(drop_in $each)"
        rmdir --ignore-fail-on-non-empty "$(dirname "$(drop_in $each)")" 2>/dev/null || true
    done
    rm -rf "$kept"
}

start_accepted() {
    local problems
    if problems=$(accepts lb-drain "$home/bin/lb-drain"); then
        forget_version
        start
        return
    fi
    if ! "$kept/bin/lb-drain" --version >/dev/null 2>&1; then
        start
        report "this version refuses the configuration, and the agent does not run: $problems"
        return
    fi
    run_version_before
    start
    # If both refuse it, a variable may be missing here that the unit has: the unit decides.
    accepts lb-drain "$kept/bin/lb-drain" >/dev/null || return 0
    die "this version refuses the configuration, so the version before runs on: $problems
Correct $etc/config.toml until lb-drain check-config accepts it. Then, as root: systemctl restart lb-drain;" \
        "with a .deb also dpkg --configure lb-drain"
}

# Let the units choose the version at each start: after a correction a restart is enough.
run_version_before() {
    cat >"$kept/start" <<'END'
#!/bin/sh
home=$(dirname "$(dirname "$(readlink -f "$0")")")
command=$1
shift
if "$home/bin/lb-drain" check-config --quiet "$@"; then
    exec "$home/bin/lb-drain" "$command" "$@"
fi
echo "the installed version refuses the configuration: the version before it runs" >&2
exec "$home/before/bin/lb-drain" "$command" "$@"
END
    chmod 755 "$kept/start"
    local each
    for each in lb-drain lb-drain-probe; do
        install -d -m 755 "$(dirname "$(drop_in $each)")"
        {
            printf '[Service]\nExecStart=\n'
            sed -n 's|^ExecStart=/opt/lb-drain/bin/lb-drain |ExecStart=/opt/lb-drain/before/start |p' \
                "$root/usr/lib/systemd/system/$each.service"
        } >"$(drop_in $each)"
    done
}

remove_bytecode() {
    [ ! -d "$home/lib" ] || find "$home/lib" -name __pycache__ -prune -exec rm -rf {} +
}
