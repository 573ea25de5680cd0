"""`run --measure-costs`: the same command for one run at a time, in a process of its own, whose costs are its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click

from mmpt_bench.cli.options import words_again
from mmpt_bench.cli.progress import stopping

FAILED = 4
"""Exit code where a run failed and is recorded as failed: the others go on."""
NOT_HANDED_ON = ("method", "seeds", "measure_costs", "as_json", "base", "set")


def one_process_a_run(context: click.Context, options: dict[str, Any]) -> int:
    """Does each open run by `run` in a process of its own and returns 0, `FAILED`, or what ended it before its end.

    Args:
        context: of `run`.
        options: those of `api.run`.
    """
    from mmpt_bench import api
    from mmpt_bench.methods.method_catalog import find_methods

    asked = [word.strip() for word in options["method"].split(",") if word.strip()]
    words = {entry.name: entry.name if word == "all" else word for word in asked for entry in find_methods(word)}
    only_of_run = ("log_to", "workers", "parallel")
    planned = api.plan(**{name: value for name, value in options.items() if name not in only_of_run})
    given, worst = words_again(context, NOT_HANDED_ON)[2:], 0
    with stopping() as stop:
        for row in planned.runs:
            if not row["evaluate"]:
                continue
            one = [
                "run",
                "--method",
                words.get(row["label"], row["label"]),
                "--seeds",
                str(row["seed"]),
                *(word for text in options["set"] if _is_of(text, row["label"]) for word in ("--set", text)),
                *given,
                "--no-base",
                "--json",
            ]
            child = subprocess.Popen([sys.executable, "-m", "mmpt_bench", *one], stdout=subprocess.DEVNULL)
            while child.poll() is None:
                if stop():
                    # Where the terminal has interrupted both, it is stopping already.
                    child.terminate()
                try:
                    child.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
            if child.returncode not in (0, FAILED):
                return child.returncode if child.returncode > 0 else 130
            worst = max(worst, child.returncode)
    return worst


def _is_of(text: str, method: str) -> bool:
    """Returns whether a text of `--set` is about a method: by its name, or because one method alone is asked for."""
    name, dot, _ = text.partition("=")[0].strip().rpartition(".")
    return not dot or name == method
