"""Where a model's weights lie: on one device, or spread over several by accelerate (`--device-map auto`).

accelerate puts a `forward` of its own before each part of a spread model, which moves what the part is called with to
its device and changes no value. Hooks on a part run before that, and see what the part before it made.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from mmpt_bench.common.errors import MachineError


def check_device(device: str) -> None:
    """Raises MachineError where torch has no such device here."""
    try:
        is_there = torch.empty(1, device=device).device.type != "meta"
    except (AssertionError, NotImplementedError, RuntimeError):
        is_there = False
    if not is_there:
        raise MachineError(f"There is no device `{device[:60]}` here. Leave `--device` out, or write `cpu`.")


def settled(model: Any, device: str, how: Mapping[str, Any]) -> str:
    """Puts a model on a device, or leaves it as accelerate spread it; returns the device that its inputs go to.

    Raises MachineError where accelerators have no room for all of a spread model, and parts would lie elsewhere.
    """
    if "device_map" not in how:
        model.to(device)
        return device
    # A model that lies on one device has none.
    places = [str(place) for place in getattr(model, "hf_device_map", {}).values()]
    if len(set(places)) > 1 and (elsewhere := [place for place in places if place in ("cpu", "disk")]):
        raise MachineError(
            f"`--device-map auto` finds room for {len(places) - len(elsewhere)} of {len(places)} parts of the model on "
            "accelerators; the others would be copied there at every call. Take more accelerators, or `--quantize`."
        )
    return str(model.get_input_embeddings().weight.device)


def only_moves(module: Any) -> bool:
    """Returns whether a module's own `forward`, where it has one, is accelerate's and nothing is before it."""
    own = vars(module).get("forward")
    return own is None or (isinstance(own, partial) and own.func.__module__ == "accelerate.hooks")
