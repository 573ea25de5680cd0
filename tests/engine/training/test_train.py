"""Training: the schedule by hand, and an interrupted run that ends where an uninterrupted one does, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt_bench.common.errors import Interrupted, RunFailed
from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.adapters.trial import ANSWERS, QUESTIONS, noise_pictures
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.training import objective, train
from mmpt_bench.engine.training.loss import Losses, cut
from mmpt_bench.engine.training.masters import Masters
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from support.newer_families import BUILDERS as NEWER

BUDGET = Budget(steps=6, batch_size=4)


def attached(backbone: Backbone, method: str = "projector", **values: Any) -> Handle:
    return method_catalog.load_method(method_catalog.method_entries()[method])(**values).attach(backbone, 1)


def trained(
    backbone: Backbone, corpus: Corpus, checkpoint: Path | None = None, stop_at: int | None = None, rate: float = 1e-2
):
    handle = attached(backbone)
    steps: list[train.Step] = []
    try:
        config = train.TrainingConfig(BUDGET, rate, 0)
        train.train(backbone, handle, corpus, config, checkpoint, steps.append, lambda: len(steps) == stop_at)
        return handle.state(), steps
    finally:
        handle.remove()


def test_the_rate_rises_over_the_warm_up_and_falls_by_a_cosine_to_zero() -> None:
    budget = Budget(steps=10, warmup=0.2)
    rates = [train.learning_rate(step, budget, 1.0) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert 0 < rates[9] < 0.04
    assert train.learning_rate(9, Budget(steps=10, schedule="constant"), 0.3) == 0.3


def test_an_interrupted_training_goes_on_to_the_same_bits(backbone: Backbone, corpus: Corpus, tmp_path: Path) -> None:
    whole, steps = trained(backbone, corpus)
    with pytest.raises(Interrupted, match="step 3 of 6"):
        trained(backbone, corpus, tmp_path / "checkpoint", stop_at=3)
    resumed, later = trained(backbone, corpus, tmp_path / "checkpoint")
    assert [step.step for step in later] == [4, 5, 6]
    assert [step.loss for step in later] == [step.loss for step in steps[3:]]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_loss_that_is_not_finite_stops_within_one_step(backbone: Backbone, corpus: Corpus) -> None:
    with pytest.raises(RunFailed, match=r"step \d: .* at learning rate"):
        trained(backbone, corpus, rate=1e30)


def test_a_smaller_micro_batch_gives_the_gradient_of_the_whole_batch(backbone: Backbone, corpus: Corpus) -> None:
    examples = next(corpus.batches(0, 1, 6))
    handle = attached(backbone)
    losses, gradients = Losses(backbone, corpus.fingerprint, 512), []
    for micro in (6, 2, 1):
        backbone.model.zero_grad(set_to_none=True)
        objective.backward(losses, losses.ready(examples), Masters(handle), micro)
        gradients.append([p.grad.clone() for p in handle.trainable.values()])
    handle.remove()
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_a_step_cut_as_asked_is_the_same_step(backbone: Backbone, corpus: Corpus) -> None:
    found = {}
    for micro in (None, 1):
        handle, steps = attached(backbone), list[train.Step]()
        config = train.TrainingConfig(BUDGET, 1e-2, 0, (), micro)
        made = train.train(backbone, handle, corpus, config, on_step=steps.append)
        found[micro] = (made.micro_batch, steps[-1].loss)
        handle.remove()
    assert [found[micro][0] for micro in (None, 1)] == [4, 1]
    assert found[1][1] == pytest.approx(found[None][1], rel=1e-5)


def test_every_method_sees_the_same_examples_in_the_same_order_at_a_seed(corpus: Corpus) -> None:
    one = [e.prompt for batch in corpus.batches(3, 4, 5) for e in batch]
    assert one == [e.prompt for batch in corpus.batches(3, 4, 5) for e in batch]
    assert one[10:] == [e.prompt for batch in corpus.batches(3, 4, 5, first=2) for e in batch]
    assert one != [e.prompt for batch in corpus.batches(4, 4, 5) for e in batch]


def plain_gradients(backbone: Backbone, handle: Handle, examples: list[Example]) -> tuple[float, list[torch.Tensor]]:
    """Returns loss and gradients of a step as the model computes them itself, padded and without a shortcut."""
    prompts = [backbone.prompt_text(example.prompt) for example in examples]
    pictures = [example.image.open() for example in examples]
    backbone.model.zero_grad(set_to_none=True)
    loss = backbone.model(**backbone.batch(pictures, prompts, [example.target for example in examples])).loss
    loss.backward()
    return loss.item(), [parameter.grad for parameter in handle.trainable.values()]


@pytest.mark.parametrize(
    ("method", "values"),
    [
        *((method, {}) for method in ("lora", "prefix", "projector", "vpt", "mmpt", "full")),
        ("mmpt", {"interaction_place": "front"}),
        ("mmpt", {"interaction_place": "front", "placement": "visual-first"}),
        ("mmpt", {"visual_states": "parameters"}),
        ("mmpt", {"interaction": False}),
        ("mmpt", {"visual_deep": False}),
        ("mmpt", {"text_deep": False}),
    ],
)
def test_a_step_has_the_loss_and_gradient_of_the_plain_way(
    method: str, values: dict[str, Any], backbone: Backbone, corpus: Corpus
) -> None:
    examples = next(corpus.batches(0, 1, 9))
    handle = attached(backbone, method, **values)
    try:
        expected, gradients = plain_gradients(backbone, handle, examples)
        backbone.model.zero_grad(set_to_none=True)
        losses = Losses(backbone, corpus.fingerprint, 512)
        losses._overhead = 1.0
        ready = losses.ready(examples)
        assert len(losses.cut(ready, 9)) > 1
        loss, _, _ = objective.backward(losses, ready, Masters(handle), 9)
        assert loss == pytest.approx(expected, rel=1e-5)
        for found, known in zip(handle.trainable.values(), gradients, strict=True):
            torch.testing.assert_close(found.grad, known, atol=1e-5, rtol=1e-3)
    finally:
        handle.remove()


def test_deep_prompts_are_keys_and_values_in_training_and_their_rows_are_not_computed(
    backbone: Backbone, corpus: Corpus
) -> None:
    examples = next(corpus.batches(0, 1, 2))
    handle = attached(backbone, "mmpt", interaction=False)
    seen: list[int] = []
    model, anatomy = backbone.model, backbone.anatomy
    hooks = [
        model.get_submodule(name).self_attn.q_proj.register_forward_pre_hook(
            lambda _, args: seen.append(len(args[0][0]))
        )
        for name in (anatomy.vision_layers[0], anatomy.decoder_layers[0])
    ]
    try:
        losses = Losses(backbone, corpus.fingerprint, 512)
        ready = losses.ready(examples)
        losses.sum_of(ready, [0])
        vision = model.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        assert seen == [patches + 1, len(ready.rows[0].ids)]
    finally:
        for hook in hooks:
            hook.remove()
        handle.remove()


@pytest.mark.parametrize("method", ["prefix", "mmpt"])
@pytest.mark.parametrize("family", ["Qwen2.5-VL", "Qwen3-VL"])
def test_decoders_that_rotate_by_image_places_take_prompts_as_keys_and_values(
    family: str, method: str, tmp_path: Path
) -> None:
    backbone = load_backbone(str(NEWER[family](tmp_path)), device="cpu", offline=True)
    shown = [LazyImage(f"n{i}", lambda one=one: one) for i, one in enumerate(noise_pictures(backbone))]  # type: ignore[misc]
    examples = [Example(*each) for each in zip(shown, QUESTIONS, ANSWERS, strict=True)]
    handle = attached(backbone, method)
    plain, losses = (Losses(backbone, "set", 1024) for _ in range(2))
    seen: list[int] = []
    plain._take_plain_way()
    try:
        wanted = plain.probe(examples, handle.trainable)
        first = backbone.model.get_submodule(backbone.anatomy.decoder_layers[0]).self_attn.q_proj
        first.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
        found = losses.probe(examples, handle.trainable)
        longest = max(len(row.ids) for row in losses.ready(examples).rows)
    finally:
        handle.remove()
        plain.close()
        losses.close()
    # MMPT's interaction tokens, one of four visual prompts, flow through the layers and stay rows.
    assert seen == [longest + (20 // 4 if method == "mmpt" else 0)]
    assert found[0] == pytest.approx(wanted[0], rel=2e-6)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert (found[1][name] - gradient).norm() <= 2e-5 * gradient.norm(), name


def test_a_cut_shares_groups_by_length_and_pays_for_padding_or_for_calls() -> None:
    assert cut([9, 2, 9, 2], 4, overhead=3) == [[1, 3], [0, 2]]
    assert cut([9, 2, 9, 2], 4, overhead=15) == [[1, 3, 0, 2]]
    assert cut([5, 5, 5, 5, 5], 2, overhead=1) == [[0], [1, 2], [3, 4]]


def test_a_cut_pays_for_an_image_in_every_group_that_shows_it() -> None:
    # Apart: 2 x 2 + 2 x 9 tokens, two overheads, four images. Together: 4 x 9 tokens, one overhead, three images.
    lengths = [9, 2, 9, 2]
    assert cut(lengths, 4, 1, [(0, 12), (0, 12), (1, 12), (2, 12)]) == [[1, 3], [0, 2]]
    assert cut(lengths, 4, 1, [(0, 14), (0, 14), (1, 14), (2, 14)]) == [[1, 3, 0, 2]]
    assert cut(lengths, 4, 1, [(0, 99), (1, 99), (2, 99), (3, 99)]) == [[1, 3], [0, 2]]


def test_the_last_layer_computes_the_rows_that_have_labels_alone(backbone: Backbone, corpus: Corpus) -> None:
    examples = next(corpus.batches(0, 1, 5))
    losses = Losses(backbone, corpus.fingerprint, 512)
    ready, seen = losses.ready(examples), []
    last = backbone.model.get_submodule(backbone.anatomy.decoder_layers[-1]).mlp
    hook = last.down_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0][..., 0].numel()))
    with torch.no_grad():
        _, labelled = losses.sum_of(ready, list(range(5)))
    hook.remove()
    assert seen == [labelled]
    assert labelled < sum(len(row.ids) for row in ready.rows)
