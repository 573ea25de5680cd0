"""What searches of learning rates found: scores over the rate, on dev and, where models were scored there, on test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.words import counted
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, dated
from mmpt_bench.records.keys import without_rate
from mmpt_bench.records.learning_rates import Choice, completed
from mmpt_bench.records.rate_curve import Point, Scores
from mmpt_bench.records.rate_trials import DEV

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Learning rates"
NOTHING = "No search of learning rates is kept: `mmpt-bench tune` makes one."


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for the searches of each setting that a board is of."""
    groups = _groups(of)
    for number, group in enumerate(groups, start=1):
        name = "search" if len(groups) == 1 else f"search-{number}"
        steps = group[0].search.budget["steps"]
        yield _drawn(
            group, of, name, f"{TITLE}: {counted(len(group), 'method')}, trainings of {counted(steps, 'step')}"
        )


def _groups(of: FigureData) -> list[list[Choice]]:
    """Returns the searches of boards' backbones that share backbone, training data, budget and criterion.

    Of several searches of a method, that of the hyperparameters on the board, or else the first.
    """
    boards = [each.board for each in of.boards]
    backbones = {board.backbone_fingerprint for board in boards}
    shown = [without_rate(row.params) for b in boards for row in b.rows]
    groups: dict[str, dict[str, Choice]] = {}
    for choice in of.choices:
        search = choice.search
        if search.backbone_fingerprint not in backbones or choice.rate is None:
            continue
        conditions = [search.backbone_fingerprint, search.corpus_fingerprint, search.budget, search.dtype]
        group = groups.setdefault(content_key([*conditions, search.criterion, search.dev_fingerprint]), {})
        earlier = group.get(search.method)
        if earlier is None or (completed(search) in shown and completed(earlier.search) not in shown):
            group[search.method] = choice
    return [list(group.values()) for group in groups.values()]


def _drawn(group: Sequence[Choice], of: FigureData, name: str, title: str) -> Drawn:
    order, is_dev = list(of.colors), group[0].search.criterion == DEV
    group = sorted(group, key=lambda c: (_place(c.search.method, order), c.search.method))
    marks = style.marks_of([(c.search.method, c.search.method) for c in group], of.colors)
    tests = [of.test_scores.get(choice.search.key, {}) for choice in group]
    entries = [
        (choice.search.method + (", best at the edge" if choice.curve.at_edge else ""),
         style.line_entry(style.color_of(choice.search.method, of.colors), marker=mark, markersize=4))
        for choice, mark in zip(group, marks, strict=True)
    ]  # fmt: skip
    if any(len(point.scores) > 1 for choice in group for point in choice.curve.points):
        entries.append(("worst seed", style.line_entry(style.GREY, ":")))
    entries.append(("chosen", style.mark_entry(style.GREY, markerfacecolor="none", markersize=8)))
    legend = style.Legend(entries, 5.6)
    parts = ["dev", "test"] if any(tests) else ["dev"]
    figure, axes = style.panels(len(parts), size=(2.45, 2.2), left=0.6, below=0.5, legend=legend.height)
    rates = [point.rate for choice in group for point in choice.curve.points if not point.failed]
    lines: list[dict[str, Any]] = []
    for choice, marker, test in zip(group, marks, tests, strict=True):
        color = style.color_of(choice.search.method, of.colors)
        _by_rate(axes[0], choice, choice.curve.points, color, marker, 100.0 if is_dev else -1.0)
        tested = tuple(_tested(point, test) for point in choice.curve.points)
        if len(parts) > 1:
            _by_rate(axes[1], choice, tested, color, marker, 100.0)
        lines += _rows(choice, tested)
    for panel, part in zip(axes, parts, strict=True):
        style.log_axis(panel.xaxis, min(rates), max(rates))
        panel.set_xlabel("Learning rate")
        panel.set_ylabel("Score (%)" if is_dev else "Validation loss")
        panel.set_title("Dev" if part == "dev" and is_dev else "Test" if part == "test" else "Validation set")
    legend.draw(figure)
    edge = [choice.search.method for choice in group if choice.curve.at_edge]
    what = "Chance-corrected score, mean over tasks." if is_dev else "Loss in nats a token; one seed a rate."
    return Drawn(
        "search", name, title,
        f"{what} Lines are means over seeds, dotted ones the worst seed; ringed is the chosen rate, the lowest within "
        "one standard error of the best on dev. Rates with a failed training are left out.",
        f"Searches of {counted(len(group), 'method')}. "
        + (f"The best rate is at the edge for {', '.join(edge)}." if edge else "No best rate is at the edge."),
        figure, _source(group, of), style.table(lines),
    )  # fmt: skip


def _source(group: Sequence[Choice], of: FigureData) -> str:
    """Returns suite and date of some searches; those that came with the package keep no date."""
    backbone = group[0].search.backbone_fingerprint
    suite = next((each.board.suite for each in of.boards if each.board.backbone_fingerprint == backbone), "")
    part = "dev part" if group[0].search.criterion == DEV else "validation set"
    times = [of.search_times[each.search.key] for each in group if each.search.key in of.search_times]
    return f"{suite[:1].upper()}{suite[1:]} suite, {part}, {dated(times)}"


def _place(method: str, order: Sequence[str]) -> int:
    return order.index(method) if method in order else len(order)


def _tested(point: Point, test: Scores) -> Point:
    """Returns a rate with the test scores of its models in the place of those on dev."""
    return Point(point.rate, tuple((seed, test.get((point.rate, seed))) for seed, _ in point.scores))


def _by_rate(axes: Axes, choice: Choice, points: Sequence[Point], color: str, marker: str, scale: float) -> None:
    shown = [(p.rate, scale * p.mean, scale * p.worst) for p in points if p.mean is not None and p.worst is not None]
    if not shown:
        return
    rates, means, worst = zip(*shown, strict=True)
    axes.plot(rates, means, color=color, linewidth=0.9, marker=marker, markersize=3.5)
    if any(len(point.scores) > 1 for point in points):
        axes.plot(rates, worst, color=color, linewidth=0.7, linestyle=":")
    if choice.rate is not None and choice.rate in rates:
        place = rates.index(choice.rate)
        axes.plot(
            choice.rate, means[place], "o", color=color, markersize=8, markerfacecolor="none", markeredgewidth=0.9
        )


def _rows(choice: Choice, tested: Sequence[Point]) -> list[dict[str, Any]]:
    """Returns a row a rate: scores, or validation losses as they are."""
    sign = 1 if choice.search.criterion == DEV else -1
    return [
        {
            "method": choice.search.method, "criterion": choice.search.criterion, "learning_rate": point.rate,
            "seeds": len(point.scores), "failed": point.failed,
            "mean": None if point.mean is None else sign * point.mean,
            "worst": None if point.worst is None else sign * point.worst,
            "test_mean": test.mean, "test_worst": test.worst, "is_chosen": point.rate == choice.rate,
            "at_edge": choice.curve.at_edge, "width_decades": choice.width, "trainings": choice.n_trainings,
        }
        for point, test in zip(choice.curve.points, tested, strict=True)
    ]  # fmt: skip
