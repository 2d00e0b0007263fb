"""A page as one file: nothing in it is fetched, runs, or leaves its place.

What a model wrote is data: jinja escapes all of it, what would turn the text around it is shown as
a sign, and the page's own policy forbids scripts and addresses, should all else fail.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from es2_lightning.atomic_files import write_atomically

_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
"""What changes the direction of the text that follows."""


def visible(text: object) -> str:
    """Text in which no sign is silent: control characters, and what no file can hold, as signs."""
    shown = _TURNING.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", str(text))
    return "".join(map(_sign, shown))


def _sign(character: str) -> str:
    if character in "\n\t":
        return character
    category = unicodedata.category(character)
    if category == "Cc":
        number = ord(character)
        return chr(0x2400 + number) if number < 0x20 else f"⟨U+{number:04X}⟩"
    return "\ufffd" if category == "Cs" else character


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
