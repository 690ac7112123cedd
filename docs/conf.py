"""How Sphinx builds these pages: `pip install '.[docs]' && sphinx-build -W -b html docs docs/_build/html`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import generate

from steepest import __version__

project, author, copyright = "steepest", "The steepest authors", "2026, the steepest authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "steepest"
myst_heading_anchors = 3
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True


def fill(app: Any, page: str, source: list[str]) -> None:
    """A line `<!-- generated: NAME -->` becomes what generate.NAME() says."""
    for name, said in generate.PAGES.items():
        mark = f"<!-- generated: {name} -->"
        if mark in source[0]:
            source[0] = source[0].replace(mark, said())


def stale(app: Any, env: Any, *lists: Any) -> list[str]:
    """Pages with generated parts are read anew in every build: what they tell of has no date that Sphinx knows."""
    return [page for page in env.found_docs if "<!-- generated: " in env.doc2path(page).read_text(encoding="utf-8")]


def readable(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """The house's plain docstrings as reStructuredText."""
    lines[:] = generate.restructured("\n".join(lines)).splitlines()


def setup(app: Any) -> None:
    app.connect("source-read", fill)
    app.connect("env-get-outdated", stale)
    app.connect("autodoc-process-docstring", readable)
