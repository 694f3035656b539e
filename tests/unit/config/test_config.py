"""Configuration: what loads, what is refused, and how problems are reported."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from controller.config.base import listen_address
from controller.config.loader import (
    InvalidConfigError,
    LoadedSettings,
    describe,
    load,
    overridden,
)
from controller.config.schema import EventPolicies, PolicySection
from controller.core.azure_names import fold
from controller.core.events import EVENT_TYPES
from controller.core.far_ahead import DailyWindow, FarAhead
from controller.core.policy import EventAction, EventPolicy, Floor
from controller.errors import ConfigError

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"  # the simulated Azure's
LB = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Network/loadBalancers/web"
)
POOL = f"{LB}/backendAddressPools/app"
POOLS = f'[[backend_pools]]\nid = "{POOL}"\n'
ELECTION = '[election]\ncontainer_url = "https://account.blob.core.windows.net/lb-drain"\n'
MINIMAL = POOLS + ELECTION

Load = Callable[..., LoadedSettings]
Problems = Callable[..., tuple[str, ...]]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    def run(text: str, environ: Mapping[str, str] | None = None) -> LoadedSettings:
        path = tmp_path / "config.toml"
        path.write_bytes(text.encode())
        return load(path, environ or {})

    return run


@pytest.fixture
def problems(load_text: Load) -> Problems:
    def run(text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        with pytest.raises(InvalidConfigError) as caught:
            load_text(text, environ)
        assert isinstance(caught.value, ConfigError)
        assert str(caught.value) == "\n".join(caught.value.problems)
        return caught.value.problems

    return run


def test_minimal_file_takes_every_default(load_text: Load) -> None:
    """A pool id and a container URL are enough, and the rest has the documented defaults."""
    settings = load_text(MINIMAL).settings

    assert [pool.id for pool in settings.backend_pools] == [POOL]
    assert settings.backend_pools[0].floor == Floor(number=1)
    election = settings.election
    assert (election.lease_duration_s, election.renew_period_s) == (30, 8)
    assert (election.request_timeout_s, election.yield_s, election.blob_name) == (4, 5, "")
    policy = settings.policy
    assert (policy.lead_time_s, policy.connection_drain_s, policy.restore_settle_s) == (900, 30, 15)
    assert policy.acknowledge
    assert not policy.acknowledge_unmanaged
    assert not policy.acknowledge_ignored
    assert not policy.dry_run
    assert policy.max_parallel_writes == 64
    watch = settings.watch
    assert (watch.leader_poll_s, watch.standby_poll_s) == (1, 15)
    assert (watch.first_timeout_s, watch.timeout_s) == (130, 5)
    assert settings.azure.imds_endpoint == "http://169.254.169.254"
    assert settings.azure.poll_fallback_s == 1
    assert settings.server.listen == "127.0.0.1:9808"
    assert settings.links.runbook_url == ""


def test_settings_cannot_be_changed(load_text: Load) -> None:
    """Settings are frozen at every level."""
    settings = load_text(MINIMAL).settings
    with pytest.raises(ValidationError):
        settings.policy.dry_run = True


def test_event_defaults_per_type(load_text: Load) -> None:
    """Short freezes are ignored, and events that delete a VM are not acknowledged."""
    events = load_text(MINIMAL).settings.policy.events.by_type()
    assert {
        name: (each.action, each.min_duration_s, each.acknowledge) for name, each in events.items()
    } == {
        "Freeze": (EventAction.DRAIN, 5, True),
        "Reboot": (EventAction.DRAIN, 0, True),
        "Redeploy": (EventAction.DRAIN, 0, True),
        "Preempt": (EventAction.DRAIN, 0, False),
        "Terminate": (EventAction.DRAIN, 0, False),
    }


def test_every_event_type_has_a_table() -> None:
    """The tables of `[policy.events]` are the event types that the core knows, in its order."""
    assert tuple(EventPolicies.model_fields) == EVENT_TYPES


def test_the_core_decides_by_what_the_file_says(load_text: Load) -> None:
    """Every key of `[policy]` that the core knows reaches it, with the floors of the pools."""
    text = f"""{POOLS}min_in_service = "50%"
{ELECTION}[policy]
lead_time_s = 601
connection_drain_s = 31
acknowledge = false
acknowledge_unmanaged = true
acknowledge_ignored = true
restore_settle_s = 16
[policy.events.Freeze]
action = "ignore"
min_duration_s = 6
acknowledge = false
"""
    policy = load_text(text).settings.core_policy()
    assert dict(policy.pools) == {POOL: Floor(number=50, percent=True)}
    assert (policy.lead_time_s, policy.connection_drain_s) == (601, 31)
    assert (policy.restore_settle_s, policy.acknowledge) == (16, False)
    assert policy.acknowledge_unmanaged
    assert policy.acknowledge_ignored
    assert policy.events == {
        **PolicySection().events.by_type(),
        "Freeze": EventPolicy(action=EventAction.IGNORE, min_duration_s=6, acknowledge=False),
    }


def test_closing_alone_needs_closing_and_its_proof(load_text: Load, problems: Problems) -> None:
    """`mechanism = "probe"` is refused where no VM would close, or none be acknowledged."""
    assert not load_text(MINIMAL).settings.core_policy().close_only
    closing = MINIMAL + '[policy]\nmechanism = "probe"\n'
    assert load_text(closing).settings.core_policy().close_only
    (problem,) = problems(closing + "close = false\n")
    assert "policy.mechanism" in problem
    assert "remove close = false" in problem
    (problem,) = problems(closing + 'acknowledge_when = "out"\n')
    assert "policy.mechanism" in problem
    assert 'set acknowledge_when = "closed"' in problem
    (problem,) = problems(closing.replace('"probe"', '"flag"'))
    assert "policy.mechanism" in problem


def test_event_table_overrides_only_its_keys(load_text: Load) -> None:
    """A table for an event type leaves that type's other defaults alone."""
    text = (
        MINIMAL
        + '[policy.events.Terminate]\nmin_duration_s = 7\n[policy.events.Freeze]\naction="ignore"\n'
    )
    events = load_text(text).settings.policy.events
    assert (events.Terminate.min_duration_s, events.Terminate.acknowledge) == (7, False)
    assert (events.Freeze.action, events.Freeze.min_duration_s) == ("ignore", 5)


