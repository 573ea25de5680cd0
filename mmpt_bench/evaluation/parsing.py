"""The published rules by which yes-or-no benchmarks read a reply, to the letter; a person's reading is in `replies.py`.

Each rule is written from its published description and proved against what the published tool makes of 2,091 replies
(tests/evaluation/test_metrics.py); `mme_m2pt` against the scores that it gives on published replies. None means that
the rule reads no answer; it is scored as wrong, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mmpt_bench.common.errors import unknown_name
from mmpt_bench.evaluation.replies import Parse


def mme_official(reply: str) -> str | None:
    """Returns "yes" or "no" by MME's own tool: the first four characters hold "yes", else "no" (eval_tool.zip)."""
    return _yes_before_no(reply.lower()[:4])


def mme_lmms(reply: str) -> str | None:
    """Returns "yes" or "no" as lmms-eval scores MME: outer blanks and full stops go first; a lone y or n counts."""
    text = reply.lower().strip().replace(".", "")
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text)
    return _yes_before_no(text[:4])


def mme_m2pt(reply: str) -> str | None:
    """Returns "yes" or "no" as M²PT's pipeline reads MME: "yes" anywhere in the reply, else "no" anywhere.

    Anywhere in the text, within words too: "unknown" is no, "eyes" is yes.
    """
    return _yes_before_no(reply.lower())


def pope_official(reply: str) -> str | None:
    """Returns "yes" or "no" by POPE's own tool, which always reads one: an empty reply is "yes".

    The text before the first full stop, without its commas, is cut at blanks; a word "No", "not" or "no" means no.
    """
    words = reply.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def pope_lmms(reply: str) -> str | None:
    """Returns "yes" or "no" as lmms-eval scores POPE: the whole reply, lower-cased and stripped, must be that word."""
    text = reply.lower().strip()
    return text if text in ("yes", "no") else None


def yorn_vlmeval(reply: str) -> str | None:
    """Returns "yes" or "no" as VLMEvalKit does without a judge: exactly one of the two is among the words."""
    found = {"yes", "no"}.intersection(_without_punctuation(reply.lower()).split())
    return found.pop() if len(found) == 1 else None


YES_NO_RULES: dict[str, Callable[[str], str | None]] = {
    rule.__name__: rule for rule in (mme_official, mme_lmms, mme_m2pt, pope_official, pope_lmms, yorn_vlmeval)
}
"""The published rules by name."""


def yes_no(rule: str) -> Parse:
    """Returns the parse function of a named rule, which answers in a sample's own spelling ("Yes", "yes").

    Raises:
        RequestError: there is no such rule.
    """
    if rule not in YES_NO_RULES:
        raise unknown_name("parse rule", rule, YES_NO_RULES)
    read = YES_NO_RULES[rule]

    def parse(reply: str, choices: Sequence[str]) -> str | None:
        answer = read(reply)
        return next((choice for choice in choices if choice.lower() == answer), None)

    return parse


def _yes_before_no(text: str) -> str | None:
    return "yes" if "yes" in text else "no" if "no" in text else None


def _without_punctuation(text: str) -> str:
    """Returns text without punctuation by the VQA evaluation's rule, which VLMEvalKit uses.

    A mark beside a blank anywhere in the text is deleted, else it becomes a blank; a comma between two digits makes
    all marks be deleted; the first 32 full stops that touch no digit go (the published code passes `re.UNICODE`,
    which is 32, where the count stands).
    """
    deletes_all = re.search(r"\d,\d", text) is not None
    cleaned = text
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        beside_blank = mark + " " in text or " " + mark in text
        cleaned = cleaned.replace(mark, "" if beside_blank or deletes_all else " ")
    return re.sub(r"(?<!\d)\.(?!\d)", "", cleaned, count=32)
