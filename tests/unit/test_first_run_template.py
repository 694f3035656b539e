"""The text of a configuration file: accepted as it stands, and honest about what was found."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from controller.config import describe, parse
from controller.core.model import PoolKind
from controller.first_run.discover import Found, FoundPool
from controller.first_run.template import Content, compose

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg/providers"
    "/Microsoft.Network/loadBalancers/web-lb/backendAddressPools/"
)
URL = {"election.container_url": "https://lbdrain.blob.core.windows.net/lb-drain"}
PLACE = Path("config.toml")


def found(*pools: FoundPool, vms: int = 3, at_once: int = 1) -> Found:
    return Found(
        vm="web-1",
        availability_set_id="/subscriptions/1/availabilitySets/web\n[policy]",
        vms=vms,
        at_once=at_once,
        pools=pools,
        unlisted=(),
    )


def pool(name: str = "app", *, ours: int = 3, others: int = 0) -> FoundPool:
    return FoundPool(pool_id=POOL + name, kind=PoolKind.NIC, ours=ours, others=others)


def text_of(each: FoundPool, *, at_once: int = 1) -> str:
    return compose(
        Content(pools=((each.pool_id, each),), values=URL, found=found(each, at_once=at_once))
    )


def test_what_is_written_is_what_an_agent_loads() -> None:
    """The file sets what was found or said and nothing else, and keeps every default."""
    values = {**URL, "policy.dry_run": True, "policy.lead_time_s": 600.0, "azure.ca_file": ""}
    pools = (POOL + "app", pool("app")), (POOL + "admin", None)
    text = compose(Content(pools=pools, values=values, found=found(pool("app"))))
    loaded = parse(text, {}, PLACE)
    said = {key: value for key, value, origin in describe(loaded) if origin == "file"}
    assert said == {
        "backend_pools[0].id": POOL + "app",
        "backend_pools[0].min_in_service": "2",
        "backend_pools[1].id": POOL + "admin",
        "backend_pools[1].min_in_service": "1",
        "election.container_url": URL["election.container_url"],
        "policy.dry_run": "true",
        "policy.lead_time_s": "600.0",
        "azure.ca_file": "",
    }


def test_every_setting_stands_there_with_its_default() -> None:
    """With every comment of the form `key = value` switched on the file says the same."""
    text = text_of(pool())
    switched_on = re.sub(r"^# (?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    switched_on = switched_on[: switched_on.index("# [[notifications]]")]
    before, after = parse(text, {}, PLACE), parse(switched_on, {}, PLACE)
    assert before.settings == after.settings
    assert [key for key, origin in after.origins.items() if origin == "default"] == []


def test_every_setting_is_explained() -> None:
    """No key stands there without a comment above it, but for those of a kind told before."""
    text = text_of(pool())
    lines = text[: text.index("# [[notifications]]")].splitlines()
    alone = [
        line
        for above, line in pairwise(lines)
        if re.match(r"#? ?[a-z_]+ = ", line) and not re.match(r"# (?![a-z_]+ = )", above)
    ]
    told_before = {"# action = ", "# min_duration_s = ", "# acknowledge = ", "id = "}
    assert {re.sub("=.*", "= ", line) for line in alone} <= told_before
    assert all(len(line) <= 100 for line in lines if not line.startswith("id = "))


def test_nothing_that_azure_says_leaves_its_comment() -> None:
    """A name with a line break in it stays within the comment it stands in."""
    document = tomllib.loads(text_of(pool()))
    assert set(document["policy"]) == {"events"}
    assert "Availability set" not in str(document)


@pytest.mark.parametrize(
    ("ours", "others", "at_once", "floor", "why"),
    [
        (3, 0, 1, 2, "here 1 of 3 VMs"),
        (3, 2, 1, 4, "2 of others"),
        (10, 0, 2, 8, "here 2 of 3 VMs"),
        (1, 0, 1, 1, "0 lets it go"),
        (2, 0, 2, 1, "0 lets it go"),
        (2, 0, 1, 1, "here 1 of 3 VMs"),
    ],
)
def test_the_floor_is_what_one_update_domain_leaves(
    ours: int, others: int, at_once: int, floor: int, why: str
) -> None:
    """As many members stay as planned maintenance leaves, one at least, and the file says why."""
    text = text_of(pool(ours=ours, others=others), at_once=at_once)
    assert tomllib.loads(text)["backend_pools"][0]["min_in_service"] == floor
    assert why in re.sub(r"\n# ", " ", text)
