"""The page as bytes: templates filled in, everything escaped, nothing loaded from anywhere, and a limit to its size."""

from __future__ import annotations

import base64
import hashlib
import shlex
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from mmpt_bench.board.published import REMARK
from mmpt_bench.board.writers import numbers
from mmpt_bench.board.writers.markdown import EMBEDDED_REMARK, RATIO_TITLES
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.files import check_name, write_atomic
from mmpt_bench.common.version import VERSION
from mmpt_bench.common.words import plural
from mmpt_bench.evaluation.task import Task
from mmpt_bench.figures.style import UNKNOWN_COLOR
from mmpt_bench.records.store import Store
from mmpt_bench.report.answers import Packed, pack
from mmpt_bench.report.browse import METHODS_SHOWN
from mmpt_bench.report.content import Content, gather
from mmpt_bench.report.costs import FLOPS
from mmpt_bench.report.drawings import Drawing
from mmpt_bench.report.missing import of_ablation
from mmpt_bench.report.verdict import listed, number
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM
from mmpt_bench.study.ablations.tables import table, title
from mmpt_bench.study.streams.tables import measures_table
from mmpt_bench.study.streams.tables import title as stream_title

FILE = "report.html"
FOLDER = Path(__file__).parent / "page"
MAX_BYTES = 1_500_000
"""Of the whole page: it has to go by mail, and open at once."""
FIGURE_BYTES = 800_000
"""Of all figures; a results folder holds those that do not fit."""
ANSWER_BYTES = 600_000
"""Of the raw answers, at most."""
ROWS_SHOWN = 200
"""Of the table behind a figure; its file has the others."""
TOO_DARK = 0.05
"""Relative luminance below which a colour cannot be told from the dark page."""
EDGE = "\0"
"""Before and after what can be packed; no text that is printed holds it."""
UNPACKED_BY_SCRIPT = (
    "Packed for the size of this page, which needs JavaScript to show it: figures are in <code>figures/</code>, scores "
    "in <code>scores.csv</code> of the results folder."
)
LONG = 2000
"""Characters of a text that are shown; a reason or a question may be longer than a table's cell."""


@dataclass(frozen=True)
class Page:
    """The report as a file."""

    data: bytes
    answers_left_out: int
    """Records whose raw answers did not fit."""
    figures_left_out: tuple[str, ...]


def page(content: Content, store: Store) -> Page:
    """Returns the report as one HTML file, the same bytes for the same content.

    Where the page would grow beyond its limit, tables of single scores and figures are packed, the last first, for its
    script to unpack; then figures and raw answers are left out, and the page says so.

    Raises:
        RequestError: the tables alone are larger than the limit.
    """
    drawings = content.drawings
    bare = _smallest(_filled(replace(content, drawings=()), Packed("", 0), [each.name for each in drawings]))
    if bare > MAX_BYTES:
        raise RequestError(
            f"The tables of this report alone take {bare / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.1f}: "
            "copy the runs that belong together into a results folder of their own."
        )
    figures, dropped = _fitting(drawings, min(FIGURE_BYTES, MAX_BYTES - bare))
    content = replace(content, drawings=tuple(figures))
    bare = _smallest(_filled(content, Packed("", 0), dropped))
    boards = [detail.board for detail in content.details]
    room = max(0, min(ANSWER_BYTES, MAX_BYTES - bare))
    packed = pack(boards, content.records, store, content.samples, content.asked, room)
    return Page(_within(_filled(content, packed, dropped), MAX_BYTES), packed.left_out, tuple(dropped))


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    path: Path
    content: Content
    page: Page

    def as_plain(self) -> dict[str, Any]:
        """Returns what was written and what is missing, as JSON values."""
        return {
            "report": str(self.path),
            "bytes": len(self.page.data),
            "boards": [
                {"title": section.board.title, "track": section.board.track, "verdict": list(section.verdict)}
                for section in self.content.sections
            ],
            "missing": [{"what": gap.what, "command": gap.command} for gap in self.content.gaps],
            "answers_left_out": self.page.answers_left_out,
            "figures_left_out": list(self.page.figures_left_out),
        }


def write_report(
    out: Path, file: Path | None, images: Path | None, tasks: Mapping[str, Task], say: Callable[[str], None]
) -> Report:
    """Writes the report of a results folder.

    Args:
        out: the results folder.
        file: to write; by default report.html in that folder.
        images: folder of real data, for questions and images.
        tasks: every task that records may be of.
        say: told what takes long.

    Raises:
        RequestError: there is no such results folder or folder of images, or `file` is none to write to.
    """
    if out.is_file():
        raise RequestError(f"`{out}` is a file: `--out` names the results folder, `--file` the page to write.")
    if not out.is_dir():
        raise RequestError(
            f"There is no results folder `{out}`. `mmpt-bench run --method all --tasks all "
            f"--out {shlex.quote(str(out))}` makes it; or name another one with `--out`."
        )
    if images is not None and not images.is_dir():
        raise RequestError(f"There is no folder `{images}` to read images from.")
    target = file if file is not None else out / FILE
    if target.is_dir():
        raise RequestError(f"`{target}` is a folder: name the file, as in `--file {target / FILE}`.")
    check_name(target.name)
    store = Store(out)
    content = gather(store, tasks, images, say)
    made = page(content, store)
    write_atomic(target, made.data)
    return Report(target, content, made)


