"""The public functions that read a results folder or answers: they return data, print nothing and train nothing.

results = mb.load_results("mmpt-results")
results.scores
mb.compare("lora", "mmpt").sentence
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_bench.common.errors import RequestError
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.store import Store, published_folder, results_folder
from mmpt_bench.report.results import Results
from mmpt_bench.runs.option_texts import Names, column_names, comma_text, dataset_names, pairs

if TYPE_CHECKING:
    from mmpt_bench.board.contrasts import Scope
    from mmpt_bench.figures.figure_data import Drawn, Missing
    from mmpt_bench.interop.answers.score import Scorecard
    from mmpt_bench.records.merge import Merged
    from mmpt_bench.records.reruns import Reruns
    from mmpt_bench.report.leaderboard import Leaderboard
    from mmpt_bench.report.write import Report
    from mmpt_bench.study.agreement import Agreements
    from mmpt_bench.study.comparisons.text import ComparisonResult
    from mmpt_bench.study.explanations.result import ExplainResult
    from mmpt_bench.study.searches.acceptance import Written
    from mmpt_bench.study.streams.compare import StreamComparison


def load_results(folder: str | Path | None = None, *, published: bool = False) -> Results:
    """Returns what is recorded in a results folder; nothing is read before it is asked for.

        mb.load_results("mmpt-results").scores
        mb.load_results(published=True).leaderboard()

    Args:
        folder: of the results; by default `$MMPT_RESULTS`, or `mmpt-results` in the working directory.
        published: the project's published results instead.

    Raises:
        RequestError: there is no such folder.
    """
    if not isinstance(folder, str | Path | None):
        raise RequestError(f"`{str(folder)[:40]}` is no results folder: text or a path.")
    root = published_folder() if published else results_folder(folder)
    if root.is_file():
        raise RequestError(f"`{root}` is a file, not a results folder.")
    if not root.is_dir():
        raise RequestError(f"There is no results folder `{root}`: `mmpt-bench run` makes one.")
    return Results(root)


def compare(
    *names: str, tasks: Names = "", scope: Scope | None = None, setting: str = "", out: str | Path | None = None
) -> ComparisonResult | StreamComparison:
    """Returns how some methods, variants or runs differ, pair by pair.

        found = mb.compare("lora", "mmpt")
        found.sentence      # which is better, or that they are not significantly different
        found.table         # a row a pair and task: difference, interval, p

    Args:
        names: rows of the leaderboard or of an ablation, methods that have one row, or runs (their beginnings do);
            or rows of a stream, "lora sequential", whose measures are compared.
        tasks: that count; all that were run by default.
        scope: "method": other seeds and images; "checkpoint": the models of the first common seed.
        setting: of the board, where several hold the names.
        out: the results folder.

    Raises:
        RequestError: nothing, or several boards, hold all the names; or they cannot be compared at the scope.
        UntrustedRecord: a record contradicts its own answers.
    """
    from mmpt_bench.study.comparisons.compare import answer_to
    from mmpt_bench.study.streams.compare import compared, rows_named

    if wrong := [each for each in names if not isinstance(each, str | Sequence)]:
        raise RequestError(f"`{wrong[0]}` is no name of a row or a run.")
    names = tuple(name for each in names for name in ([each] if isinstance(each, str) else each))
    text, store = comma_text(tasks), Store(results_folder(out))
    # Of a user's own file the name is enough: its records say what is needed.
    recorded = {record.task for record in store.records() if record.declared} if text else set()
    own = [name for name in _words(text) if name in recorded]
    others = ",".join(name for name in _words(text) if name not in recorded)
    wanted = {e.name: task_catalog.load_task(e) for e in task_catalog.find_tasks(others)} if others else {}
    known = task_catalog.built_in_tasks() | wanted
    if (rows := rows_named(store, known, names)) is not None:
        if text or scope or setting:
            raise RequestError(
                "Rows of a stream are compared as they are: leave out `--tasks`, `--scope`, `--setting`."
            )
        return compared(rows)
    return answer_to(store, names, known, scope, setting, [*own, *wanted])


def leaderboard(out: str | Path | None = None, publish: bool = False) -> Leaderboard:
    """Writes scores.csv, leaderboard.csv, leaderboard.md and figures from the records, and returns the boards.

        mb.leaderboard("mmpt-results").text("latex")

    Args:
        out: the results folder.
        publish: also gathers all records in one file and draws every figure, so that the runs' folders are not needed.

    Raises:
        RequestError: nothing is recorded.
        UntrustedRecord: a record contradicts its own answers, samples or setting.
    """
    from mmpt_bench.report.leaderboard import write_leaderboard

    return write_leaderboard(Store(results_folder(out)), task_catalog.built_in_tasks(), publish)


def published_leaderboard() -> Leaderboard:
    """Returns the project's published leaderboard, made from its records; nothing is written."""
    from mmpt_bench.report import leaderboard

    return leaderboard.published_leaderboard(task_catalog.built_in_tasks())


