"""The status page: one document without external resources, and the policy that keeps it so.

The page, its style and its script are files of their own to be read and checked; they are served as
one document. The policy names the hashes of exactly this style and this script, lets the page
connect to the agent only, and forbids the script to turn text into HTML.
"""

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

_STYLE, _SCRIPT = "/* page.css */", "/* page.js */"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is served at `/`."""

    html: str
    policy: str
    """The value of `Content-Security-Policy`."""


def load_page() -> Page:
    """Return the page as one document."""
    here = files(__name__)
    html, style, script = (
        here.joinpath(name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "connect-src": "'self'",
        "img-src": "data:",  # an empty icon, or browsers ask for one
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return Page(
        html=html.replace(_STYLE, style).replace(_SCRIPT, script),
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
