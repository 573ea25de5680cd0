"""MMPT as its description has it, written out with plain transformers, in double precision, beside the prompt engine.

The description (paper, and the authors' `modeling_clipPT.py`, `llava_archPT.py`, `modeling_llamaPT.py`): visual prompts
stand before the class token of every vision block and are overwritten before each; what reaches the language model
passes the projector and stands in the image slot, before the image tokens; textual prompts stand before the first token
at positions 0, 1, ... and are overwritten before each layer; labels are -100 on all of them. Nothing here uses hooks,
or knows where the engine puts a row.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.trial import attached
from mmpt_bench.engine.models.backbone import IGNORED, load_backbone
from mmpt_bench.engine.prompts.hooks import attach_prompts
from mmpt_bench.engine.prompts.plan import PromptPlan
from mmpt_bench.mmpt import MMPT
from support.families import BUILDERS
from support.tiny import ANSWERS, QUESTIONS, pictures, save_tiny, tiny_backbone

torch.set_num_threads(1)
N_VISUAL, N_TEXT, IMAGE = 3, 2, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Any:
    made = load_backbone(str(folder), device="cpu", offline=True)
    made.model.double()
    return made


class Published:
    """A LLaVA without hooks, and the prompts of a method, as parameters of its own."""

    def __init__(self, folder: Path, visual: Tensor, text: Tensor, released: bool) -> None:
        self.model = LlavaForConditionalGeneration.from_pretrained(folder).double().eval()
        self.visual, self.text = (one.detach().clone().requires_grad_() for one in (visual, text))
        self.released = released

    def image_slot(self, pixels: Tensor) -> Tensor:
        """Returns what stands in one image's image slot, (tokens, dim): projected prompts, then projected patches."""
        tower = self.model.model.vision_tower
        patches = tower.pre_layrnorm(tower.embeddings(pixels[None]))
        hidden, states = torch.cat([torch.zeros(1, N_VISUAL, patches.shape[-1]).double(), patches], dim=1), []
        for i, block in enumerate(tower.encoder.layers):
            if i < len(self.visual):
                hidden = torch.cat([self.visual[i][None], hidden[:, N_VISUAL:]], dim=1)
            states.append(hidden)
            if i == len(tower.encoder.layers) - 1:
                break
            hidden = block(hidden, attention_mask=None)
        # The state before the last block, as `vision_feature_layer: -2` names it.
        read = states[-1][0]
        # The release leaves the first row out, whatever it is; the paper's are the prompts' outputs and the patches.
        kept = read[1:] if self.released else torch.cat([read[:N_VISUAL], read[N_VISUAL + 1 :]])
        return self.model.model.multi_modal_projector(kept)

    def sequence(self, ids: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (embeddings of one sequence without padding, the index of each of `ids` in it)."""
        core = self.model.model
        first, n = int((ids == IMAGE).int().argmax()), int((ids == IMAGE).sum())
        words, slot = core.language_model.embed_tokens(ids), self.image_slot(pixels)
        new = len(slot) - n
        places = torch.tensor([i if i < first else i + new for i in range(len(ids))])
        return torch.cat([words[:first], slot, words[first + n :]]), places + N_TEXT

    def logits(self, ids: Tensor, pixels: Tensor) -> Tensor:
        """Returns the logits of one sequence's own tokens, (tokens, words)."""
        decoder = self.model.model.language_model
        embeds, places = self.sequence(ids, pixels)
        hidden = torch.cat([self.text[0], embeds])[None]
        length = hidden.shape[1]
        mask = torch.full((length, length), -torch.inf).double().triu(1)[None, None]
        rotary = decoder.rotary_emb(hidden, torch.arange(length)[None])
        for prompts, layer in zip(self.text, decoder.layers, strict=True):
            hidden = torch.cat([prompts[None], hidden[:, N_TEXT:]], dim=1)
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        return self.model.lm_head(decoder.norm(hidden))[0, places]

    def generated(self, ids: Tensor, pixels: Tensor, n: int) -> list[int]:
        """Returns `n` greedy words after a prompt, no image tokens, each of them from the whole sequence anew."""
        for _ in range(n):
            logits = self.logits(ids, pixels)[-1]
            logits[IMAGE] = -torch.inf
            ids = torch.cat([ids, logits.argmax()[None]])
        return ids[-n:].tolist()


def strong(handle: Any) -> Any:
    """Makes prompts large enough to matter, and returns the bank's two parameters."""
    bank = handle.model.prompt_bank
    generator = torch.Generator().manual_seed(3)
    for parameter in bank.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).double()
    return bank.mmpt_visual, bank.mmpt_text


