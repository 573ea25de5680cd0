"""A trained adapter as a folder in PEFT's layout: written, read, and described by its model card."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import pointer_told, raise_unwritten, write_atomic
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.sources.weights import loading_of

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
_NEVER = {
    "megatron_config": "makes PEFT import the module that `megatron_core` names",
    "layer_replication": "puts layers of the base in twice, which makes another model of it",
}
_HEADER = "mmpt_bench"
"""Entry of the tensor file's header that names the method, its hyperparameters and the backbone."""

_PREFIX = "base_model.model."
PROMPT_TYPES = ("MMPT", "VPT", "KVPREFIX")
"""Methods that PEFT knows once `mmpt_bench.peft` is imported."""


def public_name(backbone_name: str) -> str:
    """Returns a backbone's name without the folders above it, which are nobody else's business."""
    plain, _ = loading_of(backbone_name)
    return Path(plain).name + backbone_name[len(plain) :] if Path(plain).is_dir() else backbone_name


def save_adapter(
    folder: Path, method: Any, backbone: Backbone, state: dict[str, Tensor], config: dict[str, Any] | None = None
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors to `folder`, which is made where it is missing.

    Raises:
        MachineError: they cannot be written (disk full, read-only).
    """
    from safetensors.torch import save_file

    plain, base = {"method": method.name, "params": dataclasses.asdict(method)}, public_name(backbone.name)
    written = {**(config or plain), "base_model_name_or_path": loading_of(base)[0]}
    made_by = {**plain, "backbone": base, "backbone_fingerprint": backbone.fingerprint}
    # One entry: safetensors writes several in an order that changes, and with it the file's bytes.
    header = {_HEADER: json.dumps(made_by, sort_keys=True)}
    write_atomic(folder / CONFIG_FILE, (json.dumps(written, indent=2, sort_keys=True) + "\n").encode())
    write_atomic(folder / "README.md", adapter_card(made_by, written).encode())
    path, tensors = folder / TENSOR_FILE, {_PREFIX + name: tensor.contiguous() for name, tensor in state.items()}
    try:
        save_file(tensors, path, header)
    except (OSError, SafetensorError) as error:
        path.unlink(missing_ok=True)
        raise_unwritten(_cause(error), path, sum(tensor.nbytes for tensor in tensors.values()))


def _cause(error: OSError | SafetensorError) -> OSError:
    """Returns the system's error in one of safetensors, which is raised again where there is none in it."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"os error (\d+)", str(error))
    if number is None:
        raise error
    return OSError(int(number[1]), os.strerror(int(number[1])))


def read_adapter(folder: Path, backbone: Backbone | None = None) -> dict[str, Tensor]:
    """Returns a saved adapter's values under the names that `Handle.load` expects.

    Raises:
        RequestError: there is no adapter in `folder`, or it belongs to another backbone than the one given.
        UntrustedRecord: the file is damaged.
    """
    with opened_adapter(folder) as stream:
        state = {name.removeprefix(_PREFIX): stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    header = read_header(folder)
    if backbone is not None and header.get("backbone_fingerprint") != backbone.fingerprint:
        raise RequestError(
            f"The adapter in `{folder}` was trained on backbone `{str(header.get('backbone'))[:100]}` "
            f"({str(header.get('backbone_fingerprint'))[:12]}), and this is `{public_name(backbone.name)}` "
            f"({backbone.fingerprint[:12]})."
        )
    return state


def read_header(folder: Path) -> dict[str, Any]:
    """Returns what a saved adapter says of its method and backbone; empty where mmpt-bench did not write it.

    Raises as `opened_adapter` does, and UntrustedRecord where what mmpt-bench writes there is not what stands there.
    """
    with opened_adapter(folder, "np") as stream:
        text = (stream.metadata() or {}).get(_HEADER)
    if text is None:
        return {}
    try:
        found = json.loads(text)
        kinds = {"method": str, "params": dict, "backbone": str, "backbone_fingerprint": str}
        if all(type(found[name]) is kind for name, kind in kinds.items()):
            return found
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UntrustedRecord(f"`{folder.name}/{TENSOR_FILE}` says in no known form which method it is of: it was edited.")


def read_config(folder: Path) -> dict[str, Any]:
    """Returns a saved adapter's configuration; RequestError where it is no JSON object, saying what it is."""
    path = folder / CONFIG_FILE
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RequestError(f"`{path}` cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(pointer_told(path) or f"`{path}` is no JSON: {str(error)[:100]}. Fetch it again.") from error
    if not isinstance(found, dict):
        raise RequestError(f"`{path}` is no configuration of PEFT: it holds no fields.")
    return found


def check_config(fields: Mapping[str, Any]) -> None:
    """Raises RequestError for a configuration of PEFT that would import code by name, or make another base model."""
    for name, why in _NEVER.items():
        if fields.get(name):
            raise RequestError(f"`{name}` in a configuration of PEFT is not read here: it {why}.")
    if "_niter_" in str(fields.get("init_lora_weights")):
        raise RequestError(
            "`init_lora_weights` of PiSSA with `niter` splits the base's weights by chance, and anew at every loading. "
            "Save the adapter as a plain LoRA, with `path_initial_model_for_weight_conversion`."
        )


@contextmanager
def opened_adapter(folder: Path, framework: str = "pt") -> Iterator[Any]:
    """Yields a saved adapter's file; raises RequestError where there is none, UntrustedRecord for a damaged one."""
    path = folder / TENSOR_FILE
    if not path.is_file():
        raise RequestError(f"There is no `{TENSOR_FILE}` in `{folder}`.")
    try:
        with safe_open(path, framework) as stream:
            yield stream
    except (SafetensorError, OSError) as error:
        why = (
            pointer_told(path)
            or f"`{path}` is damaged ({str(error)[:100]}). Fetch it again, or train the adapter again."
        )
        raise UntrustedRecord(why) from error


def plain_config(config: Any) -> dict[str, Any]:
    """Returns a configuration of PEFT as plain JSON values."""
    return {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}


def saved_whole(*modules: str) -> list[str]:
    """Returns modules as PEFT's `modules_to_save` names them: by the last part of their names."""
    return [name.rsplit(".", 1)[-1] for name in modules]


def adapter_card(made_by: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Returns the model card of an adapter: what it is, which base it belongs to, and how to use it."""
    name, method = str(made_by["backbone"]), str(made_by["method"])
    hub = f"base_model: {name.partition('@')[0]}\n" if "/" in name else ""
    needs = "import mmpt_bench.peft  # makes PEFT know the method\n" if config.get("peft_type") in PROMPT_TYPES else ""
    use = (
        f"```python\n{needs}from peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base, FOLDER)\n```"
        if "peft_type" in config
        else "It holds whole weights of the base, for which PEFT has no form; mmpt-bench puts them back in."
    )
    lines = "\n".join(f"- `{key}`: {value}" for key, value in sorted(made_by["params"].items()))
    return (
        f"---\nlibrary_name: peft\n{hub}tags: [mmpt-bench, {method}]\n---\n\n# {method} on {name}\n\n"
        f"Trained by mmpt-bench, with these hyperparameters:\n\n{lines}\n\n"
        f"It belongs to the base with fingerprint `{made_by['backbone_fingerprint']}`.\n\n{use}\n\n"
        "```sh\nmmpt-bench run --adapter FOLDER --backbone BASE --tasks mme,pope\n```\n"
    )
