"""`mmpt-bench explain`: where runs look, whether that is right and faithful, and what tuning has changed of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import Interrupted, RequestError, UntrustedRecord, unknown_name
from mmpt_bench.common.hashing import canonical_json, content_key, derive
from mmpt_bench.common.words import counted
from mmpt_bench.data.rows import SHIFTED, suite_of
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods.method_catalog import method_of, named_method
from mmpt_bench.records.adapter_kept import check_kept
from mmpt_bench.records.budget import unusual_told
from mmpt_bench.records.keys import earlier_params, option
from mmpt_bench.records.recipe import Recipe, learnt
from mmpt_bench.records.store import Store
from mmpt_bench.runs.options import known_world
from mmpt_bench.runs.session import now
from mmpt_bench.runs.stages import load_trained
from mmpt_bench.sources.corpora import EMBEDDED
from mmpt_bench.sources.prepared import regions_of
from mmpt_bench.sources.task_rows import Where, rows_of, samples
from mmpt_bench.study.explanations.result import ExplainResult, ExplainRow, Item, PromptLine, region_of
from mmpt_bench.study.explanations.scores import BASE, Key, averaged, question_scores

if TYPE_CHECKING:
    from mmpt_bench.engine.explain.explained import Explained
    from mmpt_bench.engine.models.backbone import Backbone

MAPS = ("rollout", "relevancy", "grad", "grad-input", "ig", "loo", "attention", "random")
LIMIT = 100
NO_CAPTUM = "`ig` is left out: it needs captum, `pip install 'mmpt-bench[explain]'`."
TOLD_EVERY = 25
"""Questions."""
Said = Callable[[str], None]


@dataclass(frozen=True)
class ExplainRequest:
    """What is explained."""

    runs: tuple[str, ...]
    """Names of runs, or beginnings of names."""
    tasks: tuple[Entry, ...]
    maps: tuple[str, ...] = ()
    """Names of `MAPS`; empty: all that can be made here."""
    limit: int = LIMIT
    """Questions a task."""
    data: Path | None = None
    """Folder of real data; None: the embedded suite."""
    world: str = SHIFTED
    device: str | None = None
    offline: bool = False
    command: str = ""
    """Makes the explanation again, for its tables."""


def explain_runs(
    request: ExplainRequest, store: Store, said: Said = lambda text: None, stopping: Callable[[], bool] = lambda: False
) -> ExplainResult:
    """Returns the maps and scores of runs beside their untuned base.

    Raises:
        RequestError: no such run, runs that do not go together, an unknown map or world, or a method from a user's own
            file.
        MachineError: captum is asked for and missing, or data or model cannot be had.
        UntrustedRecord: an adapter is damaged, or the backbone is another one.
    """
    if request.limit < 1:
        raise RequestError(f"`--limit {request.limit}`: 1 or more.")
    variants = _variants(request.runs, store)
    first = next(iter(variants.values()))[0]
    generated = first.backbone == EMBEDDED and request.data is None
    known_world(request.world, generated)
    maps = _known_maps(request.maps)
    items = [item for entry in request.tasks for item in _items(entry, request, first.backbone)]
    backbone = _backbone(first, request)
    asked = _Asker(backbone, items, maps, said, stopping)
    base = asked.explain(f"the untuned base, {first.backbone}")
    plain, images = asked.scored(base), [item.image for item in items]
    rows = [ExplainRow(BASE, (), (), averaged({0: plain}, images), (), tuple(base), tuple(plain))]
    for label, recipes in variants.items():
        if recipes[0].method == BASE:
            continue
        by_seed = {recipe.seed: asked.explain_run(recipe, store) for recipe in recipes}
        scores = {seed: asked.scored(made, base) for seed, made in by_seed.items()}
        every = [one for made in by_seed.values() for one in made]
        runs, shown = tuple(recipe.run_name for recipe in recipes), by_seed[recipes[0].seed]
        rows.append(
            ExplainRow(
                label,
                runs,
                tuple(by_seed),
                averaged(scores, images, plain),
                _prompt_lines(every),
                tuple(shown),
                tuple(scores[recipes[0].seed]),
            )
        )
    asked_of = [canonical_json([r.runs for r in rows]), [i.image for i in items], maps, request.limit]
    key = content_key([*asked_of, *([request.world] if request.world != SHIFTED else [])], 8)
    name = f"{'-'.join(dict.fromkeys(r[0].method for r in variants.values()))}-{key}"
    left_out = [] if request.maps or "ig" in maps else [NO_CAPTUM]
    budgets = {label: known[0].budget for label, known in variants.items() if known[0].method != BASE}
    notes = (*_notes(items, rows, generated), *unusual_told(budgets), *left_out)
    counts = Counter(item.task for item in items)
    asked_for = ", ".join(f"{counted(n, 'question')} of {task}" for task, n in counts.items())
    suite = suite_of(request.world) if generated else "real"
    source = f"{suite[0].upper()}{suite[1:]} suite, {asked_for}, {now()[:10]}"
    setting = f"{source}; {'; '.join([f'backbone {first.backbone}', *_trainings(variants)])}"
    return ExplainResult(
        name, store.root, tuple(items), tuple(rows), maps, request.command, source, notes=notes, setting=setting
    )


@dataclass
class _Asker:
    """Asks the same questions of one backbone after another adapter."""

    backbone: Backbone
    items: Sequence[Item]
    maps: Sequence[str]
    said: Said
    stopping: Callable[[], bool]

    def explain(self, what: str) -> list[Explained]:
        """Returns every question with its maps."""
        from mmpt_bench.engine.explain.explained import explain

        asked = [item.sample for item in self.items]

        def told(done: int) -> None:
            if done % TOLD_EVERY == 0 or done == len(asked):
                self.said(f"{what}: {done:,} of {len(asked):,} questions are explained")

        made = explain(self.backbone, asked, self.maps, self.stopping, told)
        if len(made) < len(asked):
            raise Interrupted(f"{len(made):,} of {len(asked):,} questions of {what} are explained")
        return made

    def explain_run(self, recipe: Recipe, store: Store) -> list[Explained]:
        """Returns the same of a run, whose adapter is put in and taken out again."""
        run = store.run(recipe.run_name)
        params = recipe.params | earlier_params(recipe.method, recipe.params)
        method = method_of(named_method(recipe.method), {name: str(value) for name, value in params.items()})
        handle = method.attach(self.backbone, derive(recipe.seed, "init"))
        try:
            load_trained(run, handle)
            return self.explain(run.name)
        finally:
            handle.remove()

    def scored(self, made: Sequence[Explained], base: Sequence[Explained] | None = None) -> list[dict[Key, float]]:
        """Returns the scores of each question; `base` is the same questions to the untuned base."""
        others: Sequence[Explained | None] = base or [None] * len(made)
        each = zip(self.items, made, others, strict=True)
        return [question_scores(one, region_of(item, one), other) for item, one, other in each]


def _variants(names: Sequence[str], store: Store) -> dict[str, list[Recipe]]:
    """Returns the runs that names begin with, by the label of their variant, in the order of their seeds."""
    known = {run.name: run for run in store.runs()}
    recipes: dict[str, Recipe] = {}
    for name in names:
        found = [run for run in known if run == name] or [run for run in known if run.startswith(name)]
        if not found:
            raise unknown_name("run", name, known, "`mmpt-bench ls runs` lists them.")
        recipes |= {run: known[run].read_recipe() for run in found}
    if not recipes:
        raise RequestError("Name a run, or how its name begins: `mmpt-bench explain mmpt`.")
    same = {(r.backbone_fingerprint, r.dtype) for r in recipes.values()}
    if len(same) > 1:
        raise RequestError("The runs are of several backbones or precisions: explain those of one.")
    for run, recipe in recipes.items():
        if recipe.method != BASE and not known[run].is_trained:
            raise RequestError(f"`{run}` is not trained to its end. `mmpt-bench run` goes on where it stopped.")
        check_kept(known[run])
    groups: dict[str, list[Recipe]] = {}
    for recipe in sorted(recipes.values(), key=lambda r: (r.method, r.variant_key, r.seed)):
        groups.setdefault(recipe.variant_key, []).append(recipe)
    return dict(zip(_labels([group[0] for group in groups.values()]), groups.values(), strict=True))


def _labels(variants: Sequence[Recipe]) -> list[str]:
    """Returns the method of each variant, with what tells it from others of the method."""
    labels = []
    for one in variants:
        others = [other for other in variants if other.method == one.method]
        telling = sorted({n for o in others for n, v in o.params.items() if v != one.params.get(n)})
        told = ", ".join(f"{name}={one.params.get(name)}" for name in telling)
        labels.append(f"{one.method} ({told})" if told else one.method)
    # What is left are trainings on other data, stages of streams, or trainings under another budget.
    both = [(label, learnt(one.corpus, one.stage)) for label, one in zip(labels, variants, strict=True)]
    named = [
        (label, what, _budget(one, [v for v, of in zip(variants, both, strict=True) if of == (label, what)]))
        for (label, what), one in zip(both, variants, strict=True)
    ]
    return [
        label if labels.count(label) == 1
        else f"{label} [{what}]" if both.count((label, what)) == 1
        else f"{label} [{what}, {budget}]" if named.count((label, what, budget)) == 1
        else f"{label} [{what}, {f'{budget}, ' if budget else ''}{one.variant_key[:6]}]"
        for (label, what, budget), one in zip(named, variants, strict=True)
    ]  # fmt: skip


def _trainings(variants: Mapping[str, Sequence[Recipe]]) -> list[str]:
    """Returns what the explained runs were trained on and for how long, once each."""
    found = [
        f"trained on {learnt(one.corpus, one.stage)}, {counted(one.budget.steps, 'step')} of "
        f"{counted(one.budget.batch_size, 'example')}"
        for (one, *_) in variants.values()
        if one.method != BASE
    ]
    return list(dict.fromkeys(found))


def _budget(one: Recipe, others: Sequence[Recipe]) -> str:
    """Returns what tells a training's budget from those of others: "3 steps"; "" where they are the same."""
    own, every = dataclasses.asdict(one.budget), [dataclasses.asdict(other.budget) for other in others]
    telling = [name for name, value in own.items() if any(other[name] != value for other in every)]
    return ", ".join(f"{counted(own[name], 'step')}" if name == "steps" else f"{name}={own[name]}" for name in telling)


