"""Solved examples and a turn of the system: who is drawn, what is asked, what stands apart, what is refused."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmpt_bench as mb
from mmpt_bench.board.from_records import boards
from mmpt_bench.cli.main import cli
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample, Shot
from mmpt_bench.embedded.suite import in_a_word
from mmpt_bench.engine.inference.plain import prompt_of
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.options import Options, make_request
from mmpt_bench.runs.plan import plan
from mmpt_bench.sources.prepared import PreparedTask
from mmpt_bench.sources.task_rows import Where, rows_of
from mmpt_bench.study.rerun import reproduce
from support import families

OWN = """
import mmpt_bench as mb
def sample(row, number, label_names):
    image = mb.read_image(row["image"], f"own/{number}", str(number))
    return mb.Sample(f"{row['name']}", image, "is it red ?", ("yes", "no"), row["answer"], cluster=f"{number}")
TASK = mb.Task(
    name="own", title="Own", data=mb.Dataset(hub="", revision="", columns=("image", "name", "answer")), sample=sample,
    metric=mb.Accuracy(), headline="accuracy", parse=mb.read_reply, decode="rank", max_new_tokens=4, version=1, EXTRA
)
"""


def colour(value: int) -> str:
    """Returns a small image of one colour, in base64."""
    file = io.BytesIO()
    Image.new("RGB", (48, 48), (value, 0, 0)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def own_task(folder: Path, train: list[int], extra: str = "") -> dict[str, Any]:
    """Returns the options of a task whose test images are 0, 1, 2, and whose training images are of given colours."""
    (folder / "own.py").write_text(OWN.replace("EXTRA", extra))
    (folder / "data" / "own").mkdir(parents=True)
    for split, values in (("test", [0, 1, 2]), ("train", train)):
        rows = [{"name": f"{split}{v}", "image": colour(v), "answer": "yes"} for v in values]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / "own" / f"{split}.jsonl").write_text(text)
    return {"tasks": str(folder / "own.py"), "data": folder / "data", "out": folder / "out", "offline": True}


def prepared(tasks: str, **options: Any) -> PreparedTask:
    given: Options = {"offline": True, **options}  # type: ignore[typeddict-item]
    (item,) = make_request("frozen", tasks, given, is_run=True).prepare_tasks().values()
    return item


def test_examples_are_fixed_nested_and_of_images_that_nobody_is_asked_about() -> None:
    two, three = prepared("cifar10", few_shot=2), prepared("cifar10", few_shot=3, limit=10, seeds=[4, 5])
    ids = [shot.id for shot in three.shots]
    assert [shot.id for shot in two.shots] == ids[:2]
    assert len({shot.images[0].open().tobytes() for shot in three.shots}) == 3
    assert len(three.samples) == 10
    assert all(sample.shots == three.shots for sample in three.samples)
    # They are rows of the training split, with its answers in the words that training uses.
    task = task_catalog.load_task(task_catalog.find_tasks("cifar10")[0])
    source = rows_of(task.on(task.data.training_split()), Where(embedded=True))
    made = {one.id: one for i, row in enumerate(source.rows) for one in [task.sample(row, i, source.label_names)]}
    for shot in three.shots:
        assert shot.question == made[shot.id].question
        assert shot.reply == in_a_word(made[shot.id].answer)
    # No cache can take an example for a question's image, whatever the two splits call theirs.
    assert not {s.image.key for s in two.samples} & {shot.images[0].key for shot in two.shots}


def test_an_evaluated_image_is_never_an_example(tmp_path: Path) -> None:
    options = own_task(tmp_path, train=[2, 1, 30, 0, 40, 50])
    item = prepared(**options, few_shot=3, limit=1)
    # Image 0 of test and image 0 of train have one key and are two images; 0, 1 and 2 are evaluated, asked or not.
    assert {shot.id for shot in item.shots} == {"train30", "train40", "train50"}
    with pytest.raises(mb.RequestError, match=r"has 3 images that are not evaluated\. The most is 3\."):
        prepared(**options, few_shot=4)


def test_without_a_training_split_nothing_is_drawn(tmp_path: Path) -> None:
    options = own_task(tmp_path, train=[9])
    (tmp_path / "data" / "own" / "train.jsonl").unlink()
    with pytest.raises(mb.RequestError, match=r"`--few-shot 1` needs the training split of Own: .*train"):
        prepared(**options, few_shot=1)
    made = mb.new("task", "mine", tmp_path)
    with pytest.raises(mb.RequestError, match="has no training split apart from what is evaluated"):
        prepared(str(made), few_shot=1)


@pytest.fixture(scope="module")
def embedded() -> Backbone:
    return load_backbone("embedded", device="cpu")


PICTURE = LazyImage("p", lambda: Image.new("RGB", (48, 48)))
ASKED = Sample("1", PICTURE, "is it red ?", ("yes", "no"), "yes")


def test_prompts_are_the_exchanges_of_the_chat_template(embedded: Backbone) -> None:
    shots = (Shot("a", (PICTURE,), "is it blue ?", "no"), Shot("b", (), "is it big ?", "yes"))
    asked = dataclasses.replace(ASKED, shots=shots, system="be brief .")
    # By hand from chat_template.jinja: a role, an image mark, the text.
    assert prompt_of(embedded, asked) == (
        "SYSTEM: be brief . USER: <image>\nis it blue ? ASSISTANT: no USER: is it big ? ASSISTANT: yes "
        "USER: <image>\nis it red ? ASSISTANT:"
    )
    alone = dataclasses.replace(ASKED, shots=shots[1:])
    assert prompt_of(embedded, alone) == "USER: is it big ? ASSISTANT: yes USER: <image>\nis it red ? ASSISTANT:"


def test_qwens_template_shows_each_image_in_its_own_turn(tmp_path: Path) -> None:
    qwen = load_backbone(str(families.qwen2_vl(tmp_path)), device="cpu")
    text = prompt_of(qwen, dataclasses.replace(ASKED, shots=(Shot("a", (PICTURE,), "blue ?", "no"),)))
    first, second = text.index("blue ?"), text.index("is it red ?")
    marks = [at for at in range(len(text)) if text.startswith(qwen.processor.image_token, at)]
    assert len(marks) == 2
    assert marks[0] < first < text.index("no", first) < marks[1] < second


def recorded(folder: Path) -> dict[str, Record]:
    return {json.dumps(record.asking): record for record in Store(folder).records()}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return own_task(tmp_path_factory.mktemp("own"), train=[*range(100, 130)])


@pytest.fixture(scope="module")
def asked_thrice(own: dict[str, Any]) -> Path:
    """Returns a results folder with one run that was asked plainly, after two examples, and with a system's turn."""
    for more in ({}, {"few_shot": 2}, {"system": "no"}):
        assert not mb.run("frozen", **own, **more).failed
    return Path(own["out"])


