"""Our MME and POPE beside lmms-eval's, without it: what its own code gave for made-up replies is in lmms_golden.json.

Equal where the rules are equal; each difference is held to be that difference and no other (docs/lmms-eval.md).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mmpt_bench.common.errors import RequestError
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task
from mmpt_bench.interop.answers.forms import GivenAnswer, GivenAnswers
from mmpt_bench.interop.answers.score import Scorecard, score_answers
from support.lmms_golden import REPLIES, SETS
from support.paths import ROOT

GOLDEN: dict[str, Any] = json.loads((ROOT / "tests" / "support" / "lmms_golden.json").read_text(encoding="utf-8"))
POPE_FIGURES = {"pope_accuracy": "accuracy", "pope_precision": "precision", "pope_recall": "recall",
                "pope_f1_score": "f1", "pope_yes_ratio": "yes_ratio"}  # fmt: skip


def task(name: str, rule: str = "lmms-eval") -> Task:
    (entry,) = task_catalog.find_tasks(name)
    return task_catalog.load_task(entry).with_rule(rule)


def ours(name: str, rule: str = "lmms-eval") -> Scorecard:
    """Returns our score of a set of replies."""
    answers = [GivenAnswer(f"row {i}", dict(row), row["reply"]) for i, row in enumerate(SETS[name])]
    return score_answers(task(name.split()[0], rule), GivenAnswers("JSON lines", tuple(answers)))


def theirs(name: str, part: str = "") -> dict[str, float]:
    """Returns lmms-eval's figures of a set, or of one category of it alone."""
    of = GOLDEN["sets"][name]
    return of["parts"][part] if part else of["figures"]


def right(name: str) -> list[bool]:
    """Returns whether lmms-eval counts each reply of a set as right, from what it judged of single replies."""
    judged = {one["reply"]: one[name.split()[0]] for one in GOLDEN["right_if_yes_and_if_no"]}
    return [judged[row["reply"]][("yes", "no").index(row["answer"].lower())] for row in SETS[name]]


@pytest.mark.parametrize("name", ["mme", "pope"])
def test_a_reply_is_read_as_lmms_eval_reads_it(name: str) -> None:
    asked = task(name)
    assert [one["reply"] for one in GOLDEN["right_if_yes_and_if_no"]] == list(REPLIES)
    for one in GOLDEN["right_if_yes_and_if_no"]:
        read = asked.parse(one["reply"], ("yes", "no"))
        assert [read == "yes", read == "no"] == one[name], one["reply"]


@pytest.mark.parametrize("name", ["mme", "mme readable"])
def test_mme_has_the_points_of_lmms_eval_in_every_subtask_and_in_all(name: str) -> None:
    values = ours(name).values
    for part, figures in GOLDEN["sets"][name]["parts"].items():
        assert values[f"score/{part}"] == pytest.approx(next(iter(figures.values())), abs=1e-9)
    assert values["perception"] == pytest.approx(theirs(name)["mme_perception_score"], abs=1e-9)
    assert values["cognition"] == pytest.approx(theirs(name)["mme_cognition_score"], abs=1e-9)


def test_a_subtask_that_mme_has_not_is_refused_here_and_counts_as_cognition_there() -> None:
    name = "mme with a subtask that is not one"
    with pytest.raises(RequestError, match=r"no part of MME `landmarks`\. Did you mean `landmark`"):
        ours(name)
    assert theirs(name)["mme_cognition_score"] == theirs(name, "landmarks")["mme_cognition_score"] > 0


def test_popes_figures_are_equal_where_every_reply_is_readable_save_for_the_yes_ratio() -> None:
    values = ours("pope readable").values
    for part in ("", "random", "popular", "adversarial"):
        for their_name, name in POPE_FIGURES.items():
            if name != "yes_ratio":
                wanted = theirs("pope readable", part)[their_name]
                assert values[f"{name}/{part}" if part else name] == pytest.approx(wanted, abs=1e-12), (part, name)


