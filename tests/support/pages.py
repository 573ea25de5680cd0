"""A report's HTML as a tree, for tests that ask what is on the page. Standard library alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input", "br", "hr", "line", "circle"}
HEADINGS = ("h1", "h2", "h3", "h4")


@dataclass
class Element:
    """An element with what is in it."""

    name: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def all(self, name: str = "", **attributes: str) -> list[Element]:
        """Returns the elements below with a name and attributes (`class_` for class, whole words)."""
        found = [each for each in self._below() if not name or each.name == name]
        for key, value in attributes.items():
            if key == "class_":
                found = [each for each in found if value in each.attributes.get("class", "").split()]
            else:
                found = [each for each in found if each.attributes.get(key.replace("_", "-")) == value]
        return found

    def one(self, name: str = "", **attributes: str) -> Element:
        """Returns the only such element."""
        (found,) = self.all(name, **attributes)
        return found

    @property
    def text(self) -> str:
        """Returns all text, with single spaces."""
        return " ".join("".join(self._texts()).split())

    def _below(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child._below()

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._texts()
                yield " "


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(data: bytes) -> Element:
    """Returns the page; AssertionError where an element is not closed in order."""
    parser = _Parser()
    parser.feed(data.decode())
    parser.close()
    assert len(parser.open) == 1, f"not closed: {[each.name for each in parser.open[1:]]}"
    return parser.root
