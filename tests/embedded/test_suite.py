"""The embedded suite: what separates its parts, and that its pictures and rows are what their version says."""

import dataclasses
import functools
import hashlib
from collections import Counter

import numpy as np
import pytest

from mmpt_bench.common.hashing import content_key
from mmpt_bench.embedded import language, mixture, prompts, shifted, statements, suite, world
from mmpt_bench.embedded.wordings import DIRECT, ENTAIL, QUESTIONS, TRUE_FALSE, YES_NO
from mmpt_bench.engine.pretraining import curriculum, model, packing, pointing, sight, strangers
from mmpt_bench.engine.pretraining.curriculum import PHASES, REHEARSAL
from mmpt_bench.evaluation.check_task import check_task
from mmpt_bench.evaluation.metrics import MME_COGNITION, MME_PERCEPTION
from mmpt_bench.sources import task_rows
from support.tasks import task

TASKS = tuple(suite.N_IMAGES)
PARTS = ("pretrain", "tune", "validation")
GOLDEN = ["dd7aee5cfed38580", "2d8f10da759819eb", "0e0ca0611ef3d7b6", "78d511fbf6784597"]


SCORED = ("evaluation", "dev")
"""Parts that no training shows."""


tokenizer = functools.cache(model.build_tokenizer)
tuning_question = functools.cache(mixture.tuning_question)


def normal(question: str) -> str:
    return " ".join(tokenizer().tokenize(question))


@pytest.fixture(scope="module")
def by_part() -> dict[str, dict[str, list]]:
    return {part: {name: task_rows.samples(task(name), suite.source(name, part)) for name in TASKS} for part in SCORED}


@pytest.fixture(scope="module")
def samples(by_part: dict[str, dict[str, list]]) -> dict[str, list]:
    return by_part["evaluation"]


@pytest.fixture(scope="module")
def prompts_by_part(by_part: dict[str, dict[str, list]]) -> dict[str, set[str]]:
    return {
        part: {normal(question) for question in {s.question for group in of.values() for s in group}}
        for part, of in by_part.items()
    }


@pytest.fixture(scope="module")
def task_prompts(prompts_by_part: dict[str, set[str]]) -> set[str]:
    """Returns the prompts of dev and of evaluation."""
    return set.union(*prompts_by_part.values())


@pytest.fixture(scope="module")
def pretraining() -> list:
    """Returns (scene, questions) of every phase, of both curricula."""
    rng = np.random.default_rng(1)
    return [row for phase in (*PHASES, *REHEARSAL) for row in curriculum.draw_rows(rng, 300, phase)]


def test_no_prompt_is_asked_on_dev_and_in_evaluation(prompts_by_part: dict[str, set[str]]) -> None:
    assert all(len(found) > 1000 for found in prompts_by_part.values())
    assert not prompts_by_part["dev"] & prompts_by_part["evaluation"]


def test_no_prompt_of_a_task_is_asked_in_pretraining(task_prompts: set[str], pretraining: list) -> None:
    asked = {asked.question for _, questions in pretraining for asked in questions}
    assert len(asked) > 3000
    assert not {" ".join(question.split()) for question in asked} & task_prompts


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "validation"])
def test_no_prompt_of_a_task_is_asked_in_tuning(part: str, task_prompts: set[str]) -> None:
    asked = {normal(tuning_question(part, index)[1].question) for index in range(1500)}
    assert not asked & task_prompts


