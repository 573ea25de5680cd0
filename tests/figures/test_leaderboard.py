"""The figure of a board: the same bytes each time, everything named, nothing written over something else."""

from __future__ import annotations

import dataclasses
import re
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmpt_bench.board.assembly import Evidence
from mmpt_bench.board.board import Board
from mmpt_bench.board.from_records import boards
from mmpt_bench.figures.draw import figures, render
from mmpt_bench.figures.figure_data import Drawn, FigureData, Missing
from mmpt_bench.figures.leaderboard import ROWS_SHOWN, board_figure
from mmpt_bench.figures.style import STYLE
from support.synthetic import failed, keep, recipe, record, samples, store_in, task

COLORS = {"frozen": "#000000", "full": "#009e73", "lora": "#0072b2"}
METHODS = ("frozen", "full", "lora", "projector", "vpt", "prefix")
ASKED = samples(40)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    store = store_in(tmp_path_factory.mktemp("store"))
    titles = ("MME", "POPE", "VSR", "SNLI-VE", "CIFAR-10", "MNIST")
    tasks = {title.lower(): task(title.lower(), title) for title in titles}
    for number, method in enumerate(METHODS):
        for of in tasks.values():
            right = "1" * (number + 5) + "0" * 3
            keep(store, record(store, of, ASKED, right, recipe(method)))
    return boards(store, tasks, 100)[0]


def texts(figure: Figure) -> list[Text]:
    """Returns every text that is drawn; tick labels beyond the ends of an axis exist and are not."""
    beyond = set()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        beyond |= {tick.label1 for tick in axes.xaxis.get_major_ticks() if not low <= tick.get_loc() <= high}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in beyond]


def widened(board: Board, n_methods: int, n_tasks: int) -> Board:
    """Returns a board with as many rows and tasks; rows beyond the first six are variants with long labels."""
    rows = [
        dataclasses.replace(r, label=r.label if copy == 0 else f"{r.label} (rank=64, alpha=128, train_projector=True)")
        for copy in range(2)
        for r in board.rows
    ]
    reference = "full" if any(row.label == "full" for row in rows[:n_methods]) else ""
    return dataclasses.replace(
        board, rows=tuple(rows[:n_methods]), columns=board.columns[:n_tasks], reference=reference
    )


def drawn(board: Board) -> Drawn | Missing:
    """Returns what the figures of a board alone begin with."""
    (made,) = figures(FigureData((Evidence(board, {}, None),), (), (), {}, {}, {}, {}, COLORS), ("leaderboard",))
    return made


def test_figure_does_not_depend_on_the_style_of_the_process(board: Board) -> None:
    import matplotlib as mpl

    first = drawn(board)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        second = drawn(board)
        assert isinstance(first, Drawn)
        assert isinstance(second, Drawn)
        assert render(first, "svg") == render(second, "svg")


def test_of_many_rows_the_first_forty_are_drawn_and_those_that_lines_are_for(board: Board) -> None:
    first = [dataclasses.replace(board.rows[2], label=f"lora {n}") for n in range(60)]
    full, frozen = (next(row for row in board.rows if row.method == name) for name in ("full", "frozen"))
    many = dataclasses.replace(board, rows=(*first, full, frozen), reference="full")
    texts_ = [text.get_text() for text in texts(board_figure(many, COLORS))]
    # Two lines of panels, each with its labels.
    assert [text for text in texts_ if text.startswith("lora ")] == 2 * [f"lora {n}" for n in range(ROWS_SHOWN)]
    assert {"full", "frozen"} <= set(texts_)
    assert any("The first 40 of 62 rows." in " ".join(text.split()) for text in texts_)


def test_every_method_and_task_is_named(board: Board) -> None:
    found = [text.get_text() for text in texts(board_figure(board, COLORS))]
    for method in METHODS:
        assert method in found
    for title in ("Overall (%)", *(f"{column.title} (%)" for column in board.columns)):
        assert title in found
    assert sum(re.fullmatch(r"\d+, 1.0 % trained", text) is not None for text in found) == 10
    assert any("that share a letter are not significantly different" in " ".join(text.split()) for text in found)
    assert any("generated miniature tasks, not the public benchmarks" in " ".join(text.split()) for text in found)
    assert any("embedded suite" in text for text in found)


def test_real_suite_is_not_called_embedded(board: Board) -> None:
    found = [text.get_text() for text in texts(board_figure(dataclasses.replace(board, suite="real"), COLORS))]
    assert not any("miniature" in text for text in found)
    assert any("real suite" in text for text in found)


@pytest.mark.parametrize("n_methods", [1, 3, 6, 12])
@pytest.mark.parametrize("n_tasks", [1, 2, 4, 6])
def test_no_text_is_written_over_another_or_outside(board: Board, n_methods: int, n_tasks: int) -> None:
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        figure = board_figure(widened(board, n_methods, n_tasks), COLORS)
        FigureCanvasAgg(figure).draw()
        boxes = {text: text.get_window_extent() for text in texts(figure)}
    for (a, box_a), (b, box_b) in combinations(boxes.items(), 2):
        # Lines of one label may touch; a pixel at 100 dpi is less than the room inside a letter's box.
        apart = box_a.x1 <= box_b.x0 or box_b.x1 <= box_a.x0 or box_a.y1 <= box_b.y0 + 2 or box_b.y1 <= box_a.y0 + 2
        assert apart, (a.get_text(), b.get_text())
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0, text.get_text()
        assert box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0, text.get_text()
        assert box.y1 <= figure.bbox.y1, text.get_text()


def test_points_stand_at_the_scores_in_the_methods_colours(board: Board) -> None:
    figure = board_figure(board, COLORS)
    panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == "POPE (%)")
    points = [
        (pytest.approx(line.get_xdata()[0]), to_hex(line.get_color()))
        for line in panel.lines
        if line.get_marker() == "o"
    ]
    assert points == [(100 * row.cells["pope"].score, COLORS.get(row.method, "#777777")) for row in board.rows]


def test_best_method_stands_at_the_top(board: Board) -> None:
    panel = board_figure(board, COLORS).axes[0]
    points = [line for line in panel.lines if line.get_marker() == "o"]
    by_height = sorted(points, key=lambda line: float(line.get_ydata()[0]))
    scores = [float(line.get_xdata()[0]) for line in by_height]
    assert panel.yaxis_inverted()
    assert scores == sorted(scores, reverse=True)


def test_dollar_signs_are_no_formulas(board: Board) -> None:
    odd = dataclasses.replace(board, rows=(dataclasses.replace(board.rows[0], label="a $\\frac$ b"), *board.rows[1:]))
    assert "a \\$\\frac\\$ b" in [text.get_text() for text in texts(board_figure(odd, COLORS))]


def test_board_without_a_result_is_not_drawn(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    keep(store, failed(recipe()))
    made = drawn(boards(store, {}, 100)[0])
    assert isinstance(made, Missing)
    assert "mmpt-bench run" in made.reason
