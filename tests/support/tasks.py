"""The built-in tasks by name."""

from __future__ import annotations

from functools import cache

from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import Task


@cache
def task(name: str, rule: str = "official") -> Task:
    """Returns a built-in task, with a parse rule of its own."""
    (entry,) = task_catalog.find_tasks(name)
    return task_catalog.load_task(entry).with_rule(rule)
