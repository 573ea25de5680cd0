"""The embedded suite: what separates its parts, and that its pictures and rows are what their version says."""

import dataclasses
import hashlib
from collections import Counter

import numpy as np
import pytest

from mmpt_bench.common.hashing import content_key
from mmpt_bench.embedded import language, statements, suite, world
from mmpt_bench.embedded.wordings import DIRECT, ENTAIL, QUESTIONS, TRUE_FALSE, YES_NO
from mmpt_bench.engine.pretraining import curriculum, model, packing, pointing, strangers
from mmpt_bench.engine.pretraining.curriculum import PHASES
from mmpt_bench.evaluation.check_task import check_task
from mmpt_bench.evaluation.metrics import MME_COGNITION, MME_PERCEPTION
from mmpt_bench.sources import task_rows
from support.tasks import task

TASKS = tuple(suite.N_IMAGES)
PARTS = ("pretrain", "tune", "validation")
GOLDEN = ["eb825ff2c0261118", "a3a10300a5cdbd06", "1a3cf3d80da778e8"]


def normal(question: str) -> str:
    return " ".join(model.build_tokenizer().tokenize(question))


@pytest.fixture(scope="module")
def samples() -> dict[str, list]:
    return {name: task_rows.samples(task(name), suite.source(name)) for name in TASKS}


@pytest.fixture(scope="module")
def evaluation_prompts(samples: dict[str, list]) -> set[str]:
    return {normal(question) for question in {s.question for group in samples.values() for s in group}}


def test_no_evaluation_prompt_is_asked_in_pretraining(evaluation_prompts: set[str]) -> None:
    rng = np.random.default_rng(1)
    asked = {
        asked.question
        for phase in PHASES
        for _, questions in curriculum.draw_rows(rng, 300, phase)
        for asked in questions
    }
    assert len(asked) > 3000
    assert not {" ".join(question.split()) for question in asked} & evaluation_prompts


@pytest.mark.parametrize("part", ["train", "validation"])
def test_no_evaluation_prompt_is_asked_in_tuning(part: str, evaluation_prompts: set[str]) -> None:
    asked = {suite.tuning_question(part, index)[1].question for index in range(1500)}
    assert not asked & evaluation_prompts


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


@pytest.mark.parametrize("part", ["train", "validation"])
def test_the_wordings_of_evaluation_and_tuning_are_others(part: str, samples: dict[str, list]) -> None:
    tuned = {wordings(suite.tuning_question(part, index)[1].question) for index in range(3000)}
    asked = {wordings(s.question) for group in samples.values() for s in group}
    assert not tuned & asked


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
    assert not named & world.HELD_OUT


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
    assert not plain & world.HELD_OUT


def test_held_out_combinations_occur_in_evaluation_alone() -> None:
    rng = np.random.default_rng(2)
    drawn = [world.random_scene(rng, (1, 2, 3, 4)) for _ in range(3000)]
    drawn += [suite.tuning_question(part, index)[0] for part in ("train", "validation") for index in range(1500)]
    seen = {(thing.shape, thing.color) for scene in drawn for thing in scene.things}
    seen |= {(scene.big.shape, scene.big.color) for scene in drawn if scene.big}
    assert len(seen) == 80 - len(world.HELD_OUT)
    assert not seen & world.HELD_OUT
    shown = {(t.shape, t.color) for _ in range(500) for t in world.random_scene(rng, (4,), suite.HELD_OUT_SHARE).things}
    assert shown >= world.HELD_OUT


def test_digits_of_evaluation_training_and_validation_are_other_rows() -> None:
    train, validation, test = (set(world.DIGIT_ROWS[part]) for part in ("train", "validation", "test"))
    assert not train & validation
    assert not (train | validation) & test
    assert len(train | validation | test) == 1797


def test_no_evaluation_picture_occurs_in_tuning_or_validation(samples: dict[str, list]) -> None:
    def digest(picture: object) -> str:
        return hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()

    shown = {digest(s.image.open()) for name in TASKS for s in samples[name][:150]}
    tuned = {
        digest(suite.show(suite.tuning_question(part, i)[0])) for part in ("train", "validation") for i in range(400)
    }
    assert not shown & tuned


def test_every_word_that_tuning_and_evaluation_use_is_taught_in_pretraining(evaluation_prompts: set[str]) -> None:
    rng = np.random.default_rng(3)
    taught = {
        word
        for phase in PHASES
        for _, questions in curriculum.draw_rows(rng, 400, phase)
        for asked in questions
        for word in f"{asked.question} {asked.answer}".split()
    }
    taught |= {word for sentence in model.INSTRUCTIONS for word in sentence.split()}
    tuned = {w for i in range(2000) for w in " ".join(vars(suite.tuning_question("train", i)[1]).values()).split()[1:]}
    asked = {word for prompt in evaluation_prompts for word in prompt.split()}
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
            ids = processor.tokenizer(text.replace("<image>", "<image>" * 9) + " " + one.answer, return_tensors="pt")
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


def test_the_content_of_the_suite_is_that_of_its_version() -> None:
    """A change here means: raise VERSION in suite.py (or world.py, language.py) and write the new digests down."""
    asked = [vars(suite.tuning_question("train", index)[1]) for index in range(200)]
    pictures = [world.draw(suite.tuning_question("train", index)[0]).sum().item() for index in range(50)]
    rows = {
        name: [{k: str(v) for k, v in row.items() if k not in ("image", "img")} for row in suite.rows(name)[:100]]
        for name in TASKS
    }
    assert (suite.VERSION, world.VERSION, language.VERSION) == (3, 3, 3)
    assert [content_key(value) for value in (asked, pictures, rows)] == GOLDEN
