"""The agent's HTTP server: health, readiness, metrics, status, a page. It only reads."""

import json
from typing import Protocol

from aiohttp import web

from controller.observability.metrics import CONTENT_TYPE
from controller.status.loopback_server import LoopbackServer, verdict
from controller.status.overview_schema import Overview
from controller.status.page import load_page


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


class StatusServer(LoopbackServer):
    """`async with StatusServer(listen, source)`; an empty `listen` starts nothing."""

    def __init__(self, listen: str, source: StatusSource) -> None:
        page = load_page()

        async def show_page(_: web.Request) -> web.StreamResponse:
            headers = {"Content-Security-Policy": page.policy}
            return web.Response(text=page.html, content_type="text/html", headers=headers)

        routes = {
            "/": show_page,
            "/api/v1/overview": self._overview,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/status": self._status,
        }
        super().__init__(listen, routes)
        self._source = source

    async def _overview(self, _: web.Request) -> web.StreamResponse:
        await self._source.refresh()
        return web.json_response(self._source.overview())

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        return verdict(*self._source.health())

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        return verdict(*self._source.ready())

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._source.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, _: web.Request) -> web.StreamResponse:
        text = json.dumps(self._source.status(), default=str, indent=2)
        return web.Response(text=text + "\n", content_type="application/json")
