"""Training against the Trainer of Hugging Face with PEFT: same adapter, values, data, batch and steps; side by side.

    python benchmarks/training.py                            a LLaVA of 48 million parameters
    python benchmarks/training.py --backbone smolvlm         images of several tiles, and a tower that is most of it
    python benchmarks/training.py --backbone embedded        the embedded model on its own mixture
    python benchmarks/training.py --fit                      what a micro-batch costs beside its tokens
    python benchmarks/training.py --operations               the arithmetic of a step, counted

Each training has a process of its own, one thread, and is counted from its first step to its last; its memory is the
most that the process ever held. The rival gets batches from the same code, pads a step to its longest example and is
told to save and to report nothing. "Kept" is a second training of ours on the same examples, as of a further method at
the same seed. "Steady" is what the steps from the second on cost, of both sides: without what comes once before or in
the first, as our comparison with the plain way, which computes two examples twice. Losses are compared step by step.
Ratios are medians over pairs, the rival's seconds over ours.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import midsize
import mixture
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.training import train
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.environment import environment
from mmpt_bench.sources.corpora import load_corpus

METHODS = ("lora", "prefix", "projector", "mmpt", "vpt", "full")
COMPARED = ("cpu", "wall", "steady")
"""Seconds that are compared, of a first training and of a second."""
WHOLE = ("projector", "full")
"""Methods that PEFT has no form for: the rival trains the same weights without it."""


class Watch:
    """The seconds of a training, of CPU and on the clock, and when each step ended."""

    def __init__(self) -> None:
        self._marks = [(time.process_time(), time.perf_counter())]

    def note(self) -> None:
        """Called at the end of a step."""
        self._marks.append((time.process_time(), time.perf_counter()))

    def spent(self) -> dict[str, float]:
        """Returns the seconds since it was made, and of CPU those between the ends of the first and the last step."""
        (cpu, wall), ends = self._marks[0], self._marks[1:]
        whole = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        return {**whole, "steady": ends[-1][0] - ends[0][0]}


def ours(backbone: Backbone, adapter: Any, corpus: Corpus, budget: Budget, trainings: int = 2) -> dict[str, Any]:
    """Returns what two trainings of ours cost, the second with the features that the first one made; or one, twice."""
    runs = []
    for _ in range(trainings):
        handle, watch = adapter.attach(backbone, 1), Watch()
        steps: list[train.Step] = []

        def note(step: train.Step, watch: Watch = watch, steps: list[train.Step] = steps) -> None:
            watch.note()
            steps.append(step)

        config = train.TrainingConfig(budget, adapter.learning_rate, 0)
        train.train(backbone, handle, corpus, config, on_step=note)
        runs.append({**watch.spent(), "losses": [step.loss for step in steps]})
        if len(runs) == 1:
            runs[0]["peak"] = peak_bytes()
        handle.remove()
    return {**runs[0], **{f"kept_{name}": value for name, value in runs[-1].items() if name != "peak"}}


def rival(backbone: Backbone, adapter: Any, corpus: Corpus, budget: Budget, folder: Path) -> dict[str, Any]:
    """Returns what the same training costs in Hugging Face's Trainer, with PEFT where it has the method."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = prepared(backbone, adapter, folder)
    losses: list[float] = []
    model.register_forward_hook(lambda module, args, output: losses.append(output.loss.item()))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=adapter.learning_rate, weight_decay=budget.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: train.learning_rate(step, budget, 1.0))

    def collate(examples: list[Example]) -> dict[str, torch.Tensor]:
        prompts = [backbone.prompt_text(example.prompt) for example in examples]
        pictures = [example.image.open() for example in examples]
        return backbone.batch(pictures, prompts, [example.target for example in examples])

    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=budget.batch_size, max_steps=budget.steps,
        max_grad_norm=budget.max_grad_norm, train_sampling_strategy="sequential", use_cpu=backbone.device == "cpu",
        bf16=backbone.dtype == "bfloat16", report_to="none",
        save_strategy="no", logging_strategy="no", remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    examples: Any = [example for batch in corpus.batches(0, budget.steps, budget.batch_size) for example in batch]
    trainer = Trainer(model, arguments, collate, examples, optimizers=(optimizer, schedule))
    watch = Watch()

    class Noted(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            watch.note()

    trainer.add_callback(Noted())
    trainer.train()
    return {**watch.spent(), "losses": losses, "peak": peak_bytes()}


def prepared(backbone: Backbone, adapter: Any, folder: Path) -> Any:
    """Returns the model with the adapter's first values, as PEFT loads them, or with the same weights opened."""
    if adapter.name not in WHOLE:
        from peft import PeftModel

        handle = adapter.attach(backbone, 1)
        handle.save(folder / "adapter")
        handle.remove()
        return PeftModel.from_pretrained(backbone.model, str(folder / "adapter"), is_trainable=True)
    anatomy = backbone.anatomy
    opened = (
        [anatomy.projector] if adapter.name == "projector" else [anatomy.projector, anatomy.decoder, anatomy.lm_head]
    )
    backbone.model.requires_grad_(False)
    for name in opened:
        backbone.model.get_submodule(name).requires_grad_(True)
    return backbone.model


def operations(backbone: Backbone, adapter: Any, examples: list[Example]) -> dict[str, Any]:
    """Returns 10^9 operations of a first step's matrix products, ours and the whole model's on a padded batch.

    Torch does not count those inside attention on a CPU.
    """
    handle, losses = adapter.attach(backbone, 1), Losses(backbone, "set", 1024)
    backbone.model.train()
    with FlopCounterMode(display=False) as own:
        ready = losses.ready(examples)
        for chosen in losses.cut(ready, len(examples)):
            losses.sum_of(ready, chosen)[0].backward()
    prompts, targets = [backbone.prompt_text(one.prompt) for one in examples], [one.target for one in examples]
    with FlopCounterMode(display=False) as whole:
        backbone.model(**backbone.batch([one.image.open() for one in examples], prompts, targets)).loss.backward()
    losses.close()
    handle.remove()
    found = {"ours": own.get_total_flops() / 1e9, "whole": whole.get_total_flops() / 1e9}
    return {"images": [one.image.key for one in examples], **found, "ratio": found["whole"] / found["ours"]}


def peak_bytes() -> int:
    """Returns the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Returns what one training cost, in this process."""
    torch.set_num_threads(1)
    backbone = load_backbone(job["folder"], job.get("dtype", "float32"), job.get("device", "cpu"), offline=True)
    name, _, field = job["method"].partition(":")
    fields = dict([field.split("=")]) if field else {}
    adapter = method_catalog.method_of(method_catalog.method_entries()[name], fields)
    if job["backbone"] == "embedded":
        corpus = load_corpus("embedded")
    else:
        corpus = mixture.corpus(job["images"], job.get("each", 2))
    budget = Budget(steps=job["steps"], batch_size=job["batch_size"])
    if job["way"] == "operations":
        return operations(backbone, adapter, next(corpus.batches(0, job["steps"], job["batch_size"])))
    if job["way"] == "ours":
        return ours(backbone, adapter, corpus, budget, 1 if job.get("once") else 2)
    with tempfile.TemporaryDirectory() as folder:
        return rival(backbone, adapter, corpus, budget, Path(folder))


def timed(job: dict[str, Any]) -> dict[str, Any]:
    """Returns what one training cost, in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job['way']} of {job['method']} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(job: dict[str, Any], pairs: int) -> dict[str, Any]:
    """Returns the medians over pairs of one method."""
    ratios: dict[str, list[float]] = {
        name: [] for name in (*COMPARED, *(f"kept_{name}" for name in COMPARED), "memory")
    }
    apart, first = 0.0, 0.0
    for _ in range(pairs):
        slow, quick = timed({**job, "way": "rival"}), timed({**job, "way": "ours"})
        for name in COMPARED:
            ratios[name].append(slow[name] / quick[name])
            ratios[f"kept_{name}"].append(slow[name] / quick[f"kept_{name}"])
        ratios["memory"].append(quick["peak"] / slow["peak"])
        for losses in (quick["losses"], quick["kept_losses"]):
            apart = max(apart, *(abs(a - b) for a, b in zip(slow["losses"], losses, strict=True)))
        first = slow["cpu"] / job["steps"]
    medians = {name: statistics.median(values) for name, values in ratios.items()}
    return {"method": job["method"], **medians, "loss_difference": apart, "rival_cpu_seconds_a_step": first}


def jobs(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Yields what is to be trained, a method at a time; a made-up model is written to the folder."""
    place = str(midsize.MADE[given.backbone](folder)) if given.backbone in midsize.MADE else given.backbone
    asked = {name: vars(given)[name] for name in ("backbone", "steps", "batch_size", "images", "each", "once")}
    for method in given.methods.split(","):
        yield {**asked, "method": method, "folder": place}


def table(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Prints the table, a row at a time, and returns its rows."""
    rows = []
    print(f"\n| method, {given.backbone} | CPU | steady | kept | kept, steady | wall | memory | ", end="")
    print("loss apart | rival, CPU s a step |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs(given, Path(folder)):
            rows.append(r := row(job, given.pairs))
            shown = [r[name] for name in ("cpu", "steady", "kept_cpu", "kept_steady", "wall", "memory")]
            print(f"| {r['method']} | " + " | ".join(f"{value:.2f}" for value in shown), end=" | ")
            print(f"{r['loss_difference']:.1e} | {r['rival_cpu_seconds_a_step']:.2f} |", flush=True)
    return [{"backbone": given.backbone, **r} for r in rows]


def fit(backbone: Backbone, corpus: Corpus, method: str) -> dict[str, float]:
    """Returns the least-squares costs of a micro-batch: seconds each, seconds a token, and the first in operations."""
    handle = method_catalog.load_method(method_catalog.method_entries()[method])().attach(backbone, 1)
    losses = Losses(backbone, corpus.fingerprint, 1024)
    examples = next(corpus.batches(0, 1, 24))
    ready = losses.ready(examples)
    order = sorted(range(24), key=lambda i: len(ready.rows[i].ids))
    points = []
    for n in (2, 4, 8, 16, 24):
        chosen = order[-n:]
        times = []
        for _ in range(5):
            began = time.process_time()
            losses.sum_of(ready, chosen)[0].backward()
            times.append(time.process_time() - began)
        points.append((n * len(ready.rows[order[-1]].ids), statistics.median(times[1:])))
    handle.remove()
    slope, start = statistics.linear_regression(*zip(*points, strict=True))
    anatomy = backbone.anatomy
    flops = start / slope * 6 * anatomy.language_parameters / len(anatomy.decoder_layers)
    return {"seconds": start, "seconds_a_token": slope, "tokens": start / slope, "operations_a_layer": flops}


def options(parser: argparse.ArgumentParser) -> None:
    """Adds what `table` reads."""
    parser.add_argument("--backbone", default="midsize", help=f"{', '.join(midsize.MADE)}, `embedded` or a folder")
    parser.add_argument("--methods", default=",".join(METHODS), help="or one with a field: mmpt:interaction=false")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images", type=int, default=8, help="of the made-up mixture")
    parser.add_argument("--each", type=int, default=2, help="examples of an image")
    parser.add_argument("--once", action="store_true", help="one training of ours: kept is then the same number")
    parser.add_argument("--pairs", type=int, default=3)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options(parser)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--operations", action="store_true", help="count matrix products of a step, and time nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.steps < 2:
        parser.error("--steps: the steps from the second on are counted by themselves, so that there must be two")
    torch.set_num_threads(1)
    if given.child:
        print(json.dumps(child(given.child)))
    elif given.operations:
        with tempfile.TemporaryDirectory() as folder:
            for job in jobs(given, Path(folder)):
                print(job["method"], timed({**job, "way": "operations"}), flush=True)
    elif given.fit:
        backbone, corpus = load_backbone("embedded", offline=True), load_corpus("embedded")
        for method in given.methods.split(","):
            print(method, {name: f"{value:.3g}" for name, value in fit(backbone, corpus, method).items()})
    else:
        rows = table(given)
        if given.json:
            given.json.write_text(json.dumps({"training": rows, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
