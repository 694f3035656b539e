"""Text from outside, made safe to show: printable, on one line, short and without secrets. Pure.

Names, ids and messages come from Azure and from operators and can hold anything. A line break in
one must not forge a log line, and a control sequence must not reach a terminal.
"""

from controller.core.redaction import redact

EXCERPT_CHARACTERS = 300


def printable(text: str) -> str:
    """Return the text with line breaks, control characters and lone surrogates escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def excerpt(text: str, *, limit: int = EXCERPT_CHARACTERS) -> str:
    """Return the start of the text as one printable line of at most `limit` characters, and "...".

    Secrets are replaced first: the status page and systemd show the text of errors, and neither
    passes the redaction of the log.
    """
    line = printable(" ".join(redact(text[: 10 * limit]).split()))
    complete = len(line) <= limit and len(text) <= 10 * limit
    return line if complete else line[:limit] + "..."
