"""`[update_watch]`: what loads, what is refused, and the file of a machine that runs no agent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from controller.cli.main import main
from controller.config.keys import VARIABLES
from controller.config.loader import (
    InvalidConfigError,
    LoadedSettings,
    LoadedWatch,
    describe,
    load,
    load_either,
    load_watch,
)
from tests.unit.config.test_config import MINIMAL

GUID = "11111111-2222-4333-8444-555555555555"
KEYS = {
    "endpoint": '"https://adminmanagement.east.example.com"',
    "subscription": f'"{GUID}"',
    "location": '"east"',
    "authority": '"https://adfs.east.example.com/"',
    "tenant": '"adfs"',
    "client_id": f'"{GUID}"',
    "scope": '"https://adminmanagement.adfs.east.example.com/1234/.default"',
    "secret_file": '"/etc/lb-drain/hub-secret"',
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(*, before: str = "", after: str = "", **keys: str | None) -> Path:
        lines = [f"{key} = {each}" for key, each in {**KEYS, **keys}.items() if each is not None]
        path = tmp_path / "hub.toml"
        path.write_text("\n".join((before, "[update_watch]", *lines, after)))
        return path

    return run


def problems(path: Path, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(InvalidConfigError) as caught:
        load_watch(path, environ or {})
    return caught.value.problems


def test_a_file_needs_no_table_of_the_agent(write: Write) -> None:
    """A Hub is watched from any machine; defaults are documented."""
    settings = load_watch(write(), {}).settings.update_watch
    assert settings.authority == "https://adfs.east.example.com"
    assert settings.uses_adfs
    assert (settings.poll_s, settings.failed_polls, settings.api_version) == (60, 5, "2016-05-01")
    assert settings.state_file == "/var/lib/lb-drain/update-watch.json"
    assert load_watch(write(tenant='"ADFS"'), {}).settings.update_watch.uses_adfs
    assert not load_watch(write(tenant='"contoso.example"'), {}).settings.update_watch.uses_adfs


def test_the_tables_of_the_agent_are_not_validated(write: Write) -> None:
    """The same file can serve both; the agent validates all of it."""
    path = write(before="[policy]\nlead_time_s = -1\n[[backend_pools]]\nid = 7\n")
    assert load_watch(path, {}).settings.update_watch.location == "east"
    with pytest.raises(InvalidConfigError) as caught:
        load(path, {})
    assert len(caught.value.problems) == 3  # with the absent [election]


def test_an_agent_takes_a_file_with_the_table_and_one_without(write: Write) -> None:
    """The table is optional, and a problem in it is a problem of the file."""
    whole = load(write(before=MINIMAL), {}).settings
    assert whole.update_watch is not None
    with pytest.raises(InvalidConfigError, match=r"hub.toml:\d+: update_watch.location"):
        load(write(before=MINIMAL, location='"a b"'), {})


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("endpoint", '"http://adminmanagement.east"', "must start with https://"),
        ("endpoint", '"https://u:p@adminmanagement.east"', "must have no user name"),
        ("endpoint", '"https://adminmanagement.east/path"', "must be only https://host"),
        ("endpoint", None, "is required; add the URL of the administrator endpoint"),
        ("authority", '"adfs.east.example.com"', "is not a URL"),
        ("authority", None, "is required; add the URL that issues tokens"),
        ("subscription", '"default"', "is not a GUID"),
        ("client_id", '""', "is not a GUID"),
        ("client_id", "7", "must be text"),
        ("location", '"../east"', "is not the name of a region"),
        ("location", '""', "is not the name of a region"),
        ("tenant", '"a/b"', "is not the id or name of a tenant"),
        ("tenant", None, "is required"),
        ("scope", '"https://adminmanagement.east"', 'with "/.default"'),
        ("scope", '"management/.default"', 'with "/.default"'),
        ("scope", None, "is required"),
        ("secret_file", '"secret"', "must be the absolute path of a file"),
        ("secret_file", '"/etc/"', "must be the absolute path of a file"),
        ("secret_file", None, "set one of the two"),
        ("certificate_file", '"/etc/c.pem"', "set one of the two"),
        ("state_file", '""', "has no state_file"),
        ("state_file", '"state.json"', "must be the absolute path of a file"),
        ("ca_file", '"/nonexistent.pem"', "is not a file that this user can read"),
        ("api_version", '"latest"', "is not an api-version"),
        ("poll_s", "0", "must be at least 1, is 0"),
        ("poll_s", "nan", "must be"),
        ("timeout_s", "6000", "must be at most 600"),
        ("failed_polls", "0", "must be at least 1"),
        ("failed_polls", "2.5", "must be a whole number"),
        ("long_run_s", "1", "must be at least 60"),
        ("command", '["status"]', "must begin with the absolute path"),
        ("command", '["/bin/status", "a\\u0000"]', "NUL"),
        ("command", '["/bin/status"]', "needs both command and privileged_endpoints"),
        ("privileged_endpoints", '["10.0.0.224"]', "needs both command and privileged_endpoints"),
        ("privileged_endpoints", '["--help"]', "must be host names or addresses"),
        ("privileged_endpoints", '["a b"]', "must be host names or addresses"),
        ("command_timeout_s", "0", "must be more than 0"),
        ("secret", '"x"', "did you mean secret_file?"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(
    write: Write, key: str, value: str | None, problem: str
) -> None:
    """The message names the file, the key and what to write."""
    (found,) = problems(write(**{key: value}))
    assert problem in found
    assert found.startswith(str(write(**{key: value}).parent))
    assert "update_watch" in found


def test_every_problem_is_listed_at_once(write: Write) -> None:
    """Also a misspelled table beside it."""
    found = problems(write(location='""', tenant=None, after="[link]\nrunbook_url = 7"))
    assert [line.split(": ")[1] for line in found] == [
        "update_watch.location",
        "update_watch.tenant",
        "link",
    ]


def test_a_file_without_the_table_is_refused(tmp_path: Path) -> None:
    """An agent's file alone does not describe a Hub."""
    path = tmp_path / "config.toml"
    path.write_text(MINIMAL)
    (found,) = problems(path)
    assert "update_watch: is required; add that table" in found


def test_variables_override_the_table(write: Write) -> None:
    """As for every other table; a list is separated by commas."""
    environ = {
        "LB_DRAIN_UPDATE_WATCH_FAILED_POLLS": "9",
        "LB_DRAIN_UPDATE_WATCH_PRIVILEGED_ENDPOINTS": "10.0.0.224, 10.0.0.225",
        "LB_DRAIN_UPDATE_WATCH_COMMAND": "/bin/status",
    }
    loaded = load_watch(write(), environ)
    assert loaded.settings.update_watch.failed_polls == 9
    assert loaded.settings.update_watch.privileged_endpoints == ("10.0.0.224", "10.0.0.225")
    origin = loaded.origins["update_watch.failed_polls"]
    assert origin == "environment LB_DRAIN_UPDATE_WATCH_FAILED_POLLS"
    assert set(environ) <= set(VARIABLES)


def test_a_check_knows_which_kind_of_file_it_is(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check-config` takes a file for a watch, and shows its values."""
    only, both = write(), load_either(write(before=MINIMAL), {})
    assert isinstance(load_either(write(), {}), LoadedWatch)
    assert isinstance(both, LoadedSettings)
    assert ("update_watch.location", "east", "file") in describe(both)
    write()
    with pytest.raises(SystemExit) as caught:
        main(["check-config", str(only)])
    assert caught.value.code == 0
    assert "update_watch.location" in capsys.readouterr().out
