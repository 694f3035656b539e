"""One TCP flow through the load balancer: bytes between a client and the backend chosen for it."""

import asyncio
from collections.abc import Coroutine
from typing import Protocol, cast

from controller.simulator.traffic.sockets import HOST, reset

MAX_EARLY_BYTES = 64 * 1024
"""Most data of a client before its backend connection is open."""

Endpoint = tuple[str, int]
"""Address and port of a client."""


class FlowOwner(Protocol):
    """The load balancer, as a flow uses it."""

    flows: "dict[Endpoint, Flow]"

    def choose(self, client: Endpoint) -> int | None: ...

    def spawn(self, work: Coroutine[object, None, None]) -> None: ...


class Flow(asyncio.Protocol):
    """The client's side of one TCP flow, joined to a backend connection."""

    def __init__(self, balancer: FlowOwner) -> None:
        self._balancer = balancer
        self._client: asyncio.Transport | None = None
        self._backend: asyncio.Transport | None = None
        self._early = bytearray()
        self._endpoint: Endpoint = ("", 0)
        self._black_holed = False
        self.vm: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = cast("asyncio.Transport", transport)
        self._endpoint = transport.get_extra_info("peername")[:2]
        self._balancer.flows[self._endpoint] = self
        port = self._balancer.choose(self._endpoint)
        if port is None:
            self.reset()
        else:
            self._balancer.spawn(self._connect(port))

    async def _connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: _BackendSide(self), HOST, port)
        except OSError:
            self.reset()
            return
        if self._client is None:
            transport.abort()  # the client left first
            return
        self._backend = transport
        transport.write(bytes(self._early))
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self._black_holed:
            return
        if self._backend is not None:
            self._backend.write(data)
            return
        self._early += data
        if len(self._early) > MAX_EARLY_BYTES:
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        self._client = None
        if self._balancer.flows.get(self._endpoint) is self:
            del self._balancer.flows[self._endpoint]
        if self._backend is not None:
            self._backend.close()

    def from_backend(self, data: bytes) -> None:
        """Pass data of the backend to the client."""
        if self._client is not None and not self._black_holed:
            self._client.write(data)

    def backend_closed(self, error: Exception | None) -> None:
        """End the client's connection as the backend's ended: with FIN or RST."""
        self._backend = None
        if self._client is None or self._black_holed:
            return
        if error is None:
            self._client.close()
        else:
            reset(self._client)

    def black_hole(self) -> None:
        """Drop all further data in both directions, without closing either side."""
        self._black_holed = True

    def reset(self) -> None:
        """Reset both sides."""
        if self._backend is not None:
            reset(self._backend)
        if self._client is not None:
            reset(self._client)


class _BackendSide(asyncio.Protocol):
    """The backend's side of a flow."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def data_received(self, data: bytes) -> None:
        self._flow.from_backend(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._flow.backend_closed(exc)
