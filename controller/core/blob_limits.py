"""How much a blob may hold. Any identity that can write the container can put anything there.

Texts for people are cut and made printable when they are read, so that no escape sequence, line
break or megabyte of text travels on to the ledger, a log, a terminal or the status page. What
identifies something is never cut: a blob with an id that is too long is refused as a whole.

What a leader writes stays far below what every agent can read (`azure.blob.MAX_BODY_BYTES`):
without that, one huge request would leave the set without a leader for ever.

Pure: standard library only, no I/O.
"""

from controller.core.printable import printable

MAX_ID_CHARACTERS = 16_384
"""Of an id, a name, or the body of an address; Azure's own are below 2,000."""
MAX_TEXT_CHARACTERS = 300
"""Of a reason, a detail, or the name of a person."""
MAX_MESSAGE_CHARACTERS = 600
"""Of the message of a hold."""
MAX_COUNT = 10**18
"""Of an epoch or a position; counting does not get there."""
MAX_HOLDS = 100
"""How many holds a ledger has."""
MAX_ENTRIES = 1000
"""How many VMs a ledger records: those of the largest scale set (Microsoft docs, limits)."""
MAX_REQUESTS_FOR_VM = 20
"""How many drain requests of one VM count: those that end last, which are what keeps it out."""
MAX_UNKNOWN_VMS = 10
"""How many VMs outside the set are named that drain requests ask for."""
MAX_LEDGER_BYTES = 3 * 1024 * 1024
"""Of a ledger that is written."""
MAX_REQUESTS_BYTES = 1024 * 1024
"""Of drain requests that are written."""
MAX_CONTROLS_BYTES = 256 * 1024
"""Of controls that are written."""


def shorten(value: object, *names: str, limit: int = MAX_TEXT_CHARACTERS) -> None:
    """Cut texts for people in a frozen value, while it is made."""
    for name in names:
        object.__setattr__(value, name, cut(getattr(value, name), limit))


def cut(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return a text for people: printable, and at most `limit` characters."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
