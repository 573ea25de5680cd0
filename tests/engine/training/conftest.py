"""What every test of training trains: a tiny model of random weights, on the embedded mixture."""

from __future__ import annotations

import pytest
import torch

from mmpt_bench.data.examples import Corpus
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.sources.corpora import load_corpus
from support.tiny import tiny_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.set_num_threads(1)
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus("embedded")
