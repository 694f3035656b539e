"""The loopback server, over real sockets."""

import base64
import hashlib
import re
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from controller.errors import ConfigError
from controller.observability.metrics import CONTENT_TYPE
from controller.status.overview import overview
from controller.status.overview_schema import Overview
from controller.status.page import load_page
from controller.status.server import StatusServer
from controller.status.snapshot import AgentHealth, AgentSnapshot
from tests.support.policies import make_policy

SHOWN = overview(
    AgentSnapshot(
        now=datetime(2030, 1, 1, tzinfo=UTC),
        health=AgentHealth(role="starting", waiting_for="<script>"),
        lease_duration_s=30,
        policy=make_policy(pools={}),
        pool_names={},
        consecutive_failures={},
    )
)


class Source:
    """An agent's answers."""

    def __init__(self) -> None:
        self.good, self.refreshed = True, False

    def health(self) -> tuple[bool, str]:
        return self.good, "passes complete" if self.good else "no pass for 90 s"

    def ready(self) -> tuple[bool, str]:
        return self.good, "standby"

    def status(self) -> dict[str, object]:
        return {"leader": True, "since": datetime(2030, 1, 1, tzinfo=UTC), "ü": [1]}

    async def refresh(self) -> None:
        self.refreshed = True

    def overview(self) -> Overview:
        assert self.refreshed, "what is shown would be old"
        return SHOWN

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


async def test_overview(client: aiohttp.ClientSession) -> None:
    """The JSON of the page is JSON, which no browser takes for anything else."""
    async with client.get("/api/v1/overview") as reply:
        assert reply.content_type == "application/json"
        assert await reply.json() == SHOWN


async def test_the_page(client: aiohttp.ClientSession) -> None:
    """The page is one document whose policy admits its own style and script and nothing else."""
    async with client.get("/") as reply:
        assert reply.content_type == "text/html"
        text = await reply.text()
        policy = dict(
            part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; ")
        )
    assert text == load_page().html
    assert policy.pop("default-src") == "'none'"
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        ((attributes, body),) = re.findall(f"<{tag}([^>]*)>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert (attributes, policy.pop(name)) == ("", f"'sha256-{digest}'")
    assert policy == {
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    leads_to = set(re.findall(r'(?:src|href)="([^"]*)"', text))
    assert {each for each in leads_to if each[:1] not in {"/", "#"}} == {"data:,"}
    assert re.search(r"url\(|@import|//[a-z]|innerHTML", text) is None


async def test_every_path_the_page_names(client: aiohttp.ClientSession) -> None:
    """Every link of the page, and what its script asks, answers."""
    paths = set(re.findall(r"""["'](/[a-z][a-z0-9/]*)["']""", load_page().html))
    assert paths == {"/api/v1/overview", "/status", "/metrics", "/healthz", "/readyz"}
    for path in paths:
        async with client.get(path) as reply:
            assert reply.status == 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    """In both colour schemes every text has the contrast that WCAG AA asks for."""
    blocks = re.findall(r":root \{(.*?)\}", load_page().html, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))
    backs = {"text": ("back", "card", "busy-back", "bad-back"), "soft": ("back", "card")}
    tones = {tone: (f"{tone}-back", "card") for tone in ("good", "busy", "calm", "bad")}
    for text, behind in {**backs, **tones, "focus": ("back", "card")}.items():
        for back in behind:
            assert contrast(colours[text], colours[back]) >= 4.5, (text, back)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("path", ["/", "/api/v1/overview", "/status", "/metrics", "/healthz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_get_only(client: aiohttp.ClientSession, method: str, path: str) -> None:
    """Every other method is refused."""
    async with client.request(method, path) as reply:
        assert reply.status == 405


@pytest.mark.parametrize("path", ["/", "/api/v1/overview", "/status", "/metrics", "/no"])
async def test_nothing_is_stored(client: aiohttp.ClientSession, path: str) -> None:
    """Every answer forbids caching and guessing its type, errors included."""
    async with client.get(path) as reply:
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"


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
    for path, word in (("/status", "leader"), ("/api/v1/overview", "headline"), ("/", "<html")):
        async with client.get(path, headers={"Host": host}) as reply:
            assert reply.status == status
            assert (word in await reply.text()) == (status == 200)


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
