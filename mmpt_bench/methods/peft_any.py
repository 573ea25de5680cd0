"""Any method of the installed PEFT as a baseline, from its own configuration: `--method peft:VERA`, or a JSON file.

The method is injected into the decoder's linear maps (or where its configuration says), trained, saved and taken out
like every other. What cannot be right on an image-text model is refused with the reason.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mmpt_bench.common.errors import RequestError, UntrustedRecord, unknown_name
from mmpt_bench.methods.method import Method

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.models.anatomy import Anatomy
    from mmpt_bench.engine.models.backbone import Backbone

REFUSED = {
    "PROMPT_TUNING": "PEFT's prompts lose the position ids of a padded batch: use `mmpt`, or `prefix`",
    "P_TUNING": "PEFT's prompts lose the position ids of a padded batch: use `mmpt`, or `prefix`",
    "MULTITASK_PROMPT_TUNING": "PEFT's prompts lose the position ids of a padded batch: use `mmpt`, or `prefix`",
    "CPT": "PEFT's prompts lose the position ids of a padded batch: use `mmpt`, or `prefix`",
    "PREFIX_TUNING": "PEFT's prefix fails without a cache and under gradient checkpointing: use `prefix`",
    "CARTRIDGE": "it is a stored cache of a text, and the pictures of a batch have none in common",
    "ADAPTION_PROMPT": "it is written for the class of a text model, and an image-text model wraps that",
    "LILY": "it mixes the rows of a batch, so that an answer depends on its neighbours",
    "ADALORA": "its ranks move by calls of its own during training, which a common budget does not make",
    "XLORA": "it mixes adapters that are trained already",
    "POLY": "it needs a task for each example",
    "OSF": "it changes the base's own weights",
    "TRAINABLE_TOKENS": "it trains embeddings of named tokens, of which a benchmark has none",
    "SHADOW": "it runs a second model beside the base",
    "MMPT": "it is a method here: `mmpt`",
    "VPT": "it is a method here: `vpt`",
    "KVPREFIX": "it is a method here: `prefix`",
}
"""Methods of PEFT that do not fit, and why."""
PEFT_REFUSES = (ValueError, NotImplementedError, TypeError, RuntimeError, KeyError)
"""What PEFT, which has no class of errors of its own, raises where a method, a configuration or a file does not fit.
Caught around its calls alone, and around `make`, which is a call of it."""
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga", "eva")
"""Ways to begin that take a part out of the base's weights, or need data of their own."""
DEFAULTS: dict[str, dict[str, tuple[str, ...]]] = {
    "IA3": {"target_modules": ("k_proj", "v_proj", "down_proj"), "feedforward_modules": ("down_proj",)},
    "LN_TUNING": {"target_modules": ("input_layernorm", "post_attention_layernorm")},
}
"""Targets of methods that are not for every linear map, as their papers have them."""


