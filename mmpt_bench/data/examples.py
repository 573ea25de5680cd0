"""What is trained on: examples in an order fixed by the seed, the same for every method; and a validation set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample

EXAMPLES_LEFT_OUT = "bad examples left out"
"""Ends the name of training data of which some cannot be used."""


@dataclass(frozen=True)
class Exchange:
    """A question, without the chat frame, and the reply that is to be learnt."""

    question: str
    reply: str
    learnt: bool = True
    """False: the reply is read, and the loss does not look at it."""


@dataclass(frozen=True)
class Opening:
    """How a conversation begins."""

    system: str = ""
    """What is said before the first question."""
    image_at: int = 0
    """Characters of the first question that stand before the image."""
    images: int = 1
    """In front of the first question."""
    later_images: tuple[int, ...] = ()
    """In front of each later question; empty where no later one has any."""

    @property
    def all_images(self) -> int:
        """Returns how many images the conversation has."""
        return self.images + sum(self.later_images)


PLAIN = Opening()
"""Nothing before the question, and the image in front of it."""


def opening_of(sample: Sample) -> Opening:
    """Returns how the conversation of a question begins: with its system's turn, and the images of each turn."""
    own = 1 + len(sample.more_images)
    first, *later = *(len(shot.images) for shot in sample.shots), own
    return Opening(sample.system, images=first, later_images=tuple(later))


def exchanges_of(sample: Sample) -> list[Exchange]:
    """Returns the solved examples before a question, as exchanges."""
    return [Exchange(shot.question, shot.reply) for shot in sample.shots]


