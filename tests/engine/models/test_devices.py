"""A model spread over devices: it trains and answers as on one, and where it cannot be spread, that is said early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from transformers.integrations.accelerate import infer_auto_device_map

import mmpt_bench as mb
from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.data.examples import Corpus, Example
from mmpt_bench.data.images import LazyImage
from mmpt_bench.engine.adapters.trial import ANSWERS, QUESTIONS, attached, logits_of, noise_pictures
from mmpt_bench.engine.adapters.trial import answers_shared_and_alone as answers
from mmpt_bench.engine.forward import tower
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.models.devices import only_moves, settled
from mmpt_bench.engine.training.train import TrainingConfig, train
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.store import Store
from mmpt_bench.runs.plan import plan_given
from mmpt_bench.runs.workers.ranks import check_shared
from mmpt_bench.sources.weights import backbone_fingerprint, with_loading
from support.further_families import BUILDERS
from support.tiny import save_tiny
from support.two_devices import FIRST, SECOND, TwoDevices

torch.set_num_threads(1)
HOW = {"device_map": "auto"}


def loaded(folder: Path, **how: object) -> Backbone:
    return load_backbone(with_loading(str(folder), how), offline=True)


def spread(backbone: Backbone, share: float) -> None:
    """Spreads a backbone as transformers' `auto` would over two devices, of which the first holds about a share."""
    model = backbone.model
    blocks = [one for one in model.modules() if type(one).__name__ in model._no_split_modules]
    total, room = (4 * sum(p.numel() for p in part.parameters()) for part in (model, max(blocks, key=_size)))
    found = infer_auto_device_map(
        model,
        max_memory={0: int(share * total) + 2 * room, 1: 9 * total},
        no_split_module_classes=model._no_split_modules,
    )
    places = {name: (FIRST, SECOND)[i] for name, i in found.items()}
    # `from_pretrained` reads a parameter of no part (LLaVA-OneVision's `image_newline`) to its place at once.
    for name in places.keys() & dict(model.named_parameters()).keys():
        owner, _, leaf = name.rpartition(".")
        moved = model.get_parameter(name).detach().to(places[name])
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(moved))
    dispatch_model(model, device_map=places, main_device=FIRST, skip_keys=model._skip_keys_device_placement)
    backbone.device = str(model.get_input_embeddings().weight.device)


def _size(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def losses_of(backbone: Backbone, method: Any) -> tuple[list[float], list[str], set[torch.device]]:
    """Returns the loss of each of three steps, what was said, and the devices of what is trained."""
    shown = [LazyImage(f"noise {i}", lambda one=one: one) for i, one in enumerate(noise_pictures(backbone))]  # type: ignore[misc]
    examples = [Example(*each) for each in zip(shown, QUESTIONS, ANSWERS, strict=True)]
    corpus = Corpus("check", "check", 3, examples.__getitem__, 0, examples.__getitem__)
    config = TrainingConfig(Budget(steps=3, batch_size=3, schedule="constant"), method.learning_rate, 0)
    losses: list[float] = []
    said: list[str] = []
    with attached(method, backbone, 1) as handle:
        train(backbone, handle, corpus, config, on_step=lambda step: losses.append(step.loss), say=said.append)
        said.append(answers(backbone))
        return losses, said, {p.device for p in handle.trainable.values()}


def check_spread(folder: Path, share: float, *names: str) -> None:
    plain, other = loaded(folder), loaded(folder)
    assert plain.device == "cpu"
    with TwoDevices():
        spread(other, share)
        assert {p.device for p in other.model.parameters()} == {FIRST, SECOND}
        found = logits_of(other)
        assert found.device == torch.device(other.device)
        assert torch.allclose(found.to("cpu"), logits_of(plain), atol=1e-4)
    for name in names:
        method = method_catalog.load_method(method_catalog.named_method(name))()
        wanted, told, _ = losses_of(plain, method)
        with TwoDevices():
            losses, said, devices = losses_of(other, method)
        # Attention is summed in another order there.
        assert losses == pytest.approx(wanted, abs=2e-5), name
        assert said == told, name
        assert devices == {FIRST, SECOND} if name in ("lora", "full") else devices <= {FIRST, SECOND}, name


def test_a_spread_model_computes_as_on_one_device(tmp_path: Path) -> None:
    check_spread(save_tiny(tmp_path), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "share"),
    [("LLaVA", 0.1), ("LLaVA", 0.6), ("Qwen2.5-VL", 0.4), ("Qwen3-VL", 0.7), ("InternVL", 0.4), ("Gemma 3", 0.5),
     ("LLaVA-OneVision", 0.4)],
)  # fmt: skip
def test_it_trains_and_answers_so_under_every_method_wherever_the_model_is_parted(
    tmp_path: Path, family: str, share: float
) -> None:
    folder = BUILDERS[family](tmp_path / "m") if family in BUILDERS else save_tiny(tmp_path / "m")
    prompts = "vpt" if family == "LLaVA-OneVision" else "mmpt"
    check_spread(folder, share, "lora", prompts, "prefix")


