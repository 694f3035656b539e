"""`deploy/azuredeploy.json` and `deploy/cloud-init.yaml`: unfolded, and read by cloud-init.

The template is unfolded with its parameters file, nested templates and copies included; Azure has
not seen it.
"""

import copy
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from controller.config import loader
from tests.deploy.arm_template import SUBSCRIPTION, Unfolded, unfold

DEPLOY = Path(__file__).parents[2] / "deploy"
TEMPLATE = json.loads((DEPLOY / "azuredeploy.json").read_text())
GIVEN = {
    name: each["value"]
    for name, each in json.loads((DEPLOY / "azuredeploy.parameters.json").read_text())[
        "parameters"
    ].items()
}
GROUP = f"{SUBSCRIPTION}/resourceGroups/web-rg"
ACCOUNT = f"{GROUP}/providers/Microsoft.Storage/storageAccounts/weblbdrain"
CONTAINER = f"{ACCOUNT}/blobServices/default/containers/lb-drain"
CHOICES: list[dict[str, Any]] = [
    {},
    {"poolKind": "ip"},
    {"poolKind": "both", "subnetIds": ["/subscriptions/x/subnets/a", "/subscriptions/x/subnets/b"]},
    {"installAgent": False},
    {"identity": "existing", "storage": "existing"},
]


def deployed(**choice: Any) -> Unfolded:
    """Unfold the template as the parameters file says, but for a choice."""
    return unfold(TEMPLATE, {**GIVEN, **choice})


def of_type(whole: Unfolded, kind: str) -> dict[str, Any]:
    """Return the resources of a type by id."""
    return {at: each for at, each in whole.resources.items() if each["type"] == kind}


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice) or "as given")
def test_everything_it_speaks_of_is_there(choice: dict[str, Any]) -> None:
    """Each dependency and each reference leads to a resource, and to an output, of the template."""
    whole = deployed(**choice)
    known = {*whole.resources, *whole.skipped, *whole.copies}
    assert whole.depends
    assert [(this, target) for this, target in whole.depends if target not in known] == []
    assert whole.referred
    for target, path in whole.referred:
        existing = "existing" in choice.values() and target in whole.skipped
        assert target in whole.resources or existing
        if target in whole.outputs:
            outputs, name, value = path.split(".")
            assert (outputs, value) == ("outputs", "value")
            assert name in whole.outputs[target]


def test_nothing_is_misspelt_unnoticed() -> None:
    """A name that is not defined, a variable nobody uses, a reference to nothing: all found."""
    for old, new in (
        ("parameters('location')", "parameters('place')"),
        ("variables('nicBased')", "parameters('installAgent')"),
        ("'lb-drain-base')", "'lb-drain-basis')"),
        ("outputs.clientId", "outputs.client"),
    ):
        text = json.dumps(TEMPLATE)
        assert old in text
        broken = json.loads(text.replace(old, new))
        with pytest.raises((AssertionError, KeyError)):  # noqa: PT012 -- whichever finds it
            whole = unfold(broken, copy.deepcopy(GIVEN))
            assert all(target in whole.resources for target, _ in whole.referred)
            assert all(
                path.split(".")[1] in whole.outputs[target]
                for target, path in whole.referred
                if target in whole.outputs
            )


@pytest.mark.parametrize("name", ["nic-pools", "ip-pools", "operations", "ledger"])
def test_roles_are_those_of_the_files(name: str) -> None:
    """Each role of the template is the one in `deploy/roles`."""
    role = json.loads((DEPLOY / "roles" / f"{name}.json").read_text())
    named = role["Name"].replace("{subscription}", SUBSCRIPTION.split("/")[2])
    roles = of_type(deployed(poolKind="both"), "Microsoft.Authorization/roleDefinitions").values()
    (found,) = [each["properties"] for each in roles if each["properties"]["roleName"] == named]
    (permissions,) = found["permissions"]
    keys = ("Actions", "NotActions", "DataActions", "NotDataActions")
    assert permissions == {key[0].lower() + key[1:]: role[key] for key in keys}
    assert found["description"] == role["Description"]
    assert found["assignableScopes"] == [SUBSCRIPTION]


