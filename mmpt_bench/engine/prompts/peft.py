"""MMPT, VPT and the key-value prefix as methods of PEFT: `get_peft_model(model, MMPTConfig(...))` and all that follows.

The prompts are the engine's (bank.py); here they are stored as PEFT stores parameters, one entry an adapter, and the
hooks on the model are those of the active adapter alone: an inactive or disabled adapter leaves the base as it is, bit
for bit. A run's adapter folder and one that `save_pretrained` writes have the same names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, set_additional_trainable_modules
from peft.utils.peft_types import PeftType, register_peft_method
from torch import nn

from mmpt_bench.engine.adapters.saved import plain_config, saved_whole
from mmpt_bench.engine.models.anatomy import Anatomy, find_anatomy
from mmpt_bench.engine.prompts.bank import PromptBank
from mmpt_bench.engine.prompts.hooks import check_plan, register_hooks
from mmpt_bench.engine.prompts.plan import PromptPlan, plan_of
from mmpt_bench.records.keys import earlier_params


def peft_config(kind: str, fields: Mapping[str, Any], modules_to_save: Sequence[str]) -> dict[str, Any]:
    """Returns the adapter_config.json of a prompt method, as PEFT reads it.

    Args:
        kind: name of the configuration's class in this file.
        fields: the method's hyperparameters; those that the configuration has are taken.
        modules_to_save: names of what is trained whole.
    """
    made: Any = globals()[kind]
    taken = {field.name: fields[field.name] for field in dataclasses.fields(made) if field.name in fields}
    saved = saved_whole(*modules_to_save) or None
    return plain_config(made(**taken, modules_to_save=saved, inference_mode=True))


PARAMETERS = ("mmpt_visual", "mmpt_text", "mmpt_key", "mmpt_value")


@dataclass
class PromptConfig(PeftConfig):
    """What the three methods share; a subclass has the fields of the method that it is named after."""

    train_projector: bool = field(default=True, metadata={"help": "Train the projector from image to text too."})
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules to train and save whole; None: the projector, if it is trained."}
    )
    init_seed: int = field(default=0, metadata={"help": "Seed that the prompts are drawn from, and nothing else."})
    init: str = field(default="xavier", metadata={"help": "What prompts start as: `xavier` or `normal`."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Not used: prompts go to every block that is read."}
    )

    def __post_init__(self) -> None:
        """Names the method."""
        super().__post_init__()
        self.peft_type = PeftType[type(self).__name__.removesuffix("Config").upper()]


@dataclass
class MMPTConfig(PromptConfig):
    """Multimodal prompt tuning (arXiv:2409.15657)."""

    visual_length: int = field(default=20, metadata={"help": "Prompts in each vision block that is read."})
    text_length: int = field(default=10, metadata={"help": "Prompts in each decoder layer."})
    interaction: bool = field(default=True, metadata={"help": "Visual prompts enter the language model as tokens."})
    interaction_place: str | None = field(
        default=None,
        metadata={"help": "Where these stand: `image` (before the image tokens) or `front`. None: `image`."},
    )
    visual_deep: bool = field(default=True, metadata={"help": "A new set before every vision block."})
    text_deep: bool = field(default=True, metadata={"help": "A new set before every decoder layer."})
    visual_states: str = field(
        default="output", metadata={"help": "`output` or `parameters` enter the language model."}
    )
    init: str = field(
        default="xavier",
        metadata={"help": "`xavier`, `normal`, or `words`: textual prompts start as words' embeddings."},
    )
    placement: str = field(
        default="text-first", metadata={"help": "Order in front of the sequence: `text-first` or `visual-first`."}
    )

    def __post_init__(self) -> None:
        """Completes the configuration of an earlier version's file: it names its type, one in code does not."""
        if self.interaction_place is None:
            earlier = earlier_params("mmpt", {"interaction": self.interaction}) if self.peft_type is not None else {}
            self.interaction_place = earlier.get("interaction_place", "image")
        super().__post_init__()


@dataclass
class VPTConfig(PromptConfig):
    """Visual prompt tuning (arXiv:2203.12119)."""

    visual_length: int = field(default=20, metadata={"help": "Prompts in each vision block that is read."})
    visual_deep: bool = field(default=True, metadata={"help": "A new set before every vision block."})


@dataclass
class KVPrefixConfig(PromptConfig):
    """Trained keys and values in every decoder layer (arXiv:2101.00190), rotated to their places by the model."""

    length: int = field(default=10, metadata={"help": "Keys and values a layer."})


