"""A page as one file: nothing in it is fetched, runs, or leaves its place.

What a model wrote is data: jinja escapes all of it, what would turn the text around it is shown as
a sign, and the page's own policy forbids scripts and addresses, should all else fail.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from es2_lightning.atomic_files import write_atomically

_SILENT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # Control characters, but for the tab and the line's end.
    "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # What turns the text that follows.
    "\ud800-\udfff]"  # What no file can hold.
)


def visible(text: str) -> str:
    """Text in which no sign is silent: each is written as its number, such as ⟨U+202E⟩."""
    return _SILENT.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Render one of `templates/` and write it as a whole.

    Args:
        path: The file.
        template: Its name.
        content: What stands in it; text is escaped.
    """
    page = _environment().get_template(template).render(**content)
    write_atomically(path, page)
    return path


@cache
def _environment() -> Environment:
    loader = PackageLoader("es2_lightning.reports.page")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every text goes through here, and is then escaped.
        finalize=_finalize,
    )
    source, _, _ = loader.get_source(environment, "page.css")
    environment.globals["style"] = Markup(source)
    return environment


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
