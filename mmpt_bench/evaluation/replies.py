"""Reads a reply as a person would: after the reasoning, whatever the markup, and never as the answer that it denies.

The grammar, in the order in which it is tried (`read_reply`):

1. Reasoning in tags is cut (`without_reasoning`). A reply that ends inside of it gives no answer. Turns of the user's
   that a model goes on to write are cut with all that follows (`first_turn`).
2. An answer in a form made for programs is taken alone: `<answer>no</answer>`, `\\boxed{no}`, `{"answer": "no"}`. Of a
   list with shares or boxes it is the highest, or the one checked (`reply_lists.py`); numbers are read in
   `reply_numbers.py`. What is said under a condition ("would be true if") says nothing.
3. All options in a row are an echo of the question, and go; so do questions before the answer.
4. What is said last after "answer:", "the statement is", "therefore" is taken where it names an answer; so is a legal
   answer that is a last sentence of its own ("So, yes."). After "wait", "I meant" and the like nothing else counts.
5. A legal answer at the very beginning is taken, unless another is put beside it ("a cat or a dog").
6. Else the one legal answer that is named and not denied. Where all but one are denied ("not true", "neither
   entailment nor contradiction"), it is the remaining one.
7. Of yes and no alone: a sentence that denies ("There are no dogs", "I do not see one") is no.

Anything else is unreadable (None). The question is not read, so nothing is guessed: "There is a cat" is no "yes".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mmpt_bench.evaluation.reply_lists import Listed, boxes, marked, shares, switches
from mmpt_bench.evaluation.reply_numbers import in_digits, names_of_numbers
from mmpt_bench.evaluation.reply_words import (
    AFTER_LETTER,
    AFTER_PREDICATE,
    ALSO_DENIED,
    ASIDE,
    AT_THE_START,
    BEFORE_YES_OR_NO,
    CERTAIN_GAP,
    CLOSE,
    CONDITIONS,
    CONFIDENCE,
    COUNTED,
    DENIED_AFTER,
    DENIED_BEFORE,
    DENIED_LIST,
    ELSEWHERE,
    FALSE,
    FILLER,
    FLAGS,
    FOR_PROGRAMS,
    NEGATION,
    NEXT_TURN,
    NO,
    NO_VERDICT,
    NUMBERS,
    OPEN,
    RESTART,
    SAID_LAST,
    SOFT_NO,
    SOFT_YES,
    TAKEN_BACK,
    TENTATIVE,
    TRUE,
    UNSURE,
    WHOLLY,
    YES,
)

Parse = Callable[[str, Sequence[str]], str | None]
"""(reply, legal answers) -> the answer that the reply gives, or None."""


def without_reasoning(reply: str) -> str | None:
    """Returns a reply without its reasoning in tags; None where the reasoning does not end.

    Tags are those that chat templates and harnesses know: <think>, [THINK], ◁think▷ and the like. An opening tag may
    be missing, since templates put it into the prompt. A reply without reasoning is returned as it is.
    """
    if not re.search(f"{OPEN}|{CLOSE}", reply, FLAGS):
        return reply
    text = re.split(CLOSE, re.sub(f"{OPEN}.*?{CLOSE}", "", reply, flags=FLAGS), flags=FLAGS)[-1]
    return None if re.search(OPEN, text, FLAGS) else text.strip()


def first_turn(reply: str) -> str:
    """Returns a reply up to where it ends or goes on with a turn of the user's, if anything is said before that."""
    found = next((each for each in re.finditer(NEXT_TURN, reply) if re.search(r"\w", reply[: each.start()])), None)
    return reply if found is None else reply[: found.start()]


def reply_reader(also: Mapping[str, Sequence[str]] | None = None) -> Parse:
    """Returns the parse function of the grammar above, for a task whose answers have other names as well.

    Args:
        also: other words for an answer, by the answer: {"automobile": ("car",)}.
    """
    others = {_plain(answer): tuple(_plain(word) for word in words) for answer, words in (also or {}).items()}
    return partial(read_reply, others=others)


def read_reply(reply: str, choices: Sequence[str], others: Mapping[str, Sequence[str]] | None = None) -> str | None:
    """Returns the answer that a reply gives by the grammar above; None where it gives none of the legal ones."""
    text = without_reasoning(reply)
    return None if text is None else _Reader(_names(choices, others or {}), choices).read(first_turn(text))


