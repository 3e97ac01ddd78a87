"""Pages that open from disk: a template, with the style, the scripts and Plotly inside."""

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
"""What a browser lets a page do: whatever a run is named, nothing is loaded from anywhere."""


def rendered(template: Path, script: str = "page.js", **content: Any) -> str:
    """The page of a template, which may use our macros; script: the file beside it that is run when all is there."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    loader = FileSystemLoader([template.parent, HERE])
    jinja = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    style, code = HERE / "page.css", template.with_name(script)
    inside = {"style": style.read_text(encoding="utf-8"), "script": code.read_text(encoding="utf-8")}
    inside |= {"plotly": get_plotlyjs(), "policy": POLICY}
    return jinja.get_template(template.name).render(**{name: Markup(one) for name, one in inside.items()}, **content)
