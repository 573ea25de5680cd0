"""What lies in the folder of a trained adapter: every file accounted for, its configuration, what it was trained under.

Nothing here runs code, opens a pickle, or follows a path that a file names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import loads
from mmpt_bench.common.hashing import canonical_json, file_sha256, files_sha256
from mmpt_bench.engine.adapters.saved import CONFIG_FILE, TENSOR_FILE, check_config, read_config, read_header
from mmpt_bench.methods.method_catalog import named_method
from mmpt_bench.records.adapter_kept import not_kept
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.recipe_file import read_recipe
from mmpt_bench.records.run_folder import ADAPTER, COSTS, RunFolder, check_sum
from mmpt_bench.sources import hub

FILES = (CONFIG_FILE, TENSOR_FILE)
RECIPE = "recipe.yaml"
_TEXT = re.compile(r"\.(jsonl?|md|txt|ya?ml|jinja|model|tiktoken|log|csv|html|py|png|jpe?g|svg)")
_WEIGHTS = re.compile(
    r"(?i).*(\.(safetensors|bin|pt|pth|ckpt|npz|npy|gguf|ggml|h5|hdf5|msgpack|onnx|pkl|pickle|joblib|tar|tgz|zip|gz|distcp"
    r"|pdparams|keras|tflite|mar|orbax)|\.index\.json)"
)
"""Names of what may hold weights, or says in which files they are; refused wherever they stand."""
_TOKENIZER = re.compile(r"(?i).*(token|spiece|sentencepiece|bpe|unigram|vocab).*")
"""Names of the `.model` files that hold no weights."""
"""Endings of files that hold no weights: cards, tokenizers, templates, logs, images."""
_STATE = re.compile(
    r"(optimizer|scheduler|scaler|training_args)\.(pt|bin)|rng_state(_\d+)?\.pth|events\.out\.tfevents\..*"
    r"|LICENSE|NOTICE|README|latest"
)
"""Names of what trainers leave beside an adapter to go on from; none of it is part of the model."""


@dataclass(frozen=True)
class AdapterFolder:
    """A trained adapter as it was found."""

    path: Path
    sha256: str
    """Of its configuration and its weights."""
    config: dict[str, Any]
    """Its adapter_config.json."""
    header: dict[str, Any]
    """What mmpt-bench wrote of method and backbone; empty for an adapter of PEFT."""
    recipe: Recipe | None
    """What it was trained under; None where that is not known."""
    notes: tuple[str, ...]
    """What must be said beside every score of it."""

    def check_unchanged(self) -> None:
        """Raises RequestError where the files are no longer those that were found."""
        if sha256_of(self.path) != self.sha256:
            raise RequestError(f"The adapter in `{self.path.name}` changed while the run was planned. Run it again.")


def sha256_of(folder: Path) -> str:
    """Returns the SHA-256 of an adapter's configuration and weights."""
    return files_sha256([folder / file for file in FILES])


def find_adapter(name: str, offline: bool) -> AdapterFolder:
    """Returns a trained adapter of a folder, or of the hub.

    Raises:
        RequestError: there is none, it holds weights that are not read, or names a method that there is not.
        UntrustedRecord: a file of it is damaged.
        MachineError: the hub does not answer, or has no such adapter.
    """
    folder, notes = (
        (Path(name), accounted(_names(Path(name)), name)) if Path(name).is_dir() else _fetched(name, offline)
    )
    for file in FILES:
        if not (folder / file).is_file():
            if told := _not_kept(folder):
                raise RequestError(told)
            raise RequestError(f"There is no adapter in `{name}`: it has no {file}. Pickled weights are not loaded.")
    header, config = read_header(folder), read_config(folder)
    if header:
        named_method(header["method"])
    elif not isinstance(config.get("peft_type"), str):
        raise RequestError(f"`{CONFIG_FILE}` of `{name}` is no configuration of PEFT: it has no `peft_type`.")
    else:
        check_config(config)
    return AdapterFolder(folder, sha256_of(folder), config, header, trained_under(folder, header), tuple(notes))


