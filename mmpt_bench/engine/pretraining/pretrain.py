"""Pre-training of the embedded base, from a seed: first the eyes, then the words.

Stage "vision" teaches the tower to tell what is in each cell. Stage "naming" teaches the projector to say so in the
language model's own word vectors, so that a question's word meets its like in the picture (both: sight.py). Stage
"language" trains the language model on packed questions (packing.py, curriculum.py), with eyes that stay as they are.
Every step's data follow from (seed, stage, step, process), so an interrupted run goes on where its checkpoint stands.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpt_bench.engine.pretraining import model as embedded_model
from mmpt_bench.engine.pretraining.curriculum import PHASES, Phase, draw_rows
from mmpt_bench.engine.pretraining.packing import Packed, Packer
from mmpt_bench.engine.pretraining.pointing import Pointers
from mmpt_bench.engine.pretraining.sight import CellHeads, cell_batch, features, naming_loss
from mmpt_bench.sources.weights import write_checksums

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Plan:
    """How long and how fast."""

    seed: int = 0
    vision_steps: int = 1600
    vision_batch: int = 128
    vision_rate: float = 1.5e-3
    naming_steps: int = 400
    steps: int = 9_800
    batch: int = 8
    """Pictures a step and process."""
    rate: float = 1.5e-3
    decay_steps: int = 2000
    """The learning rate falls to zero over the last so many steps."""
    phases: tuple[Phase, ...] = PHASES
    noise: float = 0.03
    processes: int = 2
    checkpoint_every: int = 250
    report_every: int = 50


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: int) -> float:
    """Returns the rate of a step: a linear rise, a plateau, a linear fall to zero."""
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / decay)


def packed_states(model: Any, batch: Packed) -> tuple[Tensor, ...]:
    """Returns the decoder's states, of the embeddings first and normalised last, (rows, length, width) each."""
    seen = model.model.multi_modal_projector(features(model, batch.pixels))
    embedded = model.get_input_embeddings()(batch.input_ids)
    embedded = embedded.masked_scatter((batch.input_ids == 4)[..., None], seen.to(embedded.dtype))
    decoder = model.model.language_model
    return decoder(
        inputs_embeds=embedded,
        attention_mask=batch.mask(),
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states


def answer_loss(model: Any, hidden: Tensor, batch: Packed) -> Tensor:
    """Returns the mean cross-entropy of the answer tokens of packed rows."""
    from torch.nn.functional import cross_entropy

    known = batch.labels >= 0
    return cross_entropy(model.lm_head(hidden[known]), batch.labels[known])


def _average_gradients(parameters: list[nn.Parameter], processes: int) -> None:
    import torch
    import torch.distributed as dist

    if processes == 1:
        return
    flat = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in parameters])
    dist.all_reduce(flat)
    flat /= processes
    at = 0
    for p in parameters:
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()


def _optimizer(named: list[tuple[str, nn.Parameter]], rate: float) -> torch.optim.AdamW:
    """Returns AdamW; a tower that has learnt to see follows its projector at a quarter of the rate."""
    import torch

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        decay = 0.05 if parameter.ndim >= 2 and "embed" not in name else 0.0
        groups.setdefault((decay, 0.25 if name.startswith("tower.") else 1.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "weight_decay": decay, "scale": scale} for (decay, scale), p in groups.items()],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )


@dataclass
class _Stage:
    """One stage's loop: what it trains, on what, for how long."""

    name: str
    parameters: list[tuple[str, nn.Parameter]]
    steps: int
    peak: float
    warmup: int
    decay: int
    loss: Callable[[int], Tensor]
    modules: dict[str, nn.Module]
    """Whose values a checkpoint holds."""


