"""A judged task from command to board: verdicts are kept, judges stand apart, and no board runs a user's file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mmpt_bench as mb
from mmpt_bench.common.errors import Interrupted, RequestError
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.judge import Judge
from mmpt_bench.runs.judging import said_of, verdicts
from support.paths import ROOT
from support.tiny import tokenizer

EXAMPLE = ROOT / "examples" / "judged_answers.py"
ONE = LazyImage("p", lambda: None)  # type: ignore[arg-type, return-value]
ASKED = [Sample(str(n), ONE, f"q{n // 2} ?", (), "red") for n in range(4)]


class Says:
    """A judge that says yes to "red", and nothing that can be read to "?"."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def said(self, asked: Any) -> Any:
        for key, _, answer in asked:
            self.asked.append(answer)
            yield [(key, {"red": "yes .", "?": "perhaps"}.get(answer, "no ."))]


def test_each_distinct_answer_is_judged_once_and_kept(tmp_path: Path) -> None:
    path, judge = tmp_path / "judged" / "t.jsonl", Says()

    def graded(*answers: str | None) -> list[float | None]:
        return verdicts(Judge("m"), path, ASKED, answers, lambda: judge, lambda: False)  # type: ignore[arg-type, return-value]

    # The first two samples are one question of one image.
    assert graded("red", "red", "?", None) == [1.0, 1.0, None, 0.0]
    assert judge.asked == ["red", "?"]
    assert graded("red", "blue", "?", "red") == [1.0, 0.0, None, 1.0]
    assert judge.asked == ["red", "?", "blue", "red"]
    assert len(said_of(path)) == 4
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["ids"] == ["0", "1"]
    assert {"question": "q0 ?", "references": ["red"], "reply": "red", "said": "yes ."}.items() <= rows[0].items()


def test_an_interrupted_judge_goes_on_where_it_was(tmp_path: Path) -> None:
    path, judge = tmp_path / "t.jsonl", Says()
    answers = ["red", "blue", "green", "?"]
    with pytest.raises(Interrupted, match="1 of 4 answers are judged"):
        verdicts(Judge("m"), path, ASKED, answers, lambda: judge, lambda: True)  # type: ignore[arg-type, return-value]
    assert verdicts(Judge("m"), path, ASKED, answers, lambda: judge, lambda: False) == [1, 0, 0, None]  # type: ignore[arg-type, return-value]
    assert judge.asked == answers


