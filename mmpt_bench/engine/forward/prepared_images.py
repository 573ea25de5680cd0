"""Images as the model reads them, made once: processed ahead in a thread, and seen once by a frozen tower."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmpt_bench.data.examples import Example
from mmpt_bench.data.images import UNREADABLE, BadImage, LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.engine.forward import tower
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.models.encoding import Encoded, collated, together
from mmpt_bench.engine.models.families import family
from mmpt_bench.engine.models.reading import PROCESSOR_FAULTS, processor_fault
from mmpt_bench.engine.prompts.as_keys import prompts_as_keys


class ImagePrefetcher:
    """Makes images ready before they are asked for; what goes wrong is raised where they are."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._coming: dict[str, Future[Encoded]] = {}
        # One is enough: an image costs less than what the model does with it.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    def soon(self, pictures: Iterable[LazyImage]) -> None:
        """Begins with images that will be asked for next."""
        for picture in pictures:
            if picture.key not in self._coming:
                self._coming[picture.key] = self._pool.submit(self._made, picture)

    def take(self, pictures: Sequence[LazyImage]) -> list[Encoded]:
        """Returns images as the processor makes them; those that were not announced are made now."""
        found = {}
        for picture in pictures:
            future = self._coming.pop(picture.key, None)
            # Alone in either case: what an image becomes must not depend on whether it was announced.
            found[picture.key] = self._made(picture) if future is None else future.result()
        return [found[picture.key] for picture in pictures]

    def close(self) -> None:
        """Ends the thread, and forgets what was announced and never asked for."""
        self._pool.shutdown(cancel_futures=True)
        self._coming.clear()

    def _made(self, picture: LazyImage) -> Encoded:
        try:
            image = picture.open()
        except BadImage:
            raise
        except UNREADABLE as error:
            raise BadImage(picture.key, "", f"does not open ({type(error).__name__}: {str(error)[:100]})") from error
        try:
            return self.backbone.encode([image])[0]
        except PROCESSOR_FAULTS as error:
            raise BadImage(picture.key, "", processor_fault(error)) from error


Shown = Sample | Example
"""What has an image."""

ALONE_TOKENS = 128
"""A tower with as many tokens an image runs in training on one image at a time, whose features any later step may
use; a smaller one runs on a step's images together. Either way an image's features never depend on what else is in
memory, down to the last bit: a resumed run must find what an uninterrupted one found."""


def is_large(backbone: Backbone) -> bool:
    """Returns whether a tower makes `ALONE_TOKENS` of an image or more; where images have no one size, it counts so."""
    return not family(backbone.anatomy.family).one_size or backbone.image_tokens() >= ALONE_TOKENS


class PreparedImages:
    """The images of one task, or of a training set, under one method; `close` ends what is made ready ahead."""

    def __init__(self, backbone: Backbone, name: str | None = None) -> None:
        """`name` is that of a set in which equal keys are equal images; without one, nothing is kept for others."""
        self.backbone = backbone
        # A name that nobody else can have: what is kept under it is of use to this object alone.
        self.name = name or uuid.uuid4().hex
        kept = family(backbone.anatomy.family).one_size and tower.is_frozen(backbone)
        self._tower = tower.fingerprint(backbone) if kept else ""
        self._features = f"{self._tower} {self.name} each"
        self._ahead = ImagePrefetcher(backbone)

    def soon(self, samples: Sequence[Shown]) -> None:
        """Begins to make ready the images that will be asked for next."""
        features, pictures = self.backbone.features, self.backbone.kept_pictures
        self._ahead.soon(
            image
            for s in samples
            for image in s.images
            if not pictures.holds(self.name, (image.key,)) and not features.holds(self._features, (image.key,))
        )

    def close(self) -> None:
        """Ends the thread that makes images ready."""
        self._ahead.close()

    def processed(self, samples: Sequence[Shown]) -> list[Encoded]:
        """Returns the samples' images as the processor makes them, in main memory; those of one sample together."""
        images = {image.key: image for s in samples for image in s.images}
        found = dict(zip(images, self._each(list(images.values())), strict=True))
        return [together([found[image.key] for image in s.images]) for s in samples]

    def _each(self, images: Sequence[LazyImage]) -> list[Encoded]:
        """Returns distinct images as the processor makes them."""
        kept, owner = self.backbone.kept_pictures, self.name
        found: dict[str, Any] = {image.key: kept.get(owner, (image.key,)) for image in images}
        need = [image for image in images if found[image.key] is None]
        if need:
            began = tower.clock()
            made = self._ahead.take(need)
            each = (tower.clock() - began) / len(need)
            for image, one in zip(need, made, strict=True):
                kept.put(owner, (image.key,), one, each)
                found[image.key] = one
        return list(found.values())

    def features(self, images: Sequence[LazyImage]) -> tuple[dict[str, Any], int]:
        """Returns (the model's `mm_encoder_outputs`, image tokens an image) of images, an image named twice seen once.

        Of families alone whose images have one size.
        """
        backbone, shown = self.backbone, list({image.key: image for image in images}.values())
        places = {image.key: i for i, image in enumerate(shown)}
        if not self._tower:
            values = backbone.inputs(self._each(shown))["pixel_values"]
            core = backbone.model.get_submodule(backbone.anatomy.core)
            with prompts_as_keys(backbone):
                seen = core.get_image_features(values, return_dict=True)
            count = backbone.image_tokens(values)
        else:
            rows = self._states(shown)
            seen, count = tower.projected(backbone, rows)["image"], rows[0].shape[1]
        seen.pooler_output = [seen.pooler_output[places[image.key]] for image in images]
        return {"image": seen}, count

    def _states(self, images: Sequence[LazyImage]) -> list[Float[Tensor, "tiles tokens dim"]]:
        """Returns a frozen tower's states of distinct images."""
        backbone, owner = self.backbone, self._features
        found: list[Any] = [backbone.features.get(owner, (image.key,)) for image in images]
        need = [i for i, one in enumerate(found) if one is None]
        if need:
            states, seconds = _seen(backbone, self._each([images[i] for i in need]))
            for i, one in zip(need, _apart(states, len(need)), strict=True):
                found[i] = Encoded({"states": one}, "")
                backbone.features.put(owner, (images[i].key,), found[i], seconds / len(need))
        return [one.tensors["states"].to(backbone.device) for one in found]


