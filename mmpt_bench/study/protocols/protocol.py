"""`mmpt-bench protocol`: trained models asked and read as a published paper does, in tables of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from mmpt_bench.common.errors import Interrupted, RequestError, unknown_name
from mmpt_bench.common.files import append_jsonl, read_jsonl, write_atomic
from mmpt_bench.common.hashing import content_key
from mmpt_bench.common.locks import LONGEST_WAIT
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.data.text_files import json_rows, text_of
from mmpt_bench.evaluation.protocols import (
    FILES,
    JUDGED,
    MME,
    PROTOCOLS,
    Item,
    Protocol,
    exact_match,
    written,
)
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.judging import known_verdicts
from mmpt_bench.runs.option_texts import Names, comma_text
from mmpt_bench.runs.options import Options
from mmpt_bench.runs.plan import Job, Plan, plan
from mmpt_bench.runs.request import Request
from mmpt_bench.runs.requested import requested
from mmpt_bench.runs.stages import attached
from mmpt_bench.study.protocols.board import Answered, protocol_rows
from mmpt_bench.study.protocols.items import ItemFile, item_files
from mmpt_bench.study.protocols.tables import FOLDER, ProtocolResult, write_protocol

EACH_TIME = 16
"""Replies that are written to the disk together."""


def protocol(
    name: str,
    method: Names = "frozen,mmpt",
    tasks: Names = "all",
    *,
    items: str | Path | None = None,
    judge: str | Path | None = None,
    sample_seed: int = 0,
    adapter: str | None = None,
    other_base: bool = False,
    command: str = "",
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[Options],
) -> ProtocolResult:
    """Asks and reads as a paper's authors do, and returns accuracies, MME points and MMAvg; trains nothing.

        mb.run("mmpt", "mme", backbone=folder, train_data="vision-flan", train_images=images)
        mb.protocol("m2pt", "frozen,mmpt", items="paper-items", backbone=folder, ...).table

    Args:
        name: "m2pt", "mixlora", "mrt".
        method: names or files; each must be trained already, by `run` with the same options.
        tasks: files of items, as in `text_vqa`, `pope_adv`; "all" for those that are there.
        items: folder of the authors' JSON lines and images; without it items are made of the tasks' rows.
        judge: file of verdicts, or a local model by folder or name, beside exact match.
        sample_seed: of the sampled replies.
        adapter: as in `run`, in place of `method`.
        other_base: as in `run`.
        command: what makes the table again, for the table.
        reporter: is told of every event, as in `run`.
        stopping: asked after every reply.
        options: as in `run`.

    Raises:
        RequestError: no such protocol, a method that is not trained, items that cannot be used, a missing verdict.
        MachineError, UntrustedRecord: as `run` does.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    wanted = _files(comma_text(tasks))
    request = replace(requested(method, "all", (adapter, other_base), None, options)[0].plainly("protocol"), tasks=())
    store, report = Store(request.out), reporter or Reporter()
    planned = _trained(request, store)
    files = _items(items, wanted, request, comma_text(tasks) != "all")
    answered = [
        each
        for job in planned.jobs
        for each in _of_run(planned, job, store, PROTOCOLS[name], files, sample_seed, report, stopping)
    ]
    keys = [each.key for each in answered]
    told = f"{name}-{content_key([keys, str(judge or '')], 6)}"
    write_replies(store, told, answered)
    verdicts = _verdicts(judge, store, told, answered, request, report, stopping)
    rows = protocol_rows(answered, verdicts)
    result = ProtocolResult(
        told, PROTOCOLS[name], sample_seed, tuple(files), store.root, rows, str(judge or ""), command
    )
    write_protocol(store, result)
    return result


def _files(tasks: str) -> list[str]:
    """Returns the files of items that are named; RequestError for one that there is not."""
    wanted = list(FILES) if tasks == "all" else [each.strip() for each in tasks.split(",") if each.strip()]
    if not wanted or len(set(wanted)) < len(wanted):
        raise RequestError(f"`--tasks {tasks[:80]}`: name files of items, each once, or `all`.")
    if unknown := [each for each in wanted if each not in FILES]:
        raise unknown_name("file of items", unknown[0], FILES)
    return wanted