def test_unknown_event_type_is_refused(problems: Problems) -> None:
    """A misspelt event type is an error that names the nearest one."""
    [problem] = problems(MINIMAL + "[policy.events.Rebot]\nmin_duration_s = 1\n")
    assert "policy.events.Rebot" in problem
    assert "did you mean Reboot?" in problem


@pytest.mark.parametrize(
    ("written", "floor"),
    [("0", (0, False)), ("3", (3, False)), ('"50%"', (50, True)), ('"100%"', (100, True))],
)
def test_floor_forms(load_text: Load, written: str, floor: tuple[int, bool]) -> None:
    """A floor is a number of members or a percentage."""
    text = f"{POOLS}min_in_service = {written}\n{ELECTION}"
    found = load_text(text).settings.backend_pools[0].floor
    assert (found.number, found.percent) == floor


@pytest.mark.parametrize("written", ["-1", "1.5", "true", '"half"', '"101%"', '"-5%"', '"5"', "[]"])
def test_floor_refuses_anything_else(problems: Problems, written: str) -> None:
    """A floor that is neither a count nor a percentage is refused."""
    [problem] = problems(f"{POOLS}min_in_service = {written}\n{ELECTION}")
    assert "backend_pools[0].min_in_service" in problem
    assert ":3:" in problem


def test_pool_ids_ignore_case(load_text: Load) -> None:
    """A pool id is accepted in any case, and kept as written."""
    text = MINIMAL.replace(POOL, POOL.upper())
    assert load_text(text).settings.backend_pools[0].id == POOL.upper()


