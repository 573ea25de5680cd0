"""`mmpt-bench export`: one run's results as the Hugging Face hub takes them."""

from __future__ import annotations

from pathlib import Path

import click

from mmpt_bench.cli.options import OUT


@click.command()
@click.argument("run")
@click.option(
    "--format",
    "form",
    type=click.Choice(["model-index", "eval-results"]),
    default="model-index",
    show_default=True,
    help="Of the Hugging Face hub: a model card's metadata, or a file of `.eval_results/`.",
)
@OUT
def export(run: str, form: str, out: Path) -> None:
    """Print one run's results as the Hugging Face hub takes them, as YAML.

    \b
    mmpt-bench export mmpt-58a7 > model-index.yaml     for the head of a model card
    mmpt-bench export mmpt-58a7 --format eval-results > .eval_results/mmpt-bench.yaml
    """
    from mmpt_bench.evaluation import task_catalog
    from mmpt_bench.interop.hub import eval_results, model_index, results_of
    from mmpt_bench.records.store import Store

    tasks = task_catalog.built_in_tasks()
    records = results_of(Store(out), run, tasks)
    click.echo((model_index if form == "model-index" else eval_results)(records, tasks), nl=False)
