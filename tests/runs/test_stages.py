"""Trainings that begin from a recorded run, learn an initial value by Reptile, or end at an alarm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import mmpt_bench as mb
from mmpt_bench.common.errors import Interrupted, RequestError, UntrustedRecord
from mmpt_bench.data.examples import Corpus, in_blocks
from mmpt_bench.engine.adapters.saved import read_adapter
from mmpt_bench.records.keys import of_departures
from mmpt_bench.records.run_folder import BEST, RunFolder
from mmpt_bench.runs import monitoring
from mmpt_bench.runs.monitoring import Monitor
from mmpt_bench.runs.stages import FISHER, INNER_STEPS, SHA256, Reptile, _digest, _kept_fisher
from mmpt_bench.sources.corpora import TrainData, load_corpus

QUICK: dict[str, Any] = {"steps": 3, "batch_size": 4, "limit": 6, "set": ["lora.r=2", "lora.learning_rate=1e-3"]}


class Values:
    """A handle with one value."""

    def __init__(self, value: float) -> None:
        self.value = torch.tensor([value])

    def state(self) -> dict[str, torch.Tensor]:
        return {"w": self.value.clone()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.value = state["w"].clone()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, mb.Results]:
    """Returns a results folder, its run on mnist, and the results of a run on vsr that began from that."""
    out = tmp_path_factory.mktemp("begun")
    first = mb.run("lora", "vsr", out=out, train_data="task:mnist", **QUICK)
    (name,) = {record.run for record in first.records}
    return out, name, mb.run("lora", "vsr", out=out, train_data="task:vsr", init_from=name, base=True, **QUICK)


def adapter_of(out: Path, run: str) -> bytes:
    return (out / "runs" / run / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_training_from_a_run_is_the_second_stage_of_the_stream(
    begun: tuple[Path, str, mb.Results], tmp_path: Path
) -> None:
    out, first, made = begun
    stream = mb.stream("mnist,vsr", "lora", "sequential", "mnist,vsr", out=tmp_path, **QUICK)
    (training,) = stream.stream.trainings
    assert training.runs[0] == first
    (own,) = {record.run for record in made.made if record.method == "lora"}
    tensors = [
        read_adapter(at) for at in (out / "runs" / own / "adapter", tmp_path / "runs" / training.runs[1] / "adapter")
    ]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])


def test_its_steps_and_those_before_are_one_budget_and_one_board(begun: tuple[Path, str, mb.Results]) -> None:
    _, _, made = begun
    assert {record.budget["steps"] for record in made.made} == {6}
    assert len({record.track for record in made.made}) == 1
    (track,) = {record.track for record in made.made}
    (board,) = (each for each in made.boards if each.track == track)
    assert sorted(row.label for row in board.rows) == [
        "frozen",
        "lora (after=3 steps of 4 on mnist train at 0.001, learning_rate=0.001, r=2)",
    ]


def test_seeds_that_begin_from_runs_of_their_own_seed_are_one_variant() -> None:
    def stage(run: str, seed: int, of: str = "v") -> dict[str, Any]:
        return {"from": run, "of": ["mnist train", 1e-3, 16], "variant": of, "seed": seed, "steps": 3}

    assert of_departures(stage("a", 0), 0) == of_departures(stage("b", 1), 1)
    assert of_departures(stage("a", 0), 1) != of_departures(stage("b", 1), 1)
    assert of_departures(stage("a", 0), 1) == of_departures(stage("a", 0), 2)
    assert of_departures(stage("a", 0), 0) != of_departures(stage("a", 0, "trained otherwise"), 0)
    assert of_departures({}, 0) == []


def test_it_is_not_redone_and_its_recipe_can_be_repeated(begun: tuple[Path, str, mb.Results], tmp_path: Path) -> None:
    out, _, made = begun
    (own,) = {record.run for record in made.made if record.method == "lora"}
    recipe = out / "runs" / own / "recipe.yaml"
    again = mb.run(tasks="vsr", recipe=recipe, out=out, train_data="task:vsr", limit=6)
    assert again.made == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_from": "nosuch"}, "has no trained run of that name"),
        ({"init_from": "RUN", "set": ["lora.r=4"]}, r"is an adapter of lora \(r=2\)"),
        ({"init_from": "RUN", "method": "vpt"}, "is an adapter of lora"),
        ({"init_from": "RUN", "method": "lora,vpt"}, "is the adapter of one method"),
        ({"meta": "maml"}, "no way to learn initial values `maml`"),
        ({"meta": "reptile:mnist"}, "two tasks or more"),
        ({"meta": "reptile:mnist,nosuch"}, "There is no task `nosuch`"),
        ({"meta": "reptile", "train_data": "task:vsr"}, "leave out `--train-data`"),
        ({"stop_on_alarm": True}, "name tasks there"),
    ],
)
def test_what_cannot_be_is_refused(begun: tuple[Path, str, mb.Results], options: dict[str, Any], message: str) -> None:
    out, first, _ = begun
    method = options.pop("method", "lora")
    sets = [] if method != "lora" else QUICK["set"]
    wanted = {**QUICK, "set": sets, **options}
    if wanted.get("init_from") == "RUN":
        wanted["init_from"] = first
    with pytest.raises(RequestError, match=message):
        mb.plan(method, "vsr", out=out, **wanted)


def test_rates_are_not_searched_for_such_trainings(begun: tuple[Path, str, mb.Results]) -> None:
    out, first, _ = begun
    with pytest.raises(RequestError, match="from a method's own initial values"):
        list(mb.tune("lora", out=out, init_from=first, set=["lora.r=2"]))


def test_reptile_moves_the_values_by_a_falling_share_of_what_each_task_changed() -> None:
    handle: Any = Values(0.0)
    reptile = Reptile(handle, 2 * INNER_STEPS)
    for step in range(1, INNER_STEPS + 1):
        handle.value = handle.value + 1
        reptile.after(step)
    # 0 + 1 * (5 - 0): the first share is 1.
    assert handle.value.item() == INNER_STEPS
    for step in range(INNER_STEPS + 1, 2 * INNER_STEPS + 1):
        handle.value = handle.value + 2
        reptile.after(step)
    # 5 + 0.5 * (15 - 5)
    assert handle.value.item() == INNER_STEPS + 0.5 * 2 * INNER_STEPS


def test_batches_in_blocks_are_of_one_task_and_every_task_has_its_turn() -> None:
    names = ["mnist", "vsr", "cifar10"]
    corpora = [load_corpus(TrainData(f"task:{name}", embedded=True)) for name in names]
    own = [{each.example(i).image.key for i in range(each.size)} for each in corpora]
    blocks = in_blocks(corpora, 2)

    def order(corpus: Corpus, seed: int) -> list[int]:
        found = []
        for batch in corpus.batches(seed, 11, 3):
            (task,) = {k for example in batch for k in range(3) if example.image.key in own[k]}
            found.append(task)
        return found

    made = order(blocks, 0)
    assert len(made) == 11
    assert all(made[i] == made[i + 1] for i in range(0, 10, 2))
    assert sorted(made[0:6:2]) == [0, 1, 2]
    assert order(blocks, 0) == made
    assert order(blocks, 1) != made
    rest = [example.image.key for batch in blocks.batches(0, 11, 3, first=4) for example in batch]
    assert rest == [example.image.key for batch in list(blocks.batches(0, 11, 3))[4:] for example in batch]


@pytest.mark.slow
def test_reptile_runs_and_a_training_begins_from_it(tmp_path: Path) -> None:
    meta = mb.run("lora", "mnist", out=tmp_path, meta="reptile:mnist,vsr", **QUICK)
    (record,) = meta.records
    assert record.corpus == f"{INNER_STEPS} steps each of mnist train, vsr train"
    made = mb.run("lora", "mnist", out=tmp_path, train_data="task:mnist", init_from=record.run, **QUICK)
    (after,) = [each for each in made.records if each.run != record.run]
    (one,) = {each.variant_key for each in meta.records}
    assert after.stage == {"from": record.run, "of": [record.corpus, 1e-3, 4], "variant": one, "seed": 0, "steps": 3}


def test_an_alarm_ends_the_training_and_puts_the_best_values_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, states = 0, {}

    def fifth(p: float, of: int) -> bool:
        nonlocal looks
        looks += 1
        return looks == 4

    look = Monitor._look

    def noted(self: Monitor, step: int) -> None:
        if self._stops is not None:
            states[step] = self._stops.state()
        look(self, step)

    monkeypatch.setattr(monitoring, "MOST", 8)
    monkeypatch.setattr(monitoring, "is_alarm", fifth)
    monkeypatch.setattr(Monitor, "_look", noted)
    options: Any = QUICK | {"steps": 8, "monitor": "mnist", "every": 1, "stop_on_alarm": True, "limit": 4}
    (record,) = mb.run("lora", "mnist", out=tmp_path, **options).records
    folder = tmp_path / "runs" / record.run
    rows = [json.loads(line) for line in (folder / monitoring.FILE).read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert len((folder / "train.jsonl").read_text().splitlines()) == 4
    best = max((row["score"], row["step"]) for row in rows[1:4])[1]
    assert record.notes.endswith(f"training stopped at step 4; the adapter is that of step {best}")
    saved = read_adapter(folder / "adapter")
    assert all(torch.equal(saved[name], states[best][name]) for name in saved)
    assert not (folder / BEST).exists()
    plain = mb.run("lora", "mnist", out=tmp_path, **(options | {"stop_on_alarm": False}))
    assert {each.run for each in plain.made}.isdisjoint({record.run})


@pytest.mark.slow
def test_an_interrupted_training_that_stops_at_an_alarm_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "MOST", 8)
    monkeypatch.setattr(monitoring, "drop_p", lambda before, now: 0.0 if len(states) >= 5 else 1.0)
    states: list[int] = []
    look = Monitor._look

    def noted(self: Monitor, step: int) -> None:
        states[:] = range(step + 1)
        look(self, step)

    monkeypatch.setattr(Monitor, "_look", noted)
    options: Any = QUICK | {"steps": 8, "monitor": "mnist", "every": 1, "stop_on_alarm": True, "limit": 4}
    whole = mb.run("lora", "mnist", out=tmp_path / "whole", **options).records[0]
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        mb.run("lora", "mnist", out=tmp_path / "cut", stopping=lambda: next(calls) >= 1, **options)
    saved = RunFolder.finish_training

    def killed(folder: RunFolder, *args: Any) -> None:
        monkeypatch.setattr(RunFolder, "finish_training", saved)
        raise Interrupted("between the end of the training and its saved adapter")

    monkeypatch.setattr(RunFolder, "finish_training", killed)
    with pytest.raises(Interrupted):
        mb.run("lora", "mnist", out=tmp_path / "cut", **options)
    cut = mb.run("lora", "mnist", out=tmp_path / "cut", **options).records[0]
    assert cut.notes == whole.notes
    assert adapter_of(tmp_path / "whole", whole.run) == adapter_of(tmp_path / "cut", cut.run)


def test_a_damaged_fisher_information_is_named(tmp_path: Path) -> None:
    known = {"a": torch.tensor([1.0, 2.0])}
    path = tmp_path / "lora-1" / FISHER
    path.parent.mkdir()
    whole = save(known, {SHA256: _digest(known)})
    path.write_bytes(whole)
    assert torch.equal(_kept_fisher(path, known)["a"], known["a"])
    path.write_bytes(save(known))  # of an earlier version
    assert torch.equal(_kept_fisher(path, known)["a"], known["a"])
    for damaged, why in (
        (whole[:-3], "`fisher.safetensors` in `lora-1` is damaged"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "its values have changed"),
        (b"", "is damaged"),
        (save({"b": known["a"]}), "it is of other values"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UntrustedRecord, match=why):
            _kept_fisher(path, known)
