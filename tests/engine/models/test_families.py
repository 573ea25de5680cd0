"""Every method on every family: what runs passes every check, what cannot is refused with its reason."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.engine.adapters.check_family import check_family
from mmpt_bench.engine.adapters.check_method import _place_in_batch, check_method
from mmpt_bench.engine.adapters.trial import attached, noise_pictures
from mmpt_bench.engine.models import families
from mmpt_bench.engine.models.anatomy import find_anatomy
from mmpt_bench.engine.models.backbone import IGNORED, load_backbone
from mmpt_bench.engine.models.families import is_family, register_file
from mmpt_bench.engine.models.loading import empty_model, mended, read_processor, refuse_unfit
from mmpt_bench.engine.prompts.bank import PromptBank
from mmpt_bench.engine.prompts.hooks import register_hooks
from mmpt_bench.engine.prompts.plan import PromptPlan
from mmpt_bench.sources.weights import folder_fingerprint
from support.families import TEMPLATE, tokenizer
from support.families_table import METHODS, page, refusal, table
from support.further_families import BUILDERS, FURTHER, NEEDS_TORCHVISION, llama4_model
from support.methods import VARIANTS
from support.newer_families import NEWER
from support.paths import ROOT
from support.tiny import ANSWERS, QUESTIONS

torch.set_num_threads(1)
PAGE = ROOT / "docs" / "families.md"
HAS_NUM2WORDS = importlib.util.find_spec("num2words") is not None
NEEDS = pytest.mark.skipif(not HAS_NUM2WORDS, reason="SmolVLM's processor needs the package num2words")
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
SEES = pytest.mark.skipif(not HAS_TORCHVISION, reason="the processor needs the package torchvision")
FAMILIES = [
    *[pytest.param(name, marks=NEEDS) if name == "SmolVLM" else name for name in BUILDERS],
    *[pytest.param(name, marks=SEES) for name in NEEDS_TORCHVISION],
]
SLOW = [
    *[one for one in FAMILIES[: len(BUILDERS)] if not isinstance(one, str) or one not in {**NEWER, **FURTHER}],
    *[pytest.param(name, marks=pytest.mark.slow) for name in [*NEWER, *FURTHER]],
    *[pytest.param(name, marks=[pytest.mark.slow, SEES]) for name in NEEDS_TORCHVISION],
]
"""The newer families once more than once a change: the structure that finds them is tested on the others."""


class Backbones(dict[str, Any]):
    """Tiny backbones by the name of their family, made when they are asked for."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.place = place

    def __missing__(self, family: str) -> Any:
        folder = (BUILDERS | NEEDS_TORCHVISION)[family](self.place / family.replace(" ", "-"))
        self[family] = load_backbone(str(folder), device="cpu", offline=True)
        return self[family]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Backbones:
    return Backbones(tmp_path_factory.mktemp("families"))


def asked(backbone: Any) -> list[str]:
    return [backbone.prompt_text(question) for question in QUESTIONS]


@pytest.mark.parametrize("family", SLOW)
def test_inputs_are_what_the_processor_makes_of_them(backbones: Backbones, family: str) -> None:
    backbone = backbones[family]
    processor, pictures = backbone.processor, noise_pictures(backbone)
    prompts = asked(backbone)
    # PaliGemma's processor puts beginning and end around a bare question itself.
    texts = [f"<image>{question}" for question in QUESTIONS] if family.startswith("Pali") else prompts
    wanted = processor(
        text=texts, images=[[one] for one in pictures], return_tensors="pt", padding=True, padding_side="left"
    )
    found = backbone.batch(pictures, prompts)
    assert found.keys() | {"labels", "token_type_ids"} >= wanted.keys()
    for name in found.keys() & wanted.keys():
        assert torch.equal(found[name], wanted[name].to(found[name].dtype)), name


@pytest.mark.parametrize("family", SLOW)
def test_encoded_pictures_give_the_same_batch(backbones: Backbones, family: str) -> None:
    backbone = backbones[family]
    pictures, prompts = noise_pictures(backbone), asked(backbone)
    kept = backbone.batch(backbone.encode(pictures), prompts, ANSWERS)
    for name, value in backbone.batch(pictures, prompts, ANSWERS).items():
        assert torch.equal(value, kept[name])


@pytest.mark.parametrize("family", SLOW)
def test_labels_are_the_answer_and_the_end(backbones: Backbones, family: str) -> None:
    backbone = backbones[family]
    batch = backbone.batch(noise_pictures(backbone), asked(backbone), ANSWERS)
    kept = [backbone.processor.tokenizer.decode(row[row != IGNORED]) for row in batch["labels"]]
    # Qwen3.5's own tokenizer writes white space before words only.
    assert [text.replace(" ", "") for text in kept] == ["yes</s>", "two</s>", "blue.</s>"]