def _plain(text: str) -> str:
    """Returns text in lower case without markup, with plain apostrophes and full stops, one blank between words."""
    text = unicodedata.normalize("NFKC", text).translate(str.maketrans("。’‘“”‐‑", ".''\"\"--"))
    text = re.sub(r"\\[a-zA-Z]+(?=\{)|</?\w+[^<>]*>|<\|[^|<>]*\|>|[\u200b-\u200f\ufeff]", " ", text)
    text = re.sub(r"[*`~#|$\\{}\[\]\"]|(?<!\w)'|'(?!\w)", " ", text)
    text = re.sub(r"(?<=\w)[_-](?=\w)|_", " ", text).casefold()
    text = re.sub(r"(?<=[\u3040-\u9fff])(?=[a-z0-9])|(?<=[a-z0-9])(?=[\u3040-\u9fff])", " ", text)
    text = re.sub(
        r"\b(?:no|without(?: a)?|beyond(?: a)?)(?: any)? (?:doubt|question)\b|\bnot only\b|\bno problem\b", " ", text
    )
    return re.sub(r"[^\S\n]+", " ", text).strip()


def _names(choices: Sequence[str], others: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the legal answer of each word or phrase that names it."""
    plain = {_plain(choice): choice for choice in choices}
    names = dict(plain)
    for truth, lie in (("yes", "no"), ("true", "false")):
        if set(plain) == {truth, lie}:
            names |= dict.fromkeys((*YES, *TRUE), plain[truth]) | dict.fromkeys((*NO, *FALSE), plain[lie])
    names |= {name: plain[choice] for choice in plain for name in names_of_numbers(choice) if name not in plain}
    for answer, words in others.items():
        if answer in plain:
            names |= {word: plain[answer] for word in words if word not in plain}
    if len(plain) > 2:
        words = [name for name in names if name[1:] and name.isalpha()]
        names |= {f"{name}s": names[name] for name in words if f"{name}s" not in names}
    return names


class _Reader:
    """Reads replies to one question."""

    def __init__(self, names: Mapping[str, str], choices: Sequence[str]) -> None:
        self.names, self.choices = names, choices
        self.are_numbers = all(re.fullmatch(r"0|[1-9][0-9]*", choice) for choice in choices)
        ends = r"(?!\w)(?!\.\d)(?!(?<=\d)(?:/\d|,\d{3}| ?%))"
        unsigned = r"(?<!^-)(?<!\s-)" if self.are_numbers else ""  # "-7" is no 7
        any_name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        self.word = rf"(?<![\w.])(?<!\d/){unsigned}(?:{any_name}){ends}"

    def read(self, reply: str) -> str | None:
        """Returns the answer that a reply without reasoning gives."""
        for pattern in FOR_PROGRAMS:
            found = re.findall(pattern, reply, FLAGS)
            if len(set(found)) > 1 and shares(_plain(reply), self.word, self.names) is not None:
                break
            if found:
                return self._read_text(_plain(str(found[-1])))
        listed = boxes(reply, self.word, self.names, _plain) or switches(reply, self.names, _plain)
        return self._read_text(_plain(reply)) if listed is None else self._beside(listed)

    def _beside(self, listed: Listed) -> str | None:
        """Returns what a list says; None where the text beside it says something else."""
        if listed.answer is None:
            return None
        return listed.answer if self._read_text(_plain(listed.rest)) in (None, listed.answer) else None

    def _read_text(self, text: str) -> str | None:
        if self.are_numbers:
            text = in_digits(text)
        letter = {"y": "yes", "n": "no", "t": "true", "f": "false"}.get(text.strip(" .,!:'"))
        if letter is not None and letter in self.names:
            return self.names[letter]
        if (answer := self._in_other_words(text)) is not None:
            return answer
        if (listed := shares(text, self.word, self.names)) is not None:
            return self._beside(listed)
        if (answer := marked(text, self.word, self.names)) is not None:
            return answer
        text = self._without_echo(text)
        for condition in CONDITIONS:
            text = re.sub(condition, " ", text)
        for aside in ASIDE:
            without = re.sub(aside, " ", text)
            text = without if re.search(self.word, without) else text
        only_names = re.fullmatch(rf"\W*(?:{self.word}\W*)+", text)
        if only_names and len({self.names[name] for name in re.findall(self.word, text)}) > 1:
            return None
        taken_back = list(re.finditer(TAKEN_BACK, text))
        if taken_back and re.search(self.word, text[: taken_back[-1].end()]):
            text = text[taken_back[-1].end() :]
        for said in reversed(list(re.finditer(SAID_LAST, text))):
            if re.search(
                rf"{NEGATION}|\b(?:wrong|incorrect|alternative|other|second) $|\b(?:part|half) of\b",
                re.split(RESTART, text[: said.start()])[-1],
            ):
                continue
            sentence = re.split(r"[.;!?\n]", text[said.end() :].strip(" .,:-\n"), maxsplit=1)[0]
            sentence = re.sub(r"^\(?[a-j][).:]\s*", "", sentence)
            for part in (sentence, re.split(r",|\bbut\b|\balthough\b|\bbecause\b", sentence, maxsplit=1)[0]):
                if (answer := self._read_statement(part, whole=False)) is not None:
                    return answer
        last = re.split(r"[!?\n:—–]\s*|\.(?!\d)\s*", text.rstrip(" .!?\n:"))[-1]
        alone = re.fullmatch(rf"\W*(?:{FILLER}\W+)*({self.word})\W*", last)
        # "The correct" is the beginning of a sentence that was cut.
        is_cut = alone is not None and re.search(r"\bthe (?:correct|accurate|true|false|incorrect)$", last)
        is_cut = is_cut or re.search(f"{DENIED_LIST}|{CONFIDENCE}", text[: text.rfind(last)])
        if (
            alone
            and not is_cut
            and len({self.names[name] for name in re.findall(self.word, text)}) < len(re.findall(r"\w+", text))
        ):
            return self.names[alone.group(1)]
        return self._read_statement(text)

    def _without_echo(self, text: str) -> str:
        """Returns text without all options in a row, and without questions where anything else is said."""
        mark = r"(?:\(?[a-j]\)\s*|[a-j][.:]\s*|[-•] )"
        joint = rf"\s*(?:(?:,|/|\bor\b|\band\b|\n|,\s*or\b|,\s*and\b)\s*{mark}?|{mark})"

        def without(found: re.Match[str]) -> str:
            named = {self.names[name] for name in re.findall(self.word, found.group())}
            return " . " if named == set(self.choices) else found.group()

        text = re.sub(rf"{mark}?{self.word}(?:{joint}{self.word})+", without, text)
        if not re.search(r"\w", answered := re.sub(r"[^.;!?\n]*\?", " ", text).strip()):
            return text
        unfinished = r"(?:^|(?<=[.!?]))\s*(?:is|are|does|do|which|what) (?:the|this|that|these|of)\b[^.;!?\n]*$"
        return re.sub(unfinished, "", answered)

    def _in_other_words(self, text: str) -> str | None:
        """Returns the answer of a reply that begins with yes or no in another language, or is a mistyped name."""
        for answer, words in ELSEWHERE.items():
            if answer in self.names and re.match(rf"\W*(?:{'|'.join(words)})(?!\w)(?! ?[?])", text):
                return self.names[answer]
        for answer, pattern in AT_THE_START.items():
            if answer in self.names and re.match(pattern, text):
                return self.names[answer]
        first = re.match(r"(\w+)(?:\W*$|[,.!:])", text)
        if first is None or first.group(1) in self.names:
            return None
        meant = {answer for name, answer in self.names.items() if first.group(1) in _mistyped(name)}
        return meant.pop() if len(meant) == 1 else None

    def _read_statement(self, text: str, whole: bool = True) -> str | None:
        """Returns the answer of a text; of a part of a reply, no denial alone ("there is no date") is an answer."""
        yes_or_no = whole and {_plain(choice) for choice in self.choices} == {"yes", "no"}
        if re.search(NO_VERDICT, text):
            return None
        start = re.match(rf"\W*({self.word})", text)
        if start and self._is_verdict(text, start.start(1), start.end(1)):
            beside = re.match(rf"\W*{self.word}\s*(?:or|and|/|&)\s*(?:(?:an?|the) )?({self.word})", text)
            if beside and self.names[beside.group(1)] != self.names[start.group(1)]:
                return None
            if not _denied_after(text, start.end(1), start.group(1)):
                return self.names[start.group(1)]
        named, denied, tentative = self._named_and_denied(text)
        named = named or tentative
        if len(named) == 1:
            return named.pop()
        left = set(self.choices) - denied
        if not named and denied and len(left) == 1:
            return left.pop()
        if yes_or_no and not named and not denied and not re.search(UNSURE, text):
            if re.search(SOFT_NO, text):
                return self.names["no"]
            if re.fullmatch(SOFT_YES, text):
                return self.names["yes"]
        return None

    def _named_and_denied(self, text: str) -> tuple[set[str], set[str], set[str]]:
        """Returns the answers that are named, those that are denied for certain, those that are named as possible."""
        named: set[str] = set()
        denied: set[str] = set()
        tentative: set[str] = set()
        for found in re.finditer(self.word, text):
            if not self._is_verdict(text, found.start(), found.end()):
                continue
            how = _denial(text, found.start(), found.end(), found.group())
            if how is None:
                named.add(self.names[found.group()])
            elif how == "certain":
                denied.add(self.names[found.group()])
            elif how == "tentative":
                tentative.add(self.names[found.group()])
        return named, denied, tentative

    def _is_verdict(self, text: str, start: int, end: int) -> bool:
        """Returns whether a word is meant as an answer: "true art", "one thing", "a no parking sign" are not."""
        name, following = text[start:end], re.match(r"[ '-]*([a-z]+)", text[end:])
        after = following.group(1) if following else ""
        if name in YES or name in NO:
            before = re.search(r"([\w']+)\W*$", re.split(r"[.,;:!?\n—–]", text[:start])[-1])
            said = before is None or before.group(1) in BEFORE_YES_OR_NO or before.group(1).endswith(("n't", "'s"))
            of_a_noun = name in NO and after and after not in AFTER_PREDICATE
            return said and not (before is not None and of_a_noun and _is_determiner(text, start))
        if re.match(r" (?:means?|refers|requires?|needs?|would (?:mean|require|need|imply))\b", text[end:]):
            return False
        if after == "like" and not re.match(r" like (?:an?|the|th[ai]t|this|those|these)\b", text[end:]):
            return False  # "a bird-like airplane"
        is_word = name in ("a", "i") and re.match(r" [a-z]", text[end:]) and after not in AFTER_LETTER
        if is_word or (name.isdigit() and (after in COUNTED or re.search(CONFIDENCE, text[:start]))):
            return False
        if name in (*TRUE, *FALSE, *NUMBERS, "neutral"):
            return not after or after in AFTER_PREDICATE
        return True


def _is_determiner(text: str, start: int) -> bool:
    verb = r"\b(?:is|are|was|were|has|have|had|see|sees|shows?|contains?|find|detect|with|a) $"
    return re.search(verb, text[:start]) is not None


def _denial(text: str, start: int, end: int, name: str) -> str | None:
    """Returns how what is named at text[start:end] is denied: None (not at all), "certain", "unclear", "tentative"."""
    before = re.split(RESTART, text[:start])[-1]
    if name in (*YES, *NO):
        is_before = re.search(rf"{DENIED_BEFORE}(?: an?| the| simply| say)? ?'?$", before)
        return "certain" if is_before or _denied_after(text, end, name) else None
    if name in (*TRUE, *FALSE) and re.search(r"\b(?:part(?:ly|ially)|half|somewhat) $", before):
        return "unclear"
    negations = list(re.finditer(NEGATION, before))
    if negations:
        gap = set(re.findall(r"[\w']+", before[negations[-1].end() :]))
        certain = gap <= CERTAIN_GAP - (WHOLLY if name in FALSE else set()) or negations[-1].group() == "neither"
        return "certain" if certain and len(negations) % 2 else "unclear"
    if re.search(r"\bno (?:\w+ )?$", before):
        return "certain"
    behind, ahead, denial = ALSO_DENIED
    if re.search(denial, text[:start]) and (re.match(behind, text[end:]) or re.search(ahead, text[:start])):
        return "unclear"
    if re.search(DENIED_LIST, text[:start]):
        return "unclear"
    if re.search(TENTATIVE, before):
        return "tentative"
    return "unclear" if _denied_after(text, end, name) else None


def _mistyped(name: str) -> set[str]:
    """Returns a name with one letter missing, or with two neighbours exchanged."""
    if len(name) < 4 and name != "yes":
        return set()
    missing = {name[:k] + name[k + 1 :] for k in range(len(name))}
    return missing | {name[:k] + name[k + 1] + name[k] + name[k + 2 :] for k in range(len(name) - 1)}


def _denied_after(text: str, end: int, name: str) -> bool:
    """Returns whether what follows a name denies it: "cat is not the answer", "cat would be wrong"."""
    if name in (*YES, *NO):
        return re.match(DENIED_AFTER, text[end:]) is not None
    verb = r"(?:is|are|was|were|does|do|can|could|would|will|has|have|seems|appears)"
    wrong = r"(?:wrong|incorrect|false|untrue|ruled out|excluded|impossible|unlikely|out\b"
    wrong += r"|eliminated|dismissed|rejected|discarded|off the table)"
    return re.match(rf"'?(?: \w+){{0,2}}? {verb}(?: be)?(?:n't\b| not\b| never\b| {wrong})", text[end:]) is not None