@pytest.mark.parametrize(
    ("kind", "pool_roles"),
    [
        ("nic", {"NIC-based pools"}),
        ("ip", {"IP-based pools"}),
        ("both", {"NIC-based pools", "IP-based pools"}),
    ],
)
def test_roles_are_assigned_as_documented(kind: str, pool_roles: set[str]) -> None:
    """Every role is made, and assigned on the scopes that `deploy/roles/README.md` names alone."""
    whole = deployed(poolKind=kind)
    names = {
        at: each["properties"]["roleName"]
        .removeprefix("lb-drain ")
        .removesuffix(f" {SUBSCRIPTION.split('/')[2]}")
        for at, each in of_type(whole, "Microsoft.Authorization/roleDefinitions").items()
    }
    assignments = of_type(whole, "Microsoft.Authorization/roleAssignments")
    found = {
        (names[each["properties"]["roleDefinitionId"]], at.rsplit("/providers/", 1)[0])
        for at, each in assignments.items()
    }
    assert len(found) == len(assignments)
    assert found == {
        ("operations", SUBSCRIPTION),
        ("ledger", CONTAINER),
        *((role, GROUP) for role in pool_roles),
        *((role, f"{SUBSCRIPTION}/resourceGroups/network-rg") for role in pool_roles),
    }
    assert set(names.values()) == {"operations", "ledger", *pool_roles}


def test_storage_is_locked_down() -> None:
    """No shared key, nothing public, TLS 1.2, and with subnets nobody from anywhere else."""
    account = deployed().resources[ACCOUNT]["properties"]
    assert account["minimumTlsVersion"] == "TLS1_2"
    assert account["supportsHttpsTrafficOnly"] is True
    assert account["allowSharedKeyAccess"] is account["allowBlobPublicAccess"] is False
    assert deployed().resources[CONTAINER]["properties"] == {"publicAccess": "None"}
    assert account["networkAcls"]["defaultAction"] == "Allow"
    rules = deployed(subnetIds=["/a", "/b"]).resources[ACCOUNT]["properties"]["networkAcls"]
    assert rules["defaultAction"] == "Deny"
    assert rules["virtualNetworkRules"] == [
        {"id": "/a", "action": "Allow"},
        {"id": "/b", "action": "Allow"},
    ]


