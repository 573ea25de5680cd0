"""One accelerator: our evaluation beside vLLM and lmms-eval, our training beside the Trainer of Hugging Face with PEFT.

    pip install vllm lmms-eval==0.7.3
    python benchmarks/gpu.py                                                    LLaVA-1.5-7B's shape, bfloat16, CUDA
    python benchmarks/gpu.py --size tiny --device cpu --dtype float32 --scale 0.3     whether the script runs

Weights are random. Every measurement has a process of its own, and is counted in seconds of the clock from the first
question or step to the last, the device synchronised: no start, no loading. vLLM has its prefix cache on and is given
all questions at once; lmms-eval asks one at a time, as it must with `llava_hf`. What is not installed is said and left
out. In half precision two words can be as good as equal: the share of replies that are those of our own plain way is
printed, not demanded. Shares are of the rate at which the same device multiplies two square matrices in the same
precision.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import midsize
import mixture
import torch
import training
from torch.utils.flop_counter import FlopCounterMode

import evaluation
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.feature_cache import FeatureCache
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.environment import environment

WAYS = {"ours": "", "plain": "", "lmms-eval": "lmms_eval", "vLLM": "vllm"}
"""Ways to evaluate, and the package that each needs."""


def now(device: str) -> float:
    """Returns the clock's seconds, after all work that the device was given."""
    if device != "cpu":
        torch.get_device_module(device).synchronize()
    return time.perf_counter()


def rate(device: str, dtype: str) -> float:
    """Returns the operations a second of a product of two square matrices on the device."""
    side = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    for _ in range(3):
        a @ b
    began = now(device)
    for _ in range(10):
        a @ b
    return 10 * 2 * side**3 / (now(device) - began)


def questions(job: dict[str, Any]) -> list[tuple[str, Task, list[Sample]]]:
    """Returns the layouts with their samples."""
    return evaluation.questions("midsize", job["tasks"].split(","), None, job["scale"])


def of_vllm(job: dict[str, Any]) -> dict[str, Any]:
    """Returns what vLLM takes, with its prefix cache, and its replies."""
    from transformers import AutoProcessor
    from vllm import LLM, SamplingParams

    model = LLM(job["folder"], dtype=job["dtype"], enable_prefix_caching=True, max_model_len=1024, seed=0)
    processor, found = AutoProcessor.from_pretrained(job["folder"]), {}
    for title, task, samples in questions(job):
        asked = [
            {
                "prompt": processor.apply_chat_template(
                    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": sample.question}]}],
                    add_generation_prompt=True,
                ),
                "multi_modal_data": {"image": sample.image.open()},
            }
            for sample in samples
        ]
        plain = SamplingParams(temperature=0.0, max_tokens=task.max_new_tokens)
        began = time.perf_counter()
        made = model.generate(asked, plain, use_tqdm=False)
        replies = {sample.id: one.outputs[0].text for sample, one in zip(samples, made, strict=True)}
        found[title] = {"seconds": time.perf_counter() - began, "replies": replies}
    return found


def of_lmms_eval(job: dict[str, Any]) -> dict[str, Any]:
    """Returns what lmms-eval takes at batch size 1, and its replies."""
    import beside_lmms_eval
    from lmms_eval.models import get_model

    words = f"pretrained={job['folder']},dtype={job['dtype']},device_map={job['device']}"
    model = get_model("llava_hf").create_from_arg_string(words, {"batch_size": 1, "device": job["device"]})
    found = {}
    for title, task, samples in questions(job):
        began = now(job["device"])
        _, replies = beside_lmms_eval.theirs(model, task, samples)
        found[title] = {"seconds": now(job["device"]) - began, "replies": replies}
    return found


def of_backbone(job: dict[str, Any]) -> dict[str, Any]:
    """Returns what our evaluation, or the plain way, takes, and its replies."""
    backbone, found = load_backbone(job["folder"], job["dtype"], job["device"], offline=True), {}
    method_catalog.load_method(method_catalog.method_entries()["frozen"])().attach(backbone, 0)
    way = evaluation.ours if job["way"] == "ours" else evaluation.plain
    for title, task, samples in questions(job):
        way(backbone, task, samples[:2])  # what a device compiles once
        backbone.features, backbone.kept_pictures = FeatureCache(), FeatureCache()
        _, seconds, replies = way(backbone, task, samples)
        found[title] = {"seconds": seconds, "replies": replies}
    return found


