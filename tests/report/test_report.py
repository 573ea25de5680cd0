"""The report as a page: what it says, how it is built, and what it says where something is missing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mmpt_bench import api
from mmpt_bench.board.from_records import boards
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.rows import Rows
from mmpt_bench.data.samples import Sample
from mmpt_bench.embedded import suite
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records import ablations
from mmpt_bench.records.ablations import Ablation, Point
from mmpt_bench.records.adapter_kept import let_go
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.run_folder import TENSORS
from mmpt_bench.records.store import Store
from mmpt_bench.report import audit, drawings, write
from mmpt_bench.report.content import Content, gather
from mmpt_bench.report.costs import costs
from mmpt_bench.report.missing import gaps
from mmpt_bench.report.questions import Asked
from mmpt_bench.study.rerun import reproduce, run_command, tune_command
from support.command import bench
from support.pages import HEADINGS, Element, parsed
from support.paths import ROOT
from support.studies import study, study_tasks
from support.synthetic import answers, failed, keep, recipe, record, samples, store_in, task

HOSTILE = "<img src=x onerror=alert(1)>\"'&\x1b[31m\u202e=cmd()"
COLOURS, SHAPES = task("colours", "Colours"), task("shapes", "Shapes")
ASKED = {"colours": samples(40), "shapes": samples(24)}
TASKS = {"colours": COLOURS, "shapes": SHAPES}


def add(store: Store, right: str, made_by: Recipe | None = None, of: Task = COLOURS, **changes: Any) -> None:
    keep(store, record(store, of, ASKED[of.name], right, made_by, **changes))


def two_methods(folder: Path, n_seeds: int = 2) -> Store:
    store = store_in(folder)
    for seed in range(n_seeds):
        for method, right in (("mmpt", "1101"), ("full", "11110")):
            for of in TASKS.values():
                add(store, right[seed % 2 :] + right, recipe(method, seed), of)
    add(store, "10", recipe("frozen", 0, {"learning_rate": 0.0}))
    add(store, "10", recipe("frozen", 0, {"learning_rate": 0.0}), SHAPES)
    return store


def content_of(store: Store, tasks: dict[str, Task] | None = None) -> Content:
    return gather(store, TASKS if tasks is None else tasks, n_resamples=200, kinds=("leaderboard",))


def page_of(store: Store, tasks: dict[str, Task] | None = None) -> Element:
    return parsed(write.page(content_of(store, tasks), store).data)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return two_methods(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def content(store: Store) -> Content:
    return content_of(store)


@pytest.fixture(scope="module")
def data(store: Store, content: Content) -> bytes:
    return write.page(content, store).data


@pytest.fixture(scope="module")
def page(data: bytes) -> Element:
    return parsed(data)


@pytest.fixture(scope="module")
def study_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Returns a whole study: a board, three ablations, searches and training logs."""
    return study(tmp_path_factory.mktemp("study"), 2)


@pytest.fixture(scope="module")
def study_content(study_store: Store) -> Content:
    return gather(study_store, study_tasks(), n_resamples=60)


@pytest.fixture(scope="module")
def study_page(study_store: Store, study_content: Content) -> Element:
    return parsed(write.page(study_content, study_store).data)


def packed(page: Element) -> dict[str, Any]:
    text = page.one("script", id="packed").text
    value: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return value


def test_page_is_one_file_that_loads_nothing(page: Element, data: bytes) -> None:
    for element in page.all():
        for name in ("src", "href", "srcset", "action"):
            value = element.attributes.get(name, "")
            assert value.startswith(("data:", "#")) or not value, f"<{element.name} {name}={value[:60]}>"
    assert not page.all("link")
    assert not page.all("iframe")
    assert b"@import" not in data
    assert b"url(" not in data.split(b"<body>")[0]
    assert len(data) < write.MAX_BYTES


def test_policy_allows_this_script_and_this_style_alone(page: Element) -> None:
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    for name in ("style", "script"):
        (own,) = [each for each in page.all(name) if "type" not in each.attributes]
        source = "".join(child for child in own.children if isinstance(child, str))
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [each for each in page.all() if "style" in each.attributes]
    assert not [name for each in page.all() for name in each.attributes if name.startswith("on")]


def test_same_records_give_the_same_bytes(store: Store, data: bytes) -> None:
    assert write.page(content_of(store), store).data == data


def test_order_of_records_does_not_matter(tmp_path: Path, store: Store, data: bytes) -> None:
    other = store_in(tmp_path)
    for of in TASKS.values():
        other.write_samples(ASKED[of.name])
    for each in reversed(store.records()):
        keep(other, each)
    assert write.page(content_of(other), other).data == data


