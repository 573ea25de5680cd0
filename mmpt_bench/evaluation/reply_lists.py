"""Lists in a reply: answers with a share each, boxes of which one is checked, JSON with a number for each answer.

A list says its answer by its highest number or its one checked box; equal ones, several or none say nothing. What comes
first in it never counts for that.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpt_bench.evaluation.reply_words import FLAGS, NEGATION

_SHARE = (
    r"(?<![\w.])(?:(?P<percent>\d+(?:\.\d+)?) ?(?:%|percent\b|per cent\b|pct\b)"
    r"|(?P<part>0?\.\d+|[01]\.\d+)(?![\w%])(?!\.\d)|(?P<whole>\d{1,3})(?![\w%])(?!\.\d)|(?P<word>high|medium|low)\b)"
)
LONGEST_GAP = 60
"""Characters between an answer and its share."""
_WORDS = {"high": 0.9, "medium": 0.5, "low": 0.1}
_SCORE = r"(?:score|prob|probability|confidence|likelihood)"
_AFTER_NAME = (
    rf"[\s:=\-–—~≈()>]*(?:,\s*(?={_SCORE}\b|$))?(?:(?:with|at|is|was|about|around|roughly|approximately|an?|the|of|p|chance"
    rf"|{_SCORE}|weight|share|likely|gets|get|has|have)\b[\s:=~≈(]*)*"
)
_AFTER_SHARE = (
    r"[\s:)\-–—>]*(?:,\s*(?=(?:label|class|answer|name)\b))?(?:(?:chance|probability|likelihood|likely|confidence"
    r"|confident|sure|certain|that|it's|it|this|is|of|for|an?|the|being|to be|on|label|class|answer|name)\b[\s:=]*)*"
)
_CHECKED = r"\[\s*[xX✓✔*●•]\s*\]|\(\s*[xX✓✔]\s*\)|[☑☒✅✔✓◉⦿●]\ufe0f?"
_EMPTY = r"\[\s*[_-]?\s*\]|\(\s+\)|[☐⬜□▢○◯❌✗✘✖]\ufe0f?"


@dataclass(frozen=True)
class Listed:
    """What a list in a reply says."""

    answer: str | None
    """The legal answer; None where the list says none, or several."""
    rest: str
    """The reply without the list."""


def shares(text: str, word: str, names: Mapping[str, str]) -> Listed | None:
    """Returns what answers with shares say ("cat 60 %, dog 40 %"); None where there is no such list.

    Args:
        text: of the reply, plain.
        word: pattern of every name.
        names: name -> legal answer.
    """
    numbers = [(each.start(), each.end(), each) for each in re.finditer(_SHARE, text)]
    numeric = any(name.isdigit() for name in names)
    # "60" of "60 %" is no class.
    taken = {place for start, end, of in numbers if of["percent"] or of["part"] for place in range(start, end)}
    found = [each for each in re.finditer(word, text) if each.start() not in taken]
    said = [(each.start(), each.end(), names[each.group()]) for each in found]
    of_name = _pairs(text, said, numbers, _AFTER_NAME, numeric)
    of_share = _pairs(text, numbers, said, _AFTER_SHARE, numeric)
    pairs = max(of_name, of_share, key=len)
    if len(pairs) == 1 and len(set(names.values())) == 2 and pairs[0].share < 0.5 and not pairs[0].is_whole:
        return Listed(None, "")
    if len(pairs) < 2:
        return None
    ends = [0, *(pair.end for pair in pairs)]
    rest = " . ".join(text[a:b] for a, b in zip(ends, [*(pair.start for pair in pairs), len(text)], strict=True))
    tied = len(of_name) == len(of_share)
    denied = re.search(rf"{NEGATION}(?: \w+)?\W*$", text[: pairs[0].start]) is not None
    if tied or denied or not _are_shares(pairs) or len({pair.answer for pair in pairs}) < len(pairs):
        return Listed(None, "")
    most = max(pair.share for pair in pairs)
    best = [pair.answer for pair in pairs if pair.share == most]
    return Listed(best[0] if len(best) == 1 else None, rest if len(best) == 1 else "")


@dataclass(frozen=True)
class _Pair:
    answer: str
    share: float
    start: int
    end: int
    is_whole: bool


def _pairs(text: str, firsts: Sequence[Any], seconds: Sequence[Any], gap: str, numeric: bool) -> list[_Pair]:
    """Returns the pairs of a name and a number of which one follows the other."""
    made = []
    starts = [each[0] for each in seconds]
    following = [*(each[0] for each in firsts[1:]), len(text)]
    for (start, end, first), next_first in zip(firsts, following, strict=False):
        place = bisect.bisect_left(starts, end)
        if place == len(starts) or next_first < starts[place] or starts[place] - end > LONGEST_GAP:
            continue
        nearest = seconds[place]
        between = text[end : nearest[0]]
        answer, number = (first, nearest[2]) if isinstance(first, str) else (nearest[2], first)
        if (number["whole"] or number["word"]) and not isinstance(first, str):
            continue
        # A number without a mark ("cat: 1") may be anything: it must be assigned, and all must make a whole.
        if number["whole"] and (numeric or not re.match(r"\s*[:=(]", between)):
            continue
        if re.fullmatch(gap, between):
            made.append(_Pair(answer, _value(number), start, nearest[1], number["whole"] is not None))
    return made


def _are_shares(pairs: Sequence[_Pair]) -> bool:
    """Returns whether numbers without a mark, if any, make 1 or 100 together."""
    wholes = [pair.share for pair in pairs if pair.is_whole]
    return not wholes or (len(wholes) == len(pairs) and (sum(wholes) == 1 or 98 <= sum(wholes) <= 102))


def _value(number: re.Match[str]) -> float:
    if number["word"]:
        return _WORDS[number["word"]]
    return float(number["percent"]) / 100 if number["percent"] else float(number["part"] or number["whole"])


def marked(text: str, word: str, names: Mapping[str, str]) -> str | None:
    """Returns the one of more than two answers that a list marks ("dog: yes", "| cat | ✓ |"); None where none is."""
    if len(set(names.values())) <= 2:
        return None
    found = re.findall(
        rf"({word})\s*[:\-–—= ]\s*(yes|no|true|false|likely|unlikely|✓|✔|✗|✘)(?!\w)", text.replace(" is ", ": ")
    )
    if len(found) < 2 or len({name for name, _ in found}) < len(found):
        return None
    on = [names[name] for name, mark in found if mark in ("yes", "true", "likely", "✓", "✔")]
    return on[0] if len(on) == 1 else None


def switches(reply: str, names: Mapping[str, str], plain: Callable[[str], str]) -> Listed | None:
    """Returns what JSON with true or false for each answer says; None where there is none."""
    said = [
        (names[plain(name)], value.lower() == "true")
        for name, value in re.findall(r"[\"']([^\"']+)[\"']\s*:\s*(true|false)\b", reply, re.IGNORECASE)
        if plain(name) in names
    ]
    if not said:
        return None
    on, off = ({answer for answer, is_on in said if is_on == wanted} for wanted in (True, False))
    left = set(names.values()) - off
    answers = on or (left if len(left) == 1 else set())
    return Listed(answers.pop() if len(answers) == 1 and not on & off else None, "")


def boxes(reply: str, word: str, names: Mapping[str, str], plain: Callable[[str], str]) -> Listed | None:
    """Returns what boxes say ("[x] yes [ ] no"); None where there are none that have a name each."""
    found = list(re.finditer(rf"(?P<checked>{_CHECKED})|(?:{_EMPTY})", reply))
    if not found:
        return None
    starts, ends = [each.start() for each in found], [each.end() for each in found]
    after = [_line(reply[a:b])[0] for a, b in zip(ends, [*starts[1:], len(reply)], strict=True)]
    before = [_line(reply[a:b])[-1] for a, b in zip([0, *ends[:-1]], starts, strict=True)]
    last = reply.find(after[-1], ends[-1]) + len(after[-1])
    several = len(found) > 1
    labels = [_label(plain(text), word, names, False, several) for text in after]
    is_before = not all(labels)
    if is_before:
        labels = [_label(plain(text), word, names, True, several) for text in before]
    if not all(labels):
        return None
    if len(found) == 1 and not re.match(r"[\[(]", found[0].group()):
        # "❌ No" is a no.
        return None
    # Beside a tick, a cross says that a box is not meant.
    ticked = any(re.search("[✓✔☑✅]", each.group()) for each in found)
    checked = {
        label
        for each, label in zip(found, labels, strict=True)
        if each["checked"] and not (ticked and re.search("[xX☒]", each.group()))
    }
    if len(checked) != 1:
        return Listed(None, "")
    start, end = (reply.rfind(before[0], 0, starts[0]), ends[-1]) if is_before else (starts[0], last)
    return Listed(checked.pop(), f"{reply[:start]}\n{reply[end:]}")


def _line(text: str) -> list[str]:
    """Returns the first and the last line of a text, blank ones aside at its ends."""
    return text.strip(" \t").split("\n") if text.strip() else [""]


def _label(text: str, word: str, names: Mapping[str, str], is_before: bool, loosely: bool) -> str | None:
    """Returns the answer that a text names beside its box; `loosely`: anywhere in it, where it is the only one."""
    beside = rf"(?:.*\W)?({word})[\s:–-]*" if is_before else rf"\W*(?:[a-j][).:]\s*)?({word})(?!\w).*"
    if start := re.fullmatch(beside, text, FLAGS):
        return names[start.group(1)]
    named = {names[name] for name in re.findall(word, text)}
    return named.pop() if loosely and not is_before and len(named) == 1 else None