def test_results_stand_apart_and_say_what_was_asked(asked_thrice: Path, own: dict[str, Any]) -> None:
    found = recorded(asked_thrice)
    usual, few, system = (found[name] for name in ("{}", '{"few_shot": 2}', '{"system": "no"}'))
    assert usual.train_key == few.train_key == system.train_key
    assert len({each.eval_key for each in found.values()}) == len({each.track for each in found.values()}) == 3
    assert "asking" not in usual.row
    assert "shots" not in usual.row
    assert list(few.shots) == [shot.id for shot in prepared(**own, few_shot=2).shots]
    titles = {
        board.track: board for board in boards(Store(asked_thrice), make_request("frozen", own["tasks"], {}).own_tasks)
    }
    assert len(titles) == 3
    assert "2 solved examples before each question" in titles[few.track].title
    assert "the system's text `'no'` before each question" in titles[system.track].title
    assert "before" not in titles[usual.track].title
    (column,), (row,) = titles[few.track].columns, titles[few.track].rows
    assert "2 solved examples" in column.decode
    assert any("2 solved examples" in flag for flag in row.flags)
    text = mb.run("frozen", **own, few_shot=2).write_leaderboard()
    text = (asked_thrice / "leaderboard.md").read_text()
    assert text.count("2 solved examples before each question") >= 2
    store = Store(asked_thrice)
    assert any("--few-shot 2" in line for line in reproduce(titles[few.track], store))
    assert not any("--few-shot" in line or "--system" in line for line in reproduce(titles[usual.track], store))


def test_nothing_is_asked_twice_and_an_edited_record_is_noticed(asked_thrice: Path, own: dict[str, Any]) -> None:
    before = {path: path.read_bytes() for path in asked_thrice.glob("runs/*/*.jsonl")}
    mb.run("frozen", **own, few_shot=2)
    assert {path: path.read_bytes() for path in asked_thrice.glob("runs/*/*.jsonl")} == before
    few = recorded(asked_thrice)['{"few_shot": 2}']
    assert dataclasses.replace(few, asking={"few_shot": 1}).setting_key != few.track


def test_replies_are_those_of_the_models_own_processor_and_generate(
    asked_thrice: Path, embedded: Backbone, own: dict[str, Any]
) -> None:
    item = prepared(**own, few_shot=2)
    few = recorded(asked_thrice)['{"few_shot": 2}']
    kept = Store(asked_thrice).run(few.run).predictions("own", few.replies_key or few.eval_key)
    assert len(kept) == len(item.samples)
    for sample in item.samples:
        inputs = embedded.processor(
            text=[prompt_of(embedded, sample)], images=[[i.open() for i in sample.images]], return_tensors="pt"
        )
        said = embedded.model.generate(**inputs, max_new_tokens=item.task.max_new_tokens, do_sample=False)
        reply = embedded.processor.tokenizer.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert kept[sample.id].reply == reply