def step_operations(backbone: Backbone, method: str, batch_size: int) -> int:
    """Returns the operations of the matrix products in one training step."""
    handle = method_catalog.load_method(method_catalog.method_entries()[method])().attach(backbone, 1)
    losses = Losses(backbone, "set", 1024)
    ready = losses.ready(next(mixture.corpus(batch_size).batches(0, 1, batch_size)))
    with FlopCounterMode(display=False) as counter:
        for chosen in losses.cut(ready, batch_size):
            losses.sum_of(ready, chosen)[0].backward()
    handle.remove()
    return int(counter.get_total_flops())


def child(job: dict[str, Any]) -> Any:
    """Returns one measurement, in this process."""
    if job["device"] == "cpu":
        torch.set_num_threads(1)
    if job["way"] in ("trained", "rival"):
        return training.child({**job, "way": "ours" if job["way"] == "trained" else "rival"})
    if job["way"] == "operations":
        backbone = load_backbone(job["folder"], job["dtype"], job["device"], offline=True)
        return {method: step_operations(backbone, method, job["batch_size"]) for method in job["methods"]}
    if job["way"] == "rate":
        return rate(job["device"], job["dtype"])
    return {"vLLM": of_vllm, "lmms-eval": of_lmms_eval}.get(job["way"], of_backbone)(job)


def measured(job: dict[str, Any], way: str, **more: Any) -> Any:
    """Returns one measurement, made in a process of its own; SystemExit with what it said where it fails."""
    command = [sys.executable, __file__, "--child", json.dumps({**job, "way": way, **more})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def evaluated(job: dict[str, Any]) -> dict[str, Any]:
    """Prints how long each way takes, and returns it."""
    there = [way for way, package in WAYS.items() if not package or importlib.util.find_spec(package)]
    for way in WAYS.keys() - set(there):
        print(f"{way}: not installed, left out")
    found = {way: measured(job, way) for way in there}
    print("\n| layout | questions | " + " | ".join(f"{way}, s (same replies)" for way in there) + " |")
    print("|---|---|" + "---|" * len(there))
    for title, plain in found["plain"].items():
        cells = []
        for way in there:
            one = found[way][title]
            same = sum(one["replies"][name].strip() == text.strip() for name, text in plain["replies"].items())
            cells.append(f"{one['seconds']:.2f} ({same / len(plain['replies']):.0%})")
        print(f"| {title} | {len(plain['replies'])} | {' | '.join(cells)} |", flush=True)
    return {way: {title: one["seconds"] for title, one in of.items()} for way, of in found.items()}


def trained(job: dict[str, Any]) -> dict[str, Any]:
    """Prints how long a step takes, ours and the rival's, and which share of the device's rate that is."""
    most, operations = measured(job, "rate"), measured(job, "operations")
    print(f"\n| method | ours, s a step | Trainer + PEFT, s a step | share of {most / 1e12:.3g} TFLOP/s | loss apart |")
    print("|---|---|---|---|---|")
    found: dict[str, Any] = {"rate": most}
    for method in job["methods"]:
        ours, rival = (measured(job, way, method=method) for way in ("trained", "rival"))
        mine, theirs = (one["wall"] / job["steps"] for one in (ours, rival))
        apart = max(abs(a - b) for a, b in zip(ours["losses"], rival["losses"], strict=True))
        share = operations[method] / mine / most
        found[method] = {"ours": mine, "rival": theirs, "operations": operations[method], "share": share}
        print(f"| {method} | {mine:.3f} | {theirs:.3f} | {share:.2f} | {apart:.1e} |", flush=True)
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="7b", choices=tuple(midsize.SHAPES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tasks", default="mme,pope,vsr,snli_ve")
    parser.add_argument("--scale", type=float, default=8.0, help="of the layouts' images")
    parser.add_argument("--methods", default="lora,mmpt")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child)))
        return
    name = "" if given.device == "cpu" else torch.get_device_module(given.device).get_device_name()
    print(f"{name or 'CPU, one thread'}, {given.dtype}, a LLaVA of the size {given.size}")
    with tempfile.TemporaryDirectory() as folder:
        job = {name: getattr(given, name) for name in ("device", "dtype", "tasks", "scale", "steps", "batch_size")}
        job |= {"folder": str(midsize.save_llava(Path(folder), size=given.size, dtype=given.dtype))}
        job |= {"methods": given.methods.split(","), "backbone": "made", "images": given.batch_size}
        found = {"evaluation": evaluated(job), "training": trained(job), "device": name, "environment": environment()}
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
