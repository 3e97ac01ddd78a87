"""Sphinx builds the site with `sphinx-build -W -b html docs <folder>` (extra `docs`)."""

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


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Stars and bars of our docstrings are those of shapes and patterns, such as [K, *shape], and no markup."""
    lines[:] = [line.replace("*", r"\*").replace("|", r"\|") for line in lines]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", plain)
