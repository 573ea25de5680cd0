"""Training of one adapter: the same examples in the same order for every method at a seed; checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from mmpt_bench.common.errors import Interrupted, RunFailed
from mmpt_bench.data.examples import Corpus, Example, Exchange
from mmpt_bench.engine.adapters.attachment import Handle, like, whole
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.checkpoint import Checkpoints
from mmpt_bench.engine.training.lora_update import updates_fused
from mmpt_bench.engine.training.loss import Losses, Ready
from mmpt_bench.engine.training.masters import Masters, state_dtype
from mmpt_bench.engine.training.memory import (
    CpuClock,
    PeakMemory,
    ProcessCosts,
    first_here,
    halved,
    shortage,
    steady_malloc,
)
from mmpt_bench.engine.training.objective import Term, backward
from mmpt_bench.engine.training.parallel import ALONE, Ranks
from mmpt_bench.engine.training.reached import Reached
from mmpt_bench.engine.training.recomputing import check_recomputed, layers_recomputed
from mmpt_bench.engine.training.settings import TrainingConfig as TrainingConfig
from mmpt_bench.engine.training.settings import grouped, in_force
from mmpt_bench.engine.training.settings import learning_rate as learning_rate
from mmpt_bench.records.keys import check_precision


@dataclass(frozen=True)
class Step:
    """What is known after an optimiser step."""

    step: int
    """1..steps."""
    loss: float
    rate: float
    grad_norm: float
    seconds: float
    """Since training began, with earlier sittings, and with what was spared by an earlier method (`FeatureCache`)."""
    peak_bytes: int
    terms: dict[str, float] = dataclasses.field(default_factory=dict)
    """What was added to the loss, by name; `loss` is without them."""

    @property
    def row(self) -> dict[str, Any]:
        """Returns its fields as train.jsonl holds them."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "terms" or value}


@dataclass(frozen=True)
class Trained:
    """What a finished training cost."""

    seconds: float
    peak_bytes: int
    final_loss: float
    """Mean over the last tenth of the steps."""
    micro_batch: int
    threads: tuple[int, ...] = ()
    """How many threads torch computed with, of every sitting: sums in another order are others in their last bits."""
    optimizer_state: str = ""
    """Precision of the optimizer's moments: "float32", whatever the model computes in."""
    steps: int = 0
    """Optimiser steps, those of earlier sittings too."""
    groups: tuple[dict[str, float], ...] = ()
    """Parameters, peak learning rate and weight decay of each group of parameters, as they were in force."""
    left_out: int = 0
    """Exchanges of conversations that stood after `Budget.max_length`, each time that they were to be trained on."""
    process: ProcessCosts | None = None
    """None where the training had several sittings."""
    world_size: int = 1
    """Ranks that trained together in the last sitting."""
    gradient_checkpointing: bool = False
    """Of the last sitting."""


def validation_loss(backbone: Backbone, corpus: Corpus, batch_size: int, max_length: int) -> float:
    """Returns the mean cross-entropy, in nats a token, of the validation part: what selection may look at."""
    total, tokens, micro = 0.0, 0, batch_size
    images = f"{corpus.fingerprint}/validation"
    with torch.no_grad(), closing(Losses(backbone, images, max_length)) as losses:
        losses.compare([corpus.validation(i) for i in range(min(2, corpus.validation_size))], {})
        for first in range(0, corpus.validation_size, batch_size):
            last = min(first + batch_size, corpus.validation_size)
            ready = losses.ready([corpus.validation(i) for i in range(first, last)])
            while True:
                try:
                    found = [losses.sum_of(ready, chosen) for chosen in losses.cut(ready, micro)]
                    break
                except (MemoryError, RuntimeError) as error:
                    micro = halved(micro, error, "one validation example")
            for loss, n in found:
                total, tokens = total + loss.item(), tokens + n
    return total / tokens


