"""What of a request is still to be done: requests become recipes and jobs. Nothing is run here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.entries import Entry, own_fingerprint
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.words import counted
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import keys, learning_rates
from mmpt_bench.records.adapter_kept import not_kept
from mmpt_bench.records.keys import RATE
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.run_folder import RunFolder
from mmpt_bench.records.store import Store
from mmpt_bench.runs.asking import check_asking
from mmpt_bench.runs.request import Request, check_same
from mmpt_bench.runs.requested import requested
from mmpt_bench.sources.context import check_prompts_fit
from mmpt_bench.sources.corpora import EMBEDDED, load_corpus
from mmpt_bench.sources.prepared import Prepared

LONG_QUESTIONS = 20
"""So many of the longest are counted in tokens before anything runs."""


@dataclass(frozen=True)
class Job:
    """One run: a recipe, and what of it is still to be done."""

    recipe: Recipe
    method: Any
    """The method, with the recipe's hyperparameters."""
    rate_source: str
    trained: bool
    """An adapter of this recipe is stored."""
    todo: tuple[str, ...]
    """Tasks to evaluate."""
    done: tuple[str, ...]
    label: str
    """What it is called in progress."""
    fault: str = ""
    """Why what is recorded of it cannot be gone on from: `execute` refuses this run alone."""

    @property
    def changed(self) -> dict[str, Any]:
        """Returns the hyperparameters that are not the method's defaults; of a searched learning rate nothing."""
        defaults, searched = type(self.method).defaults(), self.rate_source.startswith("searched:")
        params = self.recipe.params.items()
        return {name: value for name, value in params if value != defaults[name] and not (name == RATE and searched)}


@dataclass(frozen=True)
class Plan:
    """The runs of a request, and what they run on."""

    request: Request
    prepared: Prepared
    jobs: tuple[Job, ...]

    @property
    def open(self) -> tuple[Job, ...]:
        """Returns the jobs of which something is still to be done."""
        return tuple(job for job in self.jobs if job.todo)

    @property
    def run_names(self) -> tuple[str, ...]:
        """Returns the names of all runs."""
        return tuple(job.recipe.run_name for job in self.jobs)

    @property
    def asked_keys(self) -> frozenset[str]:
        """Returns the keys of all results that were asked for, recorded or not."""
        return frozenset(
            item.eval_key(job.recipe.train_key) for job in self.jobs for item in self.prepared.tasks.values()
        )


def plan(request: Request, store: Store, prepared: Prepared | None = None) -> Plan:
    """Returns the runs that a request names, in its order, with what of each is recorded already."""
    return plan_all([(request, prepared or request.prepare())], store)[0]


def plan_given(given: Any, store: Store) -> list[Plan]:
    """Returns the plan of what `requested` takes: a request as the user gave it; raises as that does, and as `plan`.

    Raises:
        RequestError: a recipe cannot be repeated here.
    """
    request, wanted = requested(*given)
    for entry in request.methods:
        request.method_of(entry)
    made = plan(request, store)
    if wanted is not None:
        check_same(wanted, made.jobs[0].recipe)
    return [made]


def plan_all(asked: Sequence[tuple[Request, Prepared]], store: Store) -> list[Plan]:
    """Returns the plans of several requests, each as `plan` does."""
    files = (store.root / learning_rates.FILE, learning_rates.shipped())
    known = [choice for file in files for choice in learning_rates.read(file)]
    published = store.published_keys()
    return [Plan(request, prepared, _jobs(request, prepared, store, known, published)) for request, prepared in asked]


def _jobs(
    request: Request,
    prepared: Prepared,
    store: Store,
    known: Sequence[learning_rates.Choice],
    published: Mapping[str, set[str]],
) -> tuple[Job, ...]:
    jobs: dict[str, Job] = {}
    every = [
        (each.name, method_catalog.method_of(each, f)) for each in request.methods for f in request.fields_of(each)
    ]
    check_asking(prepared.tasks, every, request.reader)
    questions = {sample.question for item in prepared.tasks.values() for sample in item.samples}
    longest = tuple(sorted(questions, key=lambda text: (len(text), text))[-LONG_QUESTIONS:])
    if request.objective and not any(method.trains for _, method in every):
        raise RequestError("A teacher is for methods that train: none of these does. Leave `--teacher` out.")
    for seed in request.seeds:
        for entry, fields in [(each, fields) for each in request.methods for fields in request.fields_of(each)]:
            method = method_catalog.method_of(entry, fields)
            if method.trains:
                keys.check_precision(request.dtype)
            _check_images(entry.name, method, prepared)
            check_prompts_fit(method, request.backbone, request.offline, longest)
            method, source = _with_rate(method, RATE in fields, known, prepared, request)
            recipe = _recipe(request, entry, method, seed, prepared)
            if recipe.train_key in jobs:
                continue
            folder = store.run(recipe.run_name)
            own, fault = _recorded(folder)
            recorded = own | published.get(recipe.run_name, set())
            is_done = {name: item.eval_key(recipe.train_key) in recorded for name, item in prepared.tasks.items()}
            done = tuple(name for name in is_done if is_done[name])
            todo = tuple(name for name in is_done if not is_done[name])
            trained = not method.trains or folder.is_trained
            if todo and not trained:
                _check_batch(recipe, prepared)
            label = _label(request, entry, fields)
            if todo and method.trains and not fault:
                fault = _lacking(folder) or (
                    _published_alone(recipe, done) if recorded and not (trained or own) else ""
                )
            jobs[recipe.train_key] = Job(recipe, method, source, trained, todo, done, label, fault)
    return tuple(jobs.values())


