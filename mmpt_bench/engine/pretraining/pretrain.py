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
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from mmpt_bench.engine.models.backbone import IGNORED
from mmpt_bench.engine.pretraining import model as embedded_model
from mmpt_bench.engine.pretraining.curriculum import PHASES, REHEARSAL, Phase, draw_rows
from mmpt_bench.engine.pretraining.packing import Packed, Packer
from mmpt_bench.engine.pretraining.pointing import Pointers
from mmpt_bench.engine.pretraining.sight import CellHeads, cell_batch, features, naming_loss
from mmpt_bench.engine.training.memory import steady_malloc
from mmpt_bench.sources.weights import folder_fingerprint, write_checksums


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
    """Images a step and process."""
    rate: float = 1.5e-3
    decay_steps: int = 2000
    """The learning rate falls to zero over the last so many steps."""
    phases: tuple[Phase, ...] = PHASES
    noise: float = 0.03
    processes: int = 2
    base: Path | None = None
    """Folder of an earlier base whose weights are taken over where shapes allow; None for random ones."""
    checkpoint_every: int = 250
    report_every: int = 50


def plan_from(base: Path) -> Plan:
    """Returns the plan of a base that keeps what an earlier one knows: shorter lessons, and all skills at once."""
    return Plan(
        base=base,
        vision_steps=900,
        vision_rate=1.2e-3,
        naming_steps=1100,
        steps=9000,
        rate=1.2e-3,
        decay_steps=3500,
        phases=REHEARSAL,
    )


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: int) -> float:
    """Returns the rate of a step: a linear rise, a plateau, a linear fall to zero."""
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / decay)