def resources_of(template: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every resource of a template and of the templates nested in it."""
    found: list[dict[str, Any]] = []
    for each in template["resources"]:
        nested = each.get("properties", {}).get("template")
        found += [each, *(resources_of(nested) if nested else [])]
    return found


def keys_of(node: Any) -> set[str]:
    """Return every key below a node, case folded."""
    if isinstance(node, dict):
        return {key.casefold() for key in node} | {
            k for each in node.values() for k in keys_of(each)
        }
    return {key for each in node for key in keys_of(each)} if isinstance(node, list) else set()


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice) or "as given")
def test_no_vm_is_written(choice: dict[str, Any]) -> None:
    """No resource is a VM, whatever is chosen: a VM that a template writes loses its tags."""
    kinds = {each["type"] for each in deployed(**choice).resources.values()}
    kinds |= {each["type"] for each in resources_of(TEMPLATE)}
    of_compute = {kind for kind in kinds if kind.casefold().startswith("microsoft.compute/")}
    assert of_compute == {"Microsoft.Compute/virtualMachines/extensions"}


def test_nothing_can_change_tags_or_identities() -> None:
    """Nothing in the template sets tags or an identity, runs a script of ARM, or deletes."""
    assert not {"tags", "identity", "userassignedidentities"} & keys_of(TEMPLATE["resources"])
    for each in resources_of(TEMPLATE):
        assert each["type"] not in (
            "Microsoft.Resources/tags",
            "Microsoft.Resources/deploymentScripts",
        )
        assert each.get("properties", {}).get("mode", "Incremental") == "Incremental"
        assert "templateLink" not in each.get("properties", {})


def machines() -> dict[str, Any]:
    """Return VMs as they can exist before: with tags, two identities and extensions."""
    found: dict[str, Any] = {}
    for name in GIVEN["vmNames"]:
        vm = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{name}"
        found[vm] = {
            "type": "Microsoft.Compute/virtualMachines",
            "tags": {"costCenter": "1", "backup": "daily"},
            "identity": {
                "type": "SystemAssigned, UserAssigned",
                "userAssignedIdentities": {f"{GROUP}/a": {}, f"{GROUP}/b": {}},
            },
            "properties": {"availabilitySet": {"id": f"{GROUP}/set"}},
        }
        for extension in ("AzureMonitorLinuxAgent", "AADSSHLoginForLinux", "customScript"):
            kind = "Microsoft.Compute/virtualMachines/extensions"
            found[f"{vm}/extensions/{extension}"] = {"type": kind, "tags": {"by": "policy"}}
    return found


def after(existing: dict[str, Any], whole: Unfolded) -> dict[str, Any]:
    """Return what exists after a deployment: a resource that it names is replaced as a whole."""
    ids = {at.casefold(): at for at in existing}
    return existing | {ids.get(at.casefold(), at): each for at, each in whole.resources.items()}


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice) or "as given")
def test_what_vms_have_stays(choice: dict[str, Any]) -> None:
    """Tags, both identities and each extension stay; each VM gains at most one extension."""
    existing = machines()
    left = after(existing, deployed(**choice))
    assert {at: left[at] for at in existing} == existing
    of_vms = {at for at in left if "/virtualMachines/" in at} - existing.keys()
    agents = {at for at in of_vms if at.endswith("/extensions/lb-drain")}
    assert of_vms == agents
    assert len(agents) == (0 if choice.get("installAgent") is False else len(GIVEN["vmNames"]))


def test_a_template_that_writes_a_vm_is_noticed() -> None:
    """The check above fails for a template that writes a VM with an identity and no tags."""
    broken = copy.deepcopy(TEMPLATE)
    nested = broken["resources"][-1]["properties"]["template"]["resources"]
    nested.append(
        {
            "type": "Microsoft.Compute/virtualMachines",
            "apiVersion": "2024-03-01",
            "name": "[toLower(parameters('vmName'))]",
            "identity": {"type": "UserAssigned"},
            "properties": {},
        }
    )
    existing = machines()
    left = after(existing, unfold(broken, copy.deepcopy(GIVEN)))
    assert {at: left[at] for at in existing} != existing


def test_what_exists_is_used_and_not_written() -> None:
    """An existing account and identity keep their settings: only roles are assigned."""
    whole = deployed(identity="existing", storage="existing")
    written = [at for at in whole.resources if "/roleAssignments/" not in at]
    assert not [at for at in written if "Microsoft.Storage" in at or "ManagedIdentity" in at]
    assert any(at.startswith(f"{CONTAINER}/") for at in whole.resources)
    for name in ("identity", "storage"):
        assert "defaultValue" not in TEMPLATE["parameters"][name]


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ({"bundleUri": ""}, "installAgent needs bundleUri"),
        ({"bundleSha256": "0" * 63}, "bundleSha256 needs 64 digits"),
        ({"config": ""}, "installAgent needs config"),
        ({"storage": "existing", "subnetIds": ["/a"]}, "subnetIds is for new storage only"),
        ({"poolResourceGroups": ["network-rg"]}, "poolResourceGroups lacks resourceGroup"),
        ({"storage": "other"}, "storage: other"),
    ],
)
def test_what_cannot_be_done_is_refused(choice: dict[str, Any], problem: str) -> None:
    """Azure refuses the deployment before it creates anything, and shows the reason."""
    with pytest.raises(AssertionError, match=problem):
        deployed(**choice)


def test_everything_waits_for_the_check_of_the_parameters() -> None:
    """No resource is created before the parameters are checked."""
    whole = deployed(poolKind="both")
    before: dict[str, set[str]] = {}
    for this, target in whole.depends:
        before.setdefault(this, set()).add(target)
    check = f"{SUBSCRIPTION}/providers/Microsoft.Resources/deployments/lb-drain-check"

    def waits(at: str) -> bool:
        return any(target == check or waits(target) for target in before.get(at, ()))

    of_subscription = [
        at
        for at, each in whole.resources.items()
        if at != check
        and (
            each["type"] == "Microsoft.Resources/deployments"
            or at.startswith(f"{SUBSCRIPTION}/providers/")
        )
    ]
    assert [at for at in of_subscription if not waits(at)] == []
    assert len(of_subscription) > 8


def test_the_resource_group_is_found_in_any_case() -> None:
    """Names of resource groups are compared as Azure compares them."""
    assert deployed(poolResourceGroups=["WEB-RG", "network-rg"]).resources


def test_the_identity_is_assigned_by_a_command_that_adds_it() -> None:
    """The runbook assigns the identity that the template puts out, in a loop over the VMs."""
    assert "identityId" in TEMPLATE["outputs"]
    runbook = (DEPLOY / "README.md").read_text().split("### Install with a template")[1]
    blocks = re.findall(r"```sh\n(.*?)```", runbook.split("\n### ")[0], re.DOTALL)
    (block,) = [each for each in blocks if "az vm identity assign" in each]
    assert "properties.outputs.identityId.value" in block
    assert f"for vm in {' '.join(GIVEN['vmNames'])}; do" in block
    assert f"--resource-group {GIVEN['resourceGroup']} " in block
    assert '--name "$vm" --identities "$identity"' in block


def test_two_subscriptions_get_different_roles() -> None:
    """Neither names nor ids of roles collide: a tenant takes each name of a custom role once."""
    other = "/subscriptions/99999999-2222-4333-8444-555555555555"
    made = [
        of_type(
            unfold(TEMPLATE, {**GIVEN, "poolKind": "both"}, to=to),
            "Microsoft.Authorization/roleDefinitions",
        )
        for to in (SUBSCRIPTION, other)
    ]
    names = [each["properties"]["roleName"] for roles in made for each in roles.values()]
    assert len(set(names)) == len(names) == 8
    assert len({at.rsplit("/", 1)[1] for roles in made for at in roles}) == 8
    for path in (DEPLOY / "roles").glob("*.json"):
        assert "{subscription}" in json.loads(path.read_text())["Name"]


def test_vms_are_installed_one_after_the_other() -> None:
    """The VMs are a serial copy of batches of one, and only where the agent is to be installed."""
    (vms,) = [each["copy"] for each in TEMPLATE["resources"] if "vmNames" in json.dumps(each)]
    assert (vms["mode"], vms["batchSize"]) == ("Serial", 1)
    kind = "Microsoft.Compute/virtualMachines/extensions"
    assert len(of_type(deployed(), kind)) == len(GIVEN["vmNames"])
    assert of_type(deployed(installAgent=False), kind) == {}


@pytest.mark.parametrize(("code", "installed"), [(0, True), (3, True), (1, False)])
def test_the_command_of_the_extension(tmp_path: Path, code: int, installed: bool) -> None:
    """It installs a bundle with the right sha256 and the configuration; waiting for roles is no
    failure; a bundle with another sha256 is not even unpacked."""
    (tmp_path / "lb-drain").mkdir()
    script = tmp_path / "lb-drain/install.sh"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >arguments\nexit {code}\n')
    script.chmod(0o755)
    with tarfile.open(tmp_path / "lb-drain-0.1.0.tar.gz", "w:gz") as bundle:
        bundle.add(script, "lb-drain/install.sh")
    shutil.rmtree(tmp_path / "lb-drain")

    def run(sha256: str) -> int:
        whole = deployed(bundleSha256=sha256)
        extension = next(
            iter(of_type(whole, "Microsoft.Compute/virtualMachines/extensions").values())
        )
        assert "settings" not in extension["properties"]  # a URL can hold a signature
        command = extension["properties"]["protectedSettings"]["commandToExecute"]
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, capture_output=True, check=False, timeout=120
        )
        return done.returncode

    assert run("0" * 64) != 0
    assert not (tmp_path / "lb-drain").exists()
    right = hashlib.sha256((tmp_path / "lb-drain-0.1.0.tar.gz").read_bytes()).hexdigest()
    assert (run(right) == 0) == installed
    assert (tmp_path / "arguments").read_text().split() == ["--config", "config.toml"]
    written = (tmp_path / "config.toml").read_text()
    assert "outputs.clientId.value" in written
    assert "outputs.containerUrl.value" in written
    assert "{" not in written


def test_configurations_are_valid(tmp_path: Path) -> None:
    """The configuration of the parameters file, filled in, and that of cloud-init are accepted."""
    text = GIVEN["config"]
    assert not text.startswith("[")
    cloud = (DEPLOY / "cloud-init.yaml").read_text()
    block = re.findall(r"config\.toml\n.*\n    content: \|\n((?:      .*\n|\n)+)", cloud)[0]
    url = "https://weblbdrain.blob.core.windows.net/lb-drain"
    filled = text.replace("{container_url}", url).replace(
        "{client_id}", "11111111-2222-4333-8444-555555555555"
    )
    for each in (filled, re.sub(r"(?m)^      ", "", block)):
        path = tmp_path / "config.toml"
        path.write_text(each)
        assert loader.load(path, {}).settings.backend_pools


def test_cloud_init_accepts_its_file() -> None:
    """cloud-init finds nothing wrong with the file by its schema."""
    if shutil.which("cloud-init") is None:
        pytest.skip("cloud-init is not installed (Debian package cloud-init)")
    reported = subprocess.run(
        ["cloud-init", "schema", "--config-file", DEPLOY / "cloud-init.yaml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert "Valid" in reported.stdout


def test_what_cloud_init_runs_is_a_shell_script(tmp_path: Path) -> None:
    """shellcheck has nothing to say about the script that the file writes."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian package shellcheck)")
    cloud = (DEPLOY / "cloud-init.yaml").read_text()
    block = re.findall(r"content: \|\n((?:      .*\n|\n)+)", cloud)[1]
    script = tmp_path / "install"
    script.write_text(re.sub(r"(?m)^      ", "", block))
    reported = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert (reported.returncode, reported.stdout) == (0, "")
    assert "sha256sum --check" in script.read_text()