@pytest.mark.parametrize("family", SLOW)
def test_exactly_the_used_vision_weights_reach_the_loss(backbones: Backbones, family: str) -> None:
    backbone = backbones[family]
    anatomy, model = backbone.anatomy, backbone.model
    model(**backbone.batch(noise_pictures(backbone), asked(backbone), ANSWERS)).loss.backward()
    tower = f"{anatomy.vision}."
    reached = {n for n, p in model.named_parameters() if n.startswith(tower) and p.grad is not None}
    model.zero_grad()
    assert {n for n in reached if not n.startswith(f"{anatomy.projector}.")} == set(anatomy.vision_used_names)


@pytest.mark.parametrize("family", SLOW)
def test_prompts_on_both_sides_answer_alike_in_any_batch(backbones: Backbones, family: str) -> None:
    backbone = backbones[family]
    kind = next(name for name in ("mmpt", "mmpt-apart", "vpt", "lora") if refusal(name, backbone) is None)
    method = VARIANTS[kind]()()
    assert _place_in_batch(method, backbone).endswith("agree")


@NEEDS
def test_page_is_what_attaching_finds(backbones: Backbones) -> None:
    found = PAGE.read_text(encoding="utf-8")
    first = {family: backbones[family] for family in BUILDERS}
    if HAS_TORCHVISION:
        assert found == page(first, {family: backbones[family] for family in NEEDS_TORCHVISION})
    reasons: list[str] = []
    assert "\n".join(table(first, reasons)) in found
    assert all(f"{number}. {reason}\n" in found for number, reason in enumerate(reasons, start=1))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_method_passes_every_check_or_is_refused(backbones: Backbones, family: str, method: str) -> None:
    backbone = backbones[family]
    if refusal(method, backbone) is None:
        assert not [result for result in check_method(VARIANTS[method](), backbone) if not result.ok]


def test_prompts_that_would_leave_the_window_are_refused(backbones: Backbones) -> None:
    whole = backbones["Gemma 3"]
    backbone = dataclasses.replace(whole, anatomy=dataclasses.replace(whole.anatomy, window=40))
    batch = backbone.batch(noise_pictures(backbone), asked(backbone), ANSWERS)
    with attached(VARIANTS["prefix"]()(length=30), backbone), pytest.raises(RequestError, match="see the last 40"):
        backbone.model(**batch)


def test_several_shapes_of_picture_share_a_batch(backbones: Backbones) -> None:
    backbone = backbones["LLaVA-NeXT"]
    wide, high = Image.new("RGB", (64, 16), "red"), Image.new("RGB", (16, 64), "blue")
    prompts = asked(backbone)[:2]
    with torch.no_grad():
        both = backbone.model(**backbone.batch([wide, high], prompts)).logits[:, -1]
        alone = [
            backbone.model(**backbone.batch([p], [t])).logits[:, -1] for p, t in zip([wide, high], prompts, strict=True)
        ]
    assert torch.allclose(both, torch.cat(alone), atol=1e-5)


def test_processor_without_chat_template_is_refused(tmp_path: Path) -> None:
    folder = BUILDERS["Gemma 3"](tmp_path / "own")
    (folder / "chat_template.jinja").unlink()
    backbone = load_backbone(str(folder), device="cpu", offline=True)
    with pytest.raises(RequestError, match=r"chat_template\.jinja"):
        backbone.prompt_text("how many ?")


def test_structure_is_found_without_weights(tmp_path: Path) -> None:
    folder = BUILDERS["LLaVA-1.3 (linear projector)"](tmp_path / "own")
    (folder / "model.safetensors").unlink()
    assert find_anatomy(empty_model(folder)).projector_parameters == 16 * 32 + 32


def test_text_that_brings_its_own_beginning_gets_no_second(tmp_path: Path) -> None:
    folder = BUILDERS["LLaVA-NeXT"](tmp_path / "own")
    (folder / "chat_template.jinja").write_text("<s>" + TEMPLATE.replace("IMAGE", "<image> "))
    backbone = load_backbone(str(folder), device="cpu", offline=True)
    ids = backbone.batch(noise_pictures(backbone)[:1], [backbone.prompt_text(QUESTIONS[0])])["input_ids"][0]
    assert (ids == backbone.processor.tokenizer.bos_token_id).sum() == 1