@pytest.mark.parametrize(
    "pool_id",
    [
        "",
        "app",
        LB,
        POOL + "/",
        POOL + "?x=1",
        POOL.replace("loadBalancers", "applicationGateways"),
        POOL.replace(f"/subscriptions/{SUBSCRIPTION}", ""),
        "https://management.azure.com" + POOL,
    ],
)
def test_pool_id_must_be_complete(problems: Problems, pool_id: str) -> None:
    """Anything but a full id of a load balancer's backend pool is refused with the right form."""
    [problem] = problems(MINIMAL.replace(POOL, pool_id))
    assert "backend_pools[0].id" in problem
    assert "/backendAddressPools/<pool>" in problem


@pytest.mark.parametrize("name", ["s", "My-Subscription", "11111111222243338444555555555555"])
def test_a_subscription_is_named_by_its_guid(problems: Problems, name: str) -> None:
    """A subscription's name, or a placeholder left standing, is no subscription id."""
    [problem] = problems(MINIMAL.replace(SUBSCRIPTION, name))
    assert "backend_pools[0].id: must name the subscription by its id, a GUID" in problem


@pytest.mark.parametrize(
    ("keys", "fits"),
    [
        ("lead_time_s = 60\nconnection_drain_s = 60", True),
        ("lead_time_s = 60\nconnection_drain_s = 60.5", False),
        ("lead_time_s = 20", False),
        ("connection_drain_s = 901", False),
        ("lead_time_s = 0.5\nconnection_drain_s = 0", True),
    ],
)
def test_a_drain_fits_into_the_lead_time(
    load_text: Load, problems: Problems, keys: str, fits: bool
) -> None:
    """A drain that would not end before the event starts is refused, defaults considered."""
    text = f"{MINIMAL}[policy]\n{keys}\n"
    if fits:
        assert load_text(text).settings.policy.connection_drain_s >= 0
        return
    [problem] = problems(text)
    assert "policy.connection_drain_s: would end after the event starts" in problem
    assert "raise lead_time_s" in problem


@pytest.mark.parametrize(
    ("window", "start_min", "end_min"),
    [("02:00-04:00", 120, 240), ("23:30-01:05", 1410, 65), ("00:00-23:59", 0, 1439)],
)
def test_a_daily_window(load_text: Load, window: str, start_min: int, end_min: int) -> None:
    """The window in which drains for events days ahead begin, in minutes of the UTC day."""
    text = f'{MINIMAL}[policy]\nfar_ahead = "window"\nfar_ahead_window = "{window}"\n'
    policy = load_text(text).settings.policy.core_policy({})
    assert policy.far_ahead is FarAhead.WINDOW
    assert policy.far_ahead_window == DailyWindow(start_min=start_min, end_min=end_min)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('far_ahead = "window"', "needs far_ahead_window, such as"),
        ('far_ahead_window = "02:00-04:00"', 'is used only with far_ahead = "window"'),
        ('far_ahead = "drain"\nfar_ahead_window = "02:00-04:00"', "remove it"),
        ('far_ahead = "window"\nfar_ahead_window = "2-4"', "is 2-4, which is not a window"),
        ('far_ahead = "window"\nfar_ahead_window = "02:00-24:00"', "which is not a window"),
        ('far_ahead = "window"\nfar_ahead_window = "02:00-02:00"', "start and end are the same"),
        ('far_ahead = "later"', "policy.far_ahead"),
    ],
)
def test_a_window_that_cannot_be_used(problems: Problems, keys: str, told: str) -> None:
    """A missing window, one that is not used, and one that is none are refused."""
    [problem] = problems(f"{MINIMAL}[policy]\n{keys}\n")
    assert ": policy" in problem
    assert told in problem


def test_events_days_ahead_wait_by_default(load_text: Load) -> None:
    """Nothing changes for an operator who chooses nothing."""
    policy = load_text(MINIMAL).settings.policy.core_policy({})
    assert (policy.far_ahead, policy.far_ahead_window) == (FarAhead.WAIT, None)


def test_duplicate_pools_are_refused(problems: Problems) -> None:
    """The same pool in two spellings is one pool too many."""
    [problem] = problems(MINIMAL + f'[[backend_pools]]\nid = "{POOL.upper()}"\n')
    assert "more than once" in problem


