"""POPE: does the model see objects that are not there? (Li et al. 2023, arXiv:2305.10355)

9,000 yes-or-no questions on 500 COCO images, half of them about objects that are absent. The absent object is drawn at
random, among popular objects, or among objects that usually appear together (adversarial). No training split.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_bench.data.image_folders import PictureFolder
from mmpt_bench.data.rows import one_of, picture, text
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.metrics import POPEMetric
from mmpt_bench.evaluation.parsing import says_neither, yes_no
from mmpt_bench.evaluation.task import Task

CHOICES = ("yes", "no")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> Sample:
    """Returns a row's sample; the question is asked alone, as in the authors' protocol."""
    strategy, image_name = text(row, "category"), text(row, "image_source")
    # The authors number the questions of each strategy from 1.
    sample_id = f"{strategy}/{text(row, 'question_id')}"
    return Sample(
        id=sample_id,
        image=picture(row["image"], f"pope/{image_name}", sample_id),
        question=text(row, "question"),
        choices=CHOICES,
        answer=one_of(row, "answer", CHOICES),
        group=strategy,
        cluster=image_name,
    )


TASK = Task(
    name="pope",
    title="POPE",
    headline="f1_mean",
    unit="fraction",
    dataset="lmms-lab/POPE",
    revision="4db1276663dfa5eb8ad16a52d24c31a09e470896",
    config=None,
    split="test",
    columns=("question_id", "question", "answer", "image_source", "image", "category"),
    sample=sample,
    metric=POPEMetric(),
    parse=yes_no("pope_official"),
    decode="generate",
    max_new_tokens=32,
    version=1,
    metric_names=("f1/random", "f1/popular", "f1/adversarial", "accuracy", "precision", "recall", "yes_ratio"),
    official_rows=9000,
    other_rules={"lmms-eval": yes_no("pope_lmms"), "vlmevalkit": yes_no("yorn_vlmeval")},
    official_groups=(("adversarial", 3000), ("popular", 3000), ("random", 3000)),
    pictures=PictureFolder("coco", "image_source", ".jpg", ("val2014",)),
    unreadable=says_neither,
)
