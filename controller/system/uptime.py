"""How long the machine has been up."""

import time


def up_s() -> float:
    """Return the seconds since the machine started.

    Linux has a clock for it. Windows has none with that name, but its monotonic clock counts from
    the start of the machine: GetTickCount64 before Python 3.13, QueryPerformanceCounter since.
    https://learn.microsoft.com/en-us/windows/win32/api/sysinfoapi/nf-sysinfoapi-gettickcount64
    https://learn.microsoft.com/en-us/windows/win32/sysinfo/acquiring-high-resolution-time-stamps
    """
    read = getattr(time, "clock_gettime", None)
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if read is None or clock is None else float(read(clock))
