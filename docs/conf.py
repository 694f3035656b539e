"""How the site is built: `nox -s site` writes it to build/site, and every warning is an error.

The source directory is the repository itself, so each page is a file that can be read and linked in
the repository too, and a link works in both places. Nothing is loaded from another host: neither
while the site is built, nor by a browser that shows it.
"""

import tomllib
from pathlib import Path

from sphinx.application import Sphinx

from tests.docs.generated import complete

ROOT = Path(__file__).parents[1]

project = "lb-drain"
author = "the authors of lb-drain"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "deploy/**.md",
    "tests/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
exclude_patterns = ["**/.*", ".*", "build", "dist", "**/node_modules"]
nitpicky = True
smartquotes = False  # a reader copies from the pages
# Each decision and recipe is linked from the table of its folder; the menu shows the folder only.
# tests/docs/test_site.py finds a page that nothing links to.
suppress_warnings = ["toc.not_included"]

myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"lb-drain {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_show_sphinx = html_show_copyright = False
html_last_updated_fmt = None  # the same commit makes the same pages
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def _lead_to_the_first_page(app: Sphinx, exception: Exception | None) -> None:
    """Let the root of the site show its first page."""
    if exception is None and app.builder.name == "html":
        target = f"{root_doc}.html"
        (Path(app.outdir) / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><title>lb-drain</title>\n'
            f'<meta http-equiv="refresh" content="0; url={target}">\n'
            f'<a href="{target}">lb-drain</a>\n'
        )


def _generate_parts(_app: Sphinx, _name: str, content: list[str]) -> None:
    """Complete a page that has generated parts."""
    content[0] = complete(content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what sphinx calls."""
    app.connect("source-read", _generate_parts)
    app.connect("build-finished", _lead_to_the_first_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
