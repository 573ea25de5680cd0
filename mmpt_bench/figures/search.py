"""What searches of learning rates found: scores over the rate, on dev and, where models were scored there, on test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.words import counted
from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing, dated
from mmpt_bench.records.keys import without_rate
from mmpt_bench.records.learning_rates import Choice, completed
from mmpt_bench.records.rate_curve import Point, Scores
from mmpt_bench.records.rate_trials import DEV
from mmpt_bench.study.searches.acceptance import labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Learning rates"
SIZE, GAP = (1.85, 1.3), 0.2
"""Inches of a panel, and between two."""
TITLE_WIDTH = 36
"""Characters of a line of a panel's title."""
BELOW = 30.0
"""Points: how far below the lowest best score the axis goes."""
OTHERS = "#c4c4c4"
NOTHING = "No search of learning rates is kept: `mmpt-bench tune` makes one."


def draw(of: FigureData) -> Iterator[Drawn | Missing]:
    """Yields a figure for the searches of each setting that a board is of."""
    groups = _groups(of)
    for number, group in enumerate(groups, start=1):
        name = "search" if len(groups) == 1 else f"search-{number}"
        steps = group[0].search.budget["steps"]
        yield _drawn(
            group,
            of,
            name,
            f"{TITLE}: {counted(len(group), 'search', 'searches')}, trainings of {counted(steps, 'step')}",
        )


def _groups(of: FigureData) -> list[list[Choice]]:
    """Returns the searches of boards' backbones that share backbone, training data, budget and criterion.

    Those made in this results folder, and of the others those of rows on a board; of a method none of whose rows was
    searched as it is, the first one.
    """
    boards = [each.board for each in of.boards]
    backbones = {board.backbone_fingerprint for board in boards}
    rows = [(row.method, without_rate(row.params)) for b in boards for row in b.rows]
    groups: dict[str, dict[str, Choice]] = {}
    for choice in of.choices:
        search = choice.search
        if search.backbone_fingerprint in backbones and choice.rate is not None:
            conditions = [search.backbone_fingerprint, search.corpus_fingerprint, search.budget, search.dtype]
            group = groups.setdefault(content_key([*conditions, search.criterion, search.dev_fingerprint]), {})
            group.setdefault(content_key([search.method, completed(search)]), choice)
    return [_shown(list(group.values()), rows, of) for group in groups.values()]


def _shown(group: Sequence[Choice], rows: Sequence[tuple[str, Mapping[str, Any]]], of: FigureData) -> list[Choice]:
    shown = [
        choice for choice in group
        if choice.search.key in of.search_times or (choice.search.method, completed(choice.search)) in rows
    ]  # fmt: skip
    found = {choice.search.method for choice in shown}
    others = {choice.search.method: choice for choice in reversed(group) if choice.search.method not in found}

    def place(choice: Choice) -> tuple[int, str, bool]:
        method, order = choice.search.method, list(of.colors)
        at = order.index(method) if method in order else len(order)
        return at, method, (method, completed(choice.search)) not in rows

    return sorted([*shown, *others.values()], key=place)


def _drawn(group: Sequence[Choice], of: FigureData, name: str, title: str) -> Drawn:
    is_dev, names = group[0].search.criterion == DEV, labels([choice.search for choice in group])
    tests = [of.test_scores.get(choice.search.key, {}) for choice in group]
    tested = [[_tested(p, test) for p in choice.curve.points] for choice, test in zip(group, tests, strict=True)]
    has_seeds = any(len(point.scores) > 1 for choice in group for point in choice.curve.points)
    room = 0.5 + min(len(group), style.PANELS_A_LINE) * (SIZE[0] + GAP)
    legend = style.Legend(_entries(is_dev, any(tests), has_seeds, len(group) > 1), room)
    figure, axes = style.panels(len(group), size=SIZE, left=0.5, gap=GAP, below=0.45, legend=legend.height)
    rates = [point.rate for choice in group for point in choice.curve.points if not point.failed]
    limits = _limits(group, is_dev)
    for number, (panel, choice, label) in enumerate(zip(axes, group, names, strict=True)):
        color = style.color_of(choice.search.method, of.colors)
        for other in group:
            _line(panel, other.curve.points, is_dev, color=OTHERS, linewidth=0.5, zorder=1)
        _panel(panel, choice, tested[number], color, is_dev)
        style.log_axis(panel.xaxis, min(rates), max(rates))
        panel.set_ylim(limits)
        panel.set_title(style.wrapped(label, TITLE_WIDTH, 2), size=6.5)
        if number % style.PANELS_A_LINE:
            panel.set_yticklabels([])
        else:
            panel.set_ylabel("Score (%)" if is_dev else "Validation loss")
        if number + style.PANELS_A_LINE >= len(group):
            panel.set_xlabel("Learning rate")
    legend.draw(figure)
    edge = [label for choice, label in zip(group, names, strict=True) if choice.curve.at_edge]
    what = "Chance-corrected score, mean over tasks." if is_dev else "Loss in nats a token."
    return Drawn(
        "search", name, title,
        f"{what} Lines are means over seeds; ringed is the chosen rate, the lowest within one standard error of the "
        f"best. {f'Scores over {BELOW:g} points below the lowest best one are not shown. ' * is_dev}Rates with "
        "a failed training are left out.",
        f"{counted(len(group), 'search', 'searches')}. "
        + (f"The best rate is at the edge for {', '.join(edge)}." if edge else "No best rate is at the edge."),
        figure, _source(group, of),
        style.table([row for each in zip(group, names, tested, strict=True) for row in _rows(*each)]),
    )  # fmt: skip


