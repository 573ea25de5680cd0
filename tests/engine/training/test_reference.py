"""Training is what a plain loop of torch does: AdamW, clipping, the schedule, the mean loss of the answers' tokens."""

from __future__ import annotations

import dataclasses
import math
import resource
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.nn import functional

from mmpt_bench.common.errors import Interrupted, RunFailed
from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training import memory, objective, train
from mmpt_bench.engine.training.checkpoint import Checkpoints
from mmpt_bench.engine.training.loss import TOLERANCES, Losses, overhead_tokens
from mmpt_bench.engine.training.masters import Masters, state_dtype
from mmpt_bench.engine.training.memory import PeakMemory
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget

BUDGET = Budget(steps=20, batch_size=3, warmup=0.2, weight_decay=0.3, max_grad_norm=0.5)
RATE, SEED = 3e-3, 5


def attached(backbone: Backbone, method: str) -> Handle:
    return method_catalog.load_method(method_catalog.method_entries()[method])().attach(backbone, SEED)


def plain_loss(backbone: Backbone, examples: Any) -> torch.Tensor:
    """Returns the mean cross-entropy of the answers' tokens, the end of the sequence among them."""
    tokenizer = backbone.processor.tokenizer
    asked = [f"USER: <image>\n{example.prompt} ASSISTANT:" for example in examples]
    images = [example.image.open() for example in examples]
    said = [f"{text} {example.target}{tokenizer.eos_token}" for text, example in zip(asked, examples, strict=True)]
    batch = backbone.processor(images=images, text=said, return_tensors="pt", padding=True, padding_side="right")
    lengths = [
        len(backbone.processor(images=image, text=text).input_ids[0]) for image, text in zip(images, asked, strict=True)
    ]
    places = torch.arange(batch["input_ids"].shape[1])
    is_answer = (places >= torch.tensor(lengths)[:, None]) & (batch["attention_mask"] == 1)
    logits = backbone.model(**batch).logits[:, :-1]
    return functional.cross_entropy(logits[is_answer[:, 1:]], batch["input_ids"][:, 1:][is_answer[:, 1:]])


def reference(
    backbone: Backbone, corpus: Corpus, method: str
) -> tuple[dict[str, torch.Tensor], list[tuple[float, ...]]]:
    """Returns the parameters that a plain loop ends with, and (loss, rate, gradient norm) of its steps."""
    handle = attached(backbone, method)
    parameters, rows = list(handle.trainable.values()), []
    optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.3)
    # 4 of 20 steps of warm-up, then half a cosine over the other 16.
    rates = [RATE * k / 4 for k in (1, 2, 3, 4)] + [RATE * (1 + math.cos(math.pi * k / 16)) / 2 for k in range(16)]
    try:
        for rate, examples in zip(rates, corpus.batches(SEED, 20, 3), strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = plain_loss(backbone, examples)
            loss.backward()
            norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm().item()
            for parameter in parameters:
                if parameter.grad is not None and norm > 0.5:
                    parameter.grad *= 0.5 / norm
            optimizer.step()
            rows.append((loss.item(), rate, norm))
        return {name: value.clone() for name, value in handle.state().items()}, rows
    finally:
        handle.remove()


@pytest.mark.parametrize("method", ["lora", "projector", "mmpt"])
def test_training_is_that_of_a_plain_loop_of_torch(method: str, backbone: Backbone, corpus: Corpus) -> None:
    wanted, rows = reference(backbone, corpus, method)
    assert sum(norm > 0.5 for _, _, norm in rows) > 10, "clipping is not in it"
    handle, steps = attached(backbone, method), list[train.Step]()
    try:
        made = train.train(backbone, handle, corpus, train.TrainingConfig(BUDGET, RATE, SEED), on_step=steps.append)
        found = handle.state()
    finally:
        handle.remove()
    assert [step.step for step in steps] == list(range(1, 21))
    for step, row in zip(steps, rows, strict=True):
        assert (step.loss, step.rate, step.grad_norm) == pytest.approx(row, rel=2e-4)
    assert made.final_loss == pytest.approx((rows[-2][0] + rows[-1][0]) / 2, rel=2e-4)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=2e-4)


