"""The documentation site builds without a warning, and its links lead somewhere."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.site_pages import Page, broken_links, is_external, reachable, read_pages

ROOT = Path(__file__).parents[2]
STRICT = ("--fail-on-warning", "--keep-going", "--quiet", "-c", "docs")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("sphinx") is None, reason="sphinx is not installed"
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site strictly, with a proxy that refuses whatever would leave this host."""
    directory = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            *STRICT,
            "-d",
            directory / "read",
            ".",
            directory / "site",
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "http_proxy": nowhere, "https_proxy": nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return (directory / "site").resolve()


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    return read_pages(site)


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    """Each link inside the site leads to a file, and to an anchor in it."""
    assert broken_links(pages) == []


def test_nothing_comes_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    """A browser loads fonts, scripts, styles and images from the site itself."""
    loaded = [each for page in pages.values() for each in page.loaded]
    assert loaded
    assert [each for each in loaded if is_external(each)] == []
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert styles
    assert [text for text in styles if "@import" in text or "url(http" in text] == []


def test_every_page_is_reachable(site: Path, pages: dict[Path, Page]) -> None:
    """Links lead from the first page to every page."""
    missing = pages.keys() - reachable(pages, site / "index.html")
    generated = {"genindex.html", "search.html"}
    assert {path.name for path in missing} <= generated


def test_what_the_checks_are_for_is_found(tmp_path: Path) -> None:
    """A broken link, a wrong anchor and a page that nothing links to are found."""
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="b.html#no">x</a><a href="c.html">x</a><a href="#top">x</a>'
        '<a href="https://example.com/">x</a><img src="https://example.com/x.png">'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#top">x</a>')
    (tmp_path / "alone.html").write_text("")
    found = read_pages(tmp_path)
    assert broken_links(found) == ["a.html: b.html#no", "a.html: c.html"]
    seen = {path.name for path in reachable(found, tmp_path / "a.html")}
    assert seen == {"a.html", "b.html"}
    assert [each for page in found.values() for each in page.loaded if is_external(each)] == [
        "https://example.com/x.png"
    ]