def test_lmms_evals_f1_is_pooled_and_our_headline_is_the_mean_of_the_strategies() -> None:
    values = ours("pope readable").values
    parts = [theirs("pope readable", part)["pope_f1_score"] for part in ("random", "popular", "adversarial")]
    assert values["f1_mean"] == pytest.approx(np.mean(parts), abs=1e-12)
    assert values["f1"] == pytest.approx(theirs("pope readable")["pope_f1_score"], abs=1e-12)
    assert abs(values["f1_mean"] - values["f1"]) > 1e-4


def test_an_unreadable_reply_to_a_yes_question_is_a_miss_here_and_is_not_there() -> None:
    rows, values, figures = SETS["pope"], ours("pope").values, theirs("pope")
    due = [row["reply"].lower().strip() for row in rows if row["answer"] == "yes"]
    hits, misses, unread = due.count("yes"), due.count("no"), len(due) - due.count("yes") - due.count("no")
    assert unread > 0
    assert values["recall"] == pytest.approx(hits / (hits + misses + unread))
    assert figures["pope_recall"] == pytest.approx(hits / (hits + misses))
    # So F1 differs too; what does not ask about misses is equal.
    assert values["f1"] < figures["pope_f1_score"]
    for name in ("accuracy", "precision"):
        assert values[name] == pytest.approx(figures[f"pope_{name}"], abs=1e-12)


def test_the_yes_ratio_is_of_the_labels_there_and_of_the_replies_here() -> None:
    for name in ("pope", "pope readable", "pope without a yes"):
        # Every second question is due "yes", whatever a model replies.
        assert theirs(name)["pope_yes_ratio"] == 0.5
        said = [row["reply"].lower().strip() == "yes" for row in SETS[name]]
        assert ours(name).values["yes_ratio"] == pytest.approx(np.mean(said))


def test_precision_without_a_yes_is_zero_there_and_absent_here() -> None:
    assert theirs("pope without a yes")["pope_precision"] == 0
    assert "precision" not in ours("pope without a yes").values
    assert ours("pope without a yes").values["f1"] == theirs("pope without a yes")["pope_f1_score"] == 0


def test_a_full_stop_behind_a_yes_is_wrong_to_lmms_evals_pope_and_right_to_popes_own_rule() -> None:
    (one,) = (each for each in GOLDEN["right_if_yes_and_if_no"] if each["reply"] == "Yes.")
    assert (one["mme"], one["pope"]) == ([True, False], [False, False])
    assert task("pope", "official").parse("Yes.", ("yes", "no")) == "yes"


@pytest.mark.parametrize("reply", ["y", "Y.", "...yes"])
def test_a_lone_letter_and_full_stops_in_front_are_read_by_lmms_evals_mme_and_not_by_mmes_own_rule(reply: str) -> None:
    (one,) = (each for each in GOLDEN["right_if_yes_and_if_no"] if each["reply"] == reply)
    assert one["mme"] == [True, False]
    assert task("mme", "official").parse(reply, ("Yes", "No")) is None


def test_the_error_beside_mme_points_is_of_single_answers_and_ours_is_in_points() -> None:
    of_part = {"perception": ("existence", "OCR"), "cognition": ("numerical_calculation", "text_translation")}
    for figure, parts in of_part.items():
        answers = [hit for hit, row in zip(right("mme"), SETS["mme"], strict=True) if row["category"] in parts]
        error = GOLDEN["sets"]["mme"]["errors"][f"mme_{figure}_score"]
        assert error == pytest.approx(np.std(answers, ddof=1) / np.sqrt(len(answers)))
        # At most half a unit over the square root of n, beside a figure of up to 400 points.
        assert error < 0.15
        low, high = ours("mme").intervals[figure]
        assert (high - low) / 2 > 20


def test_one_error_stands_beside_all_five_figures_of_pope() -> None:
    errors = GOLDEN["sets"]["pope"]["errors"]
    hits = right("pope")
    assert set(errors) == set(POPE_FIGURES)
    assert list(errors.values()) == pytest.approx([np.std(hits, ddof=1) / np.sqrt(len(hits))] * 5)
