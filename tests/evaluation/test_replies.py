"""Replies are read as a person reads them: 790 labelled ones, and what no reader may get wrong."""

from __future__ import annotations

import json

import pytest

from mmpt_bench.evaluation.replies import read_reply, without_reasoning
from mmpt_bench.evaluation.task import Task
from support.paths import ROOT
from support.tasks import task as task_named

REPLIES = [json.loads(line) for line in (ROOT / "tests/evaluation/replies.jsonl").read_text("utf-8").splitlines()]
YES_NO, TRUE_FALSE, DIGITS = ("yes", "no"), ("false", "true"), tuple("0123456789")
ANIMALS = ("cat", "dog", "truck", "fire truck")


def reading(choices: list[str], reply: str) -> str | None:
    for name in ("snli_ve", "cifar10"):
        task = task_named(name)
        if set(choices) == set(task.data.classes):
            return task.read(reply, choices)
    return read_reply(reply, choices)


@pytest.mark.parametrize("part", ["development", "held out"])
def test_labelled_replies_are_read_as_their_reader_read_them(part: str) -> None:
    of = [row for row in REPLIES if row["part"] == part]
    found = [(row, reading(row["choices"], row["reply"])) for row in of]
    wrong = [(row["reply"], answer) for row, answer in found if answer not in (None, row["answer"])]
    unread = [row["reply"] for row, answer in found if answer is None and row["answer"] is not None]
    assert len(of) >= 250
    assert not wrong
    assert len(unread) <= 0.01 * len(of), unread


@pytest.mark.parametrize(
    "beside",
    [". Alternative: {}", "; second guess: {}", ". Also possible: {}", " (alternative answer: {})", ", top-2: {}",
     ". Another possibility: {}", ". Incorrect answer: {}", "\nRunner-up: {}", ". Background: {}"],
)  # fmt: skip
def test_what_is_named_beside_the_answer_is_not_the_answer(beside: str) -> None:
    for first, other in (("cat", "dog"), ("dog", "truck")):
        assert read_reply(first + beside.format(other), ANIMALS) in (first, None)
        assert read_reply(f"On second thought: {other}", ANIMALS) == other


def test_digits_in_words_are_read() -> None:
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for digit, word in zip(DIGITS, words, strict=True):
        assert read_reply(word.capitalize(), DIGITS) == digit
        assert read_reply(f"The digit is {word}.", DIGITS) == digit


def test_lists_conditions_numbers_and_turns_are_read_as_labelled_or_not_at_all() -> None:
    of = [row for row in REPLIES if row["part"] == "lists"]
    found = [(row, reading(row["choices"], row["reply"])) for row in of]
    assert len(of) >= 190
    assert [(row["reply"], answer) for row, answer in found if answer != row["answer"]] == []


@pytest.mark.parametrize(
    ("form", "best"),
    [
        ("{0} 60 %, {1} 40 %", 0),
        ("{0} 40 %, {1} 60 %", 1),
        ("60% {0}, 40% {1}", 0),
        ("40% {0}, 60% {1}", 1),
        ("{0}: 0.1\n{1}: 0.9", 1),
        ('{{"{0}": 0.9, "{1}": 0.1}}', 0),
        ('{{"{0}": 0.1, "{1}": 0.9}}', 1),
        ('{{"{0}": false, "{1}": true}}', 1),
        ("[x] {0} [ ] {1}", 0),
        ("[ ] {0} [x] {1}", 1),
        ("{0} [x] {1} [ ]", 0),
        ("{0} ☐ {1} ☑", 1),
    ],
)
@pytest.mark.parametrize("name", ["mme", "pope", "vsr", "snli_ve", "cifar10"])
def test_a_list_says_its_highest_answer_wherever_that_stands(name: str, form: str, best: int) -> None:
    task = task_named(name)
    choices = task.data.classes or YES_NO
    assert task.read_plainly(form.format(*choices[:2]), choices) == choices[best]


def test_every_number_below_a_thousand_is_read_in_words_and_in_digits() -> None:
    choices = tuple(map(str, range(1000)))
    # Hand-written words of some; digits with zeros, marks and brackets of others.
    words = {"0": "zero", "13": "thirteen", "25": "twenty-five", "40": "Forty.", "100": "one hundred",
             "105": "a hundred and five", "342": "three hundred forty-two",
             "999": "nine hundred and ninety-nine"}  # fmt: skip
    for number, reply in words.items():
        assert read_reply(reply, choices) == number
    for number in ("0", "7", "64", "512"):
        for form in ("{}", "({})", "{}.", "#{}", "{}.0", "0{}", "**{}**", "The class is {}.", "class_{}"):
            assert read_reply(form.format(number), choices) == number, form
    for reply in ("7.5", "1,000", "2,500", "1/2", "12 %"):
        assert read_reply(reply, tuple(map(str, range(10)))) is None


