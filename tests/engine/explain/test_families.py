"""Every family can be explained: the decoder, asked again, says what the model says, and maps have a value a token."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.adapters.trial import noise_pictures
from mmpt_bench.engine.explain.explained import explain
from mmpt_bench.engine.models.backbone import load_backbone
from mmpt_bench.methods.method_catalog import load_method, named_method
from support.families import BUILDERS
from support.tiny import QUESTIONS

torch.set_num_threads(1)
HAS_NUM2WORDS = importlib.util.find_spec("num2words") is not None
NEEDS = pytest.mark.skipif(not HAS_NUM2WORDS, reason="SmolVLM's processor needs the package num2words")
MAPS = ("rollout", "relevancy", "grad", "grad-input", "loo", "attention", "random")


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=NEEDS) if n == "SmolVLM" else n for n in BUILDERS])
def test_a_family_is_explained_with_and_without_an_adapter(tmp_path: Path, name: str) -> None:
    backbone = load_backbone(str(BUILDERS[name](tmp_path / "tiny")), device="cpu", offline=True)
    picture = noise_pictures(backbone)[0]
    sample = Sample("0", LazyImage("0.png", lambda: picture), QUESTIONS[0], ("yes", "no"), "yes")
    for method in (None, "prefix"):
        handle = None if method is None else load_method(named_method(method))().attach(backbone, 0)
        # `ask` raises where the decoder, called again, is off.
        (one,) = explain(backbone, [sample], MAPS)
        n = len(one.maps["grad"])
        assert n > 1
        assert one.grid is None or one.grid[0] * one.grid[1] == n
        for values in one.maps.values():
            assert values.shape == (n,)
            assert np.isfinite(values).all()
            assert np.ptp(values) > 0
        assert len({share.layer for share in one.prompts}) == (0 if handle is None else 3)
        if handle is not None:
            handle.remove()
