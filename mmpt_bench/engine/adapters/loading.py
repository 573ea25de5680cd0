"""An adapter that PEFT saved, put into a model wholly or not at all.

PEFT itself loads what fits, and goes on with a warning where tensors are left over or missing. Here its own loading is
watched at its last step, where the names are those of the model: every tensor of the file must have a place, and every
place a tensor, of one shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.adapters.injection import add_trainable, putting_in, unfit, unread
from mmpt_bench.engine.adapters.saved import opened_adapter
from mmpt_bench.engine.adapters.trial import logits_of
from mmpt_bench.engine.models.backbone import Backbone

_PREFIX, _NAME = "base_model.model.", "default"
IDLE = "its values change nothing: every answer is the base's"


def attach_saved(method: Any, backbone: Backbone, folder: Path, config: Any) -> Handle:
    """Returns the handle of an adapter in PEFT's form, with the values of its file.

    Args:
        method: what the handle is of.
        backbone: its model carries no adapter.
        folder: holds adapter_model.safetensors.
        config: of PEFT, read from the folder.

    Raises:
        RequestError: PEFT refuses it; a tensor has no place, a place no tensor, or one of another shape; or it changes
            no answer although its values say that it should.
        UntrustedRecord: the file is damaged, or the base's own weights changed where they must not.
    """
    from peft import PeftModel, set_peft_model_state_dict

    values = _values(folder)
    plain, attachment = logits_of(backbone), Attachment(backbone)
    base = {value.data_ptr() for value in backbone.model.state_dict().values()}
    kept: set[int] = set()
    notes: list[str] = []
    loaded_from: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(values: Any) -> None:
        for value in values:
            attachment.undo_with(value.copy_, value.clone())
            kept.add(value.data_ptr())

    # Some ways to begin (PiSSA, OLoRA) take a part out of the base's weights, in their own memory.
    if any(name.startswith("init_") and isinstance(value, str) for name, value in vars(config).items()):
        keep(parameter.detach() for parameter in backbone.model.parameters())
    with putting_in(attachment, config, kept) as model:
        # As `PeftModel.from_pretrained` does it, with what was trained open to be counted.
        config.inference_mode = False
        loaded: Any = PeftModel(model, config, _NAME)
        put = loaded.load_state_dict

        def put_all(state: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
            places = loaded.state_dict()
            fault = _fault(set(values), set(own.values()), state, places, loaded)
            if fault is not None:
                raise unfit(config, backbone.anatomy, fault)
            keep(places[name] for name in state if places[name].data_ptr() in base)
            loaded_from.update({name: (places[name].clone(), places[name]) for name in state})
            return put(state, *args, **kwargs)

        loaded.load_state_dict = put_all
        own = _own_names(set(values), loaded)
        notes.extend(_renamed(own))
        set_peft_model_state_dict(loaded, {own[name]: value for name, value in values.items()}, _NAME)
    add_trainable(attachment)
    handle = attachment.handle(method)
    lost = unread(backbone.anatomy, [name.removeprefix(_PREFIX) for name in loaded_from])
    if lost:
        notes.append(f"{len(lost)} of its tensors lie in vision blocks that nothing reads, and change no answer")
    handle.notes = tuple(notes)
    prove_effect(handle, backbone, plain, {n: v for n, v in loaded_from.items() if n.removeprefix(_PREFIX) not in lost})
    return handle


def _values(folder: Path) -> dict[str, Tensor]:
    """Returns an adapter's tensors by the names of its file; raises RequestError where one holds a value that is none.

    Raises UntrustedRecord where the file is damaged.
    """
    with opened_adapter(folder) as stream:
        values = {name: stream.get_tensor(name) for name in sorted(stream.keys())}
    broken = [
        name
        for name, value in values.items()
        if not torch.isfinite(value.float() if value.is_floating_point() else value).all()
    ]
    if broken:
        raise RequestError(f"`{_short(broken[0])}` of the adapter `{folder.name}` holds values that are not finite.")
    return values


def _own_names(names: set[str], loaded: Any) -> dict[str, str]:
    """Returns each tensor's name in the installed transformers, which renames those of older checkpoints.

    PEFT asks for these renamings too, for LoRA alone, and not where a name loses its beginning (Qwen2-VL). A name that
    has a place is left as it is, and so is one that would have none either way.
    """
    from peft.utils.save_and_load import get_peft_model_state_dict
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    wanted = set(get_peft_model_state_dict(loaded, save_embedding_layers=False))
    # Embeddings that an adapter is on are saved with it.
    wanted |= {name for name in loaded.state_dict() if name.endswith(".base_layer.weight")}
    mapping = get_model_conversion_mapping(loaded.get_base_model())
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    found = {}
    for name in names:
        renamed = _PREFIX + rename_source_key(name.removeprefix(_PREFIX), renamings, [])[0]
        found[name] = renamed if name not in wanted and renamed in wanted else name
    # No transformers writes some names of a module in the one way and some in the other.
    moved = tuple(_beginning(name, own) for name, own in found.items() if name != own)
    return {name: name for name in names} if any(n.startswith(moved) for n, o in found.items() if n == o) else found


def _beginning(old: str, new: str) -> str:
    """Returns what stands in a new name before the parts that it ends with as the old one does."""
    ends, parts = old.split("."), new.split(".")
    while ends and parts and ends[-1] == parts[-1]:
        del ends[-1], parts[-1]
    return ".".join(parts) + "."


def prove_effect(
    handle: Handle, backbone: Backbone, plain: Tensor, values: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Notes on the handle that an adapter leaves the base as it is, where its values say so.

    Args:
        handle: of the adapter, which is attached; removed where this raises.
        backbone: that it is attached to.
        plain: `logits_of` the base.
        values: name -> (value before loading, value loaded).

    Raises:
        RequestError: the logits are the base's, although the values should change them.
    """
    if not torch.equal(logits_of(backbone), plain):
        return
    kinds: dict[str, bool] = {}
    for name, (_, now) in values.items():
        # The kind of "...q_proj.lora_B.default.weight" is "lora_B": one that is zero everywhere is no update.
        *_, kind = name.replace(f".{_NAME}", "").removesuffix(".weight").split(".")
        kinds[kind] = kinds.get(kind, True) and not now.any()
    zero = any(is_zero for kind, is_zero in kinds.items() if kind != "bias")
    moved = [name for name, (before, now) in values.items() if not torch.equal(before, now)]
    if zero or not moved:
        handle.notes = (*handle.notes, IDLE)
        return
    if all("embed_tokens" in name or "trainable_tokens" in name for name in moved):
        # Embeddings change the answers to questions with their words alone, and the probe has few words.
        return
    handle.remove()
    raise RequestError(
        "The adapter was loaded, and no logit of a probe differs from the base's: its score would be the base's. See "
        "whether its configuration switches it off (`lora_alpha`)."
    )


