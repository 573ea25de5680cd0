"""The tasks that there are: the files in `tasks/`, and a user's own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mmpt_bench.common.entries import Entry, built_in_files, entry_of, find, load_module
from mmpt_bench.common.errors import RequestError

if TYPE_CHECKING:
    from mmpt_bench.evaluation.task import Task


def task_entries() -> dict[str, Entry]:
    """Returns every built-in task by name."""
    return {path.stem: entry_of(path) for path in built_in_files("tasks")}


def find_tasks(text: str) -> list[Entry]:
    """Returns the tasks that a comma-separated option names: see `entries.find`."""
    return find("task", text, task_entries())


def load_task(entry: Entry) -> Task:
    """Imports a task's file and returns the `Task` it exports; raises RequestError where it exports none."""
    from mmpt_bench.evaluation.task import Task

    task = getattr(load_module(entry, "tasks"), "TASK", None)
    if not isinstance(task, Task):
        raise RequestError(
            f"`{entry.path}` exports no task: it needs a line `TASK = Task(...)`; see tasks/_template.py."
        )
    return task if task.name == entry.name else dataclasses.replace(task, name=entry.name)


def built_in_tasks() -> dict[str, Task]:
    """Returns every built-in task by name, in the order of the columns of a board."""
    return {name: load_task(entry) for name, entry in task_entries().items()}
