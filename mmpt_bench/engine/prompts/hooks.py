"""Where a prompt bank hooks into a model, and when it refuses to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.attachment import Attachment
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.parts import packs_tiles
from mmpt_bench.engine.prompts import interaction, packed
from mmpt_bench.engine.prompts.bank import PromptBank
from mmpt_bench.engine.prompts.conditioned import ConditionedBank, frame_behind
from mmpt_bench.engine.prompts.plan import GeneratorPlan, PromptPlan


def attach_prompts(backbone: Backbone, plan: PromptPlan, seed: int, made: GeneratorPlan | None = None) -> Attachment:
    """Returns an attachment with a bank of trainable prompts on the model, as `prompt_bank`; see `check_plan`.

    `made` is of a generator that shifts the prompts for each item.
    """
    model, anatomy = backbone.model, backbone.anatomy
    check_plan(model, anatomy, plan)
    attachment = Attachment(backbone)
    words = model.get_input_embeddings().weight
    bank = PromptBank(anatomy, plan, seed, words) if made is None else _conditioned(backbone, plan, seed, made)
    bank.to(next(model.parameters()).device).train(model.training)
    model.add_module("prompt_bank", bank)
    attachment.undo_with(delattr, model, "prompt_bank")
    for hook in register_hooks(model, anatomy, bank):
        attachment.undo_with(hook.remove)
    for name, parameter in bank.named_parameters():
        attachment.add(f"prompt_bank.{name}", parameter)
    return attachment


def _conditioned(backbone: Backbone, plan: PromptPlan, seed: int, made: GeneratorPlan) -> ConditionedBank:
    """Returns a bank whose prompts depend on the item; RequestError where they could not be right."""
    anatomy = backbone.anatomy
    if plan.visual and anatomy.layout != "batched":
        raise RequestError(
            f"The tower of {anatomy.title} has all images in one sequence, where prompts are the same for each: set "
            "`visual_length` to 0."
        )
    bank = ConditionedBank(anatomy, plan, seed, backbone.model.get_input_embeddings().weight, made)
    bank.image_token = backbone.model.config.image_token_id
    if bank.reads_question:
        bank.frame = frame_behind(backbone)
    return bank


def register_hooks(model: nn.Module, anatomy: Anatomy, bank: PromptBank) -> list[Any]:
    """Hooks a bank's prompts into a model; returns the hooks' handles, each with a `remove`."""
    hooks: list[Any] = []
    if bank.plan.visual:
        hooks += _hook_vision(model, anatomy, bank)
    if bank.rows.total:
        hooks += _hook_decoder(model, anatomy, bank)
    if isinstance(bank, ConditionedBank) and bank.plan.text:
        hooks.append(_before(model, anatomy.core, bank.note_question))
    if bank.flowing:
        hooks.append(_before(model, anatomy.core, partial(interaction.enter_core, bank)))
    if bank.flowing and packs_tiles(model.get_submodule(anatomy.core)):
        hooks.append(interaction.TilesPacked(bank, model.get_submodule(anatomy.core)))
    if bank.flowing and anatomy.parts_states:
        leave = partial(interaction.leave_tower, bank)
        tower = model.get_submodule(anatomy.vision)
        hooks.append(tower.register_forward_hook(leave, with_kwargs=True))
    return hooks


def _before(model: nn.Module, name: str, call: Callable[..., Any]) -> Any:
    """Has a part of the model called with what `call` makes of its arguments."""
    return model.get_submodule(name).register_forward_pre_hook(call, with_kwargs=True)


def check_plan(model: nn.Module, anatomy: Anatomy, plan: PromptPlan, occupied: bool = False) -> None:
    """Raises RequestError where prompts of this plan cannot be right on this model, or where it carries some already.

    `occupied` says that it may: those of other adapters, of which one at a time is active.
    """
    if not plan.visual and not plan.text and not plan.keys:
        raise RequestError("A prompt method of length 0 trains no prompt: give at least one length above 0.")
    if plan.text and plan.keys:
        raise RequestError("Textual prompts and a key-value prefix do not go together.")
    if plan.interaction != "none" and not plan.visual:
        raise RequestError("Interaction needs visual prompts: raise `visual_length` or switch `interaction` off.")
    if plan.interaction != "none" and plan.interaction_place == "image" and not plan.text_first:
        raise RequestError("`placement` `visual-first` needs visual prompts in front: `interaction_place` `front`.")
    if plan.visual and anatomy.no_visual:
        raise RequestError(
            f"Visual prompts cannot enter the vision tower of {anatomy.title}: {anatomy.no_visual}. "
            "Use a method without visual prompts."
        )
    if plan.decoder_rows and anatomy.no_prompts:
        raise RequestError(
            f"Prompts cannot enter the language model of {anatomy.title}: {anatomy.no_prompts}. "
            "Use a method without prompts there."
        )
    if plan.text and plan.text_deep and anatomy.no_deep:
        raise RequestError(
            f"Prompts of each layer's own cannot enter the language model of {anatomy.title}: {anatomy.no_deep}. "
            "Switch `text_deep` off."
        )
    if plan.interaction != "none" and anatomy.no_interaction:
        raise RequestError(
            f"Visual prompts cannot enter the language model of {anatomy.title}: {anatomy.no_interaction}, where a "
            "prompt has no place. Switch `interaction` off."
        )
    _check_visual(anatomy, plan)
    if hasattr(model, "prompt_bank") and not occupied:
        raise RequestError("The backbone already carries prompts: remove them first.")
    if plan.keys:
        names = {name for name, _ in model.named_modules()}
        for layer in anatomy.decoder_layers:
            if not {f"{layer}.self_attn.k_proj", f"{layer}.self_attn.v_proj"} <= names:
                raise RequestError(f"A key-value prefix needs `self_attn.k_proj` and `v_proj`; `{layer}` has none.")


def _check_visual(anatomy: Anatomy, plan: PromptPlan) -> None:
    """Raises RequestError where visual prompts' rows cannot pass the tower as a plan says."""
    if plan.interaction == "parameters" and anatomy.reads_several:
        raise RequestError(
            f"`visual_states` `parameters` is one hidden state, and the projector of {anatomy.title} reads several: "
            "leave `visual_states` at `output`."
        )
    if plan.raw_sets and anatomy.vision_used == len(anatomy.vision_layers):
        raise RequestError(
            "`visual_states` `parameters` is the set of a vision block whose output is discarded, and the tower of "
            f"this {anatomy.title} is read to its last block: leave `visual_states` at `output`."
        )
    if plan.raw_sets and not plan.visual_deep:
        raise RequestError(
            "`visual_states` `parameters` is a set of its own after the blocks': leave `visual_deep` on."
        )
    if plan.visual and not plan.visual_deep and anatomy.layout != "batched":
        raise RequestError(
            f"Visual prompts cannot flow through the tower of {anatomy.title}, which has all images in one sequence: "
            "leave `visual_deep` on."
        )
    if plan.visual and not plan.visual_deep and anatomy.reads_several:
        raise RequestError(
            f"Visual prompts cannot flow through the tower of {anatomy.title}, of which several hidden states are "
            "read: leave `visual_deep` on."
        )


