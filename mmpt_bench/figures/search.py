"""What a search of learning rates gives: the loss to expect from so many tries, and the loss at each rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.hashing import content_key
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing
from mmpt_bench.records.keys import without_rate
from mmpt_bench.records.learning_rates import Choice, completed, expected_best

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Expected validation performance"
NOTHING = "No search of learning rates is kept: `mmpt-bench tune --methods all --trials 5` makes one."


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for the searches of each track that a board is of."""
    groups = _groups(of)
    for number, group in enumerate(groups, start=1):
        name = "search" if len(groups) == 1 else f"search-{number}"
        steps = group[0].budget["steps"]
        yield _drawn(group, of, name, f"{TITLE}: {len(group)} methods, trials of {steps:,} steps")


def _groups(of: FigureData) -> list[list[Choice]]:
    """Returns the searches that can be compared, of one backbone, corpus and budget, of backbones that boards are of.

    Of several searches of a method, that of the hyperparameters on the board, or else the first.
    """
    boards = [each.board for each in of.boards]
    backbones = {board.backbone_fingerprint for board in boards}
    shown = [without_rate(row.params) for b in boards for row in b.rows]
    groups: dict[str, dict[str, Choice]] = {}
    for choice in of.choices:
        if choice.backbone_fingerprint not in backbones or not any(loss is not None for _, loss in choice.trials):
            continue
        key = content_key([choice.backbone_fingerprint, choice.corpus_fingerprint, choice.budget])
        group = groups.setdefault(key, {})
        if choice.method not in group or (completed(choice) in shown and completed(group[choice.method]) not in shown):
            group[choice.method] = choice
    return [list(group.values()) for group in groups.values()]


def _drawn(group: Sequence[Choice], of: FigureData, name: str, title: str) -> Drawn:
    from matplotlib.ticker import MaxNLocator

    order = list(of.colors)
    group = sorted(group, key=lambda c: (order.index(c.method) if c.method in order else len(order), c.method))
    marks = style.marks_of([(choice.method, choice.method) for choice in group], of.colors)
    entries = [
        (choice.method + (", best at the edge" if choice.at_edge else ""),
         style.line_entry(style.color_of(choice.method, of.colors), marker=mark, markersize=4))
        for choice, mark in zip(group, marks, strict=True)
    ]  # fmt: skip
    for told, fill, size in (("drawn from the method's range", style.GREY, 3.5), ("tried after these", "white", 3.5),
                             ("chosen", "none", 8)):  # fmt: skip
        entries.append((told, style.mark_entry(style.GREY, markerfacecolor=fill, markersize=size)))
    legend = style.Legend(entries, 5.6)
    figure, (left, right) = style.panels(2, size=(2.45, 2.2), left=0.6, below=0.5, legend=legend.height)
    lines: list[dict[str, Any]] = []
    for choice, marker in zip(group, marks, strict=True):
        color = style.color_of(choice.method, of.colors)
        expected = expected_best(choice.drawn)
        tries = [n for n, loss in enumerate(expected, start=1) if loss is not None]
        left.plot(tries, [loss for loss in expected if loss is not None], color=color, marker=marker, markersize=3.5)
        _by_rate(right, choice, color, marker)
        lines += _rows(choice, expected)
    left.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=2))
    left.set_xlabel("Learning rates tried")
    left.set_ylabel("Expected lowest validation loss")
    left.set_title("Best of so many tries, expected")
    right.set_title("Every try")
    tried = [rate for choice in group for rate, loss in choice.trials if loss is not None]
    style.log_axis(right.xaxis, min(tried), max(tried))
    right.set_xlabel("Learning rate")
    right.set_ylabel("Validation loss")
    legend.draw(figure)
    edge = [choice.method for choice in group if choice.at_edge]
    equal = len({len(choice.trials) for choice in group}) == 1
    return Drawn(
        "search", name, title,
        "Left: the lowest validation loss to expect from so many rates drawn from a method's own range, the mean over "
        "all subsets of its trials. Right: every trial; the chosen one is ringed, those that went on from the drawn "
        f"ones are hollow. {'' if equal else 'The methods had different numbers of trials. '}"
        "Losses in nats a token; failed trials are left out.",
        f"Searches of {len(group)} methods. "
        + (f"The best rate is at the edge for {', '.join(edge)}." if edge else "No best rate is at the edge."),
        figure, style.table(lines),
    )  # fmt: skip


def _by_rate(axes: Axes, choice: Choice, color: str, marker: str) -> None:
    finished = sorted((rate, loss) for rate, loss in choice.trials if loss is not None)
    axes.plot([rate for rate, _ in finished], [loss for _, loss in finished], color=color, linewidth=0.8, alpha=0.7)
    drawn = {rate for rate, _ in choice.drawn}
    for rate, loss in finished:
        axes.plot(rate, loss, marker, color=color, markersize=3.5, markerfacecolor=color if rate in drawn else "white")
    best = dict(finished)[choice.best]
    axes.plot(choice.best, best, "o", color=color, markersize=8, markerfacecolor="none", markeredgewidth=0.9)


def _rows(choice: Choice, expected: Sequence[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "method": choice.method, "trial": number, "is_drawn": number <= len(choice.drawn), "learning_rate": rate,
            "validation_loss": loss, "is_chosen": rate == choice.best, "at_edge": choice.at_edge,
            "expected_lowest_of_so_many": expected[number - 1] if number <= len(expected) else None,
        }
        for number, (rate, loss) in enumerate(choice.trials, start=1)
    ]  # fmt: skip
