"""The gallery of explanations in the report: what is shown, how much, and that a damaged file is named."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.figures import explain_gallery
from mmpt_bench.figures.explain_thumbnails import SIDE, write_thumbnails
from mmpt_bench.records.store import Store
from mmpt_bench.report import write
from mmpt_bench.report.content import GALLERY_BYTES, fitting, gather
from mmpt_bench.study.explanations.gallery import Gallery, ShownModel, ShownQuestion, read_galleries
from mmpt_bench.study.explanations.result import ExplainResult, ExplainRow, Item


def explained(one: np.ndarray, other: np.ndarray, right: bool) -> Any:
    return SimpleNamespace(
        answer="yes <b>", is_right=right, probability=0.75, grid=(2, 2), image=np.full((8, 8, 3), 200, np.uint8),
        maps={"grad": one, "loo": other, "random": np.arange(4.0)},
    )  # fmt: skip


@pytest.fixture
def result(tmp_path: Path) -> ExplainResult:
    """Returns two questions: the base's maps agree on the first and are opposite on the second."""
    up, down = np.array([0.0, 1.0, 2.0, 9.0]), np.array([9.0, 2.0, 1.0, 0.0])
    image = LazyImage("p", lambda: Image.new("RGB", (8, 8)))
    items = tuple(Item("mme", Sample(n, image, f"is it {n} ?", ("yes", "no"), "yes"), (8,)) for n in "ab")
    rows = tuple(
        ExplainRow(label, (), (), {}, (), (explained(up, up, True), explained(up, down, False)))
        for label in ("frozen", "mmpt")
    )
    return ExplainResult("made", tmp_path, items, rows, ("grad", "loo", "random"), "mmpt-bench explain mmpt")


def test_the_figure_says_which_suite_questions_and_day_it_is_of(result: ExplainResult) -> None:
    source = "Embedded suite, 9 questions of mme, 2026-01-02"
    figure = explain_gallery._drawn(dataclasses.replace(result, source=source), [0, 1])
    assert figure.texts[-1].get_text().replace("\n", " ") == f"{source}. 2 of them are shown."
    # It stands below every map.
    assert figure.texts[-1].get_window_extent().y1 < min(axes.get_window_extent().y0 for axes in figure.axes)


def test_the_page_shows_questions_with_their_maps_most_disagreement_first(result: ExplainResult) -> None:
    assert write_thumbnails(result) == result.folder / "explain" / "made-gallery.json"
    (gallery,) = read_galleries(Store(result.folder))
    assert [each.question for each in gallery.questions] == ["is it b ?", "is it a ?"]
    # Opposite ranks correlate at -1, equal ones at 1; noise does not count.
    assert [[model.disagreement for model in each.models] for each in gallery.questions] == [[2.0, 2.0], [0.0, 0.0]]
    text = write.page(gather(Store(result.folder), {}), Store(result.folder)).data.decode()
    assert text.count("data:image/webp;base64,") == 2 * 2 * 4
    assert "2 of 2 explained questions" in text
    assert "yes &lt;b&gt;, 75 %" in text
    assert "<b>" not in text
    assert 'data-apart="2.0000 2.0000 "' in text


def test_a_heading_says_what_is_shown_and_each_map_what_it_scores(result: ExplainResult) -> None:
    scores = {("grad", "pointing"): 1.0, ("grad", "energy"): 0.624, ("grad", "beyond_random"): -0.081,
              ("loo", "beyond_random"): 0.001}  # fmt: skip
    rows = tuple(dataclasses.replace(row, each=(scores, scores)) for row in result.rows)
    write_thumbnails(dataclasses.replace(result, rows=rows, setting="Embedded suite, 2 questions of mme; 3 steps"))
    (gallery,) = read_galleries(Store(result.folder))
    assert gallery.questions[0].models[0].scores == ("hit, 62 % inside, -8", "0", "")
    text = write.page(gather(Store(result.folder), {}), Store(result.folder)).data.decode()
    assert "<h3>frozen, mmpt on mme</h3>" in text
    assert "Embedded suite, 2 questions of mme; 3 steps. 2 of 2 explained" in text
    assert "<span>hit, 62 % inside, -8</span>" in text


def test_a_map_marks_its_highest_token(result: ExplainResult) -> None:
    write_thumbnails(result)
    (gallery,) = read_galleries(Store(result.folder))
    shown = Image.open(io.BytesIO(base64.b64decode(gallery.questions[1].models[0].images[1]))).convert("RGB")
    assert shown.size == (SIDE, SIDE)
    quarter = SIDE // 4
    # The lower right token is the highest: `inferno` is bright there, and dark where a map is low.
    bright, low = (np.asarray(shown.getpixel((x, x)), float).sum() for x in (3 * quarter + 9, quarter))
    assert bright > low


def test_what_does_not_fit_is_left_out_from_between_and_counted() -> None:
    image = "A" * (GALLERY_BYTES // 8)
    questions = tuple(
        ShownQuestion("mme", str(i), "yes", (ShownModel("frozen", "yes", 1.0, True, 0.0, (image,)),)) for i in range(16)
    )
    ((kept, left_out),) = fitting([Gallery("a", (), 16, questions)])
    assert left_out == 8
    assert sum(each.n_bytes for each in kept.questions) <= GALLERY_BYTES
    assert (kept.questions[0].question, kept.questions[-1].question) == ("0", "15")


@pytest.mark.parametrize("change", [{"explained": "two"}, {"maps": ["grad"]}, {"questions": None}])
def test_a_damaged_gallery_is_named(result: ExplainResult, change: dict[str, Any]) -> None:
    path = write_thumbnails(result)
    assert path is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UntrustedRecord, match=r"made-gallery\.json` is no gallery: .*Remove it"):
        read_galleries(Store(result.folder))


def test_an_image_that_is_none_is_refused(result: ExplainResult) -> None:
    path = write_thumbnails(result)
    assert path is not None
    whole = json.loads(path.read_text())
    whole["questions"][0]["models"][0]["images"][0] = 'x" onerror="alert(1)'
    path.write_text(json.dumps(whole))
    with pytest.raises(UntrustedRecord, match="not in base64"):
        read_galleries(Store(result.folder))