def _fitting(drawings: tuple[Drawing, ...], room: int) -> tuple[list[Drawing], list[str]]:
    """Returns the figures that fit when they are packed, and the names of the others."""
    kept: list[Drawing] = []
    dropped = []
    for drawing in drawings:
        size = len(_packed(_environment().get_template("figure.html").render(drawing=drawing, rows_shown=ROWS_SHOWN)))
        if size <= room:
            kept.append(drawing)
            room -= size
        else:
            dropped.append(drawing.name)
    return kept, dropped


def _filled(content: Content, packed: Packed, dropped: list[str]) -> list[str]:
    """Returns the page in pieces; those at odd places can be packed."""
    style, script = _style(content.colors), (FOLDER / "report.js").read_text(encoding="utf-8")
    text = _environment().get_template("report.html").render(
        content=content, packed=packed, dropped=dropped, version=VERSION, style=Markup(style),
        script=Markup(script), policy=_policy(style, script), flops=FLOPS, remark=REMARK,
        embedded_remark=EMBEDDED_REMARK, ratio_titles=RATIO_TITLES, needed_seeds=SEEDS_TO_CLAIM,
        methods_shown=METHODS_SHOWN, rows_shown=ROWS_SHOWN,
        places={each.ablation: place for place, each in enumerate(content.details)},
        ablation_title=title, ablation_table=table, of_ablation=of_ablation, stream_title=stream_title,
        measures_table=measures_table,
    )  # fmt: skip
    return text.split(EDGE)


def _packed(text: str) -> str:
    """Returns a piece of the page for its script to unpack."""
    data = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    return f'<div data-part="{data}"><p class="note">{UNPACKED_BY_SCRIPT}</p></div>'


def _smallest(pieces: list[str]) -> int:
    return len("".join(_packed(piece) if place % 2 else piece for place, piece in enumerate(pieces)).encode())


def _within(pieces: list[str], limit: int) -> bytes:
    """Returns the page with as few pieces packed, the last first, as keep it within a limit."""
    sizes, pieces = [len(piece.encode()) for piece in pieces], list(pieces)
    for place in range(len(pieces) - len(pieces) % 2 - 1, 0, -2):
        if sum(sizes) <= limit:
            break
        smaller = _packed(pieces[place])
        if len(smaller) < sizes[place]:
            pieces[place], sizes[place] = smaller, len(smaller)
    return "".join(pieces).encode()


def _policy(style: str, script: str) -> str:
    """Returns the content security policy: this style, this script, images in the page, and nothing from outside."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; img-src data: blob:; style-src {digest(style)}; script-src {digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _style(colors: dict[str, str]) -> str:
    """Returns the style sheet with the methods' colours; those too dark for a dark page are the text's colour there."""
    rules = "".join(f".m-{method}{{--c:{color}}}" for method, color in sorted(colors.items()))
    dark = ",".join(f".m-{method}" for method, color in sorted(colors.items()) if _luminance(color) < TOO_DARK)
    if dark:
        rules += f"@media screen{{[data-theme=dark] :is({dark}){{--c:var(--ink)}}}}"
        rules += "@media screen and (prefers-color-scheme:dark)"
        rules += f"{{:root:not([data-theme=light]) :is({dark}){{--c:var(--ink)}}}}"
    return (FOLDER / "report.css").read_text(encoding="utf-8") + f":root{{--c:{UNKNOWN_COLOR}}}{rules}"


def _luminance(color: str) -> float:
    """Returns the relative luminance of "#rrggbb", 0 to 1 (WCAG 2.2)."""
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_final,
    )  # fmt: skip
    environment.globals |= {"shown": numbers, "number": number, "plural": plural, "listed": listed, "span": _span}
    environment.filters |= {
        "csv_rows": _csv_rows,
        "packable": _packable,
        "uri": lambda text: Markup(escape(text)),
        "markup": Markup,
    }
    return environment


def _packable(text: str) -> Markup:
    """Returns a piece of the page between marks."""
    return Markup(EDGE) + text + Markup(EDGE)


def _final(value: Any) -> Any:
    """Returns what a template prints: texts as one printable line, so that no escape sequence reaches a terminal."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return plain_text(value, LONG)


def _span(interval: tuple[float, float], value: float, low: float, high: float, width: float) -> dict[str, str]:
    """Returns where an interval and its figure stand on an axis from `low` to `high` of `width` units."""

    def at(x: float) -> str:
        return f"{(min(max(x, low), high) - low) / ((high - low) or 1.0) * width:.1f}"

    return {"low": at(interval[0]), "high": at(interval[1]), "at": at(value)}


def _csv_rows(data: bytes) -> list[list[str]]:
    import csv
    import io

    return list(csv.reader(io.StringIO(data.decode())))