@pytest.mark.parametrize("pools", ["", "backend_pools = []\n"])
def test_at_least_one_pool(problems: Problems, pools: str) -> None:
    """A configuration without a pool is refused."""
    [problem] = problems(pools + ELECTION)
    assert "backend_pools" in problem
    assert "add a [[backend_pools]] table" in problem


def test_pool_names_stay_unique(load_text: Load) -> None:
    """Pool names are as short as uniqueness allows, and found by the folded ids."""

    def names(*ids: str) -> list[str]:
        text = "".join(f'[[backend_pools]]\nid = "{each}"\n' for each in ids)
        found = load_text(text + ELECTION).settings.pool_names()
        assert list(found) == [fold(each) for each in ids]
        return list(found.values())

    other_group = POOL.replace("/rg/", "/rg2/")
    other_subscription = POOL.replace(SUBSCRIPTION, SUBSCRIPTION[:-1] + "6")
    assert names(POOL, POOL + "2") == ["web/app", "web/app2"]
    assert names(POOL, other_group) == ["rg/web/app", "rg2/web/app"]
    assert names(POOL, other_subscription) == [POOL, other_subscription]


@pytest.mark.parametrize(
    "url",
    [
        "http://account.blob.core.windows.net/lb-drain",
        "http://127.0.0.1:10000/devstoreaccount1/lb-drain",
        "https://account.blob.core.windows.net",
        "https://account.blob.core.windows.net/Upper",
        "https://account.blob.core.windows.net/a/b/c",
        "https://account.blob.core.windows.net/lb-drain/web",
        "https://account.blob.core.usgovcloudapi.net/lb-drain/web/",
        "https://account.blob.core.windows.net/a",
        "https://account.blob.core.windows.net:port/lb-drain",
        "https:///lb-drain",
        "lb-drain",
        "",
    ],
)
def test_container_url_is_refused(problems: Problems, url: str) -> None:
    """A container URL without TLS, host or exactly one container is refused."""
    [problem] = problems(f'{POOLS}[election]\ncontainer_url = "{url}"\n')
    assert ":4: election.container_url: " in problem


@pytest.mark.parametrize(
    "url",
    [
        "https://account.blob.core.windows.net/lb-drain?sv=2024&sig=CANARY",
        "https://user:CANARY@account.blob.core.windows.net/lb-drain",
        "https://account.blob.core.windows.net/lb-drain#CANARY",
        "CANARY://x y",
    ],
)
def test_container_url_is_not_repeated(problems: Problems, url: str) -> None:
    """A refused URL is not repeated, since it may carry a secret."""
    [problem] = problems(f'{POOLS}[election]\ncontainer_url = "{url}"\n')
    assert "CANARY" not in problem


def test_http_storage_needs_emulator(load_text: Load, problems: Problems) -> None:
    """Plain HTTP is for an emulator on loopback, together with a connection string."""
    emulator = {"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"}
    local = 'container_url = "http://127.0.0.1:10000/devstoreaccount1/lb-drain"\n'
    remote = 'container_url = "http://10.0.0.4:10000/devstoreaccount1/lb-drain"\n'
    url = load_text(f"{POOLS}[election]\n{local}", emulator).settings.election.container_url
    assert url == "http://127.0.0.1:10000/devstoreaccount1/lb-drain"
    assert problems(f"{POOLS}[election]\n{local}")
    assert problems(f"{POOLS}[election]\n{remote}", emulator)


def test_timing_law(load_text: Load, problems: Problems) -> None:
    """The timing law holds at equality; one step beyond it, the problem gives the numbers."""
    assert load_text(MINIMAL + "renew_period_s = 20\n").settings.election.renew_period_s == 20
    [problem] = problems(MINIMAL + "renew_period_s = 20.5\n")
    assert "renew_period_s 20.5 + 2 x request_timeout_s 4 + margin 2 = 30.5" in problem
    assert "more than lease_duration_s 30" in problem


