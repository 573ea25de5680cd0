"""Parse rules and metrics against published tools, published scores and cases worked out by hand."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import Accuracy, Metric, MMEMetric, POPEMetric
from mmpt_bench.evaluation.parsing import YES_NO_RULES, yes_no
from mmpt_bench.evaluation.task import Task
from support.paths import PUBLISHED, needs_data
from support.tasks import task as task_named

PICTURE = LazyImage("p", lambda: Image.new("RGB", (2, 2)))


def made(answers: list[str], cluster: list[str], group: list[str], choices: tuple[str, ...]) -> list[Sample]:
    rows = enumerate(zip(answers, cluster, group, strict=True))
    return [Sample(str(i), PICTURE, "?", choices, answer, g, c) for i, (answer, c, g) in rows]


def figures(metric: Metric, samples: list[Sample], choices: list[str | None]) -> dict[str, float]:
    tally = metric.tally(samples, choices)
    return {name: float(value) for name, value in metric.values(tally.counts.sum(axis=0), tally.columns).items()}


def published(file: str, task: Task) -> tuple[list[Sample], list[str | None]]:
    samples: list[Sample] = []
    choices: list[str | None] = []
    names = task.data.classes
    with gzip.open(PUBLISHED / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row: dict[str, Any] = json.loads(line)
            row["image"] = row["img"] = Image.new("RGB", (1, 1))
            if names:
                row["label"] = names.index(row["label"])
            sample = task.sample(row, number, names)
            samples.append(sample)
            choices.append(task.parse(row["reply"], sample.choices))
    return samples, choices


def expected(file: str) -> dict[str, Any]:
    return json.loads((PUBLISHED / "expected.json").read_text(encoding="utf-8"))[file]


@needs_data
@pytest.mark.parametrize("rule", [rule for rule in YES_NO_RULES if rule != "mme_m2pt"])
def test_parse_rule_agrees_with_the_published_tool_on_every_reply(rule: str) -> None:
    rows = json.loads((PUBLISHED / "parse_rules.json").read_text(encoding="utf-8"))
    assert len(rows) == 2091
    theirs = [{"yes": "yes", "no": "no", "other": None, "unknown": None}[row[rule].lower()] for row in rows]
    assert [YES_NO_RULES[rule](row["text"]) for row in rows] == theirs


@needs_data
@pytest.mark.parametrize("file", ["mme_lavin_13b", "mme_llava_v1.5_7b_incomplete"])
def test_mme_scores_are_the_published_ones(file: str) -> None:
    ours = figures(task_named("mme").metric, *published(file, task_named("mme")))
    theirs = expected(file)
    digits = 2 if file == "mme_lavin_13b" else 12
    for name, value in theirs["published"].items():
        ours_here = ours[name if name in ("perception", "cognition") else f"score/{name}"]
        assert round(ours_here, 1 if value == 963.6 else digits) == pytest.approx(value, abs=1e-12)
    for name in ("perception", "cognition"):
        assert ours[name] == pytest.approx(theirs["recomputed"][name], abs=1e-9)
    for name, value in theirs["recomputed"].items():
        if isinstance(value, dict):
            assert 100 * ours[f"acc/{name}"] == pytest.approx(value["acc"], abs=1e-9)
            assert 100 * ours[f"acc_plus/{name}"] == pytest.approx(value["acc_plus"], abs=1e-9)


@needs_data
def test_m2pts_reading_of_mme_differs_on_eight_replies_and_in_cognition_alone() -> None:
    official, m2pt = task_named("mme"), task_named("mme", "m2pt")
    samples, choices = published("mme_lavin_13b", official)
    _, theirs = published("mme_lavin_13b", m2pt)
    assert sum(a != b for a, b in zip(choices, theirs, strict=True)) == 8
    before, now = (figures(official.metric, samples, of) for of in (choices, theirs))
    assert (round(before["cognition"], 2), round(now["cognition"], 2)) == (249.64, 256.07)
    assert before["perception"] == now["perception"]


@pytest.mark.parametrize(("reply", "read"), [("Eyes.", "yes"), ("unknown", "no"), ("no, yes", "yes"), ("maybe", None)])
def test_m2pts_rule_reads_yes_anywhere_before_no_anywhere(reply: str, read: str | None) -> None:
    assert YES_NO_RULES["mme_m2pt"](reply) == read


@needs_data
@pytest.mark.parametrize(
    "file", ["pope_llava_v1.5_7b_partial", "pope_llava_1.5_7b_hf", "pope_llava_v1.6_vicuna_7b_current"]
)
def test_pope_scores_are_the_published_ones(file: str) -> None:
    ours = figures(task_named("pope").metric, *published(file, task_named("pope")))
    theirs = expected(file)
    for strategy, values in (theirs["published"] or {}).items():
        for name, value in values.items():
            if name not in ("TP", "FP", "TN", "FN"):
                assert ours[f"{name}/{strategy}"] == pytest.approx(value, abs=1e-15)
    for strategy, values in theirs["recomputed"].items():
        if strategy == "mean_f1":
            assert ours["f1_mean"] == pytest.approx(values, abs=1e-10)
        else:
            for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
                assert ours[f"{name}/{strategy}"] == pytest.approx(values[name], abs=1e-10)


@needs_data
def test_cifar10_scores_are_the_published_ones() -> None:
    task = task_named("cifar10")
    samples, choices = published("cifar10_gpt4o", task)
    ours, theirs = figures(task.metric, samples, choices), expected("cifar10_gpt4o")["published"]
    assert choices.count(None) == 1
    assert ours["accuracy"] == theirs["accuracy"]
    assert ours["balanced_accuracy"] == pytest.approx(theirs["macro_recall"], abs=1e-15)
    assert ours["macro_f1"] == pytest.approx(theirs["macro_f1"], abs=1e-15)


@pytest.fixture
def mme() -> list[Sample]:
    """Two subtasks: `count` with two images, `OCR` with one."""
    return made(["Yes", "No"] * 3, ["a", "a", "b", "b", "c", "c"], ["count"] * 4 + ["OCR"] * 2, ("Yes", "No"))


def test_mme_all_right_reaches_the_ceiling_of_the_subtasks_present(mme: list[Sample]) -> None:
    ours = figures(MMEMetric(), mme, [sample.answer for sample in mme])
    assert ours["total"] == ours["perception"] == MMEMetric().ceiling(mme) == 400
    assert "cognition" not in ours
    assert "score/color" not in ours


def test_mme_all_wrong_is_zero(mme: list[Sample]) -> None:
    assert figures(MMEMetric(), mme, ["No", "Yes"] * 3)["total"] == 0


def test_mme_all_yes_gets_half_of_acc_and_nothing_of_acc_plus(mme: list[Sample]) -> None:
    ours = figures(MMEMetric(), mme, ["Yes"] * 6)
    assert (ours["acc/count"], ours["acc_plus/count"], ours["score/count"], ours["total"]) == (0.5, 0, 50, 100)


def test_mme_pairs_are_read_off_the_picture_not_the_row_order(mme: list[Sample]) -> None:
    choices: list[str | None] = ["Yes", "No", "Yes", "Yes", "No", "No"]
    shuffled = [3, 0, 5, 2, 4, 1]
    there = figures(MMEMetric(), [mme[i] for i in shuffled], [choices[i] for i in shuffled])
    assert there == figures(MMEMetric(), mme, choices)
    assert there["acc_plus/count"] == 0.5


def test_mme_picture_with_one_question_is_refused_by_name(mme: list[Sample]) -> None:
    with pytest.raises(ValueError, match="`c` has 1"):
        MMEMetric().tally(mme[:5], ["Yes"] * 5)


def test_mme_subtask_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="`colour`"):
        MMEMetric().tally(made(["Yes", "No"], ["a", "a"], ["colour"] * 2, ("Yes", "No")), ["Yes", "No"])


def test_mme_unreadable_reply_counts_as_wrong(mme: list[Sample]) -> None:
    ours = figures(MMEMetric(), mme, ["Yes", None, "Yes", "No", "Yes", "No"])
    assert (ours["acc/count"], ours["acc_plus/count"]) == (0.75, 0.5)


def test_mme_chance_is_what_a_coin_gets_on_average(mme: list[Sample]) -> None:
    every = [[("Yes", "No")[code >> bit & 1] for bit in range(6)] for code in range(64)]
    assert np.mean([figures(MMEMetric(), mme, list(c))["total"] for c in every]) == MMEMetric().chance(mme) == 150


@pytest.fixture
def pope() -> list[Sample]:
    """Two strategies over two images: random has yes no yes no, popular yes no."""
    groups = ["random"] * 4 + ["popular"] * 2
    return made(["yes", "no", "yes", "no", "yes", "no"], ["a", "a", "b", "b", "a", "a"], groups, ("yes", "no"))


def test_pope_all_right_is_one(pope: list[Sample]) -> None:
    ours = figures(POPEMetric(), pope, [sample.answer for sample in pope])
    assert ours["f1_mean"] == ours["f1"] == ours["accuracy"] == ours["precision/random"] == 1
    assert ours["yes_ratio"] == 0.5


def test_pope_all_wrong_has_no_true_positive(pope: list[Sample]) -> None:
    ours = figures(POPEMetric(), pope, ["no", "yes", "no", "yes", "no", "yes"])
    assert (ours["f1_mean"], ours["accuracy"], ours["precision"], ours["recall"]) == (0, 0, 0, 0)


def test_pope_all_yes_has_full_recall_and_half_precision(pope: list[Sample]) -> None:
    ours = figures(POPEMetric(), pope, ["yes"] * 6)
    assert (ours["recall"], ours["precision"], ours["yes_ratio"], ours["accuracy"]) == (1, 0.5, 1, 0.5)
    assert ours["f1_mean"] == pytest.approx(2 / 3)


def test_pope_precision_is_absent_and_f1_zero_when_nothing_is_yes(pope: list[Sample]) -> None:
    ours = figures(POPEMetric(), pope, ["no"] * 6)
    assert "precision" not in ours
    assert (ours["f1"], ours["f1_mean"], ours["recall"], ours["yes_ratio"]) == (0, 0, 0, 0)


def test_pope_yes_ratio_is_of_the_answers_not_of_the_labels(pope: list[Sample]) -> None:
    assert figures(POPEMetric(), pope, ["yes", "yes", "yes", "no", "no", "no"])["yes_ratio/random"] == 0.75


def test_pope_mean_differs_from_pooled_where_strategies_differ(pope: list[Sample]) -> None:
    ours = figures(POPEMetric(), pope, ["yes", "no", "yes", "no", "no", "no"])
    assert (ours["f1/random"], ours["f1/popular"], ours["f1_mean"]) == (1, 0, 0.5)
    assert ours["f1"] == pytest.approx(0.8)  # 2 of 2 + 0 of 1 right: precision 1, recall 2/3


def test_pope_unreadable_reply_is_wrong_and_not_a_yes(pope: list[Sample]) -> None:
    ours = figures(POPEMetric(), pope, ["yes", None, None, "no", "yes", "no"])
    assert (ours["accuracy/random"], ours["precision/random"], ours["recall/random"]) == (0.5, 1, 0.5)


def test_pope_chance_is_what_a_coin_gets_on_average(pope: list[Sample]) -> None:
    every = [[("yes", "no")[code >> bit & 1] for bit in range(6)] for code in range(64)]
    mean = np.mean([figures(POPEMetric(), pope, list(c))["f1_mean"] for c in every])
    assert POPEMetric().chance(pope) == pytest.approx(mean, abs=1e-12)


def test_accuracy_by_group_and_class_worked_out_by_hand() -> None:
    samples = made(["cat", "cat", "dog", "dog"], ["a", "b", "c", "d"], ["x", "x", "y", "y"], ("cat", "dog", "bird"))
    ours = figures(Accuracy(), samples, ["cat", "dog", "dog", None])
    assert (ours["accuracy"], ours["accuracy/x"], ours["accuracy/y"]) == (0.5, 0.5, 0.5)
    assert (ours["recall/cat"], ours["recall/dog"], ours["balanced_accuracy"]) == (0.5, 0.5, 0.5)
    # cat: precision 1, recall 1/2; dog: precision 1/2, recall 1/2; bird is nobody's right answer.
    assert ours["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert "recall/bird" not in ours


def test_accuracy_chance_is_one_over_the_choices() -> None:
    assert Accuracy().chance(made(["a"], ["p"], [""], ("a", "b", "c", "d"))) == 0.25


def test_values_of_many_sums_are_those_of_each() -> None:
    samples = made(["yes", "no", "yes", "no"], ["a", "a", "b", "b"], ["random"] * 4, ("yes", "no"))
    tally = POPEMetric().tally(samples, ["no", "no", "yes", "no"])
    both = POPEMetric().values(tally.counts, tally.columns)
    assert both["f1/random"].tolist() == [0, 1]
    assert np.isnan(both["precision/random"][0])
    assert "precision/random" not in POPEMetric().values(tally.counts[0], tally.columns)


def test_pope_rule_reads_yes_from_an_empty_reply_in_which_a_person_reads_nothing() -> None:
    task = task_named("pope")
    assert task.read("", ("yes", "no")) == "yes"
    assert task.read_plainly("", ("yes", "no")) is None
    assert task.read_plainly("No, there is not.", ("yes", "no")) == "no"


def test_yes_no_answers_in_the_spelling_of_the_choices() -> None:
    assert yes_no("mme_official")("yes, there is", ("Yes", "No")) == "Yes"


def test_unknown_parse_rule_is_named_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="mme_official"):
        yes_no("mme_oficial")


def test_macro_figures_are_scikit_learns_also_where_a_class_is_never_given() -> None:
    from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

    rng, names = np.random.default_rng(0), ("cat", "dog", "bird", "fish", "frog")
    due = [str(name) for name in rng.choice(names[:4], 60)]
    given = [
        str(name) if said else right
        for name, said, right in zip(rng.choice(names[:3], 60), rng.random(60) < 0.6, due, strict=True)
    ]
    given = ["cat" if name == "fish" else name for name in given]
    asked = made(due, [str(i) for i in range(60)], [""] * 60, names)
    found = figures(Accuracy(), asked, list(given))
    precision, recall, f1, _ = precision_recall_fscore_support(due, given, labels=names[:4], zero_division=0)
    assert found["macro_precision"] == pytest.approx(precision.mean())
    assert found["macro_f1"] == pytest.approx(f1.mean())
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(due, given))
    assert [found[f"recall/{name}"] for name in names[:4]] == pytest.approx(recall)
    assert recall[3] == precision[3] == 0
    assert "recall/frog" not in found


def test_several_unknown_subtasks_of_mme_are_named_from_the_first_on() -> None:
    groups = ["zebra", "apples", "existence"]
    odd = made(["yes", "no"] * 3, [str(i // 2) for i in range(6)], [g for g in groups for _ in range(2)], ("yes", "no"))
    with pytest.raises(ValueError, match="MME has no subtask `apples`"):
        MMEMetric().tally(odd, [None] * 6)


@pytest.mark.parametrize("reply", ["No,thing yes, it", "No,thing yes ,it", "no/thing yes/ it"])
def test_a_mark_beside_a_blank_anywhere_is_deleted_everywhere(reply: str) -> None:
    # VLMEvalKit: "no,thing" becomes "nothing" as soon as another comma has a blank beside it.
    assert YES_NO_RULES["yorn_vlmeval"](reply) == "yes"
    assert YES_NO_RULES["yorn_vlmeval"]("no,thing yes") is None
