"""Figures for the page: drawn anew from the boards, as SVG that is small enough for one file to hold all of them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from mmpt_bench.board import Board

NUMBER = re.compile(r"-?\d*\.\d{3,}")
COORDINATES = re.compile(r' (d|x|y|points)="([^"]*)"')
SAFE = " /:;,.()=?!-_@+*&'|~[]{}"
"""Characters that stay as they are in a data URI."""


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows."""

    name: str
    """Of its files, without suffix."""
    title: str
    text: str
    """What is drawn, for those who cannot see it and for the caption."""
    svg: bytes
    csv: bytes = b""
    """The figures behind it; empty where a table of the page holds them."""
    kind: str = "board"
    """"ablation" for a figure of the section on ablations."""

    @property
    def uri(self) -> str:
        """Returns the picture as a data URI."""
        return f"data:image/svg+xml,{quote(smaller_svg(self.svg).replace(chr(34), chr(39)), safe=SAFE)}"


def drawings(boards: Sequence[Board], colors: Mapping[str, str]) -> list[Drawing]:
    """Returns every figure that can be drawn of boards; nothing of a board without a row."""
    import matplotlib.style

    from mmpt_bench.plots import STYLE, board_figure

    found = []
    for number, board in enumerate(boards):
        if not any(row.cells for row in board.rows):
            continue
        stream = io.BytesIO()
        with matplotlib.style.context(["default", STYLE]):
            figure = board_figure(board, colors)
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
        text = "Overall score and score on each task by method, with 95 % intervals; the table above holds the figures."
        found.append(Drawing(f"leaderboard-{number}", f"Leaderboard: {board.title}", text, stream.getvalue()))
    return found


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
