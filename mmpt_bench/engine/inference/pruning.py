"""Image tokens that are left out before the language model: which ones stay, and prompts with fewer of them.

Families alone whose images have one size. Kept tokens, and the text after them, keep their positions; learnt prompts
all stay. What is chosen how, and after whom: docs/decisions/0040.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.forward.attention import attention_of, attention_returned
from mmpt_bench.engine.forward.prepared_images import PreparedImages
from mmpt_bench.engine.forward.tower import clock
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.chat import Target
from mmpt_bench.engine.models.encoding import Encoded
from mmpt_bench.evaluation.pruning import ATTENTION, CLS, RANDOM, Pruning, random_order

EARLY = 1
"""Index of the decoder layer whose attention chooses: the second, after which FastV prunes (K = 2)."""
TIMED, UNTIMED = 16, 2
"""Questions whose prefill is measured, and those before them that are not."""


@dataclass(frozen=True)
class Kept:
    """Which of its image's tokens each prompt keeps, and prompts with those alone."""

    backbone: Backbone
    places: Int[Tensor, "prompts kept"]
    """Indices in ascending order."""
    tokens: int
    """That an image has."""

    @property
    def dropped(self) -> int:
        """Returns how many tokens an image loses."""
        return self.tokens - int(self.places.shape[1])

    @property
    def text(self) -> str:
        """Returns what stands for an image in a prompt."""
        return str(self.backbone.processor.image_token) * int(self.places.shape[1])

    def of(self, prompts: Sequence[int]) -> Kept:
        """Returns the same of some of the prompts, in this order."""
        return replace(self, places=self.places[list(prompts)])

    def positions(self, ids: Int[Tensor, "prompts columns"], mask: Tensor) -> Int[Tensor, "prompts columns"]:
        """Returns the position that each token had before others were left out, counted without padding."""
        is_image = ids == self.backbone.model.config.image_token_id
        moved = (mask.cumsum(-1) - 1).clamp(min=0)
        behind = (is_image.cumsum(-1) == self.places.shape[1]) & ~is_image
        moved = moved + self.dropped * behind
        ahead = self.places - torch.arange(self.places.shape[1], device=ids.device)
        moved[is_image] += ahead.flatten()
        return moved

    def features(self, encoded: Sequence[Float[Tensor, "tokens dim"]]) -> Any:
        """Returns images' features with the kept tokens alone, and what stands after an image's own: interaction."""
        rows = [
            torch.cat([one[places.to(one.device)], one[self.tokens :]])
            for one, places in zip(encoded, self.places, strict=True)
        ]
        return BaseModelOutputWithPooling(pooler_output=rows)  # type: ignore[arg-type]

    def batch(
        self, images: Sequence[Encoded], prompts: Sequence[str], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor]:
        """Returns the model's inputs, as `Backbone.batch` does; under `cut` alone they mean what they say."""
        own = [replace(one, text=self.text) for one in images]
        inputs = self.backbone.batch(own, prompts, targets)
        return inputs | {"position_ids": self.positions(inputs["input_ids"], inputs["attention_mask"])}

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Inside, the model sees of its images, one a prompt, the kept tokens alone."""
        core = self.backbone.model.get_submodule(self.backbone.anatomy.core)
        whole, own = core.get_image_features, vars(core).get("get_image_features")

        @functools.wraps(whole)  # `generate` asks for its arguments
        def kept(*args: Any, **kwargs: Any) -> Any:
            return self.features(whole(*args, **kwargs).pooler_output)

        core.get_image_features = kept
        try:
            yield
        finally:
            del core.get_image_features
            if own is not None:
                core.get_image_features = own


class Pruner:
    """Chooses the tokens that prompts keep; one for each adapter and way to prune."""

    def __init__(
        self,
        backbone: Backbone,
        pruning: Pruning,
        images: PreparedImages,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.backbone, self.pruning, self.images, self.stopping = backbone, pruning, images, stopping
        self.tokens = backbone.image_tokens()
        self._known: dict[tuple[str, str], list[int]] = {}

    @property
    def reads_question(self) -> bool:
        """Returns whether what stays of an image depends on what is asked about it."""
        return self.pruning.kind == ATTENTION

    def kept(self, samples: Sequence[Sample], prompts: Sequence[str]) -> Kept:
        """Returns what each prompt about its sample's image keeps; chosen one at a time, each once.

        Raises Interrupted where `stopping` says so.
        """
        found = []
        for sample, prompt in zip(samples, prompts, strict=True):
            key = (sample.image.key, prompt if self.reads_question else "")
            if key not in self._known:
                if self.stopping():
                    raise Interrupted("the image tokens that stay are not all chosen")
                self._known[key] = self.chosen(sample, prompt)
            found.append(self._known[key])
        return Kept(self.backbone, torch.tensor(found, device=self.backbone.device), self.tokens)

    def chosen(self, sample: Sample, prompt: str) -> list[int]:
        """Returns the tokens that stay of a sample's image, in ascending order.

        Raises RequestError where the model does not return its attention.
        """
        count = self.pruning.count(self.tokens)
        if self.pruning.kind == RANDOM:
            return sorted(random_order(sample.image.key, self.tokens)[:count])
        scores = self._of_tower(sample) if self.pruning.kind == CLS else self._of_decoder(sample, prompt)
        order: list[int] = scores.float().cpu().argsort(descending=True, stable=True)[:count].tolist()
        return sorted(order)

    def _of_tower(self, sample: Sample) -> Float[Tensor, " tokens"]:
        """Returns what the CLS token attends to in the last vision block that is read, mean over heads."""
        anatomy = self.backbone.anatomy
        values = self.backbone.inputs(self.images.processed([sample]))["pixel_values"]
        core = self.backbone.model.get_submodule(anatomy.core)
        block = anatomy.vision_layers[anatomy.vision_used - 1]
        with torch.no_grad(), attention_returned(self.backbone), attention_of(self.backbone, (block,)) as found:
            core.get_image_features(values, return_dict=True)
        # Prompts in the tower stand after the patches.
        return self._mean(found)[0, 1 : 1 + self.tokens]

    def _of_decoder(self, sample: Sample, prompt: str) -> Float[Tensor, " tokens"]:
        """Returns what the prompt's last token attends to in an early layer, mean over heads."""
        backbone = self.backbone
        # Before attention is computed in another way: features are kept for others.
        seen, _ = self.images.features([sample.image])
        given = backbone.pad(backbone.tokens([prompt]), "left")
        del given["labels"]
        layers = backbone.anatomy.decoder_layers
        is_image = (given["input_ids"][0] == backbone.model.config.image_token_id).nonzero()[:, 0]
        with (
            torch.no_grad(),
            attention_returned(backbone),
            attention_of(backbone, (layers[min(EARLY, len(layers) - 1)],)) as found,
            _stopped_before(backbone, layers[EARLY + 1 :][:1]),
        ):
            backbone.model(**given, mm_encoder_outputs=seen, use_cache=False, logits_to_keep=1)
        # Rows of prompts stand before the image: counted from the end, its columns are where they were.
        return self._mean(found)[-1, is_image - given["input_ids"].shape[1]]

    def _mean(self, found: list[Any]) -> Float[Tensor, "queries keys"]:
        """Returns one layer's attention, of one sequence, averaged over its heads."""
        if len(found) != 1 or found[0] is None:
            raise RequestError(f"This model does not return its attention: leave `{self.pruning.kind}` out.")
        mean: Tensor = found[0][0].float().mean(dim=0)
        return mean


