"""An adapter that was trained elsewhere, as a method that does not train: `mmpt-bench run --adapter DIR_OR_HUB_ID`."""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.attachment import Handle
from mmpt_bench.engine.adapters.saved import public_name, read_adapter
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.methods.adapter_folder import AdapterFolder, find_adapter
from mmpt_bench.methods.method import Method
from mmpt_bench.methods.method_catalog import method_of, named_method
from mmpt_bench.methods.peft_any import REFUSED
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.keys import UNKNOWN, earlier_params, hashed_params
from mmpt_bench.sources.weights import loading_of

EVALUATED = frozenset({"ADALORA", "TRAINABLE_TOKENS", "MMPT", "VPT", "KVPREFIX"})
"""Methods of PEFT that are not trained by their name, and whose trained adapters answer as PEFT's do."""


def adapter_entry(name: str, offline: bool, other_base: bool = False) -> Entry:
    """Returns the registry's entry of a trained adapter, fetched where it is one of the hub.

    Args:
        name: a folder, or `owner/name[@revision]`.
        offline: opens no socket.
        other_base: it may have been trained on another base model; its scores say so.

    Raises as `adapter_folder.find_adapter` does.
    """
    found = find_adapter(name, offline)
    path = found.path.resolve()
    # A run's own folder is called `adapter`, and the run is what tells it from others.
    named = name if found.path != Path(name) else path.parent.name if path.name == "adapter" else path.name
    entry_name = f"adapter-{re.sub(r'[^a-z0-9_-]+', '-', named.lower())}"
    make = functools.partial(method_class, entry_name, found, other_base)
    return Entry(entry_name, found.path, f"the adapter `{name}`, trained elsewhere", make=make)