def write_figures(out: str | Path | None = None, only: Names = "") -> tuple[list[Drawn], list[Missing]]:
    """Writes the figures that the records allow; returns them, and what is missing for the others.

        drawn, missing = mb.write_figures("mmpt-results", only="pareto")

    Args:
        out: the results folder; figures are in its `figures/`, as SVG, PDF, PNG and CSV.
        only: kinds of figures; all by default.

    Raises:
        RequestError: there is no such kind.
    """
    from mmpt_bench.figures import draw

    kinds = [kind.strip() for kind in comma_text(only).split(",") if kind.strip()]
    return draw.write_figures(Store(results_folder(out)), task_catalog.built_in_tasks(), method_catalog.colors(), kinds)


def write_report(
    out: str | Path | None = None,
    file: str | Path | None = None,
    images: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Writes one HTML file with everything that is recorded, at most 1.5 MB, and returns its path and what is missing.

        mb.write_report("mmpt-results").path

    Args:
        out: the results folder.
        file: to write; by default report.html in the results folder.
        images: folder of the real data that was evaluated, for its questions and images.
        say: is told what takes long.

    Raises:
        RequestError: nothing is recorded, or the page would be too large.
    """
    from mmpt_bench.report import write

    target, folder = (None if path is None else Path(path) for path in (file, images))
    return write.write_report(results_folder(out), target, folder, task_catalog.built_in_tasks(), say)


def merge(folders: str | Path | Sequence[str | Path], out: str | Path) -> Merged:
    """Copies what results folders hold into one; returns which runs were taken, and what contradicts itself.

        mb.merge(["from-a", "from-b"], "mmpt-results").conflicts

    A run is taken whole from one folder, or not at all: two trainings of it never meet in a row of a table.

    Args:
        folders: results folders, which stay as they are; or one.
        out: the folder that they are copied into, which may hold some of it already.

    Raises:
        RequestError: a folder that is none, or is `out`.
        MachineError: `out` cannot be written.
    """
    from mmpt_bench.records.merge import merge as merge_stores

    given = [folders] if isinstance(folders, str | Path) else folders
    return merge_stores([results_folder(each) for each in given], Store(results_folder(out)))


def verify(out: str | Path | None = None) -> list[str]:
    """Returns a sentence for each thing in a results folder that is not what its hash says; nothing is written.

        mb.verify("mmpt-results") == []

    Args:
        out: the results folder; by default `$MMPT_RESULTS`, or `mmpt-results` in the working directory.

    Raises:
        RequestError: there is no such folder, or it is no results folder.
    """
    from mmpt_bench.records.verify import checked, look

    return list(look(checked(load_results(out).folder)).faults)


def reruns(rerun: str | Path, out: str | Path | None = None) -> Reruns:
    """Returns how far apart the scores of one recipe and seed are that was trained in two results folders.

        mb.reruns("other-results", "mmpt-results").table

    Args:
        rerun: the folder in which trainings were made again.
        out: the results folder; by default `$MMPT_RESULTS`, or `mmpt-results` in the working directory.

    Raises:
        RequestError: a folder that is no results folder, or no training was made in both.
        UntrustedRecord: a record or an answer is damaged.
    """
    from mmpt_bench.records.reruns import reruns
    from mmpt_bench.records.verify import checked

    first, second = (checked(load_results(folder).folder).records() for folder in (out, rerun))
    return reruns(first, second)


def judged(out: str | Path | None = None, human: str | Path | None = None) -> Agreements:
    """Returns how often judges say what the literal scores of their tasks say, or people, of the same answers.

        mb.judged("mmpt-results").table

    Args:
        out: the results folder.
        human: a file of JSON lines, {"key": KEY, "grade": NUMBER}, with keys of the files in the folder's `judged/`.

    Raises:
        RequestError: nothing is judged there, or the file cannot be used.
        UntrustedRecord: a record contradicts its own values.
    """
    from mmpt_bench.study.agreement import agreements

    return agreements(Store(load_results(out).folder), None if human is None else Path(human))


def accept_search(out: str | Path | None = None) -> Written:
    """Writes search.md, curves and whether dev scores predict test scores, from recorded trials; see docs/tuning.md."""
    from mmpt_bench.study.searches.acceptance import write_acceptance

    return write_acceptance(Store(results_folder(out)))


def explain(
    runs: Names,
    tasks: Names = "mme",
    *,
    maps: Names = "",
    limit: int = 100,
    data: str | Path | None = None,
    world: str = "shifted",
    device: str | None = None,
    offline: bool = False,
    out: str | Path | None = None,
    command: str = "",
    say: Callable[[str], None] = lambda text: None,
    stopping: Callable[[], bool] = lambda: False,
) -> ExplainResult:
    """Returns where runs look beside their untuned base, and whether that is right and faithful; writes and draws it.

        found = mb.explain("mmpt", "mme", limit=40)
        found.table                  # a row a method, map and score: value, interval, change from the base

    Args:
        runs: names of runs, or how they begin; runs of one variant are seeds of one row.
        tasks: whose questions are explained.
        maps: "rollout", "grad", ...: see docs/explain.md; by default all that can be made here.
        limit: questions a task.
        data: folder of real data; by default the embedded suite where the runs are on the embedded model.
        world: of the embedded suite.
        device: as torch names it.
        offline: opens no socket.
        out: the results folder; files go to its `explain/`.
        command: what makes the explanation again, for its tables.
        say: is told what takes long.
        stopping: asked after every question.

    Raises:
        RequestError: no such run, runs of several backbones, an unknown map, or data that cannot be used.
        MachineError: captum, a model or data is missing.
        UntrustedRecord: an adapter is damaged.
    """
    import dataclasses

    from mmpt_bench.figures.explain_gallery import write_gallery
    from mmpt_bench.figures.explain_thumbnails import write_thumbnails
    from mmpt_bench.study.explanations.explain import ExplainRequest, explain_runs
    from mmpt_bench.study.explanations.tables import write_explanation

    asked = ExplainRequest(
        tuple(_words(runs)), tuple(task_catalog.find_tasks(comma_text(tasks))), tuple(_words(maps)), limit,
        None if data is None else Path(data), world, device, offline, command,
    )  # fmt: skip
    result = explain_runs(asked, Store(results_folder(out)), say, stopping)
    drawn = [path for path in (write_gallery(result), write_thumbnails(result)) if path is not None]
    files = (*write_explanation(result), *drawn)
    return dataclasses.replace(result, files=files)


def _words(names: Names) -> list[str]:
    return [word.strip() for word in comma_text(names).split(",") if word.strip()]


def score(
    task: str,
    files: str | Path | Sequence[str | Path],
    *,
    parse: str = "official",
    data: str | Path | None = None,
    dataset: Mapping[str, str] | Sequence[str] = (),
    columns: Mapping[str, str] | Sequence[str] = (),
) -> Scorecard:
    """Returns the scores of answers made elsewhere.

        mb.score("pope", ["answers.jsonl"]).values

    Args:
        task: its name or file.
        files: hold the replies; see docs/scoring.md for their forms.
        parse: rule by which replies are read.
        data: folder of the task's official rows, to match the answers to.
        dataset: another data set of the task's form.
        columns: what the files of the official rows call the task's columns.

    Raises:
        RequestError: several tasks, a file that cannot be read, or answers that do not fit the task.
    """
    from mmpt_bench.interop.answers.forms import read_answers
    from mmpt_bench.interop.answers.score import score_answers
    from mmpt_bench.sources.task_rows import Where, rows_of, samples

    entries = task_catalog.find_tasks(task)
    if len(entries) != 1:
        raise RequestError(f"`{task}` names {len(entries)} tasks: score one at a time.")
    found = task_catalog.load_task(entries[0]).with_rule(parse)
    for name in dataset_names(pairs(dataset), [found.name]).values():
        found = found.on(found.data.named(name))
    given = read_answers([Path(file) for file in ([files] if isinstance(files, str | Path) else files)])
    called = column_names(pairs(columns), [found.name])
    where = Where(None if data is None else Path(data), columns=called)
    official = None if data is None else samples(found, rows_of(found, where, need_images=False))
    return score_answers(found, given, official)
