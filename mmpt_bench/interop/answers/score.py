"""Answers made elsewhere, scored: the questions they are to, what of the official split is missing, every figure.

The same parse rules, metrics and intervals as a run's. Where a file says what was asked, its own questions and labels
are taken; with the official rows (`--data`), each answer is matched to a row and the file's labels are checked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.words import counted, plural
from mmpt_bench.data.samples import Sample
from mmpt_bench.data.tables import NAMED, bad_rows
from mmpt_bench.evaluation.counting import choices_text
from mmpt_bench.evaluation.replies import without_reasoning
from mmpt_bench.evaluation.scoring import DEGENERATE, counts_of_replies, figures, most_common_share
from mmpt_bench.evaluation.task import PLAIN, Task
from mmpt_bench.interop.answers.forms import GivenAnswer, GivenAnswers
from mmpt_bench.interop.answers.matching import matched, own_samples
from mmpt_bench.stats.intervals import Interval, cluster_bootstrap
from mmpt_bench.stats.resampling import Tally

OWN_WORDS = "questions and labels are the file's own; `--data DIR` holds them to the official rows"
"""Note on answers that were scored without the official rows."""


@dataclass(frozen=True)
class Scorecard:
    """What a file of answers is worth."""

    task: str
    title: str
    form: str
    """The form the answers came in."""
    rule: str
    """Name of the parse rule."""
    n: int
    n_pictures: int | None
    """None where the file does not say which questions share an image."""
    n_unparsed: int
    """Replies in which a person reads no legal answer."""
    n_read_otherwise: int
    """Replies in which a person reads another answer than the parse rule, or one of the two reads none."""
    n_reasoning: int
    """Replies with reasoning in tags, which is cut off before they are read."""
    n_unfinished: int
    """Those whose reasoning does not end: they give no answer."""
    headline: str
    unit: str
    """Of the headline."""
    units: dict[str, str]
    """Of every figure."""
    ceiling: float
    chance: float
    values: dict[str, float]
    """Every figure that is defined: fractions, and points where the benchmark counts points."""
    intervals: dict[str, Interval]
    """95 %, from resampling images; empty where the images are not known."""
    counts: dict[str, float]
    """What the figures are made of, summed: "right/count", "TP/random"."""
    missing: tuple[str, ...]
    """What of the official split is not there; empty for a whole one."""
    notes: tuple[str, ...] = field(default=())

    @property
    def comparable(self) -> bool:
        """Returns whether the headline figure is one of the official split, and so comparable with published ones."""
        return not self.missing


def score_answers(task: Task, given: GivenAnswers, official: Sequence[Sample] | None = None) -> Scorecard:
    """Returns the figures of answers made elsewhere, under the task's parse rule.

    Args:
        given: the answers, from `read_answers`.
        official: the samples of the official split, to match the answers to; by default the file's own words count.

    Raises:
        RequestError: a line that does not say what it answers, a subtask or strategy that the benchmark has not, an id
            with two replies, a label that is not the official one, an answer to no official question, or an MME image
            with one question.
    """
    notes = list(given.notes)
    if official is None:
        samples, pictures_known = own_samples(task, given)
        notes.append(OWN_WORDS)
        _check_groups(task, samples)
        samples, told = _numbered(task, samples, given)
        notes += told
    else:
        samples, pictures_known = matched(task, given, official), True
    samples, replies, repeated = _once(samples, given)
    if repeated:
        notes.append(
            f"{counted(repeated, 'line')} repeat{'s' * (repeated == 1)} another one to the letter, and "
            f"count{'s' * (repeated == 1)} once"
        )
    choices = [task.read(reply, sample.choices) for sample, reply in zip(samples, replies, strict=True)]
    try:
        sheet = task.metric.coded(samples)
        tally = sheet.tally(choices)
    except ValueError as error:
        raise RequestError(f"These answers cannot be scored as {task.title}: {str(error).rstrip('.')}.") from error
    values = figures(task, sheet.sums(sheet.codes(choices_text(samples, choices))), sheet.columns)
    if not pictures_known:
        notes.append("the file does not say which questions share an image, so that there are no intervals")
    if (share := most_common_share(choices)) > DEGENERATE:
        notes.append(f"degenerate: {share:.1%} of the answers are the same")
    of_replies = counts_of_replies(task, samples, replies)
    notes += [*_notes_on_replies(task, samples, replies, of_replies), *_notes_on_parts(task, samples)]
    return Scorecard(
        task=task.name,
        title=task.title,
        form=given.form,
        rule=task.rule,
        n=len(samples),
        n_pictures=len(set(tally.clusters)) if pictures_known else None,
        **of_replies,
        headline=task.headline,
        unit=task.declared.unit,
        units={name: task.metric.declared(name).unit for name in values},
        ceiling=task.metric.ceiling(samples),
        chance=task.metric.chance(samples),
        values=values,
        intervals=cluster_bootstrap(tally, task.metric.values, task=task.name) if pictures_known else {},
        counts=_counts(tally),
        missing=tuple(_missing(task, samples, official)),
        notes=tuple(notes),
    )


def _notes_on_replies(task: Task, samples: Sequence[Sample], replies: Sequence[str], n: dict[str, int]) -> list[str]:
    """Returns what was done to replies before they were read, and where the rule reads otherwise than a person."""
    notes = []
    if n["n_reasoning"]:
        unfinished = f"; in {n['n_unfinished']:,} it does not end, and they give no answer" if n["n_unfinished"] else ""
        notes.append(
            f"{counted(n['n_reasoning'], 'reply', 'replies')} {plural(n['n_reasoning'], 'holds', 'hold')} "
            f"reasoning in tags, which is cut off{unfinished}"
        )
    if n["n_read_otherwise"]:
        one = next(
            reply
            for reply, sample in zip(replies, samples, strict=True)
            if task.read(reply, sample.choices) != task.read_plainly(reply, sample.choices)
        )
        notes.append(
            f"in {counted(n['n_read_otherwise'], 'reply', 'replies')} "
            f"({n['n_read_otherwise'] / len(replies):.2%}) a person reads another "
            f"answer than the rule `{task.rule}`, the first `{' '.join(one.split())[:60]}`; `--parse {PLAIN}` reads as "
            "a person does"
        )
    said = [without_reasoning(reply) or "" for reply in replies]
    n_yes_no = sum(
        {choice.lower() for choice in sample.choices} == {"true", "false"}
        and re.search(r"\b(?:yes|no)\b", reply, re.IGNORECASE) is not None
        and re.search(r"\b(?:true|false)\b", reply, re.IGNORECASE) is None
        for reply, sample in zip(said, samples, strict=True)
    )
    if n_yes_no:
        notes.append(
            f"{counted(n_yes_no, 'reply', 'replies')} {plural(n_yes_no, 'says', 'say')} yes or no: read as "
            f"true and false"
        )
    n_numbers = sum(
        re.fullmatch(r"\W*\d+(?:\.0+)?\W*", reply) is not None and not any(map(str.isdigit, sample.choices))
        for reply, sample in zip(said, samples, strict=True)
    )
    if n_numbers:
        names = ", ".join(f"`{choice}`" for choice in samples[0].choices[:3])
        notes.append(
            f"{counted(n_numbers, 'reply is a number', 'replies are numbers')}, and the answers are names "
            f"({names}, ...): a number is not read as a "
            "class, since nothing says whether it counts from 0 or from 1. Write the name in its place"
        )
    return notes


def _numbered(task: Task, samples: Sequence[Sample], given: GivenAnswers) -> tuple[list[Sample], list[str]]:
    """Returns the samples of lines, and what is said of those that ask of an image what another line asks.

    A line without a number or an id is known by what it asks. The official split may ask something twice, and then as
    many lines may; where it never does, such lines are to one question, and get its id.

    Raises:
        RequestError: more lines ask what another asks than rows of the official split do.
    """
    first: dict[tuple[str, str, str], tuple[Sample, GivenAnswer]] = {}
    made, twice, numbered = list(samples), [], 0
    for place, (sample, answer) in enumerate(zip(samples, given.answers, strict=True)):
        known, other = first.setdefault((sample.group, sample.cluster, sample.question), (sample, answer))
        if other is answer:
            continue
        if answer.number is not None or sample.id != str(place):
            numbered += known.id != sample.id
        else:
            twice.append(f"{other.where} and {answer.where}")
            made[place] = replace(sample, id=known.id)
    allowed = task.data.official.repeated
    notes = (
        [
            f"{counted(numbered, 'line asks', 'lines ask')} what another line asks, under a number of "
            f"{plural(numbered, 'its', 'their')} own"
        ]
        if numbered
        else []
    )
    if not twice or allowed == 0:
        return made, notes
    if allowed is not None and len(twice) > allowed:
        raise bad_rows(
            "these answers",
            f"line says|lines say of an image what another line says, and {allowed} rows of the official split do",
            twice,
            "Say which row each line is: give its number as `index`, or pass the official rows, `--data DIR`.",
        )
    known_of = "" if allowed is None else f", as {allowed} rows of the official split do"
    return list(samples), [
        *notes,
        f"{counted(len(twice), 'line asks', 'lines ask')} of an image what another line asks{known_of}: each counts",
    ]


def _once(samples: Sequence[Sample], given: GivenAnswers) -> tuple[list[Sample], list[str], int]:
    """Returns each sample once with its reply, and how many lines repeated another; refuses two replies to one."""
    kept: dict[str, tuple[Sample, GivenAnswer]] = {}
    faults = []
    for sample, answer in zip(samples, given.answers, strict=True):
        known = kept.setdefault(sample.id, (sample, answer))
        if (known[1].reply, _asked(known[0])) != (answer.reply, _asked(sample)):
            faults.append(f"`{sample.id}` in {known[1].where} and {answer.where}")
    if faults:
        raise bad_rows("these answers", "question is|questions are there more than once with different content", faults)
    pairs = list(kept.values())
    return [s for s, _ in pairs], [a.reply for _, a in pairs], len(samples) - len(pairs)


def _asked(sample: Sample) -> tuple[str, str, str]:
    return sample.question, sample.answer, sample.cluster


def _check_groups(task: Task, samples: Sequence[Sample]) -> None:
    """Refuses a subtask or strategy that the benchmark has not: the file is of another one (RequestError)."""
    known = [group for group, _ in task.data.official.groups]
    for group in dict.fromkeys(sample.group for sample in samples):
        if known and group not in known:
            raise unknown_name(f"part of {task.title}", group, known, "Are these answers to another benchmark?")


def _missing(task: Task, samples: Sequence[Sample], official: Sequence[Sample] | None) -> list[str]:
    """Returns what the official split has and these samples have not, or the other way round, in words."""
    if official is not None:
        there = {sample.id for sample in samples}
        absent = [sample for sample in official if sample.id not in there]
        if not absent:
            return _counted(task, samples)
        groups = Counter(sample.group for sample in absent)
        whole = Counter(sample.group for sample in official)
        told = [f"{group or task.title}: {n:,} of {whole[group]:,} missing" for group, n in groups.items()]
        named = ", ".join(f"`{sample.id}`" for sample in absent[:NAMED])
        return [*told, f"first {min(NAMED, len(absent))} of {len(absent):,}: {named}"]
    return _counted(task, samples)


def _notes_on_parts(task: Task, samples: Sequence[Sample]) -> list[str]:
    """Returns what is said of answers to one part alone of a benchmark that has several, as of one file of POPE's."""
    parts = {sample.group for sample in samples}
    if len(task.data.official.groups) < 2 or len(parts) > 1:
        return []
    return [f"all answers are to one part of {task.title}, `{parts.pop()}`: `{task.headline}` is of that part alone"]


def _counted(task: Task, samples: Sequence[Sample]) -> list[str]:
    """Returns where numbers of questions are not those of the official split."""
    there = Counter(sample.group for sample in samples)
    told = [f"{g}: {there[g]:,} of {n:,} questions" for g, n in task.data.official.groups if there[g] != n]
    if not told and task.data.official.rows not in (None, len(samples)):
        told.append(f"{len(samples):,} of {task.data.official.rows:,} questions")
    return told


def _counts(tally: Tally) -> dict[str, float]:
    """Returns the sums of a tally, and with them TP, FP, TN and FN where "yes" is counted as positive."""
    sums = dict(zip(tally.columns, tally.counts.sum(axis=0).tolist(), strict=True))
    for name in [column for column in tally.columns if column.startswith("tp/")]:
        group = name.removeprefix("tp/")
        tp, fp = sums[name], sums[f"fp/{group}"]
        # An unreadable answer to a "no" question is neither a true nor a false negative: it is no "no".
        sums |= {f"TP/{group}": tp, f"FP/{group}": fp, f"TN/{group}": sums[f"right/{group}"] - tp}
        sums[f"FN/{group}"] = sums[f"positive/{group}"] - tp
    return sums