def test_the_final_loss_of_a_resumed_training_is_that_of_an_undisturbed_one(
    backbone: Backbone, corpus: Corpus, tmp_path: Path
) -> None:
    def final_loss(folder: Path | None, stop_at: int = 0) -> float:
        handle, done = attached(backbone, "projector"), list[int]()
        try:
            config = train.TrainingConfig(BUDGET, RATE, SEED)
            return train.train(
                backbone, handle, corpus, config, folder, lambda s: done.append(s.step), lambda: stop_at in done
            ).final_loss
        finally:
            handle.remove()

    with pytest.raises(Interrupted):
        final_loss(tmp_path / "checkpoint", stop_at=19)
    # The last tenth are steps 19 and 20, one on either side of the interruption.
    assert final_loss(tmp_path / "checkpoint") == final_loss(None)


def test_a_gradient_that_is_not_finite_stops_the_step_although_the_loss_is(backbone: Backbone, corpus: Corpus) -> None:
    handle, steps = attached(backbone, "projector"), list[train.Step]()
    first = next(iter(handle.trainable.values()))
    hook = first.register_hook(lambda grad: grad * math.inf if len(steps) == 2 else grad)
    try:
        with pytest.raises(RunFailed, match=r"step 3: loss \d+\.\d+, gradient norm (inf|nan) at .* not finite"):
            train.train(backbone, handle, corpus, train.TrainingConfig(BUDGET, RATE, SEED), on_step=steps.append)
        assert all(value.isfinite().all() for value in handle.state().values())
    finally:
        hook.remove()
        handle.remove()


