"""A page as a browser takes it apart, as far as the tests ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}
FETCHING = ("src", "srcset", "href", "action", "data", "poster", "background")


@dataclass
class Page:
    """What stands in it.

    Attributes:
        text: Of all elements, styles left out.
        tags: Every element's name.
        addresses: What could be fetched, or followed: (element, attribute, value).
        handlers: Attributes that would run.
        images: Texts for who sees no pictures.
        closed: Texts that only a click shows.
        commands: Texts of the commands.
        style: The style sheet.
        titles: Headings.
    """

    text: str = ""
    tags: list[str] = field(default_factory=list)
    addresses: list[tuple[str, str, str]] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    style: str = ""
    titles: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.page.tags.append(tag)
        self.page.handlers += [name for name in given if name.startswith("on")]
        self.page.addresses += [(tag, name, given[name]) for name in FETCHING if name in given]
        if "style" in given:
            self.page.style += given["style"]
        if tag == "img":
            self.page.images.append(given["alt"])
        if tag not in VOID:
            self.open.append((tag, given.get("class", "")))
        for found, kind in (("details", self.page.closed), ("command", self.page.commands)):
            if tag == found or (tag == "pre" and given.get("class") == found):
                kind.append("")
        if tag in ("h1", "h2"):
            self.page.titles.append("")

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self.open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        names = [tag for tag, _ in self.open]
        if "style" in names:
            self.page.style += data
            return
        self.page.text += data
        if "details" in names and "summary" not in names:
            self.page.closed[-1] += data
        if ("pre", "command") in self.open:
            self.page.commands[-1] += data
        if names and names[-1] in ("h1", "h2"):
            self.page.titles[-1] += data


def read_page(text: str) -> Page:
    """Take a page apart; every element must be closed where it belongs."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open, reader.open
    return reader.page