@pytest.mark.parametrize(
    "kind", ["florence2", "gemma3n", "mllama", "imaginary", "blip-2", "instructblip", "minicpmv4_6", "qwen2_5_omni"]
)
def test_what_cannot_be_a_backbone_is_refused_by_its_configuration(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises((RequestError, MachineError)):
        refuse_unfit(tmp_path)


def test_a_model_that_is_built_otherwise_is_refused_in_a_sentence(tmp_path: Path) -> None:
    # Its default configuration leaves out numbers without which transformers cannot make the model.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chameleon"}))
    with pytest.raises(RequestError, match="`chameleon` are built otherwise"):
        refuse_unfit(tmp_path)


@pytest.mark.parametrize(
    ("kind", "parts", "reason"),
    [
        ("llama4", ("vision_model", "multi_modal_projector", "language_model.model"), "no map of squares"),
        ("kimi_k25", ("model.vision_tower", "model.mm_projector", "model.language_model"), "joined by their places"),
        ("lfm2_vl", ("model.vision_tower", "model.multi_modal_projector", "model.language_model"), "joined by their"),
        ("cohere2_vision", ("model.vision_tower", "model.multi_modal_projector", "model.language_model"), ""),
    ],
)
def test_parts_are_found_at_full_size(tmp_path: Path, kind: str, parts: tuple[str, ...], reason: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    found = find_anatomy(empty_model(tmp_path))
    assert (found.vision, found.projector, found.decoder) == parts
    assert reason in found.no_interaction
    assert bool(found.no_interaction) == bool(reason)


@pytest.mark.skipif(HAS_TORCHVISION, reason="torchvision is installed")
def test_a_processor_says_that_it_needs_torchvision(tmp_path: Path) -> None:
    transformers.Mistral3Config().save_pretrained(tmp_path)
    known = {
        "processor_class": "PixtralProcessor",
        "image_processor": {"image_processor_type": "PixtralImageProcessor"},
    }
    (tmp_path / "processor_config.json").write_text(json.dumps(known))
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(MachineError, match="needs torchvision, of the version made for your torch"):
        read_processor(tmp_path, "mistral3")


def test_a_llava_with_pixtrals_tower_takes_images_of_any_size() -> None:
    settings = transformers.LlavaConfig(vision_config=transformers.PixtralVisionConfig())
    assert not families.family(families.kind_of(settings)).one_size
    assert families.kind_of(transformers.LlavaConfig()) == "llava"


def test_a_users_file_on_pixtral_is_part_of_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = transformers.LlavaConfig(vision_config=transformers.PixtralVisionConfig())
    settings.save_pretrained(tmp_path)
    plain = folder_fingerprint(tmp_path)
    monkeypatch.setitem(families.OWN_FAMILIES, "llava", ("0" * 64, tmp_path / "mine.py"))
    assert folder_fingerprint(tmp_path) == plain
    monkeypatch.setitem(families.OWN_FAMILIES, "pixtral", ("0" * 64, tmp_path / "mine.py"))
    assert folder_fingerprint(tmp_path) != plain


def test_llama_4_runs_and_its_prompts_have_no_place() -> None:
    """Patches are rotated to their place and prompts are not: the order of prompts changes nothing."""
    torch.manual_seed(0)
    model = mended(llama4_model().eval())
    anatomy, image = find_anatomy(model), torch.randn(1, 3, 16, 16)
    ids = torch.tensor([[1, *[model.config.image_token_id] * 4, 40]])
    with torch.no_grad():
        plain = model(input_ids=ids, pixel_values=image).logits
        bank = PromptBank(anatomy, PromptPlan(visual=3), 0, model.get_input_embeddings().weight)
        hooks = register_hooks(model, anatomy, bank)
        for values in bank.parameters():
            values.mul_(10)
        one = model(input_ids=ids, pixel_values=image).logits
        for values in bank.parameters():
            values.copy_(values[:, [2, 0, 1]].clone())
        other = model(input_ids=ids, pixel_values=image).logits
        assert torch.allclose(one, other, atol=1e-6)
        assert not torch.allclose(one, plain, atol=1e-4)
        for hook in hooks:
            hook.remove()
        assert torch.equal(model(input_ids=ids, pixel_values=image).logits, plain)


def test_users_file_says_where_parts_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    monkeypatch.setattr(families, "OWN_FAMILIES", {})
    own = tmp_path / "mine.py"
    line = 'FAMILIES = {"llava": Family("Mine", mixes_patches="it says so", one_size=True)}'
    own.write_text(f"from mmpt_bench.engine.models.families import Family\n\n{line}\n")
    folder = BUILDERS["LLaVA-1.5"](tmp_path / "model")
    assert is_family(own)
    register_file(own)
    anatomy = find_anatomy(empty_model(folder))
    assert (anatomy.title, anatomy.no_interaction) == ("Mine", "it says so")
    assert set(families.OWN_FAMILIES) == {"llava"}


def test_file_without_families_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("X = 1\n")
    with pytest.raises(RequestError, match="exports no family"):
        register_file(tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["mine", "all", "a.py,b.py", "mine.txt"])
def test_what_is_no_file_of_a_family_is_refused_as_a_file(name: str) -> None:
    with pytest.raises(RequestError, match=r"There is no file `.*` to read a family from"):
        register_file(Path(name))


def test_a_folder_with_a_comma_holds_one_file(tmp_path: Path) -> None:
    own = tmp_path / "a,b" / "mine.py"
    own.parent.mkdir()
    own.write_text("X = 1\n")
    with pytest.raises(RequestError, match="exports no family"):
        register_file(own)


def test_parts_of_a_family_pass_their_checks(backbones: Backbones) -> None:
    assert not [result for result in check_family(backbones["LLaVA-1.5"]) if not result.ok]


def test_a_wrong_projector_fails_the_checks(backbones: Backbones) -> None:
    whole = backbones["LLaVA-1.5"]
    anatomy = dataclasses.replace(whole.anatomy, vision_used_names=whole.anatomy.vision_used_names[:-1])
    results = check_family(dataclasses.replace(whole, anatomy=anatomy))
    assert next(result.ok for result in results) is False