def _not_kept(folder: Path) -> str:
    """Returns what is said of a run's adapter that was not kept; empty for any other folder."""
    run = folder.resolve().parent
    is_run = folder.name == ADAPTER and (run / RECIPE).is_file() and run.parent.name == "runs"
    return not_kept(RunFolder(run.parent.parent, run.name)) if is_run else ""


def _names(folder: Path) -> list[str]:
    """Returns all files of a folder; a link to a folder counts as one, since what lies behind it is not looked at."""
    paths = sorted(folder.rglob("*"))
    return [path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()]


def _fetched(name: str, offline: bool) -> tuple[Path, list[str]]:
    repository, _, revision = name.partition("@")
    with hub.asking(f"adapter `{name}`", "Give a folder, or check network and name.", offline):
        folder = hub.snapshot(repository, (*FILES, RECIPE, COSTS), offline, revision or None)
        if hub.is_offline(offline):
            return folder, ["what lies beside it on the hub could not be looked at without network"]
        return folder, accounted(hub.repository_files(repository, revision or None, "model"), name)


def accounted(names: Iterable[str], where: str) -> list[str]:
    """Returns what is said of the files beside an adapter; raises RequestError for weights that are not read.

    Args:
        names: of all files, relative to the adapter's folder, with `/`.
        where: what the folder is called.
    """
    paths = [PurePosixPath(name) for name in names]
    # A folder inside that is an adapter by itself: an earlier checkpoint, or another one.
    own = {path.parent for path in paths if path.name == CONFIG_FILE and len(path.parts) > 1}
    others: set[str] = set()
    for path in paths:
        inside = next((parent for parent in path.parents if parent in own), None)
        if inside is not None and path.name in FILES:
            others.add(str(inside))
        elif str(path) not in FILES and not _is_beside(path):
            raise RequestError(
                f"`{where}` holds `{str(path)[:100]}`, which is not read and may be a part of the adapter. To evaluate "
                f"it without, put {CONFIG_FILE} and {TENSOR_FILE} into a folder of their own."
            )
    return [f"other adapters in its folder are not read: {', '.join(sorted(others)[:5])}"] if others else []


def _is_beside(path: PurePosixPath) -> bool:
    """Returns whether a file holds nothing of an adapter, by its name."""
    if _STATE.fullmatch(path.name):
        return True
    if _WEIGHTS.fullmatch(path.name):
        return False
    if any(part.startswith(".") for part in path.parts):
        # What git, the hub's cache and desktops keep.
        return True
    ending = path.suffix.lower()
    return _TEXT.fullmatch(ending) is not None and (ending != ".model" or _TOKENIZER.fullmatch(path.name) is not None)


def trained_under(folder: Path, header: Mapping[str, Any]) -> Recipe | None:
    """Returns the recipe of an adapter that mmpt-bench trained, beside it or above it; None where none is of it.

    The recipe must be of the header's method, hyperparameters and backbone, and training.json of these weights and of
    this recipe, by its key; that of earlier versions has none, and the run's folder is called by it.

    Raises:
        UntrustedRecord: training.json of an adapter of ours is no JSON object.
    """
    if not header or not (folder / COSTS).is_file():
        return None
    try:
        trained = loads((folder / COSTS).read_bytes())
        if not isinstance(trained, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise UntrustedRecord(
            f"`{COSTS}` of the adapter `{folder.name}` is damaged: {str(error)[:100]}. Without that file, what it was "
            "trained under counts as not known."
        ) from error
    try:
        check_sum(trained)
        if trained["sha256"] != file_sha256(folder / TENSOR_FILE):
            return None
    except (ValueError, KeyError):
        return None
    said = [header["method"], header["params"], header["backbone_fingerprint"]]
    for path in (folder / RECIPE, folder.resolve().parent / RECIPE):
        if not path.is_file():
            continue
        try:
            recipe = read_recipe(path)
        except RequestError:
            continue
        key = trained.get("train_key") or path.parent.name.removeprefix(f"{recipe.method}-")
        same = canonical_json([recipe.method, recipe.params, recipe.backbone_fingerprint]) == canonical_json(said)
        if same and key == recipe.train_key:
            return recipe
    return None
