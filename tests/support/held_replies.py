"""Replies that a test holds back until it has done what is to happen meanwhile."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.http_values import Reply


@contextmanager
def held_replies(
    server: SimulatorServer, path_contains: str, when: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Hold back each reply to a path that contains this, until left; requests take effect.

    `when` is asked for each reply.
    """
    opened, deliver = asyncio.Event(), server._deliver

    async def hold(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        if path_contains in request.path and when():
            await opened.wait()
        return await deliver(request, reply)

    server._deliver = hold  # type: ignore[method-assign]
    try:
        yield
    finally:
        server._deliver = deliver  # type: ignore[method-assign]
        opened.set()
