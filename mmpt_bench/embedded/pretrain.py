"""Pre-training of the embedded base, from a seed: first the eyes, then the words.

Stage "vision" teaches the tower to tell what is in each cell. Stage "naming" teaches the projector to say so in the
language model's own word vectors, so that a question's word meets its like in the picture. Stage "language" trains
everything on packed questions (packing.py) with a curriculum: few objects and few wordings first. Every step's data
follow from (seed, stage, step, process), so an interrupted run goes on where its checkpoint stands.
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

from mmpt_bench.embedded import model as embedded_model
from mmpt_bench.embedded import world
from mmpt_bench.embedded.packing import Packed, Packer, Phase, draw_rows, normalise
from mmpt_bench.weights import write_checksums

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


ALL = ("shape", "existence", "existence", "count", "count", "color", "color", "location", "location", "neutral")
PAIRS = (*ALL, "relation", "relation", "relation")
PLACES, PRICE = 3, 5e-4
"""Weight of where a cell is, which a tower that was only asked what is in it half forgets."""
FOUND = ("shape", "shape", "existence", "color", "location")
WHERE = ("location", "location", "relation", "relation", "existence", "count", "color")
OPEN_WHERE = ("?location", "?location", "?at", "?at", "?relation", "?color", "?count")
PHASES = (
    Phase(0, (1, 2), (1,), (0.72, 0.09, 0.07, 0.07, 0.05), 3, 6, 0.1, ("shape",), part="primer"),
    Phase(500, (1, 2, 3), (1, 2), (0.72, 0.09, 0.07, 0.07, 0.05), 5, 4, 0.1, FOUND, part="primer"),
    Phase(1150, (1, 2, 3), (1, 2, 3), (0.62, 0.15, 0.11, 0.07, 0.05), 5, 5, 0.1, (*FOUND, "count"), part="primer"),
    Phase(1600, (1, 2, 3), (1, 2, 3), (0.62, 0.14, 0.12, 0.07, 0.05), 7, 3, 0.1, ALL),
    Phase(2400, (2, 2, 3), (1, 2, 3), (0.60, 0.15, 0.13, 0.07, 0.05), 7, 2, 0.1, (*ALL, *PAIRS)),
    Phase(3600, (1, 2, 3), (2, 3), (0.60, 0.14, 0.14, 0.07, 0.05), 7, 3, 0.1, (*PAIRS, "location", "relation")),
    Phase(4100, (1, 1, 2, 3), (1, 2), (0.56, 0.20, 0.16, 0.04, 0.04), 5, 5, 0.1, WHERE, OPEN_WHERE),
    Phase(4900, (1, 2, 3, 4), (2, 3), (0.58, 0.17, 0.15, 0.06, 0.04), 7, 2, 0.1, (*PAIRS, "location"), OPEN_WHERE),
    Phase(6100, (1, 2, 2, 3), (2, 3), (0.62, 0.16, 0.14, 0.05, 0.03), 7, 2, 0.05, (*PAIRS, "relation"), OPEN_WHERE),
    Phase(7600, (1, 2, 3, 4), (2, 3), (0.60, 0.16, 0.13, 0.07, 0.04), 8, 1, 0.05, PAIRS),
)


@dataclass(frozen=True)
class Plan:
    """How long and how fast."""

    seed: int = 0
    vision_steps: int = 1000
    vision_batch: int = 128
    vision_rate: float = 1.5e-3
    vision_decay: int = 333
    naming_steps: int = 300
    steps: int = 10_000
    batch: int = 8
    """Pictures a step and process."""
    thaw: int = 10**9
    """First step of the language stage that trains the tower and the projector too."""
    rate: float = 1.5e-3
    decay_steps: int = 2500
    """The learning rate falls to zero over the last so many steps."""
    phases: tuple[Phase, ...] = PHASES
    noise: float = 0.02
    processes: int = 2
    checkpoint_every: int = 250
    report_every: int = 50


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: int) -> float:
    """Returns the rate of a step: a linear rise, a plateau, a linear fall to zero."""
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / decay)


class CellHeads:
    """What stage 0 asks of the vision tower, by linear heads that are thrown away afterwards."""

    def __init__(self, width: int) -> None:
        from torch import nn

        sizes = {"shape": 11, "color": 8, "size": 2, "texture": 3, "glyph": len(world.GLYPHS) + 1}
        wholes = {"whole_shape": 10, "whole_color": 8, "digit": 10}
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in (sizes | wholes).items()})

    def loss(self, features: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Returns (summed cross-entropy, accuracies) of features (pictures, 9, width)."""
        from torch.nn.functional import cross_entropy

        total, right = features.new_zeros(()), {}
        pooled = features.mean(1)
        for name, head in self.heads.items():
            target = targets[name]
            logits = head(pooled if name in ("whole_shape", "whole_color", "digit") else features).flatten(0, -2)
            known = target.flatten() >= 0
            if known.any():
                total = total + cross_entropy(logits[known], target.flatten()[known])
                right[name] = (logits[known].argmax(-1) == target.flatten()[known]).float().mean().item()
        return total, right