def test_timing_law_counts_defaults(problems: Problems) -> None:
    """The timing law holds for defaults too, and is reported with other problems."""
    found = problems(POOLS + "[election]\nlease_duration_s = 15\n")
    assert len(found) == 2
    assert any("container_url: is required" in each for each in found)
    assert any("8 + 2 x request_timeout_s 4 + margin 2 = 18" in each for each in found)


@pytest.mark.parametrize("name", ["a\\\\b", "a/", "a.", "a\\u0007", "x" * 1025])
def test_blob_name_is_refused(problems: Problems, name: str) -> None:
    """A blob name that storage would refuse or rewrite is refused here."""
    [problem] = problems(f'{MINIMAL}blob_name = "{name}"\n')
    assert "election.blob_name" in problem


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("election", "lease_duration_s", "14", "at least 15"),
        ("election", "lease_duration_s", "61", "at most 60"),
        ("election", "lease_duration_s", "30.0", "whole number"),
        ("election", "renew_period_s", "0", "more than 0"),
        ("election", "yield_s", "-1", "at least 0"),
        ("policy", "lead_time_s", "nan", "must be"),
        ("policy", "lead_time_s", "inf", "must be"),
        ("policy", "lead_time_s", '"900"', "must be a number, is '900'"),
        ("policy", "connection_drain_s", "true", "must be a number, is true"),
        ("policy", "acknowledge", "1", "must be true or false"),
        ("policy", "max_parallel_writes", "0", "at least 1"),
        ("policy", "events", "1", "must be a table"),
        ("watch", "leader_poll_s", "0.1", "at least 0.2"),
        ("watch", "timeout_s", "[]", "must be a number, is an array"),
        ("azure", "cloud", '"AzureGermanCloud"', "'AzureUSGovernment'"),
        ("azure", "resource_manager_endpoint", '"http://localhost:1"', "https://"),
        ("azure", "resource_manager_endpoint", '"https://h/path"', "must be only"),
        ("azure", "imds_endpoint", '"https://169.254.169.254"', "http://"),
        ("azure", "ca_file", '"/nonexistent/ca.pem"', "absolute path"),
        ("azure", "ca_file", '"/"', "absolute path"),
        ("azure", "client_id", '"me"', "not a GUID"),
        ("azure", "poll_fallback_s", "0", "more than 0"),
        ("azure", "compute_api_version", '"latest"', "not an api-version"),
        ("azure", "network_api_version", '""', "not an api-version"),
        ("server", "listen", '"0.0.0.0:9808"', "loopback"),
        ("server", "listen", '"127.0.0.1"', "host:port"),
        ("server", "listen", '"127.0.0.1:70000"', "host:port"),
        ("server", "listen", '":80"', "loopback"),
        ("links", "runbook_url", '"wiki/lb-drain"', "https:// or http://"),
        ("links", "runbook_url", '"javascript:alert(1)"', "https:// or http://"),
        ("links", "runbook_url", '"https://wiki/a b"', "https:// or http://"),
    ],
)
def test_wrong_values(
    problems: Problems, section: str, key: str, value: str, expected: str
) -> None:
    """A wrong value is reported with its key, its line and the correct form."""
    header = "" if section == "election" else f"[{section}]\n"
    text = f"{MINIMAL}{header}{key} = {value}\n"
    [problem] = problems(text)
    line = len(text.splitlines())
    assert f"config.toml:{line}: {section}.{key}: " in problem
    assert expected in problem


@pytest.mark.parametrize(
    ("cloud", "endpoint_host", "audience_host"),
    [
        ("AzurePublicCloud", "management.azure.com", "management.azure.com"),
        ("AzureUSGovernment", "management.usgovcloudapi.net", "management.core.usgovcloudapi.net"),
        ("AzureChinaCloud", "management.chinacloudapi.cn", "management.chinacloudapi.cn"),
    ],
)
def test_cloud_sets_endpoint_and_audience(
    load_text: Load, cloud: str, endpoint_host: str, audience_host: str
) -> None:
    """The cloud's name decides the Resource Manager endpoint and the token audience."""
    azure = load_text(f'{MINIMAL}[azure]\ncloud = "{cloud}"\n').settings.azure
    assert azure.resource_manager_endpoint == f"https://{endpoint_host}"
    assert azure.token_audience == f"https://{audience_host}"