def doubled(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.double() if one.is_floating_point() else one for name, one in batch.items()}


@pytest.fixture(params=["output", "parameters"])
def both(request: pytest.FixtureRequest, backbone: Any, folder: Path) -> Any:
    """Yields a backbone with MMPT on it, and the published form with the same values."""
    method = MMPT(visual_length=N_VISUAL, text_length=N_TEXT, visual_states=request.param)
    with attached(method, backbone):
        visual, text = strong(backbone)
        yield backbone, Published(folder, visual, text, released=request.param == "parameters")


def test_sets_of_prompts_are_those_that_are_read(both: Any) -> None:
    backbone, published = both
    # Blocks 0 to 2 of 4 are read; the released code passes the raw set of the fourth.
    assert backbone.model.prompt_bank.mmpt_visual.shape == (4 if published.released else 3, N_VISUAL, 16)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_those_of_the_description(both: Any, side: Any) -> None:
    backbone, published = both
    prompts = [backbone.prompt_text(question) for question in QUESTIONS]
    batch = backbone.pad(backbone.tokens(prompts, ANSWERS), side) | backbone.inputs(backbone.encode(pictures(3)))
    batch = doubled(batch)
    found = backbone.model(**batch).logits
    assert found.shape[:2] == batch["input_ids"].shape
    for i, row in enumerate(batch["attention_mask"].bool()):
        wanted = published.logits(batch["input_ids"][i][row], batch["pixel_values"][i])
        assert (found[i][row] - wanted).abs().max() < 1e-8


@pytest.mark.parametrize("checkpointed", [False, True])
def test_loss_and_gradients_are_those_of_the_description(both: Any, checkpointed: bool) -> None:
    backbone, published = both
    batch = doubled(backbone.batch(pictures(3), [backbone.prompt_text(q) for q in QUESTIONS], ANSWERS))
    model, bank = backbone.model, backbone.model.prompt_bank
    projector = model.model.multi_modal_projector.linear_1.weight
    if checkpointed:
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        output = model(**batch, use_cache=False)
        # transformers takes its own loss in single precision.
        rows = zip(output.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), strict=True)
        told, labels = zip(*((row, label) for row, label in rows if label != IGNORED), strict=True)
        loss = functional.cross_entropy(torch.stack(told), torch.stack(labels))
        found = torch.autograd.grad(loss, [bank.mmpt_visual, bank.mmpt_text, projector])
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    total, n = torch.zeros(()).double(), 0
    for ids, mask, labels, pixels in zip(
        batch["input_ids"], batch["attention_mask"].bool(), batch["labels"], batch["pixel_values"], strict=True
    ):
        known = labels[mask][1:] != IGNORED
        logits = published.logits(ids[mask], pixels)[:-1]
        total = total + functional.cross_entropy(logits[known], labels[mask][1:][known], reduction="sum")
        n += int(known.sum())
    own = published.model.model.multi_modal_projector.linear_1.weight
    wanted = torch.autograd.grad(total / n, [published.visual, published.text, own])
    assert abs(loss.item() - total.item() / n) < 1e-8
    assert output.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 1e-3
        assert (one - other).abs().max() < 1e-8
    # The first raw row of the released code is cut off as if it were the class token: nothing reads it.
    assert bool((found[0][-1, 0] == 0).all()) == published.released


@torch.no_grad()
def test_replies_are_those_of_the_description(both: Any) -> None:
    backbone, published = both
    batch = doubled(backbone.batch(pictures(3), [backbone.prompt_text(question) for question in QUESTIONS]))
    named: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "suppress_tokens": [IMAGE]}
    new = backbone.model.generate(**batch, **named, max_new_tokens=6)
    replies = new[:, batch["input_ids"].shape[1] :].tolist()
    rows = zip(batch["input_ids"], batch["attention_mask"].bool(), batch["pixel_values"], strict=True)
    assert replies == [published.generated(ids[mask], pixels, 6) for ids, mask, pixels in rows]