def test_a_text_model_judges_greedily_whatever_else_is_in_its_batch(tmp_path: Path) -> None:
    from mmpt_bench.engine.inference.judging import Judging

    torch.manual_seed(0)
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    words.save_pretrained(tmp_path / "llama")
    judge = Judge(str(tmp_path / "llama"), max_new_tokens=3, prompt="{question} {references} ? {reply} yes no ?")
    asked = [(str(n), ASKED[n], answer) for n, answer in enumerate(("red", "blue circle", "how many", "two"))]
    found: list[dict[str, str]] = []
    for batch in (1, 4):
        judging = Judging(judge, "cpu", True, batch)
        found.append({key: said for some in judging.said(asked) for key, said in some})
    assert found[0] == found[1]
    assert found[0].keys() == {"0", "1", "2", "3"}
    # As transformers itself says it, one alone.
    model = LlamaForCausalLM.from_pretrained(tmp_path / "llama")
    inputs = words("q0 ? red ? blue circle yes no ?\n", return_tensors="pt")
    out = model.generate(inputs["input_ids"], max_new_tokens=3, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert found[0]["1"] == words.decode(out, skip_special_tokens=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, mb.Results]:
    """Returns (a task's file, a results folder, what a run of the untuned base on it returned)."""
    top = tmp_path_factory.mktemp("judged")
    shutil.copy(EXAMPLE, top / "mine.py")
    made = mb.run("frozen", [str(top / "mine.py"), "mnist"], limit=24, out=top / "out", offline=True)
    return top / "mine.py", top / "out", made


def test_the_example_is_judged_and_nothing_is_redone(own: tuple[Path, Path, mb.Results]) -> None:
    file, out, made = own
    record = next(record for record in made.made if record.task == "mine")
    assert (record.status, record.headline, record.n) == ("ok", "judged", 24)
    judge = record.asking["judge"]
    assert (judge["model"], judge["fingerprint"]) == ("embedded", record.backbone_fingerprint)
    values = json.loads(record.question_values)
    known = [value for value in values["judged"] if value is not None]
    assert record.score == pytest.approx(sum(known) / len(known))
    assert record.n_unjudged == values["judged"].count(None)
    (kept,) = (out / "judged").glob("*.jsonl")
    before = kept.read_bytes()
    assert mb.run("frozen", str(file), limit=24, out=out, offline=True).made == ()
    assert kept.read_bytes() == before


def test_a_judged_task_has_a_board_of_its_own_which_needs_no_file(own: tuple[Path, Path, mb.Results]) -> None:
    file, out, made = own
    boards = {tuple(column.task for column in board.columns): board for board in made.boards}
    assert set(boards) == {("mine",), ("mnist",)}
    assert "judged by embedded" in boards["mine",].title
    hidden = file.with_suffix(".away")
    file.rename(hidden)
    try:
        assert mb.leaderboard(out).boards == made.boards
        assert "Judged answers" in (out / "leaderboard.md").read_text()
        scores = mb.load_results(out).scores.query("task == 'mine' and is_headline")
        assert scores["value"].tolist() == [boards["mine",].rows[0].cells["mine"].score]
    finally:
        hidden.rename(file)


def test_another_judge_is_another_setting_and_asks_no_model_again(own: tuple[Path, Path, mb.Results]) -> None:
    from mmpt_bench.evaluation.task_catalog import find_tasks, load_task
    from mmpt_bench.sources.prepared import PreparedTask, judge_setting

    (entry,) = find_tasks(str(own[0]))
    task = load_task(entry)
    item = PreparedTask(task, task.data.make_rows(), [], None, judge=judge_setting(task, True))
    graded = mb.FunctionMetric({"judged": Judge("embedded", most=5)})
    other_task = dataclasses.replace(task, metric=graded)
    other = dataclasses.replace(item, task=other_task, judge=judge_setting(other_task, True))
    assert item.replies_key("run") == other.replies_key("run")
    assert item.eval_key("run") != other.eval_key("run")
    record = next(record for record in own[2].made if record.task == "mine")
    assert dataclasses.replace(record, asking={"judge": other.judge}).setting_key != record.track == record.setting_key


def test_an_edited_value_is_noticed(own: tuple[Path, Path, mb.Results]) -> None:
    from mmpt_bench.board.rescoring import Samples, known_tasks, rescored
    from mmpt_bench.records.store import Store

    record = next(record for record in own[2].made if record.task == "mine")
    values = json.loads(record.question_values)
    values["judged"] = [1 - (value or 0) for value in values["judged"]]
    edited = dataclasses.replace(record, question_values=json.dumps(values))
    with pytest.raises(mb.UntrustedRecord, match="but its answers give"):
        rescored(edited, known_tasks({}, [record])["mine"], Samples(Store(own[1])))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda file, out: mb.prune("frozen", file, "0.5", out=out), "whom `--keep-tokens` does not ask"),
        (
            lambda file, out: mb.stream(["vsr", file], "lora", tasks=["vsr", file], out=out),
            "whom `stream` does not ask",
        ),
        (lambda file, out: mb.prompts(file, "frozen", out=out), "whom `prompts` does not ask"),
    ],
)
def test_commands_that_ask_no_judge_say_so(
    own: tuple[Path, Path, mb.Results], call: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        call(str(own[0]), tmp_path)


def test_a_judge_that_is_not_there_is_refused_before_anything_runs(
    own: tuple[Path, Path, mb.Results], tmp_path: Path
) -> None:
    file = tmp_path / "lost.py"
    file.write_text(own[0].read_text().replace('mb.Judge("embedded")', 'mb.Judge("./nowhere")'))
    with pytest.raises(RequestError, match=r"The judge of Judged answers: There is no backbone folder `\./nowhere`"):
        mb.plan("frozen", str(file), out=tmp_path / "out", offline=True)


def test_a_new_judged_task_passes_check(tmp_path: Path) -> None:
    path = mb.new("task", "colours", into=tmp_path, of="judged")
    results = mb.check(path)
    assert all(result.ok for result in results), [result for result in results if not result.ok]
    assert 'title="Colours"' in path.read_text()


@pytest.mark.parametrize(
    ("model", "ok", "told"),
    [
        ("embedded", True, "`embedded`"),
        ("./nosuch", False, "There is no backbone folder `./nosuch`"),
        ("owner/nosuch", True, "`owner/nosuch` is not on this machine: `run` fetches it"),
    ],
)
def test_check_looks_for_the_judge(model: str, ok: bool, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(EXAMPLE.read_text().replace('mb.Judge("embedded"', f'mb.Judge("{model}"'))
    found = next(result for result in mb.check(file) if result.name == "its judge is there")
    assert (found.ok, told in found.detail) == (ok, True)
