"""The configuration in force: what a reload and the settings of the set change, and what stays."""

from pathlib import Path

import pytest

from controller.config.in_force import ConfigurationInForce, Reloaded, changed_keys
from controller.config.loader import parse
from controller.config.schema import Settings

LB = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg/providers"
    "/Microsoft.Network/loadBalancers/web-lb/backendAddressPools"
)
POOL = f'[[backend_pools]]\nid = "{LB}/app"\n'
ELECTION = '[election]\ncontainer_url = "https://lbdrain.blob.core.windows.net/lb-drain"\n'


def settings(text: str = "", *, pools: str = POOL, election: str = ELECTION) -> Settings:
    return parse(pools + election + text, {}, Path("config.toml")).settings


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[policy]\nlead_time_s = 600", ("policy.lead_time_s",)),
        (
            "[policy]\nacknowledge = false\n[policy.events.Freeze]\nmin_duration_s = 9",
            ("policy.acknowledge", "policy.events.Freeze.min_duration_s"),
        ),
        ("[drain]\nquiet_s = 9\nopen_after_s = 99", ("drain.quiet_s", "drain.open_after_s")),
        ('[[hooks]]\non = "closed"\ncommand = ["/bin/true"]', ("hooks",)),
        ('[[notifications]]\nkind = "webhook"\nurl = "https://127.0.0.1/x"', ("notifications",)),
    ],
)
def test_what_can_change_at_run_time_is_applied(text: str, keys: tuple[str, ...]) -> None:
    """The policy, the VM's own side and the channels have their new values after a reload."""
    read, in_force = settings(text), ConfigurationInForce(settings())
    assert in_force.reload(read) == Reloaded(applied=keys, restart=())
    assert in_force.settings == in_force.file == read
    assert in_force.policy == read.core_policy()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[policy]\nclose = false", "policy.close"),
        ("[policy]\ndry_run = true", "policy.dry_run"),
        ('[policy]\nacknowledge_when = "out"', "policy.acknowledge_when"),
        ("[policy]\nmax_parallel_writes = 3", "policy.max_parallel_writes"),
        ("[watch]\nleader_poll_s = 2", "watch.leader_poll_s"),
        ('[drain]\nflag_file = "/run/x"', "drain.flag_file"),
        ('[server]\nlisten = "127.0.0.1:1234"', "server.listen"),
        ('[azure]\nclient_id = "11111111-2222-4333-8444-555555555555"', "azure.client_id"),
    ],
)
def test_what_needs_a_restart_keeps_its_value(text: str, key: str) -> None:
    """Such a setting is named, and the agent acts by the value that it started with."""
    in_force = ConfigurationInForce(settings())
    assert in_force.reload(settings(text)) == Reloaded(applied=(), restart=(key,))
    assert in_force.settings == settings()


def test_one_file_can_change_both() -> None:
    """What can be applied is applied beside a setting that needs a restart."""
    in_force = ConfigurationInForce(settings())
    found = in_force.reload(settings("[policy]\nlead_time_s = 600\n[watch]\ntimeout_s = 9"))
    assert found == Reloaded(applied=("policy.lead_time_s",), restart=("watch.timeout_s",))
    assert in_force.settings.policy.lead_time_s == 600
    assert in_force.settings.watch.timeout_s == settings().watch.timeout_s


def test_floors_change_and_the_list_of_pools_does_not() -> None:
    """A known pool has its new floor, whatever the case of its id; a new pool needs a restart."""
    pools = (
        f'[[backend_pools]]\nid = "{LB}/new"\n'
        f'[[backend_pools]]\nid = "{LB.replace("web-lb", "WEB-LB")}/app"\nmin_in_service = "50%"\n'
        'shared = "ignore"\n'
    )
    in_force = ConfigurationInForce(settings())
    found = in_force.reload(settings(pools=pools))
    assert found.applied == ("min_in_service of pool web-lb/app", "shared of pool web-lb/app")
    assert found.restart[0] == "backend_pools"
    (pool,) = in_force.settings.backend_pools
    assert (pool.id, pool.min_in_service, pool.shared) == (f"{LB}/app", "50%", "ignore")
    assert in_force.policy.pools[f"{LB}/app"].percent


def test_a_pool_that_was_removed_stays_until_the_restart() -> None:
    """A file without a running pool changes nothing about that pool."""
    both = POOL + f'[[backend_pools]]\nid = "{LB}/api"\nmin_in_service = 2\n'
    in_force = ConfigurationInForce(settings(pools=both))
    assert "backend_pools" in in_force.reload(settings()).restart
    assert in_force.settings == settings(pools=both)


def test_the_same_file_changes_nothing() -> None:
    """A reload without a change calls no listener."""
    in_force, calls = ConfigurationInForce(settings()), list[int]()
    in_force.on_change(lambda: calls.append(1))
    assert in_force.reload(settings()) == Reloaded(applied=(), restart=())
    assert calls == []


def test_settings_of_the_set_apply_on_top_of_every_file() -> None:
    """They stay in force over a reload, and the file counts again when they end."""
    in_force, calls = ConfigurationInForce(settings()), list[int]()
    in_force.on_change(lambda: calls.append(1))

    def adjusted(file: Settings) -> Settings:
        policy = file.policy.model_copy(update={"acknowledge": False})
        return file.model_copy(update={"policy": policy})

    in_force.adjust(adjusted)
    assert (in_force.policy.acknowledge, in_force.file.policy.acknowledge) == (False, True)
    in_force.reload(settings("[policy]\nlead_time_s = 600"))
    assert (in_force.policy.acknowledge, in_force.policy.lead_time_s) == (False, 600)
    in_force.adjust(lambda file: file)
    assert in_force.policy == settings("[policy]\nlead_time_s = 600").core_policy()
    assert len(calls) == 3


def test_changed_keys_show_no_value() -> None:
    """The names of the settings are enough: a value can be a secret."""
    before = settings('[[notifications]]\nkind = "slack"\nurl = "https://127.0.0.1/one"')
    after = settings('[[notifications]]\nkind = "slack"\nurl = "https://127.0.0.1/two"')
    assert changed_keys(before, after) == ("notifications",)
