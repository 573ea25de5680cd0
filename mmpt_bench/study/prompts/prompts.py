"""Prompt forms compared: each asks the same items of the same models, in several orders of the labels.

Models are trained, and asked in the task's own words, by the one runner; what a form adds is kept beside their answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

from mmpt_bench.common.errors import Interrupted, RequestError, UntrustedRecord, unknown_name
from mmpt_bench.common.files import append_jsonl, read_jsonl
from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.locks import LONGEST_WAIT
from mmpt_bench.data.examples import Exchange
from mmpt_bench.data.rows import is_generated
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.forms import PromptForm
from mmpt_bench.evaluation.task import OFFICIAL
from mmpt_bench.records.budget import unusual_told
from mmpt_bench.records.run_folder import RunFolder, check_sum, summed
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.option_texts import Names, comma_text
from mmpt_bench.runs.options import Options, make_request
from mmpt_bench.runs.plan import Job, Plan, plan
from mmpt_bench.runs.stages import attached
from mmpt_bench.sources.prepared import PreparedTask
from mmpt_bench.sources.task_rows import samples
from mmpt_bench.study.prompts.board import Said, prompt_rows
from mmpt_bench.study.prompts.tables import PromptResult, write_prompts

if TYPE_CHECKING:
    from mmpt_bench.engine.models.backbone import Backbone

REASONING_TOKENS = 128
"""Longest free text, in tokens, that a form asks for first."""
ORDERS = 3


def prompts(
    task: str,
    method: Names = "frozen,mmpt",
    forms: Names = "all",
    *,
    orders: int = ORDERS,
    reasoning_tokens: int = REASONING_TOKENS,
    command: str = "",
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[Options],
) -> PromptResult:
    """Asks a task's items in several forms of prompts, and returns how the forms differ.

        made = mb.prompts("snli_ve", ["frozen", "mmpt"], ["plain", "if-then"], seeds=range(6))
        made.table                   # a row a method and form: score, difference from the first form, tokens

    Args:
        task: a name or a file; its `forms`, or those of the embedded suite.
        method: names or files; what is not trained yet is trained.
        forms: names; the first is what others are compared with. "all": all of the task's.
        orders: of the labels; each item is asked in all of them.
        reasoning_tokens: longest free text, where a form asks for some first.
        command: what makes the comparison again, for its table.
        reporter: is told of every event, as in `run`.
        stopping: asked after every step and batch, as in `run`.
        options: as in `run`.

    Raises:
        RequestError, MachineError, UntrustedRecord: as `run` does; and for a task without such a form.
    """
    from mmpt_bench.runs.execute import execute

    request = make_request(method, task, options).plainly("prompts")
    if len(request.tasks) != 1:
        raise RequestError(f"`{task}` is several tasks: forms are compared on one.")
    if orders < 1 or reasoning_tokens < 1:
        raise RequestError("`--orders` and `--reasoning-tokens` are 1 or more.")
    store, report = Store(request.out), reporter or Reporter()
    store.check_writable()
    planned = plan(request, store)
    (item,) = planned.prepared.tasks.values()
    if item.faults:
        raise RequestError(f"{item.task.title}: {item.failure}")
    chosen = _chosen(item, comma_text(forms))
    n_orders = _possible_orders(orders, item, chosen, report)
    asked = {name: Asked.of(item, name, form, n_orders, reasoning_tokens) for name, form in chosen}
    report.planned([planned])
    failed = tuple(record for record in execute([planned], store, report, stopping) if record.status == "failed")
    said = list(_said(planned, store, asked, report, stopping))
    told = {name: [form.form.ask, form.form.first, *form.form.each.items()] for name, form in asked.items()}
    trained = [job.recipe.train_key for job in planned.jobs]
    read = [item.task.rule] if options.get("parse", OFFICIAL) != OFFICIAL else []
    name = f"{item.task.name}-{content_key([item.asked, told, trained, n_orders, reasoning_tokens, *read], 6)}"
    first = next(iter(asked.values()))
    rows = prompt_rows(item.task, first.by_order[0], said)
    budgets = unusual_told({job.label: job.recipe.budget for job in planned.jobs if job.method.trains})
    result = PromptResult(name, item.task, item.rows.origin, store.root, rows, failed, command, tuple(budgets))
    write_prompts(store, result)
    return result


@dataclass(frozen=True)
class Asked:
    """What a form asks: each item in each order of the labels."""

    form: PromptForm
    by_order: tuple[list[Sample], ...]
    """The items, each order in the same order of items."""
    before: tuple[list[Sample], ...]
    """What is asked first of each; empty where the form asks nothing first."""
    reasoning_tokens: int

    @classmethod
    def of(cls, item: PreparedTask, name: str, form: PromptForm, n_orders: int, reasoning_tokens: int) -> Asked:
        """Returns what a form asks of a task's items; RequestError where it cannot be written for some of them."""

        def made(order: int, first: bool) -> list[Sample]:
            task = item.task.asking(form, order, n_orders, first)
            written = {one.id: one for one in samples(task, replace(item.rows, origin=f"form `{name}`"), item.limit)}
            return [replace(one, question=written[one.id].question, wording="") for one in item.samples]

        by_order = tuple(made(order, False) for order in range(n_orders))
        before = tuple(made(order, True) for order in range(n_orders)) if form.first else ()
        return cls(form, by_order, before, reasoning_tokens)


