"""Tell systemd how the service is: the sd_notify protocol, one datagram per message.

Does nothing when NOTIFY_SOCKET is unset, so the agent runs the same in a terminal. The watchdog is
fed by whoever completed a pass, never by a timer: a hung agent must look hung.
"""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """A sender for $NOTIFY_SOCKET."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL byte that begins an abstract socket's name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = _watchdog_s(environ)

    @property
    def watchdog_s(self) -> float | None:
        """Seconds after which systemd kills a service that did not call `watchdog`, or None."""
        return self._watchdog_s

    def ready(self) -> bool:
        """Say that start-up is complete."""
        return self._send("READY=1")

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send("STATUS=" + " ".join(text.split()))

    def watchdog(self) -> bool:
        """Say that work is being done."""
        return self._send("WATCHDOG=1")

    def stopping(self) -> bool:
        """Say that the service is shutting down."""
        return self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        """Send one message; False when there is nobody to tell. Never raises: the job goes on."""
        if not self._address.startswith(("/", "\0")):
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)  # a full queue must not hold up the event loop for long
                sender.sendto(message.encode(), self._address)
        except (OSError, ValueError):
            return False
        return True


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    pid, period_us = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
    if pid not in ("", str(os.getpid())) or not (period_us.isascii() and period_us.isdigit()):
        return None  # a period for another process of the unit is not ours to keep
    return int(period_us) / 1e6 or None
