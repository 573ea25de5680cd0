"""Whether a run's adapter is still in its folder: `--keep-adapters` lets go of its weights, and its records say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.files import jsonl, raise_unwritten, sync, write_atomic
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.records.run_folder import ADAPTER, COSTS, RECORDS, TENSORS, RunFolder, summed

WAYS = ALL, BEST, NONE = "all", "best", "none"
"""Which adapters stay."""
FISHER = "fisher.safetensors"
"""What EWC keeps beside an adapter; of no use without it."""


def is_kept(run: RunFolder) -> bool:
    """Returns whether a trained run has its adapter, which may be damaged; raises as `RunFolder.training` does."""
    known = run.training()
    return known is not None and known.get("kept", True)


def check_kept(run: RunFolder) -> None:
    """Raises RequestError where a run's adapter was not kept, with what to do."""
    if told := not_kept(run):
        raise RequestError(told)


def not_kept(run: RunFolder, known: Mapping[str, Any] | None = None) -> str:
    """Returns what is said where a run is trained and its adapter was not kept; else nothing.

    Args:
        known: the run's `training()`, where it was read before.
    """
    known = known or run.training()
    if known is None or known.get("kept", True):
        return ""
    return (
        f"The adapter of `{run.name}` was not kept (`--keep-adapters`), and is needed here. To train it again, delete "
        f"`runs/{run.name}` in the results folder and repeat the `mmpt-bench run` that made it, with all tasks that "
        "you need."
    )


def let_go(run: RunFolder) -> None:
    """Removes the weights of a run's adapter; its records and training.json keep the hash, and say that it is gone.

    The caller holds the run's lock. A process that is killed in here is followed by one that does the rest.
    """
    _say(run, kept=False)
    for path in (run.path(FISHER), run.path(ADAPTER, TENSORS)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise_unwritten(error, path, 0)
    sync(run.path(ADAPTER))


def put_back(run: RunFolder, other: RunFolder) -> None:
    """Puts the adapter of another copy of the same training in the place of one that was not kept; records say so."""
    if not run.path(ADAPTER, TENSORS).is_file():
        write_atomic(run.path(ADAPTER, TENSORS), other.path(ADAPTER, TENSORS).read_bytes())
    _say(run, kept=True)


def agree(run: RunFolder) -> None:
    """Makes all records of a trained run say what its training.json does; the caller holds its lock."""
    if run.is_trained:
        _say(run, is_kept(run))


def _say(run: RunFolder, kept: bool) -> None:
    """Makes records and training.json say whether the adapter is kept; files that say so already stay as they are."""
    records, known = run.records(), run.training()
    said = [dataclasses.replace(each, adapter_kept=kept) if each.adapter_sha256 else each for each in records]
    if said != records:
        write_atomic(run.path(RECORDS), jsonl(*(summed(record.row) for record in said)))
    if known is not None and known.get("kept", True) != kept:
        row = {name: value for name, value in known.items() if name != "kept"} | ({} if kept else {"kept": False})
        write_atomic(run.path(ADAPTER, COSTS), canonical_json(summed(row)).encode())
