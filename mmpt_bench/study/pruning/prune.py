"""Token pruning: trained models are asked again with a share of their image tokens, chosen in several ways.

Models are trained, and asked with the whole image, by the one runner; replies to pruned images are kept beside those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmpt_bench.board.board import asked_of
from mmpt_bench.common.errors import Interrupted, RequestError, UntrustedRecord
from mmpt_bench.common.files import append_jsonl, read_jsonl
from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.locks import LONGEST_WAIT
from mmpt_bench.common.words import counted, plural
from mmpt_bench.evaluation.pruning import CLS, Pruning, kept_shares, kinds_of, prunings, shares_of
from mmpt_bench.records.keys import replies_key
from mmpt_bench.records.run_folder import RunFolder, check_sum, summed
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.plan import Job, Plan, plan_given
from mmpt_bench.runs.request import Request
from mmpt_bench.runs.requested import requested
from mmpt_bench.runs.session import now
from mmpt_bench.runs.stages import attached
from mmpt_bench.sources.prepared import PreparedTask
from mmpt_bench.study.pruning.board import Said, prune_rows
from mmpt_bench.study.pruning.tables import PruneResult, write_pruning

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone

TIMES = "pruned-times.jsonl"
"""In a run's folder: what choosing and reading took, a line a pruning."""


