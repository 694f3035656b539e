"""The agent's HTTP server on loopback: health, readiness, metrics, status, a page. It only reads.

Answers are not authenticated, so it listens on loopback only and refuses any Host that is not a
loopback name: a web page that points its own name at 127.0.0.1 gets nothing.
"""

import json
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from controller.config.base import is_loopback, listen_address
from controller.errors import ConfigError
from controller.observability.metrics import CONTENT_TYPE
from controller.status.overview_schema import Overview
from controller.status.page import load_page

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class StatusSource(Protocol):
    """Where answers come from. All but `refresh` return at once."""

    def health(self) -> tuple[bool, str]:
        """Return whether the agent works, and one line why."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Return whether the agent takes part, and one line why."""
        ...

    def status(self) -> dict[str, object]:
        """Return the object of `/status`; values unknown to JSON become text."""
        ...

    async def refresh(self) -> None:
        """Read what is not known at once; takes seconds at most."""
        ...

    def overview(self) -> Overview:
        """Return what the status page shows."""
        ...

    def metrics(self) -> bytes:
        """Return the Prometheus text."""
        ...


class StatusServer:
    """`async with StatusServer(listen, source)`; an empty `listen` starts nothing."""

    def __init__(self, listen: str, source: StatusSource) -> None:
        self._listen = listen
        self._source = source
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens, with the port the system chose; "" when it does not."""
        if self._runner is None or not self._runner.addresses:
            return ""
        host, port = self._runner.addresses[0][:2]
        return str(URL.build(scheme="http", host=host, port=port))

    async def __aenter__(self) -> Self:
        if not self._listen:
            return self
        host, port = listen_address(self._listen)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._close()
            raise ConfigError(
                f"server.listen: cannot listen on {self._listen} ({error.strerror}); free the port,"
                ' choose another, or set it to "" to go without'
            ) from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _application(self) -> web.Application:
        page = load_page()

        async def show_page(_: web.Request) -> web.StreamResponse:
            headers = {"Content-Security-Policy": page.policy}
            return web.Response(text=page.html, content_type="text/html", headers=headers)

        application = web.Application(middlewares=[_refuse_foreign_hosts])
        application.on_response_prepare.append(_set_headers)
        for path, handler in (
            ("/", show_page),
            ("/api/v1/overview", self._overview),
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/metrics", self._metrics),
            ("/status", self._status),
        ):
            application.router.add_get(path, handler, allow_head=False)
        return application

    async def _overview(self, _: web.Request) -> web.StreamResponse:
        await self._source.refresh()
        return web.json_response(self._source.overview())

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        return _verdict(*self._source.health())

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        return _verdict(*self._source.ready())

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._source.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, _: web.Request) -> web.StreamResponse:
        text = json.dumps(self._source.status(), default=str, indent=2)
        return web.Response(text=text + "\n", content_type="application/json")


def _verdict(good: bool, why: str) -> web.Response:
    return web.Response(status=200 if good else 503, text=why.rstrip() + "\n")


@web.middleware
async def _refuse_foreign_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not _names_loopback(request.headers.get("Host", "")):
        raise web.HTTPForbidden(text="Host must be a loopback name\n")
    return await handler(request)


def _names_loopback(host_header: str) -> bool:
    try:
        host = URL.build(authority=host_header).host
    except ValueError:
        return False
    return is_loopback(host)


async def _set_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
