"""An explanation as CSV for programs, as Markdown for people, and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.escaping import csv_table, markdown, plain_text, rich_text
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.words import counted
from mmpt_bench.stats.saliency import SHARES
from mmpt_bench.study.explanations.result import COLUMNS, FOLDER, ExplainResult, ExplainRow, lines
from mmpt_bench.study.explanations.scores import BASE, LOW_IS_GOOD, SCORES, WHOLE, Found, Key

if TYPE_CHECKING:
    from rich.console import RenderableType

ON_TERMINAL = ("pointing", "energy", "deletion", "insertion", "beyond_random", "kept_10", "control", "like_base")
OF_CHANGES = (
    ("pointing", "pointing"), ("energy", "energy"), ("beyond_random", "insertion minus deletion beyond random"),
)  # fmt: skip
PROMPT_COLUMNS = ("method", "side", "kind", "layer", "attention", "even", "ratio")
NOTES = (
    "All but the control and `like base` in per cent, with 95 % intervals over images (and seeds, of several runs); "
    "changes are from the untuned base, on the same questions.",
    "**Pointing**: the highest token lies in what the question names. **Energy**: share of the map's positive part "
    "there. Chance of both is the region's share of the image.",
    f"**Deletion** (low is good), **insertion** (high is good): area under the probability of the model's own answer, "
    f"as {', '.join(f'{100 * share:g}' for share in SHARES)} % of the image tokens, highest first, are replaced by the "
    "mean token, or put back. Both hang on how sure a model is, whatever the map: **beyond random** is insertion minus "
    "deletion, above that of random on the same question. **Kept**: the answer stays when only the highest tokens do.",
    "**Control** (near 0 is good): rank correlation with the map of the same model under permuted weights. **Like "
    "base**: rank correlation with the base's map of the same question.",
    "`random` is noise: what a map does not beat, it does not show.",
)


def prompt_lines(result: ExplainResult) -> list[dict[str, Any]]:
    """Returns a line a method, layer and kind of prompts: attention, what even attention would be, and their ratio."""
    return [
        {"method": row.label, "side": one.side, "kind": one.kind, "layer": one.layer, "attention": one.attention,
         "even": one.even, "ratio": one.attention / one.even}
        for row in result.rows
        for one in row.prompts
    ]  # fmt: skip


def write_explanation(result: ExplainResult) -> tuple[Path, ...]:
    """Writes `explain/NAME.csv`, `NAME.md`, and `NAME-prompts.csv` where a method has prompts; returns their paths."""
    at = result.folder / FOLDER
    files = {f"{result.name}.csv": csv_table(COLUMNS, lines(result)), f"{result.name}.md": explanation_md(result)}
    if prompts := prompt_lines(result):
        files[f"{result.name}-prompts.csv"] = csv_table(PROMPT_COLUMNS, prompts)
    for name, content in files.items():
        write_atomic(at / name, content)
    return tuple(at / name for name in files)


def sentences(result: ExplainResult) -> list[str]:
    """Returns what tuning changes, a sentence a method and score: of how many maps, by the intervals of changes."""
    made = []
    for row in result.rows[1:]:
        told = []
        for score, what in OF_CHANGES:
            changes = {n: f for (n, s), f in row.scores.items() if s == score and n != "random" and f.change_interval}
            if not changes:
                continue
            moved = {n: f for n, f in changes.items() if f.change_interval and not _holds_0(f.change_interval)}
            parts = [f"`{n}` {100 * (f.change or 0):+.1f}" for n, f in moved.items()]
            told.append(f"{what}: {', '.join(parts) if parts else 'none'} (of {counted(len(changes), 'map')})")
        if told:
            made.append(f"{row.label}, change from the base where its interval leaves out 0: {'; '.join(told)}.")
    return made


def _holds_0(interval: tuple[float, float]) -> bool:
    return interval[0] <= 0 <= interval[1]


def explanation_md(result: ExplainResult) -> bytes:
    """Returns an explanation as Markdown: what changes, each method's table, and attention to prompts."""
    tasks = ", ".join(dict.fromkeys(item.task for item in result.items))
    images = len({item.image for item in result.items})
    parts = [f"# Explanation: {', '.join(markdown(row.label) for row in result.rows)}"]
    parts += [f"Made by `{plain_text(result.command, 2000)}`."] if result.command else []
    parts += [f"{counted(len(result.items), 'question')} on {counted(images, 'image')}: {markdown(tasks)}."]
    parts += [f"- {text}" for text in sentences(result)] + [f"- {text}" for text in result.notes]
    for row in result.rows:
        parts += [f"## {markdown(row.label)}", _about(row), _table(*score_table(row))]
        if row.label != BASE:
            parts += ["Change from the base:", _table(*score_table(row, changes=True))]
        if row.prompts:
            parts += ["Attention to the learnt prompts, per cent, and times what even attention would be:"]
            parts += [_table(*prompt_table(row))]
    parts += ["## How to read it", "\n".join(f"- {note}" for note in NOTES)]
    return ("\n\n".join(parts) + "\n").encode()


