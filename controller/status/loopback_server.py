"""An HTTP server for this host. It answers GET requests only.

Answers are not authenticated, so it listens on loopback only and refuses any Host that is not a
loopback name: a web page that points its own name at 127.0.0.1 gets nothing.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from controller.config.base import is_loopback, listen_address
from controller.errors import ConfigError

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LoopbackServer:
    """`async with LoopbackServer(listen, routes)`; an empty `listen` starts nothing.

    Args:
        listen: host:port on loopback.
        routes: the handler of each path.
        setting: what sets `listen`, for messages.
    """

    def __init__(
        self, listen: str, routes: Mapping[str, Handler], *, setting: str = "server.listen"
    ) -> None:
        self._listen, self._routes, self._setting = listen, dict(routes), setting
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
                f"{self._setting}: cannot listen on {self._listen} ({error.strerror}); free the "
                'port, choose another, or set it to "" to go without'
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
        application = web.Application(middlewares=[_refuse_foreign_hosts])
        application.on_response_prepare.append(_set_headers)
        for path, handler in self._routes.items():
            application.router.add_get(path, handler, allow_head=False)
        return application


def verdict(good: bool, why: str) -> web.Response:
    """Return the answer of a health check."""
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
