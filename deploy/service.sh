# shellcheck shell=bash disable=SC2154 # the script that sources this file assigns them
# The units of the agent on this VM: what install.sh and the scripts of the packages share.
#
# Sourced, not run. The script that sources this file sets:
#   root       the directory to work in, or empty for /
#   home, etc  /opt/lb-drain and /etc/lb-drain below it
#   probe_unit the unit file of the responder
#   interpreter  the Python of the agent
#   wait, timeout_s  whether and how long to wait until the agent is ready
#   force, forced_by  whether to remove the agent while a VM is out, and how an operator asks for that

report() { printf 'lb-drain: %s\n' "$*"; }
die() { printf 'lb-drain: %s\n' "$*" >&2; exit 1; }

# --- the service ----------------------------------------------------------------------------------

# Without a running systemd (an image, a scratch root) the script only changes files.
booted() { [ -d "$root/run/systemd/system" ]; }

# Run a command with the environment of a unit.
as_unit() { # UNIT COMMAND...
    local unit=$1 settings
    shift
    mapfile -t settings < <(systemctl show --property Environment --value "$unit" | xargs -r printf '%s\n')
    env "${settings[@]}" "$@"
}

# Print an address of the configuration; nothing if it is empty, or if this version does not know the key.
address() { # UNIT KEY [PROGRAM [FILE]]
    as_unit "$1" "${3:-$home/bin/lb-drain}" check-config "${4:-$etc/config.toml}" 2>/dev/null |
        awk -v key="$2" '$1 == key && $NF ~ /:/ { print $NF }' || true # the origin can be two words
}

# Print what a version finds wrong with the configuration; fail if it refuses it.
accepts() { # UNIT PROGRAM [FILE]
    { as_unit "$1" "$2" check-config "${3:-$etc/config.toml}" >/dev/null; } 2>&1
}

probe_address() { [ ! -f "$probe_unit" ] || address lb-drain-probe probe.listen; }

ready() {
    # The unit is active once the agent has notified systemd that it takes part.
    systemctl is-active --quiet lb-drain || return 1
    local listen
    listen=$(address lb-drain server.listen)
    [ -n "$listen" ] || return 0
    "$interpreter" -I -c '
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.exit(opener.open(f"http://{sys.argv[1]}/readyz", timeout=5).status != 200)
' "$listen" 2>/dev/null
}

nothing_to_start() {
    ! booted || [ ! -f "$etc/config.toml" ] ||
        { systemctl is-enabled --quiet lb-drain &&
            { [ -z "$(probe_address)" ] || systemctl is-enabled --quiet lb-drain-probe; }; }
}

await_ready() {
    local end=$((SECONDS + timeout_s))
    until ready; do
        # 78: the configuration must be changed, and systemd does not restart the agent.
        ! systemctl is-failed --quiet lb-drain || return 1
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 1
    done
    # Only now: the responder of the older version answers until the new agent works.
    start_responder
    until responder_ready; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 1
    done
}

start() {
    systemctl daemon-reload
    systemctl enable --quiet lb-drain
    # Stop first, so that the next answer comes from the new agent. Do not block: an agent can stay in
    # its start for a long time, until it has access to Azure.
    systemctl stop lb-drain
    systemctl reset-failed lb-drain 2>/dev/null || true
    systemctl start --no-block lb-drain
    [ "$wait" = yes ] || start_responder
}

# --- the responder of the health probe ------------------------------------------------------------

# The load balancer sends no new connections to a VM whose probe is not answered. So nothing here ends a
# responder that answers, except to start another one.
responder_answers() { booted && systemctl is-active --quiet lb-drain-probe; }

refuse_to_end_responder() {
    die "lb-drain-probe answers the health probe of the load balancer, and would not any more: the load" \
        "balancer would take this VM out. Point the probe at the application, run" \
        "systemctl disable --now lb-drain-probe, and run this again; nothing was changed"
}

start_responder() {
    if [ -n "$(probe_address)" ]; then
        systemctl enable --quiet lb-drain-probe
        systemctl reset-failed lb-drain-probe 2>/dev/null || true
        # One command, so that the port is closed for as short a time as possible.
        systemctl restart --no-block lb-drain-probe
    elif accepts lb-drain-probe "$home/bin/lb-drain" >/dev/null; then
        stop_responder
    fi # A configuration that is refused does not state that there is no responder.
}

responder_ready() {
    local listen
    listen=$(probe_address)
    [ -n "$listen" ] || return 0
    systemctl is-active --quiet lb-drain-probe || return 1
    "$interpreter" -I -c '
import socket, sys
host, _, port = sys.argv[1].rpartition(":")
socket.create_connection((host.strip("[]"), int(port)), 5).close()
' "$listen" 2>/dev/null
}

stop_responder() {
    if booted && [ -f "$probe_unit" ] && systemctl is-enabled --quiet lb-drain-probe; then
        systemctl disable --now --quiet lb-drain-probe
    fi
}


# The journal catalog is optional: a failure to compile it is not an error.
compile_catalog() {
    journalctl --update-catalog --root="${root:-/}" 2>/dev/null || true
}

# --- before the agent is removed ------------------------------------------------------------------

# Only an agent puts a VM back that is out: the last one must not go while a VM is.
refuse_if_out() {
    [ "$force" = no ] && booted && [ -f "$etc/config.toml" ] && [ -x "$home/bin/lb-drain" ] || return 0
    local problem vms
    problem=$(mktemp)
    if ! vms=$(vms_out 2>"$problem"); then
        vms=$(tail -n 1 "$problem")
        rm -f "$problem"
        die "it is unknown whether a VM is out of rotation (${vms:-lb-drain status failed}), and only an agent" \
            "puts it back. Check the pools; to remove the agent anyway: $forced_by. Nothing was changed"
    fi
    rm -f "$problem"
    [ -z "$vms" ] ||
        die "out of rotation or on the way: $vms; only an agent puts a VM back. Wait until lb-drain status" \
            "shows no drained VM; to remove the agent anyway: $forced_by. Nothing was changed"
}

# Print the names of the VMs that the ledger records as drained; fail if it cannot be read.
vms_out() {
    local status
    status=$(as_unit lb-drain timeout 120 "$home/bin/lb-drain" status --json --config "$etc/config.toml") ||
        return 1
    "$interpreter" -I -c '
import json, sys
overview = json.load(sys.stdin)
if overview["ledger"]["problem"]:
    sys.exit(overview["ledger"]["problem"])
print(", ".join(sorted(vm["vm"] for vm in overview["vms"] if vm["recorded"])))
' <<<"$status"
}
