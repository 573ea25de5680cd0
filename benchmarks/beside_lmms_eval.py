"""Evaluation beside lmms-eval: its class for a family, same model, questions and images, in turns in one process.

    pip install --no-deps lmms-eval==0.7.3 'filelock<4' decord torchvision qwen-vl-utils
    pip install loguru pytz evaluate sacrebleu pytablewriter tenacity python-dotenv
    python benchmarks/beside_lmms_eval.py
    python benchmarks/beside_lmms_eval.py --backbone qwen3_vl --tasks mme,pope,snli_ve --scale 0.5

Counted of lmms-eval is `generate_until` alone, neither its start nor its data sets and scores, at the quickest of its
batch sizes. What is counted of ours ranks the legal answers too, which theirs does not. Replies of all have to be the
same, or it stops. "Plain" is the project's own reference (plain.py), which stands in for lmms-eval in evaluation.py.
Ratios are medians over pairs, of CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import midsize
import torch
from transformers import AutoModelForImageTextToText

import evaluation
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.feature_cache import FeatureCache
from mmpt_bench.engine.training.memory import steady_malloc
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.environment import environment


@dataclasses.dataclass(frozen=True)
class Harness:
    """How lmms-eval runs a family."""

    name: str
    """Of its model class."""
    words: str = ""
    """Its arguments, so that images are those of ours."""
    batch_sizes: tuple[int, ...] = (1,)
    """Tried; the other classes take one question at a time, or fail at several (`huggingface` on a SmolVLM)."""
    system: str = ""
    """The system's turn, which it always adds: ours is asked with the same."""


HARNESSES = {
    "midsize": Harness("llava_hf", "dtype=float32"),
    "qwen2_5_vl": Harness("qwen2_5_vl", f"min_pixels={4 * 28**2},max_pixels={128 * 28**2}", (1, 8)),
    "qwen3_vl": Harness(
        "qwen3_vl", f"min_pixels={4 * 32**2},max_pixels={128 * 32**2}", (1, 8), "You are a helpful assistant."
    ),
    "internvl": Harness("internvl_hf", "min_patches=1,max_patches=4"),
    "llava_onevision": Harness("llava_hf", "dtype=float32"),
    "smolvlm": Harness("huggingface"),
}


def harness(folder: Path, how: Harness) -> Any:
    """Returns lmms-eval's model."""
    from lmms_eval.models import get_model
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

    kind = json.loads((folder / "config.json").read_text())["model_type"]
    if videos := VIDEO_PROCESSOR_MAPPING_NAMES.get(kind):
        # Its classes read the part for videos too, which ours leave out.
        (folder / "video_preprocessor_config.json").write_text(
            json.dumps({"video_processor_type": videos["torchvision"]})
        )
    words = ",".join(filter(None, (f"pretrained={folder},device_map=cpu", how.words)))
    made = get_model(how.name).create_from_arg_string(words, {"batch_size": 1, "device": "cpu"})
    if made.model.dtype != torch.float32:
        # All but `llava_hf` round weights to bfloat16, which no cast undoes, and `huggingface` takes a model without
        # its head. There is no option for either: the model is read again.
        made._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    if how.name.startswith("qwen"):
        # No option limits the first of its two resizings of an image. At this limit the second has nothing to do.
        from qwen_vl_utils import vision_process

        vision_process.IMAGE_MAX_TOKEN_NUM = 128
    if how.name == "huggingface":
        # It hands on `audios`, which transformers 5 refuses, if only an empty list.
        class ForImages(type(made.processor)):  # type: ignore[misc]
            """Takes images and text alone."""

            def __call__(self, *, videos: list[Any], audios: list[Any], **named: Any) -> Any:
                return super().__call__(**named)

        made.processor.__class__ = ForImages
    return made


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


def row(backbone: Backbone, model: Any, how: Harness, task: Task, samples: list[Sample], pairs: int) -> dict[str, Any]:
    """Returns the median ratios of one task, lmms-eval's CPU time a question, and its quickest batch size."""
    ratios: dict[str, list[float]] = {"ours": [], "kept": [], "plain": [], "seconds": []}
    quickest = []
    for _ in range(pairs):
        backbone.features, backbone.kept_pictures = FeatureCache(), FeatureCache()
        tried = []
        for size in how.batch_sizes:
            model.batch_size_per_gpu = size
            tried.append((*theirs(model, task, samples), size))
        spent, expected, size = min(tried, key=lambda one: one[0])
        quickest.append(size)
        ratios["seconds"].append(spent / len(samples))
        for _, replies, size in tried:
            if replies != expected:
                raise SystemExit(f"{task.name}: replies of lmms-eval at batch size {size} differ from its others")
        for way, run in (("plain", evaluation.plain), ("ours", evaluation.ours), ("kept", evaluation.ours)):
            cpu, _, replies = run(backbone, task, samples)
            if replies != expected:
                raise SystemExit(f"{task.name}: replies of `{way}` differ from those of lmms-eval")
            ratios[way].append(spent / cpu)
    medians = {key: statistics.median(values) for key, values in ratios.items()}
    return {**medians, "batch_size": statistics.mode(quickest)}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="midsize", choices=HARNESSES)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the layouts' images")
    parser.add_argument("--tasks", default=",".join(evaluation.PICTURES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if unknown := set(given.tasks.split(",")) - set(evaluation.PICTURES):
        parser.error(f"no layout of {', '.join(sorted(unknown))}; there are {', '.join(evaluation.PICTURES)}")
    if importlib.util.find_spec("lmms_eval") is None:
        raise SystemExit("lmms-eval is not installed: the first lines of this file say how.")
    torch.set_num_threads(1)
    steady_malloc()
    how, rows = HARNESSES[given.backbone], []
    with tempfile.TemporaryDirectory() as name:
        folder = midsize.MADE[given.backbone](Path(name))
        backbone, model = load_backbone(str(folder), device="cpu", offline=True), harness(folder, how)
    # As every run does: nothing is trained, so that the tower is known to stay as it is.
    method_catalog.load_method(method_catalog.method_entries()["frozen"])().attach(backbone, 0)
    print(
        f"{given.backbone}, lmms-eval's `{how.name}`, quickest of batch size {', '.join(map(str, how.batch_sizes))}\n"
    )
    print("| layout | questions | of ours | of ours, kept | of plain | lmms-eval, CPU s a question | batch size |")
    print("|---|---|---|---|---|---|---|")
    for title, task, samples in evaluation.questions(given.backbone, given.tasks.split(","), None, given.scale):
        samples = [dataclasses.replace(sample, system=how.system) for sample in samples]
        r = row(backbone, model, how, task, samples, given.pairs)
        rows.append({"layout": title, "questions": len(samples), **r})
        cells = f"{r['ours']:.2f} | {r['kept']:.2f} | {r['plain']:.2f} | {r['seconds']:.3f} | {r['batch_size']}"
        print(f"| {title} | {len(samples)} | {cells} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