def _label(request: Request, entry: Entry, fields: Mapping[str, str]) -> str:
    """Returns the method's name, with its hyperparameters where it has several variants: "lora (r=2)"."""
    told = ", ".join(f"{name}={text}" for name, text in fields.items()) if len(request.fields_of(entry)) > 1 else ""
    return f"{entry.name} ({told})" if told else entry.name


def _check_images(name: str, method: Any, prepared: Prepared) -> None:
    """Refuses a method that takes one image on questions about several (RequestError)."""
    if not method.one_image:
        return
    for item in prepared.tasks.values():
        if any(sample.more_images for sample in item.samples):
            raise RequestError(f"`{name}` cannot be asked {item.task.title}, about several images: {method.one_image}.")


def _check_batch(recipe: Recipe, prepared: Prepared) -> None:
    """Refuses a step of more examples than there are (RequestError)."""
    n, size = prepared.corpus.size, recipe.budget.batch_size
    if size > n:
        raise RequestError(
            f"`--batch-size {size}` is more than the {counted(n, 'example')} of the training data "
            f"`{prepared.corpus.name}`. "
            f"Write {n} or less."
        )


def _recorded(folder: RunFolder) -> tuple[set[str], str]:
    """Returns the keys of a run's results, and why they cannot be trusted: one damaged run keeps no other waiting."""
    try:
        return {record.eval_key for record in folder.records() if record.status == "ok"}, ""
    except UntrustedRecord as error:
        return set(), str(error)


def _lacking(folder: RunFolder) -> str:
    """Returns what is said of a trained run that has no adapter for further tasks, or a damaged one."""
    try:
        return not_kept(folder)
    except UntrustedRecord as error:
        return str(error)


def _published_alone(recipe: Recipe, done: Sequence[str]) -> str:
    """Returns why a run goes no further whose results were published, and whose adapter is not in the folder."""
    told = f" ({', '.join(done)})" if done else ""
    return (
        f"`{recipe.run_name}` has results in records.jsonl{told} and no adapter in `runs/`: trained again, its results "
        "might be of two trainings. Ask for what is recorded, name another folder with `--out`, or take its lines out "
        "of records.jsonl."
    )


def _recipe(request: Request, entry: Entry, method: Any, seed: int, prepared: Prepared) -> Recipe:
    given, stage = prepared.corpus, request.stage
    if stage and not method.trains:
        # Of the same setting as what it is compared with.
        steps, stage = request.budget.steps + stage.get("steps", 0), {}
        request = dataclasses.replace(request, budget=dataclasses.replace(request.budget, steps=steps))
    corpus, fingerprint, budget = method.trained_under(given.name, given.fingerprint, request.budget, request.dtype)
    return Recipe(
        backbone=request.backbone,
        backbone_fingerprint=prepared.backbone_fingerprint,
        corpus=corpus,
        corpus_fingerprint=fingerprint,
        method=entry.name,
        params=dataclasses.asdict(method),
        budget=budget,
        # What does not train has one result, whatever the seed.
        seed=seed if method.trains else 0,
        dtype=keys.precision(request.dtype),
        method_fingerprint=own_fingerprint(entry),
        stage=stage,
        # What does not train learns from nobody.
        objective=request.objective if method.trains else {},
    )


def _with_rate(
    method: Any, given: bool, known: Sequence[learning_rates.Choice], prepared: Prepared, request: Request
) -> tuple[Any, str]:
    """Returns (the method with its learning rate, how that was chosen); `given` by the user or not."""
    if not method.trains:
        return method, "does not train"
    if given:
        return method, "set by the user"
    corpus = prepared.corpus
    wanted = learning_rates.Wanted(
        method.name,
        dataclasses.asdict(method),
        prepared.backbone_fingerprint,
        request.rates_of or corpus.whole or corpus.fingerprint,
        request.budget,
        keys.precision(request.dtype),
        dataclasses.asdict(type(method)()),
    )
    found, is_other = learning_rates.look_up(known, wanted), bool(request.rates_of)
    if found is None and request.train.embedded and request.train.source.startswith("task:"):
        # As in a stream, of which a training on a task's split is the first stage.
        usual = dataclasses.replace(wanted, corpus_fingerprint=load_corpus(EMBEDDED).fingerprint)
        found, is_other = learning_rates.look_up(known, usual), True
    if found is None:
        return method, "documented default, not searched"
    said = found[1] + (", on other training data" if is_other else ", on the whole training data" * bool(corpus.whole))
    said += ", without a teacher" if request.objective else ""
    return dataclasses.replace(method, learning_rate=found[0]), said
