"""What the Hugging Face hub is told of a run: an adapter's card, `.eval_results/*.yaml`, and a card's `model-index`.

A model repository holds one checkpoint, so both are of one run, with the interval of that checkpoint. Generated
miniatures are no public benchmark: `.eval_results`, from which the hub makes boards, are refused for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpt_bench.board.rescoring import Samples, other_rule, rescored
from mmpt_bench.common.errors import RequestError, UntrustedRecord, unknown_name
from mmpt_bench.common.words import counted
from mmpt_bench.data.rows import OTHER_ROWS, SHIFTED, world_of
from mmpt_bench.evaluation.task import Task
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store

PIPELINE = "image-text-to-text"
"""The hub's name for what these models do."""

HUB_METRICS = {"accuracy": "accuracy", "f1_mean": "f1"}
"""Headline -> name of a metric of the hub; others keep their own."""


def results_of(store: Store, run: str, tasks: Mapping[str, Task]) -> list[Record]:
    """Returns the finished results of a run, scored again from their answers, in the order of the tasks.

    Args:
        store: the results folder.
        run: name of the run, or the beginning of one alone.
        tasks: by name.

    Raises:
        RequestError: there is no such run, or several, or nothing of it is finished on all questions.
        UntrustedRecord: a record contradicts its own answers.
    """
    records = store.records()
    names = sorted({record.run for record in records})
    if not names:
        raise RequestError(f"Nothing is recorded in `{store.root}`: `mmpt-bench run --method all` makes something.")
    match = [name for name in names if name.startswith(run)]
    if len(match) != 1 and run not in names:
        several = f" It begins {len(match)} names." if match else ""
        error = unknown_name("run", run, names, "`mmpt-bench ls runs` lists them.")
        raise RequestError(f"{error}{several}")
    name = run if run in names else match[0]
    of_run = [record for record in records if record.run == name and record.status == "ok"]
    of_run = [record for record in of_run if not record.asking]
    whole = [r for r in of_run if r.limit is None and r.task in tasks and r.task_version == tasks[r.task].version]
    # Of a task that several parse rules read, its own counts: two scores of one task would stand side by side.
    own = {record.task for record in whole if not other_rule(record, tasks)}
    whole = [record for record in whole if record.task not in own or not other_rule(record, tasks)]
    if not whole:
        raise RequestError(
            f"`{name}` has no finished result on all questions of a built-in task: run it without `--smoke`, "
            "`--limit`, `--few-shot` and `--system` to publish it. Results of your own tasks are not published."
        )
    samples = Samples(store)
    for record in whole:
        rescored(record, tasks[record.task], samples)
    order = list(tasks)
    return sorted(whole, key=lambda record: order.index(record.task))


def eval_results(records: Sequence[Record], tasks: Mapping[str, Task]) -> str:
    """Returns the YAML of a file in `.eval_results/`, as huggingface_hub writes and reads it.

    Raises:
        RequestError: results on generated data, on other rows than the official ones, or on fewer of them.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

    entries = []
    for record in records:
        task = tasks[record.task]
        if record.suite != "real":
            raise RequestError(
                f"`{record.task}` of `{record.run}` is a generated miniature, not {task.data.hub}: `.eval_results` are "
                "for the public data set. `--format model-index` can say what it is."
            )
        if OTHER_ROWS in record.dataset or (record.dataset.startswith("`") and not _is_from_hub(record, task)):
            raise RequestError(
                f"`{record.task}` of `{record.run}` asked {record.dataset}: it cannot be published as {task.data.hub}."
            )
        if task.data.official.rows not in (None, record.n):
            raise RequestError(
                f"`{record.task}` of `{record.run}` asked {record.n:,} questions, the official split has "
                f"{task.data.official.rows:,}: it cannot be published as {task.data.hub}."
            )
        entries.append(
            EvalResultEntry(
                dataset_id=task.data.hub,
                task_id=task.data.config or "default",
                value=_value(record, task),
                dataset_revision=task.data.revision if _is_from_hub(record, task) else None,
                date=record.time,
                notes=_notes(record, task),
            )
        )
    plain = eval_result_entries_to_yaml(entries)
    if parse_eval_result_entries(plain) != entries:
        raise UntrustedRecord("huggingface_hub does not read these results as it wrote them; report this.")
    return _yaml(plain)


def model_index(records: Sequence[Record], tasks: Mapping[str, Task]) -> str:
    """Returns the YAML of a model card's `model-index`, as huggingface_hub writes and reads it."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    results = []
    for record in records:
        task = tasks[record.task]
        is_real = record.suite == "real"
        world = SHIFTED if is_real else world_of(record.suite)
        told = "" if world == SHIFTED else f", {world} world"
        results.append(
            EvalResult(
                task_type=PIPELINE,
                dataset_type=task.data.hub if is_real else f"mmpt-bench-{record.suite}-{task.name.replace('_', '-')}",
                dataset_name=task.title if is_real else f"{task.title} (generated miniature of mmpt-bench{told})",
                dataset_config=task.data.config if is_real else None,
                dataset_split=record.split,
                dataset_revision=task.data.revision if _is_from_hub(record, task) else None,
                metric_type=HUB_METRICS.get(record.headline, record.headline),
                metric_name=_notes(record, task),
                metric_value=_value(record, task),
                verified=False,
            )
        )
    index = eval_results_to_model_index(records[0].run, results)
    name, read = model_index_to_eval_results(index)
    if name != records[0].run or len(read) != len(results):
        raise UntrustedRecord("huggingface_hub does not read this model-index as it wrote it; report this.")
    return _yaml({"model-index": index})


def _value(record: Record, task: Task) -> float:
    """Returns the score as the field prints it: points, or percent."""
    assert record.score is not None
    return round(record.score if task.declared.unit == "points" else 100 * record.score, 4)


def _notes(record: Record, task: Task) -> str:
    scale, unit = (1.0, "points") if task.declared.unit == "points" else (100.0, "percent")
    said = [f"{record.headline}, {unit}"]
    if record.interval is not None:
        low, high = (scale * end for end in record.interval)
        said.append(f"95 % interval over images {low:z.1f} to {high:z.1f}")
    way = "reply" if record.decode == "generate" else "most probable legal answer"
    said += [f"{counted(record.n, 'question')}", f"answers by {way}", f"{record.method}, seed {record.seed}"]
    said += [f"parse rule {record.parse_rule}"] if record.parse_rule != task.rule else []
    if not _is_from_hub(record, task):
        real = record.dataset if record.dataset.startswith("`") else "a local copy"
        said.append(f"data {record.data_fingerprint[:12]} ({real if record.suite == 'real' else 'generated'})")
    return "; ".join(said)


def _is_from_hub(record: Record, task: Task) -> bool:
    """Returns whether the questions were read from the hub at the task's commit, not from a folder."""
    return record.suite == "real" and record.dataset.startswith(f"`{task.data.hub}` at {task.data.revision[:8]}")


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)
