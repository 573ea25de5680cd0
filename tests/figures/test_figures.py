"""Figures: the same bytes each time, a table behind each, no label over another, and what is missing."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.figures.draw import figures, render, write
from mmpt_bench.figures.figure_data import KINDS, Drawn, FigureData, Missing, dated, figure_data, source_of
from mmpt_bench.figures.names import Named, write_names
from mmpt_bench.figures.pareto import front_shares
from mmpt_bench.figures.points import reference_rows
from mmpt_bench.figures.style import apart, marks_of, short
from mmpt_bench.records.learning_curves import publish_learning_curves, read_learning_curves, thinned
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.rate_curve import Curve
from mmpt_bench.records.store import Store
from mmpt_bench.study.ablations.board import AblationBoard
from support.command import bench
from support.studies import COLORS, add_stream, study, study_tasks
from support.synthetic import keep, recipe, record, samples, store_in, task


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return add_stream(study(tmp_path_factory.mktemp("study"), n_seeds=2))


@pytest.fixture(scope="module")
def made_of(store: Store) -> FigureData:
    return figure_data(store, study_tasks(), COLORS, n_resamples=60)


@pytest.fixture(scope="module")
def drawn(made_of: FigureData) -> dict[str, Drawn]:
    found = list(figures(made_of))
    assert not [each for each in found if isinstance(each, Missing)]
    return {each.kind: each for each in found if isinstance(each, Drawn)}


def test_every_kind_of_figure_is_drawn(drawn: dict[str, Drawn]) -> None:
    assert tuple(drawn) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_no_label_is_written_over_another_or_beyond_the_figure(drawn: dict[str, Drawn], kind: str) -> None:
    check_labels(drawn[kind].figure)


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_has_words_for_those_who_do_not_see_it_and_its_table(drawn: dict[str, Drawn], kind: str) -> None:
    each = drawn[kind]
    assert len(each.alt) > 30
    assert len(each.caption) > 30
    rows = list(csv.DictReader(io.StringIO(each.csv.decode())))
    assert rows
    assert all(None not in row and None not in row.values() for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_drawn_again_has_the_same_bytes(made_of: FigureData, drawn: dict[str, Drawn], kind: str) -> None:
    again = next(each for each in figures(made_of) if each.name == drawn[kind].name)
    assert isinstance(again, Drawn)
    for form in ("svg", "pdf"):
        assert render(again, form) == render(drawn[kind], form)
    assert again.csv == drawn[kind].csv


def test_files_hold_no_date_and_their_names_are_the_figure(drawn: dict[str, Drawn], tmp_path: Path) -> None:
    paths = write(drawn["pareto"], tmp_path)
    assert sorted(path.name for path in paths) == [f"pareto-embedded.{end}" for end in ("csv", "pdf", "png", "svg")]
    assert b"dc:date" not in (tmp_path / "pareto-embedded.svg").read_bytes()
    assert b"CreationDate" not in (tmp_path / "pareto-embedded.pdf").read_bytes()


def test_letters_can_stay_text_for_a_page_and_are_smaller_then(drawn: dict[str, Drawn]) -> None:
    outlines, text = render(drawn["subtasks"], "svg"), render(drawn["subtasks"], "svg", "text")
    assert b"commonsense reasoning" in text
    assert len(text) < len(outlines)


def test_one_colour_a_method_in_every_figure(drawn: dict[str, Drawn]) -> None:
    for kind in [kind for kind in KINDS if kind not in ("heat-map", "stream")]:
        svg = render(drawn[kind], "svg").decode().lower()
        assert COLORS["full"].lower() in svg, kind


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "search"])
def test_every_figure_says_suite_subset_and_date_inside_the_image(drawn: dict[str, Drawn], kind: str) -> None:
    source = "Embedded suite, all questions, newest record 2026-01-01"
    assert source in [t.get_text().replace("\n", " ") for t in texts(drawn[kind].figure)]


def test_a_subset_and_the_newest_day_are_said(made_of: FigureData) -> None:
    (evidence,) = made_of.boards
    columns = tuple(dataclasses.replace(column, n=1000) for column in evidence.board.columns)
    of_limit = dataclasses.replace(evidence.board, suite="real", limit=1000, columns=columns)
    first = dataclasses.replace(evidence, board=of_limit)
    assert source_of(first) == "Real suite, the first 1,000 questions of each task, newest record 2026-01-01"
    more = dataclasses.replace(of_limit, columns=(*columns[:-1], dataclasses.replace(columns[-1], n=1012)))
    told = "the first questions of each task (1,000 of MME, 1,000 of POPE, 1,012 of MNIST)"
    assert told in source_of(dataclasses.replace(evidence, board=more))
    assert dated(["2026-01-02T23:59:59Z", "2026-03-01T00:00:00Z"]) == "newest record 2026-03-01"
    assert dated([]) == "no date recorded"


def test_the_sign_of_a_difference_is_said_on_every_axis(drawn: dict[str, Drawn]) -> None:
    labels = {axes.get_xlabel() for axes in drawn["differences"].figure.axes}
    assert labels == {f"A − B, {unit}\nabove 0: A better" for unit in ("percentage points", "points")}
    assert "A: the row; B: mmpt" in [t.get_text() for t in texts(drawn["differences"].figure)]


def test_an_ablation_of_the_learning_rate_is_called_so(made_of: FigureData) -> None:
    board = next(each for each in made_of.ablations if each.ablation.name == "lengths")
    points = [dataclasses.replace(p, values={"lr": str(n)}) for n, p in enumerate(board.ablation.points, start=1)]
    ablation = dataclasses.replace(board.ablation, name="mmpt-lr", axes={"lr": ["1", "2", "3", "4"]}, points=points)
    changed = dataclasses.replace(board, ablation=ablation)
    (each,) = figures(dataclasses.replace(made_of, ablations=(changed,)), ("ablation-curves",))
    assert (each.name, each.title) == ("ablation-curves-mmpt-lr", "Score by learning rate: mmpt")


@pytest.mark.parametrize("kind", ["ablation-curves", "components", "heat-map"])
def test_a_figure_of_an_ablation_names_the_points_with_few_seeds(
    made_of: FigureData, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = "fewer than 6 seeds of mmpt (prompt-len=5), so that their differences are not significant."
    monkeypatch.setattr(AblationBoard, "exploratory", few)
    each = next(figures(made_of, (kind,)))
    assert isinstance(each, Drawn)
    assert f"Exploratory: {few} Generated miniature tasks" in each.caption


def test_a_method_that_is_varied_is_no_line_for_reference(made_of: FigureData) -> None:
    board = next(each for each in made_of.ablations if each.ablation.name == "lengths")
    found = [row.method for row in reference_rows(board, made_of)]
    assert "full" in found
    points = [dataclasses.replace(board.ablation.points[0], method="full"), *board.ablation.points[1:]]
    changed = dataclasses.replace(board, ablation=dataclasses.replace(board.ablation, points=points))
    assert [row.method for row in reference_rows(changed, made_of)] == [name for name in found if name != "full"]


def test_learning_curves_are_a_mean_a_band_and_two_seeds_a_method(drawn: dict[str, Drawn]) -> None:
    (axes,) = drawn["learning-curves"].figure.axes
    lines = {width: [line for line in axes.lines if line.get_linewidth() == width] for width in (0.5, 1.6)}
    assert (len(lines[0.5]), len(lines[1.6]), len(axes.collections)) == (2 * 6, 6, 6)
    # Seeds 0 and 1 differ by .02 everywhere: the mean lies between them, the band .02 / sqrt(2) to each side.
    low, high = (np.asarray(line.get_ydata(), float) for line in lines[0.5][:2])
    mean = np.asarray(lines[1.6][0].get_ydata(), float)
    assert mean == pytest.approx((low + high) / 2)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(mean.max() + 0.02 / np.sqrt(2))


def test_methods_are_named_beside_their_marks(drawn: dict[str, Drawn]) -> None:
    for axes in drawn["pareto"].figure.axes:
        names = {t.get_text().split(" ")[0] for t in axes.texts}
        assert names == {"projector", "mmpt", "vpt", "prefix", "lora", "full"}


def test_names_in_a_crowd_stand_apart_and_inside(made_of: FigureData) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3))
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    marks = [Named(f"method number {i}", 1 + 0.001 * i, 1, (0.9, 1.1)) for i in range(12)]
    axes.plot([each.x for each in marks] + [2], [each.y for each in marks] + [2], "o")
    write_names(axes, marks)
    assert len(axes.texts) == 12
    check_labels(figure)


def test_places_are_moved_apart_by_as_little_as_can_be() -> None:
    assert apart([5.0, 0.0, 0.0], 1.0) == [5.0, -0.5, 0.5]
    # The third pushes the first two down: 0, .5 and 1 become three places one apart around their mean.
    assert apart([0.0, 0.5, 1.0], 1.0) == pytest.approx([-0.5, 0.5, 1.5])


def test_nothing_recorded_says_what_makes_each_figure(tmp_path: Path) -> None:
    found = list(figures(figure_data(store_in(tmp_path), study_tasks(), COLORS)))
    assert all(isinstance(each, Missing) and "mmpt-bench" in each.reason for each in found)
    assert tuple(each.kind for each in found) == KINDS
    assert "Nothing is recorded in `mmpt-results`" in bench("figures", cwd=tmp_path, code=2).stderr


@pytest.mark.parametrize(("method", "trained"), [("mmpt", True), ("frozen", False)])
def test_one_method_with_one_seed_draws_what_it_can(method: str, trained: bool, tmp_path: Path) -> None:
    store, of = store_in(tmp_path), task("pope", "POPE")
    keep(store, record(store, of, samples(20), "110", recipe(method)))
    found = {each.kind: each for each in figures(figure_data(store, {"pope": of}, COLORS, n_resamples=30))}
    assert {kind for kind, each in found.items() if isinstance(each, Drawn)} == {"leaderboard"}
    pareto = found["pareto"]
    assert isinstance(pareto, Missing)
    assert "a front needs two" in pareto.reason


def test_a_search_has_a_panel_variants_too_and_those_of_the_package_only_where_they_are_on_a_board(
    made_of: FigureData,
) -> None:
    def panels(choices: Sequence[Choice], times: Mapping[str, str]) -> list[str]:
        (made,) = figures(dataclasses.replace(made_of, choices=tuple(choices), search_times=times), ["search"])
        assert isinstance(made, Drawn)
        check_labels(made.figure)
        return [axes.get_title(loc="left") for axes in made.figure.axes]

    first = next(choice for choice in made_of.choices if choice.search.method == "lora")
    r = first.search.params["r"]
    other = dataclasses.replace(first, search=dataclasses.replace(first.search, params=first.search.params | {"r": 99}))
    assert panels([other, first], {}) == ["lora"]
    assert panels([other, first], {other.search.key: "2026-01-01"}) == [f"lora (r={r})", "lora (r=99)"]


def test_a_rate_at_which_training_breaks_down_does_not_squeeze_the_others(made_of: FigureData) -> None:
    first = next(choice for choice in made_of.choices if choice.search.method == "lora")
    *points, last = first.curve.points
    broken = dataclasses.replace(last, scores=tuple((seed, -5.0) for seed, _ in last.scores))
    choice = dataclasses.replace(first, curve=Curve((*points, broken)))
    (made,) = figures(dataclasses.replace(made_of, choices=(choice,)), ["search"])
    best = first.curve.best
    assert isinstance(made, Drawn)
    assert best is not None
    assert best.mean is not None
    assert made.figure.axes[0].get_ylim()[0] == pytest.approx(100 * best.mean - 30)
    assert b"-5.0" in made.csv


def test_many_methods_with_long_names_do_not_collide(made_of: FigureData) -> None:
    evidence = made_of.boards[0]
    rows = [dataclasses.replace(r, label=r.label, params=r.params) for r in evidence.board.rows]
    longer = {r.label: f"{r.label} (rank=64, alpha=128, train_projector=True)" for r in rows if r.trains}
    rows = [dataclasses.replace(r, label=longer.get(r.label, r.label)) for r in rows]
    board = dataclasses.replace(evidence.board, rows=tuple(rows), reference="")
    scores = {longer.get(label, label): value for label, value in evidence.scores.items()}
    assert evidence.overall is not None
    methods = tuple(longer.get(label, label) for label in evidence.overall.methods)
    overall = dataclasses.replace(evidence.overall, methods=methods)
    changed = dataclasses.replace(evidence, board=board, scores=scores, overall=overall)
    for each in figures(dataclasses.replace(made_of, boards=(changed,), ablations=())):
        if isinstance(each, Drawn):
            check_labels(each.figure)


def test_a_method_is_on_the_front_where_none_scores_more_for_no_more() -> None:
    scores = np.array([[0.5, 0.6, 0.4], [0.5, 0.4, 0.4]])
    # In the first draw the second beats the first at the same cost; the third costs least.
    assert front_shares(scores, [2.0, 2.0, 1.0]).tolist() == [0.5, 0.5, 1.0]


def test_costs_that_were_not_measured_are_not_drawn_and_the_caption_says_so(made_of: FigureData) -> None:
    (evidence,) = made_of.boards

    def pareto(**unknown: None) -> Drawn:
        rows = tuple(
            dataclasses.replace(row, **unknown) if row.label in ("lora", "mmpt") or len(unknown) > 1 else row
            for row in evidence.board.rows
        )
        changed = dataclasses.replace(evidence, board=dataclasses.replace(evidence.board, rows=rows))
        found = next(iter(figures(dataclasses.replace(made_of, boards=(changed,)), ("pareto",))))
        assert isinstance(found, Drawn)
        return found

    none = pareto(own_bytes=None, train_seconds=None, cpu_seconds=None)
    assert [axes.get_title("left") for axes in none.figure.axes] == ["By parameters"]
    assert "Not measured, so not drawn: memory; time; CPU time; `mmpt-bench run --measure-costs`" in none.caption
    check_labels(none.figure)
    some = pareto(own_bytes=None)
    assert [axes.get_title("left") for axes in some.figure.axes][:2] == ["By parameters", "By memory"]
    assert "memory of lora, mmpt" in some.caption
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(some.csv.decode()))}
    assert (rows["lora"]["own_bytes"], rows["lora"]["on_front_by_own_bytes"]) == ("", "")
    assert rows["full"]["on_front_by_own_bytes"] != ""


def test_curves_are_means_over_stretches_and_are_kept_without_the_runs(store: Store, tmp_path: Path) -> None:
    curve = thinned("run", [float(step) for step in range(100)])
    assert curve.steps == tuple(range(2, 101, 2))
    assert curve.losses[:2] == (0.5, 2.5)
    before = read_learning_curves(store)
    publish_learning_curves(store)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "learning_curves.jsonl").write_bytes(store.path("learning_curves.jsonl").read_bytes())
    store.path("learning_curves.jsonl").unlink()
    assert read_learning_curves(Store(tmp_path / "results")) == before


def test_a_damaged_curve_is_said(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.root.mkdir()
    store.path("learning_curves.jsonl").write_text('{"run": "a"}\n')
    with pytest.raises(UntrustedRecord, match="no learning curve"):
        read_learning_curves(store)


def test_numbers_are_short() -> None:
    assert [short(v) for v in (5e-5, 1e-4, 0.001, 0.5)] == ["5e-5", "1e-4", "0.001", "0.5"]
    assert [short(v) for v in (20, 50_000, 1_500_000)] == ["20", "50k", "1.5M"]


def test_a_method_has_one_mark_in_all_figures_and_its_variants_others() -> None:
    colors = dict.fromkeys(("frozen", "full", "lora", "mmpt"), "#000000")
    assert (
        marks_of([("mmpt", "mmpt"), ("full", "full")], colors)
        == marks_of([("full", "full"), ("mmpt", "mmpt")], colors)[::-1]
    )
    marks = marks_of([("lora", "lora"), ("lora (r=4)", "lora"), ("mine", "mine"), ("mmpt", "mmpt")], colors)
    assert len(set(marks)) == 4
    assert marks[0] == marks_of([("lora", "lora")], colors)[0]


def texts(figure: Figure) -> list[Text]:
    """Returns every text that is drawn; tick labels beyond the ends of an axis exist and are not."""
    beyond = set()
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            beyond |= {tick.label1 for tick in ticks if not low <= tick.get_loc() <= high}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in beyond]


def check_labels(figure: Figure) -> None:
    """Fails where two texts overlap, or one leaves the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"`{text}` leaves the figure: {box}"
    for (text, box), (other, second) in combinations(boxes, 2):
        apart = box.x1 <= second.x0 or second.x1 <= box.x0 or box.y1 <= second.y0 or second.y1 <= box.y0
        assert apart, f"`{text}` and `{other}` overlap"
