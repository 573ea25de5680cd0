"""What is trained on: examples in an order fixed by the seed, the same for every method; and a validation part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mmpt_bench.errors import unknown_name
from mmpt_bench.hashing import derive
from mmpt_bench.task import Picture


@dataclass(frozen=True)
class Example:
    """One picture, what is asked about it, and the reply that is to be learnt."""

    image: Picture
    prompt: str
    """The question alone, without the chat frame."""
    target: str


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

    def batches(self, seed: int, steps: int, batch_size: int, first: int = 0) -> Iterator[list[Example]]:
        """Yields a run's batches from step `first` on; each epoch has an order of its own, from the seed alone."""
        rng = np.random.default_rng(derive(seed, "data"))
        order: list[int] = []
        for step in range(steps):
            while len(order) < batch_size:
                order.extend(int(i) for i in rng.permutation(self.size))
            taken, order = order[:batch_size], order[batch_size:]
            if step >= first:
                yield [self.example(i) for i in taken]


def load_corpus(name: str) -> Corpus:
    """Returns a corpus by name; raises RequestError for an unknown one."""
    if name == "embedded":
        from mmpt_bench.embedded.suite import tuning_corpus

        return tuning_corpus()
    raise unknown_name("corpus", name, ["embedded"])
