"""From which seed on worlds are drawn that lower seeds do not know.

The histories of lower seeds are regressions: what is added later has a random generator of its own,
and is laid over the scenarios of these seeds only.
"""

FIRST_LATER_SEED = 1_000_000
FIRST_PROBE_SEED = 1_100_000
"""From here on VMs of some sets leave rotation by their probe answer alone."""
FIRST_NARROW_SEED = 1_140_000
"""From here on one kind of request of one VM fails for good, in some sets."""


def is_later(seed: int) -> bool:
    """Return whether the scenario of a seed may have what was added later."""
    return seed >= FIRST_LATER_SEED
