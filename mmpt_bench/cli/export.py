"""`mmpt-bench export`: a run's results as the Hugging Face hub takes them."""

from __future__ import annotations

from pathlib import Path

import click

from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.store import Store


def export(run: str, form: str, out: Path) -> int:
    """Prints one run's results as YAML for the Hugging Face hub: "model-index" or "eval-results"."""
    from mmpt_bench.interop.hub import eval_results, model_index, results_of

    tasks = task_catalog.built_in_tasks()
    records = results_of(Store(out), run, tasks)
    click.echo((model_index if form == "model-index" else eval_results)(records, tasks), nl=False)
    return 0
