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
    fi
    remove_bytecode
}

after_install() {
    # The services cannot write below /opt.
    "$interpreter" -I -m compileall -q -j 0 "$home/lib" || report "the agent is not compiled: it starts slowly"
    compile_catalog
    booted || return 0
    if [ ! -e "$stopped" ] && [ -f "$etc/config.toml" ]; then
        start
        return
    fi
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

remove_bytecode() {
    [ ! -d "$home/lib" ] || find "$home/lib" -name __pycache__ -prune -exec rm -rf {} +
}
