"""Reads a reply as a person would: after the reasoning, whatever the markup, and never as the answer that it denies.

The grammar, in the order in which it is tried (`read_reply`):

1. Reasoning in tags is cut (`without_reasoning`). A reply that ends inside of it gives no answer.
2. An answer in a form made for programs is taken alone: `<answer>no</answer>`, `\\boxed{no}`, `{"answer": "no"}`.
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

Parse = Callable[[str, Sequence[str]], str | None]
"""(reply, legal answers) -> the answer that the reply gives, or None."""

_TAG = r"(?:think|thinking|thoughts?|reasoning|reason|reflection|scratchpad|analysis)"
_OPEN = rf"(?:<\|?(?:begin_of_)?{_TAG}\|?>|\[{_TAG}\]|◁{_TAG}▷|<\|channel\|>analysis<\|message\|>)"
_CLOSE = rf"(?:<\|?(?:/|end_of_){_TAG}\|?>|\[/{_TAG}\]|◁/{_TAG}▷|<\|channel\|>final<\|message\|>)"
_FLAGS = re.IGNORECASE | re.DOTALL


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_YES = ("yes", "yeah", "yep", "yup")
_NO = ("no", "nope", "nah")
_TRUE = ("true", "correct", "accurate")
_FALSE = ("false", "incorrect", "untrue", "inaccurate")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_FOR_PROGRAMS = (
    r"<answer>(.*?)(?:</answer>|$)",
    r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}",
    r"""["'](?:(?:final|predicted)[ _])?(?:answer|label|prediction|response|result|choice|class|category|digit"""
    r"""|verdict|relation)["']\s*[:=]\s*("[^"]*"?|'[^']*'?|[\w ]+)""",
)
_NEGATION = (
    r"(?:\bnot\b|n't\b|\bcannot\b|\bnever\b|\bneither\b|\brather than\b|\binstead of\b|\bas opposed to\b"
    r"|\bother than\b|\bexcept\b|\bunlike\b|\bwithout\b|\brul(?:es?|ed|ing) out\b|\bexclud(?:es?|ed|ing)\b"
    r"|\babsence of\b|\bhardly\b|\bdoubt\b|\bno longer\b|\bfar from\b|\b(?:wrong|false|incorrect) to\b|\bless likely\b)"
)
_CERTAIN_GAP = _words(
    "think believe say see that this it the a an statement sentence caption claim description answer is be was to"
    " really entirely quite completely fully strictly actually necessarily exactly would so very appear appears seem"
    " seems look looks likely always simply just considered as in fact call either"
)
"""Words that may stand between a negation and what it denies for certain: "do not think that this is true"."""
_AFTER_PREDICATE = _words(
    "that because since as for given based here in on at when if and but or so due with from according too though"
    " although while statement sentence claim caption description relation relationship label digit number instead"
    " indeed overall then would is was not by after all again nor rather"
)
"""Words that may follow "true", "neutral" or "seven" where it is a verdict; "true art" and "one thing" are none."""
_BEFORE_YES_OR_NO = _words(
    "so but and or then is are was were be say said answer therefore thus hence has have had see sees shows show with"
    " contains contain find detect definitely probably certainly absolutely clearly simply likely maybe perhaps just"
    " oh well hmm um hell option a with actually not towards toward rather neither nor otherwise"
)
_UNSURE = (
    r"(?:(?:not|n't)(?: \w+)? (?:sure|certain|clear|possible|able|know|tell|determine|say|enough|have access)"
    r"|cannot (?:be )?\w*(?:tell|determin|say|see clearly|identif|answer|verif|confirm)|unable to|unclear|unsure"
    r"|uncertain|unknown|(?:hard|difficult|impossible) to|not enough|no way to|as an ai\b|language model)"
)
_NO_VERDICT = (
    r"(?:\bno (?:image|picture|photo|file)s? (?:\w+ ){0,3}(?:provided|attached|given|uploaded|included|available)\b"
    r"|\bno way to\b|\bi can help\b|\bi (?:can't|cannot|am unable to|'m unable to) (?:help|assist|identify)\b"
    r"|\bplease (?:upload|share|provide|attach)\b)"
)
_SOFT_NO = (
    r"(?:^(?:\w+ly )?not\b|\b(?:is|are|was|were)(?:n't| not)\b|\b(?:do|does|did|can|could)(?:n't| not) (?:\w+ly )?"
    r"(?:see|contain|show|have|appear|depict|include|find|detect|observe|look|seem|think so|believe so)\b"
    r"|\bcannot (?:see|find|detect)\b|\bnone\b|\bnothing (?:like|of|such)\b|\bnobody\b|\babsent\b|^neither\b"
    r"|\b(?:is|are|was|were|see|sees|has|have|had|contains?|shows?|find|detect) no\b)"
)
_SAID_LAST = (
    r"(?:\b(?:answer|verdict|conclusion|prediction|label|relation(?:ship)?|option|choice|digit|class|category|number"
    r"|statement|sentence|caption|claim|description)(?: ?\([^)]*\))?"
    r"(?: to (?:the|this|your) question| (?:here|would|should|must|shown|that fits))*"
    r"(?:'s|\s*(?:\b(?:is|be)\b|[:=]|->))+"
    r"|\b(?:selected|chosen)\s*:|\bone that fits is\b|\b(?:most likely|best guess(?: is)?|in fact)\b"
    r"|\b(?:therefore|thus|hence|in conclusion|to conclude|in summary|overall)\b)"
)
_TAKEN_BACK = (
    r"(?:\b(?:no,? )?wait\s*[,.!:-]|\bcorrection\b|\bsorry\b|\bscratch that\b|\bi mean\b|\bi meant\b|\bmisread\b"
    r"|\bon second (?:thoughts?|look)\b|\blooking again\b|\blet me correct\b|\bon reflection\b|\bactually,)"
)
_RESTART = (
    r"(?:[.;!?\n:()]|\bbut\b|\byet\b|(?:,|\s-+|—|–)\s*(?:it's|its|it is|this is|that is|they are|there (?:is|are)|so\b"
    r"|therefore|thus|hence|which|rather|instead|i think|i see|i believe|i'd say|my answer|the answer))"
)
_FILLER = r"(?:so|it's|it is|this is|that is|that's|hence|a|an|the|just|simply|clearly|must be|is|my answer|final)"


