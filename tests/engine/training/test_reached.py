"""What trains is what is checked: pixels reach a method that reads them, and a parameter without a gradient fails."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from mmpt_bench import Method
from mmpt_bench.common.errors import RunFailed
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.adapters.check_method import check_method
from mmpt_bench.engine.adapters.trial import attached
from mmpt_bench.engine.inference.plain import one_by_one
from mmpt_bench.engine.inference.predict import predict
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.loss import differing
from mmpt_bench.engine.training.reached import LEAST, WITHIN
from mmpt_bench.engine.training.train import TrainingConfig, train, validation_loss
from mmpt_bench.records.budget import Budget
from mmpt_bench.sources.corpora import load_corpus
from support.methods import VARIANTS
from support.synthetic import task
from support.tiny import QUESTIONS, SIDE, pictures, tiny_backbone

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


@dataclass(frozen=True)
class PixelPrompt(Method):
    """A frame of pixels that is added to every image (Bahng et al. 2022), where the test says."""

    name: ClassVar[str] = "pixels"
    color: ClassVar[str] = "#123456"
    lr_range: ClassVar[tuple[float, float]] = (1e-4, 1.0)
    where: ClassVar[str] = "hook on the model"
    train_projector: bool = False
    learning_rate: float = 0.1

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        attachment = Attachment(backbone)
        frame = torch.nn.Parameter(torch.zeros(3, SIDE, SIDE))
        model = backbone.model
        model.register_parameter("pixel_frame", frame)
        attachment.undo_with(delattr, model, "pixel_frame")

        def added(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if kwargs.get("pixel_values") is None:
                return args, kwargs
            return args, {**kwargs, "pixel_values": kwargs["pixel_values"] + frame}

        if self.where == "hook on the model":
            attachment.undo_with(model.register_forward_pre_hook(added, with_kwargs=True).remove)
        elif self.where == "hook on the core":
            attachment.undo_with(model.model.register_forward_pre_hook(added, with_kwargs=True).remove)
        else:
            kind, original = type(model), type(model).forward

            def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
                return original(module, *args, **added(module, (), kwargs)[1])

            kind.forward = forward
            attachment.undo_with(setattr, kind, "forward", original)
        attachment.add("pixel_frame", frame)
        return attachment.handle(self)

    def count(self, anatomy: Any) -> int:
        return 3 * SIDE * SIDE


WHERE = ("hook on the model", "hook on the core", "the class itself")


def run(backbone: Backbone, handle: Handle, steps: int = LEAST, rate: float = 0.1, **more: Any) -> None:
    budget = Budget(steps=steps, batch_size=2, schedule="constant")
    train(backbone, handle, load_corpus("embedded"), TrainingConfig(budget, rate, 0), **more)


@pytest.mark.parametrize("where", WHERE)
def test_a_method_that_reads_pixels_trains_as_the_whole_model_would(
    where: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PixelPrompt, "where", where)
    corpus, said = load_corpus("embedded"), []
    with attached(PixelPrompt(), backbone) as handle:
        run(backbone, handle, say=said.append)
        frame = handle.state()["pixel_frame"]
    assert bool((frame != 0).all(dim=0).any())
    assert ["whole model" in text for text in said] == ([True] if where == "the class itself" else [])
    # By hand: the model itself, whole images, AdamW.
    with attached(PixelPrompt(), backbone) as handle:
        (parameter,) = handle.trainable.values()
        optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0)
        for examples in corpus.batches(0, LEAST, 2):
            prompts = [backbone.prompt_text(example.prompt) for example in examples]
            batch = backbone.batch([e.image.open() for e in examples], prompts, [e.target for e in examples])
            optimizer.zero_grad()
            backbone.model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_([parameter], 1.0)
            optimizer.step()
        torch.testing.assert_close(frame, parameter.detach(), atol=2e-3, rtol=0.05)


@pytest.mark.parametrize("where", WHERE[:2])
def test_its_answers_are_those_of_whole_images_however_little_it_changes(
    where: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PixelPrompt, "where", where)
    shown = [LazyImage(f"p{i}", lambda one=one: one) for i, one in enumerate(pictures(2))]  # type: ignore[misc]
    of = [Sample(f"{i}/{q}", image, q, ("yes", "no"), "yes") for i, image in enumerate(shown) for q in QUESTIONS]
    asked = task(parse=lambda reply, choices: None, max_new_tokens=3)
    with attached(PixelPrompt(), backbone) as handle:
        handle.trainable["pixel_frame"].detach().fill_(1e-3)
        ours = {p.id: p for batch in predict(backbone, asked, of) for p in batch}
        for sample, (reply, logprobs) in one_by_one(backbone, asked, of):
            assert ours[sample.id].reply == reply
            assert ours[sample.id].logprobs == pytest.approx(logprobs, abs=1e-5)
        base = dict(ours)
    untouched = {p.id: p for batch in predict(backbone, asked, of) for p in batch}
    assert any(untouched[i].logprobs != base[i].logprobs for i in base)


def test_check_and_run_agree_on_it(backbone: Backbone) -> None:
    assert not [result for result in check_method(PixelPrompt, backbone) if not result.ok]


@dataclass(frozen=True)
class Unreached(PixelPrompt):
    """Trains a parameter that nothing reads, beside the projector."""

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        attachment = Attachment(backbone)
        attachment.open(backbone.anatomy.projector)
        unread = torch.nn.Parameter(torch.ones(4))
        backbone.model.register_parameter("unread", unread)
        attachment.undo_with(delattr, backbone.model, "unread")
        attachment.add("unread", unread)
        return attachment.handle(self)


def test_a_parameter_that_the_loss_does_not_reach_fails_the_run_by_name(backbone: Backbone) -> None:
    with attached(Unreached(), backbone) as handle, pytest.raises(RunFailed, match=rf"step {WITHIN}: 1 .* `unread`"):
        run(backbone, handle, steps=WITHIN + 2, rate=1e-3)
    failed = [result for result in check_method(Unreached, backbone) if not result.ok]
    assert any("gradient" in result.name for result in failed)


@pytest.mark.parametrize("name", ["mmpt", "lora", "prefix", "vpt", "full", "projector"])
def test_built_in_methods_take_the_shared_way_and_every_parameter_is_reached(name: str, backbone: Backbone) -> None:
    said: list[str] = []
    with attached(VARIANTS[name]()(), backbone) as handle:
        run(backbone, handle, rate=1e-3, say=said.append)
    assert said == []


def test_ways_differ_where_a_gradient_is_missing_or_another_one_and_not_by_rounding() -> None:
    one = {"a": torch.tensor([3.0, 4.0]), "noise": torch.tensor([1e-9])}
    assert differing((2.0, one), (2.0, one), "float32") == ""
    assert differing((2.0, {**one, "noise": torch.tensor([-1e-9])}), (2.00001, one), "float32") == ""
    assert "loss" in differing((2.1, one), (2.0, one), "float32")
    assert "loss" in differing((float("nan"), one), (2.0, one), "float32")
    assert "`a`" in differing((2.0, {}), (2.0, one), "float32")
    assert "`a`" in differing((2.0, {**one, "a": torch.tensor([4.0, 3.0])}), (2.0, one), "float32")
    # Tolerances for losses are shares of the loss, of 1 nat at least.
    for wanted, apart, same in ((0.1, 9e-5, True), (0.1, 1.5e-4, False), (4.0, 3e-4, True), (4.0, 5e-4, False)):
        assert (differing((wanted + apart, one), (wanted, one), "float32") == "") is same
    said = differing((2.5, one), (2.0, one), "float32")
    assert said == "the loss is 2 of whole images and 2.5 without them"


def test_a_validation_loss_is_that_of_whole_images_where_the_method_reads_pixels(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PixelPrompt, "where", "the class itself")
    corpus = dataclasses.replace(load_corpus("embedded"), validation_size=3)
    total, tokens = 0.0, 0
    with attached(PixelPrompt(), backbone) as handle, torch.no_grad():
        handle.trainable["pixel_frame"].fill_(0.5)
        for example in (corpus.validation(i) for i in range(3)):
            prompt = backbone.prompt_text(example.prompt)
            batch = backbone.batch([example.image.open()], [prompt], [example.target])
            n = int((batch["labels"] != -100).sum())
            total, tokens = total + backbone.model(**batch).loss.item() * n, tokens + n
        assert validation_loss(backbone, corpus, 2, 512) == pytest.approx(total / tokens, rel=1e-5)