def prune_given(
    given: Any,
    shares: str,
    kinds: str,
    command: str = "",
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> PruneResult:
    """Returns what `api.prune` does, and writes its tables; `given` is what `requested` takes.

    Raises as `api.prune` does: shares, kinds and the backbone's family are checked before anything is loaded.
    """
    from mmpt_bench.runs.execute import execute
    from mmpt_bench.runs.session import Loaded

    wanted, request = shares_of(shares), requested(*given)[0].plainly("--keep-tokens")
    chosen, of_kinds = kinds_of(kinds, _unfit(request))
    wanted, of_shares = kept_shares(wanted, request.reader().image_tokens())
    notes = [*of_kinds, *of_shares]
    store, report = Store(request.out), reporter or Reporter()
    store.check_writable()
    for note in notes:
        report.said(note)
    (planned,) = plan_given(given, store)
    report.planned([planned])
    loaded = Loaded(report)
    made = execute([planned], store, report, stopping, loaded=loaded)
    failed = tuple(record for record in made if record.status == "failed")
    asking = _Asking(planned, store, loaded, prunings(wanted, chosen), report, stopping)
    said = list(asking.said())
    rows = [
        row
        for item in planned.prepared.tasks.values()
        for row in prune_rows(item.task, item.samples, [each for each in said if each.task == item.task.name])
    ]
    asked = [item.asked for item in planned.prepared.tasks.values()]
    trained = [job.recipe.train_key for job in planned.jobs]
    read = sorted({item.task.rule for item in planned.prepared.tasks.values()})
    name = f"{'-'.join(planned.prepared.tasks)[:40]}-{content_key([asked, trained, wanted, chosen, read], 6)}"
    all_tasks = {item.task.name: item.task for item in planned.prepared.tasks.values()}
    of = planned.request
    source = f"{asked_of(f'{of.suite} suite', of.limit)}, {now()[:10]}"
    result = PruneResult(name, all_tasks, store.root, tuple(rows), tuple(notes), failed, command, source)
    return replace(result, files=write_pruning(store, result))


def _unfit(request: Request) -> dict[str, str]:
    """Returns kind -> why a request's backbone cannot be pruned so; RequestError where it cannot be pruned at all.

    Read off its configuration: no weight is loaded.
    """
    from mmpt_bench.engine.models.families import family

    reader = request.reader()
    known = family(reader.anatomy.family)
    if not known.one_size:
        raise RequestError(
            f"`--keep-tokens` needs images that all become one tile of one size, as LLaVA-1.5's do: of {known.title} "
            "no token is pruned."
        )
    config = reader.model.config
    if config.vision_feature_select_strategy != "default":
        return {
            CLS: f"the vision tower of `{request.backbone}` hands on all of its tokens, and none of them is a CLS token"
        }
    if not isinstance(config.vision_feature_layer, int):
        return {CLS: f"`{request.backbone}` reads several layers of its vision tower"}
    return {}


@dataclass(frozen=True)
class _Asking:
    """Runs that are asked under several prunings; what is answered already is not asked again."""

    planned: Plan
    store: Store
    loaded: Any
    prunings: list[Pruning]
    report: Reporter
    stopping: Callable[[], bool]

    def said(self) -> Iterator[Said]:
        """Yields what each run said to each task, whole and under every pruning; of a run that failed nothing."""
        for job in self.planned.jobs:
            folder = self.store.run(job.recipe.run_name)
            if job.method.trains and not folder.is_trained:
                continue
            items = [item for item in self.planned.prepared.tasks.values() if self._is_answered(job, folder, item)]
            made = {(item.task.name, p): self._kept(job, folder, item, p) for item in items for p in self._every()}
            if any(each is None for each in made.values()):
                made |= self._asked(job, folder, items)
            yield from (each for each in made.values() if each is not None)

    def _every(self) -> list[Pruning | None]:
        return [None, *self.prunings]

    def _is_answered(self, job: Job, folder: RunFolder, item: PreparedTask) -> bool:
        """Returns whether the task was asked with whole images, and did not fail."""
        return not item.faults and len(folder.predictions(item.task.name, self._key(job, item, None))) >= len(
            {sample.id for sample in item.samples}
        )

    def _key(self, job: Job, item: PreparedTask, pruning: Pruning | None) -> str:
        """Names the replies of a run under a pruning: of the whole image the ordinary ones."""
        return replies_key(job.recipe.train_key, [*item.asked, *([] if pruning is None else [pruning.name])])

    def _kept(self, job: Job, folder: RunFolder, item: PreparedTask, pruning: Pruning | None) -> Said | None:
        """Returns what a run said under a pruning, where all of it is kept already; else None."""
        key, task = self._key(job, item, pruning), item.task
        known, times = folder.predictions(_file(item, pruning), key), _times(folder).get(key)
        if times is None or any(sample.id not in known for sample in item.samples):
            return None
        choices = {sample.id: sample.choices for sample in item.samples}
        read = [replace(p, parsed=task.read(p.reply, choices[p.id])) for p in (known[s.id] for s in item.samples)]
        seed = job.recipe.seed if job.method.trains else None
        return Said(task.name, job.label, seed, pruning, times.tokens, tuple(read), times.choose, times.prefill)

    def _asked(
        self, job: Job, folder: RunFolder, items: Sequence[PreparedTask]
    ) -> dict[tuple[str, Pruning | None], Said | None]:
        """Asks what is not kept, measures times, and returns all that a run said."""
        backbone = self.loaded.of(self.planned)
        with folder.lock(LONGEST_WAIT, self.stopping), attached(backbone, job.method, job.recipe.seed, folder):
            for item in items:
                for number, pruning in enumerate(self._every()):
                    self.report.evaluated(job, item.task.name, number, len(self._every()))
                    self._ask(backbone, job, folder, item, pruning)
                self.report.evaluated(job, item.task.name, len(self._every()), len(self._every()))
        return {(item.task.name, p): self._kept(job, folder, item, p) for item in items for p in self._every()}

    def _ask(
        self, backbone: Backbone, job: Job, folder: RunFolder, item: PreparedTask, pruning: Pruning | None
    ) -> None:
        from mmpt_bench.engine.inference.predict import InferenceOptions, predict
        from mmpt_bench.engine.inference.pruning import TIMED, UNTIMED, prefill_seconds

        key, name = self._key(job, item, pruning), _file(item, pruning)
        known = folder.predictions(name, key)
        left = [sample for sample in item.samples if sample.id not in known]
        images, say = content_key(item.asked), self.report.said
        options = InferenceOptions(self.planned.request.eval_batch, images, item.guard, say, pruning, self.stopping)
        n_left = len(left)
        if self.stopping() and n_left:
            raise Interrupted(
                f"{counted(n_left, 'question')} of {item.task.title} {plural(n_left, 'is', 'are')} not answered yet"
            )
        for batch in predict(backbone, item.task, left, options):
            folder.append_predictions(name, key, batch)
            n_left -= len(batch)
            if self.stopping() and n_left:
                raise Interrupted(
                    f"{counted(n_left, 'question')} of {item.task.title} {plural(n_left, 'is', 'are')} not answered yet"
                )
        if key not in _times(folder):
            asked = [(sample, backbone.prompt_text(sample.question)) for sample in item.samples[: UNTIMED + TIMED]]
            choose, prefill = prefill_seconds(backbone, pruning, asked, images, self.stopping)
            tokens = backbone.image_tokens()
            tokens = tokens if pruning is None else pruning.count(tokens)
            append_jsonl(
                folder.path(TIMES), summed({"key": key, "tokens": tokens, "choose": choose, "prefill": prefill})
            )


def _file(item: PreparedTask, pruning: Pruning | None) -> str:
    return item.task.name if pruning is None else f"pruned-{item.task.name}"


@dataclass(frozen=True)
class _Times:
    tokens: int
    choose: float
    prefill: float


def _times(folder: RunFolder) -> dict[str, _Times]:
    """Returns what is kept of times, by the key of the replies; UntrustedRecord for a damaged line."""
    found: dict[str, _Times] = {}
    for number, row in enumerate(read_jsonl(folder.path(TIMES)), start=1):
        try:
            check_sum(row)
            found[str(row["key"])] = _Times(int(row["tokens"]), float(row["choose"]), float(row["prefill"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UntrustedRecord(
                f"Line {number} of `{TIMES}` in `{folder.name}` is damaged: {str(error)[:100]}. Remove that line: its "
                "time is measured again."
            ) from error
    return found