def without_reasoning(reply: str) -> str | None:
    """Returns a reply without its reasoning in tags; None where the reasoning does not end.

    Tags are those that chat templates and harnesses know: <think>, [THINK], ◁think▷ and the like. An opening tag may
    be missing, since templates put it into the prompt. A reply without reasoning is returned as it is.
    """
    if not re.search(f"{_OPEN}|{_CLOSE}", reply, _FLAGS):
        return reply
    text = re.sub(f"{_OPEN}.*?{_CLOSE}", "", reply, flags=_FLAGS)
    text = re.split(_CLOSE, text, flags=_FLAGS)[-1]
    return None if re.search(_OPEN, text, _FLAGS) else text.strip()


def reply_reader(also: Mapping[str, Sequence[str]] | None = None) -> Parse:
    """Returns the parse function of the grammar above, for a task whose answers have other names as well.

    Args:
        also: other words for an answer, by the answer: {"automobile": ("car",)}.
    """
    others = {_plain(answer): tuple(_plain(word) for word in words) for answer, words in (also or {}).items()}

    def parse(reply: str, choices: Sequence[str]) -> str | None:
        text = without_reasoning(reply)
        return None if text is None else _Reader(_names(choices, others), choices).read(text)

    return parse


read_reply: Parse = reply_reader()
"""Reads a reply by the grammar above: (reply, legal answers) -> answer or None."""


def _plain(text: str) -> str:
    """Returns text in lower case without markup, with plain apostrophes and full stops, one blank between words."""
    text = unicodedata.normalize("NFKC", text).translate(str.maketrans("。’‘“”‐‑", ".''\"\"--"))
    text = re.sub(r"\\[a-zA-Z]+(?=\{)|</?\w+[^<>]*>|<\|[^|<>]*\|>|[\u200b-\u200f\ufeff]", " ", text)
    text = re.sub(r"[*`~#|$\\{}\[\]\"]|(?<!\w)'|'(?!\w)", " ", text)
    text = re.sub(r"(?<=\w)[_-](?=\w)|_", " ", text).casefold()
    text = re.sub(
        r"\b(?:no|without(?: a)?|beyond(?: a)?)(?: any)? (?:doubt|question)\b|\bnot only\b|\bno problem\b", " ", text
    )
    text = re.sub(r"\b(?:at first (?:glance|sight|look)|i first|first i)\b.*?(?:\bbut\b|[.;:])", " ", text)
    return re.sub(r"[^\S\n]+", " ", text).strip()