def _about(row: ExplainRow) -> str:
    whole = [f"{WHOLE[s]} {_told((n, s), f)}" for (n, s), f in row.scores.items() if not n]
    runs = f" Runs: {', '.join(f'`{run}`' for run in row.runs)}." if row.runs else ""
    return f"{'; '.join(whole)}.{runs}"


def score_table(row: ExplainRow, changes: bool = False) -> tuple[list[str], list[list[str]]]:
    """Returns (header, a line a map) of a row's scores, or of their changes from the base."""
    maps = dict.fromkeys(name for name, _ in row.scores if name)
    found = {key: each for key, each in row.scores.items() if not changes or each.change is not None}
    shown = [score for score in SCORES if any((name, score) in found for name in maps)]
    cells = [
        [name, *(_told((name, s), found[name, s], changes) if (name, s) in found else "–" for s in shown)]
        for name in maps
    ]
    return ["Map", *(f"{SCORES[s]}{' ↓' if s in LOW_IS_GOOD else ''}" for s in shown)], cells


def _told(key: Key, found: Found, change: bool = False) -> str:
    """Returns a score with its interval: "83.1 (75.0 to 90.2)", or its change: "+3.1 (-1.0 to 7.2)"."""
    is_correlation = key[1] in ("control", "like_base")
    scale, form = (1, ".2f") if is_correlation else (100, ".1f")
    value, interval = (found.change, found.change_interval) if change else (found.estimate, found.interval)
    assert value is not None
    assert interval is not None
    sign = "+" if change else ""
    return f"{scale * value:{sign}{form}} ({scale * interval[0]:{form}} to {scale * interval[1]:{form}})"


def prompt_table(row: ExplainRow) -> tuple[list[str], list[list[str]]]:
    """Returns (header, a line a side and kind) of the attention to prompts, a column a layer."""
    layers = sorted({one.layer for one in row.prompts})
    kinds: dict[tuple[str, str], dict[int, str]] = {}
    for one in row.prompts:
        cell = f"{100 * one.attention:.1f} ({one.attention / one.even:.2f} x)"
        kinds.setdefault((one.side, one.kind), {})[one.layer] = cell
    header = ["Where", "Prompts", *(f"Layer {layer}" for layer in layers)]
    return header, [[*key, *(cells.get(layer, "–") for layer in layers)] for key, cells in kinds.items()]


def _table(header: list[str], rows: list[list[str]]) -> str:
    body = [f"| {' | '.join(markdown(text) for text in line)} |" for line in rows]
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *body])


def explanation_tables(result: ExplainResult, width: int = 80) -> Iterator[RenderableType]:
    """Yields what to print: a table a method, maps as rows; below another where `width` columns do not hold it."""
    from rich.table import Table

    for row in result.rows:
        right = row.scores["", "right"]
        title = f"{row.label}: right {100 * right.estimate:.1f} %"
        if ("", "chance") in row.scores:
            title += f"; chance of pointing {100 * row.scores['', 'chance'].estimate:.1f} %"
        shown = [s for s in ON_TERMINAL if any((name, s) in row.scores for name in result.maps)]
        for part in _parts(result, row, shown, width):
            table = Table(title=rich_text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
            table.add_column("Map", no_wrap=True)
            for score in part:
                table.add_column(_head(score), justify="right", no_wrap=True)
            for name in result.maps:
                table.add_row(name, *(_short(row, (name, score)) for score in part))
            yield table
            title = f"{row.label}, continued"
    yield "\n".join(rich_text(each, 2000) for each in sentences(result))


def _head(score: str) -> str:
    return SCORES[score].replace(", ", "\n").replace("d r", "d\nr").replace(" b", "\nb")


def _parts(result: ExplainResult, row: ExplainRow, shown: Sequence[str], width: int) -> list[list[str]]:
    """Returns the scores of each table: as many as stand beside the maps' names, a blank apart."""
    first = max(len("Map"), *map(len, result.maps))
    parts: list[list[str]] = [[]]
    room = width - first
    for score in shown:
        cells = [*_head(score).split("\n"), *(_short(row, (name, score)) for name in result.maps)]
        needed = 1 + max(map(len, cells))
        if needed > room and parts[-1]:
            parts.append([])
            room = width - first
        parts[-1].append(score)
        room -= needed
    return parts


def _short(row: ExplainRow, key: Key) -> str:
    if key not in row.scores:
        return "–"
    value = row.scores[key].estimate
    return f"{value:.2f}" if key[1] in ("control", "like_base") else f"{100 * value:.1f}"
