"""Stops and continues processes, as a hypervisor does with a VM that it freezes. Not on Windows."""

import signal

STOP: signal.Signals | None = getattr(signal, "SIGSTOP", None)
"""Stops a process; None where a process cannot be stopped, and then its agent runs on."""
CONTINUE: signal.Signals | None = getattr(signal, "SIGCONT", None)