def test_the_most_that_fits_is_said_and_fits(embedded: Backbone, own: dict[str, Any]) -> None:
    with pytest.raises(mb.RequestError, match=r"Own has prompts of .* tokens.* The most is (\d+)\.") as raised:
        mb.plan("frozen", **own, few_shot=30)
    most = int(str(raised.value).rstrip(".").rsplit(" ", 1)[1])
    mb.plan("frozen", **own, few_shot=most)
    item = prepared(**own, few_shot=most + 1)

    def tokens(sample: Sample) -> int:
        images = [[image.open() for image in sample.images]]
        made = embedded.processor(text=[prompt_of(embedded, sample)], images=images, return_tensors="pt")
        return int(made["input_ids"].shape[1])

    longest = sorted(item.samples, key=lambda one: len(one.question))[-5:]
    reply = item.task.max_new_tokens
    assert max(map(tokens, longest)) + reply > 512
    assert all(tokens(dataclasses.replace(one, shots=one.shots[:most])) + reply <= 512 for one in longest)


def refused(*words: str) -> str:
    from click.testing import CliRunner

    made = CliRunner().invoke(cli, ["run", "--method", "frozen", "--tasks", "vsr", *words])
    assert made.exit_code != 0
    if isinstance(made.exception, mb.RequestError):
        assert "\n" not in str(made.exception)
        return str(made.exception)
    return made.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--few-shot -1", "-1 is not in the range"),
        ("--few-shot 0", "0 is not in the range"),
        ("--few-shot 999999999999", "is not in the range"),
        ("--few-shot two", "'two' is not a valid integer"),
        ("--few-shot 2 --keep-tokens 0.5", "`--few-shot` and `--keep-tokens`"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(*words.split())
    assert message in said
    assert not (tmp_path / "mmpt-results" / "runs").exists()


@pytest.mark.parametrize("k", [-1, 101, 2.5, True])
def test_python_refuses_numbers_that_can_be_none(k: Any, tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match=r"few.shot`? is"):
        mb.plan("frozen", "vsr", few_shot=k, out=tmp_path, offline=True)


def test_only_run_and_plan_ask_so(tmp_path: Path) -> None:
    with pytest.raises(mb.RequestError, match="`--system` and `protocol` do not go together"):
        mb.protocol("m2pt", "frozen", system="no", out=tmp_path, offline=True)
    with pytest.raises(mb.RequestError, match="are for `run` alone"):
        mb.ablate("lora", "vsr", axes={"rank": [2, 4]}, few_shot=1, out=tmp_path, offline=True)
    with pytest.raises(mb.RequestError, match="are for `run` alone"):
        list(mb.tune("lora", system="no", out=tmp_path, offline=True))


def test_a_method_of_one_image_is_refused(own: dict[str, Any]) -> None:
    with pytest.raises(mb.RequestError, match="shows several images, and `mmpt` takes one: its interaction"):
        mb.run("mmpt", **own, few_shot=2)
    assert mb.plan("mmpt", **own, few_shot=2, set=["mmpt.interaction=false"]).runs


def test_families_and_templates_that_cannot_are_refused_without_weights(tmp_path: Path) -> None:
    options = own_task(tmp_path, train=[30, 40]) | {"method": "frozen"}
    other = families.llava_next(tmp_path / "next")
    for weights in other.glob("*.safetensors"):
        weights.write_bytes(b"no weights")
    with pytest.raises(mb.RequestError, match=r"shows several images, and LLaVA-NeXT was not tried with them"):
        mb.run(**options, few_shot=1, backbone=str(other))
    (other / "chat_template.jinja").write_text(
        "{% for m in messages if m.role != 'system' %}{{ m.role }}: {% for p in m.content %}"
        "{{ '<image>' if p.type == 'image' else p.text }} {% endfor %}{% endfor %}"
    )
    with pytest.raises(mb.RequestError, match=r"`--system` does not fit .*: The chat template writes no turn"):
        mb.run(**options, system="be brief", backbone=str(other))
    assert not (tmp_path / "out" / "runs").exists()


def test_examples_of_text_alone_are_for_methods_and_families_of_one_image(tmp_path: Path) -> None:
    options = own_task(tmp_path, train=[30, 40], extra="examples_without_images=True")
    item = prepared(**options, few_shot=2)
    assert [shot.images for shot in item.shots] == [(), ()]
    assert item.asked_with != prepared(**{**options, "few_shot": 1}).asked_with
    other = families.llava_next(tmp_path / "next")
    made = plan(
        make_request("mmpt", options["tasks"], {**options_of(options), "few_shot": 2, "backbone": str(other)}, True),
        Store(tmp_path / "out"),
    )
    assert made.jobs[0].todo == ("own",)


def options_of(options: dict[str, Any]) -> Options:
    return {name: value for name, value in options.items() if name != "tasks"}  # type: ignore[return-value]


def test_questions_with_a_systems_turn_of_their_own_keep_it(tmp_path: Path) -> None:
    options = own_task(tmp_path, train=[30])
    file = tmp_path / "own.py"
    file.write_text(file.read_text().replace("cluster=", 'system="no", cluster='))
    with pytest.raises(mb.RequestError, match="questions of Own have a turn of the system of their own"):
        prepared(**options, system="be brief")
