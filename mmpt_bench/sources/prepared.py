"""What a request runs on, resolved once: rows and samples of each task, training data, the backbone's fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmpt_bench.common.checking import CheckFailed, CheckResult, outcome
from mmpt_bench.common.entries import Entry, own_fingerprint
from mmpt_bench.common.errors import MachineError, RequestError, unknown_name
from mmpt_bench.common.words import counted
from mmpt_bench.data.examples import Corpus
from mmpt_bench.data.rows import Rows, is_generated
from mmpt_bench.data.samples import Sample, Shot
from mmpt_bench.data.tables import first_of
from mmpt_bench.embedded.prompts import FORMS
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.forms import PromptForm
from mmpt_bench.evaluation.functions import FunctionMetric
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records import keys
from mmpt_bench.sources.corpora import TrainData, load_corpus
from mmpt_bench.sources.opened_images import OpenedImages
from mmpt_bench.sources.task_rows import Where, check_countable, on_part, rows_of, samples
from mmpt_bench.sources.weights import DTYPES, backbone_fingerprint

LEAVE_OUT = "`--on-bad-item skip` leaves them out for all methods alike."


@dataclass(frozen=True)
class PreparedTask:
    """A task and its samples, loaded once for all runs."""

    task: Task
    rows: Rows
    samples: list[Sample]
    limit: int | None
    own: str = ""
    """SHA-256 of the task's file where it is a user's own, which may change without a new version."""
    guard: bool = True
    """False where close calls of half precision are not asked again, whose replies may be others."""
    opened: OpenedImages | None = None
    """What was found of its images; None where they are generated."""
    faults: tuple[str, ...] = ()
    """Images and questions that cannot be asked, each with the reason: the task is recorded as failed."""
    shots: tuple[Shot, ...] = ()
    """Solved examples before every question."""
    judge: Mapping[str, Any] = field(default_factory=dict)
    """Who judges its answers, as in a record's `asking`; empty where nobody does."""
    asked_with: tuple[str, ...] = ()
    """Names what stands before every question, for keys; empty where nothing does."""

    @property
    def failure(self) -> str:
        """Returns why it cannot be scored; empty where it can."""
        if not self.faults:
            return ""
        n = len({image.key for sample in self.samples for image in sample.images})
        return f"{len(self.faults):,} of {counted(n, 'image')} cannot be used: {first_of(self.faults)}. {LEAVE_OUT}"

    @property
    def forms(self) -> Mapping[str, PromptForm]:
        """Returns the forms of prompts by name: the task's, or those in words that the embedded model knows."""
        generated = is_generated(self.rows.suite) and self.task.data.make_rows is None
        return FORMS.get(self.task.name, {}) if generated else self.task.forms

    @property
    def asked(self) -> list[Any]:
        """Returns what names the replies to it (`keys.asked`)."""
        task, more = self.task, [self.own] if self.own else []
        more += [*([] if self.guard else ["no guard"]), *self.asked_with]
        named, fingerprint = (task.name, task.version), self.rows.fingerprint
        return keys.asked(named, fingerprint, task.data.split, task.decode, task.max_new_tokens, self.limit, *more)

    def eval_key(self, train_key: str) -> str:
        """Names the result of a training on this task, under its parse rule and by its judge."""
        judge = [self.judge] if self.judge else []
        return keys.eval_key(train_key, [*self.asked, *judge], self.task.rule)

    def replies_key(self, train_key: str) -> str:
        """Names the replies of a training to this task: another parse rule reads them anew and asks nothing."""
        return keys.replies_key(train_key, self.asked)


