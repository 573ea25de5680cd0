"""The public functions: they take plain values, return data and print nothing; commands that run call these.

    import mmpt_bench as mb
    results = mb.run(method="mmpt", tasks=["mme", "pope"])
    results.scores

Those that read results, or score answers made elsewhere, are in analysis.py; those that train one task after another in
continual.py.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mmpt_bench.analysis import accept_search as accept_search
from mmpt_bench.analysis import compare as compare
from mmpt_bench.analysis import explain as explain
from mmpt_bench.analysis import judged as judged
from mmpt_bench.analysis import leaderboard as leaderboard
from mmpt_bench.analysis import load_results as load_results
from mmpt_bench.analysis import merge as merge
from mmpt_bench.analysis import published_leaderboard as published_leaderboard
from mmpt_bench.analysis import reruns as reruns
from mmpt_bench.analysis import score as score
from mmpt_bench.analysis import verify as verify
from mmpt_bench.analysis import write_figures as write_figures
from mmpt_bench.analysis import write_report as write_report
from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import check_can_write
from mmpt_bench.continual import stream as stream
from mmpt_bench.continual import transfer as transfer
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.store import Store
from mmpt_bench.report.results import Results
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.experiment import read_experiment as read_experiment
from mmpt_bench.runs.new_files import new as new
from mmpt_bench.runs.option_texts import Names, column_names, comma_text
from mmpt_bench.runs.options import Options, SearchOptions
from mmpt_bench.runs.requested import requested
from mmpt_bench.study.prompts.prompts import prompts as prompts
from mmpt_bench.study.protocols.protocol import protocol as protocol

if TYPE_CHECKING:
    from mmpt_bench.common.checking import CheckResult
    from mmpt_bench.records.learning_rates import Choice
    from mmpt_bench.records.rate_trials import Trial
    from mmpt_bench.runs.estimate import PlanSummary
    from mmpt_bench.study.ablations.tables import AblationResult
    from mmpt_bench.study.pruning.tables import PruneResult
    from mmpt_bench.study.searches.search import SearchPlan


def run(
    method: Names = "mmpt",
    tasks: Names = "mme,pope",
    *,
    adapter: str | None = None,
    other_base: bool = False,
    recipe: str | Path | None = None,
    base: bool = False,
    log_to: str | Sequence[str] = (),
    workers: int | str = 1,
    parallel: str = "",
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[Options],
) -> Results:
    """Trains methods, evaluates them on tasks, and returns what is recorded; what is recorded already is not redone.

        results = mb.run(["frozen", "lora"], ["mme", "pope"], seeds=[0, 1], set={"lora.r": 8})
        results.scores               # a row a run, task and metric
        results.leaderboard()        # a row a method and variant

    Args:
        method: names or files; "all" for every method.
        tasks: names or files; "all" for every task.
        adapter: folder or hub name of a trained adapter, which is evaluated in place of `method`; nothing is trained.
        other_base: the adapter may have been trained on another base model; its scores say so.
        recipe: a run's recipe.yaml, which is repeated exactly or refused.
        base: also evaluates the untuned base, `frozen`; the command does by default, a call does what it names.
        log_to: trackers that are told too: "wandb", "trackio", "tensorboard".
        workers: who does the runs: a number of processes on this machine; see docs/scale.md.
        parallel: how processes of torchrun share each training, "ddp" or "fsdp2"; the first one alone writes and tells.
        reporter: is told of every event.
        stopping: asked after every step and batch; `Interrupted` is raised when it says so, and all that was done is
            on the disk.
        options: see `Options`.

    Raises:
        RequestError: the request is wrong.
        MachineError: a package, a model, data or the network is missing.
        UntrustedRecord: a record or an adapter contradicts its own checksum or key.

    A run that fails raises nothing: it is recorded with its reason, and in `results.failed`.
    """
    from mmpt_bench.interop.trackers import check_trackers, tracking
    from mmpt_bench.runs.plan import plan_given
    from mmpt_bench.runs.workers.backends import done_by, rank_and_count

    given = (method, tasks, (adapter, other_base), recipe, options, base)
    do, (request, _) = done_by(workers, plan_given, given, parallel, options.get("gpus_per_unit")), requested(*given)
    names, report = check_trackers(comma_text(log_to), request.offline), reporter or Reporter()
    if rank_and_count()[0] > 0:
        names, report = (), Reporter()
    store = Store(request.out)
    store.check_writable()
    (planned,) = plan_given(given, store)
    report.planned([planned])
    with tracking(report, names, request.out, request.offline) as told:
        made = tuple(do([planned], store, told, stopping))
    return Results(request.out, made, planned.run_names, request.own_tasks, planned.asked_keys)


def plan(
    method: Names = "mmpt",
    tasks: Names = "mme,pope",
    *,
    adapter: str | None = None,
    other_base: bool = False,
    recipe: str | Path | None = None,
    base: bool = False,
    gpus: int | None = None,
    tflops: float | None = None,
    **options: Unpack[Options],
) -> PlanSummary:
    """Returns what `run` would do with the same arguments, how long, and what it could tell apart; runs nothing.

        mb.plan("all", "all", seeds=range(6)).cost.seconds
        mb.plan("all", "all", seeds=range(6), gpus=64).scale.rows

    `scale` says what it takes on `gpus` GPUs, and on 1, 8, 64 and 512; with `tflops`, by counting operations at so many
    TFLOP/s a GPU, even where runs are recorded. Raises as `run` does, and RequestError for numbers that cannot be.
    """
    from mmpt_bench.runs.estimate import plan_summary
    from mmpt_bench.runs.plan import plan_given

    given = (method, tasks, (adapter, other_base), recipe, options, base)
    store = Store(requested(*given)[0].out)
    check_can_write(store.root)
    return plan_summary(plan_given(given, store), store, gpus, tflops)


def ablate(
    method: Names = "mmpt",
    tasks: Names = "mme,pope",
    *,
    axes: Mapping[str, str | Sequence[object]] | None = None,
    beside: Names = "frozen",
    one_at_a_time: bool = False,
    budget_hours: float | None = None,
    command: str = "",
    only_plan: bool = False,
    workers: int | str = 1,
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[Options],
) -> AblationResult:
    """Varies something in methods, trains and evaluates each variant; returns and draws what it changes.

        made = mb.ablate("mmpt", ["mme"], axes={"prompt-len": [5, 10, 20]}, seeds=range(6))
        made.table                   # a row a point and task: score, interval, difference, p

    Args:
        method: what is varied.
        tasks: names or files.
        axes: what is varied: {"prompt-len": [5, 10, 20]}, {"lora.r": [4, 8]}; the names are those of the command
            line's options, and fields. Several values of a hyperparameter in `set` (["lora.r=4,8"]) make an axis too.
        beside: methods that are run as they are, to compare with; "none" for none.
        one_at_a_time: each value with nothing else changed, instead of a grid.
        budget_hours: refuses what would take longer, by what recorded runs took.
        command: what makes the ablation again, for its table.
        only_plan: runs nothing.
        workers, reporter, stopping: as in `run`.
        options: as in `run`.

    Raises:
        RequestError, MachineError, UntrustedRecord: as `run` does; and for more hours than were given.
    """
    from mmpt_bench.figures.draw import write_ablation_figures
    from mmpt_bench.report.leaderboard import write_scores
    from mmpt_bench.runs.estimate import plan_summary
    from mmpt_bench.runs.workers.backends import done_by
    from mmpt_bench.study.ablations.ablate import ablation_asked, plan_ablation, plans_given, run_ablation
    from mmpt_bench.study.ablations.tables import AblationResult, write_ablation

    given = (method, tasks, axes, comma_text(beside), one_at_a_time, options)
    do = done_by(workers, plans_given, given, gpus=options.get("gpus_per_unit"))
    asked = ablation_asked(given, budget_hours, command)
    store = Store(asked.request.out)
    planned = plan_ablation(asked, store)
    points = [point.label for point in planned.ablation.all_points]
    result = AblationResult(planned.ablation.name, points, asked.request.seeds, planned.n_runs, store.root)
    if only_plan:
        return dataclasses.replace(result, summary=plan_summary(planned.plans, store))
    made = run_ablation(planned, store, reporter or Reporter(), stopping, do)
    known = task_catalog.built_in_tasks() | asked.request.own_tasks
    board = write_ablation(store, planned.ablation, known)
    write_scores(store, known)
    drawn = tuple(write_ablation_figures(store, board, known, method_catalog.colors()))
    return dataclasses.replace(
        result, board=board, failed=tuple(r for r in made if r.status == "failed"), figures=drawn
    )


def prune(
    method: Names = "mmpt",
    tasks: Names = "mme,pope",
    keep_tokens: str | float | Sequence[float] = "1.0,0.5,0.25",
    kinds: Names = "",
    *,
    adapter: str | None = None,
    other_base: bool = False,
    recipe: str | Path | None = None,
    base: bool = False,
    command: str = "",
    reporter: Reporter | None = None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[Options],
) -> PruneResult:
    """Asks models with a share of their image tokens; returns and draws score and prefill time against that share.

        made = mb.prune("frozen,mmpt", "mme", [0.5, 0.25], "random,attention", seeds=range(3))
        made.table                   # a row a task, method, kind and share

    Args:
        method: names or files; what is not trained yet is trained, with whole images.
        tasks: names or files.
        keep_tokens: shares of the image tokens that stay, above 0 and at most 1; the whole image is always a row.
        kinds: "random", "cls", "attention"; by default all that the backbone allows. `random` is always among them.
        adapter: as in `run`.
        other_base: as in `run`.
        recipe: as in `run`.
        base: as in `run`.
        command: what makes it again, for its tables.
        reporter: is told of every event, as in `run`.
        stopping: asked after every step and batch, as in `run`.
        options: as in `run`.

    Raises:
        RequestError, MachineError, UntrustedRecord: as `run` does; and for a share or kind that is none, and a backbone
            whose image tokens cannot be pruned.
    """
    from mmpt_bench.figures.pruning import write_pruning_figure
    from mmpt_bench.study.pruning.prune import prune_given

    given = (method, tasks, (adapter, other_base), recipe, options, base)
    shares = comma_text([str(keep_tokens)] if isinstance(keep_tokens, int | float) else keep_tokens)  # type: ignore[arg-type]
    result = prune_given(given, shares, comma_text(kinds), command, reporter, stopping)
    drawn = write_pruning_figure(result, method_catalog.colors())
    return dataclasses.replace(result, files=(*result.files, *([drawn] if drawn else [])))


def tune(
    method: Names = "all",
    *,
    workers: int | str = 1,
    told: Callable[[str, Trial], None] = lambda label, trial: None,
    chosen: Callable[[Choice], None] = lambda choice: None,
    stopping: Callable[[], bool] = lambda: False,
    **options: Unpack[SearchOptions],
) -> list[Choice]:
    """Searches each method's learning rate by its score on dev data and returns the choices; every trial is kept.

        for choice in mb.tune("mmpt,lora"):
            print(choice.search.method, choice.rate)

    Args:
        method: names or files.
        workers, stopping: as in `run`.
        told: of each new trial, with what its method is called.
        chosen: of each choice, once its search is over.
        options: see `SearchOptions`.

    Raises:
        RequestError, MachineError: as `run` does.
    """
    from mmpt_bench.runs.workers.backends import check_gpus, check_parallel
    from mmpt_bench.study.searches.workers import tune_by

    check_parallel("")
    check_gpus(workers, options.get("gpus_per_unit"))
    found = []
    for choice in tune_by(workers, (method, options), plan_tune(method, **options), told, stopping):
        chosen(choice)
        found.append(choice)
    return found


def plan_tune(method: Names = "all", **options: Unpack[SearchOptions]) -> SearchPlan:
    """Returns what `tune` would search with the same arguments; trains and writes nothing."""
    from mmpt_bench.study.searches.search import plan_search

    return plan_search(method, options)


def check(
    file: str | Path, backbone: str = "embedded", data: str | Path | None = None, columns: Sequence[str] = ()
) -> list[CheckResult]:
    """Returns what a file of a task, a method or a family passes of the conformance suite; the file is run.

        all(result.ok for result in mb.check("colours.py"))

    Args:
        file: of a task, which is checked on its own rows, of a method, or of a family; or the folder of a backbone,
            whose parts are checked.
        backbone: that a method or a family is tried on.
        data: folder of a task's rows; else those that it makes, those of the embedded suite, or of the hub.
        columns: what files call the task's columns.

    Raises:
        RequestError: there is no such file, or it exports none of these.
    """
    from mmpt_bench.engine.models.families import is_family, register_file
    from mmpt_bench.evaluation.check_task import check_task
    from mmpt_bench.sources.prepared import check_judge
    from mmpt_bench.sources.task_rows import Where, rows_of

    path = Path(file)
    if not path.exists():
        raise RequestError(f"There is no file `{file}` to check.")
    if path.suffix in (".yaml", ".yml"):
        raise RequestError(
            f"`{file}` is no Python file; `mmpt-bench run {shlex.quote(str(file))} --plan` checks an experiment."
        )
    if path.is_dir() or is_family(path):
        from mmpt_bench.engine.adapters.check_family import check_backbone

        if path.is_file():
            register_file(path)
        return check_backbone(backbone if path.is_file() else str(path))
    if method_catalog.is_method(path):
        from mmpt_bench.engine.adapters.check_method import check_method
        from mmpt_bench.engine.models.backbone import load_backbone

        (entry,) = method_catalog.find_methods(str(path))
        return check_method(method_catalog.load_method(entry), load_backbone(backbone))
    (entry,) = task_catalog.find_tasks(str(path))
    task = task_catalog.load_task(entry)
    folder, called = None if data is None else Path(data), column_names(columns, [task.name])
    rows = rows_of(task, Where(folder, embedded=not entry.own, columns=called))
    return check_task(task, rows.rows, rows.label_names) + check_judge(task)
