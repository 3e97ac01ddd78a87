"""Sphinx builds the site with `sphinx-build -W -b html docs <folder>` (extra `docs`)."""

import re
from pathlib import Path
from typing import Any

import awr_exp

project = "awr_exp"
author = "awr_exp developers"
project_copyright = f"2026, {author}"
release = version = awr_exp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates"]

html_theme = "furo"
html_title = "awr_exp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
highlight_language = "bash"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# The docstrings write `name` for code.
default_role = "literal"
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
python_maximum_signature_line_length = 88

ROOT = Path(__file__).parent.parent
PAGES = {"](CHANGELOG.md": "](changelog.md", "](CONTRIBUTING.md": "](contributing.md", "](docs/": "]("}
"""Links of a file beside docs/, and what they are on the site."""


def include(app: Any, page: str, source: list[str]) -> None:
    """Files beside docs/ are pages of the site, too, with links that lead there as well as in the repository."""

    def content(found: re.Match[str]) -> str:
        text = (ROOT / found[1]).read_text(encoding="utf-8")
        for link, inside in PAGES.items():
            text = text.replace(link, inside)
        return re.sub(r"\]\((LICENSE|CITATION.cff)\)", r"](../\1)", text)

    source[0] = re.sub(r"```\{include\} \.\./(\S+)\n```", content, source[0]).replace(
        "](../CONTRIBUTING.md", "](contributing.md"
    )


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Stars and bars of our docstrings are those of shapes and patterns, such as [K, *shape], and no markup."""
    lines[:] = [line.replace("*", r"\*").replace("|", r"\|") for line in lines]


def setup(app: Any) -> None:
    app.connect("source-read", include)
    app.connect("autodoc-process-docstring", plain)