def test_memory_that_runs_out_halfway_through_a_batch_leaves_the_whole_batchs_gradient_and_no_more(
    backbone: Backbone, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, handle = next(corpus.batches(0, 1, 4)), attached(backbone, "projector")
    losses, masters = Losses(backbone, corpus.fingerprint, 512), Masters(handle)
    real, calls, gradients = losses.answers, list[int](), []

    def answers(ready: Any, chosen: list[int]) -> Any:
        calls.append(len(chosen))
        if len(calls) == 2:
            raise MemoryError
        return real(ready, chosen)

    try:
        ready = losses.ready(examples)
        for attempt in (False, True):
            if attempt:
                monkeypatch.setattr(losses, "answers", answers)
            masters.zero_gradients()
            found = objective.backward(losses, ready, masters, 2)
            gradients.append((found[0], [p.grad.clone() for p in handle.trainable.values() if p.grad is not None]))
    finally:
        losses.close()
        masters.close()
        handle.remove()
    assert calls[:2] == [2, 2]
    assert set(calls[2:]) == {1}
    assert gradients[1][0] == pytest.approx(gradients[0][0], rel=1e-5)
    for found, wanted in zip(gradients[1][1], gradients[0][1], strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_the_validation_loss_is_the_mean_of_all_answers_tokens(backbone: Backbone, corpus: Corpus) -> None:
    few = dataclasses.replace(corpus, validation_size=16)
    with torch.no_grad():
        parts = [plain_loss(backbone, [few.validation(i)]).item() for i in range(16)]
    words = backbone.processor.tokenizer
    # The tokens of an answer, and the end of the sequence.
    sizes = [len(words(few.validation(i).target, add_special_tokens=False).input_ids) + 1 for i in range(16)]
    mean = sum(loss * n for loss, n in zip(parts, sizes, strict=True)) / sum(sizes)
    assert len(set(sizes)) > 1
    for batch_size in (2, 5, 16):
        assert train.validation_loss(backbone, few, batch_size, 512) == pytest.approx(mean, rel=1e-5)


def test_seconds_and_peak_memory_are_those_of_all_sittings(backbone: Backbone, corpus: Corpus, tmp_path: Path) -> None:
    def sitting(stop_at: int = 0) -> tuple[train.Trained | None, list[train.Step]]:
        handle, steps = attached(backbone, "projector"), list[train.Step]()
        try:
            config = train.TrainingConfig(Budget(steps=4, batch_size=2), RATE, SEED)
            made = train.train(
                backbone, handle, corpus, config, tmp_path / "c", steps.append, lambda: len(steps) == stop_at
            )
            return made, steps
        except Interrupted:
            return None, steps
        finally:
            handle.remove()

    _, before = sitting(stop_at=3)
    resident = psutil.Process().memory_info().rss
    assert resident / 2 < before[-1].peak_bytes < 1.1 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # An earlier sitting took an hour and more memory than there is.
    kept = Checkpoints(tmp_path / "c")
    state = kept.last()
    assert state is not None
    last = dataclasses.astuple(dataclasses.replace(before[-1], peak_bytes=2**60))
    kept.write(4, state | {"steps": [*state["steps"][:-1], last], "seconds": 3600.0, "threads": [7]})
    made, after = sitting()
    assert made is not None
    assert [step.step for step in after] == [4]
    assert (made.peak_bytes, after[0].peak_bytes) == (2**60, 2**60)
    assert 3600 < after[0].seconds < made.seconds < 3700
    assert made.threads == (1, 7)
    assert (made.optimizer_state, made.left_out, made.micro_batch) == ("float32", 0, 2)


def test_an_error_of_the_optimiser_that_is_not_of_memory_is_raised_as_it_is(
    backbone: Backbone, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    handle = attached(backbone, "projector")
    try:
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            train.train(backbone, handle, corpus, train.TrainingConfig(BUDGET, RATE, SEED))
        assert all(parameter.grad is None for parameter in backbone.model.parameters()), "gradients are freed"
        assert not backbone.model.training
    finally:
        handle.remove()


def test_another_micro_batch_costs_a_layers_calls_in_tokens(backbone: Backbone) -> None:
    # 3 layers; a token costs 6 operations a parameter.
    parameters = backbone.anatomy.language_parameters
    assert overhead_tokens(backbone.anatomy, "cpu") == pytest.approx(2.5e8 * 3 / 6 / parameters)
    assert overhead_tokens(backbone.anatomy, "cuda:1") == pytest.approx(4e11 * 3 / 6 / parameters)


def test_the_state_of_an_optimizer_is_named_by_its_moments() -> None:
    step, moment = torch.zeros((), dtype=torch.float32), torch.zeros(2, dtype=torch.bfloat16)
    assert state_dtype({0: {"step": step, "exp_avg": moment, "exp_avg_sq": moment}}) == "bfloat16"
    assert state_dtype({0: {"step": step, "exp_avg": moment}, 1: {"exp_avg": moment.float()}}) == "bfloat16, float32"
    assert state_dtype({}) == ""


def test_on_accelerators_their_own_peaks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", calls.append)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda i: 10 + i)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda i: 12_000 + 345 * i)
    peak = PeakMemory("cuda:0")
    assert (peak.resident, peak.note(), calls) == (21, 24_345, [0, 1])
    assert PeakMemory("cpu").note() != 24_345


def test_the_loss_that_is_compared_is_the_mean_over_answer_tokens(backbone: Backbone, corpus: Corpus) -> None:
    examples = next(corpus.batches(0, 1, 3))
    losses = Losses(backbone, corpus.fingerprint, 1024)
    with torch.no_grad():
        wanted = plain_loss(backbone, examples).item()
    assert losses.probe(examples, {}) == (pytest.approx(wanted, rel=1e-5), {})
    losses.close()


def test_what_half_precision_may_differ_by_is_some_roundings() -> None:
    """More would take a model for the same that is not, less would take none for it."""
    for dtype, (of_loss, _) in TOLERANCES.items():
        eps = torch.finfo(getattr(torch, dtype)).eps
        assert dtype == "float32" or 6 * eps < of_loss < 24 * eps


def test_seconds_of_other_processes_are_what_the_machine_was_busy_beyond_our_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, own = [100.0], [10.0]
    monkeypatch.setattr(memory, "_busy_seconds", lambda: busy[0])
    monkeypatch.setattr(memory.time, "process_time", lambda: own[0])
    clock = memory.CpuClock()
    busy[0], own[0] = 107.0, 12.0
    assert (clock.own(), clock.others()) == (2.0, 5.0)
    busy[0] = 101.9  # hundredths of a second, rounded down
    assert clock.others() == 0.0
    busy[0] = 101.0
    assert clock.others() is None


def test_a_shortage_of_memory_is_told_in_one_short_line() -> None:
    assert memory.shortage(MemoryError("x" * 500 + "\nmore")) == "x" * 200
    assert memory.shortage(MemoryError()) == "the system had none left"
    assert memory.shortage(ValueError("x")) is None
