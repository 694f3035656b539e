"""Settings of the whole set: which can be set, how they are validated, and what they change."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.config.loader import LoadedSettings, describe, parse
from controller.config.overrides import (
    OVERRIDABLE,
    adjusted,
    parsed_key,
    pool_of,
    with_overrides,
)
from controller.core.azure_names import fold
from controller.core.controls import Override
from controller.core.policy import EventAction, Floor
from controller.errors import NotDone

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
LB = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers"
    "/Microsoft.Network/loadBalancers/web/backendAddressPools"
)
APP, API = f"{LB}/app", f"{LB}/api"
FILE = f"""
[[backend_pools]]
id = "{APP}"
min_in_service = 2
[[backend_pools]]
id = "{API}"
[election]
container_url = "https://127.0.0.1/lb-drain"
[policy]
connection_drain_s = 60
"""


def loaded(text: str = FILE) -> LoadedSettings:
    return parse(text, {}, Path("config.toml"))


def override(key: str, value: str, pool: str = "") -> Override:
    return Override(
        key=key,
        value=value,
        pool=fold(pool),
        by="ann",
        reason="",
        at=T0,
        until=T0 + timedelta(hours=2),
    )


def test_an_override_changes_what_the_leader_decides_by() -> None:
    """The floor of one pool, a switch, a number and a key of an event type; nothing else."""
    settings, problems = adjusted(
        loaded().settings,
        [
            override("min_in_service", "1", APP.upper()),
            override("acknowledge", "false"),
            override("lead_time_s", "600.5"),
            override("events.Freeze.action", "ignore"),
            override("events.Reboot.min_duration_s", "9"),
        ],
    )
    assert problems == ()
    policy = settings.core_policy()
    assert policy.pools == {APP: Floor(number=1), API: Floor(number=1)}
    assert (policy.acknowledge, policy.lead_time_s) == (False, 600.5)
    assert policy.events["Freeze"].action is EventAction.IGNORE
    assert policy.events["Reboot"].min_duration_s == 9
    assert policy.connection_drain_s == 60
    assert settings.election == loaded().settings.election


def test_a_floor_can_be_a_percentage() -> None:
    """As in the file."""
    settings, problems = adjusted(loaded().settings, [override("min_in_service", "50%", API)])
    assert problems == ()
    assert settings.core_policy().pools[API] == Floor(number=50, percent=True)


def test_of_two_overrides_of_one_pool_the_later_counts() -> None:
    """No command writes that; another writer can, and every agent reads it."""
    both = [override("min_in_service", "2", API), override("min_in_service", "50%", API)]
    settings, problems = adjusted(loaded().settings, both)
    assert problems == ()
    assert settings == adjusted(loaded().settings, both[1:])[0]


def test_no_override_changes_nothing() -> None:
    """The settings are those of the file."""
    assert adjusted(loaded().settings, ()) == (loaded().settings, ())


@pytest.mark.parametrize(
    ("key", "value", "pool", "problem"),
    [
        ("lead_time_s", "0", "", "lead_time_s=0: policy.lead_time_s: must be more than 0, is 0"),
        ("lead_time_s", "soon", "", "policy.lead_time_s: must be a number, is 'soon'"),
        ("acknowledge", "maybe", "", "policy.acknowledge: must be true or false, is 'maybe'"),
        ("lead_time_s", "30", "", "a connection drain of 60 s does not fit into lead_time_s 30"),
        ("events.Freeze.action", "wait", "", "must be 'drain' or 'ignore', is 'wait'"),
        ("min_in_service", "-1", APP, "backend_pools[0].min_in_service: must be a whole number"),
        ("min_in_service", "101%", API, "backend_pools[1].min_in_service: is more than the whole"),
        ("min_in_service", "1", f"{LB}/other", "pool other: this pool is not in [[backend_pools]]"),
        ("close", "false", "", "close=false: this agent knows no such setting of the whole set"),
        ("dry_run", "true", "", "this agent knows no such setting of the whole set"),
    ],
)
def test_what_the_schema_refuses(key: str, value: str, pool: str, problem: str) -> None:
    """The texts are those of the file, and the override is left out."""
    settings, problems = adjusted(loaded().settings, [override(key, value, pool)])
    assert settings == loaded().settings
    (found,) = problems
    assert problem in found


def test_a_wrong_override_spoils_no_other() -> None:
    """Each is tried on top of those before it."""
    settings, problems = adjusted(
        loaded().settings, [override("lead_time_s", "-1"), override("acknowledge", "false")]
    )
    assert len(problems) == 1
    assert settings.policy.acknowledge is False
    assert settings.policy.lead_time_s == 900


def test_overrides_are_valid_together() -> None:
    """A short lead time fits to a short connection drain, whichever was set first."""
    both = [override("lead_time_s", "30"), override("connection_drain_s", "10")]
    assert adjusted(loaded().settings, both)[1] == ()


def test_what_belongs_to_one_vm_cannot_be_set() -> None:
    """The list is closed: what the leader decides by, and no more."""
    assert set(OVERRIDABLE) == {
        "lead_time_s",
        "connection_drain_s",
        "acknowledge",
        "acknowledge_unmanaged",
        "acknowledge_ignored",
        "restore_settle_s",
        *(
            f"events.{kind}.{key}"
            for kind in ("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate")
            for key in ("action", "min_duration_s", "acknowledge")
        ),
    }


@pytest.mark.parametrize("text", ["lead_time_s", "policy.lead_time_s", " lead_time_s "])
def test_a_key_with_and_without_its_table(text: str) -> None:
    """Operators write either."""
    assert parsed_key(text) == "lead_time_s"
    assert parsed_key("min_in_service") == "min_in_service"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dry_run", "dry_run cannot change while the agents run: set it in every file"),
        ("lead_time", "lead_time is not a setting of the whole set; did you mean lead_time_s?"),
        ("election.blob_name", "is not a setting of the whole set"),
    ],
)
def test_a_key_that_is_none(text: str, problem: str) -> None:
    """The message names the nearest key, or states what to do instead."""
    with pytest.raises(NotDone) as caught:
        parsed_key(text)
    assert problem in str(caught.value)


@pytest.mark.parametrize("name", ["app", "WEB/app", APP.upper()])
def test_a_pool_has_three_names(name: str) -> None:
    """The last part of its id, load balancer and pool, and the id."""
    assert pool_of(loaded().settings, name) == fold(APP)


def test_a_pool_that_is_not_clear() -> None:
    """Of several pools one has to be named; of one pool the name can be left out."""
    settings = loaded().settings
    for name, problem in (("", "name the pool with --pool: web/app, web/api"), ("db", "no pool")):
        with pytest.raises(NotDone, match=problem):
            pool_of(settings, name)
    one = loaded(FILE.replace(f'[[backend_pools]]\nid = "{API}"', "")).settings
    assert pool_of(one, "") == fold(APP)
    twice = loaded(FILE.replace(API, APP.replace("loadBalancers/web", "loadBalancers/db"))).settings
    with pytest.raises(NotDone, match="several pools have this name"):
        pool_of(twice, "app")


def test_the_origin_of_a_value_is_shown() -> None:
    """Author and end of the override, instead of the file or the default."""
    found = with_overrides(
        loaded(), [override("lead_time_s", "600"), override("min_in_service", "1", APP)]
    )
    shown: dict[str, Any] = {key: (value, origin) for key, value, origin in describe(found)}
    by = "override by ann until 2026-01-05 14:00 UTC"
    assert shown["policy.lead_time_s"] == ("600.0", by)
    assert shown["backend_pools[0].min_in_service"] == ("1", by)
    assert shown["backend_pools[1].min_in_service"] == ("1", "default")
    assert shown["policy.connection_drain_s"] == ("60.0", "file")