@dataclass(frozen=True)
class Prepared:
    """Everything that is read before a model is loaded."""

    tasks: dict[str, PreparedTask]
    corpus: Corpus
    backbone_fingerprint: str
    probe: dict[str, PreparedTask] = field(default_factory=dict)
    """Dev parts of tasks that are looked at during training; empty where none is."""
    before: tuple[Corpus, ...] = ()
    """Training data of the stages before, of a stream."""

    @property
    def notes(self) -> list[str]:
        """Returns what a reader of the scores must know of rows and training data."""
        of_tasks = [f"{each.task.title}: {text}" for each in self.tasks.values() for text in each.rows.notes]
        failing = [each for each in self.tasks.values() if each.faults]
        of_tasks += [f"{each.task.title} cannot be scored: {each.failure}" for each in failing]
        of_corpus = list(self.corpus.notes)
        if bad := self.corpus.faults:
            of_corpus.append(f"{counted(len(bad), 'example')} cannot be used: {first_of(bad)}. {LEAVE_OUT}")
        return of_tasks + [f"Training data {self.corpus.name}: {text}" for text in of_corpus]


def prepare_tasks(
    entries: Sequence[Entry],
    where: Where,
    datasets: Mapping[str, str],
    rule: str,
    limit: int | None,
    guard: bool,
    skip: bool = False,
) -> dict[str, PreparedTask]:
    """Returns every task with its samples, before any model is loaded.

    Args:
        datasets: task -> name of other data of its form.
        limit: the first so many questions, and the others on their images.
        guard: close calls of half precision are asked again.
        skip: samples that the metric cannot count are no error yet: they will be left out.

    Raises:
        RequestError: data that cannot be used or scored, or a task without that parse rule.
        MachineError: data that is on the hub and cannot be had.
    """
    prepared = {}
    for entry in entries:
        task = task_catalog.load_task(entry).with_rule(rule)
        if entry.name in datasets:
            task = task.on(task.data.named(datasets[entry.name]))
        task = on_part(task, where)
        rows = rows_of(task, where)
        made = samples(task, rows, limit)
        if not skip:
            check_countable(task, made, rows.origin)
        judge = judge_setting(task, where.offline)
        prepared[task.name] = PreparedTask(task, rows, made, limit, own_fingerprint(entry), guard, judge=judge)
    return prepared


def judge_setting(task: Task, offline: bool) -> dict[str, Any]:
    """Returns who judges a task's answers, as in a record's `asking`; empty where nobody does.

    Raises:
        RequestError: there is no such model.
        MachineError: it is on the hub and cannot be had.
    """
    if not isinstance(task.metric, FunctionMetric) or (judge := task.metric.judge) is None:
        return {}
    if judge.dtype not in DTYPES:
        raise unknown_name(f"dtype of {task.title}'s judge", judge.dtype, DTYPES)
    try:
        return judge.setting(backbone_fingerprint(judge.model, offline))
    except RequestError as error:
        raise RequestError(f"The judge of {task.title}: {error}") from error


def check_judge(task: Task) -> list[CheckResult]:
    """Returns whether the model that judges a task's answers is there; nothing of a task that none judges."""
    if not isinstance(task.metric, FunctionMetric) or (judge := task.metric.judge) is None:
        return []

    def found() -> str:
        try:
            judge_setting(task, offline=True)
        except MachineError:
            return f"`{judge.model}` is not on this machine: `run` fetches it"
        except RequestError as error:
            raise CheckFailed(str(error)) from error
        return f"`{judge.model}`"

    return [outcome("its judge is there", found)]


def regions_of(task: Task, where: Where) -> list[tuple[int, ...]]:
    """Returns the cells (0..8) of what each question of a generated task names, a row each; nothing for other rows."""
    if not where.embedded or where.folder is not None or task.data.make_rows is not None:
        return []
    from mmpt_bench.embedded import suite

    return suite.regions(task.name)


def prepare(tasks: dict[str, PreparedTask], train: TrainData, backbone: str, offline: bool) -> Prepared:
    """Returns tasks with what is trained on and which files the backbone is; raises as these readers do."""
    return Prepared(tasks, load_corpus(train), backbone_fingerprint(backbone, offline))
