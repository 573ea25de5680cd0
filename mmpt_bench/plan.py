"""What was asked for, and what of it is still to be done: requests become recipes and jobs. Nothing is run here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench import artifacts, rates, registry
from mmpt_bench.corpus import Corpus, TrainData, load_corpus, train_data
from mmpt_bench.errors import RequestError, unknown_name
from mmpt_bench.hashing import content_key
from mmpt_bench.recipe import Budget, Recipe
from mmpt_bench.registry import Entry
from mmpt_bench.store import Store
from mmpt_bench.task import OFFICIAL, Sample, Task
from mmpt_bench.weights import EMBEDDED, backbone_fingerprint, check_rows

if TYPE_CHECKING:
    from mmpt_bench.source import Rows

LONG_QUESTIONS = 20
"""So many of the longest are counted in tokens before anything runs."""


@dataclass(frozen=True)
class Request:
    """What a user asked for, names checked and values typed."""

    methods: tuple[Entry, ...]
    overrides: dict[str, dict[str, str]]
    """Method name -> field -> text, from `--set lora.r=16`."""
    tasks: tuple[Entry, ...]
    seeds: tuple[int, ...]
    backbone: str
    corpus: str | TrainData
    budget: Budget
    dtype: str
    out: Path
    data: Path | None = None
    """Folder of real data in the hub's schema."""
    limit: int | None = None
    images: dict[str, Path] = dataclasses.field(default_factory=dict)
    """Collection -> folder, of pictures that do not come with the rows."""
    datasets: dict[str, str] = dataclasses.field(default_factory=dict)
    """Task -> name of other data of its form."""
    rule: str = OFFICIAL
    """Parse rule of every task."""
    offline: bool = False
    eval_batch: int = 64
    device: str | None = None
    features: Path | None = None
    """Folder where what a frozen tower makes of pictures is kept for later runs."""
    features_bytes: int = 10 * 2**30
    """Most that it may hold."""
    guard: bool = True
    """In half precision, ask close calls again the plain way."""


@dataclass(frozen=True)
class TaskData:
    """A task and its samples, loaded once for all runs."""

    task: Task
    rows: Rows
    samples: list[Sample]
    limit: int | None
    own: str = ""
    """SHA-256 of the task's file where it is a user's own, which may change without a new version."""
    guard: bool = True
    """False where close calls of half precision are not asked again, whose replies may be others."""

    @property
    def asked_key(self) -> list[Any]:
        """Returns what names the replies: an `eval_key` without the rule that reads them."""
        t = self.task
        key = [t.name, t.version, self.rows.fingerprint, t.split, t.decode, t.max_new_tokens, self.limit]
        key += [self.own] if self.own else []
        return key if self.guard else [*key, "no guard"]

    @property
    def key(self) -> list[Any]:
        """Returns what an `eval_key` adds to a `train_key`."""
        rule = self.task.rule
        return self.asked_key if rule == OFFICIAL else [*self.asked_key, f"parse rule {rule}"]


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


def suite_of(request: Request) -> str:
    """Returns "embedded" for generated tasks, "real" for public data: figures of the two never meet."""
    return "real" if request.data is not None or request.backbone != EMBEDDED else "embedded"


def load_data(request: Request) -> dict[str, TaskData]:
    """Returns every task's samples; raises RequestError for data that cannot be used, before any model is loaded."""
    from mmpt_bench import source

    loaded = {}
    for entry in request.tasks:
        task = registry.load_task(entry).with_rule(request.rule)
        if entry.name in request.datasets:
            task = task.with_dataset(request.datasets[entry.name])
        if request.data is not None:
            rows = source.folder_rows(task, request.data, request.images)
        elif suite_of(request) == "real":
            rows = source.hub_rows(task, request.offline, request.images)
        else:
            rows = embedded_rows(task)
        loaded[task.name] = TaskData(
            task,
            rows,
            source.samples(task, rows, request.limit),
            request.limit,
            registry.own_fingerprint(entry),
            # In float32 there is nothing to guard against, and a result is the same one with and without.
            request.guard or request.dtype == "float32",
        )
    return loaded


def embedded_rows(task: Task) -> Rows:
    """Returns a task's rows of the embedded suite, or those that a user's own task makes itself.

    Raises:
        RequestError: the suite has no such task.
    """
    from mmpt_bench.embedded import suite

    if task.rows is not None:
        return task.rows()
    if task.name not in suite.PICTURES:
        raise RequestError(
            f"The embedded suite has no task `{task.name}`: pass `--data DIR` with its rows, or give the task `rows`."
        )
    return suite.source(task.name)