def test_api_versions_are_pinned_and_can_be_set(load_text: Load) -> None:
    """Each service has one api-version by default, and an operator can set another one."""
    azure = load_text(MINIMAL).settings.azure
    assert (azure.compute_api_version, azure.network_api_version) == ("2025-04-01", "2025-05-01")
    text = f'{MINIMAL}[azure]\nnetwork_api_version = "2018-11-01"\n'
    assert load_text(text).settings.azure.network_api_version == "2018-11-01"


def test_endpoint_overrides_the_cloud(load_text: Load, tmp_path: Path) -> None:
    """A given endpoint wins over the cloud's, and a readable CA file is accepted."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("x")
    endpoint = 'resource_manager_endpoint = "https://localhost:8443/"'
    text = f'{MINIMAL}[azure]\n{endpoint}\nca_file = "{ca_file}"\n'
    azure = load_text(text).settings.azure
    assert azure.resource_manager_endpoint == "https://localhost:8443"
    assert azure.ca_file == str(ca_file)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9808", ("127.0.0.1", 9808)),
        ("127.8.8.8:0", ("127.8.8.8", 0)),
        ("[::1]:80", ("::1", 80)),
        ("Localhost:80", ("Localhost", 80)),
    ],
)
def test_listen_address(listen: str, address: tuple[str, int]) -> None:
    """Every form of a loopback address is accepted."""
    assert listen_address(listen) == address


def test_server_can_be_disabled(load_text: Load) -> None:
    """An empty listen address is a choice, not an error."""
    assert load_text(MINIMAL + '[server]\nlisten = ""\n').settings.server.listen == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[polcy]\n", "polcy: is not a setting; did you mean policy?"),
        ("[policy]\nleadtime_s = 1\n", "did you mean lead_time_s?"),
        ("[policy]\nleader_poll_s = 1\n", "it belongs elsewhere: watch.leader_poll_s"),
        ("[policy]\nzzz = 1\n", "remove it; known: acknowledge, "),
        ("[policy.events.Freeze]\nactoin = 1\n", "did you mean action?"),
        (f'[[backend_pools]]\nid = "{POOL}2"\nmin_service = 1\n', "did you mean min_in_service?"),
        ("policy = { leadtime_s = 1 }\n", "did you mean lead_time_s?"),
    ],
)
def test_unknown_keys(problems: Problems, text: str, expected: str) -> None:
    """An unknown key is an error that suggests the nearest key."""
    [problem] = problems(text + MINIMAL if "{" in text else MINIMAL + text)
    assert expected in problem


def test_environment_wins_and_is_named(load_text: Load) -> None:
    """The environment overrides the file for every type, and the origin names the variable."""
    environ = {
        "LB_DRAIN_ELECTION_CONTAINER_URL": "https://other.blob.core.windows.net/drain",
        "LB_DRAIN_ELECTION_LEASE_DURATION_S": "45",
        "LB_DRAIN_POLICY_LEAD_TIME_S": "600.5",
        "LB_DRAIN_POLICY_DRY_RUN": "TRUE",
        "LB_DRAIN_POLICY_EVENTS_FREEZE_MIN_DURATION_S": "9",
        "LB_DRAIN_AZURE_CLOUD": "AzureChinaCloud",
        "LB_DRAIN_SERVER_LISTEN": "",
        "HOME": "/root",
    }
    loaded = load_text(MINIMAL + "lease_duration_s = 20\n", environ)
    settings = loaded.settings
    assert settings.election.container_url == "https://other.blob.core.windows.net/drain"
    assert settings.election.lease_duration_s == 45
    assert settings.policy.lead_time_s == 600.5
    assert settings.policy.dry_run is True
    assert settings.policy.events.Freeze.min_duration_s == 9
    assert settings.azure.cloud == "AzureChinaCloud"
    assert settings.server.listen == ""
    name = "LB_DRAIN_ELECTION_LEASE_DURATION_S"
    assert loaded.origins["election.lease_duration_s"] == f"environment {name}"
    assert loaded.origins["backend_pools[0].id"] == "file"
    assert loaded.origins["election.renew_period_s"] == "default"


def test_a_list_of_the_environment_replaces_that_of_the_file(load_text: Load) -> None:
    """Each of its items comes from the variable, also in place of items of the file."""
    environ = {"LB_DRAIN_DRAIN_SERVICE_PORTS": "8080,8443", "LB_DRAIN_PROBE_ALLOW": ""}
    loaded = load_text(MINIMAL + "[drain]\nservice_ports = [80, 81, 82]\n", environ)
    rows = {key: (value, origin) for key, value, origin in describe(loaded)}
    origin = "environment LB_DRAIN_DRAIN_SERVICE_PORTS"
    assert rows["drain.service_ports[0]"] == ("8080", origin)
    assert rows["drain.service_ports[1]"] == ("8443", origin)
    assert overridden(loaded) == {"drain.service_ports": (8080, 8443), "probe.allow": ()}


def test_a_wrong_item_of_a_list_names_its_variable(problems: Problems) -> None:
    """The file has the list too, but not this item."""
    environ = {"LB_DRAIN_DRAIN_SERVICE_PORTS": "80,443,99999"}
    text = MINIMAL + "[drain]\nservice_ports = [80, 443, 8080]\n"
    [problem] = problems(text, environ)
    assert problem.startswith("environment LB_DRAIN_DRAIN_SERVICE_PORTS: drain.service_ports[2]:")


def test_environment_can_complete_the_file(load_text: Load) -> None:
    """A required key may come from the environment alone."""
    environ = {"LB_DRAIN_ELECTION_CONTAINER_URL": "https://a.blob.core.windows.net/drain"}
    assert load_text(POOLS, environ).settings.election.container_url.endswith("/drain")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("LB_DRAIN_ELECTION_LEASE_S", "30", "did you mean LB_DRAIN_ELECTION_LEASE_DURATION_S?"),
        ("LB_DRAIN_BACKEND_POOLS", "x", "is not a setting"),
        ("LB_DRAIN_BACKEND_POOLS_ID", "x", "is not a setting"),
        ("LB_DRAIN_", "x", "is not a setting"),
        ("LB_DRAIN_ELECTION_LEASE_DURATION_S", "soon", "must be a whole number, is 'soon'"),
        ("LB_DRAIN_ELECTION_LEASE_DURATION_S", "", "must be a whole number"),
        ("LB_DRAIN_POLICY_DRY_RUN", "yes", "must be true or false"),
        ("LB_DRAIN_POLICY_LEAD_TIME_S", "nan", "must be an ordinary number"),
    ],
)
def test_environment_is_validated(
    problems: Problems, variable: str, value: str, expected: str
) -> None:
    """A wrong variable is reported by its name, not as a place in the file."""
    [problem] = problems(MINIMAL, {variable: value})
    assert problem.startswith("environment")
    assert variable in problem
    assert "config.toml" not in problem
    assert expected in problem


def test_a_variable_for_a_table_that_is_a_value(problems: Problems) -> None:
    """If the file has a value in place of a table, a variable does not hide that problem."""
    [problem] = problems("policy = 3\n" + MINIMAL, {"LB_DRAIN_POLICY_DRY_RUN": "true"})
    assert ":1: policy: must be a table" in problem


def test_all_problems_at_once(problems: Problems) -> None:
    """Every problem of the file and the environment is in one error."""
    text = f"""\