@dataclass(frozen=True)
class TrainedAdapter(Method):
    """A trained adapter; nothing of it is trained further."""

    name: ClassVar[str] = "adapter"
    color: ClassVar[str] = "#666666"
    lr_range: ClassVar[tuple[float, float]] = (0.0, 0.0)
    found: ClassVar[AdapterFolder]
    other_base: ClassVar[bool] = False

    sha256: str = ""
    """Of its configuration and its weights."""
    learning_rate: float = 0.0
    train_projector: bool = False

    @classmethod
    def settable(cls) -> list[str]:
        """Returns nothing: an adapter has no hyperparameters left to set."""
        return []

    def trained_under(self, corpus: str, fingerprint: str, budget: Budget, dtype: str) -> tuple[str, str, Budget]:
        """Returns its own training data and budget, or `UNKNOWN`, whatever the others of the request are given."""
        recipe = self.found.recipe
        if recipe is None or recipe.dtype != dtype:
            return UNKNOWN, UNKNOWN, Budget()
        return recipe.corpus, recipe.corpus_fingerprint, recipe.budget

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts the adapter on the backbone with its trained values, wholly.

        Raises:
            RequestError: it does not fit, or was trained on another base and `other_base` is not set.
            UntrustedRecord: a file of it is damaged.
        """
        self.found.check_unchanged()
        attached = self._ours(backbone) if self.found.header else self._foreign(backbone)
        for parameter in attached.trainable.values():
            parameter.requires_grad_(False)
        attached.notes = (*self.found.notes, *attached.notes)
        attached.given, attached.trainable = attached.size, {}
        return attached

    def _ours(self, backbone: Backbone) -> Handle:
        """Returns the handle of an adapter that mmpt-bench trained."""
        import torch

        from mmpt_bench.engine.adapters.loading import prove_effect
        from mmpt_bench.engine.adapters.trial import logits_of

        header, folder = self.found.header, self.found.path
        state = read_adapter(folder, None if self.other_base else backbone)
        name, params = header["method"], header["params"]
        texts = {field: str(value) for field, value in (params | earlier_params(name, params)).items()}
        method = method_of(named_method(name), texts)
        if hashed_params(name, dataclasses.asdict(method)) != hashed_params(name, params):
            raise RequestError(f"The adapter in `{folder.name}` names hyperparameters that `{method.name}` has not.")
        plain = logits_of(backbone)
        handle: Handle = method.attach(backbone, 0)
        before = handle.state()
        try:
            handle.load(state)
            broken = sorted(name for name, value in state.items() if not torch.isfinite(value).all())
            if broken:
                raise ValueError(f"`{broken[0]}` holds values that are not finite")
        except ValueError as error:
            handle.remove()
            raise RequestError(f"The adapter in `{folder.name}` does not fit: {error}.") from error
        if header["backbone_fingerprint"] != backbone.fingerprint:
            handle.notes = (f"it was trained on another base, `{_public(header['backbone'])}`",)
        prove_effect(handle, backbone, plain, {name: (before[name], value) for name, value in handle.state().items()})
        return handle

    def _foreign(self, backbone: Backbone) -> Handle:
        """Returns the handle of an adapter that PEFT saved."""
        from peft import PeftConfig

        import mmpt_bench.engine.prompts.peft  # noqa: F401  makes PEFT know our methods
        from mmpt_bench.engine.adapters.injection import PEFT_REFUSES
        from mmpt_bench.engine.adapters.loading import attach_saved

        name, notes = self.found.path.name, self._other_base(backbone)
        try:
            # As `from_pretrained` makes it, which takes a byte-order mark for damage.
            config: Any = PeftConfig.from_peft_type(**PeftConfig.check_kwargs(**self.found.config))
        except PEFT_REFUSES as error:
            said = " ".join(str(error).split())[:200]
            raise RequestError(f"The installed PEFT does not read the configuration of `{name}`: {said}") from error
        kind = config.peft_type.value
        if config.is_prompt_learning or config.is_adaption_prompt or kind in REFUSED.keys() - EVALUATED:
            why = REFUSED.get(kind, "its prompts are wrong on image-text models with padded batches")
            raise RequestError(f"`{name}` holds {kind} of PEFT, which is not evaluated here: {why}.")
        handle = attach_saved(self, backbone, self.found.path, config)
        handle.notes = (*notes, *handle.notes)
        return handle

    def _other_base(self, backbone: Backbone) -> list[str]:
        """Returns what is said of another base; raises RequestError for one of another class, unless it may be."""
        config, own = self.found.config, type(backbone.model).__name__
        mapping, named = config.get("auto_mapping"), str(config.get("base_model_name_or_path") or "")
        kind = str(mapping.get("base_model_class") or own) if isinstance(mapping, dict) else own
        of_class = "" if kind == own else f" of class `{kind[:100]}`"
        if of_class and not self.other_base:
            raise RequestError(
                f"The adapter `{self.found.path.name}` was trained on `{_public(named)}`{of_class}, and "
                f"`{public_name(backbone.name)}` is a `{own}`. `--other-base` evaluates it all the same, and says so."
            )
        if not named:
            return [f"its configuration names no base{of_class}"]
        known = {_leaf(loading_of(backbone.name)[0]), _leaf(str(getattr(backbone.model, "name_or_path", "")))}
        if of_class or _leaf(named) not in known:
            return [f"its configuration names another base, `{_public(named)}`{of_class}"]
        return []

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of values in its file."""
        return sum(tensor.numel() for tensor in read_adapter(self.found.path).values())


def _leaf(name: str) -> str:
    """Returns a model's name without owner, folders and revision."""
    return name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].partition("@")[0].lower()


def _public(name: str) -> str:
    """Returns a model's name without the folders above it, which are nobody else's business; at most 100 characters."""
    is_path = name.startswith(("/", "~", ".")) or "\\" in name or name.count("/") > 1
    return (_leaf(name) if is_path else name)[:100]


def method_class(name: str, found: AdapterFolder, other_base: bool) -> type[TrainedAdapter]:
    """Returns the class of an entry from `adapter_entry`."""
    made: Any = dataclass(frozen=True)(
        type("Loaded", (TrainedAdapter,), {"__annotations__": {"sha256": "str"}, "sha256": found.sha256})
    )
    made.name, made.found, made.other_base = name, found, other_base
    return made
