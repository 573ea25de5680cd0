"""What every method is given alike. A file of its own, because the command line reads its defaults at every start."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mmpt_bench.common.hashing import content_key


@dataclass(frozen=True)
class Budget:
    """What every method is given alike."""

    steps: int = 400
    """Optimiser steps."""
    batch_size: int = 16
    """Examples a step, over all processes."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the learning rate does after the warm-up."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 1024
    """Longest example in tokens; a longer one is refused, a longer conversation ends with an earlier reply."""


__all__ = ["Budget", "Recipe", "Record", "track_key"]


@dataclass(frozen=True)
class Recipe:
    """One training: its `train_key` names the run."""

    backbone: str
    backbone_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    method: str
    params: dict[str, Any]
    """The adapter's hyperparameters, all of them, resolved."""
    budget: Budget
    seed: int
    dtype: str = "float32"
    world_size: int = 1
    method_fingerprint: str = ""
    """Of the method's file, where it is a user's own; empty for a built-in one."""

    @property
    def train_key(self) -> str:
        """Names the training: the same for the same request everywhere, another one as soon as a figure may differ."""
        value = dataclasses.asdict(self)
        del value["backbone"]
        return content_key(value)

    @property
    def run_name(self) -> str:
        """Name of the run's folder."""
        return f"{self.method}-{self.train_key}"


def track_key(recipe: Recipe, suite: str) -> str:
    """Names the track: runs are ranked together only where backbone, corpus, budget, dtype and suite agree."""
    return content_key(
        [
            recipe.backbone_fingerprint,
            recipe.corpus_fingerprint,
            dataclasses.asdict(recipe.budget),
            recipe.dtype,
            suite,
        ],
        8,
    )


@dataclass(frozen=True)
class Record:
    """One task's result of one run: a line of records.jsonl, with everything needed to rerun and to rescore it."""

    eval_key: str
    train_key: str
    track: str
    suite: str
    """"embedded", or "real": never ranked together."""
    run: str
    """Name of the run's folder."""
    method: str
    params: dict[str, Any]
    seed: int
    backbone: str
    backbone_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    budget: dict[str, Any]
    dtype: str
    learning_rate_source: str
    """How it was chosen: "searched: 5 rates on ...", "set by the user", "documented default, not searched"."""
    task: str
    """Empty for a training that failed: there is nothing to score."""
    status: Literal["ok", "failed"]
    reason: str
    """Why it failed; empty where it did not."""
    task_version: int = 0
    dataset: str = ""
    data_fingerprint: str = ""
    split: str = ""
    decode: str = ""
    limit: int | None = None
    headline: str = ""
    """Name of the figure that the leaderboard shows."""
    score: float | None = None
    """The headline figure, under the task's own decoding."""
    strict: float | None = None
    """The headline figure of the parsed replies."""
    constrained: float | None = None
    """The headline figure of the best-ranked legal answers."""
    interval: tuple[float, float] | None = None
    """95 % interval of `score` from resampling pictures: of this checkpoint, not of the method."""
    ceiling: float | None = None
    chance: float | None = None
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    """Every figure of the task under its own decoding."""
    n: int = 0
    n_pictures: int = 0
    n_unparsed: int = 0
    degenerate: bool = False
    """More than 99 % of the answers are the same one, on a task where the right ones are not."""
    samples: str = ""
    """Name of the file in results/samples/ that lists id, group, picture and right answer of each sample."""
    parsed_choices: str = ""
    """A character a sample, in the order of the samples file: the choice's index in base 36, `-` where unreadable."""
    ranked_choices: str = ""
    """The same for the best-ranked legal answer."""
    trainable: int = 0
    total: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    peak_bytes: int = 0
    """Peak resident memory (CPU) or allocated memory (accelerator) during training."""
    adapter_bytes: int = 0
    final_loss: float | None = None
    time: str = ""
    """UTC, ISO 8601, when the record was written."""
    world_size: int = 1
    method_fingerprint: str = ""
    """Of the method's file, where it is a user's own."""
    parse_rule: str = "official"
    """Name of the rule that replies were read by."""
    replies_key: str = ""
    """What the replies are kept under in the run's folder, where it is not `eval_key`: replies that another parse rule
    reads anew."""
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Commit, versions, device, processor, threads: recorded, never part of a key."""
