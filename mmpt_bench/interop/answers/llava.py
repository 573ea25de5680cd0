"""LLaVA's own answer files, which say neither label nor image: a line is `{question_id, prompt, text}`.

Which official row a line answers is told by LLaVA's numbers and names, and checked by the words of the prompt. POPE's
questions are numbered as in LLaVA's `llava_pope_test.jsonl`: adversarial from 1, random from 10,000,001, popular from
20,000,001. Its random questions are those of POPE's first release, 2,910 of the 3,000 of today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmpt_bench.data.samples import Sample
from mmpt_bench.interop.answers.forms import GivenAnswer, plain_words

BLOCK = 10_000_000
STRATEGIES = ("adversarial", "random", "popular")
"""In the order of their blocks of numbers."""
LATER = frozenset(
    (18, 40, 62, 70, 72, 76, 104, 114, 126, 180, 192, 234, 250, 272, 276, 332, 366, 372, 498, 502, 520, 560, 570, 574,
     632, 664, 718, 722, 724, 820, 868, 922, 958, 1004, 1014, 1060, 1144, 1194, 1248, 1264, 1318, 1342, 1398, 1406,
     1472, 1474, 1508, 1538, 1630, 1642, 1660, 1704, 1718, 1794, 1818, 1866, 1888, 1932, 1942, 1944, 1968, 2010, 2028,
     2126, 2130, 2154, 2216, 2222, 2256, 2262, 2322, 2358, 2412, 2450, 2474, 2558, 2616, 2658, 2688, 2698, 2746, 2778,
     2786, 2828, 2844, 2854, 2880, 2884, 2912, 2988)
)  # fmt: skip
"""Random questions that the first release has not, by their official numbers: found by image and words of the 2,910
questions in published answers (GuangzhiSu/SmoothGuard at 0354888)."""
EXCHANGED = {866: 867, 867: 866, 1142: 1143, 1143: 1142, 1940: 1941, 1941: 1940}
"""Official numbers of random questions that stand in each other's place in the first release."""
FIRST_RELEASE = [EXCHANGED.get(number, number) for number in range(1, 3001) if number not in LATER]
"""Official number of each random question of the first release, in its order."""


def mme_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a line about MME in the hub's words: the subtask is the beginning of `question_id`."""
    return dict(row) | {"category": str(row["question_id"]).partition("/")[0]}


def pope_samples(answers: Sequence[GivenAnswer], official: Sequence[Sample]) -> list[Sample | str]:
    """Returns the official sample of each line about POPE, or why there is none.

    Random questions are numbered as in the first release, or, where those do not fit, as the official ones.
    """
    by_id = {sample.id: sample for sample in official}

    def found(number_of: Callable[[int], int]) -> list[Sample | str]:
        return [_pope_sample(answer, by_id, number_of) for answer in answers]

    first = found(lambda number: FIRST_RELEASE[number - 1] if number <= len(FIRST_RELEASE) else 0)
    if not any(isinstance(each, str) for each in first):
        return first
    today = found(lambda number: number)
    return first if any(isinstance(each, str) for each in today) else today


def _pope_sample(answer: GivenAnswer, by_id: Mapping[str, Sample], number_of: Callable[[int], int]) -> Sample | str:
    given = str(answer.row.get("question_id"))
    block, number = divmod(int(given), BLOCK) if given.isdigit() and len(given) < 19 else (len(STRATEGIES), 0)
    if block >= len(STRATEGIES) or not number:
        return f"`{given[:40]}` is no number of LLaVA's POPE questions"
    strategy = STRATEGIES[block]
    sample = by_id.get(f"{strategy}/{number_of(number) if strategy == 'random' else number}")
    if sample is None:
        return f"{strategy} has no question {number}"
    if plain_words(sample.question) != plain_words(answer.row["question"]):
        return f"question {number} of {strategy} is another one"
    return sample
