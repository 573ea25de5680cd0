"""Numbers in a reply, for answers that are numbers: "twenty-five" and "025" are 25, and no "five" is read out of it."""

from __future__ import annotations

import re

from mmpt_bench.evaluation.reply_words import NUMBERS

_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNIT, _TEEN, _TEN = "|".join(NUMBERS[1:]), "|".join(_TEENS), "|".join(_TENS)
_BELOW = rf"(?:(?:{_TEN})(?:[ -](?:{_UNIT}))?|{_TEEN})"
_PHRASE = rf"\b(?:(?:a|{_UNIT}) hundred(?:(?: and)? (?:{_BELOW}|{_UNIT}))?|{_BELOW})\b"
"""A number of 10 to 999 in words."""
_VALUES = {word: number for number, word in enumerate((*NUMBERS, *_TEENS))} | {
    word: 10 * (2 + place) for place, word in enumerate(_TENS)
}


def in_digits(text: str) -> str:
    """Returns plain text with numbers above nine in digits, without leading zeros and ".0"."""
    text = re.sub(_PHRASE, lambda found: str(_value(found.group())), text)
    text = re.sub(r"(?<![\w.])(\d+)\.0+(?![\w.])(?! ?%)", r"\1", text)
    return re.sub(r"(?<![\w.,])0+(?=\d)(?!\d*\.\d)", "", text)


def names_of_numbers(choice: str) -> list[str]:
    """Returns the other names of an answer that is a number: "seven" of "7", "12" of "twelve".

    In digits, numbers above nine need none: `in_digits` writes a reply's words so.
    """
    if choice.isascii() and choice.isdigit() and int(choice) < len(NUMBERS):
        return [NUMBERS[int(choice)]]
    is_word = choice in NUMBERS or re.fullmatch(_PHRASE, choice) is not None
    return [str(_value(choice))] if is_word else []


def _value(phrase: str) -> int:
    """Returns what a number in words is: 105 of "a hundred and five"."""
    head, _, rest = phrase.rpartition("hundred") if "hundred" in phrase else ("", "", phrase)
    value = 100 * _VALUES.get(head.strip(), 1) if head else 0
    return value + sum(_VALUES.get(word, 0) for word in re.split(r"[ -]+", rest))