@pytest.mark.parametrize(
    ("reply", "choices", "answer"),
    [
        ("cat", ANIMALS, "cat"),
        (" A Cat.", ANIMALS, "cat"),
        ("Cat, not dog", ANIMALS, "cat"),
        ("It is a fire truck!", ANIMALS, "fire truck"),
        ("truck", ANIMALS, "truck"),
        ("a cat or a dog", ANIMALS, None),
        ("", ANIMALS, None),
        ("i can't classify that image under the given categories.", ANIMALS, None),
        ("**No**", YES_NO, "no"),
        ("\n\nYes", YES_NO, "yes"),
        ("No。", YES_NO, "no"),
        ('{"answer": "no"}', YES_NO, "no"),
        ("No, there is no doubt: yes", YES_NO, "yes"),
        ("I cannot say.", YES_NO, None),
        ("Yes", TRUE_FALSE, "true"),
        ("no.", TRUE_FALSE, "false"),
        ("This is not true.", TRUE_FALSE, "false"),
        ("It is not false.", TRUE_FALSE, "true"),
        ("The digit is seven.", DIGITS, "7"),
        ("not a 3 but an 8", DIGITS, "8"),
        ("Yse.", YES_NO, "yes"),
        ("ys", YES_NO, "yes"),
        ("nn", YES_NO, None),
        ("cat: no\ndog: yes", ("cat", "dog", "bird"), "dog"),
        ("cat: yes\ndog: no\nbird: no", ("cat", "dog", "bird"), "cat"),
        # Denied of other things than the class: the other class is not said by it.
        ("The picture does not show enough detail to call it a cat", ("cat", "dog"), None),
        ("I could not find a bigger cat", ("cat", "dog"), None),
        ("It is not a cat", ("cat", "dog"), "dog"),
    ],
)
def test_what_a_reply_says(reply: str, choices: tuple[str, ...], answer: str | None) -> None:
    assert read_reply(reply, choices) == answer


@pytest.mark.parametrize("name", ["mme", "pope", "vsr", "snli_ve", "cifar10", "mnist"])
@pytest.mark.parametrize("denied", [0, 1])
def test_the_denied_class_is_never_the_answer(name: str, denied: int) -> None:
    task = task_named(name)
    choices = task.data.classes or YES_NO
    right, wrong = choices[1 - denied], choices[denied]
    for reply in (
        f"It is not {wrong}, it is {right}.",
        f"{right}, not {wrong}",
        f"The answer is not {wrong} but {right}.",
    ):
        assert task.read_plainly(reply, choices) == right, reply


def rules(task: Task) -> list[str]:
    return ["official", "plain", *task.other_rules]


@pytest.mark.parametrize("name", ["mme", "pope", "vsr"])
def test_reasoning_is_cut_before_any_rule_reads(name: str) -> None:
    task = task_named(name)
    choices = ("no", "yes") if name != "vsr" else TRUE_FALSE
    for rule in rules(task):
        under = task.with_rule(rule)
        for opening, closing in (
            ("<think>", "</think>"),
            ("", "</think>"),
            ("[THINK]", "[/THINK]"),
            ("◁think▷", "◁/think▷"),
        ):
            assert (
                under.read(f"{opening}There is no dog, is there? Not {choices[1]}.{closing}\n{choices[1]}", choices)
                == choices[1]
            )
        assert under.read("<think>There is a dog. Yes", choices) is None
        assert under.read("<think>a</think> <think>so yes", choices) is None


def test_a_reply_without_reasoning_stays_as_it_is() -> None:
    for reply in ("", " Yes\n", "a < b > c", "<answer>no</answer>", "I think so"):
        assert without_reasoning(reply) == reply


@pytest.mark.parametrize("choices", [("apple", "apple pie", "pie"), ("pie", "apple pie", "apple")])
@pytest.mark.parametrize(
    ("reply", "answer"),
    [("apple pie", "apple pie"), ("It is an apple pie.", "apple pie"), ("It is an apple.", "apple"), ("a pie", "pie")],
)
def test_a_name_within_a_longer_name_is_not_read_out_of_it(reply: str, answer: str, choices: tuple[str, ...]) -> None:
    assert read_reply(reply, choices) == answer


def test_an_answer_between_two_stretches_of_reasoning_is_kept() -> None:
    for reply in (
        "<think>\nIs it?\n</think>Yes.<think>\nDone.\n</think>",
        "<THINK>a\nb</THINK> Yes. <think>\n</think>",
    ):
        assert without_reasoning(reply) == "Yes."


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("A dog is in the image.", None), ("A photo of a cat", None), ("A person stands there, so C", "C"),
        ("I think it is B", "B"), ("I see a C", "C"), ("It is as red as a rose, so D.", "D"),
        ("A", "A"), ("A.", "A"), ("(A)", "A"), ("a) dog", "A"), ("A: dog", "A"), ("A - dog", "A"), ("a", "A"),
        ("A is correct", "A"), ("A because it is red", "A"), ("The answer is A", "A"), ("A\nThe dog is red", "A"),
        ("I", "I"), ("I is right", "I"),
    ],
)  # fmt: skip
def test_an_article_or_a_pronoun_is_no_lettered_option(reply: str, answer: str | None) -> None:
    assert read_reply(reply, tuple("ABCDEFGHI")) == answer
