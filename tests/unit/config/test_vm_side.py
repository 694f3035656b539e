"""`[drain]`, `[probe]` and `[[hooks]]`: what is refused before anything listens or runs."""

import json
from pathlib import Path

import pytest

from controller.config.loader import InvalidConfigError, parse
from controller.config.schema import Settings
from tests.unit.config.test_config import MINIMAL

LOOPBACK = "must be an http:// or tcp:// URL of this VM, such as http://127.0.0.1:8080/healthz"


def settings(table: str, key: str, value: object) -> Settings:
    """Load the minimal file with one key of a table."""
    text = f"{MINIMAL}[{table}]\n{key} = {json.dumps(value)}\n"
    return parse(text, {}, Path("config.toml")).settings


def problem(table: str, key: str, value: object) -> str:
    """Return the only problem of that file, which names the key."""
    with pytest.raises(InvalidConfigError) as refused:
        settings(table, key, value)
    (found,) = refused.value.problems
    assert f"{table}.{key}" in found
    return found


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/healthz?full=1",
        "http://localhost/",
        "http://[::1]/",
        "tcp://127.0.0.1:1",
    ],
)
def test_the_check_is_on_this_vm(url: str) -> None:
    """A URL of HTTP or a TCP port, on loopback."""
    assert settings("probe", "check", url).probe.check == url


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.5/healthz",
        "http://169.254.169.254/metadata/identity",
        "http://127.0.0.1.example.com/",
        "tcp://example.com:80",
        "https://127.0.0.1/",
    ],
)
def test_a_check_elsewhere_is_refused(url: str) -> None:
    """The responder answers the network: it must not ask other machines for it."""
    assert LOOPBACK in problem("probe", "check", url)


@pytest.mark.parametrize("url", ["file:///etc/shadow", "127.0.0.1:8080", "/healthz"])
def test_a_check_that_is_no_url(url: str) -> None:
    assert "is not a URL with a scheme and a host" in problem("probe", "check", url)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1", "tcp://127.0.0.1:80/path"])
def test_a_tcp_check_is_a_port(url: str) -> None:
    assert "must be tcp://host:port without a path" in problem("probe", "check", url)


@pytest.mark.parametrize("path", ["", "healthz", "/a b", "/a?b", "/a#b", "/ä", "/a\r\nHost: x"])
def test_a_path_that_is_none(path: str) -> None:
    assert "must be the path of a URL" in problem("probe", "path", path)


@pytest.mark.parametrize("address", ["web-1", "10.0.0.0/33", "AzureLoadBalancer", ""])
def test_an_address_that_is_none(address: str) -> None:
    found = problem("probe", "allow", ["168.63.129.16", address])
    assert "is not an IP address or network" in found


@pytest.mark.parametrize("path", ["draining", "./draining", "/run/lb-drain/", "/run/a\nb"])
def test_a_flag_file_that_is_none(path: str) -> None:
    assert "must be the absolute path of a file" in problem("drain", "flag_file", path)


def test_no_flag_file() -> None:
    """An operator who needs only hooks or the probe's answer can do without."""
    assert not settings("drain", "flag_file", "").drain.flag_file


def test_service_ports_are_a_set() -> None:
    assert settings("drain", "service_ports", [443, 80, 443]).drain.service_ports == (80, 443)


@pytest.mark.parametrize(
    "command",
    [["finish"], ["./finish"], ["/bin/a\0b"], []],
    ids=["name", "relative", "nul", "none"],
)
def test_a_hook_that_cannot_run(command: list[str]) -> None:
    """A program by its absolute path, so that no search path and no shell decides what runs."""
    text = f'{MINIMAL}[[hooks]]\non = "closing"\ncommand = {json.dumps(command)}\n'
    with pytest.raises(InvalidConfigError) as refused:
        parse(text, {}, Path("config.toml"))
    assert "hooks[0].command" in str(refused.value)