def packed_states(model: Any, batch: Packed) -> tuple[Tensor, ...]:
    """Returns the decoder's states, of the embeddings first and normalised last, (rows, length, width) each."""
    seen = model.model.multi_modal_projector(features(model, batch.pixels))
    embedded = model.get_input_embeddings()(batch.input_ids)
    embedded = embedded.masked_scatter((batch.input_ids == embedded_model.IMAGE)[..., None], seen.to(embedded.dtype))
    decoder = model.model.language_model
    return decoder(
        inputs_embeds=embedded,
        attention_mask=torch.zeros(()).where(batch.mask(), torch.finfo(torch.float32).min),
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states


class _Step(nn.Module):
    """A stage's loss as a forward pass over the parameters that it trains, which is what processes share."""

    def __init__(self, parameters: list[nn.Parameter], loss: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.trained, self._loss = nn.ParameterList(parameters), loss

    def forward(self, step: int) -> Tensor:
        """Returns the loss of this process's batch of a step."""
        return self._loss(step)


def _optimizer(named: list[tuple[str, nn.Parameter]], rate: float) -> torch.optim.AdamW:
    """Returns AdamW; a tower that has learnt to see follows its projector at a quarter of the rate."""
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


@dataclass(frozen=True)
class _Stage:
    """What one stage trains, on what, for how long."""

    name: str
    modules: dict[str, nn.Module]
    """Whose values a checkpoint holds."""
    parameters: list[tuple[str, nn.Parameter]]
    loss: Callable[[int], Tensor]
    """Of a step's batch."""
    steps: int
    peak: float
    warmup: int
    decay: int


class _Worker:
    """One process of a pre-training: the model, and the stages that it goes through, in their order."""

    def __init__(self, rank: int, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.rank, self.plan, self.folder, self.say = rank, plan, folder, say
        self.model: Any = embedded_model.build_model(plan.seed)
        # Half the precision, a third of the time: the weights, their gradients and the optimizer stay float32.
        self.model.set_attn_implementation("eager")
        if plan.base is not None:
            embedded_model.take_over(self.model, plan.base)
        self.packer = Packer(embedded_model.build_tokenizer())
        self.tower, self.projector = self.model.model.vision_tower, self.model.model.multi_modal_projector
        # The last norm is of the class token alone, which nothing reads.
        self.seeing = [(name, p) for name, p in self.tower.named_parameters() if "post_layernorm" not in name]

    def vision(self) -> _Stage:
        """Returns the stage that teaches the tower to tell what is in each cell."""
        plan, heads = self.plan, CellHeads(self.tower.config.hidden_size)

        def loss(step: int) -> Tensor:
            pixels, targets = cell_batch(self._rng(0, step), plan.vision_batch, plan.noise)
            total, right = heads.loss(features(self.model, pixels), targets)
            self._say_right("vision", step, 100, right)
            return total

        modules, parameters = {"tower": self.tower, "heads": heads}, [*self.seeing, *heads.named_parameters()]
        decay = max(1, plan.vision_steps // 3)
        return _Stage("vision", modules, parameters, loss, plan.vision_steps, plan.vision_rate, 100, decay)

    def naming(self) -> _Stage:
        """Returns the stage that teaches the projector to say so in the language model's word vectors."""
        plan = self.plan

        def loss(step: int) -> Tensor:
            batch = cell_batch(self._rng(2, step), plan.vision_batch, plan.noise)
            return naming_loss(self.model, self.packer.vocabulary, *batch)

        modules = {"tower": self.tower, "projector": self.projector}
        parameters = [*((f"tower.{name}", p) for name, p in self.seeing), *self.projector.named_parameters()]
        decay = max(1, plan.naming_steps // 3)
        return _Stage("naming", modules, parameters, loss, plan.naming_steps, plan.vision_rate, 50, decay)

    def language(self) -> _Stage:
        """Returns the stage that teaches the language model to answer; its head begins as its word vectors."""
        plan, pointers = self.plan, Pointers(self.model.config.get_text_config().hidden_size)

        def loss(step: int) -> Tensor:
            rng = self._rng(1, step)
            phase = [phase for phase in plan.phases if step >= phase.start][-1]
            batch = self.packer.pack(draw_rows(rng, plan.batch, phase), rng, plan.noise)
            states = packed_states(self.model, batch)
            pointing, right = pointers.loss(states, batch.points)
            self._say_right("language", step, plan.report_every, right)
            known = batch.labels != IGNORED
            return cross_entropy(self.model.lm_head(states[-1][known]), batch.labels[known]) + pointing

        if plan.base is None:
            with torch.no_grad():
                self.model.lm_head.weight.copy_(self.model.get_input_embeddings().weight)
        for module in (self.tower, self.projector):
            module.requires_grad_(False)
        parameters = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        parameters += pointers.named_parameters()
        modules = {"model": self.model, "pointers": pointers}
        return _Stage("language", modules, parameters, loss, plan.steps, plan.rate, 200, plan.decay_steps)

    def run(self, stage: _Stage) -> None:
        """Trains a stage from its last checkpoint to its end."""
        plan, optimizer = self.plan, _optimizer(stage.parameters, stage.peak)
        tensors = [p for _, p in stage.parameters]
        loss_of: nn.Module = _Step(tensors, stage.loss)
        if plan.processes > 1:
            loss_of = DistributedDataParallel(loss_of, find_unused_parameters=True)
        first = self._restored(stage, optimizer)
        since, seen, mean = time.perf_counter(), first, 0.0
        for step in range(first, stage.steps):
            rate = learning_rate(step, stage.steps, stage.peak, stage.warmup, stage.decay)
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * rate
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(tensors, 1.0)
            optimizer.step()
            mean = loss.item() if not mean else 0.98 * mean + 0.02 * loss.item()
            done = step + 1
            if self._is_due(done, plan.report_every):
                pace = (time.perf_counter() - since) / (done - seen)
                left = pace * (stage.steps - done) / 60
                progress = f"step {done}/{stage.steps}, loss {mean:.4f}"
                self.say(f"{stage.name}: {progress}, {pace:.2f} s a step, {left:.0f} min left")
                since, seen = time.perf_counter(), done
            if self._is_due(done, plan.checkpoint_every) or self._is_due(done, stage.steps):
                self._save_checkpoint(stage, optimizer, done)

    def save(self) -> None:
        """Writes the weights, how they were made, and the checksums by which a flipped bit is found."""
        weights = self.folder / "weights"
        embedded_model.save(self.model, weights)
        (weights / "pretraining.json").write_text(json.dumps(self._story(), indent=1) + "\n", encoding="utf-8")
        for path in weights.iterdir():
            path.chmod(0o644)
        write_checksums(weights)

    def _story(self) -> dict[str, Any]:
        """Returns how the weights were made; an earlier base is named by its fingerprint."""
        base = self.plan.base
        return asdict(self.plan) | {"base": None if base is None else folder_fingerprint(base)}

    def _rng(self, stage: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self.plan.seed, stage, step, self.rank])

    def _is_due(self, done: int, every: int) -> bool:
        """Returns whether this process is the one that writes and tells, and this the step for it."""
        return self.rank == 0 and done % every == 0

    def _say_right(self, stage: str, step: int, every: int, right: dict[str, float]) -> None:
        if self._is_due(step + 1, every):
            self.say(f"{stage}: " + ", ".join(f"{name} {value:.2f}" for name, value in right.items()))

    def _restored(self, stage: _Stage, optimizer: torch.optim.Optimizer) -> int:
        """Returns the steps of a stage that are done, after reading its checkpoint where there is one."""
        path = self.folder / f"{stage.name}.pt"
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        for name, module in stage.modules.items():
            module.load_state_dict(state[name])
        self.say(f"{stage.name}: goes on from step {state['step']}")
        return int(state["step"])

    def _save_checkpoint(self, stage: _Stage, optimizer: torch.optim.Optimizer, done: int) -> None:
        state = {"step": done, "optimizer": optimizer.state_dict()}
        state |= {name: module.state_dict() for name, module in stage.modules.items()}
        path = self.folder / f"{stage.name}.pt"
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)


def _work(rank: int, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
    """Does one process's share of the pre-training; the first one writes the weights."""
    torch.set_num_threads(1)
    steady_malloc()
    if plan.processes > 1:
        # Of a relative path the first part would be read as a host.
        meet = f"file://{folder.absolute()}/meet"
        dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=plan.processes)
    worker = _Worker(rank, plan, folder, say)
    for stage in (worker.vision, worker.naming, worker.language):
        worker.run(stage())
    if rank == 0:
        worker.save()
    if plan.processes > 1:
        dist.barrier()
        dist.destroy_process_group()


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
    if plan.processes == 1:
        _work(0, plan, folder, say)
    else:
        mp.start_processes(_work, (plan, folder, say), nprocs=plan.processes, start_method="spawn")
    return folder / "weights"
