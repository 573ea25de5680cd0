"""`--answers parquet`: the same answers, scores and checks, in fewer bytes; lines until a task is finished."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from mmpt_bench import analysis, api
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.files import read_jsonl
from mmpt_bench.common.hashing import file_sha256
from mmpt_bench.data.samples import Prediction
from mmpt_bench.records import answer_files
from mmpt_bench.records.merge import COSTS
from mmpt_bench.records.run_folder import SUM
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from support.processes import in_child
from support.small import make_small

MADE = [Prediction("0", "Yes.\n", "yes", "yes", (-0.1, -2.25)), Prediction("1", 'é "no"', None, None, ())]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield


def run(out: Path, answers: str = "parquet", tasks: str = "mnist", **more: Any) -> Any:
    return api.run("frozen", tasks, out=out, answers=answers, **more)


def names(out: Path) -> list[str]:
    ends = (".jsonl", ".parquet")
    return sorted(p.name for p in out.glob("runs/*/*") if p.suffix in ends and not p.name.startswith("records"))


def test_a_run_keeps_the_answers_of_finished_tasks_as_parquet_and_every_score(tmp_path: Path) -> None:
    run(tmp_path / "lines", "jsonl")
    run(tmp_path / "packed")
    (line,), (packed,) = (Store(tmp_path / name).records() for name in ("lines", "packed"))
    (file,) = (tmp_path / "packed").glob("runs/*/mnist-*.parquet")
    assert names(tmp_path / "packed") == [file.name] == [f"mnist-{packed.replies_key or packed.eval_key}.parquet"]
    assert packed.answers_sha256 == file_sha256(file)
    assert {n: v for n, v in packed.row.items() if n not in COSTS} == {
        n: v for n, v in line.row.items() if n not in COSTS
    }
    rows = read_jsonl(next((tmp_path / "lines").glob("runs/*/mnist.jsonl")))
    without = [{name: row[name] for name in row if name not in (SUM, "eval_key")} for row in rows]
    table = pyarrow.parquet.read_table(file)
    assert table.to_pylist() == sorted(without, key=lambda row: row["id"])
    assert pyarrow.parquet.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    assert analysis.verify(tmp_path / "packed") == []
    assert not run(tmp_path / "packed").made


@pytest.mark.slow
def test_a_run_that_is_killed_within_a_task_goes_on_to_the_same_answers(tmp_path: Path) -> None:
    asked: list[int] = []

    def kill(job: Any, task: str, n: int, total: int) -> None:
        if 0 < n < total:
            os.kill(os.getpid(), signal.SIGKILL)

    cut = in_child(lambda: run(tmp_path / "cut", reporter=Reporter(evaluated=kill), eval_batch_size=2))
    assert os.WTERMSIG(cut()) == signal.SIGKILL
    assert names(tmp_path / "cut") == ["mnist.jsonl"]
    run(tmp_path / "cut", reporter=Reporter(evaluated=lambda job, task, n, total: asked.append(n)), eval_batch_size=2)
    assert asked[0] > 0
    run(tmp_path / "whole", eval_batch_size=2)
    kept = [next((tmp_path / name).glob("runs/*/mnist-*.parquet")).read_bytes() for name in ("cut", "whole")]
    assert kept[0] == kept[1]
    assert names(tmp_path / "cut") == names(tmp_path / "whole")


def test_lines_that_a_record_has_the_hash_of_stay_as_they_are(tmp_path: Path) -> None:
    run(tmp_path, "jsonl", limit=4)
    (lines,) = tmp_path.glob("runs/*/mnist.jsonl")
    before = lines.read_bytes()
    run(tmp_path)
    run(tmp_path, parse="plain", limit=4)
    assert lines.read_bytes() == before
    assert len(list(tmp_path.glob("runs/*/mnist-*.parquet"))) == 1
    assert analysis.verify(tmp_path) == []


def test_merged_copies_of_both_forms_are_one_run(tmp_path: Path) -> None:
    run(tmp_path / "a", "jsonl")
    run(tmp_path / "b", "parquet", "mnist,vsr")
    done = analysis.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert not done.conflicts
    assert analysis.verify(tmp_path / "c") == []
    assert {record.task for record in Store(tmp_path / "c").records()} == {"mnist", "vsr"}
    (of_run,) = Store(tmp_path / "c").runs()
    for record in of_run.records():
        assert len(of_run.predictions(record.task, record.replies_key or record.eval_key)) == record.n


def test_what_was_edited_or_damaged_is_said(tmp_path: Path) -> None:
    run(tmp_path)
    (file,) = tmp_path.glob("runs/*/mnist-*.parquet")
    (of_run,) = Store(tmp_path).runs()
    whole, key = file.read_bytes(), file.stem.removeprefix("mnist-")
    answer_files.write(file, [*of_run.predictions("mnist", key).values()][1:])
    with pytest.raises(UntrustedRecord, match=r"The answers in `mnist-\w+\.parquet` of `frozen-\w+` were changed"):
        of_run.records()
    for damaged in (whole[:-20], whole[:40] + bytes([whole[40] ^ 255]) + whole[41:], b""):
        file.write_bytes(damaged)
        with pytest.raises(UntrustedRecord, match=r"`mnist-\w+\.parquet` in `frozen-\w+` is damaged: .*again\."):
            of_run.predictions("mnist", key)


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    answer_files.write(tmp_path / "a.parquet", MADE)
    rows = answer_files.read(tmp_path / "a.parquet")
    assert [Prediction(**row | {"logprobs": tuple(row["logprobs"])}) for row in rows] == MADE
    assert answer_files.read(tmp_path / "none.parquet") == []


def test_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no form of answers `csv`"):
        run(tmp_path, "csv")
