"""The embedded suite with few images, for tests that train and evaluate in processes that are forked."""

from __future__ import annotations

import functools

import pytest
import torch

from mmpt_bench.embedded import mixture, suite
from mmpt_bench.engine.models import backbone as backbones
from mmpt_bench.engine.training.checkpoint import Checkpoints


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Leaves few images in the suite, loads the backbone once, and writes a checkpoint after each step."""
    torch.set_num_threads(1)
    patch.setattr(mixture, "CORPUS_SIZE", 32)
    patch.setattr(mixture, "VALIDATION_SIZE", 4)
    for task, n in {"mme": 1, "pope": 2, "vsr": 2, "snli_ve": 2, "cifar10": 20, "mnist": 6}.items():
        patch.setitem(suite.N_IMAGES, task, n)
    patch.setattr(backbones, "load_backbone", functools.cache(backbones.load_backbone))
    patch.setattr(Checkpoints, "is_due", True)
    # Before any fork: weights are read by threads, and a forked child has none of its parent's.
    backbones.load_backbone("embedded", "float32", None, False)
