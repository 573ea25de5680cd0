"""Transfer: steps to a score and differences by hand, what is refused, and the whole from its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmpt_bench as mb
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.records.store import Store
from mmpt_bench.runs.monitoring import FILE
from mmpt_bench.runs.options import make_request
from mmpt_bench.study.streams.transfer import OWN, Line, TransferPlan, TransferRequest, transfer_rows

EVERY, STEPS, BEFORE = 10, 40, 20


def asked(out: Path, **more: Any) -> TransferRequest:
    request = make_request("lora", "vsr", {"out": out, "steps": STEPS, "every": EVERY, **more})
    return TransferRequest.of(request, ["mnist"], BEFORE)


def keep(store: Store, run: str, rights: list[str], every: int = EVERY) -> None:
    path = store.run(run).path(FILE)
    path.parent.mkdir(parents=True)
    rows = [
        {"step": every * k, "task": "vsr", "n": len(right), "score": right.count("1") / len(right), "before": 0.0,
         "p": 1.0, "alarm": False, "right": right}
        for k, right in enumerate(rights)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_steps_and_differences_are_those_worked_by_hand(tmp_path: Path) -> None:
    """Two questions, two seeds: the own beginning ends at 3/4; the other reaches it 20 steps + 10 steps in."""
    store = Store(tmp_path)
    keep(store, "own-0", ["00", "10", "10", "11", "11"])
    keep(store, "own-1", ["00", "00", "10", "00", "10"])
    keep(store, "mnist-0", ["10", "11", "11"])
    keep(store, "mnist-1", ["00", "10", "11"])
    plan = TransferPlan(
        "vsr", (), (Line("lora", OWN, ("own-0", "own-1")), Line("lora", "mnist", ("mnist-0", "mnist-1")))
    )
    own, other = transfer_rows(asked(tmp_path), plan, store)
    assert own.steps == (0, 10, 20, 30, 40)
    np.testing.assert_allclose(own.curve, [0, 0.25, 0.5, 0.5, 0.75])
    assert (own.reached, own.last_difference, own.p) == (40, None, None)
    assert other.steps == (20, 30, 40)
    np.testing.assert_allclose(other.curve, [0.25, 0.75, 1])
    assert other.reached == 30
    assert other.last_difference == pytest.approx(0.25)
    assert other.last_interval is not None
    assert other.last_interval[0] >= 0


def test_a_score_that_is_not_reached_has_no_steps(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "own", ["0" * 40, "0" * 40, "1" * 20 + "0" * 20, "1" * 30 + "0" * 10, "1" * 40])
    keep(store, "mnist", ["0" * 40] * 3)
    plan = TransferPlan("vsr", (), (Line("lora", OWN, ("own",)), Line("lora", "mnist", ("mnist",))))
    own, other = transfer_rows(asked(tmp_path), plan, store)
    assert own.reached == 40
    assert other.reached == other.reached_interval[0] == float("inf")
    assert other.last_difference == -1
    # One seed: nothing is claimed.
    assert other.p is None


def test_six_seeds_have_a_p(tmp_path: Path) -> None:
    store, runs = Store(tmp_path), [f"{name}-{seed}" for name in ("own", "mnist") for seed in range(6)]
    for run in runs:
        keep(store, run, ["0" * 40, "1" * 40, "1" * 40] if "mnist" in run else ["0" * 40] * 4 + ["1" * 20 + "0" * 20])
    plan = TransferPlan("vsr", (), (Line("lora", OWN, tuple(runs[:6])), Line("lora", "mnist", tuple(runs[6:]))))
    _, other = transfer_rows(asked(tmp_path, seeds="0-5"), plan, store)
    assert other.last_difference == 0.5
    assert other.p is not None
    assert other.p < 0.01


def test_a_run_without_the_looks_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "own", ["00"] * 3, every=20)
    plan = TransferPlan("vsr", (), (Line("lora", OWN, ("own",)),))
    with pytest.raises(RequestError, match="`own` was trained without looks at `vsr` every 10 steps"):
        transfer_rows(asked(tmp_path), plan, store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": None}, "Line 2 of `monitor.jsonl` in `own` is no look"),
        ({"right": "0?"}, "is no look"),
        ({"score": "half"}, "is no look"),
        ({"n": 1, "right": "1"}, "are of other questions"),
    ],
)
def test_damaged_looks_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    store = Store(tmp_path)
    keep(store, "own", ["00", "01", "01", "11", "11"])
    path = store.run("own").path(FILE)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | (change if k == 1 else {})) + "\n" for k, row in enumerate(rows)))
    with pytest.raises(UntrustedRecord, match=message):
        transfer_rows(asked(tmp_path), TransferPlan("vsr", (), (Line("lora", OWN, ("own",)),)), store)


@pytest.mark.parametrize(
    ("task", "before", "options", "message"),
    [
        ("vsr", "vsr", {}, "other tasks than `vsr`"),
        ("vsr", "mnist,mnist", {}, "each once"),
        ("vsr", "", {}, "other tasks than `vsr`"),
        ("vsr,mme", "mnist", {}, "name one to learn"),
        ("vsr", "nosuch", {}, "There is no task `nosuch`"),
        ("vsr", "mnist", {"before_steps": 40}, "fewer steps before than in total"),
        ("vsr", "mnist", {"before_steps": 15}, "multiples"),
        ("vsr", "mnist", {"every": 0}, "multiples"),
        ("vsr", "mnist", {"method": "frozen"}, "`frozen` trains nothing"),
        ("vsr", "mnist", {"meta": "reptile"}, "leave out what else"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(
    tmp_path: Path, task: str, before: str, options: dict[str, Any], message: str
) -> None:
    arguments = {"steps": 40, "before_steps": 20, "every": 10, "out": tmp_path, "method": "lora"} | options
    with pytest.raises(RequestError, match=message):
        mb.transfer(task, before, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_transfer_runs_and_seeds_are_one_row_of_the_leaderboard(tmp_path: Path) -> None:
    options: Any = {"steps": 4, "before_steps": 2, "every": 2, "batch_size": 4, "limit": 6, "set": ["lora.r=2"]}
    made = mb.transfer("vsr", "mnist,reptile", "lora", out=tmp_path, seeds="0,1", **options)
    assert list(made.table["begins_with"]) == [OWN, "mnist", "reptile"]
    assert all(path.is_file() for path in made.figures)
    again = mb.transfer("vsr", "mnist,reptile", "lora", out=tmp_path, seeds="0,1", **options)
    assert again.table.equals(made.table)
    (board,) = (each for each in mb.load_results(tmp_path).boards if each.corpus == "vsr train" and len(each.rows) > 1)
    assert {row.seeds for row in board.rows} == {(0, 1)}
    assert len(board.rows) == 3