def _possible_orders(
    orders: int, item: PreparedTask, chosen: Sequence[tuple[str, PromptForm]], report: Reporter
) -> int:
    """Returns how many of so many orders all forms have, so that their answers are counted alike; fewer are said."""
    found = min(orders, *(len(form.options or one.choices) for one in item.samples for _, form in chosen))
    if found < orders:
        report.said(f"{item.task.title} is asked in {found} orders, not {orders:,}: its labels have no more")
    return found


def _chosen(item: PreparedTask, names: str) -> list[tuple[str, PromptForm]]:
    """Returns the forms that are asked for; RequestError for one that there is not."""
    if any(sample.more_images or sample.system or not sample.choices for sample in item.samples):
        raise RequestError(
            f"{item.task.title} cannot be asked in forms: they are for one image, choices, and no turn of the system."
        )
    task, known = item.task, item.forms
    if not known:
        raise RequestError(f"`{task.name}` has no forms of prompts: give its `mb.Task` some, `forms=...`.")
    if names.strip() == "all":
        return list(known.items())
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    closed = (
        " The embedded suite's vocabulary is closed: no form of it writes free text."
        if is_generated(item.rows.suite)
        else ""
    )
    for name in wanted:
        if name not in known:
            raise unknown_name("form", name, known, f"{task.title} has {', '.join(f'`{n}`' for n in known)}.{closed}")
    if len(set(wanted)) < len(wanted) or not wanted:
        raise RequestError(f"`--forms {names}`: name each form once.")
    return [(name, known[name]) for name in wanted]


def _said(
    planned: Plan, store: Store, asked: Mapping[str, Asked], report: Reporter, stopping: Callable[[], bool]
) -> Iterator[Said]:
    """Yields what each model said to each form; a model whose training failed says nothing."""
    from mmpt_bench.runs.session import loaded_backbone

    (item,) = planned.prepared.tasks.values()
    backbone = loaded_backbone(planned)
    for job in planned.jobs:
        folder = store.run(job.recipe.run_name)
        if job.method.trains and not folder.is_trained:
            continue
        with folder.lock(LONGEST_WAIT, stopping), attached(backbone, job.method, job.recipe.seed, folder):
            replies = Replies(backbone, item, folder, planned.request.eval_batch, stopping, report.said)
            for number, (name, form) in enumerate(asked.items()):
                report.evaluated(job, item.task.name, number, len(asked))
                yield _of_form(replies, job, name, form)
            report.evaluated(job, item.task.name, len(asked), len(asked))