@dataclass(frozen=True)
class PeftMethod(Method):
    """One method of PEFT with one configuration; what a subclass adds is its name."""

    name: ClassVar[str] = "peft"
    color: ClassVar[str] = "#999999"
    lr_range: ClassVar[tuple[float, float]] = (1e-5, 1e-1)
    kind: ClassVar[str] = ""
    """PEFT's name of the method."""

    config: str = "{}"
    """Fields of PEFT's configuration that are not its defaults, as a JSON object."""
    train_projector: bool = True
    learning_rate: float = 1e-3
    """A starting value."""

    @classmethod
    def settable(cls) -> list[str]:
        """Returns what `--set` may name: our own fields, and those of PEFT's configuration."""
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        own = [f.name for f in dataclasses.fields(cls)]
        return own + [f.name for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[cls.kind])]  # type: ignore[index]

    @classmethod
    def folded(cls, overrides: Mapping[str, str]) -> dict[str, str]:
        """Returns overrides in which those of PEFT's fields stand in `config`, read as JSON, else as text.

        Raises:
            RequestError: a field of a number, or of a switch, is given something else.
        """
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        from mmpt_bench.common.values import coerced

        own = {f.name for f in dataclasses.fields(cls)}
        hints = typing.get_type_hints(PEFT_TYPE_TO_CONFIG_MAPPING[cls.kind])  # type: ignore[index]
        values = json.loads(overrides.get("config", cls.config))
        for name, text in overrides.items():
            if name not in own:
                if hints.get(name) in (int, float, bool):
                    values[name] = coerced(f"{name}={text}", hints[name], text)
                    continue
                try:
                    values[name] = json.loads(text)
                except ValueError:
                    values[name] = text
        plain = {name: text for name, text in overrides.items() if name in own}
        return plain | {"config": json.dumps(values, sort_keys=True)}

    def __post_init__(self) -> None:
        """Raises RequestError for a configuration that PEFT does not take."""
        self.peft_config()

    def peft_config(self) -> Any:
        """Returns PEFT's configuration object, without targets where none were given."""
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        fields = json.loads(self.config)
        try:
            return PEFT_TYPE_TO_CONFIG_MAPPING[self.kind](**fields)  # type: ignore[index]
        except (TypeError, ValueError) as error:
            raise RequestError(f"PEFT does not take this configuration of {self.kind}: {error}") from error

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Injects the method, its values drawn from `seed` alone."""
        from mmpt_bench.common.hashing import derive
        from mmpt_bench.engine.adapters.attachment import Attachment
        from mmpt_bench.engine.adapters.saved import plain_config

        model, anatomy = backbone.model, backbone.anatomy
        if hasattr(model, "peft_config"):
            raise RequestError("The backbone already carries an adapter of PEFT: remove it first.")
        attachment = Attachment(backbone)
        config = self._targeted(anatomy)
        inject(attachment, config, derive(seed, self.kind))
        if self.train_projector:
            attachment.open(anatomy.projector)
            config.modules_to_save = [anatomy.projector.rsplit(".", 1)[-1]]
        return attachment.handle(self, lambda: plain_config(config))

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters, found on the decoder's linear maps alone and without memory."""
        import torch
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
        from torch import nn

        skeleton, config = nn.Module(), self._targeted(anatomy)
        with torch.device("meta"):
            for one in anatomy.decoder_linears:
                parent: nn.Module = skeleton
                *path, leaf = one.name.split(".")
                for part in path:
                    if part not in dict(parent.named_children()):
                        parent.add_module(part, nn.Module())
                    parent = parent.get_submodule(part)
                parent.add_module(leaf, nn.Linear(one.inputs, one.outputs, bias=False))
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                try:
                    PEFT_TYPE_TO_TUNER_MAPPING[self.kind](skeleton, {"default": config}, "default")  # type: ignore[index]
                except PEFT_REFUSES as error:
                    raise RequestError(f"{self.kind} cannot be counted on its own: {error}") from error
        own = sum(p.numel() for p in skeleton.parameters() if p.requires_grad)
        return own + (anatomy.projector_parameters if self.train_projector else 0)

    def _targeted(self, anatomy: Anatomy) -> Any:
        """Returns the configuration, with targets in the decoder where it names none: PEFT has no defaults."""
        config = self.peft_config()
        if config.target_modules == "all-linear":
            raise RequestError(
                "`target_modules: all-linear` would also take the vision tower and the projector: leave it out for "
                "every linear map of the language model."
            )
        if config.target_modules is None:
            chosen = DEFAULTS.get(self.kind, {"target_modules": LINEARS})
            for field, leaves in chosen.items():
                setattr(config, field, rf"{re.escape(anatomy.decoder)}\..*\.({'|'.join(leaves)})")
        changes = [
            f"{name}: {value}"
            for name, value in vars(config).items()
            if name.startswith("init_") and isinstance(value, str) and value.lower().startswith(CHANGING)
        ]
        if changes:
            raise RequestError(f"`{changes[0]}` changes the base's own weights, and so what every method starts from.")
        # Matrices that follow from a seed are drawn again, and not saved.
        if hasattr(config, "save_projection"):
            config.save_projection = False
        return config


