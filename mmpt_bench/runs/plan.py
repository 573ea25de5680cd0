"""What was asked for, and what of it is still to be done: requests become recipes and jobs. Nothing is run here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common import entries
from mmpt_bench.common.entries import Entry
from mmpt_bench.common.hashing import content_key
from mmpt_bench.data.examples import Corpus
from mmpt_bench.records import learning_rates, run_folder
from mmpt_bench.records.recipe import Budget, Recipe
from mmpt_bench.records.store import Store
from mmpt_bench.runs.request import Request, TaskData, adapter_of
from mmpt_bench.sources.corpora import load_corpus
from mmpt_bench.sources.weights import backbone_fingerprint, check_rows

LONG_QUESTIONS = 20
"""So many of the longest are counted in tokens before anything runs."""


@dataclass(frozen=True)
class Job:
    """One run: a recipe, and what of it is still to be done."""

    recipe: Recipe
    adapter: Any
    rate_source: str
    trained: bool
    """An adapter of this recipe is stored."""
    todo: tuple[str, ...]
    """Tasks to evaluate."""
    done: tuple[str, ...]
    label: str = ""
    """What progress calls it, where the method's name is not enough."""


def plan(request: Request, store: Store, data: dict[str, TaskData]) -> list[Job]:
    """Returns the runs that the request names, in its order, with what of each is recorded already."""
    return plan_all([(request, data)], store)[0]


def plan_all(asked: Sequence[tuple[Request, dict[str, TaskData]]], store: Store) -> list[list[Job]]:
    """Returns the runs of several requests, each as `plan` does; the store is read once."""
    recorded = {record.eval_key for record in store.records(published=False) if record.status == "ok"}
    known = [*learning_rates.read(store.root / learning_rates.FILE), *learning_rates.read(learning_rates.shipped())]
    return [_planned(request, store, data, recorded, known) for request, data in asked]


def _planned(
    request: Request,
    store: Store,
    data: dict[str, TaskData],
    recorded: set[str],
    known: Sequence[learning_rates.Choice],
) -> list[Job]:
    fingerprint = backbone_fingerprint(request.backbone, request.offline)
    corpus = load_corpus(request.corpus)
    jobs: dict[str, Job] = {}
    questions = {sample.question for item in data.values() for sample in item.samples}
    asked = tuple(sorted(questions, key=lambda text: (len(text), text))[-LONG_QUESTIONS:])
    for seed in request.seeds:
        for entry in request.methods:
            texts = request.overrides.get(entry.name, {})
            adapter = adapter_of(entry, texts)
            check_rows(adapter, request.backbone, request.offline, asked)
            adapter, source = with_rate(adapter, texts, known, fingerprint, corpus, request.budget)
            recipe = _recipe(request, entry, adapter, seed, fingerprint, corpus)
            keys = {name: eval_key(recipe, item) for name, item in data.items()}
            done = tuple(name for name in data if keys[name] in recorded)
            todo = tuple(name for name in data if name not in done)
            trained = not trains(adapter) or run_folder.training(store, recipe.run_name) is not None
            jobs.setdefault(recipe.train_key, Job(recipe, adapter, source, trained, todo, done))
    return list(jobs.values())


def trains(adapter: Any) -> bool:
    """Returns whether an adapter is trained at all."""
    return bool(adapter.lr_range[1] > 0)


def _recipe(request: Request, entry: Entry, adapter: Any, seed: int, fingerprint: str, corpus: Corpus) -> Recipe:
    return Recipe(
        backbone=request.backbone,
        backbone_fingerprint=fingerprint,
        corpus=corpus.name,
        corpus_fingerprint=corpus.fingerprint,
        method=entry.name,
        params=dataclasses.asdict(adapter),
        budget=request.budget,
        # What does not train has one result, whatever the seed.
        seed=seed if trains(adapter) else 0,
        dtype=request.dtype,
        method_fingerprint=entries.own_fingerprint(entry),
    )


def with_rate(
    adapter: Any,
    texts: dict[str, str],
    known: Sequence[learning_rates.Choice],
    fingerprint: str,
    corpus: Corpus,
    budget: Budget,
) -> tuple[Any, str]:
    """Returns (adapter with its learning rate, how that was chosen)."""
    if not trains(adapter):
        return adapter, "does not train"
    if "learning_rate" in texts:
        return adapter, "set by the user"
    plain = dataclasses.asdict(adapter)
    defaults = dataclasses.asdict(type(adapter)())
    found = learning_rates.look_up(
        known, adapter.name, plain, fingerprint, corpus.whole or corpus.fingerprint, budget, defaults
    )
    if found is None:
        return adapter, "documented default, not searched"
    said = found[1] + (", on the whole corpus" if corpus.whole else "")
    return dataclasses.replace(adapter, learning_rate=found[0]), said


def eval_key(recipe: Recipe, item: TaskData) -> str:
    """Names one task's result of one run."""
    return content_key([recipe.train_key, *item.key])
