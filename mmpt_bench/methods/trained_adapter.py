"""An adapter that was trained elsewhere, as a method that does not train: `mmpt-bench run --adapter DIR_OR_HUB_ID`."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import files_sha256
from mmpt_bench.engine.adapters.attachment import Attachment, Handle
from mmpt_bench.engine.adapters.saved import CONFIG_FILE, TENSOR_FILE, opened_adapter, read_adapter, read_header
from mmpt_bench.engine.models.anatomy import Anatomy
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.methods.method import Method
from mmpt_bench.methods.method_catalog import find_methods, load_method
from mmpt_bench.sources import hub

FILES = (CONFIG_FILE, TENSOR_FILE)


def adapter_entry(name: str, offline: bool) -> Entry:
    """Returns the registry's entry of a trained adapter, fetched where it is one of the hub.

    Raises:
        RequestError: there is no such folder, or it holds no adapter in PEFT's form with safetensors.
        MachineError: the hub does not answer, or has no such adapter.
    """
    folder = Path(name) if Path(name).is_dir() else _fetched(name, offline)
    for file in FILES:
        if not (folder / file).is_file():
            raise RequestError(f"There is no adapter in `{name}`: it has no {file}. Pickled weights are not loaded.")
    path = folder.resolve()
    # A run's own folder is called `adapter`, and the run is what tells it from others.
    named = name if folder != Path(name) else path.parent.name if path.name == "adapter" else path.name
    leaf = re.sub(r"[^a-z0-9_-]+", "-", named.lower())
    entry_name, sha256 = f"adapter-{leaf}", files_sha256([folder / file for file in FILES])
    make = functools.partial(method_class, entry_name, folder, sha256)
    return Entry(entry_name, folder, f"the adapter `{name}`, trained elsewhere", make=make)


def _fetched(name: str, offline: bool) -> Path:
    repository, _, revision = name.partition("@")
    with hub.asking(f"adapter `{name}`", "Give a folder, or check network and name.", offline):
        return hub.snapshot(repository, FILES, offline, revision or None)


@dataclass(frozen=True)
class TrainedAdapter(Method):
    """A trained adapter; nothing of it is trained further."""

    name: ClassVar[str] = "adapter"
    color: ClassVar[str] = "#666666"
    lr_range: ClassVar[tuple[float, float]] = (0.0, 0.0)
    folder: ClassVar[Path] = Path()

    sha256: str = ""
    """Of its configuration and its weights."""
    learning_rate: float = 0.0
    train_projector: bool = False

    @classmethod
    def settable(cls) -> list[str]:
        """Returns nothing: an adapter has no hyperparameters left to set."""
        return []

    def attach(self, backbone: Backbone, seed: int) -> Handle:
        """Puts the adapter on the backbone with its trained values; raises RequestError where it does not fit."""
        header = read_header(self.folder)
        attached = self._ours(backbone, header) if header else self._foreign(backbone)
        for parameter in attached.trainable.values():
            parameter.requires_grad_(False)
        attached.given, attached.trainable = attached.size, {}
        return attached

    def _ours(self, backbone: Backbone, header: dict[str, Any]) -> Handle:
        """Returns the handle of an adapter that mmpt-bench trained."""
        state = read_adapter(self.folder, backbone)
        (entry,) = find_methods(header["method"])
        handle: Handle = load_method(entry)(**header["params"]).attach(backbone, 0)
        try:
            handle.load(state)
        except ValueError as error:
            handle.remove()
            raise RequestError(f"The adapter in `{self.folder.name}` does not fit: {error}.") from error
        return handle

    def _foreign(self, backbone: Backbone) -> Handle:
        """Returns the handle of an adapter that PEFT saved."""
        from peft import PeftConfig, PeftModel
        from peft.utils.save_and_load import get_peft_model_state_dict

        from mmpt_bench.engine.adapters.injection import inject

        try:
            config: Any = PeftConfig.from_pretrained(str(self.folder))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestError(f"The installed PEFT does not read `{self.folder.name}`: {error}") from error
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise RequestError(
                f"`{self.folder.name}` holds {config.peft_type.value} of PEFT, whose prompts are wrong on image-text "
                "models with padded batches: its answers would not be its own."
            )
        attachment = Attachment(backbone)

        def make() -> None:
            loaded = PeftModel.from_pretrained(backbone.model, str(self.folder), is_trainable=True, torch_device="cpu")
            self._same_tensors(set(get_peft_model_state_dict(loaded, save_embedding_layers=False)))

        inject(attachment, config, 0, make)
        return attachment.handle(self)

    def _same_tensors(self, wanted: set[str]) -> None:
        """Raises ValueError unless the file holds as many tensors as the adapter has on this model.

        Numbers and not names, because transformers renames weights of older files while they are loaded. PEFT itself
        refuses other shapes, and loads what is missing or left over without a word that stops.
        """
        with opened_adapter(self.folder) as stream:
            held = set(stream.keys())
        # Drawn from a seed, and saved or not.
        sides = [{name for name in names if not name.endswith(("vera_A", "vera_B"))} for names in (held, wanted)]
        if len(sides[0]) != len(sides[1]):
            odd = sorted(sides[0] ^ sides[1])[:1]
            raise ValueError(f"{len(sides[0])} tensors in the file and {len(sides[1])} on this model, first {odd}")

    def count(self, anatomy: Anatomy) -> int:
        """Returns the number of values in its file."""
        return sum(tensor.numel() for tensor in read_adapter(self.folder).values())


def method_class(name: str, folder: Path, sha256: str) -> type[TrainedAdapter]:
    """Returns the class of an entry from `adapter_entry`."""
    made: Any = dataclass(frozen=True)(
        type("Loaded", (TrainedAdapter,), {"__annotations__": {"sha256": "str"}, "sha256": sha256})
    )
    made.name, made.folder = name, folder
    return made
