"""Frozen weights of 8 or 4 bits (`--quantize`): how they are made, and what their parameters stand for."""

from __future__ import annotations

import importlib.util
from typing import Any

import transformers
from torch import Tensor, nn

from mmpt_bench.common.errors import MachineError, RequestError
from mmpt_bench.engine.models.anatomy import find_anatomy
from mmpt_bench.sources.weights import QUANTIZED


def held(weight: Tensor) -> Tensor:
    """Returns the values that a parameter holds as numbers: of a quantized one, its scales."""
    state = getattr(weight, "quant_state", None)
    return state.absmax if state is not None else getattr(weight, "scale", weight).detach()


def stored(parameter: Tensor) -> list[Tensor]:
    """Returns all that is in memory of a parameter, as plain tensors: of a quantized one, its codes and its scales."""
    codes = getattr(parameter, "qdata", parameter).detach().as_subclass(Tensor)
    return [codes, held(parameter)] if is_quantized(parameter) else [codes]


def n_values(parameter: Tensor) -> int:
    """Returns how many values a parameter stands for: several in a byte where it is packed."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


def is_quantized(parameter: Tensor) -> bool:
    """Returns whether a parameter stands for others than it holds, and cannot be trained."""
    return type(parameter) is not nn.Parameter and (hasattr(parameter, "quant_state") or hasattr(parameter, "qdata"))


def quantization(model: Any, precision: str, dtype: Any) -> Any:
    """Returns how transformers quantizes the linear maps of tower and language model; the projector is left to train.

    int8: torchao's weights of 8 bits, a scale each row. int4: NF4 of bitsandbytes, as QLoRA has it (Dettmers et al.
    2023, arXiv:2305.14314), without its second quantization.

    Args:
        model: the same without weights.
        dtype: in which 4-bit weights are multiplied.

    Raises:
        MachineError: the package is missing.
        RequestError: a map has other than whole blocks of 64 values, of which NF4 on the CPU makes other numbers.
    """
    package = QUANTIZED[precision]
    if importlib.util.find_spec(package) is None:
        raise MachineError(f"`--quantize {precision}` needs {package}: pip install 'mmpt-bench[quantize]'.")
    anatomy = find_anatomy(model)
    left = [anatomy.projector, anatomy.lm_head]
    if precision == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return transformers.TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=left)
    for name, module in model.named_modules():
        inside = any(name == one or name.startswith(f"{one}.") for one in left)
        if isinstance(module, nn.Linear) and module.in_features % 64 and not inside:
            raise RequestError(
                f"`--quantize int4` needs blocks of 64 values: `{name}` has {module.in_features} inputs."
            )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=left
    )
