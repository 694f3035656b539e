"""The loopback server, over real sockets."""

import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from controller.errors import ConfigError
from controller.metrics import CONTENT_TYPE
from controller.server import StatusServer


class Source:
    """An agent's answers."""

    def __init__(self) -> None:
        self.good = True

    def health(self) -> tuple[bool, str]:
        return self.good, "passes complete" if self.good else "no pass for 90 s"

    def ready(self) -> tuple[bool, str]:
        return self.good, "standby"

    def status(self) -> dict[str, object]:
        return {"leader": True, "since": datetime(2030, 1, 1, tzinfo=UTC), "ü": [1]}

    def metrics(self) -> bytes:
        return b"lbdrain_leader 1.0\n"


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def server(source: Source) -> AsyncIterator[StatusServer]:
    async with StatusServer("127.0.0.1:0", source) as running:
        yield running


@pytest.fixture
async def client(server: StatusServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as session:
        yield session


async def test_health_and_readiness(client: aiohttp.ClientSession, source: Source) -> None:
    """Health and readiness answer 200 or 503, with the reason."""
    async with client.get("/healthz") as reply:
        assert (reply.status, await reply.text()) == (200, "passes complete\n")
    async with client.get("/readyz") as reply:
        assert (reply.status, await reply.text()) == (200, "standby\n")
    source.good = False
    async with client.get("/healthz") as reply:
        assert (reply.status, await reply.text()) == (503, "no pass for 90 s\n")
    async with client.get("/readyz") as reply:
        assert reply.status == 503


async def test_metrics(client: aiohttp.ClientSession) -> None:
    """Metrics come as they are, in Prometheus' content type."""
    async with client.get("/metrics") as reply:
        assert await reply.read() == b"lbdrain_leader 1.0\n"
        assert reply.headers["Content-Type"] == CONTENT_TYPE


async def test_status(client: aiohttp.ClientSession) -> None:
    """Status is JSON, also where a value is a date."""
    async with client.get("/status") as reply:
        assert reply.content_type == "application/json"
        assert await reply.json() == {
            "leader": True,
            "since": "2030-01-01 00:00:00+00:00",
            "ü": [1],
        }


async def test_index_names_the_paths(client: aiohttp.ClientSession) -> None:
    """The index is plain text and every path it names answers."""
    async with client.get("/") as reply:
        assert reply.content_type == "text/plain"
        paths = [line.split()[0] for line in (await reply.text()).splitlines()[1:]]
    assert paths == ["/healthz", "/readyz", "/metrics", "/status"]
    for path in paths:
        async with client.get(path) as reply:
            assert reply.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_get_only(client: aiohttp.ClientSession, method: str) -> None:
    """Every other method is refused."""
    async with client.request(method, "/status") as reply:
        assert reply.status == 405


@pytest.mark.parametrize("path", ["/", "/healthz", "/status", "/metrics", "/nowhere"])
async def test_nothing_is_stored(client: aiohttp.ClientSession, path: str) -> None:
    """Every answer forbids caching and guessing its type, errors included."""
    async with client.get(path) as reply:
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:9808", 200),
        ("127.1.2.3", 200),
        ("[::1]:9808", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:9808", 403),
        ("10.0.0.4", 403),
        ("0.0.0.0", 403),
        ("[", 403),
        ("localhost:port", 403),
        ("evil.example#localhost", 403),
        ("", 403),
    ],
)
async def test_foreign_hosts_are_refused(
    client: aiohttp.ClientSession, host: str, status: int
) -> None:
    """Only loopback names are served, so a rebound DNS name gets nothing."""
    async with client.get("/status", headers={"Host": host}) as reply:
        assert reply.status == status
        assert ("leader" in await reply.text()) == (status == 200)


async def test_empty_listen_starts_nothing(source: Source) -> None:
    """An empty address disables the server."""
    async with StatusServer("", source) as server:
        assert server.url == ""


async def test_ipv6_url(source: Source) -> None:
    """An IPv6 address makes a URL that works."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this host")
    async with (
        StatusServer("[::1]:0", source) as server,
        aiohttp.ClientSession() as session,
        session.get(server.url + "/healthz") as reply,
    ):
        assert reply.status == 200


async def test_port_in_use(server: StatusServer, source: Source) -> None:
    """A taken port is a configuration error that names the key and leaves nothing behind."""
    listen = server.url.removeprefix("http://").rstrip("/")
    second = StatusServer(listen, source)
    with pytest.raises(ConfigError, match=r"server\.listen: cannot listen on 127"):
        await second.__aenter__()
    assert second.url == ""


async def test_port_is_free_afterwards(source: Source) -> None:
    """Leaving the server closes its socket."""
    async with StatusServer("127.0.0.1:0", source) as server:
        listen = server.url.removeprefix("http://").rstrip("/")
    assert server.url == ""
    async with StatusServer(listen, source) as again:
        assert again.url