def inject(attachment: Any, config: Any, seed: int, make: Callable[[], None] | None = None) -> None:
    """Puts a method of PEFT into the attachment's model and opens what it trains; `make` puts it in in another way.

    Raises:
        RequestError: it finds no target, or trains what never reaches the loss.
        UntrustedRecord: it changed the base's weights.
    """
    import torch
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    model, anatomy = attachment.backbone.model, attachment.backbone.anatomy
    before = {name: module for name, module in model.named_modules()}
    sums = {id(p): (p, p.detach().double().sum().item()) for p in model.parameters()}
    attributes = {id(module): set(vars(module)) for module in before.values()}
    added: list[tuple[Any, str]] = []

    def take_out() -> None:
        bank = getattr(model, "prompt_bank", None)
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
    with ExitStack() as undo:
        undo.callback(attachment.remove)
        # PEFT draws its own values from the global generator, whose state is not ours to move.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            try:
                if make is None:
                    PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, {"default": config}, "default")
                else:
                    make()
            except torch.OutOfMemoryError:
                raise
            except PEFT_REFUSES as error:
                raise _unfit(config, anatomy, " ".join(str(error).split())[:300]) from error
        # New modules begin in training mode, where dropout and sampling are on, whatever the model's own mode is.
        model.train(model.training)
        # Only what the injection added: a model's first forward adds attributes too, and those stay.
        added += [(m, extra) for m in before.values() for extra in vars(m).keys() - attributes[id(m)]]
        _check(anatomy, config, model, sums)
        undo.pop_all()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            attachment.add(re.sub(r"\.default(?=\.|$)", "", name), parameter)


def _unfit(config: Any, anatomy: Anatomy, reason: str) -> RequestError:
    return RequestError(f"{config.peft_type.value} does not fit `{anatomy.family}`: {reason}")


def _check(anatomy: Anatomy, config: Any, model: Any, sums: dict[int, tuple[Any, float]]) -> None:
    """Raises RequestError where training would be void, UntrustedRecord where the base is no longer the base."""
    if any(p.detach().double().sum().item() != total for p, total in sums.values()):
        raise UntrustedRecord(
            f"{config.peft_type.value} changed the base's own weights, and nothing after it would be measured from the "
            "same base. Leave it out."
        )
    unread = tuple(f"{name}." for name in anatomy.vision_layers[anatomy.vision_used :])
    lost = (
        [name for name, p in model.named_parameters() if p.requires_grad and name.startswith(unread)] if unread else []
    )
    if lost:
        raise _unfit(
            config, anatomy, f"`{lost[0]}` lies behind what is read of the vision tower and never reaches the loss"
        )


def method_class(name: str, kind: str, fields: dict[str, Any]) -> type[PeftMethod]:
    """Returns a method as an adapter class, with `fields` as the configuration's defaults.

    Args:
        name: what `--method` and the board call it.
        kind: PEFT's name, in any case.
        fields: of PEFT's configuration.

    Raises:
        RequestError: PEFT has no such method, or one that does not fit image-text models.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {str(one.value): one for one in PEFT_TYPE_TO_CONFIG_MAPPING}
    if kind.upper() not in kinds:
        raise unknown_name("method of PEFT", kind.upper(), kinds)
    if kind.upper() in REFUSED:
        raise RequestError(f"`{name}`: {kind.upper()} of PEFT is not run here: {REFUSED[kind.upper()]}.")
    text = json.dumps(fields, sort_keys=True)
    made = dataclasses.make_dataclass(
        "PeftMethod", [("config", str, dataclasses.field(default=text))], bases=(PeftMethod,), frozen=True
    )
    made.name, made.kind, made.__module__ = name, kinds[kind.upper()].value, __name__  # type: ignore[attr-defined]
    return made


def from_file(path: Any) -> tuple[str, dict[str, Any]]:
    """Returns (PEFT's name of the method, the fields that say how) of an adapter_config.json.

    Raises:
        RequestError: the file is no configuration of PEFT.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"`{path}` is no configuration of PEFT: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("peft_type"), str):
        raise RequestError(f"`{path}` is no configuration of PEFT: it has no `peft_type`.")
    # Where it was trained and what with is not how.
    left = {"peft_type", "base_model_name_or_path", "auto_mapping", "peft_version", "inference_mode", "revision",
            "task_type", "modules_to_save"}  # fmt: skip
    return values["peft_type"], {key: value for key, value in values.items() if key not in left and value is not None}