def _of_form(replies: Replies, job: Job, name: str, asked: Asked) -> Said:
    """Returns what a model said to a form."""
    items = [sample for of_order in asked.by_order for sample in of_order]
    turns = [Turn(sample, replies.item.task.max_new_tokens) for sample in items]
    free: list[Reply] = []
    if asked.before:
        wanted = [replace(sample, choices=()) for of_order in asked.before for sample in of_order]
        free = replies.to([Turn(sample, asked.reasoning_tokens) for sample in wanted])
        turns = [
            replace(turn, earlier=(Exchange(sample.question, reply.text),))
            for turn, sample, reply in zip(turns, wanted, free, strict=True)
        ]
    made = replies.to(turns)
    n, orders = len(asked.by_order[0]), range(len(asked.by_order))
    return Said(
        job.label,
        job.recipe.seed if job.method.trains else None,
        name,
        asked.form.names_labels,
        tuple([reply.text for reply in made[k * n : (k + 1) * n]] for k in orders),
        tuple([made[k * n + i].best(one) for i, one in enumerate(asked.by_order[k])] for k in orders),
        sum(reply.prompt_tokens for reply in (*free, *made)) / len(made),
        sum(reply.reply_tokens for reply in (*free, *made)) / len(made),
    )  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """A question to a model, after earlier exchanges."""

    sample: Sample
    """With the question, the image, and the labels that are ranked; without labels none is."""
    new_tokens: int
    earlier: tuple[Exchange, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a model said to a turn."""

    text: str
    logprobs: tuple[float, ...]
    prompt_tokens: int
    """Those of the prompt's text: the image counts as one."""
    reply_tokens: int

    def best(self, sample: Sample) -> str:
        """Returns the most probable label."""
        return sample.choices[self.logprobs.index(max(self.logprobs))]


@dataclass(frozen=True)
class Replies:
    """What a run said to turns: kept in its folder by what was asked, so that nothing is asked twice."""

    backbone: Backbone
    item: PreparedTask
    folder: RunFolder
    eval_batch: int
    stopping: Callable[[], bool]
    say: Callable[[str], None]

    def to(self, turns: Sequence[Turn]) -> list[Reply]:
        """Returns the reply to each turn; those that are not kept yet are asked for and kept.

        Raises:
            Interrupted: `stopping` said so; what was answered is kept.
            UntrustedRecord: a kept line is damaged.
        """
        path = self.folder.path(f"prompts-{self.item.task.name}.jsonl")
        keys, known = [self._key(turn) for turn in turns], dict(self._kept())
        todo = {key: turn for key, turn in zip(keys, turns, strict=True) if key not in known}
        for made in self._asked(todo):
            append_jsonl(path, *(summed({"key": key, **vars(reply)}) for key, reply in made.items()))
            known |= made
            if self.stopping() and any(key not in known for key in keys):
                raise Interrupted(f"{len(known):,} prompts of {self.item.task.title} are answered")
        return [known[key] for key in keys]

    def _key(self, turn: Turn) -> str:
        said = [[one.question, one.reply] for one in turn.earlier]
        guard = [] if self.item.guard else ["no guard"]
        asked = [turn.sample.image.key, turn.sample.question, list(turn.sample.choices), turn.new_tokens]
        return content_key([self.item.rows.fingerprint, *asked, said, *guard], 24)

    def _kept(self) -> Iterator[tuple[str, Reply]]:
        path = self.folder.path(f"prompts-{self.item.task.name}.jsonl")
        for number, row in enumerate(read_jsonl(path), start=1):
            try:
                check_sum(row)
                logprobs = tuple(map(float, row["logprobs"]))
                yield row["key"], Reply(str(row["text"]), logprobs, int(row["prompt_tokens"]), int(row["reply_tokens"]))
            except (KeyError, TypeError, ValueError) as error:
                raise UntrustedRecord(
                    f"Line {number} of `{path.name}` in `{self.folder.name}` is damaged: {str(error)[:100]}. Remove "
                    "that line: its prompt is asked again."
                ) from error

    def _asked(self, todo: Mapping[str, Turn]) -> Iterator[dict[str, Reply]]:
        """Yields replies by key, a batch at a time."""
        from mmpt_bench.engine.inference.plain import Question
        from mmpt_bench.engine.inference.predict import InferenceOptions, answers, check_finite

        images = content_key([self.item.asked, "forms"])
        options = InferenceOptions(self.eval_batch, images, self.item.guard, self.say)
        by_length: dict[int, dict[int, str]] = {}
        questions: dict[int, list[Any]] = {}
        for key, turn in todo.items():
            asked = Question(self.backbone.prompt_text(turn.sample.question, turn.earlier), [turn.sample])
            questions.setdefault(turn.new_tokens, []).append(asked)
            by_length.setdefault(turn.new_tokens, {})[id(asked)] = key
        tokenizer = self.backbone.processor.tokenizer
        for new_tokens, asked_now in questions.items():
            for batch in answers(self.backbone, self.item.task.title, new_tokens, asked_now, options):
                made = {}
                for one, (text, logprobs) in batch:
                    check_finite(one.first, logprobs)
                    (row,) = self.backbone.tokens([one.prompt], n_image_tokens=1)
                    said = len(tokenizer(text, add_special_tokens=False)["input_ids"])
                    made[by_length[new_tokens][id(one)]] = Reply(text, logprobs, len(row.ids), said)
                yield made