def adapter_of(entry: Entry, overrides: dict[str, str]) -> Any:
    """Returns a method's adapter with a user's hyperparameters; raises RequestError for one that does not fit."""
    registry.check_fields(entry, list(overrides))
    adapter = registry.load_method(entry)
    try:
        return adapter(**registry.coerce(adapter, overrides))
    except (TypeError, ValueError) as error:
        raise RequestError(f"`{entry.name}` cannot be made with {overrides}: {error}") from error


def plan(request: Request, store: Store, data: dict[str, TaskData]) -> list[Job]:
    """Returns the runs that the request names, in its order, with what of each is recorded already."""
    return plan_all([(request, data)], store)[0]


def plan_all(asked: Sequence[tuple[Request, dict[str, TaskData]]], store: Store) -> list[list[Job]]:
    """Returns the runs of several requests, each as `plan` does; the store is read once."""
    recorded = {record.eval_key for record in store.records(published=False) if record.status == "ok"}
    known = [*rates.read(store.root / rates.FILE), *rates.read(rates.shipped())]
    return [_planned(request, store, data, recorded, known) for request, data in asked]


def _planned(
    request: Request, store: Store, data: dict[str, TaskData], recorded: set[str], known: Sequence[rates.Choice]
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
            trained = not trains(adapter) or artifacts.training(store, recipe.run_name) is not None
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
        method_fingerprint=registry.own_fingerprint(entry),
    )


def with_rate(
    adapter: Any, texts: dict[str, str], known: Sequence[rates.Choice], fingerprint: str, corpus: Corpus, budget: Budget
) -> tuple[Any, str]:
    """Returns (adapter with its learning rate, how that was chosen)."""
    if not trains(adapter):
        return adapter, "does not train"
    if "learning_rate" in texts:
        return adapter, "set by the user"
    plain = dataclasses.asdict(adapter)
    defaults = dataclasses.asdict(type(adapter)())
    found = rates.look_up(known, adapter.name, plain, fingerprint, corpus.whole or corpus.fingerprint, budget, defaults)
    if found is None:
        return adapter, "documented default, not searched"
    said = found[1] + (", on the whole corpus" if corpus.whole else "")
    return dataclasses.replace(adapter, learning_rate=found[0]), said


def eval_key(recipe: Recipe, item: TaskData) -> str:
    """Names one task's result of one run."""
    return content_key([recipe.train_key, *item.key])


def from_recipe(recipe: Recipe, request: Request) -> Request:
    """Returns a request for one recipe, with the tasks and folders of another request.

    Raises:
        RequestError: the recipe is of a method that is none of the built-in ones, or has unknown hyperparameters.
    """
    if recipe.method_fingerprint:
        raise RequestError(f"The recipe is of a file of your own: run it with `--method ./{recipe.method}.py`.")
    corpus = train_data(request.corpus)
    if recipe.corpus.partition("@")[0] == EMBEDDED:
        corpus = train_data(recipe.corpus)
    elif corpus.source == EMBEDDED:
        raise RequestError(f"The recipe was trained on `{recipe.corpus}`: say where it is with `--train-data`.")
    (entry,) = registry.find("method", recipe.method)
    registry.check_fields(entry, list(recipe.params))
    texts = {name: str(value) for name, value in recipe.params.items()}
    return dataclasses.replace(
        request,
        methods=(entry,),
        overrides={entry.name: texts},
        seeds=(recipe.seed,),
        backbone=recipe.backbone,
        corpus=corpus,
        budget=recipe.budget,
        dtype=recipe.dtype,
    )


def check_same(wanted: Recipe, planned: Recipe) -> None:
    """Raises RequestError where a recipe cannot be repeated as it was, naming what is different now."""
    if planned.train_key != wanted.train_key:
        before, now = dataclasses.asdict(wanted), dataclasses.asdict(planned)
        changed = [f"`{n}` was {before[n]} and is {now[n]}" for n in before if n != "backbone" and before[n] != now[n]]
        raise RequestError(f"The recipe cannot be repeated here: {'; '.join(changed)}.")


def parse_overrides(texts: Sequence[str], methods: Sequence[Entry]) -> dict[str, dict[str, str]]:
    """Returns method -> field -> text of `--set` options: `lora.r=16`, or `r=16` where one method is named.

    Raises:
        RequestError: a text of another form, a method that is not part of the request, an unknown field.
    """
    by_name = {entry.name: entry for entry in methods}
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, field = name.strip().rpartition(".")
        if not equals or not field:
            raise RequestError(f"`--set {text}`: write METHOD.FIELD=VALUE, as in `lora.r=16`.")
        if not dot:
            if len(methods) != 1:
                raise RequestError(f"`--set {text}`: say whose field it is, as in `{methods[0].name}.{text}`.")
            method = methods[0].name
        if method not in by_name:
            raise unknown_name("method", method, by_name, f"`--set {text}` names one that `--method` does not.")
        registry.check_fields(by_name[method], [field])
        found.setdefault(method, {})[field] = value.strip()
    return found