def _items(items: str | Path | None, wanted: Sequence[str], request: Request, named: bool) -> list[ItemFile]:
    """Returns the items of the files that are there; RequestError for one that is `named` and is not."""
    files = item_files(None if items is None else Path(items), wanted, request)
    there = [each.file for each in files]
    if named and (lacking := [file for file in wanted if file not in there]):
        where = "without `--items`" if items is None else f"in `{items}`"
        raise RequestError(f"There are no items of `{lacking[0]}` {where}: leave it out of `--tasks`.")
    return files


def _trained(request: Request, store: Store) -> Plan:
    """Returns the runs of a request, which are trained already; RequestError for one that is not."""
    store.check_writable()
    planned = plan(request, store)
    if lacking := [job for job in planned.jobs if job.method.trains and not job.trained]:
        raise RequestError(
            f"`{lacking[0].label}`, seed {lacking[0].recipe.seed}, is not trained: train it first, `mmpt-bench run`, "
            "with the same options."
        )
    return planned


def _of_run(
    planned: Plan, job: Job, store: Store, by: Protocol, files: Sequence[ItemFile], seed: int, report: Reporter,
    stopping: Callable[[], bool],
) -> Iterator[Answered]:  # fmt: skip
    """Yields a run's replies to each file; what is kept is not asked again."""
    folder = store.run(job.recipe.run_name)
    made: dict[str, tuple[str, dict[str, str]]] = {}
    for each in files:
        decoding = by.decoding(each.file, seed)
        key = content_key([job.recipe.train_key, "protocol", each.file, each.fingerprint, decoding])
        made[each.file] = key, {n: p.reply for n, p in folder.predictions(f"protocol-{each.file}", key).items()}
    if any(len(made[each.file][1]) < len(each.items) for each in files):
        backbone = _backbone(planned)
        with folder.lock(LONGEST_WAIT, stopping), attached(backbone, job.method, job.recipe.seed, folder):
            folder.write_recipe(job.recipe)
            for each in files:
                key, replies = made[each.file]
                todo = [item for item in each.items if item.id not in replies]
                for some in _asked(backbone, todo, by.decoding(each.file, seed)):
                    folder.append_predictions(
                        f"protocol-{each.file}", key, [Prediction(i, r, None, "", ()) for i, r in some.items()]
                    )
                    replies |= some
                    report.evaluated(job, each.file, len(replies), len(each.items))
                    if stopping():
                        raise Interrupted(f"{len(replies):,} of {len(each.items):,} items of {each.file} are answered")
    for each in files:
        key, replies = made[each.file]
        seed_of = job.recipe.seed if job.method.trains else None
        yield Answered(job.label, seed_of, each.file, key, tuple(each.items), tuple(replies[i.id] for i in each.items))


def _backbone(planned: Plan) -> Any:
    from mmpt_bench.runs.session import loaded_backbone

    return loaded_backbone(planned)


