"""From records to boards: methods side by side where they may be compared, with what the difference may claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmpt_bench.board.assembly import RESAMPLES, Evidence, assembled
from mmpt_bench.board.board import Board
from mmpt_bench.board.rescoring import Samples, by, check_track, known_tasks, one_edition, other_rule
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.data.rows import LEFT_OUT
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.ablations import varied_in_ablations
from mmpt_bench.records.keys import earlier_params
from mmpt_bench.records.recipe import STOPS, stops_at
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import read_all as read_streams


def boards(
    store: Store, tasks: Mapping[str, Task], n_resamples: int = RESAMPLES, records: Sequence[Record] | None = None
) -> tuple[Board, ...]:
    """Returns the boards of a results folder, as `evidence` does, without what they are made from."""
    return tuple(each.board for each in evidence(store, tasks, n_resamples, records))


DEPARTURES = {"objective", "after", "Reptile", STOPS}
"""What a label calls how a training departs from the usual."""


def evidence(
    store: Store, tasks: Mapping[str, Task], n_resamples: int = RESAMPLES, records: Sequence[Record] | None = None
) -> tuple[Evidence, ...]:
    """Returns the boards of a results folder, one for each track, limit and parse rule; the same for the same records.

    Replies that were read by another parse rule than their task's own are other measurements: they stand on a board of
    that rule, beside what the same runs have of tasks whose own rule it is.

    What an ablation alone asked for stands on the ablation's own board, and the leaderboard names it. The runs of
    streams stand in the streams' tables.

    Args:
        store: the results folder.
        tasks: every task that records may be of, by name, in the order of the columns.
        n_resamples: of every interval.
        records: what `store.records()` returned, where it is known already.

    Raises:
        UntrustedRecord: a record contradicts its own answers, samples or track.
    """
    records = store.records() if records is None else records
    for record in records:
        check_track(record)
    of_streams, bases = in_streams(store), {stream.base for stream in read_streams(store)}
    records = [record for record in records if record.run not in of_streams and "order" not in record.stage]
    samples, tasks = Samples(store), known_tasks(tasks, records)
    # The untuned model of a stream is a row of the leaderboard where others are beside it.
    groups = [group for group in _groups(store, records, tasks) if group.lost or {r.run for r in group.own} - bases]
    found = [_board(group, samples, tasks, n_resamples) for group in groups]
    return tuple(sorted(found, key=lambda each: _board_order(each.board)))


def in_streams(store: Store) -> dict[str, str]:
    """Returns run -> stream of every run that a stream is made of."""
    return {run: stream.name for stream in read_streams(store) for one in stream.trainings for run in one.runs}


def named(store: Store, tasks: Mapping[str, Task], records: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """Returns (variant, ablation or stream or "") of each finished record by its `eval_key`, called as on the board.

    What only an ablation asked for is called by all that differs from the defaults.
    """
    found: dict[str, tuple[str, str]] = {}
    tasks = known_tasks(tasks, records)
    # What stands on two boards is called as on that of its task's own rule.
    for group in sorted(_groups(store, records, tasks), key=lambda group: not group.rule):
        kept, _ = one_edition(group.own, tasks)
        every = _labels([*group.own, *group.lost, *(record for record, _ in group.varied)])
        labels = _labels([*group.own, *group.lost]) | _labels([*kept, *group.lost]) | _labels(kept)
        found |= {record.eval_key: (labels[_variant(record)], "") for record in group.own}
        found |= {record.eval_key: (every[_variant(record)], ablation) for record, ablation in group.varied}
    of_streams = in_streams(store)
    for record in records:
        if record.eval_key in found and record.run in of_streams:
            found[record.eval_key] = found[record.eval_key][0], of_streams[record.run]
    return found


@dataclass(frozen=True)
class _Group:
    """The records of one setting, limit and parse rule."""

    limit: int | None
    rule: str
    """Empty for the own rule of each task."""
    own: list[Record]
    """Of the leaderboard."""
    lost: list[Record]
    """Failures of the leaderboard's runs."""
    varied: list[tuple[Record, str]]
    """What an ablation alone asked for, and the ablation's name."""


def _groups(store: Store, records: Sequence[Record], tasks: Mapping[str, Task]) -> list[_Group]:
    varied = varied_in_ablations(store)
    done = [record for record in records if record.status == "ok"]
    failed = standing_failures(records)
    groups = by(done, [(record.track, record.limit, other_rule(record, tasks)) for record in done])
    for (track, limit, rule), group in groups.items():
        runs = {record.run for record in group} if rule else set()
        of_own = groups.get((track, limit, ""), [])
        group += [record for record in of_own if record.run in runs and record.parse_rule == rule]
    for record in failed:
        if not any(track == record.track and (not record.task or limit == record.limit) for track, limit, _ in groups):
            groups[record.track, record.limit if record.task else None, ""] = []
    found = []
    for (track, limit, rule), group in groups.items():
        # A training that failed is missing on every board of its setting, a task that failed on those of its limit.
        lost = [r for r in failed if r.track == track and r.variant_key not in varied]
        # An ablation reads by the own rule of each task.
        elsewhere = {} if rule else varied
        found.append(
            _Group(
                limit,
                rule,
                own=[record for record in group if record.variant_key not in elsewhere],
                lost=[r for r in lost if not r.task or r.limit == limit],
                varied=[(r, elsewhere[r.variant_key]) for r in group if r.variant_key in elsewhere],
            )
        )
    return found


