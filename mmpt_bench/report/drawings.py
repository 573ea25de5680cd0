"""Figures for the page, as SVG that is small enough for one file to hold all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from markupsafe import escape

from mmpt_bench.figures.draw import render
from mmpt_bench.figures.figure_data import Drawn, Missing

NUMBER = re.compile(r"-?\d*\.\d{3,}")
COORDINATES = re.compile(r' (d|x|y|points)="([^"]*)"')
SCALE = 1.6
"""Pixels a point: letters of 8 points are as large as small text beside them."""


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows."""

    name: str
    """Of its files, without suffix."""
    title: str
    caption: str
    """What is shown, and how its uncertainty is; below the figure."""
    alt: str
    """What the figure says, in words, for those who do not see it."""
    svg: bytes
    csv: bytes
    """The numbers behind it."""
    ablation: str = ""
    """Name of the ablation that it is of."""

    @cached_property
    def inline(self) -> str:
        """Returns the figure as an element of the page, whose style sheet gives it the colours of the theme."""
        return inline_svg(self.svg, self.name, f"{self.title}. {self.alt}", self.width)

    @property
    def width(self) -> int:
        """Returns the width on a page, in pixels: the same scale for all figures, so that their letters are alike."""
        points = re.search(rb'<svg[^>]* width="([\d.]+)pt"', self.svg)
        if points is None:
            raise ValueError(f"the figure {self.name} has no width in points")
        return round(SCALE * float(points[1]))


def joined(made: Iterable[Drawn | Missing]) -> tuple[list[Drawing], list[tuple[str, str]]]:
    """Returns the figures of a results folder for the page, and (title, reason) of those that cannot be drawn yet."""
    found: list[Drawing] = []
    undrawn: list[tuple[str, str]] = []
    for each in made:
        if isinstance(each, Missing):
            undrawn.append((each.title, each.reason))
        else:
            svg = render(each, "svg")
            found.append(Drawing(each.name, each.title, each.caption, each.alt, svg, each.csv, each.ablation))
    return found, undrawn


def inline_svg(svg: bytes, name: str, words: str, width: int) -> str:
    """Returns an SVG of matplotlib as an element of an HTML page.

    The page's policy allows no style but its own: declarations become attributes, which its style sheet can select. Ids
    begin with the figure's name, so that two figures share none.

    Args:
        svg: the figure's file.
        name: of the figure, once in a page.
        words: what it says, for those who do not see it.
        width: in pixels, where there is room.
    """
    text = re.sub(r"<style[^>]*>.*?</style>", "", smaller_svg(svg), flags=re.DOTALL)
    text = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), text)
    text = re.sub(r'( id="|href="#|url\(#)', lambda found: f"{found[1]}{name}-", text)
    inside = text[text.index(">") + 1 :]
    box = re.search(r' viewBox="[^"]*"', text)
    if box is None:
        raise ValueError(f"the figure {name} has no view box")
    # What matplotlib says of all lines in a style sheet of its own.
    lines = 'stroke-linejoin="round" stroke-linecap="butt"'
    about = f'role="img" aria-label="{escape(words)}" data-name="{escape(name)}" width="{width}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg"{box[0]} {about} {lines}>{inside}'


def _attributes(style: str) -> str:
    """Returns declarations of CSS as attributes."""
    pairs = (each.split(":", 1) for each in style.split(";") if ":" in each)
    return "".join(f' {key.strip()}="{value.strip()}"' for key, value in pairs)


def smaller_svg(svg: bytes) -> str:
    """Returns an SVG of matplotlib that looks the same: coordinates to a hundredth of a point, nothing unseen.

    Scales keep their digits, because they multiply; ids that nothing refers to, comments and metadata go.
    """
    text = svg.decode()
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    text = COORDINATES.sub(lambda found: f' {found[1]}="{_shorter(found[2])}"', text)
    text = re.sub(r"translate\([^)]*\)", lambda found: NUMBER.sub(_rounded, found[0]), text)
    text = re.sub(r' transform="translate\(([^ )]+) 0\)"/>', r' x="\1"/>', text)
    text = re.sub(r"([:;]) +", r"\1", text)
    short = {name: f"{chr(97 + number % 26)}{number // 26 or ''}" for number, name in enumerate(sorted(used))}
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{short[found[1]]}"', text)
    text = re.sub(r'xlink:href="#([^"]*)"', lambda found: f'href="#{short[found[1]]}"', text)
    text = re.sub(r"url\(#([^)]*)\)", lambda found: f"url(#{short[found[1]]})", text)
    return re.sub(r">\s+<", "><", text).strip()


def _shorter(path: str) -> str:
    path = NUMBER.sub(_rounded, " ".join(path.split()))
    return re.sub(r" ?([A-Za-z]) ?", r"\1", path)


def _rounded(found: re.Match[str]) -> str:
    text = f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
