"""Any method of the installed PEFT as a baseline, from its own configuration: `--method peft:VERA`, or a JSON file.

The method is injected into the decoder's linear maps (or where its configuration says), trained, saved and taken out
like every other. What cannot be right on an image-text model is refused with the reason.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.hashing import derive
from mmpt_bench.common.values import coerced
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.adapters.saved import check_config
from mmpt_bench.engine.models.anatomy import ATTENTION, MLP, Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.methods.method import Method

REFUSED = {
    **dict.fromkeys(
        ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT"),
        "PEFT's prompts lose the position ids of a padded batch: use `mmpt`, or `prefix`",
    ),
    "PREFIX_TUNING": "PEFT's prefix fails without a cache and under gradient checkpointing: use `prefix`",
    "CARTRIDGE": "it is a stored cache of a text, and the images of a batch have none in common",
    "ADAPTION_PROMPT": "it is written for the class of a text model, and an image-text model wraps that",
    "LILY": "it mixes the rows of a batch, so that an answer depends on its neighbours",
    "ADALORA": "its ranks move by calls of its own during training, which a common budget does not make",
    "XLORA": "PEFT's code of it takes no cache of keys and values, and reads the whole sequence twice: use `moe_lora`",
    "TRAINABLE_TOKENS": "it trains embeddings of named tokens, of which a benchmark has none",
    "SHADOW": "it runs a second model beside the base",
    "MMPT": "it is a method here: `mmpt`",
    "VPT": "it is a method here: `vpt`",
    "KVPREFIX": "it is a method here: `prefix`",
}
"""Methods of PEFT that do not fit, and why."""
LINEARS = ATTENTION + MLP
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
    def _config_class(cls) -> Any:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        return PEFT_TYPE_TO_CONFIG_MAPPING[cls.kind]  # type: ignore[index]

    @classmethod
    def settable(cls) -> list[str]:
        """Returns what `--set` may name: our own fields, and those of PEFT's configuration."""
        return [field.name for made in (cls, cls._config_class()) for field in dataclasses.fields(made)]

    @classmethod
    def folded(cls, overrides: Mapping[str, str]) -> dict[str, str]:
        """Returns overrides in which those of PEFT's fields stand in `config`, read as JSON, else as text."""
        own = {field.name for field in dataclasses.fields(cls)}
        hints = typing.get_type_hints(cls._config_class())
        plain = {name: text for name, text in overrides.items() if name in own}
        values = json.loads(plain.get("config", cls.config))
        for name, text in overrides.items():
            if name in own:
                continue
            if hints.get(name) in (int, float, bool):
                values[name] = coerced(f"{name}={text}", hints[name], text)
                continue
            try:
                values[name] = json.loads(text)
            except ValueError:
                values[name] = text
        return plain | {"config": json.dumps(values, sort_keys=True)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Returns the hyperparameters that PEFT has by default, also where a file says others."""
        return super().defaults() | {"config": PeftMethod.config}

    def __post_init__(self) -> None:
        """Raises RequestError for a configuration that PEFT does not take."""
        self.peft_config()

    def peft_config(self) -> Any:
        """Returns PEFT's configuration object, without targets where none were given."""
        fields = json.loads(self.config)
        check_config(fields)
        if fields.get("n_tasks", 1) != 1:
            raise RequestError(f"`n_tasks` of {self.kind} is 1 here: nothing says of which task an example is.")
        try:
            return self._config_class()(**fields)
        except (TypeError, ValueError) as error:
            raise RequestError(f"PEFT does not take this configuration of {self.kind}: {error}") from error

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Injects the method, its values drawn from `seed` alone."""
        from mmpt_bench.engine.adapters.injection import attach_peft

        return attach_peft(self, backbone, self._targeted(backbone.anatomy), derive(seed, self.kind))

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of trainable parameters, found on the decoder's linear maps alone and without memory."""
        from mmpt_bench.engine.adapters.injection import count_injected

        return count_injected(self._targeted(anatomy), anatomy) + self.projector_count(anatomy)

    def _targeted(self, anatomy: Anatomy) -> Any:
        """Returns the configuration, with targets in the decoder where it names none: PEFT has no defaults."""
        config = self.peft_config()
        if config.target_modules == "all-linear":
            raise RequestError(
                "`target_modules: all-linear` would also take the vision tower and the projector: leave it out for "
                "every linear map of the language model."
            )
        if config.target_modules is None:
            for field, leaves in DEFAULTS.get(self.kind, {"target_modules": LINEARS}).items():
                setattr(config, field, anatomy.in_decoder(leaves))
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


def method_class(name: str, kind: str, fields: dict[str, Any]) -> type[PeftMethod]:
    """Returns a method of PEFT as a class, with `fields` as the configuration's defaults.

    `name` is what `--method` and the board call it, `kind` PEFT's name in any case. Raises RequestError where PEFT has
    no such method, or one that does not fit image-text models.
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
    """Returns (PEFT's name of the method, the fields that say how) of an adapter_config.json."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(f"`{path}` is no configuration of PEFT: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("peft_type"), str):
        raise RequestError(f"`{path}` is no configuration of PEFT: it has no `peft_type`.")
    # Where it was trained and what with is not how.
    left = {"peft_type", "base_model_name_or_path", "auto_mapping", "peft_version", "inference_mode", "revision",
            "task_type", "modules_to_save"}  # fmt: skip
    return values["peft_type"], {key: value for key, value in values.items() if key not in left and value is not None}
