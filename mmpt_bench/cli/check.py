"""`mmpt-bench check`: the conformance suite on a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from mmpt_bench.common.errors import RequestError
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog


def check(file: Path, backbone: str, as_json: bool) -> int:
    """Runs the conformance suite on a file and prints a line a check; returns 0 where all pass, else 4."""
    from mmpt_bench.engine.adapters.check_method import check_method, check_task
    from mmpt_bench.methods.method_catalog import is_method
    from mmpt_bench.sources.task_rows import embedded_rows

    if not file.is_file():
        raise RequestError(f"There is no file `{file}` to check.")
    if is_method(file):
        from mmpt_bench.engine.models.backbone import load_backbone

        results = check_method(
            method_catalog.load_method(method_catalog.find_methods(str(file))[0]), load_backbone(backbone)
        )
    else:
        task = task_catalog.load_task(task_catalog.find_tasks(str(file))[0])
        rows = embedded_rows(task)
        results = check_task(task, rows.rows, rows.label_names)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
    else:
        for result in results:
            click.echo(
                f"{'pass' if result.ok else 'FAIL'} {result.name}{': ' + result.detail if result.detail else ''}"
            )
    return 0 if all(result.ok for result in results) else 4