class TowerStates:
    """A frozen tower's states of a training set, kept in the backbone's cache for later steps and methods."""

    def __init__(self, backbone: Backbone, pictures: str) -> None:
        """`pictures` names the set within which equal keys are equal images."""
        self.backbone = backbone
        self.owner = f"{tower.fingerprint(backbone)} {pictures}"
        self._projects = family(backbone.anatomy.family).projects_states
        self._ahead = ImagePrefetcher(backbone)

    def soon(self, images: Sequence[LazyImage]) -> None:
        """Begins to make ready the images that will be asked for next."""
        for group in self._groups(images):
            if not self.backbone.features.holds(self.owner, _key(group)):
                self._ahead.soon(group)

    def close(self) -> None:
        """Ends the thread that makes images ready."""
        self._ahead.close()

    def __call__(self, images: Sequence[LazyImage]) -> list[Encoded]:
        """Returns images as states, each (tiles, tokens, dim), with what stands for it in a text.

        Of families whose projector does not take states as they are, beside what the processor makes of the image.
        """
        return [one for group in self._groups(images) for one in self._group(group)]

    @contextmanager
    def inputs(self, images: Sequence[Encoded]) -> Iterator[dict[str, Any]]:
        """Yields the model's inputs for images as states; it must be called inside."""
        if self._projects:
            yield {"mm_encoder_outputs": tower.projected(self.backbone, [one.tensors["states"] for one in images])}
            return
        plain = [
            Encoded({name: value for name, value in one.tensors.items() if not name.startswith(tower.STATES)}, one.text)
            for one in images
        ]
        with tower.blocks_replayed(self.backbone, [one.tensors for one in images]):
            yield self.backbone.inputs(plain)

    def _groups(self, images: Sequence[LazyImage]) -> list[list[LazyImage]]:
        return [[image] for image in images] if is_large(self.backbone) else [list(images)]

    def _group(self, images: list[LazyImage]) -> list[Encoded]:
        key = _key(images)
        found = self.backbone.features.get(self.owner, key)
        if found is None:
            made = self._ahead.take(images)
            if self._projects:
                states, seconds = _seen(self.backbone, made)
                # Images that share a group have all the same text.
                found = Encoded({"states": states}, made[0].text)
            else:
                began = tower.clock()
                states_of = tower.seen(self.backbone, self.backbone.inputs(made))
                found, seconds = Encoded({**made[0].tensors, **states_of}, made[0].text), tower.clock() - began
            self.backbone.features.put(self.owner, key, found, seconds)
        if not self._projects:
            return [found]
        states = found.tensors["states"].to(self.backbone.device)
        return [Encoded({"states": one}, found.text) for one in _apart(states, len(images))]


def _seen(backbone: Backbone, images: Sequence[Encoded]) -> tuple[Float[Tensor, "tiles tokens dim"], float]:
    """Returns a frozen tower's states of images, and how many seconds that took."""
    began = tower.clock()
    states = tower.states(backbone, collated([one.tensors for one in images]))
    return states, tower.clock() - began


def _apart(states: Float[Tensor, "tiles tokens dim"], images: int) -> list[Float[Tensor, "tiles tokens dim"]]:
    """Returns the states of each image; several that are made together have a tile each."""
    return [states] if images == 1 else list(states[:, None])


def _key(images: Sequence[LazyImage]) -> tuple[str, ...]:
    return tuple(image.key for image in images)
