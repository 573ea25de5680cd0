"""What a user asked for: names checked, values typed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.values import python_value
from mmpt_bench.data.examples import in_blocks
from mmpt_bench.data.rows import SHIFTED, is_generated, suite_of
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.functions import FunctionMetric
from mmpt_bench.evaluation.task import OFFICIAL, Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import keys
from mmpt_bench.records.adapter_kept import ALL
from mmpt_bench.records.answer_files import JSONL
from mmpt_bench.records.budget import EVAL_BATCH, EVERY, Budget
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.store import results_folder
from mmpt_bench.runs.bad_items import FAIL, SKIP, checked_corpus, checked_task, with_opened_images
from mmpt_bench.runs.stages import INNER_STEPS
from mmpt_bench.sources.corpora import TrainData, load_corpus, train_data
from mmpt_bench.sources.few_shot import with_examples, with_system
from mmpt_bench.sources.prepared import Prepared, PreparedTask, prepare, prepare_tasks
from mmpt_bench.sources.task_rows import Columns, Where
from mmpt_bench.sources.weights import DTYPES, EMBEDDED, backbone_fingerprint, check_backbone

if TYPE_CHECKING:
    from mmpt_bench.data.examples import Corpus
    from mmpt_bench.engine.models.backbone import Backbone


@dataclass(frozen=True)
class Request:
    """What a user asked for, names checked and values typed."""

    methods: tuple[Entry, ...]
    overrides: dict[str, dict[str, str]]
    """Method name -> field -> text, from `--set lora.r=16`; over what its variants say."""
    tasks: tuple[Entry, ...]
    seeds: tuple[int, ...] = (0,)
    backbone: str = EMBEDDED
    train: TrainData = dataclasses.field(default_factory=TrainData)
    """What is trained on."""
    budget: Budget = dataclasses.field(default_factory=Budget)
    dtype: str = "float32"
    out: Path = dataclasses.field(default_factory=results_folder)
    data: Path | None = None
    """Folder of real data in the hub's schema, or a file of rows."""
    columns: Columns = ()
    """What files call the columns of tasks."""
    world: str = SHIFTED
    """Of the embedded suite: in which of its worlds models are evaluated."""
    limit: int | None = None
    images: dict[str, Path] = dataclasses.field(default_factory=dict)
    """Collection -> folder, of images that do not come with the rows."""
    datasets: dict[str, str] = dataclasses.field(default_factory=dict)
    """Task -> name of other data of its form."""
    rule: str = OFFICIAL
    """Parse rule of every task."""
    offline: bool = False
    eval_batch: int = EVAL_BATCH
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    device: str | None = None
    guard: bool = True
    """In half precision, ask close calls again the plain way."""
    on_bad_item: str = FAIL
    """What is done about images, questions and examples that cannot be used."""
    monitor: tuple[Entry, ...] = ()
    """Tasks whose dev part is looked at during training."""
    few_shot: int = 0
    """Solved examples before each question."""
    system: str = ""
    """A turn of the system before each question."""
    every: int = EVERY
    """Steps between two looks."""
    stage: dict[str, Any] = dataclasses.field(default_factory=dict)
    """As of a `Recipe`: how trainings depart from the usual."""
    objective: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What is learnt from a teacher: as of a `Recipe`."""
    rates_of: str = ""
    """Fingerprint of other training data, whose searched learning rates are taken; empty: those of its own."""
    keep_adapters: str = ALL
    """Which adapters stay when all is recorded."""
    answers: str = JSONL
    """How the answers of a finished task are kept."""
    variants: dict[str, tuple[dict[str, str], ...]] = dataclasses.field(default_factory=dict)
    """Method name -> the hyperparameters, as text, of each of its variants; a method that is not here has one."""

    @property
    def suite(self) -> str:
        """Returns "real" for public data, else the embedded suite with its world: scores of two suites never meet."""
        if self.data is not None or self.backbone != EMBEDDED:
            return "real"
        return suite_of(self.world)

    @property
    def asking(self) -> dict[str, Any]:
        """Returns what stands before every question, as of a record."""
        few = {"few_shot": self.few_shot} if self.few_shot else {}
        return few | ({"system": self.system} if self.system else {})

    def plainly(self, command: str) -> Request:
        """Returns itself; RequestError for what is for `run`: examples, a system's turn, a judge, adapters to go."""
        others = {"keep_adapters": self.keep_adapters != ALL, "answers": self.answers != JSONL}
        for name in (*self.asking, *(name for name, is_given in others.items() if is_given)):
            raise RequestError(f"`--{name.replace('_', '-')}` and `{command}` do not go together.")
        return self.unjudged(command)

    def unjudged(self, command: str) -> Request:
        """Returns itself; RequestError for a task that a judge scores, whom the command does not ask."""
        for name, task in self.own_tasks.items():
            if isinstance(task.metric, FunctionMetric) and task.metric.judge is not None:
                raise RequestError(f"`{name}` is scored by a judge, whom `{command}` does not ask: `run` does.")
        return self

    @property
    def own_tasks(self) -> dict[str, Task]:
        """Returns the tasks from files, by name."""
        return {entry.name: task_catalog.load_task(entry) for entry in self.tasks if entry.own}

    def prepare_tasks(self, is_dev: bool = False) -> dict[str, PreparedTask]:
        """Returns every task with its samples, or those of its dev part; raises as `prepared.prepare_tasks` does."""
        generated = is_generated(self.suite)
        where = Where(self.data, self.images, generated, self.offline, is_dev, self.columns, self.world)
        # In float32 there is nothing to guard against, and a result is the same one with and without.
        guard = self.guard or self.dtype == "float32"
        skip = self.on_bad_item == SKIP
        prepared = prepare_tasks(self.tasks, where, self.datasets, self.rule, self.limit, guard, skip)
        if self.few_shot and not is_dev:
            prepared = {name: with_examples(item, self.few_shot, where) for name, item in prepared.items()}
        if self.system and not is_dev:
            prepared = {name: with_system(item, self.system) for name, item in prepared.items()}
        return {name: with_opened_images(item) for name, item in prepared.items()}

    def prepare(self, tasks: dict[str, PreparedTask] | None = None) -> Prepared:
        """Returns everything that is read before a model is loaded, with bad items found or left out.

        Args:
            tasks: those of a like request.
        """
        found = prepare(self.prepare_tasks() if tasks is None else tasks, self.train, self.backbone, self.offline)
        skip = self.on_bad_item == SKIP
        checked = {name: checked_task(item, self.reader, skip) for name, item in found.tasks.items()}
        corpus = found.corpus
        # Training data name the setting of what does not train too.
        if skip or any(self.method_of(entry).trains for entry in self.methods):
            corpus = self.checked_corpus()
        watched = dataclasses.replace(self, tasks=self.monitor, limit=None)
        probe = watched.prepare_tasks(is_dev=True) if self.monitor else {}
        return dataclasses.replace(found, tasks=checked, corpus=corpus, probe=probe)

    def checked_corpus(self) -> Corpus:
        """Returns the training data, with bad examples found or left out."""
        if tasks := self.stage.get("meta"):
            return in_blocks([self.task_corpus(name) for name in tasks], INNER_STEPS)
        corpus = load_corpus(self.train)
        skip, longest = self.on_bad_item == SKIP, self.budget.max_length
        if self.train.source != EMBEDDED and not (self.train.embedded and self.train.source.startswith("task:")):
            return checked_corpus(corpus, self.reader, longest, skip)
        if longest >= Budget().max_length:
            return corpus  # the package makes none that is longer
        checked = checked_corpus(corpus, self.reader, longest, skip, is_generated=True)
        if checked.faults:
            raise RequestError(
                f"`--max-length {longest}`: {len(checked.faults):,} examples of `{corpus.name}` are longer, as the "
                f"first, which {checked.faults[0]}. A reply is never cut: raise it."
            )
        return checked

    def task_corpus(self, name: str) -> Corpus:
        """Returns a task's training split, with bad examples found or left out; RequestError where there is none."""
        train = dataclasses.replace(self.train, source=f"task:{name}", dataset=self.datasets.get(name, ""))
        try:
            return dataclasses.replace(self, train=train, stage={}).checked_corpus()
        except RequestError as error:
            raise RequestError(f"`{name}` cannot be learnt: {error}") from error

    def reader(self) -> Backbone:
        """Returns the backbone as it reads images and texts, without weights; RequestError where it can be none."""
        from mmpt_bench.engine.models.reading import read_without_weights

        fingerprint = backbone_fingerprint(self.backbone, self.offline)
        return read_without_weights(self.backbone, fingerprint, self.offline)

    def method_of(self, entry: Entry) -> Any:
        """Returns a method with the request's hyperparameters; RequestError for one that does not fit."""
        return method_catalog.method_of(entry, self.fields_of(entry)[0])

    def fields_of(self, entry: Entry) -> list[dict[str, str]]:
        """Returns the hyperparameters, as text, of each variant of a method; those not named are the defaults."""
        over = self.overrides.get(entry.name, {})
        return [variant | over for variant in self.variants.get(entry.name, ({},))]


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


