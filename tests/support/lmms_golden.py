"""Prints tests/lmms_golden.json: what lmms-eval's own code makes of made-up replies to MME and POPE.

python tests/lmms_golden.py > tests/lmms_golden.json       # where lmms-eval is installed: see .ci/lmms
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

REPLIES = (
    "Yes", "yes", "No", "no", "YES", " no \n", "Yes.", "No.", "Yes, there is a dog.", "No, it is not.", "y", "N", "Y.",
    "", ".", "x", "maybe", "Not at all", "none", "nope", "It is. Yes", "The answer is no", "...yes", "yes no", "no yes",
    "eyes", "I don't know", "yes!", "'yes'", "ja", "нет",
)  # fmt: skip
"""Replies that are read by every rule, by some, and by none."""
READABLE = ("Yes", "no", "yes", "No", "no", "NO", "yes")
"""Replies that every rule reads alike."""
MME_PARTS = ("existence", "OCR", "numerical_calculation", "text_translation")
STRATEGIES = ("random", "popular", "adversarial")


def mme_rows(replies: Sequence[str], parts: Sequence[str] = MME_PARTS, pictures: int = 6) -> list[dict[str, str]]:
    """Returns two questions on each of some images of each part; the replies are given in turn."""
    rows = []
    for part in parts:
        for picture in range(pictures):
            for answer in ("Yes", "No"):
                asked = f"Is it {answer}? Please answer yes or no."
                rows.append({"category": part, "question_id": f"{picture}.png", "question": asked, "answer": answer})
    return [row | {"reply": replies[i % len(replies)]} for i, row in enumerate(rows)]


def pope_rows(replies: Sequence[str], each: int = 20) -> list[dict[str, str]]:
    """Returns questions of each strategy, four to an image, due "yes" and "no" in turn; the replies in turn."""
    rows = []
    for strategy in STRATEGIES:
        for i in range(each):
            row = {"category": strategy, "question_id": str(i + 1), "image_source": f"COCO_{i // 4}"}
            rows.append(row | {"question": f"Is there a thing {i}?", "answer": ("yes", "no")[i % 2]})
    return [row | {"reply": replies[i % len(replies)]} for i, row in enumerate(rows)]


SETS = {
    "mme": mme_rows(REPLIES),
    "mme readable": mme_rows(READABLE),
    "mme with a subtask that is not one": mme_rows(READABLE, ("existence", "landmarks")),
    "pope": pope_rows(REPLIES),
    "pope readable": pope_rows(READABLE),
    "pope without a yes": pope_rows(("no", "No", "maybe")),
}
"""Rows of the hub's form with replies, by what is in them."""


def golden() -> dict[str, Any]:
    """Returns what the file holds."""
    tasks = their_tasks()
    judged = [
        {"reply": reply} | {name: [_right(task, reply, due) for due in ("Yes", "No")] for name, task in tasks.items()}
        for reply in REPLIES
    ]
    sets = {name: _scored(tasks[name.split()[0]], rows) for name, rows in SETS.items()}
    return {"made_by": f"lmms-eval {version('lmms-eval')}", "right_if_yes_and_if_no": judged, "sets": sets}


def their_tasks() -> dict[str, SimpleNamespace]:
    """Returns lmms-eval's judgement of one reply and its figures of many, as its two tasks' YAML files join them."""
    from lmms_eval.tasks.mme import utils as mme
    from lmms_eval.tasks.pope import utils as pope

    points = ("mme_perception_score", "mme_cognition_score")
    ratios = ("accuracy", "precision", "recall", "f1_score", "yes_ratio")
    return {
        "mme": SimpleNamespace(
            judge=mme.mme_process_results, figures={name: mme.mme_aggregate_results for name in points}
        ),
        "pope": SimpleNamespace(
            judge=pope.pope_process_results,
            figures={f"pope_{name}": getattr(pope, f"pope_aggregate_{name}") for name in ratios},
        ),
    }


def _right(task: SimpleNamespace, reply: str, due: str) -> bool:
    judged = task.judge({"category": "existence", "question_id": "1", "answer": due}, [reply])
    return bool(next(iter(judged.values()))["score"] == 1)


def _scored(task: SimpleNamespace, rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Returns figures and errors of all rows, and the figures of each category alone."""
    parts = {part: [row for row in rows if row["category"] == part] for part in {row["category"]: 0 for row in rows}}
    return printed(task, rows) | {"parts": {name: printed(task, of)["figures"] for name, of in parts.items()}}


def printed(task: SimpleNamespace, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns figures and standard errors as lmms-eval's evaluator computes them."""
    from lmms_eval.evaluator_utils import TaskOutput

    out = TaskOutput(task=SimpleNamespace(aggregation=lambda: task.figures), task_config={})
    for row in rows:
        for name, judged in task.judge(row, [row["reply"]]).items():
            out.sample_metrics[name, "none"].append(judged)
    out.calculate_aggregate_metric(bootstrap_iters=0)
    out.calculate_clt_aggregate_metric()
    found = out.agg_metrics
    names = [name for name in task.figures if f"{name},none" in found]
    return {
        "figures": {name: float(found[f"{name},none"]) for name in names},
        "errors": {name: float(found[f"{name}_stderr_clt,none"]) for name in names},
    }


if __name__ == "__main__":
    print(json.dumps(golden(), indent=1, ensure_ascii=False))