class _Stopped(Exception):
    """What was wanted has been computed."""


@contextmanager
def _stopped_before(backbone: Backbone, layers: Sequence[str]) -> Iterator[None]:
    """Inside, a call of the model ends before the first of these layers, and with it the block."""

    def stop(module: Any, args: Any) -> None:
        raise _Stopped

    hooks = [backbone.model.get_submodule(name).register_forward_pre_hook(stop, prepend=True) for name in layers]
    try:
        yield
    except _Stopped:
        pass
    finally:
        for hook in hooks:
            hook.remove()


def prefill_seconds(
    backbone: Backbone,
    pruning: Pruning | None,
    asked: Sequence[tuple[Sample, str]],
    name: str,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[float, float]:
    """Returns the medians of (seconds to choose tokens, seconds in which the language model reads a prompt).

    One prompt at a time, from its image's features to the first logits; without `pruning` of the whole image.

    Args:
        asked: samples with their prompts; the first ones are taken.
        name: of the set of images, as in `InferenceOptions.images`.
        stopping: asked before every prompt.

    Raises Interrupted where `stopping` says so.
    """
    images, times = PreparedImages(backbone, name), []
    with torch.no_grad(), backbone.computing():
        for sample, prompt in asked[: UNTIMED + TIMED]:
            if stopping():
                raise Interrupted("the time of a prefill is not measured yet")
            seen, tokens = images.features([sample.image])
            began = clock()
            # A new one each time: what was chosen before is chosen again.
            places = range(tokens) if pruning is None else Pruner(backbone, pruning, images).chosen(sample, prompt)
            chosen = clock()
            kept = Kept(backbone, torch.tensor([[*places]], device=backbone.device), tokens)
            given = backbone.pad(backbone.tokens([prompt], image_texts=[kept.text]), "left")
            del given["labels"]
            positions = kept.positions(given["input_ids"], given["attention_mask"])
            features = {"image": kept.features(seen["image"].pooler_output)}
            ready = clock()
            backbone.model(
                **given, position_ids=positions, mm_encoder_outputs=features, use_cache=True, logits_to_keep=1
            )
            times.append((chosen - began, clock() - ready))
    images.close()
    chosen_in, read_in = zip(*(times[UNTIMED:] or times), strict=True)
    return statistics.median(chosen_in), statistics.median(read_in)
