"""A method of PEFT in a backbone: put in at one seed, checked, opened, counted without weights, and taken out again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.adapters.saved import plain_config, saved_whole
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.memory import shortage

PEFT_REFUSES = (ValueError, NotImplementedError, TypeError, RuntimeError, KeyError)
"""What PEFT, which has no class of errors of its own, raises where a method, a configuration or a file does not fit.
Caught around its calls alone, and around `make`, which is a call of it."""


def attach_peft(method: Any, backbone: Backbone, config: Any, seed: int) -> Handle:
    """Returns the handle of a method of PEFT with this configuration, and of the projector where it trains that too.

    Raises RequestError where the model carries an adapter of PEFT already, and what `inject` raises.
    """
    if hasattr(backbone.model, "peft_config"):
        raise RequestError("The backbone already carries an adapter of PEFT: remove it first.")
    attachment = Attachment(backbone)
    inject(attachment, config, seed)
    if method.train_projector:
        attachment.open(backbone.anatomy.projector)
        config.modules_to_save = saved_whole(backbone.anatomy.projector)
    return attachment.handle(method, lambda: plain_config(config))


def inject(attachment: Attachment, config: Any, seed: int, make: Callable[[], None] | None = None) -> None:
    """Puts a method of PEFT into the attachment's model and opens what it trains; `make` puts it in in another way.

    Raises:
        RequestError: it finds no target, or trains what never reaches the loss.
        UntrustedRecord: it changed the base's weights.
    """
    model, anatomy = attachment.backbone.model, attachment.backbone.anatomy
    sums = {id(p): (p, p.detach().double().sum().item()) for p in model.parameters()}
    with ExitStack() as undo:
        undo.callback(attachment.remove)
        with _restorable(attachment, model), _contained():
            torch.manual_seed(seed)
            try:
                if make is None:
                    PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, {"default": config}, "default")
                else:
                    make()
            except PEFT_REFUSES as error:
                if shortage(error) is not None:
                    raise
                raise _unfit(config, anatomy, " ".join(str(error).split())[:300]) from error
        # New modules begin in training mode, where dropout and sampling are on, whatever the model's own mode is.
        model.train(model.training)
        _check(anatomy, config, model, sums)
        undo.pop_all()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            attachment.add(re.sub(r"\.default(?=\.|$)", "", name), parameter)


def count_injected(config: Any, anatomy: Anatomy) -> int:
    """Returns how many parameters a method of PEFT trains on the decoder's linear maps, without memory for any.

    Raises RequestError where PEFT builds the method from values, or on other modules.
    """
    skeleton = nn.Module()
    with torch.device("meta"):
        for one in anatomy.decoder_linears:
            parent: nn.Module = skeleton
            *path, leaf = one.name.split(".")
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(leaf, nn.Linear(one.inputs, one.outputs, bias=False))
        try:
            with _contained():
                PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](skeleton, {"default": config}, "default")
        except PEFT_REFUSES as error:
            raise RequestError(f"{config.peft_type.value} cannot be counted on its own: {error}") from error
    return sum(p.numel() for p in skeleton.parameters() if p.requires_grad)


@contextmanager
def _contained() -> Iterator[None]:
    """Inside, PEFT shows no warnings, and what it draws does not move the global random state, which is not ours."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _restorable(attachment: Attachment, model: nn.Module) -> Iterator[None]:
    """Has the attachment undo what is put into a model inside: modules that are replaced, attributes that are added."""
    before = dict(model.named_modules())
    attributes = {id(module): set(vars(module)) for module in before.values()}
    added: list[tuple[nn.Module, str]] = []

    def take_out() -> None:
        bank: Any = getattr(model, "prompt_bank", None)
        if bank is not None:
            bank.enable_adapters(False)
            del model.prompt_bank
        for name, module in before.items():
            parent, _, leaf = name.rpartition(".")
            if name and getattr(model.get_submodule(parent), leaf) is not module:
                setattr(model.get_submodule(parent), leaf, module)
        for module, extra in added:
            vars(module).pop(extra, None)

    attachment.undo_with(take_out)
    try:
        yield
    finally:
        # Only what the injection added: a model's first forward adds attributes too, and those stay.
        added += [(m, extra) for m in before.values() for extra in vars(m).keys() - attributes[id(m)]]


def _unfit(config: Any, anatomy: Anatomy, reason: str) -> RequestError:
    return RequestError(f"{config.peft_type.value} does not fit `{anatomy.family}`: {reason}")


def _check(anatomy: Anatomy, config: Any, model: nn.Module, sums: dict[int, tuple[nn.Parameter, float]]) -> None:
    """Raises RequestError where training would be void, UntrustedRecord where the base is no longer the base."""
    if any(p.detach().double().sum().item() != total for p, total in sums.values()):
        raise UntrustedRecord(
            f"{config.peft_type.value} changed the base's own weights, and nothing after it would be measured from the "
            "same base. Leave it out."
        )
    unread = tuple(f"{name}." for name in anatomy.vision_layers[anatomy.vision_used :])
    lost = [name for name, p in model.named_parameters() if p.requires_grad and name.startswith(unread)]
    if lost:
        raise _unfit(
            config, anatomy, f"`{lost[0]}` lies behind what is read of the vision tower and never reaches the loss"
        )
