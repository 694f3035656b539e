"""Redaction of secrets in text: tokens, signatures, keys and Authorization headers. Pure.

It stands in the lowest layer because every output needs it: the log, and the text of errors,
which the status page, systemd and notifications show without passing the log.
"""

import re

MAX_SCANNED = 100_000
"""Characters that are searched for secrets; the rest is dropped unread."""
LONGEST_SECRET = 8192

# Each pattern keeps group 1 and replaces the rest.
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A whole Authorization header, as a line, in a dict or among raw header tuples.
        r"""(authorization(?:-auxiliary)?(?:["']\s*,\s*b?["']|["']?\s*[:=]\s*b?["']?))[^"'\r\n]+""",
        r"(\b(?:bearer\s+)+)[\w.~+/=-]+",
        r"(\bshared(?:key|keylite)\s+\w+:)[\w+/=]+",
        r"((?<![a-z])sig(?:=|%3d))[^&\s\"'<>;]+",
        r"""((?:account|shared_?access_?|access_?)key(?:=|["']?\s*:\s*["']?))[^;\s"'&,}]+""",
        r"""(\b(?:access|refresh|id)_token["']?\s*[:=]\s*["']?)[^\s"'&,}]+""",
        r"""(\bclient_(?:secret|assertion)["']?\s*[:=]\s*["']?)[^\s"'&,}]+""",
        r"()\beyJ[\w-]{8,}\.[\w.-]+",  # a JSON web token, in any position
        r"()(?<![\w+/])[a-z0-9+/]{86}==",  # a storage account key: 64 bytes in base64
    )
)


def redact(text: str) -> str:
    """Replace tokens, signatures, keys and Authorization headers in a text."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1[redacted]", text)
    return text


def redact_start(text: str) -> str:
    """Redact a text of any length: of a long one, only the start is searched and returned."""
    shown = redact(text[:MAX_SCANNED])
    # The end of a part may be the first half of a secret, which no pattern finds.
    return shown if len(text) <= MAX_SCANNED else shown[:-LONGEST_SECRET]


def redact_lines(text: str) -> str:
    """Redact a text of many lines, each for itself; a very long line is cut."""
    return "\n".join(map(redact_start, text.split("\n")))
