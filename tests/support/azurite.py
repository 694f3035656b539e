"""Azurite as the storage account of a simulated set, and a witness who sees what it decides.

Azurite runs with TLS (it accepts bearer tokens over nothing else) and `--oauth basic`: it checks
lifetime, issuer and audience of a token and takes its signature on trust. So the agents use their
managed identity here as on Azure; a connection string, the alternative, would leave the identity's
part of storage untested and would not say which agent a request comes from.

The simulator cannot see Azurite's leases, and the laws are judged by what truly happened. Therefore
a witness stands in front of Azurite: it terminates TLS, asks Azurite for every request, one at a
time, over TLS again, and writes what Azurite decided into the history of the world, in the words
that the simulated storage uses. A decision is dated when Azurite's reply is there, so a lease is
taken to last a few milliseconds longer than it does.

Where Azurite is known to differ from Azure: it renews an expired lease under a wrong id. The
witness refuses such a renewal with Azure's answer. And nobody has to wait after an expiry.
"""

import asyncio
import base64
import os
import shutil
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from controller.simulator.app.server import ACCOUNT
from controller.simulator.app.tls import Certificates
from controller.simulator.services.blob import AUDIENCE
from controller.simulator.traffic.sockets import HOST
from controller.simulator.world.access import OPERATOR
from controller.simulator.world.world import World
from tests.support.ports import free_port

STARTS_WITHIN_S = 240.0
HOP_BY_HOP = frozenset({"host", "connection", "keep-alive", "transfer-encoding"})
REPOSITORY = Path(__file__).parents[2]
HOW_TO_GET_IT = "Azurite is not installed: set AZURITE_BLOB, or npm ci --prefix .ci/azurite"


def find_azurite() -> str | None:
    """Return the executable, or None."""
    local = REPOSITORY / ".ci/azurite/node_modules/.bin/azurite-blob"
    named = os.environ.get("AZURITE_BLOB") or str(local)
    return named if shutil.which(named) and shutil.which("node") else None


@asynccontextmanager
async def run_azurite(directory: Path, certificates: Certificates) -> AsyncGenerator[str]:
    """Run Azurite with one account; yield its URL.

    Raises:
        RuntimeError: it is not installed, or ended before it listened.
    """
    executable = find_azurite()
    if executable is None:
        raise RuntimeError(HOW_TO_GET_IT)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        executable,
        *("--silent", "--disableTelemetry", "--skipApiVersionCheck", "--oauth", "basic"),
        *("--blobHost", HOST, "--blobPort", str(port), "--location", str(directory)),
        *("--cert", str(certificates.certificate_file), "--key", str(certificates.key_file)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{base64.b64encode(b'unused').decode()}"},
    )
    try:
        assert process.stdout is not None
        said = b""
        async with asyncio.timeout(STARTS_WITHIN_S):
            while b"successfully listen" not in said:
                line = await process.stdout.readline()
                if not line:
                    raise RuntimeError(f"Azurite ended: {said.decode(errors='replace')}")
                said += line
        yield f"https://{HOST}:{port}"
    finally:
        process.terminate()
        await process.wait()


class Witness:
    """Stands in front of the storage service and writes its decisions into the history.

    Args:
        world: whose history; its identities are those that the tokens name.
        azurite_url: where Azurite listens.
        certificates: to serve with, and to trust Azurite by.
        notify: called after each decision.
    """

    def __init__(
        self,
        world: World,
        azurite_url: str,
        certificates: Certificates,
        notify: Callable[[], Awaitable[None]],
    ) -> None:
        self._world, self._azurite_url, self._notify = world, azurite_url, notify
        self._certificates = certificates
        self._one_at_a_time = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._lease_id, self._holder, self._held_until, self._duration_s = "", "", 0.0, 0.0
        self.port = 0
        self.ledger = b""
        """The content of the blob that was written last."""

    def holder(self) -> str:
        """Return the VM whose agent holds the lease now; "" when nobody does."""
        return self._holder if time.time() < self._held_until else ""

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        """Listen, with TLS, until left."""
        trust = aiohttp.TCPConnector(
            ssl=ssl.create_default_context(cafile=self._certificates.ca_file)
        )
        async with aiohttp.ClientSession(connector=trust, auto_decompress=False) as self._session:
            runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.5)
            await runner.setup()
            try:
                tls = self._certificates.server_context()
                await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
                self.port = runner.addresses[-1][1]
                yield
            finally:
                await runner.cleanup()

    async def create_container(self, name: str) -> None:
        """Create a container, as an operator does."""
        assert self._session is not None
        token = self._world.token(OPERATOR, AUDIENCE)
        headers = {"authorization": f"Bearer {token}", "x-ms-version": "2025-11-05"}
        url = f"{self._azurite_url}/{ACCOUNT}/{name}?restype=container"
        async with self._session.put(url, headers=headers) as reply:
            if reply.status != 201:
                raise RuntimeError(f"no container: {reply.status} {await reply.text()}")

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        async with self._one_at_a_time:
            if self._foreign_renewal(request):
                return _mismatch()
            assert self._session is not None
            async with self._session.request(
                request.method,
                f"{self._azurite_url}{request.raw_path}",
                headers=headers,
                data=body or None,
                allow_redirects=False,
            ) as reply:
                answer = await reply.read()
            if reply.status < 300:
                self._decided(request, body)
        await self._notify()
        dropped = HOP_BY_HOP if request.method == "HEAD" else HOP_BY_HOP | {"content-length"}
        kept = {k: v for k, v in reply.headers.items() if k.lower() not in dropped}
        return web.Response(status=reply.status, headers=kept, body=answer or None)

    def _foreign_renewal(self, request: web.BaseRequest) -> bool:
        renews = request.headers.get("x-ms-lease-action", "") == "renew"
        return renews and request.headers.get("x-ms-lease-id", "") != self._lease_id

    def _decided(self, request: web.BaseRequest, body: bytes) -> None:
        """Write down what Azurite has accepted."""
        if request.method != "PUT":
            return
        now = time.time()
        self._world.advance(now)
        token = self._world.issuer.read(request.headers["authorization"].partition(" ")[2])
        by = token.principal if token is not None else ""
        action = request.headers.get("x-ms-lease-action", "")
        if not action:
            self.ledger = body
            self._world.record("blob_written", request.path, by=by, body=body.decode())
            return
        self._world.record(f"lease_{action}", request.path, by=by)
        match action:
            case "acquire":
                self._lease_id = request.headers["x-ms-proposed-lease-id"]
                self._duration_s = float(request.headers["x-ms-lease-duration"])
                self._holder, self._held_until = by, now + self._duration_s
            case "renew":
                self._holder, self._held_until = by, now + self._duration_s
            case _:
                self._holder, self._lease_id = "", ""


def _mismatch() -> web.Response:
    code = "LeaseIdMismatchWithLeaseOperation"
    text = "The lease ID specified did not match the lease ID for the blob."
    return web.Response(
        status=409,
        headers={"x-ms-error-code": code, "content-type": "application/xml"},
        body=f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>",
    )