def parse_variants(
    given: Mapping[str, Sequence[Mapping[str, object]]], methods: Sequence[Entry]
) -> dict[str, tuple[dict[str, str], ...]]:
    """Returns variants as texts of fields; RequestError for a method that is not asked for, or none of its fields."""
    by_name = {entry.name: entry for entry in methods}
    if not isinstance(given, Mapping):
        raise RequestError('`variants` maps methods to lists of dictionaries, as in {"lora": [{"r": 2}, {"r": 16}]}.')
    found = {}
    for name, variants in given.items():
        if name not in by_name:
            raise unknown_name("method", name, by_name, "`variants` names one that is not asked for.")
        if not isinstance(variants, Sequence) or not all(isinstance(each, Mapping) for each in variants):
            raise RequestError(f'`variants` of `{name}` are a list of dictionaries, as in [{{"r": 2}}, {{"r": 16}}].')
        found[name] = tuple({field: field_text(value) for field, value in each.items()} for each in variants)
        for each in found[name]:
            method_catalog.method_of(by_name[name], each)
    return {name: variants for name, variants in found.items() if variants}


def field_text(value: object) -> str:
    """Returns a hyperparameter as `--set` has it: "true", "none", "0.001", and JSON for what is no single value."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(python_value(value))


def from_recipe(recipe: Recipe, request: Request) -> Request:
    """Returns a request for one recipe, with the tasks and folders of another request.

    Raises:
        RequestError: the recipe is of a method that is none of the built-in ones, or has unknown hyperparameters, or a
            backbone or dtype that can be none.
    """
    check_backbone(recipe.backbone)
    if keys.option(recipe.dtype) not in DTYPES:
        raise unknown_name("dtype", recipe.dtype, DTYPES)
    if "order" in recipe.stage:
        raise RequestError("The recipe is of one stage of a stream: `mmpt-bench stream` runs it after those before it.")
    if recipe.method_fingerprint:
        raise RequestError(f"The recipe is of a file of your own: run it with `--method ./{recipe.method[:100]}.py`.")
    train = request.train
    if recipe.corpus.partition("@")[0] == EMBEDDED:
        train = train_data(recipe.corpus)
    elif train.source == EMBEDDED and not recipe.stage.get("meta"):
        raise RequestError(f"The recipe was trained on `{recipe.corpus}`: say where it is with `--train-data`.")
    entry = method_catalog.named_method(recipe.method)
    method_catalog.check_fields(entry, list(recipe.params))
    params = recipe.params | keys.earlier_params(recipe.method, recipe.params)
    texts = {name: str(value) for name, value in params.items()}
    return dataclasses.replace(
        request,
        methods=(entry,),
        overrides={entry.name: texts},
        seeds=(recipe.seed,),
        backbone=recipe.backbone,
        train=train,
        budget=recipe.budget,
        dtype=keys.option(recipe.dtype),
        stage=recipe.stage,
        objective=recipe.objective,
    )


def check_same(wanted: Recipe, planned: Recipe) -> None:
    """Raises RequestError where a recipe cannot be repeated as it was, naming what is different now."""
    before, now = (
        dataclasses.asdict(one) | {"params": keys.hashed_params(one.method, one.params)} for one in (wanted, planned)
    )
    changed = [f"`{n}` was {before[n]} and is {now[n]}" for n in before if n != "backbone" and before[n] != now[n]]
    if changed:
        raise RequestError(f"The recipe cannot be repeated here: {'; '.join(changed)}.")
