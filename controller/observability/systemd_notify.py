"""Service status for systemd: the sd_notify protocol, one datagram per message.

Does nothing if NOTIFY_SOCKET is unset, so the agent runs the same in a terminal. Only a completed
pass feeds the watchdog, never a timer: systemd must notice an agent that hangs.
"""

import os
from collections.abc import Mapping

from controller.system.unix_sockets import datagram_socket


class SystemdNotifier:
    """Sends messages to $NOTIFY_SOCKET."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL byte at the start of the name of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = _watchdog_s(environ)

    @property
    def watchdog_s(self) -> float | None:
        """Seconds without `watchdog` after which systemd kills the service, or None."""
        return self._watchdog_s

    def ready(self) -> bool:
        """Report that start-up is complete."""
        return self._send("READY=1")

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send("STATUS=" + " ".join(text.split()))

    def watchdog(self) -> bool:
        """Report that the service works."""
        return self._send("WATCHDOG=1")

    def stopping(self) -> bool:
        """Report that the service is stopping."""
        return self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        """Send one message; return False if there is no receiver. Never raises."""
        if not self._address.startswith(("/", "\0")):
            return False
        try:
            sender = datagram_socket()
            if sender is None:
                return False
            with sender:
                sender.settimeout(1.0)  # a full queue must not block the event loop for long
                sender.sendto(message.encode(), self._address)
        except (OSError, ValueError):
            return False
        return True


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    pid, period_us = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
    if pid not in ("", str(os.getpid())) or not (period_us.isascii() and period_us.isdigit()):
        return None  # the period is meant for another process of the unit
    return int(period_us) / 1e6 or None