def _asked(backbone: Any, todo: Sequence[Item], decoding: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yields replies by item, some at a time."""
    from mmpt_bench.engine.inference.plain import Question, sampled

    image, questions = backbone.processor.image_token, []
    for item in todo:
        prompt = written(decoding["template"], image, item.prompt)
        if prompt.count(image) != 1:
            raise RequestError(f"Item `{item.id}` writes the backbone's image token `{image}` itself: take it out.")
        questions.append(Question(prompt, [Sample(item.id, item.image, item.prompt, (), "")]))
    some: dict[str, str] = {}
    for item, reply in zip(todo, sampled(backbone, questions, decoding), strict=True):
        some[item.id] = reply
        if len(some) == EACH_TIME:
            yield some
            some = {}
    if some:
        yield some


def write_replies(store: Store, name: str, answered: Sequence[Answered]) -> None:
    """Writes each distinct reply to an item with its key, for a judge: `protocols/<name>-replies.jsonl`."""
    rows = {
        key: {"key": key, "file": each.file, "unique_id": item.id, "prompt": item.prompt, "target": item.target,
              "reply": reply}
        for each in answered if each.file != MME
        for item, reply, key in each.with_keys()
    }  # fmt: skip
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())
    write_atomic(store.path(FOLDER) / f"{name}-replies.jsonl", lines.encode())


def _verdicts(
    judge: str | Path | None, store: Store, name: str, answered: Sequence[Answered], request: Request,
    report: Reporter, stopping: Callable[[], bool],
) -> dict[str, bool] | None:  # fmt: skip
    """Returns whether each reply is right by a judge, by `verdict_key`; None without a judge."""
    if judge is None:
        return None
    wanted = {key: (each.file, item, reply) for each in answered if each.file != MME
              for item, reply, key in each.with_keys()}  # fmt: skip
    path = Path(judge)
    if path.is_file():
        known = _known_verdicts(path, json_rows(text_of(path), path)[0])
        if lacking := [key for key in wanted if key not in known]:
            raise RequestError(
                f"`{path.name}` has no verdict on {len(lacking):,} of {len(wanted):,} replies, first `{lacking[0]}`. "
                f"They are in `{FOLDER}/{name}-replies.jsonl`: write a line for each, "
                '{"key": KEY, "correct": true or false}.'
            )
        if not known:
            raise RequestError(f"`{path.name}` is empty, and no reply needs a verdict: leave out `--judge`.")
        if unused := [key for key in known if key not in wanted]:
            report.said(
                f"{len(unused):,} of {len(known):,} verdicts in `{path.name}` are on no reply that is judged here, "
                f"first `{unused[0][:40]}`. MME is never judged."
            )
        return known
    return _judged(str(judge), store, wanted, request, stopping)


def _known_verdicts(path: Path, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[str, bool]:
    """Returns the verdicts of a file's numbered rows; RequestError for one that is none, or contradicts another."""
    return known_verdicts(path, rows, "correct", lambda verdict: isinstance(verdict, bool), "true or false")


def _judged(
    judge: str,
    store: Store,
    wanted: Mapping[str, tuple[str, Item, str]],
    request: Request,
    stopping: Callable[[], bool],
) -> dict[str, bool]:
    """Returns the verdicts of a local model, by what it ranks first: yes or no. They are kept, and asked for once."""
    from mmpt_bench.engine.inference.plain import Question
    from mmpt_bench.engine.inference.predict import InferenceOptions, answers
    from mmpt_bench.engine.models.backbone import load_backbone

    backbone = load_backbone(judge, request.dtype, request.device, request.offline)
    path = store.path(
        FOLDER, "verdicts", f"{backbone.fingerprint[:16]}-{content_key([JUDGED, request.dtype], 6)}.jsonl"
    )
    # A last line that was not finished is left out: its verdict is asked for again.
    known = _known_verdicts(path, enumerate(read_jsonl(path), start=1))
    asked = {}
    for key, (_, item, reply) in wanted.items():
        if key not in known and reply and not exact_match(reply, item.target):
            text = JUDGED.format(prompt=item.prompt, target=item.target, reply=reply)
            sample = Sample(key, item.image, text, ("yes", "no"), "yes")
            asked[key] = Question(backbone.prompt_text(text), [sample])
    for batch in answers(backbone, "judge", 1, list(asked.values()), InferenceOptions(request.eval_batch)):
        made = {one.first.id: said[0] > said[1] for one, (_, said) in batch}
        append_jsonl(path, *({"key": key, "correct": correct} for key, correct in made.items()))
        known |= made
        if stopping() and any(key not in known for key in asked):
            raise Interrupted(f"{len(known):,} replies are judged")
    # What is the reference to the letter needs no judge, and no reply is no answer.
    plainly = {key: bool(reply) and exact_match(reply, item.target) for key, (_, item, reply) in wanted.items()}
    return {key: known.get(key, plainly[key]) for key in wanted}
