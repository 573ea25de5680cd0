"""The built-in methods, and variants of them that the conformance checks run on."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from typing import Any

from mmpt_bench.mmpt import MMPT
from support.paths import ROOT

FOLDER = ROOT / "baselines"
METHODS = ["frozen", "projector", "vpt", "prefix", "lora", "moe_lora", "adapter", "dynamic", "full", "_template"]


def method(name: str) -> Any:
    """Returns the class of a file in baselines/."""
    spec = importlib.util.spec_from_file_location(f"under_test_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.METHOD


def variant(base: type, **changes: Any) -> type:
    """Returns a method whose default hyperparameters are others."""
    fields = [(n, type(v), dataclasses.field(default=v)) for n, v in changes.items()]
    return dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True)


VARIANTS = {
    "mmpt": lambda: MMPT,
    "mmpt-code": lambda: variant(MMPT, visual_states="parameters", train_lm_head=True),
    "mmpt-front": lambda: variant(MMPT, interaction_place="front"),
    "mmpt-code-front": lambda: variant(MMPT, interaction_place="front", visual_states="parameters"),
    "mmpt-shallow": lambda: variant(MMPT, visual_deep=False, text_deep=False),
    "mmpt-apart": lambda: variant(MMPT, interaction=False),
    "mmpt-text": lambda: variant(MMPT, visual_length=0, interaction=False),
    "mmpt-visual": lambda: variant(MMPT, text_length=0, train_projector=False),
    "vpt-shallow": lambda: variant(method("vpt"), visual_deep=False),
    "full-vision": lambda: variant(method("full"), train_vision=True),
    "adapter-both": lambda: variant(method("adapter"), kind="pfeiffer", size=3, placement="both"),
    "adapter-parallel": lambda: variant(method("adapter"), kind="parallel", scale=4.0, placement="both"),
    "dynamic-text": lambda: variant(method("dynamic"), visual_length=0, each=True, features="question"),
    "dynamic-image": lambda: variant(method("dynamic"), text_deep=False, features="image"),
    "dynamic-static": lambda: variant(method("dynamic"), condition="static", size=2),
    "dynamic-shuffled": lambda: variant(method("dynamic"), condition="shuffled", size=2),
    "moe_lora-uniform": lambda: variant(method("moe_lora"), routing="uniform", experts=2, r=1, placement="all"),
    "lora-r1": lambda: variant(method("lora"), r=1, train_projector=False),
    **{name: lambda name=name: method(name) for name in METHODS},
}