def test_structure_for_screen_readers(page: Element) -> None:
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").text
    assert len(page.all("main")) == len(page.all("h1")) == 1
    assert page.one("nav").attributes["aria-label"]
    ids = [each.attributes["id"] for each in page.all() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    for element in page.all():
        for name in ("aria-labelledby", "for"):
            if name in element.attributes:
                assert element.attributes[name] in ids
        if element.attributes.get("href", "").startswith("#"):
            assert element.attributes["href"][1:] in ids
    levels = [int(each.name[1]) for each in page.one("main").all() if each.name in HEADINGS]
    assert levels[0] == 1
    assert all(later <= before + 1 for before, later in pairwise(levels)), levels


def test_every_table_has_caption_and_scopes(page: Element) -> None:
    tables = [table for table in page.all("table") if table.attributes.get("id") != "raw"]
    assert len(tables) > 6
    for table in tables:
        assert table.one("caption").text
        assert {cell.attributes.get("scope") for cell in table.all("th")} <= {"col", "row"}
        widths = {sum(int(cell.attributes.get("colspan", 1)) for cell in row.children
                      if isinstance(cell, Element)) for row in table.all("tr")}  # fmt: skip
        assert len(widths) == 1, f"rows of different width in `{table.one('caption').text}`: {widths}"
    for table in page.all("table", class_="sortable"):
        assert [cell for cell in table.all("th", aria_sort="none")]


def test_every_picture_and_control_has_a_name(page: Element) -> None:
    assert all(image.attributes.get("alt") for image in page.all("img"))
    labelled = [each for label in page.all("label") for each in label.all()]
    for control in [*page.all("input"), *page.all("select")]:
        assert any(control is each for each in labelled), control.attributes
    for region in page.all("div", class_="scroll"):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-label"]


def test_every_cell_leads_to_its_detail_and_its_answers(store: Store, page: Element) -> None:
    data = packed(page)
    cells = page.all("a", class_="cell")
    assert len(cells) == 9  # three methods, overall and two tasks
    by_id = {row.attributes.get("id"): row for row in page.all("tr")}
    for cell in cells:
        row = by_id[cell.attributes["href"][1:]]
        heads = [head.text for head in _table_of(page, row).one("thead").all("th")]
        assert {"95 % interval", "Interval from"} <= set(heads)
        for pair in row.attributes.get("data-keys", "").split():
            seed, key = pair.split(":")
            assert data["answers"][key]["run"]
            assert int(seed) in (0, 1)
    assert set(data["answers"]) == {each.eval_key for each in store.records()}


def _table_of(page: Element, row: Element) -> Element:
    return next(table for table in page.all("table") if any(each is row for each in table.all("tr")))


def test_packed_answers_are_those_of_the_records(store: Store, page: Element) -> None:
    data = packed(page)
    for each in store.records():
        known = data["answers"][each.eval_key]
        assert (known["parsed"], known["ranked"]) == (each.parsed_choices, each.ranked_choices)
        file = data["samples"][known["samples"]]
        asked = store.read_samples(each.samples)
        assert file["ids"] == [sample.id for sample in asked]
        assert [file["choices"][s][r] for s, r in zip(file["set"], file["right"], strict=True)] == [
            sample.answer for sample in asked
        ]


def test_replies_are_packed_where_the_run_kept_them(tmp_path: Path) -> None:
    from mmpt_bench.data.samples import Prediction

    store = store_in(tmp_path)
    add(store, "1")
    (only,) = store.records()
    made = [Prediction(s.id, f"I say {HOSTILE} {s.id}", s.answer, s.answer, (0.0, -1.0)) for s in ASKED["colours"]]
    store.run(only.run).append_predictions(only.task, only.eval_key, made)
    known = packed(page_of(store))["answers"][only.eval_key]
    said = known["replies"][known["reply"][3]]
    assert said.startswith("I say <img")
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_answers_beyond_the_limit_are_left_out_and_named(
    store: Store, content: Content, page: Element, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = len(page.one("script", id="packed").text)
    monkeypatch.setattr(write, "ANSWER_BYTES", whole)  # parts compressed apart are larger than all of it at once
    made = write.page(content, store)
    smaller = parsed(made.data)
    kept = packed(smaller)["answers"]
    assert 0 < len(kept) < 10
    assert made.answers_left_out == 10 - len(kept)
    assert f"leaves out the answers of {made.answers_left_out} record" in smaller.text
    first_seeds = {each.eval_key for each in store.records() if each.seed == 0}
    assert set(kept) <= first_seeds or first_seeds <= set(kept)


def test_what_makes_the_page_too_large_is_packed_whole_the_last_first(
    store: Store, content: Content, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "MAX_BYTES", len(data) - 1)
    made = write.page(content, store)
    assert len(made.data) < len(data)
    assert (made.answers_left_out, made.figures_left_out) == (0, ())
    part = re.compile(rb'<div data-part="([^"]*)">.*?</div>')
    assert part.sub(lambda found: zlib.decompress(base64.b64decode(found[1])), made.data) == data
    assert made.data.index(b"data-part") > made.data.index(b'id="detail"')
    assert b"\0" not in data


def test_tables_larger_than_the_limit_are_refused(
    store: Store, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "MAX_BYTES", 20_000)
    with pytest.raises(RequestError, match="The tables of this report alone take"):
        write.page(content, store)


@pytest.mark.slow
def test_figures_stand_where_they_belong_with_their_words_and_tables(study_page: Element) -> None:
    by_id = {each.attributes["aria-labelledby"]: each for each in study_page.all("section")}
    ids = {name: [f.attributes["id"] for f in by_id[name].all("figure")] for name in ("figures", "ablations")}
    assert ids["figures"] == [
        f"f-{name}" for name in ("leaderboard-embedded", "pareto-embedded", "differences-embedded",
                                 "subtasks-embedded", "learning-curves-embedded", "search")
    ]  # fmt: skip
    assert ids["ablations"] == ["f-heat-map-grid", "f-ablation-curves-lengths", "f-components-parts"]
    figure = study_page.one("figure", id="f-ablation-curves-lengths")
    assert (
        figure.one("svg").attributes["aria-label"].startswith("Score by prompts a layer, each side: mmpt. Scores along")
    )
    assert [head.text for head in figure.one("thead").all("th")][:3] == ["method", "prompt-len", "task"]


def test_an_ablation_has_its_figure_table_and_command(study_page: Element) -> None:
    section = study_page.one("section", aria_labelledby="ablations")
    _, lengths, parts = section.all("article")
    assert lengths.one("h3").text == "Prompt-len of mmpt"
    assert lengths.one("pre").text == "mmpt-bench ablate --prompt-len 5,10,20,40 --seeds 0,1 --tasks mme,pope"
    table = lengths.one("div", aria_label="Points of prompt-len of mmpt").one("table")
    labels = [row.one("th").text for row in table.one("tbody").all("tr")]
    assert labels == [*(f"mmpt (prompt-len={n})" for n in (5, 10, 20, 40)), "frozen"]
    assert "mmpt (parts=visual)" in parts.text
    assert "parts of mmpt" in section.text


def test_from_an_ablations_score_a_link_leads_to_what_is_behind_it(study_page: Element) -> None:
    section = study_page.one("section", aria_labelledby="ablations")
    rows = {row.attributes["id"]: row for row in study_page.all("tr") if "id" in row.attributes}
    links = section.all("a", class_="cell")
    assert len(links) > 30
    for link in links:
        row = rows[link.attributes["href"].removeprefix("#")]
        assert link.text.split(" (")[0].removesuffix(" %") in row.all("td")[0].text
    mme = rows[links[1].attributes["href"].removeprefix("#")]
    assert mme.one("th").text == "mmpt (visual-len=5, text-len=5)"
    assert {key.split(":")[1] for key in mme.attributes["data-keys"].split()} <= packed(study_page)["answers"].keys()


def test_runs_on_two_boards_are_packed_once(study_page: Element, study_content: Content) -> None:
    keys = [k for r in study_page.all("tr") for k in r.attributes.get("data-keys", "").split()]
    own = [key.split(":")[1] for key in keys]
    # The frozen model and MMPT as it is stand on the leaderboard and on the boards of ablations.
    assert len(set(own)) < len(own)
    assert packed(study_page)["answers"].keys() == set(own) == study_content.records.keys()


def test_an_ablation_without_a_leaderboard_is_shown_and_what_is_missing_said(tmp_path: Path) -> None:
    store, of = store_in(tmp_path), COLOURS
    points = []
    for length in (5, 10, 20):
        by = recipe("mmpt", 0, {"learning_rate": 0.01, "n_text": length})
        points.append(Point(f"mmpt (text-len={length})", "mmpt", {"text-len": str(length)}, by.variant_key, False))
        if length < 20:
            add(store, "1110", by, of)
    command_ = "mmpt-bench ablate --text-len 5,10,20"
    ablations.write(store, Ablation("made", {"text-len": ["5", "10", "20"]}, points, [], None, command_))
    content = content_of(store)
    page = parsed(write.page(content, store).data)
    assert page.one("h1").text == "Ablations without a leaderboard"
    assert [gap.what for gap in content.gaps] == [
        "No method was run as it is by default, so there is no leaderboard: the ablations stand alone.",
        "1 of 3 points of an ablation has no result: mmpt (text-len=20).",
    ]
    assert f"{command_} --seeds 0" in [pre.text for pre in page.one("section", aria_labelledby="ablations").all("pre")]
    assert [link.text[:4] for link in page.all("a", class_="cell")] == ["75.0", "75.0"]


def test_the_page_of_the_command_has_the_figures_of_the_results_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = two_methods(tmp_path)
    monkeypatch.setattr(task_catalog, "task_entries", lambda: {name: name for name in TASKS})
    monkeypatch.setattr(task_catalog, "load_task", lambda entry: TASKS[entry])
    page = parsed(api.write_report(store.root).path.read_bytes())
    drawn = {each.attributes["id"] for each in page.all("figure")}
    assert {"f-leaderboard-embedded", "f-pareto-embedded", "f-differences-embedded"} <= drawn


def test_two_boards_on_other_data_of_one_task_are_each_asked_for_their_own_questions() -> None:
    board: Any = SimpleNamespace(suite="embedded")
    of: list[Any] = [
        SimpleNamespace(task="mme", data_fingerprint=print_) for print_ in ("older", suite.fingerprint("mme"))
    ]
    asked = Asked({"mme": task_catalog.load_task(task_catalog.task_entries()["mme"])}, None)
    assert "is not what was asked" in asked(board, of[0]).reason
    assert len(asked(board, of[1]).samples) == 480


def test_figures_beyond_the_limit_are_left_out_and_named(
    store: Store, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "FIGURE_BYTES", 10)
    made = write.page(content, store)
    assert made.figures_left_out == ("leaderboard-embedded",)
    assert "Not in this page, for its size: leaderboard-embedded" in parsed(made.data).text


def test_what_others_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    params = {"learning_rate": 0.001, "note": HOSTILE}
    add(store, "1110", recipe("lora", 0, params), learning_rate_source=HOSTILE)
    add(store, "1111", recipe("lora", 1, {"learning_rate": 0.001, "note": "plain"}))
    keep(store, failed(recipe("vpt", 0, {"learning_rate": 0.1}), reason=f"</script></table>{HOSTILE}"))
    data = write.page(content_of(store), store).data
    page = parsed(data)
    assert not [image for image in page.all("img") if image.attributes["src"] == "x"]
    assert len(page.all("script")) == 2
    assert b"\x1b" not in data
    assert "\u202e".encode() not in data
    assert "</script></table><img src=x onerror=alert(1)>" in page.text


def test_empty_store_says_what_to_run(tmp_path: Path) -> None:
    page = page_of(store_in(tmp_path))
    assert page.one("h1").text == "No results yet"
    assert not page.one("main").all("figure")
    assert "mmpt-bench run --method all" in page.text or "--method frozen,projector,mmpt" in page.text


def test_an_untrained_model_alone_lacks_no_seeds(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "10", recipe("frozen", 0, {"learning_rate": 0.0}), trainable=0)
    page = page_of(store)
    assert re.search(
        r"Only the untuned baseline can be ranked: it scores .* over one task\. Here 0 % is guessing", page.text
    )
    assert "no seeds" not in page.text
    assert "Exploratory" not in page.text


def test_one_method_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("mmpt", 0))
    page = page_of(store)
    first, second = (each.text for each in page.all("p", class_="says"))
    assert first.startswith("Only MMPT can be ranked")
    assert "something to compare" in second
    assert "Only mmpt was run" in page.text
    assert "Methods disagree from two on" in page.text


def test_one_seed_is_called_exploratory(tmp_path: Path) -> None:
    page = page_of(two_methods(tmp_path, n_seeds=1))
    first = page.all("p", class_="says")[0].text
    assert first.startswith("No method is significantly better than another with fewer than 6 seeds, here one seed: by")
    assert "--seeds 0,1,2,3,4,5" in page.text
    assert "with one, a difference may be of these trainings alone" in page.text


def test_six_seeds_give_a_winner(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for seed in range(8):
        add(store, "1", recipe("full", seed))
        add(store, "10", recipe("mmpt", seed))
    says = [each.text for each in page_of(store).all("p", class_="says")]
    assert says[0].startswith("Full fine-tuning is significantly better than MMPT: over one task and eight seeds")
    assert says[1].startswith("MMPT trains")
    assert "significantly worse than full fine-tuning (−100.0 percentage points" in says[1]


def test_task_without_a_run_is_named_with_its_command(page: Element) -> None:
    texts = [item.text for item in page.all("ul", class_="gaps")[0].all("li")]
    (absent,) = [text for text in texts if "no finished run on this board" in text]
    assert "cifar10, mme, mnist, pope, snli_ve and vsr" in absent
    assert "mmpt-bench run --method" in absent
    assert "--tasks all --seeds 0,1" in absent


def test_missing_cell_is_a_dash_and_a_command(tmp_path: Path) -> None:
    store = two_methods(tmp_path)
    add(store, "1110", recipe("lora", 0))
    page = page_of(store)
    row = next(row for row in page.all("tr") if row.attributes.get("data-label") == "lora")
    assert [cell.text for cell in row.all("td")][5] == "–"
    assert "lora has no finished run on Shapes." in page.text


def test_only_failures_make_a_page_without_a_plot(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    keep(store, failed(recipe("lora", 3)))
    page = page_of(store)
    assert page.all("p", class_="says")[0].text == "Nothing can be said: all 1 runs of this board failed."
    assert not page.all("figure")
    assert "There is nothing to draw yet" in page.text
    assert "the loss was not finite at step 12" in page.text


def test_boards_are_kept_apart(tmp_path: Path) -> None:
    store = two_methods(tmp_path)
    add(store, "1110", recipe("lora", 0, dtype="bfloat16"))
    page = page_of(store)
    assert [each.attributes["data-board"] for each in page.all("article")] == ["0", "1"]
    assert "Two boards: scores are compared within one board only." in page.text


def test_costs_are_marked_by_where_they_are_from(page: Element) -> None:
    (table,) = [each for each in page.all("table") if each.one("caption").text.startswith("What each method costs")]
    marks = {head.text: [m.text for m in head.all("small")] for head in table.one("thead").all("th")}
    assert marks["Trainable counted"] == ["counted"]
    assert marks["Training, wall measured"] == ["measured"]
    assert marks["FLOPs a token, at most estimated"] == ["estimated"]
    mmpt = next(row for row in table.one("tbody").all("tr") if row.one("th").text == "mmpt")
    # Not a process of its own: no time is the training's.
    assert [cell.text for cell in mmpt.all("td")][:6] == ["1,000", "1.0 %", "4.0 KiB", "–", "–", "–"]
    # 4 x 100,000 parameters and 2 x 1,000 trained ones: 402,000 FLOPs.
    assert mmpt.all("td")[10].text == "0.402 M"


def test_measured_costs_are_in_the_table(study_page: Element, study_content: Content) -> None:
    board = study_content.sections[0].board
    row = next(row for row in board.rows if row.label == "lora")
    assert row.train_seconds is not None
    (table,) = [e for e in study_page.all("table") if e.one("caption").text.startswith("What each method costs")]
    shown = next(each for each in table.one("tbody").all("tr") if each.one("th").text == "lora")
    examples = board.budget["steps"] * board.budget["batch_size"] / row.train_seconds
    assert shown.all("td")[5].text == f"{examples:,.0f}"


def test_what_a_teacher_adds_is_in_no_rate_of_the_method(study_content: Content) -> None:
    board = study_content.sections[0].board
    taught = dataclasses.replace(
        board, rows=tuple(dataclasses.replace(row, objective={"compute": "equal"}) for row in board.rows)
    )
    assert any(cost.examples_per_second and cost.flops for cost in costs(board))
    assert not any(cost.examples_per_second or cost.flops for cost in costs(taught))


def test_record_that_contradicts_itself_makes_no_page(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", score=0.99)
    with pytest.raises(UntrustedRecord, match="says that its score"):
        content_of(store)


def _seen(number: int, shade: int, question: str, answer: str, group: str = "") -> Sample:
    name = f"p{number}"
    return Sample(
        f"{group}{number}{question}", LazyImage(name, lambda: Image.new("RGB", (8, 8), (shade, 0, 0))), question,
        ("yes", "no"), answer, group, name,
    )  # fmt: skip


def test_audit_counts_repeats_and_leaks_by_hand() -> None:
    one = [
        _seen(0, 10, "red?", "yes"),
        _seen(1, 10, "red?", "no"),  # equal image, same question, other answer
        _seen(2, 20, "red?", "yes"),
        _seen(2, 20, "red?", "yes", "again"),  # asked before, in another group
    ]
    other = [_seen(3, 20, "blue?", "no"), _seen(4, 30, "blue?", "no")]
    shades, asked = [30, 20, 99], ["blue?", "x", "y"]
    corpus = Corpus(
        "c", "f", 3,
        lambda i: Example(LazyImage(str(i), lambda: Image.new("RGB", (8, 8), (shades[i], 0, 0))), asked[i], "no"),
        0, lambda i: None,  # type: ignore[arg-type,return-value]
    )  # fmt: skip
    found = audit.look({"one": one, "other": other}, corpus)
    assert found["one"] == audit.Found(
        repeated=1, across=1, contradicted=1, equal_pictures=1, elsewhere=1, trained_on=1, asked_in_training=0
    )
    assert found["other"] == audit.Found(
        repeated=0, across=0, contradicted=0, equal_pictures=0, elsewhere=1, trained_on=2, asked_in_training=1
    )
    assert audit.look({"one": one}, None)["one"].trained_on is None


def pictured(title: str = "Colours") -> tuple[Task, list[Sample]]:
    """Returns a task that makes its own rows: ten red or green images."""
    rows = [{"image": Image.new("RGB", (16, 16), ("red", "green")[i % 2]), "answer": ("yes", "no")[i % 2], "n": i}
            for i in range(10)]  # fmt: skip

    def sample(row: Any, number: int, names: Any) -> Sample:
        key = str(row["n"])
        return Sample(
            key, LazyImage(f"made/{key}", lambda: row["image"]), f"Is {key} red?", ("yes", "no"), row["answer"], "", key
        )

    made = task("colours", title, sample=sample, make_rows=lambda: Rows(rows, (), "d" * 8, "made", "embedded"))
    return made, [sample(row, i, ()) for i, row in enumerate(rows)]


def test_samples_that_divide_methods_are_shown_with_pictures(tmp_path: Path) -> None:
    of, asked = pictured()
    store = store_in(tmp_path)
    for seed in range(2):
        keep(store, record(store, of, asked, "1111111111", recipe("mmpt", seed)))
        keep(store, record(store, of, asked, "1110111111", recipe("lora", seed)))
    page = page_of(store, {"colours": of})
    (card,) = page.all("li", class_="card")
    assert "Is 3 red?" in card.text
    assert "Right answer: no" in card.text
    assert (card.attributes["data-right"], card.attributes["data-wrong"]) == ("|mmpt|", "|lora|")
    image = card.one("img")
    decoded = Image.open(io.BytesIO(base64.b64decode(image.attributes["src"].split(",")[1])))
    assert decoded.size == (16, 16)
    assert decoded.convert("RGB").getpixel((8, 8))[1] > 90
    assert "Methods disagree on 1 of 10 questions" in page.text


def test_other_data_than_was_evaluated_is_not_shown_as_it(tmp_path: Path) -> None:
    of, asked = pictured()
    store = store_in(tmp_path)
    for method, right in (("mmpt", "1"), ("lora", "10")):
        keep(store, record(store, of, asked, right, recipe(method), data_fingerprint="0" * 8))
    page = page_of(store, {"colours": of})
    assert page.all("li", class_="card")
    assert not page.one("ul", class_="cards").all("img")
    assert "is not what was asked (00000000): run again to compare with it" in page.text
    assert "not checked: the embedded suite of this version" in page.text


def test_real_data_without_a_folder_says_how_to_show_them(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for method, right in (("mmpt", "1"), ("lora", "10")):
        add(store, right, recipe(method), suite="real")
    assert "real data are not read without --images DIR" in page_of(store).text.replace("`", "")


def test_real_data_are_shown_from_the_folder_that_was_evaluated(tmp_path: Path) -> None:
    from mmpt_bench.sources.task_rows import folder_rows
    from mmpt_bench.sources.task_rows import samples as samples_of

    folder = tmp_path / "colours"
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(4):
        Image.new("RGB", (400, 200), (60 * i, 0, 0)).save(folder / "images" / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "question": f"Is {i} red?", "answer": ("yes", "no")[i % 2]}))
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")

    def sample(row: Any, number: int, names: Any) -> Sample:
        picture = LazyImage(str(number), lambda: Image.open(row["image"]))
        return Sample(str(number), picture, row["question"], ("yes", "no"), row["answer"], "", str(number))

    of = task("colours", "Colours", sample=sample, columns=("question", "answer"))
    rows = folder_rows(of, tmp_path)
    store = store_in(tmp_path)
    for method, right in (("mmpt", "1"), ("lora", "1101")):
        changes = {"suite": "real", "data_fingerprint": rows.fingerprint, "dataset": rows.origin}
        keep(store, record(store, of, samples_of(of, rows), right, recipe(method), **changes))
    page = parsed(write.page(gather(store, {"colours": of}, tmp_path, n_resamples=50), store).data)
    (card,) = page.all("li", class_="card")
    assert "Is 2 red?" in card.text
    assert (card.one("img").attributes["width"], card.one("img").attributes["height"]) == ("400", "200")
    shown = Image.open(io.BytesIO(base64.b64decode(card.one("img").attributes["src"].split(",")[1])))
    assert shown.size == (192, 96)
    assert "--data FOLDER" in page.text


def test_an_inline_figure_has_attributes_in_place_of_styles_and_ids_of_its_own() -> None:
    svg = (
        b'<svg xmlns:xlink="x" width="36pt" viewBox="0 0 36 5"><defs><style type="text/css">*{stroke: red}</style>'
        b'</defs><defs><clipPath id="p1"><rect x="0"/></clipPath>'
        b'<path id="m1" d="M 0 0" style="stroke: #000000"/></defs>'
        b'<g clip-path="url(#p1)"><use xlink:href="#m1" style="fill: none; stroke-width: 0.6"/></g></svg>'
    )
    made = drawings.inline_svg(svg, "a-b", 'so "it" is', 58)
    assert made == (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 5" role="img" aria-label="so &#34;it&#34; is" '
        'data-name="a-b" width="58" stroke-linejoin="round" stroke-linecap="butt"><defs></defs><defs>'
        '<clipPath id="a-b-b"><rect x="0"/></clipPath><path id="a-b-a" d="M0 0" stroke="#000000"/></defs>'
        '<g clip-path="url(#a-b-b)"><use href="#a-b-a" fill="none" stroke-width="0.6"/></g></svg>'
    )


def test_smaller_svg_keeps_every_mark() -> None:
    svg = (
        b'<?xml version="1.0"?><!DOCTYPE svg><svg xmlns:xlink="x" viewBox="0 0 648 5"><metadata>m</metadata>'
        b'<defs><path id="DejaVu-1" d="M 1228 531 \nL 3431 531 \nz" transform="scale(0.015625)"/></defs>'
        b'<g id="figure_1"><!-- a --><g transform="translate(154.480357 239.634359) scale(0.07 -0.07)">'
        b'<use xlink:href="#DejaVu-1" transform="translate(63.625 0)"/></g></g></svg>'
    )
    assert drawings.smaller_svg(svg) == (
        '<svg xmlns:xlink="x" viewBox="0 0 648 5"><defs><path id="a" d="M1228 531L3431 531z" '
        'transform="scale(0.015625)"/></defs><g><g transform="translate(154.48 239.63) scale(0.07 -0.07)">'
        '<use href="#a" x="63.62"/></g></g></svg>'
    )


@pytest.mark.slow
def test_command_writes_the_page_and_says_what_is_missing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.root.mkdir()
    said = json.loads(bench("report", "--out", str(store.root), "--json", cwd=tmp_path).stdout)
    assert said["bytes"] == (store.root / "report.html").stat().st_size
    assert said["boards"] == []
    assert said["missing"][0]["command"].startswith("mmpt-bench run --method frozen,projector,mmpt")
    streams = bench("report", "--out", str(store.root), "--file", "page.html", cwd=tmp_path)
    assert "Missing: Nothing is recorded" in streams.stderr
    assert streams.stdout.startswith("Written: ")
    assert (tmp_path / "page.html").read_bytes() == (store.root / "report.html").read_bytes()
    quiet = bench("report", "-q", "--out", str(store.root), cwd=tmp_path)
    assert (quiet.stderr, quiet.stdout.count("\n")) == ("", 1)


@pytest.mark.parametrize("name", ["results", "out", "images"])
def test_folders_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "results").mkdir()
    given: dict[str, Any] = {"results": tmp_path / "results", "out": None, "images": None}
    given[name] = {"results": tmp_path / "absent", "out": tmp_path, "images": tmp_path / "absent"}[name]
    with pytest.raises(RequestError, match="folder"):
        api.write_report(given["results"], given["out"], given["images"])


def test_report_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    code = (
        "import sys, mmpt_bench\n"
        f"mmpt_bench.write_report({str(tmp_path / 'results')!r})\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def test_detail_names_seeds_and_interval(page: Element) -> None:
    (table,) = [each for each in page.all("table", class_="detail") if each.attributes["data-title"] == "Colours"]
    heads = [head.text for head in table.one("thead").all("th")]
    row = next(each for each in table.one("tbody").all("tr") if each.one("th").text == "mmpt")
    cells = dict(zip(heads[1:], [cell.text for cell in row.all("td")], strict=True))
    assert cells["Interval from"] == "seeds and images: crossed bootstrap"
    assert cells["Seeds"] == "2"
    assert re.fullmatch(r"0: [\d.]+ %, 1: [\d.]+ %", cells["Score by seed"])
    assert "accuracy of 40 questions on 40 images" in table.one("caption").text


def test_commands_that_make_it_again_name_what_differs(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora", 2, {"learning_rate": 0.5, "r": 3}))
    text = page_of(store).text
    assert "mmpt-bench run --method lora --tasks colours --seeds 2 --set lora.learning_rate=0.5 --set lora.r=3" in text


def test_synthetic_answers_are_what_the_pattern_says() -> None:
    assert answers(samples(4), "10-") == ["yes", "yes", None, "no"]
    assert dataclasses.is_dataclass(Sample)


def test_the_command_that_makes_a_board_again_names_its_columns(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    named = "folder `x` (test), column image=img, column label=the class, NOT the official rows"
    add(store, "1110", dataset=named, suite="real")
    (board,) = boards(store, {"colours": COLOURS})
    command = run_command(board, store, ["lora"], ["colours"], [0])
    assert "--columns colours.image=img --columns 'colours.label=the class'" in command
    assert command.index("--columns") < command.index("--data FOLDER")


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ("embedded", ""),
        ("vsr train", "--train-data task:vsr"),
        ("vision-flan, decontaminated", "--train-data vision-flan --train-images FOLDER --decontaminate"),
        ("mine", "--train-data FILE"),
        ("mine, 3 bad examples left out", "--train-data FILE --on-bad-item skip"),
    ],
)
def test_training_data_are_named_in_the_command_that_repeats_a_board(tmp_path: Path, corpus: str, words: str) -> None:
    store = store_in(tmp_path)
    add(store, "1110", recipe("lora", 0, corpus=corpus))
    (board,) = boards(store, {"colours": COLOURS})
    command = run_command(board, store, ["lora"], ["colours"], [0])
    assert words in command
    assert ("--train-data" in command) == bool(words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"suite": "embedded-clean"}, "--world clean"),
        ({"suite": "embedded"}, ""),
        ({"parse_rule": "plain"}, "--parse plain"),
        ({"guard": False}, "--no-guard"),
        ({"suite": "real", "dataset": "`owner/other` at 01234567 (test)"}, "--dataset vsr=owner/other"),
        ({"suite": "real", "dataset": "`cambridgeltl/vsr_random` at 01234567 (test)"}, "--dataset vsr=random"),
        ({"suite": "real", "dataset": "`cambridgeltl/vsr_zeroshot` at 01234567 (test)"}, ""),
    ],
)
def test_how_tasks_were_asked_is_in_the_commands_that_repeat_a_board(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    store, vsr = store_in(tmp_path), task("vsr", "VSR")
    made_of = recipe("lora", 0)
    keep(store, record(store, vsr, ASKED["colours"], "1110", made_of, **changed))
    (board,) = boards(store, {"vsr": vsr})
    (command,) = reproduce(board, store)
    assert words in command
    options = ("--world", "--parse", "--no-guard", "--dataset")
    assert sum(option in command for option in options) == bool(words)
    assert "--world" not in tune_command(board, store, ["lora"])


def test_every_field_of_a_budget_is_in_the_command_that_repeats_a_board(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    budget = Budget(7, 3, 0.5, "constant", 0.25, 2.0, 99)
    add(store, "1110", recipe("lora", 0, budget=budget))
    (board,) = boards(store, {"colours": COLOURS})
    (command,) = reproduce(board, store)
    told = "--steps 7 --batch-size 3 --warmup 0.5 --schedule constant --weight-decay 0.25 --max-grad-norm 2.0"
    assert f"{told} --max-length 99" in command


def test_tasks_that_nothing_was_asked_are_asked_of_every_row_as_it_is(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for r in (3, 5):
        of_r = recipe("lora", 0, {"learning_rate": 0.5, "r": r})
        add(store, "1110", of_r, learning_rate_source="documented default, not searched")
    (board,) = boards(store, {"colours": COLOURS})
    found = [gap.command for gap in gaps(board, store) if "no finished run" in gap.what]
    assert [f"--set lora.learning_rate=0.5 --set lora.r={r}" in found[i] for i, r in enumerate((3, 5))] == [True, True]
    searches = [gap.command for gap in gaps(board, store) if "was not searched" in gap.what]
    assert [command.split("--set ")[1].split()[0] for command in searches] == ["lora.r=3", "lora.r=5"]


def test_a_row_that_learns_from_a_teacher_is_repeated_from_its_recipes(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    learns = {"kd": 0.5, "teacher": "full-0123456789abcdef"}
    add(store, "1110", recipe("lora", 0, objective=learns), objective=learns)
    (board,) = boards(store, {"colours": COLOURS})
    (line,) = reproduce(board, store)
    assert line.startswith("# lora")
    assert "`--recipe`" in line


def test_a_long_table_behind_a_figure_is_cut_and_says_where_the_rest_is(
    study_store: Store, study_content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "ROWS_SHOWN", 3)
    figure = parsed(write.page(study_content, study_store).data).one("figure", id="f-pareto-embedded")
    assert len(figure.one("tbody").all("tr")) == 3
    assert "the first 3 of 7 rows; all are in figures/pareto-embedded.csv" in figure.text


def test_a_run_whose_adapter_is_gone_is_asked_for_again_with_all_its_tasks(tmp_path: Path) -> None:
    """Its results on what was asked go with its folder; the command alone would be refused."""
    store, made_by = two_methods(tmp_path, n_seeds=1), recipe("lora", 0)
    add(store, "1110", made_by)
    run = store.run(made_by.run_name)
    costs = {"seconds": 1.0, "peak_bytes": 1, "final_loss": 0.5, "adapter_bytes": 1, "sha256": "f" * 64}
    part = run.new_adapter()
    part.mkdir(parents=True)
    (part / TENSORS).write_bytes(b"weights")
    run.finish_training(part, costs)
    (before,) = [gap for gap in content_of(store).gaps if "lora has no finished run" in gap.what]
    assert before.what == "lora has no finished run on Shapes."
    assert "--tasks ./shapes.py" in before.command or "--tasks shapes" in before.command
    let_go(run)
    (gap,) = [gap for gap in content_of(store).gaps if "lora has no finished run" in gap.what]
    assert gap.what == (
        "lora has no finished run on Shapes. 1 adapter was not kept (`--keep-adapters`): first delete "
        f"`runs/{run.name}` in the results folder; the command trains it again."
    )
    assert "colours" in gap.command
    assert "shapes" in gap.command
    assert [each for each in content_of(store).gaps if "not kept" in each.what and run.name not in each.what] == []
