"""Token pruning: what may be asked for, rows worked out by hand, and that nothing of the ordinary results changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import mmpt_bench as mb
from mmpt_bench.cli.main import cli
from mmpt_bench.data.samples import Prediction
from mmpt_bench.evaluation.pruning import Pruning, kept_shares, kinds_of, shares_of
from mmpt_bench.study.pruning.board import Said, prune_rows
from support.families import qwen2_vl
from support.synthetic import samples, task
from support.tiny import save_tiny


@pytest.mark.parametrize(("share", "tokens", "count"), [(0.5, 576, 288), (0.25, 9, 2), (0.5, 9, 5), (0.001, 36, 1)])
def test_shares_become_tokens_half_rounded_up_and_at_least_one(share: float, tokens: int, count: int) -> None:
    assert Pruning("random", share).count(tokens) == count


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ("0", "`--keep-tokens 0`: a share is a number above 0 and at most 1"),
        ("1.5", "`--keep-tokens 1.5`: a share"),
        ("0.5,nan", "`--keep-tokens nan`: a share"),
        ("-inf", "`--keep-tokens -inf`: a share"),
        ("half", "`--keep-tokens half`: a share"),
        ("0.5,0.50", "name each share once"),
        ("1.0", "prunes nothing: name a share below 1"),
        ("", "prunes nothing"),
    ],
)
def test_what_is_no_share_is_refused_in_one_line(shares: str, message: str) -> None:
    with pytest.raises(mb.RequestError, match=message) as raised:
        shares_of(shares)
    assert "\n" not in str(raised.value)


def test_shares_that_keep_as_many_tokens_are_one_row_under_the_share_that_stays() -> None:
    assert kept_shares((0.5, 0.25), 36) == ((0.5, 0.25), [])
    assert kept_shares((0.51, 0.5, 1e-9), 36) == (
        (0.5, 1 / 36),
        ["0.51 and 0.5 keep 18 of an image's 36 tokens: one row"],
    )
    assert kept_shares((0.99, 0.1), 36) == (
        (4 / 36,),
        ["0.99 of an image's 36 tokens is all of them: no row of its own"],
    )
    with pytest.raises(mb.RequestError, match=r"prunes nothing: 0\.99 of an image's 36 tokens is all of them"):
        kept_shares((0.99,), 36)
    # A share that stays keeps as many as the one that was asked for.
    for tokens in (36, 576, 577):
        assert all(Pruning("random", count / tokens).count(tokens) == count for count in range(1, tokens))


@pytest.mark.parametrize("share", [0.99, [0.99], "0.99", (0.99, 1)])
def test_a_number_a_sequence_and_a_text_are_shares(share: Any, tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match=r"prunes nothing: 0\.99 of"):
        mb.prune("frozen", "vsr", share, "random", out=tmp_path, offline=True)


def test_random_is_always_a_row_and_that_is_said() -> None:
    assert kinds_of("attention,cls", {}) == (
        ("random", "cls", "attention"),
        ["`random` is asked too: without it no way to prune can be judged"],
    )
    assert kinds_of("random", {}) == (("random",), [])
    assert kinds_of("", {"cls": "there is none"}) == (
        ("random", "attention"),
        ["`cls` is left out: there is none"],
    )
    with pytest.raises(mb.RequestError, match=r"`--prune cls`: there is none\. Leave it out"):
        kinds_of("cls", {"cls": "there is none"})
    with pytest.raises(mb.RequestError, match=r"no way to prune `clss`.*`cls`"):
        kinds_of("clss", {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prune", "cls"], "`--prune` chooses what `--keep-tokens` keeps"),
        (["--keep-tokens", "0.5", "--prune", "fastv"], "no way to prune `fastv`"),
        (["--keep-tokens", "0.5", "--workers", "2"], "`--workers` and `--keep-tokens` do not go together"),
        (["--keep-tokens", "0.5", "--plan"], "`--plan` says nothing of `--keep-tokens`"),
        (["--keep-tokens", "2"], "a share is a number above 0"),
    ],
)
def test_the_command_refuses_before_anything_runs(words: list[str], message: str, tmp_path: Path) -> None:
    made = CliRunner().invoke(cli, ["run", "--method", "frozen", "--out", str(tmp_path / "o"), *words])
    assert isinstance(made.exception, mb.RequestError)
    assert message in str(made.exception)
    assert "\n" not in str(made.exception)
    assert not (tmp_path / "o" / "runs").exists()


def test_a_tower_without_a_cls_token_and_other_families_are_refused_without_weights(tmp_path: Path) -> None:
    siglip = save_tiny(tmp_path / "siglip", siglip=True)
    for weights in siglip.glob("*.safetensors"):
        weights.write_bytes(b"no weights")
    with pytest.raises(mb.RequestError, match=r"`--prune cls`: the vision tower of .* none of them is a CLS token"):
        mb.prune("frozen", "vsr", [0.5], "cls", backbone=str(siglip), out=tmp_path / "o", offline=True)
    other = qwen2_vl(tmp_path / "other")
    with pytest.raises(mb.RequestError, match="of Qwen2-VL no token is pruned"):
        mb.prune("frozen", "vsr", [0.5], backbone=str(other), out=tmp_path / "o", offline=True)


HALF = Pruning("random", 0.5)


def said(pruning: Pruning | None, answers: str, seed: int | None = None) -> Said:
    """Returns answers to four questions, of which yes, no, yes, no are right."""
    words = {"y": "yes", "n": "no"}
    made = tuple(Prediction(str(i), words[a], words[a], words[a], (0.0, 0.0)) for i, a in enumerate(answers))
    return Said("colours", "lora", seed, pruning, 16 if pruning is None else 8, made, 0.001, 0.002)


def test_rows_and_differences_are_those_worked_out_by_hand() -> None:
    readable = task(parse=lambda reply, choices: reply)
    items = [s for s in samples(4)]
    attention = Pruning("attention", 0.5)
    found = prune_rows(
        readable, items, [said(None, "ynyn"), said(HALF, "nnyn"), said(attention, "nnnn")]
    )  # all right; the first wrong; the two yes wrong
    assert [(row.kind, row.share, row.tokens, row.score) for row in found] == [
        ("none", 1.0, 16, 1.0), ("random", 0.5, 8, 0.75), ("attention", 0.5, 8, 0.5),
    ]  # fmt: skip
    whole, random, last = found
    assert (whole.from_whole, whole.from_random, random.from_random) == (None, None, None)
    assert random.from_whole is not None
    assert random.from_whole.estimate == -0.25
    assert last.from_whole is not None
    assert last.from_whole.estimate == -0.5
    assert last.from_random is not None
    assert last.from_random.estimate == -0.25
    # No resample of the images finds a question that pruning repairs.
    assert last.from_whole.interval[1] <= 0


def test_seeds_are_averaged_and_paired() -> None:
    readable = task(parse=lambda reply, choices: reply)
    whole = [said(None, "ynyn", 0), said(None, "nnyn", 1)]
    half = [said(HALF, "nnyn", 0), said(HALF, "nnnn", 1)]
    _, row = prune_rows(readable, list(samples(4)), [*whole, *half])
    assert (row.seeds, row.score) == ((0, 1), 0.625)
    assert row.from_whole is not None
    assert row.from_whole.estimate == -0.25
    # The difference is -1/4 at both seeds: seeds that agree leave the images to doubt.
    assert row.from_whole.interval[0] < -0.25 < row.from_whole.interval[1]


@pytest.mark.slow
def test_pruned_results_stand_apart_and_are_not_asked_again(tmp_path: Path) -> None:
    quick: dict[str, Any] = {"limit": 12, "out": tmp_path, "offline": True}
    mb.run("frozen", "vsr", **quick)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("runs/*/*") if path.is_file()}
    made = mb.prune("frozen", "vsr", "1.0,0.5,0.25", "attention", **quick)
    assert [(row.kind, row.share, row.tokens) for row in made.rows] == [
        ("none", 1.0, 36), ("random", 0.5, 18), ("random", 0.25, 9), ("attention", 0.5, 18), ("attention", 0.25, 9),
    ]  # fmt: skip
    after = {path.name: path.read_bytes() for path in tmp_path.glob("runs/*/*") if path.is_file()}
    # Records and ordinary replies are the same bytes; no pruned score is on the leaderboard.
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"pruned-vsr.jsonl", "pruned-times.jsonl"}
    assert len(mb.load_results(tmp_path).scores) > 0
    assert made.rows[0].score == json.loads(after["records.jsonl"].splitlines()[0])["score"]
    assert {path.suffix for path in made.files} == {".csv", ".md", ".png"}
    again = mb.prune("frozen", "vsr", "0.5,0.25", "random,attention", **quick)
    assert again.rows == made.rows
    assert {p.name: p.read_bytes() for p in tmp_path.glob("runs/*/*") if p.is_file()} == after
    # Another share asks for itself alone.
    mb.prune("frozen", "vsr", [0.75], "random", **quick)
    kept = [json.loads(line)["eval_key"] for line in (next(tmp_path.glob("runs/*/pruned-vsr.jsonl"))).open()]
    assert len(set(kept)) == 5
    (line,) = {len([key for key in kept if key == one]) for one in set(kept)}
    assert line == made.rows[0].n