class PromptLayer(nn.Module, BaseTunerLayer):
    """Owns the prompts of all adapters on a model, and hooks those of the active one in."""

    adapter_layer_names = PARAMETERS
    other_param_names = ()

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Owns nothing yet."""
        super().__init__()
        # In a tuple, because a module that holds its owner as a child has no end.
        self.owner = (model,)
        self.anatomy = anatomy
        self.plans: dict[str, PromptPlan] = {}
        self.hooks: list[Any] = []
        for name in PARAMETERS:
            self.add_module(name, nn.ParameterDict())

    def update_layer(self, adapter_name: str, plan: PromptPlan, seed: int) -> None:
        """Adds an adapter, its values drawn from `seed` alone."""
        device = self._device()
        self.plans[adapter_name] = plan
        words = self.owner[0].get_input_embeddings().weight  # type: ignore[operator]
        for name, parameter in PromptBank(self.anatomy, plan, seed, words).named_parameters():
            self.get_submodule(name)[adapter_name] = nn.Parameter(parameter.detach().to(device))  # type: ignore[operator]

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Makes one adapter the active one; raises ValueError for several, whose prompts would have no order."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if len([name for name in names if name in self.plans]) > 1:
            raise ValueError(f"prompts of one adapter at a time can be active, not of {', '.join(names)}")
        super().set_adapter(names, inference_mode)
        self.rehook()

    def enable_adapters(self, enabled: bool) -> None:
        """Switches the prompts on or off."""
        super().enable_adapters(enabled)
        self.rehook()

    def delete_adapter(self, adapter_name: str) -> None:
        """Forgets an adapter."""
        self.plans.pop(adapter_name, None)
        super().delete_adapter(adapter_name)
        self.rehook()

    def rehook(self) -> None:
        """Puts the hooks of the active adapter on the model, and no others."""
        while self.hooks:
            self.hooks.pop().remove()
        active = [name for name in self.active_adapters if name in self.plans]
        if active and not self.disable_adapters:
            self.hooks = register_hooks(self.owner[0], self.anatomy, _View(self, active[0]))

    def _device(self) -> torch.device:
        return next(self.owner[0].get_submodule(self.anatomy.decoder).parameters()).device

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: Any = None) -> None:
        for name in PARAMETERS:
            held: Any = self.get_submodule(name)
            if adapter_name in held and held[adapter_name].device != torch.device("meta"):
                held[adapter_name].data = held[adapter_name].data.to(device or self._device())


class _View(PromptBank):
    """One adapter's prompts as the engine reads them; the parameters stay the layer's, whatever is loaded into it."""

    def __init__(self, layer: PromptLayer, adapter_name: str) -> None:
        nn.Module.__init__(self)
        self.plan, self.anatomy = layer.plans[adapter_name], layer.anatomy
        self.source = (layer, adapter_name)

    def get_parameter(self, target: str) -> nn.Parameter:
        """Returns the adapter's parameter of that name."""
        layer, adapter_name = self.source
        return getattr(layer, target)[adapter_name]


class PromptTuner(BaseTuner):
    """Puts prompts on an image-text model; nothing in the model is replaced, and nothing can be merged."""

    tuner_layer_cls = PromptLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012

    def inject_adapter(self, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adds an adapter's prompts to the model; raises RequestError where they do not fit it."""
        config: Any = self.peft_config[adapter_name]
        plan, layer = plan_of(config), getattr(model, "prompt_bank", None)
        if layer is None:
            anatomy = find_anatomy(model)
            check_plan(model, anatomy, plan)
            layer = model.prompt_bank = PromptLayer(model, anatomy)
        elif isinstance(layer, PromptLayer):
            check_plan(model, layer.anatomy, plan, occupied=True)
        else:
            raise ValueError("the model already carries prompts of mmpt-bench: remove them first")
        if config.modules_to_save is None and config.train_projector:
            config.modules_to_save = saved_whole(layer.anatomy.projector)
        layer.update_layer(adapter_name, plan, config.init_seed)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        self._mark_only_adapters_as_trainable(model)
        set_additional_trainable_modules(
            model=model,
            peft_config=config,
            model_config=BaseTuner.get_model_config(self),
            adapter_name=adapter_name,
            activate_adapter=adapter_name in self.active_adapters,
        )

    def unload(self) -> Any:
        """Returns the base without any prompts."""
        model: Any = self.model
        model.prompt_bank.enable_adapters(False)
        del model.prompt_bank
        # PEFT's own way asks a wrapped module for a `weight`, which a projector of several layers has not.
        for name, module in list(model.named_modules()):
            if isinstance(module, ModulesToSaveWrapper):
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, module.original_module)
        del model.peft_config
        return model

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> Any:
        """Raises ValueError: rows of a sequence are no weights."""
        raise ValueError("prompts cannot be merged into weights; `unload()` gives the base back")

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError: rows of a sequence are no weights."""
        raise ValueError("prompts cannot be merged into weights")

    def _create_and_replace(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("prompts replace no module")


class MMPTModel(PromptTuner):
    """A model with multimodal prompts."""

    prefix = "mmpt_"


class VPTModel(PromptTuner):
    """A model with visual prompts."""

    prefix = "mmpt_"


class KVPrefixModel(PromptTuner):
    """A model with trained keys and values."""

    prefix = "mmpt_"


def _add_member(name: str) -> None:
    """Adds a member to PEFT's enumeration of methods, which `register_peft_method` insists on."""
    member: Any = str.__new__(PeftType, name)
    member._name_, member._value_, member._sort_order_ = name, name, len(PeftType.__members__)
    member.__objclass__ = PeftType
    type.__setattr__(PeftType, name, member)
    PeftType._member_map_[name] = member
    PeftType._member_names_.append(name)
    PeftType._value2member_map_[name] = member


for _config, _model in ((MMPTConfig, MMPTModel), (VPTConfig, VPTModel), (KVPrefixConfig, KVPrefixModel)):
    _name = _config.__name__.removesuffix("Config")
    if _name.upper() not in PeftType.__members__:
        _add_member(_name.upper())
        register_peft_method(name=_name.lower(), config_cls=_config, model_cls=_model, prefix=_model.prefix)