def naming_loss(model: Any, vocabulary: dict[str, int], pixels: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Returns how badly projected patches name what is in their cell: cross-entropy over the embeddings of words."""
    import torch
    from torch.nn.functional import cross_entropy

    said = model.model.multi_modal_projector(features(model, pixels))
    table = model.get_input_embeddings().weight
    n = len(pixels)
    cells = torch.arange(9).expand(n, 9)
    kinds, glyphs = targets["shape"], targets["glyph"]
    is_glyph = (glyphs >= 0) & (glyphs < len(world.GLYPHS))
    is_empty = (kinds == len(world.SHAPES)) & ~is_glyph
    what = torch.where(is_glyph, glyphs + len(world.SHAPES), kinds)
    what = torch.where(is_empty, len(world.SHAPES) + len(world.GLYPHS), what)
    groups = (
        (1, said, (*world.SHAPES, *world.GLYPHS, "nothing"), what),
        (1, said, world.COLOR_NAMES, targets["color"]),
        (1, said, world.SIZES, targets["size"]),
        (1, said, world.TEXTURES, targets["texture"]),
        (PLACES, said, world.ROWS, cells // 3),
        (PLACES, said, world.COLUMNS, cells % 3),
        (1, said.mean(1), world.SHAPES, targets["whole_shape"]),
        (1, said.mean(1), world.COLOR_NAMES, targets["whole_color"]),
        (1, said.mean(1), world.DIGITS, targets["digit"]),
    )
    # Without a price on length, what is easy grows until what is hard is lost beside it.
    total = PRICE * said.square().sum(-1).mean()
    for weight, vectors, names, target in groups:
        logits = (vectors @ table[[vocabulary[name] for name in names]].T).flatten(0, -2)
        known = target.flatten() >= 0
        total = total + weight * cross_entropy(logits[known], target.flatten()[known])
    return total


def cell_batch(rng: np.random.Generator, n: int, noise: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns pictures (n, 3, 48, 48) and what each cell, or the whole, is; -1 where a head has nothing to say."""
    import torch

    scenes = []
    for kind in rng.choice(4, n, p=(0.5, 0.18, 0.1, 0.22)):
        scenes.append(
            world.random_scene(rng, (2, 3, 4))
            if kind == 0
            else world.random_text(rng, bool(rng.random() < 0.4))
            if kind == 1
            else world.random_big(rng)
            if kind == 2
            else world.random_digit(rng, "train")
        )
    cells = {k: np.full((n, 9), -1) for k in ("shape", "color", "size", "texture", "glyph")}
    wholes = {k: np.full(n, -1) for k in ("whole_shape", "whole_color", "digit")}
    for i, scene in enumerate(scenes):
        if scene.big is not None:
            wholes["whole_shape"][i] = world.SHAPES.index(scene.big.shape)
            wholes["whole_color"][i] = world.COLOR_NAMES.index(scene.big.color)
        elif scene.digit_row is not None:
            wholes["digit"][i] = world.digit_label(scene.digit_row)
        else:
            cells["shape"][i], cells["glyph"][i] = len(world.SHAPES), len(world.GLYPHS)
        for thing in scene.things:
            cells["shape"][i, thing.cell] = world.SHAPES.index(thing.shape)
            cells["color"][i, thing.cell] = world.COLOR_NAMES.index(thing.color)
            cells["size"][i, thing.cell] = world.SIZES.index(thing.size)
            cells["texture"][i, thing.cell] = world.TEXTURES.index(thing.texture)
        for cell, glyph in scene.glyphs:
            cells["glyph"][i, cell] = world.GLYPHS.index(glyph)
    pixels = normalise(np.stack([world.draw(scene) for scene in scenes]), rng, noise)
    return torch.from_numpy(pixels), {k: torch.from_numpy(v) for k, v in (cells | wholes).items()}


def features(model: Any, pixels: Tensor) -> Tensor:
    """Returns what the projector is given, (pictures, 9, width): the last block's patch states."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def packed_loss(model: Any, batch: Packed) -> Tensor:
    """Returns the mean cross-entropy of the answer tokens of packed rows."""
    from torch.nn.functional import cross_entropy

    hidden = packed_hidden(model, batch)
    known = batch.labels >= 0
    return cross_entropy(model.lm_head(hidden[known]), batch.labels[known])


def packed_hidden(model: Any, batch: Packed) -> Tensor:
    """Returns the decoder's last states, (rows, length, width)."""
    seen = model.model.multi_modal_projector(features(model, batch.pixels))
    embedded = model.get_input_embeddings()(batch.input_ids)
    embedded = embedded.masked_scatter((batch.input_ids == 4)[..., None], seen.to(embedded.dtype))
    decoder = model.model.language_model
    return decoder(
        inputs_embeds=embedded, attention_mask=batch.mask(), position_ids=batch.positions, use_cache=False
    ).last_hidden_state


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


SEEING = ("model.vision_tower", "model.multi_modal_projector")


def _optimizer(named: list[tuple[str, nn.Parameter]], rate: float) -> torch.optim.AdamW:
    """Returns AdamW; what has been taught to see follows the language model at a quarter of its rate."""
    import torch

    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        decay = 0.05 if parameter.ndim >= 2 and "embed" not in name else 0.0
        groups.setdefault((decay, 0.25 if name.startswith(SEEING) else 1.0), []).append(parameter)
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
    thaw: int = 0
    """First step that moves what follows the language model at a lower rate."""


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
            frozen = step < stage.thaw and group["scale"] < 1
            group["lr"] = (
                0.0
                if frozen
                else group["scale"] * learning_rate(step, stage.steps, stage.peak, stage.warmup, stage.decay)
            )
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
    parameters = [*((f"model.vision_tower.{n}", p) for n, p in used), *projector.named_parameters()]
    modules = {"tower": tower, "projector": projector}
    decay = max(1, plan.naming_steps // 3)
    naming = _Stage("naming", parameters, plan.naming_steps, plan.vision_rate, 50, decay, names_loss, modules)
    _run_stage(naming, plan, folder, rank, say)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.get_input_embeddings().weight)

    def language_loss(step: int) -> Tensor:
        rng = np.random.default_rng([plan.seed, 1, step, rank])
        phase = [phase for phase in plan.phases if step >= phase.start][-1]
        for module in (tower, model.model.multi_modal_projector):
            module.requires_grad_(step >= plan.thaw)
        return packed_loss(model, packer.pack(draw_rows(rng, plan.batch, phase), rng, plan.noise))

    parameters = [(n, p) for n, p in model.named_parameters() if "post_layernorm" not in n]
    words = _Stage(
        "language",
        parameters,
        plan.steps,
        plan.rate,
        200,
        plan.decay_steps,
        language_loss,
        {"model": model},
        plan.thaw,
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
