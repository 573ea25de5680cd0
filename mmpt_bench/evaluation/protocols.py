"""Protocols of published papers: how M²PT, MixLoRA and MRT ask and read, as their authors' code has it.

Facts read in github.com/William-wAng618/M2PT and github.com/VT-NLP/MixLoRA (MRT: those of its text); no code is theirs.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmpt_bench.common.hashing import content_key, derive
from mmpt_bench.data.images import LazyImage
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.forms import PromptForm

_SYSTEM = (
    "A chat between a curious {who} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {who}'s questions."
)
TEMPLATES = {
    name: _SYSTEM.format(who=who) + " USER: {image}\n{prompt} ASSISTANT:"
    for name, who in (("vicuna_v1", "user"), ("llava_v1", "human"))
}
"""LLaVA's conversation templates of these names (haotian-liu/LLaVA, llava/conversation.py), with one image."""
TOP_K = 50
"""What `generate` of the authors' transformers samples from where nothing is said."""
MME = "mme"
POPE = ("pope_rand", "pope_pop", "pope_adv")
SEVEN: dict[str, tuple[str, ...]] = {
    "Text-VQA": ("text_vqa",),
    "VSR": ("visual_spatial_reasoning",),
    "SNLI-VE": ("snli_ve_classification",),
    "CIFAR-10": ("cifar_10",),
    "CIFAR-100": ("cifar_100",),
    "MNIST": ("mnist",),
    "POPE": POPE,
}
"""What MMAvg is the mean of, each with the files of its items, called as in the authors' code."""
FILES = (*(name for names in SEVEN.values() for name in names), MME)
SETS = (*SEVEN, "MME")


@dataclass(frozen=True)
class Protocol:
    """How a paper asks."""

    name: str
    mme_template: str
    template: str
    """Of all but MME."""
    mme_temperature: float
    temperature: float
    mme_new_tokens: int
    new_tokens: int

    def decoding(self, file: str, seed: int) -> dict[str, Any]:
        """Returns what decides the replies to a file of items beside the model: part of their key."""
        is_mme = file == MME
        return {
            "template": TEMPLATES[self.mme_template if is_mme else self.template],
            "temperature": self.mme_temperature if is_mme else self.temperature,
            "top_k": TOP_K,
            "new_tokens": self.mme_new_tokens if is_mme else self.new_tokens,
            "seed": seed,
        }


PROTOCOLS = {
    each.name: each
    for each in (
        Protocol("m2pt", "vicuna_v1", "llava_v1", 0.2, 0.2, 128, 50),
        Protocol("mixlora", "llava_v1", "llava_v1", 0.2, 0.2, 1024, 1024),
        Protocol("mrt", "vicuna_v1", "llava_v1", 0.4, 0.2, 8, 50),
    )
}


@dataclass(frozen=True)
class Item:
    """One question of a protocol, with the answer that is looked for."""

    id: str
    """`unique_id`, within its file."""
    image: LazyImage
    cluster: str
    """The image, by name: errors are taken over images."""
    prompt: str
    target: str
    group: str = ""
    """MME's subtask."""


def written(template: str, image: str, prompt: str) -> str:
    """Returns a whole prompt. "[Options]" is written without its brackets, as the authors' code does at the end."""
    return template.format(image=image, prompt=prompt).replace("[Options]", "Options")


def exact_match(reply: str, target: str) -> bool:
    """Returns whether a reply is its target: in any case, without outer blanks and full stops at the end."""
    return _plain(reply) == _plain(target)


def _plain(text: str) -> str:
    return text.strip(string.whitespace + ".").casefold()


def mmavg(accuracies: Mapping[str, Any]) -> Any | None:
    """Returns the mean over `SEVEN` of accuracies by file, each a number or an array; None where a file is missing.

    POPE counts once, as the mean of its three files.
    """
    if any(file not in accuracies for files in SEVEN.values() for file in files):
        return None
    return sum(sum(accuracies[file] for file in files) / len(files) for files in SEVEN.values()) / len(SEVEN)


_TWO, _THREE = ("yes", "no"), ("yes", "no", "not sure")
OWN: dict[str, tuple[str, str, PromptForm | None, Mapping[str, str]]] = {
    "visual_spatial_reasoning": (
        "vsr", "", PromptForm("{caption} Is this true of the image?\n\n[Options]: {options}", options=_TWO),
        {"true": "yes", "false": "no"},
    ),
    "snli_ve_classification": (
        "snli_ve", "", PromptForm("{hypothesis} Does the image show this?\n\n[Options]: {options}", options=_THREE),
        {"entailment": "yes", "contradiction": "no", "neutral": "not sure"},
    ),
    "cifar_10": ("cifar10", "", PromptForm("What is in the image?\n\n[Options]: {options}"), {}),
    "mnist": ("mnist", "", PromptForm("Which digit is in the image?\n\n[Options]: {options}"), {}),
    "pope_rand": ("pope", "random", None, {}),
    "pope_pop": ("pope", "popular", None, {}),
    "pope_adv": ("pope", "adversarial", None, {}),
    MME: ("mme", "", None, {}),
}  # fmt: skip
"""File -> (task, its group or all, how it is asked or as the task asks, answer of the task -> target): items for where
the authors' are not there. Text-VQA and CIFAR-100 are no tasks here."""


OPTIONS_HERE = "\x00"
"""Stands in a question for the options, until they are shuffled."""


def asked_as(file: str) -> PromptForm | None:
    """Returns the form that items are made of a task's rows in, its options left open; None for the task's own."""
    form = OWN[file][2]
    return None if form is None else replace(form, ask=form.ask.replace("{options}", OPTIONS_HERE))


def own_items(file: str, samples: Sequence[Sample]) -> list[Item]:
    """Returns items made of a task's samples, asked as `asked_as`; options are shuffled, each item's by its id."""
    _, group, form, targets = OWN[file]
    made = []
    for sample in samples:
        if group and sample.group != group:
            continue
        labels = list((form.options if form else ()) or sample.choices)
        labels.sort(key=lambda label: derive(0, f"{file}/{sample.id}/{label}"))
        prompt = sample.question.replace(OPTIONS_HERE, "||||".join(labels))
        target = targets.get(sample.answer, sample.answer)
        made.append(Item(sample.id, sample.image, sample.cluster, prompt, target, sample.group if file == MME else ""))
    return made


JUDGED = (
    "Question: {prompt}\nReference answer: {target}\nAnswer of a model: {reply}\n"
    "By the reference answer, is the model's answer right? Answer yes or no."
)
"""What a local judge is asked, with the item's image."""


def verdict_key(file: str, item: Item, reply: str) -> str:
    """Names a reply to an item, for verdicts: the same for every model that gave it."""
    return content_key([file, item.id, item.prompt, item.target, reply], 16)


def items_fingerprint(items: Sequence[Item], data: str) -> str:
    """Returns what names items by their content; `data` is the fingerprint of what they were read from."""
    return content_key([data, *([one.id, one.image.key, one.prompt, one.target, one.group] for one in items)])
