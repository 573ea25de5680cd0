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
    from peft import PeftModel

    names = _finite_names(folder)
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
            fault = _fault(names, state, places, loaded)
            if fault is not None:
                raise unfit(config, backbone.anatomy, fault)
            notes.extend(_renamed(names, state))
            keep(places[name] for name in state if places[name].data_ptr() in base)
            loaded_from.update({name: (places[name].clone(), places[name]) for name in state})
            return put(state, *args, **kwargs)

        loaded.load_state_dict = put_all
        mapping = getattr(model, "_checkpoint_conversion_mapping", {})
        loaded.load_adapter(str(folder), _NAME, is_trainable=True, torch_device="cpu", key_mapping=mapping)
    add_trainable(attachment)
    handle = attachment.handle(method)
    lost = unread(backbone.anatomy, [name.removeprefix(_PREFIX) for name in loaded_from])
    if lost:
        notes.append(f"{len(lost)} of its tensors lie in vision blocks that nothing reads, and change no answer")
    handle.notes = tuple(notes)
    prove_effect(handle, backbone, plain, {n: v for n, v in loaded_from.items() if n.removeprefix(_PREFIX) not in lost})
    return handle


def _finite_names(folder: Path) -> set[str]:
    """Returns the names of an adapter's tensors; raises RequestError where one holds a value that is none."""
    with opened_adapter(folder) as stream:
        names = set(stream.keys())
        broken = [name for name in sorted(names) if not torch.isfinite(stream.get_tensor(name)).all()]
    if broken:
        raise RequestError(f"`{_short(broken[0])}` of the adapter `{folder.name}` holds values that are not finite.")
    return names


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
    if zero or all(torch.equal(before, now) for before, now in values.values()):
        handle.notes = (*handle.notes, IDLE)
        return
    handle.remove()
    raise RequestError(
        "The adapter was loaded, and no logit of a probe differs from the base's: its score would be the base's. See "
        "whether its configuration switches it off (`lora_alpha`)."
    )


def _fault(names: set[str], state: Mapping[str, Tensor], places: Mapping[str, Tensor], loaded: Any) -> str | None:
    """Returns why an adapter would not be loaded wholly; None where it would.

    Every tensor must have a place, and every place of the adapter a tensor, of one shape and kind.

    Args:
        names: of the file's tensors.
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
    extra, missing = sorted(state.keys() - places.keys()), sorted((wanted - state.keys()) | (computed - names))
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


def _renamed(names: set[str], state: Mapping[str, Tensor]) -> list[str]:
    """Returns what is said of names of an older transformers, which its own renamings brought to their places."""
    before = {_short(name) for name in names if ".lora_" in name}
    now = {_short(name).replace("lora_magnitude_vector.weight", "lora_magnitude_vector") for name in state}
    old, new = sorted(before - now), sorted(name for name in now - before if ".lora_" in name)
    if not old or not new:
        return []
    return [f"its tensors have the names of another transformers, and `{old[0]}` was read as `{new[0]}`"]