def _elsewhere(ablations: Sequence[str]) -> list[str]:
    """Returns what is said of records that stand on the board of an ablation."""
    counts = Counter(ablations)
    return [f"{n} of the ablation `{name}`: see ablations/{name}.md." for name, n in sorted(counts.items())]


def _board_order(board: Board) -> tuple[str, str, str, str, int, str]:
    return board.suite, board.backbone, board.corpus, board.track, board.limit or 0, board.rule


def standing_failures(records: Sequence[Record]) -> list[Record]:
    """Returns the failures that no later success of the same run, or of its same task, has made history."""
    last_ok: dict[tuple[str, str, str], str] = {}
    for record in records:
        if record.status == "ok":
            for key in ((record.train_key, record.track, ""), (record.train_key, record.track, record.task)):
                last_ok[key] = max(record.time, last_ok.get(key, ""))
    return [
        r for r in records if r.status == "failed" and r.time >= last_ok.get((r.train_key, r.track, r.task), r.time)
    ]


def _board(group: _Group, samples: Samples, tasks: Mapping[str, Task], n_resamples: int) -> Evidence:
    kept, left_out = one_edition(group.own, tasks)
    labels = _labels([*kept, *group.lost]) | _labels(kept)
    rows = by(kept, [labels[_variant(record)] for record in kept])
    failures = by(group.lost, [labels[_variant(record)] for record in group.lost])
    first = [*group.own, *group.lost][0]
    fewer = sorted({f"Of `{r.task}`: {r.dataset}, as they cannot be used." for r in kept if LEFT_OUT in r.dataset})
    told = [*left_out, *fewer, *_elsewhere([ablation for _, ablation in group.varied])]
    return assembled(first, rows, failures, group.limit, samples, tasks, n_resamples, told)


def _labels(records: Sequence[Record]) -> dict[str, str]:
    """Returns a label for every variant: its method, and the hyperparameters that are not the method's defaults.

    What tells the method's variants apart is named for all of them. Learning rates, which are searched for each, are
    named where nothing else tells two variants apart, or where the user set them.
    """
    changed: dict[str, set[str]] = {}
    for record in records:
        if record.changed is not None:
            changed[_variant(record)] = changed.get(_variant(record), set(record.changed)) & set(record.changed)
    variants: dict[str, dict[str, Record]] = {}
    for record in records:
        variants.setdefault(record.method, {})[_variant(record)] = record
    labels = {}
    for method, of_method in variants.items():
        names = sorted({name for record in of_method.values() for name in _told(record)})
        texts = {name: {canonical_json(_told(r).get(name)) for r in of_method.values()} for name in names}
        telling = [name for name in names if len(texts[name]) > 1]
        asked = [name for name in telling if name != "learning_rate"]
        if len({canonical_json([_told(r).get(name) for name in asked]) for r in of_method.values()}) == len(of_method):
            telling = asked
        for variant, record in of_method.items():
            earlier = earlier_params(method, record.params)
            # Beside rows that depart from the usual, those that do not are called as before.
            usual = {*telling, *earlier, *changed.get(variant, ())} - DEPARTURES
            told = ", ".join(f"{name}={_told(record).get(name)}" for name in sorted(usual | _departures(record).keys()))
            labels[variant] = f"{method} ({told})" if told else method
    return labels


def _variant(record: Record) -> str:
    return canonical_json([record.method, _told(record)])


def _told(record: Record) -> dict[str, object]:
    """Returns what tells variants apart: hyperparameters, the file where the method is a user's own, and how
    the training departs from the usual."""
    file = {"file": record.method_fingerprint[:8]} if record.method_fingerprint else {}
    params = record.params | earlier_params(record.method, record.params)
    return params | file | _departures(record)


def _departures(record: Record) -> dict[str, object]:
    """Returns in words how a training departs from the usual: where it begins and ends, and from whom it learns."""
    stage = record.stage
    found: dict[str, object] = {"objective": _learnt(record.objective)} if record.objective else {}
    if "from" in stage:
        corpus, rate, batch_size = stage["of"]
        its = "" if stage["seed"] == record.seed else f" (seed {stage['seed']})"
        found["after"] = f"{stage['steps']} steps of {batch_size} on {corpus}{its} at {rate:g}"
    if "meta" in stage:
        found["Reptile"] = " ".join(stage["meta"])
    return found | stops_at(stage)


def _learnt(objective: Mapping[str, object]) -> str:
    """Returns what is learnt from a teacher, without what is usual: "kd:0.5, temperature:2.0 of full-0123"."""
    usual = {"temperature": 1.0, "divergence": "forward", "compute": "steps"}
    named = {name: value for name, value in objective.items() if not name.startswith("teacher")}
    parts = [f"{name}:{value}" for name, value in named.items() if usual.get(name) != value]
    return f"{', '.join(parts)} of {objective['teacher']}"
