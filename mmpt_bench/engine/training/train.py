"""Training of one adapter: the same examples in the same order for every method at a seed; checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import Interrupted, RunFailed, UntrustedRecord
from mmpt_bench.common.hashing import derive, file_sha256
from mmpt_bench.data.examples import Corpus, Example, Exchange
from mmpt_bench.engine.forward.tower import unread_blocks_skipped
from mmpt_bench.engine.training.loss import Losses
from mmpt_bench.engine.training.memory import PeakMemory, steady_malloc
from mmpt_bench.records.budget import Budget

if TYPE_CHECKING:
    from torch import nn

    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.models.backbone import Backbone

CHECKPOINT_SECONDS = 20.0


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


@dataclass(frozen=True)
class Trained:
    """What a finished training cost."""

    seconds: float
    peak_bytes: int
    final_loss: float
    """Mean over the last tenth of the steps."""
    micro_batch: int
    left_out: int = 0
    """Exchanges of conversations that stood behind `Budget.max_length`, each time that they were to be trained on."""


def learning_rate(step: int, budget: Budget, peak: float) -> float:
    """Returns the rate of step 0..steps-1: a linear rise over the warm-up, then a cosine to 0, or a plateau."""
    warm = max(1, round(budget.warmup * budget.steps))
    if step < warm:
        return peak * (step + 1) / warm
    if budget.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, budget.steps - warm)))


def validation_loss(backbone: Backbone, corpus: Corpus, batch_size: int, max_length: int) -> float:
    """Returns the mean cross-entropy, in nats a token, of the validation part: what selection may look at."""
    import torch

    total, tokens = 0.0, 0
    with torch.no_grad(), unread_blocks_skipped(backbone), ExitStack() as stack:
        losses = stack.enter_context(closing(Losses(backbone, f"{corpus.fingerprint}/validation", max_length)))
        for first in range(0, corpus.validation_size, batch_size):
            last = min(first + batch_size, corpus.validation_size)
            ready = losses.ready([corpus.validation(i) for i in range(first, last)])
            for chosen in losses.cut(ready, batch_size):
                loss, n = losses.sum_of(ready, chosen)
                total, tokens = total + loss.item(), tokens + n
    return total / tokens


def train(
    backbone: Backbone,
    handle: Handle,
    corpus: Corpus,
    budget: Budget,
    rate: float,
    seed: int,
    checkpoint: Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Trained:
    """Trains an attached adapter to the end of its budget, from its checkpoint where there is one.

    Args:
        handle: of the adapter, attached with the run's seed.
        rate: peak learning rate.
        checkpoint: file to write checkpoints to, and to go on from; None keeps none.
        on_step: told of every step.
        stopping: asked after every step; when it says so, a checkpoint is written and `Interrupted` raised.

    Raises:
        RequestError: the corpus holds conversations and the backbone has no form for them, or an example is too long.
        RunFailed: the loss or a gradient is not finite, or memory runs out at one example a step.
        UntrustedRecord: the checkpoint's bytes are not those that were written.
    """
    import torch

    from mmpt_bench.engine.training.fused import layers_fused, updates_fused

    if corpus.most_exchanges > 1:
        backbone.target([Exchange("q", "a")] * 2)
    steady_malloc()
    peak = PeakMemory(backbone.device)
    parameters = list(handle.trainable.values())
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=budget.weight_decay, fused=fused)
    torch.manual_seed(derive(seed, "dropout"))
    done, before, tail, micro, left_out = 0, 0.0, [], budget.batch_size, 0
    if checkpoint is not None and checkpoint.exists():
        state = _read(checkpoint)
        handle.load(state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        done, before, tail, micro = state["step"], state["seconds"], state["tail"], state["micro"]
        # A checkpoint from before conversations were read whole has none, and nothing was left out.
        left_out = state.get("left_out", 0)
    backbone.model.train()
    for cache in backbone.caches:
        cache.begin()
    began = saved = time.perf_counter()
    skipping = ExitStack()
    try:
        skipping.enter_context(unread_blocks_skipped(backbone))
        skipping.enter_context(updates_fused(backbone))
        skipping.enter_context(layers_fused(backbone))
        losses = skipping.enter_context(closing(Losses(backbone, corpus.fingerprint, budget.max_length)))
        losses.left_out = left_out
        batches = _with_next(corpus.batches(seed, budget.steps, budget.batch_size, done))
        for step, (examples, following) in enumerate(batches, start=done):
            losses.soon(following)
            now = learning_rate(step, budget, rate)
            for group in optimizer.param_groups:
                group["lr"] = now
            optimizer.zero_grad(set_to_none=True)
            loss, micro = _backward(losses, parameters, examples, micro)
            norm = torch.nn.utils.clip_grad_norm_(parameters, budget.max_grad_norm).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise RunFailed(
                    f"step {step + 1}: loss {loss}, gradient norm {norm} at learning rate {now:.3g}: not finite"
                )
            optimizer.step()
            seconds = before + time.perf_counter() - began + sum(cache.spared for cache in backbone.caches)
            tail = [*tail, loss][-max(1, budget.steps // 10) :]
            on_step(Step(step + 1, loss, now, norm, seconds, peak.note()))
            stop = stopping()
            if checkpoint is not None and (stop or time.perf_counter() - saved > CHECKPOINT_SECONDS):
                state = {"step": step + 1, "seconds": seconds, "tail": tail, "micro": micro}
                state |= {"left_out": losses.left_out}
                state |= {"adapter": handle.state(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
                _write(checkpoint, state)
                saved = time.perf_counter()
            if stop:
                raise Interrupted(f"stopped after step {step + 1} of {budget.steps}")
    finally:
        skipping.close()
        backbone.model.eval()
        for parameter in parameters:
            parameter.grad = None
    seconds = before + time.perf_counter() - began + sum(cache.spared for cache in backbone.caches)
    return Trained(seconds, peak.note(), sum(tail) / len(tail), micro, losses.left_out)


def _with_next(batches: Iterator[list[Example]]) -> Iterator[tuple[list[Example], list[Example]]]:
    """Yields each batch with the one behind it, which is empty behind the last."""
    current = next(batches, None)
    while current is not None:
        following = next(batches, None)
        yield current, following or []
        current = following


def _backward(losses: Losses, parameters: list[nn.Parameter], examples: list[Example], micro: int) -> tuple[float, int]:
    """Returns (mean loss, micro-batch), leaving the batch's gradients; memory that runs out halves the micro-batch.

    The gradient is that of the whole batch's mean over answer tokens, however it is cut.
    """
    import torch

    ready = losses.ready(examples)
    while True:
        try:
            total, tokens = 0.0, 0
            for chosen in losses.cut(ready, micro):
                loss, n = losses.sum_of(ready, chosen)
                loss.backward()
                total, tokens = total + loss.item(), tokens + n
        except (torch.OutOfMemoryError, MemoryError) as error:
            for parameter in parameters:
                parameter.grad = None
            if micro == 1:
                raise RunFailed(f"out of memory with one example a step: {str(error).splitlines()[0]}") from error
            micro = (micro + 1) // 2
            continue
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= tokens
        return total / tokens, micro


def _write(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint and its checksum, so that a partial or damaged one is never gone on from."""
    import torch

    part = path.with_suffix(".part")
    torch.save(state, part)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    path.with_suffix(".sha256").write_text(file_sha256(part))
    os.replace(part, path)


def _read(path: Path) -> dict[str, Any]:
    import torch

    said = path.with_suffix(".sha256")
    if not said.exists() or said.read_text() != file_sha256(path):
        raise UntrustedRecord(
            f"The checkpoint `{path.name}` in `{path.parent.name}` is damaged. Delete it to start over."
        )
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state