@dataclass(frozen=True)
class Example:
    """One image, what is asked about it, and the replies that are to be learnt."""

    image: LazyImage
    prompt: str
    """The first question alone, without the chat frame."""
    target: str
    """The reply to it."""
    later: tuple[Exchange, ...] = ()
    """What a conversation goes on with."""
    opening: Opening = PLAIN
    learnt: bool = True
    """Whether the first reply is learnt; those of `later` say it themselves."""
    name: str = ""
    """What messages call it: "training example 30", by its place in the training data."""

    @property
    def images(self) -> tuple[LazyImage, ...]:
        """Returns its image, as a sample returns all of its own."""
        return (self.image,)

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Returns the whole conversation, of one exchange or more."""
        return (Exchange(self.prompt, self.target, self.learnt), *self.later)


@dataclass(frozen=True)
class Corpus:
    """A training set of fixed size, whose examples are made when they are needed."""

    name: str
    fingerprint: str
    size: int
    example: Callable[[int], Example]
    """Returns training example 0..size-1."""
    validation_size: int
    validation: Callable[[int], Example]
    """Returns validation example 0..validation_size-1; selection may use these, and no test split ever."""
    notes: tuple[str, ...] = ()
    """What was left out, for people."""
    whole: str = ""
    """Fingerprint of the corpus that this is a part of; empty where it is no part."""
    most_exchanges: int = 1
    """In one example."""
    faults: tuple[str, ...] = ()
    """Examples that cannot be used, each with the reason: training on the corpus is refused."""
    replayed: tuple[Corpus, ...] = ()
    """Earlier training data, mixed into the batches in equal parts."""
    share: float = 0.0
    """Of all examples of a training, those that are replayed."""
    block: int = 0
    """Batches in a row that are of one of `self` and `replayed`, each in its turn; 0 where batches are mixed."""

    def without(self, train: Collection[int], validation: Collection[int]) -> Corpus:
        """Returns this corpus without some training and validation examples, as a corpus of its own.

        Raises:
            RequestError: no training or no validation example is left.
        """
        kept = [index for index in range(self.size) if index not in train]
        held_out = [index for index in range(self.validation_size) if index not in validation]
        if not kept or not held_out:
            raise RequestError(f"No example of the training data `{self.name}` can be used.")
        n = len(train) + len(validation)
        return dataclasses.replace(
            self,
            name=f"{self.name}, {n:,} {EXAMPLES_LEFT_OUT}",
            fingerprint=content_key([self.fingerprint, "without", sorted(train), sorted(validation)], 64),
            size=len(kept),
            example=lambda index: self.example(kept[index]),
            validation_size=len(held_out),
            validation=lambda index: self.validation(held_out[index]),
        )

    def part(self, fraction: float) -> Corpus:
        """Returns the first examples of this corpus, as a corpus of its own with the same validation part.

        Raises:
            RequestError: the fraction is not above 0 and at most 1, or leaves no example.
        """
        size = round(self.size * fraction)
        if not 0 < fraction <= 1 or not size:
            raise RequestError(f"A part of {fraction:g} of the corpus `{self.name}` ({self.size:,} examples) is none.")
        if size == self.size:
            return self
        name, fingerprint = f"{self.name}@{fraction:g}", content_key([self.fingerprint, "first", size])
        return dataclasses.replace(self, name=name, fingerprint=fingerprint, size=size, whole=self.fingerprint)

    def with_replay(self, earlier: Sequence[Corpus], share: float) -> Corpus:
        """Returns this corpus with `share` of a training's examples from earlier ones, as a corpus of its own."""
        if not earlier:
            return self
        name = f"{self.name}, {share:g} replayed of {', '.join(each.name for each in earlier)}"
        parts = [self.fingerprint, "replay", share, [each.fingerprint for each in earlier]]
        return dataclasses.replace(
            self, name=name, fingerprint=content_key(parts, 64), replayed=tuple(earlier), share=share
        )

    def batches(self, seed: int, steps: int, batch_size: int, first: int = 0) -> Iterator[list[Example]]:
        """Yields a run's batches from step `first` on; each epoch has an order of its own, from the seed alone.

        Of `steps * batch_size` examples, `share` are replayed, rounded, at places drawn from the seed; or `block`
        batches are of one source.
        """
        sources = [self, *self.replayed]
        orders = [each._order(derive(seed, f"replay {k}" if k else "data")) for k, each in enumerate(sources)]
        places = self._blocks(seed, steps, batch_size) if self.block else self._places(seed, steps * batch_size)
        for step in range(steps):
            taken = [(k, next(orders[k])) for k in places[step * batch_size : (step + 1) * batch_size]]
            if step >= first:
                yield [sources[k].example(i) for k, i in taken]

    def _order(self, seed: int) -> Iterator[int]:
        import numpy as np

        rng = np.random.default_rng(seed)
        while True:
            yield from map(int, rng.permutation(self.size))

    def _places(self, seed: int, n: int) -> list[int]:
        """Returns where each example of a training is from: 0, its own, or the number of what is replayed, from 1."""
        import numpy as np

        found = [0] * n
        if self.replayed:
            at = np.random.default_rng(derive(seed, "replay")).permutation(n)[: round(self.share * n)]
            for number, place in enumerate(at):
                found[place] = 1 + number % len(self.replayed)
        return found

    def _blocks(self, seed: int, steps: int, batch_size: int) -> list[int]:
        """Returns the same for blocks: every source once, in an order drawn anew, before any of them again."""
        import numpy as np

        rng, n = np.random.default_rng(derive(seed, "blocks")), 1 + len(self.replayed)
        blocks = -(-steps // self.block)
        order = [int(k) for _ in range(-(-blocks // n)) for k in rng.permutation(n)]
        return [k for k in order[:blocks] for _ in range(self.block * batch_size)][: steps * batch_size]


def in_blocks(corpora: Sequence[Corpus], block: int) -> Corpus:
    """Returns training data whose batches are of one corpus, `block` in a row, then of another."""
    first, *others = corpora
    key = content_key(["blocks", block, [each.fingerprint for each in corpora]], 64)
    name = f"{block} steps each of {', '.join(each.name for each in corpora)}"
    most = max(each.most_exchanges for each in corpora)
    faults = tuple(fault for each in corpora for fault in each.faults)
    return dataclasses.replace(
        first, name=name, fingerprint=key, most_exchanges=most, faults=faults, replayed=tuple(others), block=block
    )


def joined(corpora: Sequence[Corpus]) -> Corpus:
    """Returns the union of several corpora, every example as likely as any other, as a corpus of its own."""

    def at(index: int, is_validation: bool) -> Example:
        for each in corpora:
            size = each.validation_size if is_validation else each.size
            if index < size:
                return each.validation(index) if is_validation else each.example(index)
            index -= size
        raise IndexError(index)

    names = sorted(each.name for each in corpora)
    return Corpus(
        name=" + ".join(names),
        fingerprint=content_key(["joint", [each.fingerprint for each in corpora]], 64),
        size=sum(each.size for each in corpora),
        example=lambda index: at(index, False),
        validation_size=sum(each.validation_size for each in corpora),
        validation=lambda index: at(index, True),
        most_exchanges=max(each.most_exchanges for each in corpora),
        faults=tuple(fault for each in corpora for fault in each.faults),
    )