def _fault(
    names: set[str], own: set[str], state: Mapping[str, Tensor], places: Mapping[str, Tensor], loaded: Any
) -> str | None:
    """Returns why an adapter would not be loaded wholly; None where it would.

    Every tensor must have a place, and every place of the adapter a tensor, of one shape and kind.

    Args:
        names: of the file's tensors.
        own: the same, as `_own_names` has them.
        state: what PEFT made of them, by the model's names.
        places: the model's own state, not copied.
        loaded: the model of PEFT, which says what of it is the adapter's.
    """
    from peft.utils.save_and_load import get_peft_model_state_dict

    of_adapter = get_peft_model_state_dict(loaded, dict(places), save_embedding_layers=False)
    by_id = {id(value): name for name, value in places.items()}
    # What PEFT computes from a place when it saves (VB-LoRA) has a name in the file alone.
    wanted = {by_id[id(value)] for value in of_adapter.values() if id(value) in by_id}
    computed = {name for name, value in of_adapter.items() if id(value) not in by_id}
    extra, missing = sorted(state.keys() - places.keys()), sorted((wanted - state.keys()) | (computed - own))
    if extra or missing:
        parts = [f"its tensor `{_short(extra[0])}` has no place in this model"] if extra else []
        parts += [f"the place `{_short(missing[0])}` has no tensor in its file"] if missing else []
        hint = ""
        if extra and re.match(r"(model\.)*layers\.", _short(extra[0])):
            hint = ". Those are names of a text model alone: train it on the whole model"
        return f"{', and '.join(parts)} ({len(extra)} and {len(missing)} in all){hint}."
    if len(state) < len(names) and not computed:
        return f"{len(names)} tensors in its file stand for {len(state)} places: some are there twice."
    for name, value in state.items():
        place, short = places[name], _short(name)
        if value.shape != place.shape:
            return f"`{short}` has shape {tuple(value.shape)} in its file and {tuple(place.shape)} in this model."
        if value.is_floating_point() != place.is_floating_point() or value.is_complex():
            return f"`{short}` is {value.dtype} in its file and {place.dtype} in this model."
    return None


def _short(name: str) -> str:
    """Returns a tensor's name as the file has it."""
    return name.removeprefix(_PREFIX).replace(f".{_NAME}", "")[:200]


def _renamed(names: Mapping[str, str]) -> list[str]:
    """Returns what is said of names (in the file -> in this model) of an older transformers."""
    old = sorted(name for name, own in names.items() if name != own)
    if not old:
        return []
    pair = f"`{_short(old[0])}` was read as `{_short(names[old[0]])}`"
    return [f"its tensors have the names of another transformers: {pair}"]
