"""A daily window in the configuration: `"02:00-04:00"`, in UTC."""

import re

from controller.config.hints import shown
from controller.core.far_ahead import DailyWindow

_WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


def daily_window(text: str) -> DailyWindow | None:
    """Return the window that a text describes; None for an empty one.

    Raises:
        ValueError: it is no window.
    """
    if not text:
        return None
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f'is {shown(text)}, which is not a window such as "02:00-04:00" (UTC)')
    start_h, start_min, end_h, end_min = map(int, found.groups())
    window = DailyWindow(start_min=start_h * 60 + start_min, end_min=end_h * 60 + end_min)
    if window.start_min == window.end_min:
        raise ValueError(f"is {shown(text)}, which is empty: start and end are the same")
    return window
