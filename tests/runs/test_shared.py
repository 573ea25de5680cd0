"""Runs that ranks of torchrun share: what is refused, how questions are dealt out, and the whole command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mmpt_bench import api
from mmpt_bench.common.errors import RequestError
from mmpt_bench.data.samples import Prediction, Sample
from mmpt_bench.engine.inference.predict import predict
from mmpt_bench.evaluation.scoring import scored
from mmpt_bench.records.run_folder import TENSORS
from mmpt_bench.records.store import Store
from mmpt_bench.runs.plan import plan_given
from mmpt_bench.runs.shared import image_shards
from mmpt_bench.runs.workers.backends import check_parallel
from mmpt_bench.runs.workers.ranks import check_shared
from mmpt_bench.sources.task_rows import Where, rows_of, samples
from support.paths import ROOT
from support.tasks import task
from support.tiny import tiny_backbone


@pytest.fixture(scope="module")
def asked() -> list[Sample]:
    """101 questions, of which some share an image."""
    return samples(task("pope"), rows_of(task("pope"), Where(embedded=True)))[:101]


@pytest.mark.parametrize("n", [2, 3, 7])
def test_each_question_is_in_one_share_and_those_of_an_image_together(n: int, asked: list[Sample]) -> None:
    shards = image_shards(asked, n)
    assert Counter(one.id for shard in shards for one in shard) == Counter(one.id for one in asked)
    images = [{one.image.key for one in shard} for shard in shards]
    assert sum(map(len, images)) == len({one.image.key for one in asked}) < 101
    most = max(Counter(one.image.key for one in asked).values())
    assert max(map(len, shards)) - min(map(len, shards)) <= most


def test_fewer_images_than_ranks_leave_a_rank_without_questions(asked: list[Sample]) -> None:
    assert [len(shard) for shard in image_shards(asked[:1], 3)] == [1, 0, 0]
    assert image_shards([], 2) == [[], []]


def test_answers_in_shares_are_those_of_one_process(asked: list[Sample], tmp_path: Path) -> None:
    backbone, of = tiny_backbone(tmp_path), task("pope")

    def answers(n: int) -> list[Prediction]:
        made = {p.id: p for shard in image_shards(asked, n) for batch in predict(backbone, of, shard) for p in batch}
        return [made[one.id] for one in asked]

    whole = answers(1)
    for n in (2, 3, 7):
        found = answers(n)
        assert [(p.id, p.reply, p.ranked) for p in found] == [(p.id, p.reply, p.ranked) for p in whole]
        assert scored(of, asked, found) == scored(of, asked, whole)


def test_processes_of_torchrun_that_would_all_do_the_same_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="torchrun --nproc-per-node 2 -m mmpt_bench run --parallel ddp"):
        check_parallel("ddp")
    check_parallel("")
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for call in (lambda: api.run("lora", "mnist"), lambda: list(api.tune("lora")), lambda: check_parallel("")):
        with pytest.raises(RequestError, match="torchrun has started 2 processes"):
            call()
    with pytest.raises(RequestError, match="There is no way to share a training `fsdp`"):
        check_parallel("fsdp")
    with pytest.raises(RequestError, match="`--parallel` and `--workers` do not go together"):
        check_parallel("ddp", 2)
    check_parallel("fsdp2")


@pytest.mark.parametrize(
    ("way", "options", "told"),
    [
        ("ddp", {"monitor": "mnist", "every": 2, "steps": 4}, "`--parallel` and `--monitor` do not go together"),
        ("ddp", {"meta": "reptile:mnist,vsr"}, "`--parallel` and `--meta` do not go together"),
        ("ddp", {"device": "cpu:0"}, "`--device cpu:0` is one for all ranks"),
    ],
)
def test_a_training_that_ranks_cannot_share_is_refused_before_anything_is_loaded(
    way: str, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    given = ("projector", "mnist", (None, False), None, {"out": tmp_path, "limit": 4, **options}, False)
    with pytest.raises(RequestError, match=told):
        check_shared(way, plan_given(given, Store(tmp_path)))


@pytest.mark.slow
def test_two_ranks_do_a_command_and_the_first_one_alone_writes(tmp_path: Path) -> None:
    words = ["--method", "lora", "--tasks", "mnist", "--steps", "4", "--batch-size", "3", "--limit", "20"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(out: str, *launch: str) -> Any:
        command = [sys.executable, "-m", *launch, "mmpt_bench", "run", *words, "--out", str(tmp_path / out)]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        records = {record.method: record for record in Store(tmp_path / out).records()}
        (adapter,) = (tmp_path / out).glob(f"runs/lora-*/adapter/{TENSORS}")
        return done.stdout, records, load_file(adapter)

    wanted = run("one")
    for way in ("ddp", "fsdp2"):
        launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
        words = [*words[:10], "--parallel", way]
        printed, records, adapter = run(way, *launch)
        assert printed.count("mmpt-bench compare") == wanted[0].count("mmpt-bench compare")
        assert {name: record.world_size for name, record in records.items()} == {"frozen": 1, "lora": 2}
        for name, record in records.items():
            same = ("eval_key", "train_key", "run", "score", "parsed_choices", "ranked_choices", "variant_key")
            assert [getattr(record, of) for of in same] == [getattr(wanted[1][name], of) for of in same]
        difference = sum((adapter[name] - value).square().sum() for name, value in wanted[2].items())
        assert difference.sqrt() <= 1e-5 * sum(value.square().sum() for value in wanted[2].values()).sqrt()
    assert api.verify(tmp_path / "ddp") == []
