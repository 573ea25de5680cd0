"""Texts of options as values, and back: names, NAME=VALUE pairs, columns, seeds and ranges of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.records.budget import MOST_SEED
from mmpt_bench.sources.task_rows import Columns

TRAIN = "train"
"""Stands before the columns of training data."""
Names = str | Path | Sequence[str | Path]
"""Names or files: "mme,pope", ["mme", "./mine.py"]."""
SEEDS = re.compile(r"(\d{1,12})(?:-(\d{1,12}))?", re.ASCII)
MOST_SEEDS = 10_000


def comma_text(names: Names) -> str:
    """Returns names or files as the command line has them: "mme,pope"; RequestError for what is no list of them."""
    if isinstance(names, str | Path):
        return str(names)
    if not isinstance(names, Iterable):
        raise RequestError(f"`{str(names)[:60]}` is no name: write a name, a file, or a list of them.")
    return ",".join(map(str, names))


def pairs(given: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Returns "name=value" texts of a mapping, or the texts as they are."""
    if isinstance(given, str):
        return [given]
    return [f"{name}={value}" for name, value in given.items()] if isinstance(given, Mapping) else list(given)


def dataset_names(texts: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """Returns task -> data set of `--dataset vsr=random`; RequestError names what is wrong."""
    found: dict[str, str] = {}
    for text in texts:
        task, equals, name = text.partition("=")
        if not equals or not name:
            raise RequestError(f"`--dataset {text}`: write TASK=NAME, as in `vsr=random`.")
        if task not in tasks:
            raise unknown_name("task", task, tasks, f"`--dataset {text}` is for one that `--tasks` does not name.")
        found[task] = name
    return found


def column_names(texts: Sequence[str], tasks: Sequence[str], train: bool = False) -> Columns:
    """Returns what files call columns, of `--columns image=img,pope.answer=label`; RequestError names what is wrong.

    Args:
        train: those of training data (`train.image=img`), which are left out otherwise.
    """
    found = []
    for text in (part.strip() for whole in texts for part in whole.split(",") if part.strip()):
        wanted, equals, own = (part.strip() for part in text.partition("="))
        task, _, column = wanted.rpartition(".")
        if not equals or not own or not column:
            raise RequestError(f"`--columns {text[:100]}`: write COLUMN=NAME, as in `image=img`, or TASK.COLUMN=NAME.")
        if task not in ("", TRAIN, *tasks):
            hint = f"`--columns {text[:100]}` is for a task that `--tasks` does not name."
            raise unknown_name("task", task, [*tasks, TRAIN], hint)
        if (task == TRAIN) == train:
            found.append(("" if train else task, column, own))
    return tuple(found)


def numbered_seeds(given: int | str | Sequence[int]) -> tuple[int, ...]:
    """Returns seeds: 0, [0, 1], "0,1", "0-7" and "0-3,8"; RequestError for anything else, and for one named twice."""
    text = ",".join(map(str, given)) if isinstance(given, Sequence) and not isinstance(given, str) else str(given)
    seeds: list[int] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        found = SEEDS.fullmatch(part)
        if found is None:
            raise RequestError(f"`--seeds {text[:60]}`: whole numbers and ranges, as in `0,1,2`, `0-7` or `0-3,8`.")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last <= MOST_SEED or last - first >= MOST_SEEDS:
            seeds = []
            break
        seeds += range(first, last + 1)
    if not seeds or len(set(seeds)) != len(seeds) or len(seeds) > MOST_SEEDS:
        raise RequestError(
            f"`--seeds {text[:60]}`: different numbers from 0 to {MOST_SEED:,}, at most {MOST_SEEDS:,} of them; a "
            "range as in `0-7`."
        )
    return tuple(seeds)


def seeds_text(seeds: Sequence[int]) -> str:
    """Returns seeds as `--seeds` takes them, ranges short: "0-5", "0,1,8"."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(seed) for seed in run] for run in runs)
    return ",".join(part for run in parts for part in run)
