"""A scorecard as people and machines read it: one table of the whole, one by subtask, strategy or class."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.escaping import rich_text
from mmpt_bench.common.words import counted
from mmpt_bench.interop.answers.score import Scorecard

if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST = 3000
"""Characters of a sentence below the tables, which may name fourteen subtasks and ten questions."""


def scorecard_json(card: Scorecard) -> dict[str, Any]:
    """Returns everything that is known, unrounded: fractions and points as they were computed."""
    value = dataclasses.asdict(card) | {"comparable": card.comparable, "score": card.values[card.headline]}
    value["intervals"] = {name: list(between) for name, between in card.intervals.items()}
    return value


def scorecard_parts(card: Scorecard) -> list[RenderableType]:
    """Returns what to print, in order, for `rich.console.Console.print`."""
    from rich.text import Text

    whole = [name for name in card.values if "/" not in name]
    headline_first = sorted(whole, key=lambda name: name != card.headline)
    parts: list[RenderableType] = [_whole(card, headline_first)]
    if groups := _groups(card):
        parts.append(_by_group(card, groups))
    pictures = "" if card.n_pictures is None else f" on {counted(card.n_pictures, 'image')}"
    unparsed = f"{card.n_unparsed / card.n:.2%} of the replies ({card.n_unparsed:,}) give no legal answer"
    lines = [f"{counted(card.n, 'answer')}{pictures} ({card.form}); parse rule `{card.rule}`; {unparsed}."]
    if card.intervals:
        lines.append("Intervals: 95 %, from resampling images.")
    if not card.comparable:
        lines.append(f"NOT comparable with figures of the whole of {card.title}. {'; '.join(card.missing)}.")
    lines += [f"Note: {note}." for note in card.notes]
    return parts + [Text.from_markup(rich_text(line, LONGEST)) for line in lines]


def _groups(card: Scorecard) -> dict[str, list[str]]:
    """Returns group -> kinds of figures, in order of appearance."""
    found: dict[str, list[str]] = {}
    for name in card.values:
        kind, slash, group = name.partition("/")
        if slash:
            found.setdefault(group, []).append(kind)
    return found


def _whole(card: Scorecard, names: list[str]) -> RenderableType:
    title = f"{card.title}" + ("" if card.comparable else " (incomplete)")
    table = _table(title)
    for column in ("Figure", "Score", "Interval"):
        table.add_column(column, justify="left" if column == "Figure" else "right", no_wrap=True)
    for name in names:
        table.add_row(rich_text(name), _shown(card, name), _between(card, name))
    return table


def _by_group(card: Scorecard, groups: dict[str, list[str]]) -> RenderableType:
    kinds = list(dict.fromkeys(kind for known in groups.values() for kind in known))
    table = _table("")
    table.add_column("", no_wrap=True)
    for kind in kinds:
        table.add_column(rich_text(kind), justify="right")
    for group in groups:
        cells = []
        for kind in kinds:
            name = f"{kind}/{group}"
            between = _between(card, name)
            cells.append(_shown(card, name) + (f"\n{between}" if between else ""))
        table.add_row(rich_text(group), *cells)
    return table


def _shown(card: Scorecard, name: str) -> str:
    value = card.values.get(name)
    return "–" if value is None else f"{_scale(card, name) * value:.2f}{_unit(card, name)}"


def _between(card: Scorecard, name: str) -> str:
    if name not in card.intervals:
        return ""
    low, high = (_scale(card, name) * end for end in card.intervals[name])
    return f"{low:.1f}–{high:.1f}"


def _is_points(card: Scorecard, name: str) -> bool:
    return card.units.get(name, card.unit) == "points"


def _scale(card: Scorecard, name: str) -> int:
    return 1 if _is_points(card, name) else 100


def _unit(card: Scorecard, name: str) -> str:
    return "" if _is_points(card, name) else " %"


def _table(title: str) -> Any:
    from rich import box
    from rich.table import Table

    return Table(title=rich_text(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