def _hook_vision(model: nn.Module, anatomy: Anatomy, bank: PromptBank) -> list[Any]:
    """Registers the hooks of the vision blocks.

    They run before those by which transformers captures hidden states, which otherwise would see the prompts.
    """
    hooks: list[Any] = []
    for block, name in enumerate(anatomy.vision_layers[: anatomy.vision_used]):
        module = model.get_submodule(name)
        if anatomy.layout != "batched":
            hooks.append(_before(model, name, partial(packed.enter_block, bank, block)))
            leave = partial(packed.leave_block, bank, block)
            hooks.append(module.register_forward_hook(leave, with_kwargs=True, prepend=True))
            continue
        hooks.append(_before(model, name, partial(bank.append, block)))
        last = block == anatomy.vision_used - 1
        if last and bank.plan.interaction == "parameters":
            hooks.append(module.register_forward_hook(bank.leave_parameters, prepend=True))
        elif bank.is_cut_behind(block) if last else bank.plan.visual_deep and bank.is_cut_behind(block):
            hooks.append(module.register_forward_hook(bank.cut_block, prepend=True))
    unread = anatomy.vision_layers[anatomy.vision_used :]
    if bank.flowing and unread:
        hooks.append(_before(model, unread[0], bank.cut_unread))
    return hooks


def _hook_decoder(model: nn.Module, anatomy: Anatomy, bank: PromptBank) -> list[Any]:
    """Registers the hooks of the decoder and its layers."""
    decoder = model.get_submodule(anatomy.decoder)
    hooks: list[Any] = [
        _before(model, anatomy.decoder, bank.enter_decoder),
        decoder.register_forward_hook(bank.leave_decoder, with_kwargs=True),
    ]
    if anatomy.builds_masks:
        hooks.append(_before(model, anatomy.core, bank.widen_mask))
    for index, name in enumerate(anatomy.decoder_layers):
        hooks.append(_before(model, name, partial(bank.enter_layer, index)))
        if bank.plan.keys:
            hooks.append(_before(model, f"{name}.self_attn", bank.mark_attention))
            for projection, parameter in (("k_proj", "mmpt_key"), ("v_proj", "mmpt_value")):
                target = model.get_submodule(f"{name}.self_attn.{projection}")
                hooks.append(target.register_forward_hook(partial(bank.write, parameter, index)))
    return hooks
