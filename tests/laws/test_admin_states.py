"""What the laws make of an adminState that people set (V1), or that is left in the end (S3)."""

import copy
import json
from typing import Any

import pytest

from controller.simulator.world.builder import build_world
from tests.laws.bodies import final_differences
from tests.laws.conditions import Conditions
from tests.laws.replay import Replay
from tests.laws.test_laws import BLOB, EVENT, STEPS, Story
from tests.laws.verdicts import v1_verdict

OUT_AT = "2026-01-01T00:00:00+00:00"


def held_down(story: Story) -> None:
    """Let the leader record web-1 as held Down, and set it Down."""
    place = {
        "kind": "admin-state",
        "pool_id": story.pool,
        "nic_id": story.member.nic,
        "ip_configuration": "ipconfig1",
    }
    entry: dict[str, Any] = {"vm": "web-1", "memberships": [place], "out_at": OUT_AT}
    body = json.dumps({"leader": "web-2", "entries": [entry]})
    story.tell(3, "blob_written", BLOB, by="web-2", body=body)
    story.tell(
        4,
        "member_state",
        story.pool,
        vm="web-1",
        nic=story.member.nic,
        ip_configuration=story.member.ip_configuration,
        address=story.member.address,
        before="None",
        state="Down",
    )


@pytest.mark.parametrize(("put_up", "broken"), [(True, 0), (False, 1)])
def test_a_member_that_people_set_up_was_hit_in_rotation(*, put_up: bool, broken: int) -> None:
    """It came back into its pool while its event went on."""
    story = Story()
    for name in ("lease", "published"):
        STEPS[name](story)
    held_down(story)
    story.tell(7, "event_started", "E", **EVENT)
    if put_up:
        story.tell(8, "operator", story.pool, what="adminState of web-1: Up")
    STEPS["gone"](story)
    verdict = {"event_id": "E", "vm": "web-1", "verdict": "hit_in_rotation"}
    body = json.dumps({"leader": "web-2", "entries": [], "verdicts": [verdict]})
    story.tell(12, "blob_written", BLOB, by="web-2", body=body)
    story.tell(40, "converged", "set")
    assert len(story.broken({"V1 verdict": v1_verdict})) == broken


@pytest.mark.parametrize(("own", "other", "broken"), [("web-1", "web-2", 1), ("web-2", "web-1", 0)])
def test_an_address_that_another_set_holds_down_is_judged_by_its_own_ledger(
    own: str, other: str, broken: int
) -> None:
    """S3: a VM that stays deallocated stays Down, and only the ledger of its own set records it."""
    start = build_world(now=0.0, vms=2, pools=(), ip_pools=("internal",))
    end = build_world(now=0.0, vms=2, pools=(), ip_pools=("internal",))
    pool = end.find_pool(end.pool_ids()[0])
    assert pool is not None
    addresses = copy.deepcopy(pool["properties"]["loadBalancerBackendAddresses"])
    addresses[0]["properties"]["adminState"] = "Down"
    end.set_addresses(end.pool_ids()[0], addresses)
    conditions = Conditions(peers=frozenset({own}), others=frozenset({other}), floors={})
    found = list(final_differences(Replay(conditions, start), start=start, end=end))
    assert len(found) == broken