def test_tensors_of_two_devices_are_never_mixed() -> None:
    with TwoDevices():
        one, two = torch.ones(2, device=FIRST), torch.ones(2, device=SECOND)
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            one + two
        assert (one + two.to(FIRST)).sum().item() == 4


def test_a_forward_that_only_moves_its_inputs_is_no_method(tmp_path: Path) -> None:
    backbone = loaded(save_tiny(tmp_path))
    backbone.model.requires_grad_(False)
    assert tower.is_frozen(backbone)
    with TwoDevices():
        spread(backbone, 0.1)
    moved = [module for module in backbone.model.modules() if "forward" in vars(module)]
    assert moved
    assert all(map(only_moves, moved))
    assert tower.is_frozen(backbone)
    block = backbone.model.get_submodule(backbone.anatomy.vision_layers[0])
    block.forward = lambda states, *args, **kwargs: states
    assert not only_moves(block)
    assert not tower.is_frozen(backbone)


def test_without_an_accelerator_it_is_the_plain_backbone_under_a_name_of_its_own(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("an accelerator is here")
    folder = save_tiny(tmp_path)
    plain, spread_ = loaded(folder), loaded(folder, **HOW)
    assert spread_.device == "cpu"
    assert torch.equal(logits_of(plain), logits_of(spread_))
    assert spread_.fingerprint == backbone_fingerprint(spread_.name) != plain.fingerprint


def test_a_model_that_does_not_fit_the_accelerators_is_refused(tmp_path: Path) -> None:
    model = loaded(save_tiny(tmp_path)).model
    names = ["model.vision_tower", "model.multi_modal_projector", "model.language_model", "lm_head"]
    model.hf_device_map = dict.fromkeys(names, 0) | {"lm_head": "disk", "model.language_model": "cpu"}
    with pytest.raises(MachineError, match="finds room for 2 of 4 parts of the model on accelerators"):
        settled(model, "cpu", HOW)


def test_what_cannot_go_together_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path))
    with pytest.raises(RequestError, match="`--device-map` chooses the devices: leave out `--device cpu`"):
        mb.plan("frozen", "mnist", backbone=folder, device="cpu", device_map="auto")
    with pytest.raises(RequestError, match="`device_map` is for backbones in Hugging Face form"):
        mb.plan("frozen", "mnist", device_map="auto")
    with pytest.raises(RequestError, match="There is no device_map `balanced`"):
        mb.plan("frozen", "mnist", backbone=folder, device_map="balanced")
    given = ("projector", "mnist", (None, False), None, {"out": tmp_path / "out", "limit": 4}, False)
    (planned,) = plan_given(given, Store(tmp_path / "out"))
    check_shared("ddp", [planned])
    request = replace(planned.request, backbone=with_loading(folder, HOW))
    with pytest.raises(RequestError, match="`--device-map` gives one process all accelerators"):
        check_shared("ddp", [replace(planned, request=request)])
