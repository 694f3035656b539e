"""Identifies the boot of the machine."""

from collections.abc import Mapping
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT_ID_VARIABLE = "BOOT_ID"
"""Set by the units, whose sandbox hides that file. Windows has neither: there a flag file of an
earlier boot counts as one of this boot, until the ledger was read."""
MAX_CHARS = 64


def boot_id_of(environ: Mapping[str, str]) -> str:
    """Return what identifies the boot of this machine; empty if that is not known."""
    if given := environ.get(BOOT_ID_VARIABLE, ""):
        return given[:MAX_CHARS]
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()[:MAX_CHARS]
    except (OSError, ValueError):
        return ""


def is_other_boot(one: str, other: str) -> bool:
    """Return whether two boots are known to differ. systemd writes an id without hyphens."""
    return bool(one and other) and one.replace("-", "") != other.replace("-", "")
