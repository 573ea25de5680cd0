"""What a user asked for: names checked, values typed, data loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common import entries
from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import OFFICIAL, Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.recipe import Budget, Recipe
from mmpt_bench.sources.corpora import TrainData, train_data
from mmpt_bench.sources.task_rows import embedded_rows
from mmpt_bench.sources.weights import EMBEDDED

if TYPE_CHECKING:
    from mmpt_bench.data.rows import Rows


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


def suite_of(request: Request) -> str:
    """Returns "embedded" for generated tasks, "real" for public data: figures of the two never meet."""
    return "real" if request.data is not None or request.backbone != EMBEDDED else "embedded"


def load_data(request: Request) -> dict[str, TaskData]:
    """Returns every task's samples; raises RequestError for data that cannot be used, before any model is loaded."""
    from mmpt_bench.sources import task_rows

    loaded = {}
    for entry in request.tasks:
        task = task_catalog.load_task(entry).with_rule(request.rule)
        if entry.name in request.datasets:
            task = task.with_dataset(request.datasets[entry.name])
        if request.data is not None:
            rows = task_rows.folder_rows(task, request.data, request.images)
        elif suite_of(request) == "real":
            rows = task_rows.hub_rows(task, request.offline, request.images)
        else:
            rows = embedded_rows(task)
        loaded[task.name] = TaskData(
            task,
            rows,
            task_rows.samples(task, rows, request.limit),
            request.limit,
            entries.own_fingerprint(entry),
            # In float32 there is nothing to guard against, and a result is the same one with and without.
            request.guard or request.dtype == "float32",
        )
    return loaded


def adapter_of(entry: Entry, overrides: dict[str, str]) -> Any:
    """Returns a method's adapter with a user's hyperparameters; raises RequestError for one that does not fit."""
    method_catalog.check_fields(entry, list(overrides))
    adapter = method_catalog.load_method(entry)
    try:
        return adapter(**method_catalog.coerce(adapter, overrides))
    except (TypeError, ValueError) as error:
        raise RequestError(f"`{entry.name}` cannot be made with {overrides}: {error}") from error


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
    (entry,) = method_catalog.find_methods(recipe.method)
    method_catalog.check_fields(entry, list(recipe.params))
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
        method_catalog.check_fields(by_name[method], [field])
        found.setdefault(method, {})[field] = value.strip()
    return found