def _known_maps(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the maps, each once, `random` among them; without names, all, and `ig` where captum is installed.

    Raises RequestError for an unknown map, MachineError for `ig` without captum.
    """
    from mmpt_bench.engine.explain.maps import check_captum, has_captum

    if not names:
        return tuple(name for name in MAPS if name != "ig" or has_captum())
    for name in names:
        if name not in MAPS:
            raise unknown_name("map", name, MAPS)
    if "ig" in names:
        check_captum()
    return tuple(dict.fromkeys([*names, "random"]))


def _items(entry: Entry, request: ExplainRequest, backbone: str) -> list[Item]:
    """Returns a task's questions: all of some images, which are taken in the order of a hash of their names."""
    task = task_catalog.load_task(entry)
    made, regions = _asked(task, request, backbone)
    if any(sample.more_images or sample.system or not sample.choices for sample in made):
        raise RequestError(
            f"{task.title} cannot be explained: maps are of one image, choices, and no turn of the system."
        )
    by_image: dict[str, list[Item]] = {}
    for sample, cells in zip(made, regions, strict=True):
        item = Item(task.name, sample, tuple(cells))
        by_image.setdefault(item.image, []).append(item)
    found: list[Item] = []
    for image in sorted(by_image, key=lambda name: content_key([name])):
        if len(found) >= request.limit:
            break
        found += by_image[image]
    return found


def _asked(task: Task, request: ExplainRequest, backbone: str) -> tuple[list[Sample], Sequence[Sequence[int]]]:
    """Returns a task's samples, and the cells of what each names, where its images are generated."""
    generated = backbone == EMBEDDED and request.data is None
    where = Where(request.data, embedded=generated, offline=request.offline, world=request.world)
    made = samples(task, rows_of(task, where))
    return made, regions_of(task, where) or [()] * len(made)


def _backbone(recipe: Recipe, request: ExplainRequest) -> Backbone:
    """Returns the backbone of a recipe; UntrustedRecord where its files are others."""
    from mmpt_bench.engine.models.backbone import load_backbone

    backbone = load_backbone(recipe.backbone, option(recipe.dtype), request.device, request.offline)
    if backbone.fingerprint != recipe.backbone_fingerprint:
        raise UntrustedRecord(f"The files of backbone `{recipe.backbone}` are not those that its runs were trained on.")
    return backbone


def _prompt_lines(made: Sequence[Explained]) -> tuple[PromptLine, ...]:
    """Returns the attention to prompts, a line a side, kind and layer."""
    found: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for one in made:
        for share in one.prompts:
            key = (share.side, share.kind, share.layer)
            found.setdefault(key, []).append((share.attention, share.even))
    lines = []
    for (side, kind, layer), shares in sorted(found.items(), key=lambda each: (each[0][0] != "vision tower", each[0])):
        attention, even = np.mean(shares, axis=0)
        lines.append(PromptLine(side, layer, kind, float(attention), float(even)))
    return tuple(lines)


def _notes(items: Sequence[Item], rows: Sequence[ExplainRow], generated: bool) -> tuple[str, ...]:
    """Returns what a reader must know of these questions; `generated`: they are of the embedded suite."""
    named = {item.task for item in items if item.cells}
    without = list(dict.fromkeys(item.task for item in items if item.task not in named))
    told = [
        f"Questions explained of {', '.join(without)} have no region: pointing and energy do not count them."
    ] * bool(without)
    if not generated:
        told = ["No region is known: pointing and energy need the embedded suite's scenes."]
    few = [row.label for row in rows[1:] if len(row.seeds) < 6]
    return (*told, *([f"Exploratory: fewer than 6 seeds ({', '.join(few)})."] if few else []))
