"""`[drain]`, `[probe]` and `[[hooks]]`: what is refused before anything listens or runs."""

import json
from pathlib import Path

import pytest

from controller.config.loader import InvalidConfigError, parse
from controller.config.schema import Settings
from tests.unit.config.test_config import MINIMAL

LOOPBACK = "must be an http:// or tcp:// URL of this VM, such as http://127.0.0.1:8080/ready"


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


@pytest.mark.parametrize(
    "listen", ["http://0.0.0.0:9810", "0.0.0:9810", "999.1.1.1:9810", "web 1:9810", "*:9810"]
)
def test_nobody_can_listen_on_what_is_no_address(listen: str) -> None:
    """The responder would try again each second, and every probe would fail."""
    found = problem("probe", "listen", listen)
    assert 'is not host:port; write for example "0.0.0.0:9810"' in found


@pytest.mark.parametrize("listen", ["0.0.0.0:9810", ":9810", "[::]:9810", "10.0.0.4:1", "web-1:80"])
def test_where_a_responder_listens(listen: str) -> None:
    """An address, a name, or every address."""
    assert settings("probe", "listen", listen).probe.listen == listen


@pytest.mark.parametrize(
    ("listen", "check", "refused"),
    [
        ("0.0.0.0:9810", "http://127.0.0.1:9810/", True),
        ("127.0.0.1:9810", "tcp://localhost:9810", True),
        (":80", "http://127.0.0.1/healthz", True),
        ("10.0.0.4:80", "http://127.0.0.1/healthz", False),
        ("0.0.0.0:9810", "http://127.0.0.1:8080/", False),
    ],
)
def test_the_check_does_not_ask_the_responder(listen: str, check: str, refused: bool) -> None:
    """It would wait for itself, and the VM would never be ready."""
    text = f'{MINIMAL}[probe]\nlisten = "{listen}"\ncheck = "{check}"\n'
    if refused:
        with pytest.raises(InvalidConfigError, match=r"probe\.check: asks the responder itself"):
            parse(text, {}, Path("config.toml"))
    else:
        assert parse(text, {}, Path("config.toml")).settings.probe.check == check


@pytest.mark.parametrize(
    ("probe", "server", "refused"),
    [
        ("0.0.0.0:9808", "127.0.0.1:9808", True),
        ("[::]:9808", "127.0.0.1:9808", True),
        ("10.0.0.4:9808", "127.0.0.1:9808", False),
        ("0.0.0.0:9810", "127.0.0.1:9808", False),
        ("0.0.0.0:9808", "", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_two_programs_do_not_share_a_port(probe: str, server: str, refused: bool) -> None:
    """Two services cannot listen on one port."""
    text = f'{MINIMAL}[server]\nlisten = "{server}"\n[probe]\nlisten = "{probe}"\n'
    if refused:
        with pytest.raises(InvalidConfigError, match="two programs cannot use one port"):
            parse(text, {}, Path("config.toml"))
    else:
        assert parse(text, {}, Path("config.toml")).settings.probe.listen == probe


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