def wordings(asked: str) -> str:
    """Returns a question with everything that a scene decides blanked out."""
    slots = {
        *world.SHAPES,
        *map(statements.plural, world.SHAPES),
        *world.COLOR_NAMES,
        *statements.NUMBERS,
        *world.GLYPHS,
    }
    slots |= {str(n) for n in range(19)} | {"is", "are"}
    return " ".join(
        "_" if word in slots else word for word in asked.lower().replace("?", " ?").replace(".", " .").split()
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_wordings_of_the_tasks_and_of_tuning_are_others(part: str, by_part: dict[str, dict[str, list]]) -> None:
    tuned = {wordings(tuning_question(part, index)[1].question) for index in range(3000)}
    asked = {wordings(s.question) for of in by_part.values() for group in of.values() for s in group}
    assert not tuned & asked


@pytest.mark.parametrize(("part", "number"), [("evaluation", 4), ("dev", 3)])
@pytest.mark.parametrize("name", TASKS)
def test_every_picture_is_asked_in_one_of_several_wordings(
    name: str, part: str, number: int, by_part: dict[str, dict[str, list]]
) -> None:
    asked = by_part[part][name]
    in_group: dict[str, Counter] = {}
    for sample in {(s.cluster, s.group if name == "mme" else ""): s for s in asked}.values():
        in_group.setdefault(sample.group if name == "mme" else "", Counter())[sample.wording] += 1
    for pictures in in_group.values():
        assert len(pictures) == number
        assert max(pictures.values()) - min(pictures.values()) <= 1
    assert len({(s.cluster, s.group, s.wording) for s in asked}) == len({(s.cluster, s.group) for s in asked})
    written = {w for of in (prompts.MME[part].values(), prompts.WHOLE[part].values()) for ws in of for w in ws}
    assert {s.wording for s in asked} <= written


def test_neutral_phrases_are_others_in_each_part_and_many_in_evaluation() -> None:
    parts = list(statements.UNSEEN.values())
    assert len(set.union(*map(set, parts))) == sum(map(len, parts))
    assert all(len(phrases) >= 30 for phrases in parts)
    known = {word for phrase in statements.UNSEEN["pretrain"] for word in phrase.split()}
    assert {word for phrases in parts for phrase in phrases for word in phrase.split()} <= known


def test_the_neutral_hypotheses_of_a_part_are_its_own_phrases(by_part: dict[str, dict[str, list]]) -> None:
    for part, of in by_part.items():
        said = [s.question.lower() for s in of["snli_ve"] if s.answer == "neutral"]
        used = {phrase for phrase in statements.UNSEEN[part] if any(phrase in question for question in said)}
        assert all(any(phrase in question for phrase in statements.UNSEEN[part]) for question in said)
        assert len(used) >= 30


def test_the_wordings_of_validation_are_neither_those_of_pretraining_nor_of_tuning() -> None:
    tables = [YES_NO, TRUE_FALSE, ENTAIL]
    tables += [{part: table[part][skill] for part in PARTS} for table in (DIRECT, QUESTIONS) for skill in table["tune"]]
    for table in tables:
        sets = [set(table[part]) for part in PARTS]
        assert all(sets)
        assert len(set.union(*sets)) == sum(map(len, sets))


def test_half_of_the_mixture_is_asked_in_the_wordings_of_pretraining() -> None:
    rng = np.random.default_rng(6)
    asked = [language._wordings("tune", rng) for _ in range(2000)]
    assert asked.count("pretrain") == pytest.approx(2000 * language.REHEARSED, abs=100)
    assert language._wordings("validation", rng) == "validation"


def test_no_false_claim_names_a_held_out_combination_outside_evaluation() -> None:
    rng = np.random.default_rng(7)
    named = set()
    for _ in range(4000):
        scene = world.random_scene(rng, (1, 2, 3))
        for skill in ("existence", "color"):
            made = statements.claim(scene, rng, False, skill)
            if made is None:
                continue
            words = made.statement.split()
            shape = next((word for word in words if word in world.SHAPES), None)
            color = next((word for word in words if word in world.COLOR_NAMES), None)
            named.add((shape, color))
    assert len(named) > 60
    assert not named & world.ALL_HELD_OUT


def test_strangers_show_no_held_out_combination() -> None:
    rng = np.random.default_rng(8)
    named = np.asarray(list(world.COLORS.values()))
    shown = [strangers.with_strangers(world.random_scene(rng, (4,)), rng) for _ in range(600)]
    things = [thing for scene in shown for thing in scene.things]
    tinted = [thing for thing in things if thing.tint]
    blobs = [thing for thing in things if thing.shape in world.BLOBS]
    assert len(tinted) > 400
    assert len(blobs) > 150
    distances = np.linalg.norm(named[None] - np.asarray([thing.tint for thing in tinted])[:, None], axis=2)
    assert distances.min() >= strangers.APART
    plain = {(thing.shape, thing.color) for thing in things if not thing.tint and thing.shape in world.SHAPES}
    assert not plain & world.ALL_HELD_OUT


def test_held_out_combinations_occur_in_their_part_alone() -> None:
    rng = np.random.default_rng(2)
    dev, test = world.HELD_OUT["dev"], world.HELD_OUT["evaluation"]
    assert (len(dev), len(test), len(dev & test)) == (7, 8, 0)
    drawn = [world.random_scene(rng, (1, 2, 3, 4)) for _ in range(3000)]
    drawn += [tuning_question(part, index)[0] for part in ("train", "validation") for index in range(1500)]
    seen = {(thing.shape, thing.color) for scene in drawn for thing in scene.things}
    seen |= {(scene.big.shape, scene.big.color) for scene in drawn if scene.big}
    assert len(seen) == 80 - 15
    assert not seen & (dev | test)
    for part, own, other in (("dev", dev, test), ("evaluation", test, dev)):
        scenes = [world.random_scene(rng, (4,), part) for _ in range(400)]
        scenes += [world.random_big(rng, part) for _ in range(100)]
        shown = {(t.shape, t.color) for scene in scenes for t in (*scene.things, *([scene.big] if scene.big else []))}
        assert shown >= own
        assert not shown & other


def test_a_task_names_no_combination_that_the_other_part_holds_out(by_part: dict[str, dict[str, list]]) -> None:
    for part, other in (("dev", "evaluation"), ("evaluation", "dev")):
        asked = " ".join(normal(s.question) for group in by_part[part].values() for s in group)
        assert not [1 for shape, color in world.HELD_OUT[other] if f"{color} {shape}" in asked]
        assert [1 for shape, color in world.HELD_OUT[part] if f"{color} {shape}" in asked]


def test_digits_of_the_parts_are_other_rows() -> None:
    own = {part: set(rows) for part, rows in world.DIGIT_ROWS.items() if part != "tune"}
    assert world.DIGIT_ROWS["tune"] == world.DIGIT_ROWS["pretrain"]
    assert sum(map(len, own.values())) == len(set.union(*own.values())) == 1797


def test_no_scene_occurs_in_two_parts(monkeypatch: pytest.MonkeyPatch, pretraining: list) -> None:
    """Of scenes as they are drawn, whatever their grain; of digits, the row and how it is written."""
    drawn: dict[str, list] = {"pretrain": [scene for scene, _ in pretraining]}
    drawn["pretrain"] += [sight._random_scene(np.random.default_rng(k), k % 4) for k in range(300)]
    monkeypatch.setattr(suite, "show", lambda scene, of: scene)
    for part in SCORED:
        rows = [row for name in TASKS for row in suite.rows(name, part)]
        drawn[part] = [row["img"] if "img" in row else row["image"] for row in rows]
    for part, own in (("train", "tune"), ("validation", "validation")):
        drawn[own] = [tuning_question(part, index)[0] for index in range(1500)]
    as_drawn = {part: {dataclasses.replace(scene, seed=0) for scene in scenes} for part, scenes in drawn.items()}
    assert set(as_drawn) == set(world.DIGIT_ROWS)
    assert len(set.union(*as_drawn.values())) == sum(map(len, as_drawn.values()))
    assert all(
        world.part_of(s) in (part, "pretrain" if part == "tune" else part) for part in drawn for s in drawn[part]
    )


def test_no_picture_of_a_task_occurs_in_tuning_or_in_the_other_part(by_part: dict[str, dict[str, list]]) -> None:
    def digest(picture: object) -> str:
        return hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()

    shown = {part: {digest(s.image.open()) for name in TASKS for s in of[name][:150]} for part, of in by_part.items()}
    tuned = {digest(suite.show(tuning_question(part, i)[0])) for part in ("train", "validation") for i in range(400)}
    assert not shown["dev"] & shown["evaluation"]
    assert not (shown["dev"] | shown["evaluation"]) & tuned


@pytest.mark.parametrize("name", ["vsr", "mnist"])
def test_worlds_ask_the_same_of_other_images(name: str) -> None:
    found = {of: suite.source(name, of=of) for of in suite.WORLDS}
    assert [rows.suite for rows in found.values()] == ["embedded", "embedded-clean", "embedded-strong"]
    assert len({rows.fingerprint for rows in found.values()}) == 3
    asked = {of: task_rows.samples(task(name), rows)[:5] for of, rows in found.items()}
    for shifted_one, clean, strong in zip(*asked.values(), strict=True):
        assert shifted_one.question == clean.question == strong.question
        assert shifted_one.answer == clean.answer == strong.answer
        images = [np.asarray(sample.image.open(), np.float32) for sample in (clean, shifted_one, strong)]
        # The strong world is farther from the clean one.
        assert 0 < np.abs(images[1] - images[0]).mean() < np.abs(images[2] - images[0]).mean()


def test_rows_of_a_part_that_there_is_none_of_are_refused() -> None:
    with pytest.raises(ValueError, match="no part `test`"):
        suite.source("vsr", "test")
    assert suite.source("vsr", "dev").fingerprint != suite.source("vsr").fingerprint == suite.fingerprint("vsr")


@pytest.mark.slow
@pytest.mark.parametrize("phases", [PHASES, REHEARSAL], ids=["from nothing", "from an earlier base"])
def test_every_word_that_tuning_and_tasks_use_is_taught_in_pretraining(phases: tuple, task_prompts: set[str]) -> None:
    rng = np.random.default_rng(3)
    taught = {
        word
        for phase in phases
        for _, questions in curriculum.draw_rows(rng, 1200 // len(phases) + 200, phase)
        for asked in questions
        for word in f"{asked.question} {asked.answer}".split()
    }
    taught |= {word for sentence in model.INSTRUCTIONS for word in sentence.split()}
    questions = [vars(tuning_question("train", i)[1]) for i in range(2000)]
    tuned = {word for each in questions for word in " ".join(each.values()).split()[1:]}
    asked = {word for prompt in task_prompts for word in prompt.split()}
    assert asked <= taught
    assert {word for word in tuned if word in model.words()} <= taught


def test_a_packed_row_is_the_chat_prompts_it_stands_for() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    tiny, processor = model.build_model(0).eval(), model.build_processor()
    rng = np.random.default_rng(4)
    packer = packing.Packer(processor.tokenizer)
    scene = world.random_scene(rng, (3,))
    asked = language.ask_things(scene, rng, "tune", ["existence", "color", "?count"])
    packer.segment = lambda one, _rng: (  # the chat frame alone, without instructions
        framed := f"{one.question} assistant :",
        [*packer.encode(framed), *packer.encode(one.answer), 3],
    )
    packed = packer.pack([(scene, asked)], rng, 0.0)
    from mmpt_bench.engine.pretraining.pretrain import packed_states

    with torch.no_grad():
        together = tiny.lm_head(packed_states(tiny, packed)[-1])[0]
        for number, one in enumerate(asked, start=1):
            content = [{"type": "image"}, {"type": "text", "text": one.question}]
            chat = [{"role": "user", "content": content}]
            text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            ids = processor.tokenizer(text.replace("<image>", "<image>" * 36) + " " + one.answer, return_tensors="pt")
            alone = tiny(input_ids=ids["input_ids"], pixel_values=packed.pixels).logits[0]
            own = together[packed.segments[0] == number][:-1]
            torch.testing.assert_close(own, alone[len(packer.prefix) :], atol=1e-5, rtol=1e-4)


def test_words_point_at_the_objects_they_mean_and_at_how_they_stand_to_each_other() -> None:
    ring, square = (
        world.Thing(cell, s, c, "big", "plain") for s, c, cell in (("ring", "red", 0), ("square", "red", 5))
    )
    other = dataclasses.replace(square, color="blue", cell=6)
    scene = world.Scene("gray", (ring, square, other))
    words = ["ring", "above", "the", "blue", "square", "or", "squares"]
    found = dict(zip(words, pointing.points(scene, words).tolist(), strict=True))
    red, blue = world.COLOR_NAMES.index("red"), world.COLOR_NAMES.index("blue")
    assert found["ring"] == [0, 0, 1, -1, -1, red, -1]
    assert found["square"] == [2, 0, 1, 1, 0, blue, -1]  # the ring stands in the same column, and above
    assert found["squares"] == [-1, -1, 2, -1, -1, -1, -1]
    assert found["blue"] == found["above"] == [-1] * 7
    assert pointing.points(scene, ["the", "green", "square"])[2].tolist() == [-1, -1, 0, -1, -1, -1, -1]


def test_numbers_beside_a_sum_point_at_what_it_makes() -> None:
    scene = world.Scene("gray", glyphs=((0, "3"), (1, "+"), (2, "4")))
    total = pointing.points(scene, ["is", "the", "sum", "8", "?"])[:, 6]
    assert total.tolist() == [-1, -1, 7, 7, -1]
    assert (pointing.points(scene, ["is", "the", "sum", "8", "?"])[:, :6] == -1).all()


def test_pictures_as_processed_for_pretraining_are_those_of_the_processor() -> None:
    scene = world.random_scene(np.random.default_rng(5), (4,))
    own = packing.pixels_of([scene], np.random.default_rng(0), 0.0).numpy()
    from PIL import Image

    processed = model.build_processor().image_processor(Image.fromarray(world.draw(scene)), return_tensors="np")
    np.testing.assert_allclose(own, processed["pixel_values"], atol=1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_balanced_and_pictures_are_enough(name: str, samples: dict[str, list]) -> None:
    answers = Counter(sample.answer for sample in samples[name])
    assert len({sample.cluster for sample in samples[name]}) >= 200
    if name in ("mme", "pope", "snli_ve", "cifar10"):
        assert len(set(answers.values())) == 1
    else:
        assert max(answers.values()) < 2 * min(answers.values())


def test_mme_has_six_of_the_fourteen_subtasks_in_pairs(samples: dict[str, list]) -> None:
    groups = Counter(sample.group for sample in samples["mme"])
    assert set(groups) == {"existence", "count", "position", "color", "OCR", "numerical_calculation"}
    assert set(groups) <= {*MME_PERCEPTION, *MME_COGNITION}
    pairs = Counter(sample.cluster for sample in samples["mme"])
    assert set(pairs.values()) == {2}
    assert task("mme").metric.ceiling(samples["mme"]) == 1200


def test_pope_asks_the_same_yes_questions_in_all_three_strategies(samples: dict[str, list]) -> None:
    by_strategy = {
        strategy: {(s.cluster, s.question) for s in samples["pope"] if s.group == strategy and s.answer == "yes"}
        for strategy in suite.STRATEGIES
    }
    assert by_strategy["random"] == by_strategy["popular"] == by_strategy["adversarial"]


@pytest.mark.parametrize("name", TASKS)
def test_every_built_in_task_passes_the_conformance_suite(name: str) -> None:
    rows = suite.source(name)
    few = rows.rows if name in ("mme", "pope") else rows.rows[:60]
    assert not [result for result in check_task(task(name), few, rows.label_names) if not result.ok]


@pytest.mark.slow
def test_a_training_split_is_of_the_tuning_part_in_words_that_no_scored_part_uses(
    by_part: dict[str, dict[str, list]],
) -> None:
    scored = {each.wording for part in SCORED for made in by_part[part].values() for each in made}
    for name in TASKS:
        rows = suite.rows(name, "train")
        assert len(rows) >= 2_390, name
        assert not {row["wording"] for row in rows} & scored
        shown = [value for row in rows[:40] for value in row.values() if callable(value)]
        assert shown
        assert {world.part_of(value.args[0]) for value in shown} <= {"tune", "pretrain"}
        assert shown[0]().size == (48, 48)


def test_the_content_of_the_suite_is_that_of_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change here means: raise VERSION in suite.py (or world.py, language.py) and write the new digests down."""
    monkeypatch.setattr(suite, "show", lambda scene, of: scene)
    asked = [vars(tuning_question("train", index)[1]) for index in range(200)]
    pictures = [world.draw(tuning_question("train", index)[0]).sum().item() for index in range(50)]
    rows = {
        f"{name}/{part}": [
            {k: str(v) for k, v in row.items() if k not in ("image", "img")} for row in suite.rows(name, part)[:100]
        ]
        for name in TASKS
        for part in SCORED
    }
    strengths = [getattr(shifted, name) for name in ("CAST", "SWING", "RIPPLE", "WAVE", "SOFT")]
    strengths += [suite.HASTE, suite.WORLDS["shifted"], world.HELD_OUT_SHARE]
    assert (suite.VERSION, world.VERSION, language.VERSION) == (4, 4, 4)
    assert [content_key(value) for value in (asked, pictures, rows, strengths)] == GOLDEN


@pytest.mark.parametrize("part", SCORED)
def test_regions_are_the_cells_of_what_a_question_names(part: str) -> None:
    made, rows = suite.regions("mme", part), suite.rows("mme", part)
    assert len(made) == len(rows)
    by_kind: dict[str, list[tuple[str, str, int]]] = {}
    for cells, row in zip(made, rows, strict=True):
        by_kind.setdefault(row["category"], []).append((row["answer"], row["question"], len(cells)))
    assert all((n > 0) == (answer == "Yes") for answer, _, n in by_kind["existence"])
    assert {n for _, _, n in by_kind["color"]} == {1}
    assert {n for _, _, n in by_kind["position"]} == {2}
    assert {n for _, _, n in by_kind["numerical_calculation"]} == {3}
    told = {"one": 1, "two": 2, "three": 3, "four": 4}
    for answer, question, n in by_kind["count"]:
        said = (
            next(number for word, number in told.items() if f" {word} " in question) if " five " not in question else 5
        )
        assert (said == n) == (answer == "Yes"), question


def test_a_region_is_where_the_object_is_drawn() -> None:
    thing = world.Thing(5, "star", "red", "big", "plain")
    scene = world.Scene("gray", (world.Thing(0, "star", "blue", "big", "plain"), thing))
    assert statements.cells_named(scene, {"noun": "a red star"}) == (5,)
    assert statements.cells_named(scene, {"refs": "stars"}) == (0, 5)
    assert statements.cells_named(scene, {"noun": "an arrow"}) == ()
    plain = world.draw(dataclasses.replace(scene, things=(scene.things[0],)))
    down, across = np.nonzero((world.draw(scene) != plain).any(axis=2))
    assert set(zip((down // 16).tolist(), (across // 16).tolist(), strict=True)) == {(1, 2)}


@pytest.mark.slow
def test_regions_are_no_part_of_the_rows() -> None:
    assert all(suite.ABOUT not in row for name in TASKS for row in suite.rows(name)[:3])
    assert all(suite.ABOUT not in row for row in suite.rows("pope", "train")[:3])
