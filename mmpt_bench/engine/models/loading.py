"""A folder in Hugging Face form becomes a model and its processor; damaged or incomplete files never do."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging as transformers_logging

from mmpt_bench.common.errors import MachineError, RequestError, UntrustedRecord, shown
from mmpt_bench.common.files import loads
from mmpt_bench.engine.models.anatomy import Anatomy, find_anatomy
from mmpt_bench.engine.models.families import FAMILIES, family, kind_of
from mmpt_bench.engine.models.quantized import quantization
from mmpt_bench.sources.weights import backbone_folder, check_backbone

log = logging.getLogger(__name__)


def anatomy_of(backbone: str) -> tuple[Anatomy, int, int]:
    """Returns (anatomy, parameters, patches of one square image) of a backbone, from its configuration alone.

    Patches are 0 where the tower has no size of its own; no weight is read.
    """
    check_backbone(backbone)
    model = empty_model(backbone_folder(backbone, weights=False))
    vision = model.config.vision_config
    sides = [getattr(vision, name, 0) for name in ("image_size", "patch_size")]
    size, patch = (side[0] if isinstance(side, list | tuple) else side for side in sides)
    anatomy = find_anatomy(model)
    return anatomy, anatomy.total_parameters, (size // patch) ** 2


def read_config(folder: Path) -> Any:
    """Returns the configuration of a folder; raises RequestError where it is none of an image-text model."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"`{folder}` has no readable configuration: {str(error).splitlines()[0]}") from error


def refuse_unfit(folder: Path) -> Any:
    """Returns a folder's configuration; RequestError where it says that its models cannot be a backbone.

    Of a family that nobody wrote down, its structure is looked at too, without weights or processor.
    """
    config = read_config(folder)
    family(kind_of(config))
    if kind_of(config) not in FAMILIES:
        try:
            find_anatomy(empty_model(folder))
        except (AttributeError, KeyError, TypeError) as error:
            raise RequestError(
                f"Models of type `{config.model_type}` are built otherwise than those that are known ({error}): say in "
                "a file where their parts are, and give it with `--family`, or give another backbone."
            ) from error
    return config


TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Settings of generation that are the model's own: where a text begins and ends. All others are somebody's choice."""
_UNREAD = {*TOKENS, "transformers_version", "max_length", "max_new_tokens", "do_sample", "temperature", "top_p",
           "top_k", "use_cache", "_from_model_config"}  # fmt: skip
"""Settings that greedy decoding of a given length does not look at."""


def decode_plainly(model: Any) -> tuple[str, ...]:
    """Takes every setting of generation off a model but `TOKENS`; returns those that would have changed a greedy reply.

    A penalty, a forced or a forbidden token of the model's generation_config.json would change replies without a word,
    and `generate` fills in from there whatever a call leaves open. Several tokens that end a reply stay: chat models
    have them. RequestError where one of them is no token.
    """
    own = model.generation_config
    given = own.eos_token_id
    for end in given if isinstance(given, list | tuple) else [given]:
        if end is not None and (type(end) is not int or end < 0 or end >= model.get_input_embeddings().num_embeddings):
            raise RequestError(
                f"`eos_token_id` of the model's generation_config holds {shown(end)}, which is no token of it: replies "
                "would end elsewhere than they should. Put its own into generation_config.json."
            )
    plain = transformers.GenerationConfig()
    usual = plain.to_dict()
    told = [name for name, value in own.to_dict().items()
            if name not in _UNREAD and value not in (None, False) and value != usual.get(name)]  # fmt: skip
    model.generation_config = transformers.GenerationConfig(**{name: getattr(own, name, None) for name in TOKENS})
    return tuple(sorted(told))


class LinearLlava(LlavaForConditionalGeneration):
    """LLaVA with one linear map from image features to text.

    LLaVA of the first version (and M²PT's base) has it. The original LLaVA code calls it `mm_projector_type: linear`;
    transformers' configuration has no word for it.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Returns False: names of LLaVA's weights are those of transformers' own class."""
        return False


def model_class(config: Any) -> Any:
    """Returns the class that a configuration is a model of: transformers' own, but for LLaVA's linear projector."""
    linear = config.model_type == "llava" and getattr(config, "mm_projector_type", None) == "linear"
    return LinearLlava if linear else AutoModelForImageTextToText


def empty_model(folder: Path) -> Any:
    """Returns a folder's model on the meta device: its structure and sizes, without memory for any weight."""
    config = read_config(folder)
    kind = model_class(config)
    try:
        with torch.device("meta"):
            return kind.from_config(config) if kind is AutoModelForImageTextToText else kind(config)
    except ImportError as error:
        lines = str(error).strip().splitlines()
        raise RequestError(f"Models of type `{config.model_type}` need a package: {lines[0]}") from error
    except ValueError as error:
        raise RequestError(f"`{folder}` is not an image-text model: {str(error).splitlines()[0]}") from error


def read_model(folder: Path, dtype: Any, device: str = "cpu", how: Mapping[str, Any] | None = None) -> Any:
    """Returns the model of a folder whose files are known to be whole.

    Args:
        device: where its weights are quantized.
        how: it is loaded: of `weights.HOW`.

    Raises:
        RequestError: it is not an image-text model, or cannot be loaded so.
        MachineError: a package is missing.
        UntrustedRecord: a weight is damaged, missing, or of another shape than the configuration says.
    """
    # Its bar for reading weights would stand in the middle of ours.
    was_shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    how = how or {}
    given = {"attn_implementation": how["attn_implementation"]} if "attn_implementation" in how else {}
    if "quantize" in how:
        given["quantization_config"] = quantization(empty_model(folder), how["quantize"], dtype)
        given |= {"device_map": device} if how["quantize"] == "int4" else {}
    # By accelerate, which PEFT needs too.
    given |= {"device_map": how["device_map"]} if "device_map" in how else {}
    try:
        model, info = model_class(read_config(folder)).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **given,
        )
    except ImportError as error:
        raise MachineError(f"`{folder}` cannot be loaded so: {str(error).strip().splitlines()[0][:150]}") from error
    except SafetensorError as error:
        raise UntrustedRecord(f"The weights in `{folder}` are damaged ({error}). Fetch or build them again.") from error
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"`{folder}` does not load as an image-text model: {str(error).splitlines()[0]}") from error
    except RuntimeError as error:
        if "mismatched_sizes" not in str(error):
            raise
        raise UntrustedRecord(f"Weights in `{folder}` have other shapes than its config.json says.") from error
    finally:
        if was_shown:
            transformers_logging.enable_progress_bar()
    # Where a weight is missing, transformers draws a random one and warns; such a model answers, and wrongly.
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if lacking:
        raise UntrustedRecord(f"The weights in `{folder}` lack or misfit {len(lacking)} tensors, first `{lacking[0]}`.")
    return mended(model)


def mended(model: Any) -> Any:
    """Returns a model that runs: Llama 4 of transformers 5.24 looks for image features in its language model's output.

    That output has no such field, and every call would fail.
    """
    read = inspect.unwrap(type(model).forward).__code__.co_names
    if model.base_model is model and "image_outputs" in read and hasattr(model, "language_model"):
        model.language_model.register_forward_hook(_without_images)
    return model


def _without_images(module: Any, args: Any, output: Any) -> None:
    if not hasattr(output, "image_outputs"):
        output.image_outputs = None


def read_processor(folder: Path, model_type: str, how: Mapping[str, Any] | None = None) -> Any:
    """Returns a folder's processor, with limits of an image's pixels (`weights.HOW`).

    Raises:
        RequestError: none reads, or it has no such limits.
        MachineError: a package is missing.
    """
    family(model_type)
    limits = {name: how[name] for name in ("min_pixels", "max_pixels") if how and name in how}
    try:
        made = _processor_class(folder, model_type).from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        if limits:
            _limit(made.image_processor, limits, model_type)
        return completed(made, folder)
    except (ImportError, OSError, ValueError, KeyError) as error:
        if "torchvision" in str(error).lower() and importlib.util.find_spec("torchvision") is None:
            raise MachineError(
                f"The processor in `{folder}` needs torchvision, of the version made for your torch: "
                "pip install torchvision."
            ) from error
        if isinstance(error, ImportError):
            raise MachineError(
                f"The processor in `{folder}` cannot be used here: {str(error).strip().splitlines()[-1]}"
            ) from error
        raise RequestError(f"The processor in `{folder}` does not load: {str(error).splitlines()[0]}") from error


_SIDES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
"""What processors call pixels of an image, though these are areas."""


