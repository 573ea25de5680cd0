"""One vector for a question about an image, from the model as it is: what tells tasks apart without a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import torch
from torch import Tensor

from mmpt_bench.data.images import LazyImage
from mmpt_bench.engine.forward.prepared_images import ImagePrefetcher
from mmpt_bench.engine.models.backbone import Backbone

BATCH = 32


def pooled_features(
    backbone: Backbone,
    asked: Sequence[tuple[LazyImage, str]],
    batch: int = BATCH,
    stopping: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Returns the mean of the decoder's last hidden states over image and question, (questions, width), in float32.

    Stops early, with fewer rows, where `stopping` says so.
    """
    found = []
    with torch.no_grad(), closing(ImagePrefetcher(backbone)) as images, backbone.computing():
        for first in range(0, len(asked), batch):
            if stopping():
                break
            some = asked[first : first + batch]
            encoded = images.take([image for image, _ in some])
            made = backbone.batch(encoded, [backbone.prompt_text(question) for _, question in some])
            states = backbone.model(**made, use_cache=False, output_hidden_states=True).hidden_states[-1].float()
            mask = made["attention_mask"][..., None].to(states)
            found.append(((states * mask).sum(1) / mask.sum(1)).cpu())
    return torch.cat(found) if found else torch.empty(0)
