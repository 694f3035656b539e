"""Sockets of the simulator: on loopback only, and reset for real."""

import asyncio
import socket
import struct

HOST = "127.0.0.1"
_LINGER_ZERO = struct.pack("ii", 1, 0)


def reset(transport: asyncio.BaseTransport) -> None:
    """Close with a TCP reset. A bare `abort()` would say goodbye with a FIN."""
    if isinstance(transport, asyncio.Transport) and not transport.is_closing():
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