def _names(choices: Sequence[str], others: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns the legal answer of each word or phrase that names it."""
    plain = {_plain(choice): choice for choice in choices}
    names = dict(plain)
    for truth, lie in (("yes", "no"), ("true", "false")):
        if set(plain) == {truth, lie}:
            names |= dict.fromkeys((*_YES, *_TRUE), plain[truth]) | dict.fromkeys((*_NO, *_FALSE), plain[lie])
    for digit, word in enumerate(_NUMBERS):
        for said, other in ((str(digit), word), (word, str(digit))):
            if said in plain and other not in plain:
                names[other] = plain[said]
    for answer, words in others.items():
        if answer in plain:
            names |= {word: plain[answer] for word in words if word not in plain}
    if len(plain) > 2:
        names |= {f"{name}s": choice for name, choice in names.items() if name.isalpha() and f"{name}s" not in names}
    return names


class _Reader:
    """Reads replies to one question."""

    def __init__(self, names: Mapping[str, str], choices: Sequence[str]) -> None:
        self.names, self.choices = names, choices
        longest_first = sorted(names, key=len, reverse=True)
        self.word = rf"(?<![\w.])(?:{'|'.join(re.escape(name) for name in longest_first)})(?!\w)(?!\.\d)"

    def read(self, reply: str) -> str | None:
        """Returns the answer that a reply without reasoning gives."""
        for pattern in _FOR_PROGRAMS:
            if found := re.findall(pattern, reply, _FLAGS):
                return self._read_text(_plain(str(found[-1])))
        return self._read_text(_plain(reply))

    def _read_text(self, text: str) -> str | None:
        letter = {"y": "yes", "n": "no", "t": "true", "f": "false"}.get(text.strip(" .,!:'"))
        if letter is not None and letter in self.names:
            return self.names[letter]
        text = self._without_echo(text)
        only_names = re.fullmatch(rf"\W*(?:{self.word}\W*)+", text)
        if only_names and len({self.names[name] for name in re.findall(self.word, text)}) > 1:
            return None
        taken_back = list(re.finditer(_TAKEN_BACK, text))
        if taken_back and re.search(self.word, text[: taken_back[-1].start()]):
            text = text[taken_back[-1].end() :]
        for said in reversed(list(re.finditer(_SAID_LAST, text))):
            if re.search(rf"{_NEGATION}|\b(?:part|half) of\b", re.split(_RESTART, text[: said.start()])[-1]):
                continue
            sentence = re.split(r"[.;!?\n]", text[said.end() :].strip(" .,:-\n"), maxsplit=1)[0]
            sentence = re.sub(r"^\(?[a-j][).:]\s*", "", sentence)
            for part in (sentence, re.split(r",|\bbut\b|\balthough\b|\bbecause\b", sentence, maxsplit=1)[0]):
                if (answer := self._read_statement(part)) is not None:
                    return answer
        last = re.split(r"[!?\n:—–]\s*|\.(?!\d)\s*", text.rstrip(" .!?\n:"))[-1]
        alone = re.fullmatch(rf"\W*(?:{_FILLER}\W+)*({self.word})\W*", last)
        if alone and len({self.names[name] for name in re.findall(self.word, text)}) < len(re.findall(r"\w+", text)):
            return self.names[alone.group(1)]
        return self._read_statement(text)

    def _without_echo(self, text: str) -> str:
        """Returns text without all options in a row, and without questions where anything else is said."""
        mark = r"(?:\(?[a-j]\)\s*|[a-j][.:]\s*)"
        joint = rf"\s*(?:(?:,|/|\bor\b|\band\b|\n|,\s*or\b|,\s*and\b)\s*{mark}?|{mark})"

        def without(found: re.Match[str]) -> str:
            named = {self.names[name] for name in re.findall(self.word, found.group())}
            return " . " if named == set(self.choices) else found.group()

        text = re.sub(rf"{mark}?{self.word}(?:{joint}{self.word})+", without, text)
        answered = re.sub(r"[^.;!?\n]*\?", " ", text).strip()
        return answered if re.search(r"\w", answered) else text

    def _read_statement(self, text: str) -> str | None:
        yes_or_no = {_plain(choice) for choice in self.choices} == {"yes", "no"}
        if re.search(_NO_VERDICT, text):
            return None
        start = re.match(rf"\W*({self.word})", text)
        if start and self._is_verdict(text, start.start(1), start.end(1)):
            beside = re.match(rf"\W*{self.word}\s*(?:or|and|/|&)\s*(?:(?:an?|the) )?({self.word})", text)
            if beside and self.names[beside.group(1)] != self.names[start.group(1)]:
                return None
            if not _denied_after(text, start.end(1), start.group(1)):
                return self.names[start.group(1)]
        named, denied = self._named_and_denied(text)
        if len(named) == 1:
            return named.pop()
        left = set(self.choices) - denied
        if not named and denied and len(left) == 1:
            return left.pop()
        if yes_or_no and not named and not denied and not re.search(_UNSURE, text):
            if re.search(_SOFT_NO, text):
                return self.names["no"]
            if re.fullmatch(r"\W*i (?:\w+ly )?(?:think|believe|guess) so\W*", text):
                return self.names["yes"]
        return None

    def _named_and_denied(self, text: str) -> tuple[set[str], set[str]]:
        """Returns the answers that are named without denial, and those that are denied for certain."""
        named: set[str] = set()
        denied: set[str] = set()
        for found in re.finditer(self.word, text):
            if not self._is_verdict(text, found.start(), found.end()):
                continue
            how = _denial(text, found.start(), found.end(), found.group())
            if how is None:
                named.add(self.names[found.group()])
            elif how == "certain":
                denied.add(self.names[found.group()])
        return named, denied

    def _is_verdict(self, text: str, start: int, end: int) -> bool:
        """Returns whether a word is meant as an answer: "true art", "one thing", "a no parking sign" are not."""
        name, following = text[start:end], re.match(r"[ '-]*([a-z]+)", text[end:])
        after = following.group(1) if following else ""
        if name in _YES or name in _NO:
            before = re.search(r"(\w+)\W*$", re.split(r"[.,;:!?\n—–]", text[:start])[-1])
            said = before is None or before.group(1) in _BEFORE_YES_OR_NO
            of_a_noun = name in _NO and after and after not in _AFTER_PREDICATE
            return said and not (before is not None and of_a_noun and _is_determiner(text, start))
        if re.match(r" (?:means?|refers|would mean)\b", text[end:]):
            return False
        if name in (*_TRUE, *_FALSE, *_NUMBERS, "neutral"):
            return not after or after in _AFTER_PREDICATE
        return True


def _is_determiner(text: str, start: int) -> bool:
    verb = r"\b(?:is|are|was|were|has|have|had|see|sees|shows?|contains?|find|detect|with|a) $"
    return re.search(verb, text[:start]) is not None


def _denial(text: str, start: int, end: int, name: str) -> str | None:
    """Returns how what is named at text[start:end] is denied: None (not at all), "certain", or "unclear"."""
    before = re.split(_RESTART, text[:start])[-1]
    if name in (*_YES, *_NO):
        denial = r"(?:\bnot|n't|\bneither|\bnor|\bwrong to say|\bwrong to answer)(?: an?| the| simply)? ?'?$"
        return "certain" if re.search(denial, before) else None
    negations = list(re.finditer(_NEGATION, before))
    if negations:
        gap = set(re.findall(r"[\w']+", before[negations[-1].end() :]))
        certain = gap <= _CERTAIN_GAP or negations[-1].group() == "neither"
        return "certain" if certain and len(negations) % 2 else "unclear"
    if re.search(r"\bno (?:\w+ )?$", before):
        return "certain"
    return "unclear" if _denied_after(text, end, name) else None


def _denied_after(text: str, end: int, name: str) -> bool:
    """Returns whether what follows a name denies it: "cat is not the answer", "cat would be wrong"."""
    if name in (*_YES, *_NO):
        return False
    verb = r"(?:is|are|was|were|does|do|can|could|would|will|has|have|seems|appears)"
    wrong = r"(?:wrong|incorrect|false|untrue|ruled out|excluded|impossible|unlikely|out\b)"
    return re.match(rf"'?(?: \w+){{0,2}}? {verb}(?: be)?(?:n't\b| not\b| never\b| {wrong})", text[end:]) is not None
