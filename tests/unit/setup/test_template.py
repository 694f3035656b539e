"""The text of a new configuration file: it loads, and its comments explain its values."""

import re
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from controller.config.loader import describe, parse
from controller.core.resources import PoolKind
from controller.setup.discovery import DiscoveredPool, Discovery
from controller.setup.template import TemplateContent, compose

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg/providers"
    "/Microsoft.Network/loadBalancers/web-lb/backendAddressPools/"
)
URL = {"election.container_url": "https://lbdrain.blob.core.windows.net/lb-drain"}
PLACE = Path("config.toml")


def found(*pools: DiscoveredPool, vms: int = 3, max_simultaneous: int = 1) -> Discovery:
    return Discovery(
        vm="web-1",
        set_id="/subscriptions/1/availabilitySets/web\n[policy]",
        vms=vms,
        max_simultaneous=max_simultaneous,
        pools=pools,
        unlisted=(),
    )


def pool(name: str = "app", *, peers: int = 3, others: int = 0) -> DiscoveredPool:
    return DiscoveredPool(pool_id=POOL + name, kind=PoolKind.NIC, peers=peers, others=others)


def text_of(each: DiscoveredPool, *, max_simultaneous: int = 1) -> str:
    return compose(
        TemplateContent(
            pools=((each.pool_id, each),),
            values=URL,
            discovery=found(each, max_simultaneous=max_simultaneous),
        )
    )


def test_an_agent_loads_the_text() -> None:
    """The file sets the discovered and given values only, and keeps every default."""
    values = {**URL, "policy.dry_run": True, "policy.lead_time_s": 600.0, "azure.ca_file": ""}
    pools = (POOL + "app", pool("app")), (POOL + "admin", None)
    text = compose(TemplateContent(pools=pools, values=values, discovery=found(pool("app"))))
    loaded = parse(text, {}, PLACE)
    given = {key: value for key, value, origin in describe(loaded) if origin == "file"}
    assert given == {
        "backend_pools[0].id": POOL + "app",
        "backend_pools[0].min_in_service": "2",
        "backend_pools[1].id": POOL + "admin",
        "backend_pools[1].min_in_service": "1",
        "election.container_url": URL["election.container_url"],
        "policy.dry_run": "true",
        "policy.lead_time_s": "600.0",
        "azure.ca_file": "",
    }


def test_every_setting_is_a_comment_with_its_default() -> None:
    """Uncommenting every `key = value` does not change the settings."""
    text = text_of(pool())
    switched_on = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    switched_on = switched_on[: switched_on.index("# [[notifications]]")]
    before, after = parse(text, {}, PLACE), parse(switched_on, {}, PLACE)
    assert before.settings == after.settings
    assert [key for key, origin in after.origins.items() if origin == "default"] == []


@pytest.mark.parametrize("table", ["notifications", "hooks"])
def test_the_example_of_a_table_loads(table: str) -> None:
    """Uncommenting the example of a table that has none by default sets one of it."""
    text = text_of(pool())
    example = text[text.index(f"# [[{table}]]") :].partition("\n\n")[0]
    loaded = parse(text + "\n" + re.sub("^# ", "", example, flags=re.MULTILINE), {}, PLACE)
    assert len(getattr(loaded.settings, table)) == 1


def test_every_setting_is_explained() -> None:
    """Every key has a comment above it, except keys that were described before."""
    text = text_of(pool())
    lines = text[: text.index("# [[notifications]]")].splitlines()
    alone = [
        line
        for above, line in pairwise(lines)
        if re.match(r"#? ?[a-z_]+ = ", line) and not re.match(r"# (?![a-z_]+ = )", above)
    ]
    described_before = {"# action = ", "# min_duration_s = ", "# acknowledge = ", "id = "}
    assert {re.sub("=.*", "= ", line) for line in alone} <= described_before
    assert all(len(line) <= 100 for line in lines if not line.startswith("id = "))


def test_names_from_azure_stay_in_their_comment() -> None:
    """A name with a line break does not leave its comment."""
    document = tomllib.loads(text_of(pool()))
    assert set(document["policy"]) == {"events"}
    assert "Availability set" not in str(document)


def test_a_vm_that_is_out_counts_for_the_floor() -> None:
    """S2: a configuration that is written during a drain must not lower the floor for ever."""
    out = replace(pool(peers=2), out=("web-2",))
    text = text_of(out, max_simultaneous=1)
    assert tomllib.loads(text)["backend_pools"][0]["min_in_service"] == 2
    words = re.sub(r"\n# ", " ", text)
    assert "In no pool now, and counted as members: 'web-2'." in words


@pytest.mark.parametrize(
    ("peers", "others", "max_simultaneous", "floor", "why"),
    [
        (3, 0, 1, 2, "here 1 of 3 VMs"),
        (3, 2, 1, 2, "2 other."),
        (10, 0, 2, 8, "here 2 of 3 VMs"),
        (1, 0, 1, 1, "Set 0 to let it drain"),
        (2, 0, 2, 1, "Set 0 to let it drain"),
        (2, 0, 1, 1, "here 1 of 3 VMs"),
    ],
)
def test_the_floor_allows_for_one_update_domain(
    peers: int, others: int, max_simultaneous: int, floor: int, why: str
) -> None:
    """The floor is what planned maintenance leaves, at least one; the file explains it."""
    text = text_of(pool(peers=peers, others=others), max_simultaneous=max_simultaneous)
    assert tomllib.loads(text)["backend_pools"][0]["min_in_service"] == floor
    assert why in re.sub(r"\n# ", " ", text)