def train(
    backbone: Backbone,
    handle: Handle,
    corpus: Corpus,
    config: TrainingConfig,
    checkpoint: Path | None = None,
    on_step: Callable[[Step], bool | None] = lambda step: None,
    stopping: Callable[[], bool] = lambda: False,
    on_start: Callable[[Sequence[Step]], None] = lambda steps: None,
    say: Callable[[str], None] = lambda text: None,
    terms: Sequence[Term] = (),
    ranks: Ranks = ALONE,
) -> Trained:
    """Trains an attached adapter to the end of its budget, from its checkpoint where there is one.

    Args:
        handle: of the adapter, attached with the run's seed.
        checkpoint: folder to write checkpoints to, and to go on from; None keeps none.
        on_step: told of every step; training ends where it returns True.
        stopping: asked after every step; when it says so, a checkpoint is written and `Interrupted` raised.
        say: told once where the method needs whole images, and nothing can be shared.
        on_start: told, before the first step, of the steps of the checkpoint.
        terms: added to the loss.
        ranks: that train together; all call this with the same arguments, and the first one alone tells and writes.

    Raises:
        RequestError: the corpus holds conversations and the backbone has no form for them, or an example is too long;
            or the precision is one that nothing is trained in; or layers cannot be computed again.
        RunFailed: the loss or a gradient is not finite, a parameter has none within the first steps, or memory runs
            out at one example a step.
        MachineError: a checkpoint cannot be written; the one before it is whole.
    """
    check_precision(backbone.dtype)
    if corpus.most_exchanges > 1:
        backbone.target([Exchange("q", "a")] * 2)
    steady_malloc()
    budget, training = config.budget, _Training(backbone, handle, config, terms, ranks)
    checkpoints = None if checkpoint is None else Checkpoints(checkpoint)
    training.go_on_from(checkpoints)
    on_start(training.steps)
    with (
        _training_mode(backbone, training.masters, terms, config),
        closing(Losses(backbone, corpus.fingerprint, budget.max_length)) as losses,
    ):
        asked = (config.seed, budget.steps, budget.batch_size, training.done)
        batches, first = corpus.batches(*asked), next(corpus.batches(*asked), [])
        if why := ranks.together(lambda: _compared(losses, first[:2], handle.trainable, ranks)):
            say(f"Every image goes through the whole model in training, because {why}.")
        for examples, following in pairwise(chain(batches, [[]])):  # after the last batch stands an empty one
            losses.soon(ranks.share(following))
            is_over = bool(on_step(training.step(losses, ranks.share(examples))))
            is_due = checkpoints is not None and checkpoints.is_due and ranks.is_first
            is_over, stop, is_due = ranks.any(is_over, not is_over and stopping(), is_due)
            if is_over:
                break
            if checkpoints is not None and (stop or is_due):
                checkpoints.write(training.done, training.state(), ranks)
            if stop:
                raise Interrupted(f"after step {training.done} of {budget.steps}")
    return training.result()


