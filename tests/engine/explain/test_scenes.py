"""On generated scenes, whose objects are known: who reads one cell points at it; who has learnt nothing does not."""

from typing import Any

import numpy as np
import pytest
import torch

from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.embedded import suite
from mmpt_bench.engine.explain.maps import maps_of
from mmpt_bench.engine.explain.question import ask
from mmpt_bench.engine.forward.attention import attention_returned
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.stats.saliency import energy, pointing
from mmpt_bench.study.explanations.scores import inside
from support.tiny import QUESTIONS, tiny_backbone

torch.set_num_threads(1)


def scenes(kind: str, n: int) -> list[tuple[Sample, tuple[int, ...]]]:
    """Returns questions about what is there, an image each, and its cells."""
    made = zip(suite.rows("mme"), suite.regions("mme"), strict=True)
    chosen = [(row, cells) for row, cells in made if row["category"] == kind and row["answer"] == "Yes"][:n]
    return [
        (Sample(str(i), LazyImage(f"{i}.png", lambda row=row: row["image"]), QUESTIONS[0], ("yes", "no"), "yes"), cells)
        for i, (row, cells) in enumerate(chosen)
    ]


def test_a_model_that_reads_one_cell_of_a_scene_points_at_it_always() -> None:
    backbone = load_backbone("embedded", device="cpu", offline=True)
    decoder = backbone.model.get_submodule(backbone.anatomy.decoder)
    hidden: list[int] = []

    def blind(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        embeds = kwargs["inputs_embeds"].clone()
        embeds[:, hidden] = 0
        return args, {**kwargs, "inputs_embeds": embeds}

    with attention_returned(backbone):
        for sample, cells in scenes("color", 8):
            region = inside(cells, (6, 6))
            hidden[:] = ask(backbone, sample).places[torch.from_numpy(~region)].tolist()
            hook = decoder.register_forward_pre_hook(blind, with_kwargs=True)
            asked = ask(backbone, sample)
            found = maps_of(asked, torch.zeros_like(asked.tokens), ["grad", "grad-input", "loo"], 0)
            hook.remove()
            hidden.clear()
            assert pointing(found["grad"], region) == 1
            assert energy(found["grad"], region) == pytest.approx(1)
            for name, values in found.items():
                assert np.abs(values[~region]).max() < 1e-5 < np.abs(values[region]).max(), name


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(tmp_path_factory.mktemp("tiny"))


def test_a_model_with_random_weights_points_as_often_as_chance(untrained: Backbone) -> None:
    hits: dict[str, list[float]] = {}
    chances = []
    with attention_returned(untrained):
        for number, (sample, cells) in enumerate(scenes("color", 40) + scenes("existence", 40)):
            region, asked = inside(cells, (4, 4)), ask(untrained, sample)
            chances.append(region.mean())
            names = ["rollout", "relevancy", "grad", "grad-input", "attention", "random"]
            for name, values in maps_of(asked, torch.zeros_like(asked.tokens), names, number).items():
                hits.setdefault(name, []).append(pointing(values, region))
    chance = np.array(chances)
    error = np.sqrt((chance * (1 - chance)).sum()) / len(chance)
    for name, found in hits.items():
        assert abs(np.mean(found) - chance.mean()) < 3 * error, (name, np.mean(found), chance.mean())
