"""What a built page contains: its links, its anchors, and what a browser loads for it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Elements that make a browser load something, and the attribute that names it."""


@dataclass
class Page:
    """One HTML file."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if anchor := values.get("id"):
            self._page.anchors.add(anchor)
        if tag == "a" and (link := values.get("href")):
            self._page.links.append(link)
        if address := values.get(LOADED.get(tag, "")):
            self._page.loaded.append(address)


def read_pages(site: Path) -> dict[Path, Page]:
    """Return every page of a site by its path."""
    pages = {path.resolve(): Page(path.resolve()) for path in site.rglob("*.html")}
    for path, page in pages.items():
        _Reader(page).feed(path.read_text())
    return pages


def is_external(address: str) -> bool:
    """Return whether a browser would ask another host for it."""
    return bool(urlsplit(address).netloc)


def target(page: Page, link: str) -> tuple[Path, str]:
    """Return the file and the anchor that a link of the same site leads to."""
    parts = urlsplit(link)
    path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    return path, unquote(parts.fragment)


def broken_links(pages: dict[Path, Page]) -> list[str]:
    """Return every link of a page that leads nowhere in the site."""
    found: list[str] = []
    for page in pages.values():
        for link in page.links:
            if is_external(link) or urlsplit(link).scheme:
                continue
            path, anchor = target(page, link)
            known = pages.get(path)
            if not path.is_file() or (anchor and known and anchor not in known.anchors):
                found.append(f"{page.path.name}: {link}")
    return found


def reachable(pages: dict[Path, Page], start: Path) -> set[Path]:
    """Return the pages that links lead to, from one page on."""
    found: set[Path] = set()
    left = [start.resolve()]
    while left:
        path = left.pop()
        if path in found or path not in pages:
            continue
        found.add(path)
        left += [
            target(pages[path], link)[0] for link in pages[path].links if not is_external(link)
        ]
    return found
