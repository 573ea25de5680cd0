"""POPE: does the model see objects that are not there? (Li et al. 2023, arXiv:2305.10355)

9,000 yes-or-no questions on 500 COCO images, half of them about objects that are absent. The absent object is drawn at
random, among popular objects, or among objects that usually appear together (adversarial). No training split.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mmpt_bench as mb

CHOICES = ("yes", "no")


def sample(row: Mapping[str, Any], number: int, label_names: Sequence[str]) -> mb.Sample:
    """Returns a row's sample; the question is asked alone, as in the authors' protocol."""
    strategy, image_name = mb.read_text(row, "category"), mb.read_text(row, "image_source")
    # The authors number the questions of each strategy from 1.
    sample_id = f"{strategy}/{mb.read_text(row, 'question_id')}"
    return mb.Sample(
        id=sample_id,
        image=mb.read_image(row["image"], f"pope/{image_name}", sample_id),
        question=mb.read_text(row, "question"),
        choices=CHOICES,
        answer=mb.read_choice(row, "answer", CHOICES),
        group=strategy,
        cluster=image_name,
        wording=mb.read_wording(row),
    )


FORMS = {
    "plain": mb.PromptForm("{question}"),
    "if-then": mb.PromptForm(
        "{each} {question}",
        each={"yes": "If the object can be seen, answer yes.", "no": "If it cannot be seen, answer no."},
        options=("yes", "no"),
    ),
    "context": mb.PromptForm(
        "You answer questions about images. Only what can be seen counts, not what is usual in such a place. {question}"
    ),
    "steps": mb.PromptForm(
        "So, {question} Answer {options}.",
        first="{question} Describe step by step what in the image answers this question.",
        options=("yes", "no"),
    ),
}
"""Forms of prompts that `mmpt-bench prompts pope` compares."""
TASK = mb.Task(
    name="pope",
    title="POPE",
    data=mb.Dataset(
        hub="lmms-lab/POPE",
        revision="4db1276663dfa5eb8ad16a52d24c31a09e470896",
        columns=("question_id", "question", "answer", "image_source", "image", "category"),
        images=mb.ImageFolder("coco", "image_source", ".jpg", ("val2014",)),
        official=mb.Official(
            rows=9000, groups=(("adversarial", 3000), ("popular", 3000), ("random", 3000)), repeated=0
        ),
    ),
    headline="f1_mean",
    sample=sample,
    metric=mb.POPEMetric(),
    parse=mb.yes_no("pope_official"),
    decode="generate",
    max_new_tokens=32,
    version=1,
    forms=FORMS,
    metric_names=("f1/random", "f1/popular", "f1/adversarial", "accuracy", "precision", "recall", "yes_ratio"),
    other_rules={"lmms-eval": mb.yes_no("pope_lmms"), "vlmevalkit": mb.yes_no("yorn_vlmeval")},
    plain=mb.read_reply,
)
