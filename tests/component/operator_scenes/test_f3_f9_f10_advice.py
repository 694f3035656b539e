"""F3, F9, F10: what a security reviewer, a reader of the page and a platform team look for."""

import re
from pathlib import Path

from controller.status.page import load_page
from tests.component.operator_scenes.conftest import Person
from tests.support.in_process_set import InProcessSet

ROOT = Path(__file__).parents[3]
VMS = ("web-1", "web-2", "web-3")


def test_f3_a_reviewer_finds_contact_versions_and_destinations() -> None:
    """How to report a vulnerability, which versions get fixes, and where a VM has to connect to."""
    policy, runbook = (ROOT / "SECURITY.md").read_text(), (ROOT / "deploy/README.md").read_text()
    assert "## Report a vulnerability" in policy
    assert "## Supported versions" in policy
    assert "### Hosts and ports" in runbook


def test_f9_the_page_begins_with_problems_and_folds_what_is_for_developers() -> None:
    """Problems, VMs, events, past events, history; the requests to Azure are last, and folded."""
    html = load_page().html
    order = re.findall(r'<section aria-labelledby="h-(\w+)"', html)
    assert order == ["problems", "set", "vms", "requested", "events", "past", "history", "requests"]
    assert re.search(r'<details id="requests-folded">\s*<summary', html)


async def test_f10_the_doctor_assigns_the_shipped_role_once(
    bench: InProcessSet, person: Person
) -> None:
    """The identity may not write NICs: one role, which `deploy/roles` defines, on the group.

    No role is made for the one action that Azure names.
    """
    for vm in VMS:
        bench.world.roles.revoke(vm, "Microsoft.Network/networkInterfaces/write")
    report = await person("doctor", code=1)
    fix = report[report.index("\nFAIL write-nics\n") :].split("\n\n")[0]
    assert fix.count("az role assignment create") == 1
    assert "--role 'lb-drain NIC-based pools" in fix
    assert (
        f"--scope /subscriptions/{bench.world.subscription}/resourceGroups/web-rg\n" in fix + "\n"
    )
    assert "role definition create" not in report
