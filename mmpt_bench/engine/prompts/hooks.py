"""Where a prompt bank hooks into a model, and when it refuses to."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.attachment import Attachment
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.families import FAMILIES
from mmpt_bench.engine.prompts import packed
from mmpt_bench.engine.prompts.bank import PromptBank, PromptPlan


def attach_prompts(attachment: Attachment, plan: PromptPlan, seed: int) -> PromptBank:
    """Puts a prompt bank on the attachment's model as `prompt_bank`; its parameters become trainable.

    Raises:
        RequestError: the plan does not fit the model, or the model already has prompts.
    """
    model, anatomy = attachment.backbone.model, attachment.backbone.anatomy
    check_plan(model, anatomy, plan)
    device = next(model.parameters()).device
    bank = PromptBank(anatomy, plan, seed, model.get_input_embeddings().weight).to(device)
    hooks = register_hooks(model, anatomy, bank)
    model.add_module("prompt_bank", bank)

    def detach() -> None:
        for hook in hooks:
            hook.remove()
        del model.prompt_bank

    attachment.undo_with(detach)
    for name, parameter in bank.named_parameters():
        attachment.add(f"prompt_bank.{name}", parameter)
    return bank


def register_hooks(model: nn.Module, anatomy: Anatomy, bank: PromptBank) -> list[Any]:
    """Hooks a bank's prompts into a model; returns the hooks' handles, each with a `remove`."""
    hooks: list[Any] = []
    if bank.plan.visual:
        hooks += _hook_vision(model, anatomy, bank)
    if bank.rows:
        hooks += _hook_decoder(model, anatomy, bank)
    if bank.flowing:
        core = model.get_submodule(anatomy.core)
        hooks.append(core.register_forward_pre_hook(bank.split_features, with_kwargs=True))
    return hooks


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
    family = FAMILIES[anatomy.family]
    if plan.interaction != "none" and family.mixes_patches:
        raise RequestError(
            f"Visual prompts cannot enter the language model of {family.title}: {family.mixes_patches}, where a prompt "
            "has no place. Switch `interaction` off."
        )
    if plan.visual and not plan.visual_deep and anatomy.layout == "packed":
        raise RequestError(
            f"Visual prompts cannot flow through the tower of {family.title}, whose blocks group patches anew: "
            "leave `visual_deep` on."
        )
    if hasattr(model, "prompt_bank") and not occupied:
        raise RequestError("The backbone already carries prompts: remove them first.")
    if plan.keys:
        names = dict(model.named_modules())
        for layer in anatomy.decoder_layers:
            if f"{layer}.self_attn.k_proj" not in names or f"{layer}.self_attn.v_proj" not in names:
                raise RequestError(f"A key-value prefix needs `self_attn.k_proj` and `v_proj`; `{layer}` has none.")


def _hook_vision(model: nn.Module, anatomy: Anatomy, bank: PromptBank) -> list[Any]:
    """Registers the hooks of the vision blocks.

    They run before those by which transformers captures hidden states, which otherwise would see the prompts.
    """
    hooks: list[Any] = []
    masked = FAMILIES[anatomy.family].masks_pictures
    for block in range(anatomy.vision_used):
        module = model.get_submodule(anatomy.vision_layers[block])
        if anatomy.layout == "packed":
            hooks.append(module.register_forward_pre_hook(partial(_enter_packed, bank, block), with_kwargs=True))
            leave = partial(packed.leave_block, bank.plan.visual)
            hooks.append(module.register_forward_hook(leave, with_kwargs=True, prepend=True))
            continue
        if bank.plan.visual_deep or block == 0 or masked:
            hooks.append(module.register_forward_pre_hook(partial(bank.append, block), with_kwargs=True))
        last = block == anatomy.vision_used - 1
        if last and bank.plan.interaction == "parameters":
            hooks.append(module.register_forward_hook(bank.leave_parameters, prepend=True))
        elif bank.plan.interaction == "none" if last else bank.plan.visual_deep:
            hooks.append(module.register_forward_hook(bank.cut_block, prepend=True))
    if bank.flowing and anatomy.vision_used < len(anatomy.vision_layers):
        module = model.get_submodule(anatomy.vision_layers[anatomy.vision_used])
        hooks.append(module.register_forward_pre_hook(bank.cut_unread, with_kwargs=True))
    return hooks


def _enter_packed(bank: PromptBank, block: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    # The parameter is looked up at each call, because loading may put another in its place.
    return packed.enter_block(bank.mmpt_visual[block], module, args, kwargs)


def _hook_decoder(model: nn.Module, anatomy: Anatomy, bank: PromptBank) -> list[Any]:
    """Registers the hooks of the decoder and its layers."""
    decoder = model.get_submodule(anatomy.decoder)
    hooks: list[Any] = [
        decoder.register_forward_pre_hook(bank.enter_decoder, with_kwargs=True),
        decoder.register_forward_hook(bank.leave_decoder, with_kwargs=True),
    ]
    if FAMILIES[anatomy.family].core_builds_masks:
        core = model.get_submodule(anatomy.core)
        hooks.append(core.register_forward_pre_hook(bank.widen_mask, with_kwargs=True))
    for index, name in enumerate(anatomy.decoder_layers):
        layer = model.get_submodule(name)
        hooks.append(layer.register_forward_pre_hook(partial(bank.enter_layer, index), with_kwargs=True))
        if bank.plan.keys:
            attention = model.get_submodule(f"{name}.self_attn")
            hooks.append(attention.register_forward_pre_hook(bank.mark_attention, with_kwargs=True))
            for projection, parameter in (("k_proj", "mmpt_key"), ("v_proj", "mmpt_value")):
                target = attention.get_submodule(projection)
                hooks.append(target.register_forward_hook(partial(bank.write, parameter, index)))
    return hooks