def _limit(images: Any, limits: Mapping[str, int], model_type: str) -> None:
    """Sets limits of an image's pixels; raises RequestError where a processor has none, or they contradict its own."""
    known = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    for name in limits:
        if name not in known or getattr(images.size, _SIDES[name], None) is None:
            raise RequestError(f"Images of `{model_type}` have no `{name}`: leave it out.")
    size = {"shortest_edge": images.size.shortest_edge, "longest_edge": images.size.longest_edge}
    size |= {_SIDES[name]: pixels for name, pixels in limits.items()}
    if size["shortest_edge"] > size["longest_edge"]:
        raise RequestError(
            f"Images would have at least {size['shortest_edge']:,} pixels and at most {size['longest_edge']:,}: give "
            "`--min-pixels` and `--max-pixels`."
        )
    images.size = type(images.size)(**size)


def _processor_class(folder: Path, model_type: str) -> Any:
    """Returns the class that reads a folder's processor: without its part for videos where it has one."""
    path = folder / "processor_config.json"
    saved = loads(path.read_bytes()) if path.is_file() else {}
    own = saved.get("processor_class") if isinstance(saved, dict) else None
    for name in (own, PROCESSOR_MAPPING_NAMES.get(model_type)):
        if not isinstance(name, str):
            continue
        kind = getattr(transformers, name, None)
        if kind is not None and hasattr(kind, "get_attributes"):
            return pictures_only(name) if "video_processor" in kind.get_attributes() else AutoProcessor
    return AutoProcessor


CLASS_TOKENS = {"clip_vision_model": 1, "dinov2": 1, "siglip_vision_model": 0, "pixtral": 0}
"""Tokens of a vision tower that are no patches, by its type."""


def completed(processor: Any, folder: Path) -> Any:
    """Returns a processor with what older versions of transformers left to the model: taken from its configuration.

    `patch_size` and `vision_feature_select_strategy` were not saved before 4.46, nor `num_additional_image_tokens`
    before 4.48; without them, the image's place in a text would have another length than the image.

    Raises:
        RequestError: neither says it.
    """
    path = folder / "processor_config.json"
    saved = loads(path.read_bytes()) if path.is_file() else {}
    wanted = ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
    if not all(hasattr(processor, name) for name in wanted):
        return processor
    if not isinstance(saved, dict):
        raise RequestError(f"`{path.name}` in `{folder}` is damaged: it is no JSON object. Fetch it again.")
    lacking = [name for name in wanted if saved.get(name) is None]
    if not lacking:
        return processor
    config = read_config(folder)
    vision = config.vision_config
    known = {
        "patch_size": getattr(vision, "patch_size", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "num_additional_image_tokens": CLASS_TOKENS.get(vision.model_type),
    }
    for name in lacking:
        if known[name] is not None:
            setattr(processor, name, known[name])
        elif getattr(processor, name) is None:
            raise RequestError(f"The processor in `{folder}` lacks `{name}`, and the model's configuration has none.")
    _say_once(folder.name, ", ".join(f"`{name}` {getattr(processor, name)}" for name in lacking))
    return processor


@functools.cache
def _say_once(name: str, told: str) -> None:
    log.warning("The processor in `%s` was saved by an older transformers: %s are the model's own.", name, told)


def pictures_only(name: str) -> Any:
    """Returns a processor class of transformers without its part for videos, which would need torchvision."""
    kind: Any = getattr(transformers, name)
    place = kind.get_attributes().index("video_processor")

    class WithoutVideos(ProcessorMixin):
        """Where a processor hands its parts on by name."""

        def __init__(self, *args: Any, **named: Any) -> None:
            named.pop("video_processor", None)
            super().__init__(*args[:place], *args[place + 1 :], **named)

    class PicturesOnly(kind, WithoutVideos):
        """The same for images and text."""

        # SmolVLM's chat template asks it for these two, and uses them for videos alone.
        video_processor = SimpleNamespace(num_frames=0, fps=0)

        @classmethod
        def get_attributes(cls) -> list[str]:
            """Returns the parts that are read from files."""
            return [part for part in kind.get_attributes() if part != "video_processor"]

        @classmethod
        def from_args_and_dict(cls, args: Any, *rest: Any, **named: Any) -> Any:
            """Makes a processor of its parts, with nothing in the place of videos."""
            return super().from_args_and_dict([*args[:place], None, *args[place:]], *rest, **named)

    PicturesOnly.__name__ = name
    return PicturesOnly
