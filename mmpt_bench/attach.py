"""What every adapter does to a backbone: freeze it, open some parameters, and know how to put all of it back.

Adapters are saved in the layout of PEFT (adapter_config.json, adapter_model.safetensors, names that start with
`base_model.model.`); the header of the tensor file names the method and the backbone it belongs to.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.adapter import Handle
from mmpt_bench.errors import RequestError, UntrustedRecord

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmpt_bench.backbone import Backbone

CONFIG_FILE = "adapter_config.json"
TENSOR_FILE = "adapter_model.safetensors"
HEADER = "mmpt_bench"
"""Entry of the tensor file's header that names the method, its hyperparameters and the backbone."""
_PREFIX = "base_model.model."
Config = dict[str, Any] | Callable[[], dict[str, Any]]


class Attachment:
    """Changes made to a backbone for one adapter, and how to undo each of them."""

    def __init__(self, backbone: Backbone) -> None:
        """Freezes every parameter of the backbone."""
        self.backbone = backbone
        self.trainable: dict[str, nn.Parameter] = {}
        self._undo: list[Callable[[], None]] = []
        flags = [(parameter, parameter.requires_grad) for parameter in backbone.model.parameters()]
        for parameter, _ in flags:
            parameter.requires_grad_(False)

        def restore_flags() -> None:
            for parameter, flag in flags:
                parameter.requires_grad_(flag)

        self._undo.append(restore_flags)

    def undo_with(self, step: Callable[[], None]) -> None:
        """Adds a step that `remove` runs; steps run in the reverse of the order in which they were added."""
        self._undo.append(step)

    def add(self, name: str, parameter: nn.Parameter) -> None:
        """Makes a new parameter trainable under `name`."""
        parameter.requires_grad_(True)
        self.trainable[name] = parameter

    def open(self, *modules: str) -> None:
        """Makes the backbone's own parameters at or below these names trainable; their values are kept for `remove`.

        The kept copies lie in main memory. Weights that two modules share are opened once.

        Raises:
            RequestError: a name holds no parameter.
        """
        known = dict(self.backbone.model.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in self.backbone.model.named_parameters()}
        for wanted in modules:
            found = [n for n in known if n == wanted or n.startswith(f"{wanted}.")]
            if not found:
                raise RequestError(f"The backbone has no parameter at `{wanted}`.")
            for name in found:
                parameter = known[name]
                if first[id(parameter)] not in self.trainable:
                    self._keep(parameter)
                    self.add(first[id(parameter)], parameter)

    def _keep(self, parameter: nn.Parameter) -> None:
        import torch

        original = parameter.detach().to("cpu", copy=True)

        def restore() -> None:
            with torch.no_grad():
                parameter.copy_(original)
            parameter.grad = None

        self._undo.append(restore)

    def remove(self) -> None:
        """Restores the backbone; a second call does nothing."""
        while self._undo:
            self._undo.pop()()

    def handle(self, adapter: Any, config: Config | None = None) -> Handle:
        """Returns the handle of a finished attachment; `config`, or what it returns, is its adapter_config.json."""
        backbone = self.backbone

        def save(folder: Path) -> None:
            plain = config() if callable(config) else config
            save_adapter(Path(folder), adapter, backbone, result.state(), plain)

        result = Handle(trainable=self.trainable, remove=self.remove, save=save)
        return result


def public_name(backbone_name: str) -> str:
    """Returns a backbone's name without the folders above it, which are nobody else's business."""
    return Path(backbone_name).name if Path(backbone_name).is_dir() else backbone_name


def save_adapter(
    folder: Path, adapter: Any, backbone: Backbone, state: dict[str, Tensor], config: dict[str, Any] | None = None
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors to `folder`, which is made where it is missing."""
    from safetensors.torch import save_file

    from mmpt_bench.model_card import adapter_card

    folder.mkdir(parents=True, exist_ok=True)
    plain = {"method": adapter.name, "params": dataclasses.asdict(adapter)}
    written = {**(config or plain), "base_model_name_or_path": public_name(backbone.name)}
    made_by = {
        "method": adapter.name,
        "params": dataclasses.asdict(adapter),
        "backbone": public_name(backbone.name),
        "backbone_fingerprint": backbone.fingerprint,
    }
    # One entry: safetensors writes several in an order that changes, and with it the file's bytes.
    header = {HEADER: json.dumps(made_by, sort_keys=True)}
    (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(adapter_card(made_by, written), encoding="utf-8")
    save_file({_PREFIX + name: tensor.contiguous() for name, tensor in state.items()}, folder / TENSOR_FILE, header)


def read_adapter(folder: Path, backbone: Backbone | None = None) -> dict[str, Tensor]:
    """Returns a saved adapter's values under the names that `Handle.load` expects.

    Raises:
        RequestError: there is no adapter in `folder`, or it belongs to another backbone than the one given.
        UntrustedRecord: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / TENSOR_FILE
    if not path.is_file():
        raise RequestError(f"There is no `{TENSOR_FILE}` in `{folder}`.")
    try:
        with safe_open(path, "pt") as stream:
            header = json.loads((stream.metadata() or {}).get(HEADER, "{}"))
            state = {name.removeprefix(_PREFIX): stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UntrustedRecord(f"`{path}` is damaged ({error}). Train the adapter again.") from error
    if backbone is not None and header.get("backbone_fingerprint") != backbone.fingerprint:
        raise RequestError(
            f"The adapter in `{folder}` was trained on backbone `{header.get('backbone')}` "
            f"({str(header.get('backbone_fingerprint'))[:12]}), and this is `{public_name(backbone.name)}` "
            f"({backbone.fingerprint[:12]})."
        )
    return state


def peft_config(kind: str, fields: Mapping[str, Any], modules_to_save: Sequence[str]) -> dict[str, Any]:
    """Returns the adapter_config.json of a prompt method, as PEFT reads it.

    Args:
        kind: name of the configuration's class in peft_methods.py.
        fields: the method's hyperparameters; those that the configuration has are taken.
        modules_to_save: names of what is trained whole.
    """
    from mmpt_bench import peft_methods

    made = getattr(peft_methods, kind)
    own = {f.name for f in dataclasses.fields(made)}
    leaves = [name.rsplit(".", 1)[-1] for name in modules_to_save]
    taken = {name: value for name, value in fields.items() if name in own}
    return plain_config(made(**taken | {"modules_to_save": leaves or None, "inference_mode": True}))


def plain_config(config: Any) -> dict[str, Any]:
    """Returns a configuration of PEFT as plain JSON values."""
    return {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}


def uniform(shape: Iterable[int], bound: float, seed: int) -> Tensor:
    """Returns float32 values from U(-bound, bound), drawn on the CPU from `seed` alone."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(tuple(shape), generator=generator) * 2 - 1) * bound


def xavier(sets: int, length: int, dim: int, seed: int) -> Tensor:
    """Returns prompts (sets, length, dim), each set xavier-uniform over (1, length, dim) as in MMPT's released code."""
    return uniform((sets, length, dim), math.sqrt(6 / ((length + 1) * dim)), seed)


def normal(shape: Iterable[int], deviation: float, seed: int) -> Tensor:
    """Returns float32 values from N(0, deviation^2), drawn on the CPU from `seed` alone."""
    import torch

    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) * deviation
