"""Records and samples made by hand, for tests of what is made from them. No model, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt_bench.common.hashing import content_key
from mmpt_bench.data.dataset import Dataset
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.counting import choices_text
from mmpt_bench.evaluation.metrics import Accuracy, MMEMetric
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.budget import Budget
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.stats.intervals import cluster_bootstrap


def _never(*_: Any) -> Any:
    raise AssertionError("tables must not look at rows, replies or images")


DATASET_FIELDS = {field.name for field in dataclasses.fields(Dataset)}


def task(name: str = "colours", title: str = "Colours", **changes: Any) -> Task:
    """Returns a task of two choices, scored by accuracy; or, with `points=True`, one scored like MME."""
    points = changes.pop("points", False)
    where = {name: changes.pop(name) for name in list(changes) if name in DATASET_FIELDS}
    given: dict[str, Any] = {
        "name": name, "title": title, "headline": "total" if points else "accuracy",
        "data": Dataset(**{"hub": f"made/{name}", "revision": "1", "columns": ()} | where),
        "sample": _never, "metric": MMEMetric() if points else Accuracy(),
        "parse": _never, "decode": "rank", "max_new_tokens": 1, "version": 1,
    }  # fmt: skip
    return Task(**given | changes)


def samples(n: int, group: str = "", per_picture: int = 1) -> list[Sample]:
    """Returns `n` yes-or-no samples whose answers alternate, `per_picture` of them to an image."""
    found = []
    for i in range(n):
        picture = f"{group}{i // per_picture}"
        answer = ("yes", "no")[i % 2]
        found.append(Sample(f"{group}{i}", LazyImage(picture, _never), "?", ("yes", "no"), answer, group, picture))
    return found


def answers(of: Sequence[Sample], right: str) -> list[str | None]:
    """Returns choices: `1` answers a sample rightly, `0` wrongly, `-` not at all; the pattern is repeated."""
    marks = (right[i % len(right)] for i in range(len(of)))
    return [
        {"1": s.answer, "0": next(c for c in s.choices if c != s.answer), "-": None}[m]
        for s, m in zip(of, marks, strict=True)
    ]


def recipe(method: str = "lora", seed: int = 0, params: Mapping[str, Any] | None = None, **changes: Any) -> Recipe:
    """Returns a recipe of a made-up backbone."""
    given: dict[str, Any] = {
        "backbone": "tiny", "backbone_fingerprint": "b" * 8, "corpus": "scenes", "corpus_fingerprint": "c" * 8,
        "method": method, "params": dict(params or {"learning_rate": 0.001}), "budget": Budget(), "seed": seed,
    }  # fmt: skip
    return Recipe(**given | changes)


def record(
    store: Store,
    of: Task,
    asked: Sequence[Sample],
    right: str,
    made_by: Recipe | None = None,
    strict: str = "",
    **changes: Any,
) -> Record:
    """Returns the record of answers given by a pattern (see `answers`), its samples written to the store."""
    made_by = made_by or recipe()
    ranked, parsed = answers(asked, right), answers(asked, strict or right)
    headline = {
        key: of.metric.values(tally.counts.sum(axis=0), tally.columns)
        for key, tally in (("ranked", of.metric.tally(asked, ranked)), ("parsed", of.metric.tally(asked, parsed)))
    }
    own = "ranked" if of.decode == "rank" else "parsed"
    tally = of.metric.tally(asked, ranked if own == "ranked" else parsed)
    suite = changes.get("suite", "embedded")
    given: dict[str, Any] = {
        "train_key": made_by.train_key, "track": made_by.setting_key(suite), "suite": suite,
        "run": made_by.run_name, "method": made_by.method, "params": made_by.params, "seed": made_by.seed,
        "backbone": made_by.backbone, "backbone_fingerprint": made_by.backbone_fingerprint, "corpus": made_by.corpus,
        "corpus_fingerprint": made_by.corpus_fingerprint, "budget": dataclasses.asdict(made_by.budget),
        "dtype": made_by.dtype, "stage": made_by.stage, "task": of.name,
        "learning_rate_source": "searched: 6 trials on validation data",
        "status": "ok", "reason": "", "task_version": of.version, "dataset": of.data.hub, "data_fingerprint": "d" * 8,
        "split": of.data.split, "decode": of.decode, "headline": of.headline,
        "score": float(headline[own][of.headline]), "strict": float(headline["parsed"][of.headline]),
        "constrained": float(headline["ranked"][of.headline]),
        "interval": cluster_bootstrap(tally, of.metric.values, n_resamples=200)[of.headline],
        "ceiling": of.metric.ceiling(asked), "chance": of.metric.chance(asked),
        "values": {name: float(value) for name, value in headline[own].items()}, "n": len(asked),
        "n_pictures": len({s.cluster for s in asked}), "n_unparsed": parsed.count(None),
        "samples": store.write_samples(asked), "parsed_choices": choices_text(asked, parsed),
        "ranked_choices": choices_text(asked, ranked), "trainable": 0 if made_by.method == "frozen" else 1000,
        "total": 100_000, "train_seconds": 60.0, "eval_seconds": 5.0, "peak_bytes": 2**30, "adapter_bytes": 4096,
        "time": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    given |= changes
    identity = [given[k] for k in ("train_key", "task", "task_version", "data_fingerprint", "split", "decode")]
    asked_otherwise = [changes[name] for name in ("parse_rule", "dataset") if name in changes]
    given.setdefault("eval_key", content_key([*identity, given.get("limit"), *asked_otherwise]))
    return Record(**given)


def failed(made_by: Recipe, reason: str = "the loss was not finite at step 12", suite: str = "embedded") -> Record:
    """Returns the record of a training that failed."""
    return Record(
        eval_key=content_key([made_by.train_key, "failed"]), train_key=made_by.train_key,
        track=made_by.setting_key(suite), suite=suite, run=made_by.run_name, method=made_by.method,
        params=made_by.params, seed=made_by.seed, backbone=made_by.backbone,
        backbone_fingerprint=made_by.backbone_fingerprint, corpus=made_by.corpus,
        corpus_fingerprint=made_by.corpus_fingerprint, budget=dataclasses.asdict(made_by.budget), dtype=made_by.dtype,
        learning_rate_source="set by the user", task="", status="failed", reason=reason, trainable=1000, total=100_000,
    )  # fmt: skip


def store_in(folder: Path) -> Store:
    """Returns a store in an empty folder."""
    return Store(folder / "mmpt-results")


def keep(store: Store, made: Record) -> None:
    """Appends a record to its run's folder."""
    store.run(made.run).append_record(made)
