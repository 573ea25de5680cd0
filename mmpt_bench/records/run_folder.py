"""What a run leaves in its folder beside its records: the trained adapter, the log of its steps, its predictions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import append_jsonl_rows, loads, read_jsonl, write_atomic
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.data.samples import Prediction
from mmpt_bench.records.store import Store

ADAPTER, TENSORS, COSTS, LOG = "adapter", "adapter_model.safetensors", "training.json", "train.jsonl"


def training(store: Store, run: str) -> dict[str, Any] | None:
    """Returns what a run's finished training cost and the checksum of its adapter; None where it is not finished."""
    path = store.run_path(run, ADAPTER, COSTS)
    if not path.is_file():
        return None
    try:
        known: dict[str, Any] = loads(path.read_bytes())
    except ValueError as error:
        raise UntrustedRecord(
            f"`{COSTS}` of `{run}` is damaged: {error}. Delete the run's folder to do it again."
        ) from error
    return known


def finish_training(store: Store, run: str, part: Path, costs: Mapping[str, Any]) -> None:
    """Makes a saved adapter the run's own, whole or not at all; `part` is the folder that it was saved to."""
    write_atomic(part / COSTS, canonical_json(costs).encode())
    os.replace(part, store.run_path(run, ADAPTER))


def log_steps(store: Store, run: str, steps: Sequence[Mapping[str, Any]]) -> None:
    """Appends optimiser steps to the run's train.jsonl; those after a checkpoint that was gone on from come again."""
    if steps:
        append_jsonl_rows(store.run_path(run, LOG), steps)


def predictions(store: Store, run: str, task: str, eval_key: str) -> dict[str, Prediction]:
    """Returns by sample what a run has answered under an `eval_key`."""
    found = {}
    for row in read_jsonl(store.run_path(run, f"{task}.jsonl")):
        if row.pop("eval_key") == eval_key:
            found[row["id"]] = Prediction(**(row | {"logprobs": tuple(row["logprobs"])}))
    return found


def append_predictions(store: Store, run: str, task: str, eval_key: str, made: Sequence[Prediction]) -> None:
    """Appends answers to the run's `<task>.jsonl`; they are on the disk when this returns."""
    rows = [{"eval_key": eval_key} | dataclasses.asdict(prediction) for prediction in made]
    append_jsonl_rows(store.run_path(run, f"{task}.jsonl"), rows)
