"""Evaluation beside lmms-eval: its `llava_hf` on the same model, questions and images, one process, taken in turns.

    pip install lmms-eval==0.7.3
    python benchmarks/beside_lmms_eval.py

Counted of lmms-eval is `generate_until` alone, at batch size 1, the only one that it takes: neither its start nor its
data sets and scores. What is counted of ours ranks the legal answers too, which theirs does not. Replies of all three
have to be the same, or it stops. "Plain" is the project's own reference (plain.py), which stands in for lmms-eval
in evaluation.py. Ratios are medians over pairs, of CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import layouts
import midsize
import torch

import evaluation
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.engine.models.feature_cache import FeatureCache
from mmpt_bench.engine.training.memory import steady_malloc
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.environment import environment


def harness(folder: Path) -> Any:
    """Returns lmms-eval's model for LLaVA in Hugging Face's format."""
    from lmms_eval.models import get_model

    words = f"pretrained={folder},dtype=float32,device_map=cpu"
    return get_model("llava_hf").create_from_arg_string(words, {"batch_size": 1, "device": "cpu"})


def theirs(model: Any, task: Task, samples: list[Sample]) -> tuple[float, dict[str, str]]:
    """Returns (CPU seconds, reply by sample) of lmms-eval."""
    from lmms_eval.api.instance import Instance

    def messages(sample: Sample) -> list[dict[str, Any]]:
        shown = [{"type": "image", "url": sample.image.open()}, {"type": "text", "text": sample.question}]
        return [{"role": "user", "content": shown}]

    model.task_dict = {task.name: {"test": samples}}
    settings = {"max_new_tokens": task.max_new_tokens, "temperature": 0, "do_sample": False, "num_beams": 1}
    requests = [
        Instance(
            request_type="generate_until",
            arguments=(sample.question, messages, dict(settings), i, task.name, "test"),
            idx=0,
            metadata={"task": task.name, "doc_id": i, "repeats": 1},
        )
        for i, sample in enumerate(samples)
    ]
    began = time.process_time()
    made = model.generate_until(requests)
    spent = time.process_time() - began
    return spent, {sample.id: one.text for sample, one in zip(samples, made, strict=True)}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the layouts' images")
    parser.add_argument("--tasks", default=",".join(evaluation.PICTURES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if unknown := set(given.tasks.split(",")) - set(evaluation.PICTURES):
        parser.error(f"no layout of {', '.join(sorted(unknown))}; there are {', '.join(evaluation.PICTURES)}")
    torch.set_num_threads(1)
    steady_malloc()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = midsize.save_llava(Path(name))
        backbone, model = load_backbone(str(folder), device="cpu", offline=True), harness(folder)
    # As every run does: nothing is trained, so that the tower is known to stay as it is.
    method_catalog.load_method(method_catalog.method_entries()["frozen"])().attach(backbone, 0)
    print("| layout | questions | of ours | of ours, kept | of plain | lmms-eval, CPU s a question |")
    print("|---|---|---|---|---|---|")
    for layout in (each for each in layouts.LAYOUTS if each.task in given.tasks.split(",")):
        task = layout.loaded()
        samples = layouts.samples(layout, max(2, round(evaluation.PICTURES[layout.task] * given.scale)))
        ratios: dict[str, list[float]] = {"ours": [], "kept": [], "plain": [], "seconds": []}
        for _ in range(given.pairs):
            backbone.features, backbone.kept_pictures = FeatureCache(), FeatureCache()
            spent, expected = theirs(model, task, samples)
            ratios["seconds"].append(spent / len(samples))
            for way, run in (("plain", evaluation.plain), ("ours", evaluation.ours), ("kept", evaluation.ours)):
                cpu, _, replies = run(backbone, task, samples)
                if replies != expected:
                    raise SystemExit(f"{task.name}: replies of `{way}` differ from those of lmms-eval")
                ratios[way].append(spent / cpu)
        r = {key: statistics.median(values) for key, values in ratios.items()}
        rows.append({"layout": layout.title, "questions": len(samples), **r})
        cells = f"{r['ours']:.2f} | {r['kept']:.2f} | {r['plain']:.2f} | {r['seconds']:.3f}"
        print(f"| {layout.title} | {len(samples)} | {cells} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
