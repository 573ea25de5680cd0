"""A method of PEFT in a backbone: put in at one seed, checked, opened, counted without weights, and taken out again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.poly.layer import PolyLayer
from peft.tuners.tuners_utils import cast_adapter_dtype
from torch import nn

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.adapters.saved import plain_config, saved_whole
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.quantized import held
from mmpt_bench.engine.training.memory import shortage

PEFT_REFUSES = (
    *(ValueError, NotImplementedError, TypeError, RuntimeError, LookupError),
    *(AttributeError, ArithmeticError, AssertionError, ImportError, re.error),
)
"""What PEFT, which has no class of errors of its own, raises where a method, a configuration or a file does not fit.
Caught around its calls alone."""


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


def inject(attachment: Attachment, config: Any, seed: int) -> None:
    """Puts a method of PEFT into the attachment's model and opens what it trains.

    Raises:
        RequestError: it finds no target, or trains what never reaches the loss.
        UntrustedRecord: it changed the base's weights.
    """
    with putting_in(attachment, config) as model:
        torch.manual_seed(seed)
        PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, {"default": config}, "default")
        _check_reached(attachment.backbone.anatomy, config, model)
    add_trainable(attachment)


def add_trainable(attachment: Attachment) -> None:
    """Makes what PEFT opened in the model the attachment's, under names without PEFT's name of the adapter."""
    for name, parameter in attachment.backbone.model.named_parameters():
        if parameter.requires_grad:
            attachment.add(re.sub(r"\.default(?=\.|$)", "", name), parameter)


@contextmanager
def putting_in(attachment: Attachment, config: Any, kept: Collection[int] = ()) -> Iterator[Any]:
    """Yields the model for calls of PEFT that put something into it; what goes wrong inside undoes the attachment.

    Args:
        attachment: learns how to undo what is done inside.
        config: of PEFT.
        kept: addresses of weights of the base that may change, because they are restored; read at the end.

    Raises:
        RequestError: PEFT refuses.
        UntrustedRecord: another weight of the base changed.
    """
    model = attachment.backbone.model
    sums = [(p, held(p).data_ptr(), held(p).double().sum().item()) for p in model.parameters()]
    with ExitStack() as undo:
        undo.callback(attachment.remove)
        with _restorable(attachment, model), _contained():
            try:
                yield model
                _give_task(config, model)
            except PEFT_REFUSES as error:
                if shortage(error) is not None:
                    raise
                raise unfit(config, attachment.backbone.anatomy, _said(error)) from error
        # What is trained is float32 in half precision too, as `get_peft_model` makes it.
        cast_adapter_dtype(model, "default")
        # New modules begin in training mode, where dropout and sampling are on, whatever the model's own mode is.
        model.train(model.training)
        if any(at not in kept and held(p).double().sum().item() != total for p, at, total in sums):
            raise UntrustedRecord(
                f"{config.peft_type.value} changed the base's own weights, and nothing after it would be measured from "
                "the same base. Leave it out."
            )
        undo.pop_all()


def _give_task(config: Any, model: nn.Module) -> None:
    """Has layers that mix by an example's task (Poly) take every example for one of the only task.

    Raises:
        ValueError: the method knows several tasks; data here does not say of which an example is.
    """
    if getattr(config, "n_tasks", 1) != 1:
        raise ValueError("its `n_tasks` is not 1, and nothing says of which task an example is.")

    def named(computed: Callable[..., Any], rows: torch.Tensor) -> Any:
        return computed(rows, task_ids=torch.zeros(len(rows), dtype=torch.long))

    for module in model.modules():
        if isinstance(module, PolyLayer) and isinstance(module, nn.Module):
            module.forward = partial(named, module.forward)


def _said(error: Exception) -> str:
    """Returns what PEFT says of a fault, in one line."""
    # A key of a file that has no such tensor is all that some faults say.
    text = f"there is no `{error.args[0]}`" if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())[:200]


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
    """Has the attachment undo what is put into a model inside: modules, parameters, attributes, hooks.

    Parameters get back the memory that they had; what was written into that memory is for others to undo.
    """
    before = dict(model.named_modules())
    keys = {id(module): {kind: set(held) for kind, held in _held(module)} for module in before.values()}
    parameters = [(module, dict(module._parameters)) for module in before.values()]
    memory = [(parameter, parameter.data) for parameter in model.parameters()]
    added: list[tuple[dict[Any, Any], Any]] = []

    def take_out() -> None:
        bank: Any = getattr(model, "prompt_bank", None)
        if bank is not None:
            bank.enable_adapters(False)
            del model.prompt_bank
        for name, module in before.items():
            parent, _, leaf = name.rpartition(".")
            if name and getattr(model.get_submodule(parent), leaf) is not module:
                setattr(model.get_submodule(parent), leaf, module)
        for known, extra in added:
            known.pop(extra, None)
        for parameter, data in memory:
            parameter.data = data
        for module, known in parameters:
            # In their order too, in which a state of the model lists them.
            module._parameters.clear()
            module._parameters.update(known)

    attachment.undo_with(take_out)
    try:
        yield
    finally:
        # Only what the injection added: a model's first forward adds attributes too, and those stay.
        added += [
            (held, k) for m in before.values() for kind, held in _held(m) for k in held.keys() - keys[id(m)][kind]
        ]


def _held(module: nn.Module) -> list[tuple[str, dict[Any, Any]]]:
    """Returns what a module holds beside modules and parameters, by kind: attributes, buffers, hooks."""
    own: dict[str, Any] = vars(module)
    kinds = ("_buffers", "_forward_hooks", "_forward_pre_hooks")
    return [("", own), *((kind, own[kind]) for kind in kinds)]


def unfit(config: Any, anatomy: Anatomy, reason: str) -> RequestError:
    """Returns the error for a method of PEFT that does not fit a model."""
    return RequestError(f"{config.peft_type.value} does not fit `{anatomy.family}`: {reason}")


def unread(anatomy: Anatomy, names: Iterable[str]) -> list[str]:
    """Returns those names of parameters that lie in vision blocks whose output nothing reads."""
    blocks = tuple(f"{name}." for name in anatomy.vision_layers[anatomy.vision_used :])
    return [name for name in names if name.startswith(blocks)]


def _check_reached(anatomy: Anatomy, config: Any, model: nn.Module) -> None:
    """Raises RequestError where training would be void."""
    lost = unread(anatomy, [name for name, p in model.named_parameters() if p.requires_grad])
    if lost:
        reason = f"`{lost[0]}` lies after what is read of the vision tower and never reaches the loss"
        raise unfit(config, anatomy, reason)
