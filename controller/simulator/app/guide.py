"""The README of a simulation: the commands to try, with the paths and ports of this simulation."""

import shlex
import sys
from pathlib import Path

from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.app.server import SimulatorServer
from controller.simulator.world.access import OPERATOR_CLIENT_ID

TEXT = """# A simulated availability set

The availability set `web` has {count} VMs behind the load balancer `web-lb`. Everything listens on
127.0.0.1 and stops with the command that serves it. After a restart the ports are different: start
the agents again too.

## Check the configuration

Show the values of a configuration and where each comes from:

    {command} check-config {first_config}

Check all prerequisites of an agent, as on Azure before the first start:

    {command} doctor --config {first_config}

## Run the agents

Run one agent for each VM, each in its own terminal:

    {runs}

Each agent serves a status page:

{pages}

Show the leader and the drained VMs (on a VM that the next step does not reboot):

    {command} status --config {last_config} --watch

## Announce maintenance

Announce a reboot of {first}, 60 seconds ahead:

    {command} simulate event Reboot {first} --notice 60 --directory {here}

Cancel an announced event, or end an event that has started. The command above prints the id:

    {command} simulate cancel ID --directory {here}
    {command} simulate complete ID --directory {here}

The event starts soon after the leader acknowledges it: that is the purpose of the acknowledgement.
With `acknowledge = false` in [policy] it starts at NotBefore. While a VM reboots or freezes, its
agent cannot reach any service. While a VM is frozen, the process of its agent is stopped, so its
clock jumps, as on Azure. On Azure, a reboot also ends the process of the agent and starts it again;
here it runs on.

Plan maintenance that the owner can start within an hour, show it, and start it, one VM at a time:

    {command} simulate maintenance {names} --window 3600 --directory {here}
    {command} maintenance --config {last_config}
    {command} maintenance start --all --config {last_config}

## Drain VMs manually

Drain {last} for ten minutes, and restore it earlier:

    {command} drain {last} --for 10m --reason "a test" --config {last_config}
    {command} restore {last} --config {last_config}

Reboot all VMs, one after the other, each out of rotation meanwhile:

    {command} roll --config {last_config} --command {reboot}

Show the actions that a leader would take now, without any action:

    {command} plan --config {last_config}

## See the fleet

List the sets of the container, here one, as an operator of many sets does:

    LB_DRAIN_AZURE_IMDS_ENDPOINT={last_imds_url} LB_DRAIN_AZURE_CA_FILE={ca_file} \\
      {command} fleet --managed-identity --container-url {container_url}

## Write a configuration

Write a configuration from what the simulated Azure answers (on Azure without the variables):

    LB_DRAIN_AZURE_IMDS_ENDPOINT={imds_url} \\
    LB_DRAIN_AZURE_RESOURCE_MANAGER_ENDPOINT={arm_url} \\
    LB_DRAIN_AZURE_CA_FILE={ca_file} \\
      {command} init --config {here}/first.toml \\
      --container-url {container_url}

## Use the Azure CLI

Sign in to the simulated Azure as an operator with all permissions, in a terminal for this alone:

    export AZURE_CONFIG_DIR={here}/azure-cli REQUESTS_CA_BUNDLE={ca_file} \\
      AZURE_POD_IDENTITY_AUTHORITY_HOST={last_imds_url} AZURE_CORE_COLLECT_TELEMETRY=0
    az cloud register --name simulated --endpoint-resource-manager {arm_url} \\
      --endpoint-management {arm_url} --endpoint-active-directory {arm_url} \\
      --endpoint-active-directory-resource-id {arm_url}/ --endpoint-sql-management {arm_url} \\
      --endpoint-gallery {arm_url} --endpoint-active-directory-graph-resource-id {arm_url}/ \\
      --endpoint-microsoft-graph-resource-id {arm_url}/
    az cloud set --name simulated
    az login --identity --client-id {operator}

Show the VMs, restart one (which becomes a scheduled event of source User), and show the blobs:

    az vm list --show-details --output table
    az vm restart --resource-group web-rg --name {first} --no-wait
    az storage blob list --container-name lb-drain --auth-mode login --blob-endpoint {blob_url}

## Watch the updates of an Azure Stack Hub

Start an update whose run ends after 20 seconds, and watch it until it ends; the exit code is 0:

    {command} simulate update Microsoft1.2108.2.65 --run 20 --directory {here}
    {command} update-watch --config {here}/update-watch.toml

Start an update during which the API of the Hub is gone for good. The watch reports that the state
is unknown, and what the privileged endpoint reports:

    {command} simulate update Microsoft1.2108.2.66 --run 60 --outage-after 5 --directory {here}
    {command} update-watch --config {here}/update-watch.toml

## Control the simulation

Show the VMs, pools, events and leases of the simulated Azure. If the simulation runs with --load,
also show how many client requests were lost:

    {command} simulate state --directory {here}
    {command} simulate traffic --directory {here}

Close the application of {last}, as a recipe for its web server would, and open it again. Closed, it
goes on answering, each answer is the last one on its connection, and its health page answers 503:

    touch {here}/{last}.draining
    rm {here}/{last}.draining

Inject a fault, for example make Resource Manager refuse the next three writes:

    {command} simulate fault --directory {here} \\
      '{{"effect":"reply","service":"arm","method":"PUT","status":429,"times":3}}'

`simulate fault` without a rule removes all faults.

Show how the simulated Azure behaves, and change it. Among the settings: `flows_on_remove` (keep,
drop, reset), `lro_retry_after_s` (Retry-After of operations), `nic_put_conflict` (busy, supersede),
`events_visible_after_s`, `newest_api_version` (a cloud that lags), `compute_list_bucket` and
`compute_retry_after_s` (throttling), `admin_down`, `closed_ends_streams`, `next_link_port`:

    {command} simulate settings --directory {here}
    {command} simulate settings --directory {here} '{{"flows_on_remove":"keep"}}'

Delete {last} and create it again under its name, or convert the set to a flexible scale set:

    {command} simulate replace vm {last} --directory {here}
    {command} simulate replace conversion --directory {here}

The certificate authority is `ca.pem`. The control endpoint, JSON over HTTP, is {control_url}.
"""


def guide(directory: Path, pages: dict[str, str], server: SimulatorServer) -> str:
    """Return the README for `directory`; `pages` are the listen addresses of the agents by VM."""
    installed = Path(sys.executable).with_name("lb-drain")
    python = f"{shlex.quote(sys.executable)} -m controller"
    command = shlex.quote(str(installed)) if installed.exists() else python
    names = list(pages)
    here = shlex.quote(str(directory))
    config = {name: shlex.quote(str(directory / f"{name}.toml")) for name in names}
    set_state = f'{command} simulate vm --directory {here} "$ROLL_VM"'
    return TEXT.format(
        count=len(names),
        command=command,
        here=here,
        names=" ".join(names),
        first=names[0],
        last=names[-1],
        first_config=config[names[0]],
        last_config=config[names[-1]],
        runs="\n    ".join(f"{command} run --config {config[name]}" for name in names),
        pages="\n".join(f"- {name}: http://{listen}/" for name, listen in pages.items()),
        reboot=shlex.quote(f"{set_state} rebooting && sleep 5 && {set_state} running"),
        imds_url=server.imds_url(names[0]),
        last_imds_url=server.imds_url(names[-1]),
        arm_url=server.arm_url,
        ca_file=shlex.quote(str(server.ca_file)),
        container_url=server.container_url(CONTAINER),
        control_url=server.control_url,
        blob_url=server.blob_url,
        operator=OPERATOR_CLIENT_ID,
    )
