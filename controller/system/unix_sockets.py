"""Unix datagram sockets, by which systemd and its journal are reached. Windows has none."""

import socket


def datagram_socket() -> socket.socket | None:
    """Return a new socket that child processes do not inherit; None if the system has no such kind.

    Raises:
        OSError: the system refuses another socket.
    """
    family = getattr(socket, "AF_UNIX", None)
    return None if family is None else socket.socket(family, socket.SOCK_DGRAM)