def _run_stage(stage: _Stage, plan: Plan, folder: Path, rank: int, say: Callable[[str], None]) -> None:
    """Trains a stage from its last checkpoint to its end."""
    import torch

    optimizer = _optimizer(stage.parameters, stage.peak)
    tensors = [p for _, p in stage.parameters]
    path = folder / f"{stage.name}.pt"
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        first = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        for name, module in stage.modules.items():
            module.load_state_dict(state[name])
        say(f"{stage.name}: goes on from step {first}")
    since, seen, mean = time.perf_counter(), first, 0.0
    for step in range(first, stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * learning_rate(step, stage.steps, stage.peak, stage.warmup, stage.decay)
        loss = stage.loss(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(tensors, plan.processes)
        torch.nn.utils.clip_grad_norm_(tensors, 1.0)
        optimizer.step()
        mean = loss.item() if not mean else 0.98 * mean + 0.02 * loss.item()
        if rank == 0 and (step + 1) % plan.report_every == 0:
            pace = (time.perf_counter() - since) / (step + 1 - seen)
            left = pace * (stage.steps - step - 1) / 60
            done = f"step {step + 1}/{stage.steps}, loss {mean:.4f}"
            say(f"{stage.name}: {done}, {pace:.2f} s a step, {left:.0f} min left")
            since, seen = time.perf_counter(), step + 1
        if rank == 0 and ((step + 1) % plan.checkpoint_every == 0 or step + 1 == stage.steps):
            state = {"step": step + 1, "optimizer": optimizer.state_dict()}
            state |= {name: module.state_dict() for name, module in stage.modules.items()}
            torch.save(state, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)


def _work(rank: int, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if plan.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=plan.processes)
    model = embedded_model.build_model(plan.seed)
    tower = model.model.vision_tower
    heads = CellHeads(tower.config.hidden_size)

    def vision_loss(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 0, step, rank])
        pixels, targets = cell_batch(rng, plan.vision_batch, plan.noise)
        loss, right = heads.loss(features(model, pixels), targets)
        if rank == 0 and (step + 1) % 100 == 0:
            say("vision: " + ", ".join(f"{name} {value:.2f}" for name, value in right.items()))
        return loss

    used = [(n, p) for n, p in tower.named_parameters() if "post_layernorm" not in n]
    parameters = [*used, *heads.heads.named_parameters()]
    modules = {"tower": tower, "heads": heads.heads}
    eyes = _Stage(
        "vision",
        parameters,
        plan.vision_steps,
        plan.vision_rate,
        100,
        max(1, plan.vision_steps // 3),
        vision_loss,
        modules,
    )
    _run_stage(eyes, plan, folder, rank, say)

    packer = Packer(embedded_model.build_tokenizer())

    def names_loss(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 2, step, rank])
        return naming_loss(model, packer.vocabulary, *cell_batch(rng, plan.vision_batch, plan.noise))

    projector = model.model.multi_modal_projector
    parameters = [*((f"tower.{n}", p) for n, p in used), *projector.named_parameters()]
    modules = {"tower": tower, "projector": projector}
    decay = max(1, plan.naming_steps // 3)
    naming = _Stage("naming", parameters, plan.naming_steps, plan.vision_rate, 50, decay, names_loss, modules)
    _run_stage(naming, plan, folder, rank, say)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.get_input_embeddings().weight)

    pointers = Pointers(model.config.get_text_config().hidden_size)

    def language_loss(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 1, step, rank])
        phase = [phase for phase in plan.phases if step >= phase.start][-1]
        batch = packer.pack(draw_rows(rng, plan.batch, phase), rng, plan.noise)
        states = packed_states(model, batch)
        loss, right = pointers.loss(states, batch.points)
        if rank == 0 and (step + 1) % plan.report_every == 0:
            say("language: " + ", ".join(f"{name} {value:.2f}" for name, value in right.items()))
        return answer_loss(model, states[-1], batch) + loss

    for module in (tower, projector):
        module.requires_grad_(False)
    parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    parameters += pointers.heads.named_parameters()
    words = _Stage(
        "language",
        parameters,
        plan.steps,
        plan.rate,
        200,
        plan.decay_steps,
        language_loss,
        {"model": model, "pointers": pointers.heads},
    )
    _run_stage(words, plan, folder, rank, say)
    if rank == 0:
        embedded_model.save(model, folder / "weights")
        finish(plan, folder / "weights")
    if plan.processes > 1:
        dist.barrier()
        dist.destroy_process_group()


def finish(plan: Plan, weights: Path) -> None:
    """Writes beside the weights how they were made, and the checksums by which a flipped bit is found."""
    (weights / "pretraining.json").write_text(json.dumps(asdict(plan), indent=1) + "\n", encoding="utf-8")
    for path in weights.iterdir():
        path.chmod(0o644)
    write_checksums(weights)


def _log(message: str) -> None:
    print(message, flush=True)


def pretrain(plan: Plan, folder: Path, say: Callable[[str], None] = _log) -> Path:
    """Trains the base and returns the folder of its weights, in Hugging Face form.

    `say` is told of every fiftieth step; with several processes it must be a function of a module.

    Run again with the same folder, it goes on from the last checkpoint; fewer `steps` than before end it sooner,
    with the same fall of the learning rate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meet").unlink(missing_ok=True)
    os.environ.update(MALLOC_TRIM_THRESHOLD_="2147483647", MALLOC_MMAP_THRESHOLD_="1073741824", OMP_NUM_THREADS="1")
    if plan.processes == 1:
        _work(0, plan, folder, say)
    else:
        import torch.multiprocessing as mp

        mp.start_processes(_work, (plan, folder, say), nprocs=plan.processes, start_method="spawn")
    return folder / "weights"