[[backend_pools]]
id = "nope"
[[backend_pools]]
id = "{POOL}"
min_in_service = -1
[election]
container_url = "http://a/b"
lease_duration_s = 5
[policy]
dryrun = true
[server]
listen = "example.com:80"
"""
    found = problems(text, {"LB_DRAIN_WATCH_X": "1"})
    places = [each.split(": ")[0].rpartition("config.toml")[2] for each in found]
    assert sorted(places[:-1]) == [":10", ":12", ":2", ":5", ":7", ":8"]
    assert "LB_DRAIN_WATCH_X" in found[-1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"[election]\nx = = 2\n", "line 2, column 5"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"9" * 5000, "too many digits"),
    ],
)
def test_files_that_cannot_be_parsed(tmp_path: Path, content: bytes, expected: str) -> None:
    """A file that cannot be parsed is reported with its path and the place in it."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidConfigError) as caught:
        load(path, {})
    [problem] = caught.value.problems
    assert problem.startswith(f"{path}: ")
    assert expected in problem


SECRET = '"https://user:SECRET@host/c?sig=SECRET"'


@pytest.mark.parametrize(
    "text",
    [
        f"[policy]\nlead_time_s = {SECRET}\n",
        f"[policy.events.Freeze]\naction = {SECRET}\n",
        f"[azure]\ncloud = {SECRET}\nca_file = {SECRET}\nclient_id = {SECRET}\n",
        f"[azure]\nimds_endpoint = {SECRET}\nresource_manager_endpoint = {SECRET}\n",
        f"[server]\nlisten = {SECRET}\n",
        '[server]\nlisten = "https://host/c?sig=SECRET:80"\n',
        f"[server]\n{SECRET} = 1\n",
        f"[[backend_pools]]\nid = {SECRET}\nmin_in_service = {SECRET}\n",
        f"blob_name = [{SECRET}]\n",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(problems: Problems, text: str) -> None:
    """A URL in any wrong place is not repeated, because it can contain a secret."""
    found = problems(MINIMAL + text)
    assert found
    assert "SECRET" not in "".join(found)


LONG = "x" * 50_000


@pytest.mark.parametrize(
    "text",
    [
        f"[policy]\nlead_time_s = 0x{'f' * 6000}\n",
        f'[policy]\nlead_time_s = "{LONG}"\n',
        f"[policy]\n{LONG} = 1\n",
        f"[{LONG}]\n",
        f"[policy]\nlead_time_s = '''\n{'a.' * 50_000}\n'''\n",
        f'[server]\nlisten = "127.0.0.1:{"9" * 5000}"\n',
        f'[azure]\nca_file = "/{LONG}"\n',
        f'[[backend_pools]]\nid = "{POOL}{LONG}"\n[[backend_pools]]\nid = "{POOL}{LONG}"\n',
    ],
)
def test_no_problem_is_long(problems: Problems, text: str) -> None:
    """Whatever the file contains, each problem is a short line."""
    found = problems(MINIMAL + text)
    assert all(len(each) < 1200 for each in found)
    assert found


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    """A missing file comes with a minimal example, and a directory is refused."""
    with pytest.raises(InvalidConfigError, match=r"does not exist; create it(.|\n)*container_url"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(InvalidConfigError, match="cannot be read"):
        load(tmp_path, {})


def test_byte_order_mark_is_accepted(load_text: Load) -> None:
    """A file saved with a byte order mark loads."""
    assert load_text("\ufeff" + MINIMAL).settings.backend_pools


def test_describe_lists_every_key(load_text: Load) -> None:
    """Describing lists each key once, with its value and its origin."""
    loaded = load_text(MINIMAL, {"LB_DRAIN_POLICY_DRY_RUN": "true"})
    described = {key: (value, origin) for key, value, origin in describe(loaded)}
    assert len(described) == len(describe(loaded)) == len(loaded.origins)
    assert described["policy.dry_run"] == ("true", "environment LB_DRAIN_POLICY_DRY_RUN")
    assert described["backend_pools[0].id"] == (POOL, "file")
    assert described["policy.events.Preempt.acknowledge"] == ("false", "default")
    assert described["azure.resource_manager_endpoint"] == (
        "https://management.azure.com",
        "default",
    )


def test_import_stays_cheap() -> None:
    """Importing the configuration loads neither Azure's SDK nor aiohttp."""
    code = (
        "import sys, controller.config;"
        "print({'aiohttp', 'azure', 'asyncio', 'prometheus_client'} & set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert run.stdout.strip() == "set()"
