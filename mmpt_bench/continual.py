"""The public functions that train one task after another: streams of tasks, and transfer from one to another."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.option_texts import Names, comma_text
from mmpt_bench.runs.options import Options, make_request

if TYPE_CHECKING:
    from mmpt_bench.study.streams.tables import StreamResult
    from mmpt_bench.study.streams.transfer_tables import TransferResult


def stream(
    order: Names = "mnist,vsr,snli_ve,cifar10",
    method: Names = "mmpt",
    strategy: Names = "sequential",
    tasks: Names = "all",
    *,
    orders: int = 1,
    command: str = "",
    only_plan: bool = False,
    workers: int | str = 1,
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[Options],
) -> StreamResult:
    """Lets methods learn tasks one after another; returns what was kept, what was lost, and what else it changed.

        made = mb.stream(["mnist", "vsr"], "lora", ["sequential", "replay:0.1"], seeds=range(3))
        made.table                   # a row a method, strategy and measure, with intervals

    Args:
        order: tasks, in the order in which they are learnt, each on its own training split.
        method: names or files.
        strategy: "sequential", "replay:0.1" (share of earlier examples), "ewc:10000", "lwf:10" (weights),
            "new-adapter", "joint".
        tasks: that are evaluated after each stage: those of `order`, and others.
        orders: so many orders of the tasks; the first is `order`.
        command: what makes the stream again, for its table.
        only_plan: runs nothing.
        workers: who does the runs, as in `run`.
        reporter: is told of every event, as in `run`.
        stopping: asked after every step and batch, as in `run`.
        options: as in `run`; `steps` are those of a stage.

    Raises:
        RequestError, MachineError, UntrustedRecord: as `run` does; and for a stream that cannot be.
    """
    from mmpt_bench.figures.draw import write_stream_figures
    from mmpt_bench.runs.estimate import plan_summary
    from mmpt_bench.runs.workers.backends import done_by
    from mmpt_bench.study.streams.board import stream_boards
    from mmpt_bench.study.streams.stream import plan_stream, plans_given, run_stream, stream_asked
    from mmpt_bench.study.streams.tables import StreamResult, write_streams

    given = (order, method, strategy, tasks, orders, options)
    do = done_by(workers, plans_given, given, gpus=options.get("gpus_per_unit"))
    asked = stream_asked(given, command)
    store = Store(asked.request.out)
    planned = plan_stream(asked, store)
    if only_plan:
        return StreamResult(planned.stream, store.root, summary=plan_summary(planned.plans, store))
    definition, made = run_stream(planned, store, reporter or Reporter(), stopping, do)
    known = task_catalog.built_in_tasks() | asked.request.own_tasks
    boards = stream_boards(store, known)
    write_streams(store, boards)
    (board,) = (each for each in boards if each.stream.name == definition.name)
    drawn = write_stream_figures(store, board, known, method_catalog.colors())
    failed = tuple(record for record in made if record.status == "failed")
    return StreamResult(definition, store.root, board, failed, figures=tuple(drawn))


def transfer(
    task: str,
    before: Names = "reptile",
    method: Names = "mmpt",
    *,
    before_steps: int = 100,
    command: str = "",
    only_plan: bool = False,
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[Options],
) -> TransferResult:
    """Learns a task from a method's own initial values, and from those that other tasks taught it, in as many steps.

        made = mb.transfer("vsr", ["mnist", "reptile"], "lora", steps=400, before_steps=100, every=20, seeds=range(3))
        made.table                   # steps until the score that its own initial values end with

    Args:
        task: what is learnt, on its training split; its dev part is looked at every `every` steps.
        before: what is learnt first, each by itself: tasks, or "reptile" over the others.
        method: names or files.
        before_steps: steps of that, out of `steps`.
        command: what makes the transfer again, for its table.
        only_plan: runs nothing.
        reporter: is told of every event, as in `run`.
        stopping: asked after every step and batch, as in `run`.
        options: as in `run`; `steps` are those of both parts together.

    Raises:
        RequestError, MachineError, UntrustedRecord: as `run` does; and for a transfer that cannot be.
    """
    from mmpt_bench.figures.draw import write_transfer_figure
    from mmpt_bench.runs.estimate import plan_summary
    from mmpt_bench.runs.workers.backends import check_parallel
    from mmpt_bench.study.streams.transfer import TransferRequest, plan_transfer, run_transfer, transfer_rows
    from mmpt_bench.study.streams.transfer_tables import TransferResult, write_transfer

    check_parallel("")
    sources = [text.strip() for text in comma_text(before).split(",") if text.strip()]
    asked = TransferRequest.of(make_request(method, task, options).plainly("transfer"), sources, before_steps)
    store = Store(asked.request.out)
    planned = plan_transfer(asked, store)
    result = TransferResult(planned.name, store.root)
    if only_plan:
        return dataclasses.replace(result, summary=plan_summary(planned.plans, store))
    made = run_transfer(planned, store, reporter or Reporter(), stopping)
    if failed := tuple(record for record in made if record.status == "failed"):
        return dataclasses.replace(result, failed=failed)
    rows = transfer_rows(asked, planned, store)
    words = ["mmpt-bench", "transfer", task, "--from", ",".join(sources), "--method", comma_text(method)]
    told = command or f"{shlex.join(words)} (from Python, with options of its own)"
    write_transfer(store, planned.name, rows, told)
    source = f"{asked.request.suite[:1].upper()}{asked.request.suite[1:]} suite, dev part of {asked.target.name}"
    drawn = write_transfer_figure(store, planned.name, rows, source)
    return dataclasses.replace(result, rows=tuple(rows), figures=tuple(drawn))