class _Training:
    """A training under way: all that one step leaves to the next, which is what a checkpoint holds."""

    def __init__(
        self, backbone: Backbone, handle: Handle, config: TrainingConfig, terms: Sequence[Term], ranks: Ranks
    ) -> None:
        self._backbone, self._handle, self._config, self._terms = backbone, handle, config, terms
        self._ranks = ranks
        ranks.placed(backbone, handle)
        self._is_first, self._clock = first_here(), CpuClock()
        self._peak = PeakMemory(backbone.device)
        self.masters = Masters(handle)
        self.parameters = list(self.masters.by_name.values())
        self._reached = Reached(self.masters.by_name)
        fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters)
        self._optimizer = torch.optim.AdamW(grouped(self.masters.by_name, config), lr=config.rate, fused=fused)
        ranks.begun(self.masters, config.seed)
        self._threads: tuple[int, ...] = (torch.get_num_threads(),)
        self.steps: list[Step] = []
        """Those that are done, with those of earlier sittings."""
        # As many examples as a rank has of a batch.
        share = -(-config.budget.batch_size // ranks.count)
        self._micro_batch = min(share, config.micro_batch or share)
        self._left_out, self._is_resumed = 0, False
        for cache in backbone.caches:
            cache.begin()
        self._began = time.perf_counter()

    @property
    def done(self) -> int:
        """Returns the number of steps that are done."""
        return len(self.steps)

    def step(self, losses: Losses, examples: list[Example]) -> Step:
        """Takes an optimiser step; raises RunFailed where the loss or a gradient is not finite, or memory runs out."""
        try:
            return self._step(losses, examples)
        except (MemoryError, RuntimeError) as error:
            if (why := shortage(error)) is None:
                raise
            raise RunFailed(f"step {self.done + 1}: out of memory: {why}") from error

    def _step(self, losses: Losses, examples: list[Example]) -> Step:
        budget = self._config.budget
        rate = learning_rate(self.done, budget, self._config.rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
        self.masters.zero_gradients()
        ready = self._ranks.together(lambda: losses.ready(examples) if examples else Ready([], []))
        self._left_out += int(self._ranks.summed([ready.left_out * self._ranks.has_share])[0])
        given = (self._micro_batch, self._terms, self._ranks)
        loss, added, self._micro_batch = backward(losses, ready, self.masters, *given)
        self._reached.note()
        self._reached.judge(self.done + 1, budget.steps)
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, budget.max_grad_norm)).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            found = f"loss {loss}, gradient norm {norm} at learning rate {rate:.3g}"
            raise RunFailed(f"step {self.done + 1}: {found}: not finite")
        self._optimizer.step()
        self.masters.write()
        self.steps.append(Step(self.done + 1, loss, rate, norm, self._seconds(), self._peak_bytes(), added))
        return self.steps[-1]

    def go_on_from(self, checkpoints: Checkpoints | None) -> None:
        """Goes on from the last checkpoint where there is one; MachineError where ranks find unlike ones."""
        if checkpoints is not None and (state := checkpoints.last(self._ranks)) is not None:
            self.restore(state, checkpoints)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds; on other ranks than the first, their parts of sharded tensors alone."""
        return {
            "steps": [dataclasses.astuple(step) for step in self.steps],
            "seconds": self._seconds(),
            "micro": self._micro_batch,
            "left_out": self._left_out,
            "threads": list(self._threads),
            "waiting": self._reached.waiting,
            "adapter": {name: self._ranks.kept(p) for name, p in self.masters.by_name.items()},
            "optimizer": tree_map_only(torch.Tensor, self._ranks.kept, self._optimizer.state_dict()),
            "rng": torch.get_rng_state(),
            "rngs": self._ranks.gathered(torch.get_rng_state()),
        }

    def restore(self, state: dict[str, Any], checkpoints: Checkpoints) -> None:
        """Goes on from a checkpoint, in which a tensor is None where it is in shards."""
        own, shared = self.masters.by_name, [p for group in self._optimizer.param_groups for p in group["params"]]
        values = {name: own[name].detach() if value is None else value for name, value in state["adapter"].items()}
        moments = {i: {name: torch.zeros_like(shared[i]) if value is None else like(value, shared[i])
                       for name, value in of.items()} for i, of in state["optimizer"]["state"].items()}  # fmt: skip
        places = {"adapter": values, "optimizer": {"state": moments}}
        self._ranks.together(lambda: checkpoints.fill(state, places))
        self._handle.load(values)
        self._optimizer.load_state_dict({**state["optimizer"], "state": moments})
        if self._ranks.rank < len(rngs := state.get("rngs", [state["rng"]])):
            torch.set_rng_state(rngs[self._ranks.rank])
        self.steps = [Step(*step) for step in state["steps"]]
        self._micro_batch, self._left_out = state["micro"], state["left_out"]
        self._threads = tuple(sorted({*state["threads"], *self._threads}))
        self._reached.waiting = [(name, i) for name, i in state["waiting"]]
        self._began, self._is_resumed = time.perf_counter() - state["seconds"], True

    def result(self) -> Trained:
        """Returns what the training cost."""
        last = self.steps[-max(1, self._config.budget.steps // 10) :]
        final_loss = sum(step.loss for step in last) / len(last)
        return Trained(
            self._seconds(),
            self._peak_bytes(),
            final_loss,
            self._micro_batch,
            self._threads,
            state_dtype(self._optimizer.state),
            self.done,
            tuple(in_force(group, self._config.rate) for group in self._optimizer.param_groups),
            self._left_out,
            self._process_costs(),
            self._ranks.count,
            self._config.gradient_checkpointing,
        )

    def _process_costs(self) -> ProcessCosts | None:
        if self._is_resumed:
            return None
        return ProcessCosts(self._is_first, self._peak.resident, self._clock.own(), self._clock.others())

    def _peak_bytes(self) -> int:
        return max(self._peak.note(), self.steps[-1].peak_bytes if self.steps else 0)

    def _seconds(self) -> float:
        spared = sum(cache.spared for cache in self._backbone.caches)
        return time.perf_counter() - self._began + spared


def _compared(
    losses: Losses, examples: list[Example], trainable: Mapping[str, nn.Parameter], ranks: Ranks = ALONE
) -> str:
    """Returns why every image must go through the whole model, or nothing; fewer examples where memory runs out.

    Of a sharded model the losses alone are compared: gradients of its weights are no rank's own.
    """
    while True:
        try:
            if ranks.way != "fsdp2":
                why = losses.compare(examples, trainable)
                check_recomputed(losses, examples[:1], trainable)
                return why
            with torch.no_grad():
                why = ranks.within(partial(losses.compare, examples, {}))
            check_recomputed(losses, examples[:1], trainable, ranks)
            return why
        except (MemoryError, RuntimeError) as error:
            examples = examples[: halved(len(examples), error, "one example a step")]


@contextmanager
def _training_mode(
    backbone: Backbone, masters: Masters, terms: Sequence[Term], config: TrainingConfig
) -> Iterator[None]:
    """Inside, the model trains, and computes nothing that is not needed; afterwards it holds no gradient."""
    backbone.model.train()
    try:
        with updates_fused(backbone), layers_recomputed(backbone, config.gradient_checkpointing):
            yield
    finally:
        backbone.model.eval()
        masters.close()
        for term in terms:
            term.close()