def test_places_answer_differently(backbone: Any) -> None:
    batch = doubled(backbone.batch(pictures(3), [backbone.prompt_text(question) for question in QUESTIONS]))
    found = {}
    for place in ("image", "front"):
        method = MMPT(visual_length=N_VISUAL, text_length=N_TEXT, interaction_place=place)  # type: ignore[arg-type]
        with attached(method, backbone), torch.no_grad():
            strong(backbone)
            found[place] = backbone.model(**batch).logits[:, -1]
    assert (found["image"] - found["front"]).abs().max() > 0.1 * found["image"].abs().max()


@pytest.mark.parametrize("family", ["LLaVA-1.5", "LLaVA-1.3 (linear projector)", "PaliGemma", "PaliGemma 2"])
def test_states_are_further_image_tokens_of_the_family(tmp_path: Path, family: str) -> None:
    backbone = load_backbone(str(BUILDERS[family](tmp_path)), device="cpu", offline=True)
    plain = copy.deepcopy(backbone.model)
    batch = backbone.batch(pictures(3), [backbone.prompt_text(question) for question in QUESTIONS])
    pixels, ids = batch.pop("pixel_values"), batch["input_ids"]
    attachment = attach_prompts(backbone, PromptPlan(visual=N_VISUAL, interaction="output"), 0)
    with torch.no_grad():
        backbone.model.prompt_bank.mmpt_visual.mul_(5)
        found = backbone.model(**batch, pixel_values=pixels).logits
        seen = torch.stack(list(backbone.model.get_image_features(pixels).pooler_output))
        attachment.remove()
        slots = torch.cat([seen[:, -N_VISUAL:], seen[:, :-N_VISUAL]], dim=1)
        # The same sequences, each with three more image tokens.
        grown: dict[str, Any] = {name: [] for name in batch} | {"places": []}
        for i, row in enumerate(ids == backbone.model.config.image_token_id):
            first = int(row.int().argmax())
            order = [*range(first), *[first] * N_VISUAL, *range(first, ids.shape[1])]
            grown["places"].append([j for j in range(len(order)) if not first <= j < first + N_VISUAL])
            for name, value in batch.items():
                grown[name].append(value[i][order])
        places = torch.tensor(grown.pop("places"))
        grown = {name: torch.stack(rows) for name, rows in grown.items()}
        features = BaseModelOutputWithPooling(pooler_output=slots if family.startswith("Pali") else list(slots))
        logits = plain(**grown, mm_encoder_outputs={"image": features}).logits
    for i, mask in enumerate(batch["attention_mask"].bool()):
        assert torch.allclose(found[i][mask], logits[i, places[i]][mask], atol=2e-5)


def test_several_pictures_a_sequence_are_refused(backbone: Any) -> None:
    batch = doubled(backbone.batch(pictures(2), [backbone.prompt_text(question) for question in QUESTIONS[:2]]))
    ids, image = batch["input_ids"], batch["input_ids"] == IMAGE
    # Two images in the first sequence and none in the second: as many in all as there are sequences.
    both = torch.cat([ids[0], ids[0][image[0]]])
    batch["input_ids"] = torch.stack([both, torch.full_like(both, 7)])
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    with attached(MMPT(), backbone), pytest.raises(ValueError, match="one image a sequence"):
        backbone.model(**batch)


def test_mask_with_a_gap_before_the_image_is_refused(backbone: Any) -> None:
    batch = doubled(backbone.batch(pictures(1), [backbone.prompt_text(QUESTIONS[0])]))
    batch["attention_mask"][0, 1] = 0
    with attached(MMPT(), backbone), pytest.raises(ValueError, match="hides no token"):
        backbone.model(**batch)


def test_released_states_are_refused_where_the_last_block_is_read(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path, feature_layer=-1)
    with pytest.raises(RequestError, match="read to its last block"):
        MMPT(visual_states="parameters").attach(backbone, 0)
    MMPT(visual_states="parameters", interaction_place="front").attach(backbone, 0).remove()


def test_released_states_need_a_set_for_every_block(backbone: Any) -> None:
    with pytest.raises(RequestError, match="leave `visual_deep` on"):
        MMPT(visual_states="parameters", visual_deep=False).attach(backbone, 0)
