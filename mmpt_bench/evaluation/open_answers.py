"""Open answers: how they are read, and what they are worth beside reference answers.

Normalization is that of VQA's own evaluation (vqaEval.py of github.com/GT-Vision-Lab/VQA; Antol et al. 2015,
arXiv:1505.00468): lower case, digits for number words, no articles, no punctuation. One thing is simpler: apostrophes
go, where vqaEval.py has a list of contractions that get theirs ("dont", "don't"), so that "its" is "it's" here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpt_bench.data.samples import Sample

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
"""vqaEval.py's `punct`; the full stop is dealt with apart, as it may stand inside a number."""
NUMBERS = {
    **{"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"},
    **{"seven": "7", "eight": "8", "nine": "9", "ten": "10"},
}
ARTICLES = ("a", "an", "the")
ANLS_THRESHOLD = 0.5
"""From this distance on, an answer is a wrong one, not a misread one (tau of Biten et al. 2019, arXiv:1905.13648)."""


def read_open(reply: str, choices: Sequence[str] = ()) -> str | None:
    """Returns the reply itself, on one line, as the answer; None where it is empty."""
    return " ".join(reply.split()) or None


def normalized(answer: str) -> str:
    """Returns an answer as VQA's evaluation compares it.

    >>> normalized("The two dogs.")
    '2 dogs'
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    has_comma_number = re.search(r"\d,\d", text) is not None
    out = text
    for sign in PUNCTUATION:
        # Beside a space, or where a number has a thousands' comma, a sign goes; elsewhere it parts two words.
        gone = f"{sign} " in text or f" {sign}" in text or has_comma_number
        out = out.replace(sign, "" if gone else " ")
    # As the code does, not as its pattern means: a full stop stays where a digit follows it.
    out = re.sub(r"\.(?!\d)", "", out).replace("'", "").replace("’", "")
    words = [NUMBERS.get(word, word) for word in out.lower().split()]
    return " ".join(word for word in words if word not in ARTICLES)


def exact_match(sample: Sample, answer: str | None) -> float:
    """Returns 1 where an answer is one of the accepted ones, both normalized; else 0."""
    if answer is None:
        return 0.0
    return float(normalized(answer) in {normalized(one) for one in sample.accepted})


def is_right(sample: Sample, answer: str | None) -> bool:
    """Returns whether an answer is the right one: an accepted one, normalized, where the question is open."""
    return answer == sample.answer if sample.choices else exact_match(sample, answer) == 1


def anls(sample: Sample, answer: str | None) -> float:
    """Returns the ANLS of one answer: 1 - NL to the nearest accepted answer where NL is below .5, else 0.

    NL is the Levenshtein distance over the length of the longer text, both in lower case and on one line.
    """
    if answer is None:
        return 0.0
    return max(_similarity(" ".join(answer.lower().split()), " ".join(one.lower().split())) for one in sample.accepted)


def _similarity(said: str, accepted: str) -> float:
    longest = max(len(said), len(accepted))
    distance = edit_distance(said, accepted) / longest if longest else 0.0
    return 1 - distance if distance < ANLS_THRESHOLD else 0.0


def edit_distance(first: str, second: str) -> int:
    """Returns the Levenshtein distance: insertions, deletions and substitutions from one text to the other."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]