def _entries(is_dev: bool, has_tests: bool, has_seeds: bool, has_others: bool) -> list[tuple[str, Any]]:
    part = "dev" if is_dev else "validation set"
    found = [(part, style.line_entry(style.INK, marker="o", markersize=3.5))]
    found += [(f"{part}, worst seed", style.line_entry(style.INK, ":"))] * has_seeds
    found += [("test", style.line_entry(style.INK, "--"))] * has_tests
    found += [("chosen", style.mark_entry(style.INK, markerfacecolor="none", markersize=8))]
    found += [("within 1 point of the best", style.line_entry(style.PALE, linewidth=6, solid_capstyle="butt"))] * is_dev
    return found + [("the other searches", style.line_entry(OTHERS))] * has_others


def _limits(group: Sequence[Choice], is_dev: bool) -> tuple[float, float]:
    """Returns the ends of the axis of scores, so that rates at which training breaks down do not squeeze the others."""
    best = [_shown_as(of, is_dev) for choice in group if (of := choice.curve.best) is not None]
    if is_dev:
        return min(best) - BELOW, min(100.0, max(best) + 5)
    return 0.95 * min(best), 1.5 * max(best)


def _shown_as(point: Point, is_dev: bool) -> float:
    assert point.mean is not None
    return (100.0 if is_dev else -1.0) * point.mean


def _line(axes: Axes, points: Sequence[Point], is_dev: bool, **look: Any) -> None:
    shown = [(point.rate, _shown_as(point, is_dev)) for point in points if point.mean is not None]
    if shown:
        axes.plot(*zip(*shown, strict=True), **look)


def _panel(axes: Axes, choice: Choice, tested: Sequence[Point], color: str, is_dev: bool) -> None:
    """Draws one search: dev, its worst seed, test, the chosen rate, and the range within 1 point of the best."""
    near = choice.curve.near_best
    if is_dev and near is not None:
        axes.axvspan(10 ** near[0], 10 ** near[1], color=style.PALE, linewidth=0, zorder=0)
    points = choice.curve.points
    _line(axes, points, is_dev, color=color, linewidth=1.0, marker="o", markersize=2.8, zorder=3)
    if any(len(point.scores) > 1 for point in points):
        worst = [Point(p.rate, ((0, p.worst),)) for p in points if p.worst is not None]
        _line(axes, worst, is_dev, color=color, linewidth=0.8, linestyle=":", zorder=2)
    _line(axes, [p for p in tested if p.values], True, color=color, linewidth=0.8, linestyle="--", zorder=2)
    chosen = choice.curve.chosen
    if chosen is not None:
        ring = style.mark_entry(color, markersize=7.5, markerfacecolor="none", markeredgewidth=0.9, zorder=4)
        ring.set_data([chosen.rate], [_shown_as(chosen, is_dev)])
        axes.add_line(ring)


def _source(group: Sequence[Choice], of: FigureData) -> str:
    """Returns suite and date of some searches; those that came with the package keep no date."""
    backbone = group[0].search.backbone_fingerprint
    suite = next((each.board.suite for each in of.boards if each.board.backbone_fingerprint == backbone), "")
    part = "dev part" if group[0].search.criterion == DEV else "validation set"
    times = [of.search_times[each.search.key] for each in group if each.search.key in of.search_times]
    return f"{suite[:1].upper()}{suite[1:]} suite, {part}, {dated(times)}"


def _tested(point: Point, test: Scores) -> Point:
    """Returns a rate with the test scores of its models in the place of those on dev."""
    return Point(point.rate, tuple((seed, test.get((point.rate, seed))) for seed, _ in point.scores))


def _rows(choice: Choice, label: str, tested: Sequence[Point]) -> list[dict[str, Any]]:
    """Returns a row a rate: scores, or validation losses as they are."""
    sign = 1 if choice.search.criterion == DEV else -1
    return [
        {
            "label": label, "method": choice.search.method, "criterion": choice.search.criterion,
            "learning_rate": point.rate, "seeds": len(point.scores), "failed": point.failed,
            "mean": None if point.mean is None else sign * point.mean,
            "worst": None if point.worst is None else sign * point.worst,
            "test_mean": test.mean, "test_worst": test.worst, "is_chosen": point.rate == choice.rate,
            "at_edge": choice.curve.at_edge, "width_decades": choice.width, "trainings": choice.n_trainings,
        }
        for point, test in zip(choice.curve.points, tested, strict=True)
    ]  # fmt: skip
