"""The wordings of dev, of evaluation and of training splits: data, as wordings.py is, in the words of the benchmarks.

Each task has three wordings on dev and four others on evaluation, and none of them is asked in pre-training, tuning or
validation (a test holds it). An image is asked in one of them, in turn, so that wordings can be resampled beside
images. A task's training split is asked in the words of the tuning mixture ("tune"). Fields in braces are filled by
suite.py, and by the task files where the prompt is the task's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpt_bench.embedded import wordings
from mmpt_bench.evaluation.forms import PromptForm

YES_OR_NO = " Please answer yes or no."
"""How every question of MME ends."""
MME: dict[str, dict[str, Sequence[str]]] = {
    "dev": {
        "existence": (
            "Does {noun} appear in this image?",
            "Is {noun} part of what this image contains?",
            "Would you list {noun} for this image?",
        ),
        "count": (
            "Does this image have exactly {n} {refs}?",
            "Would {n} be the correct number of {refs}?",
            "{verb} exactly {n} {refs} in this image?",
        ),
        "position": (
            "Has the {a} its place {word} the {b}?",
            "In this image, would you place the {a} {word} the {b}?",
            "Is it correct that the {a} stands {word} the {b}?",
        ),
        "color": (
            "Would {color} be the correct color of the {ref}?",
            "In this image, has the {ref} got the color {color}?",
            "Is it correct to call the {ref} {color}?",
        ),
        "OCR": (
            'Would you spell the text "{said}"?',
            'Is it correct that the text reads "{said}"?',
            'Do the letters of this image spell "{said}"?',
        ),
        "numerical_calculation": (
            "Is the result of the sum {said}?",
            "Would {said} be the correct answer to the sum?",
            "Is it correct that the sum equals {said}?",
        ),
    },
    "evaluation": {
        "existence": (
            "Is there {noun} in this image?",
            "Does this image contain {noun}?",
            "Can {noun} be found in this image?",
            "Is {noun} among the things in this image?",
        ),
        "count": (
            "{verb} there a total of {n} {refs} in the image?",
            "Does the image contain {n} {refs} altogether?",
            "Is {n} the correct count of {refs} for this image?",
            "Altogether, can {n} {refs} be found in this image?",
        ),
        "position": (
            "Is the {a} {word} the {b} in this image?",
            "Can the {a} be found {word} the {b} in this image?",
            "Concerning position: is the {a} {word} the {b}?",
            "Does the {a} appear {word} the {b} in this image?",
        ),
        "color": (
            "Is the {ref} in this image {color}?",
            "Does the {ref} in this image appear {color}?",
            "Is {color} the correct color for the {ref}?",
            "Concerning the {ref}, can it be called {color}?",
        ),
        "OCR": (
            'Is the text in this image "{said}"?',
            'Does the text in this image read "{said}"?',
            'Are the letters in this image "{said}"?',
            'Is "{said}" the correct reading of this image?',
        ),
        "numerical_calculation": (
            "Is the answer to the arithmetic question in the image {said}?",
            "Does the arithmetic question in the image equal {said}?",
            "Is {said} the correct result of the sum in the image?",
            "Should the arithmetic question be answered with {said}?",
        ),
    },
}
"""By subtask."""
_TUNED = wordings.DIRECT["tune"]
MME["tune"] = {
    "existence": _TUNED["existence"],
    "count": [text for text in _TUNED["count"] if "{counted}" not in text],
    "position": _TUNED["relation"],
    "color": _TUNED["color"],
    "OCR": _TUNED["text"],
    "numerical_calculation": _TUNED["sum"],
}
WHOLE: dict[str, dict[str, Sequence[str]]] = {
    "dev": {
        "pope": (
            "Is {noun} visible in the image?",
            "Does {noun} appear anywhere in the image?",
            "Has the image got {noun} in it?",
        ),
        "vsr": (
            "{caption} According to the image, is it true or is it false?",
            "Answer true or false about the image: {caption}",
            "Verify the sentence, true or false: {caption}",
        ),
        "snli_ve": (
            "According to the image, entailment, neutral or contradiction: {hypothesis}",
            "{hypothesis} Verify it with the image and answer entailment, neutral or contradiction.",
            "Is the sentence entailment, neutral or contradiction for this image? {hypothesis}",
        ),
        "cifar10": (
            "From {all_but_last} or {last}, select what the image contains.",
            "What is the correct category, {all_but_last} or {last}?",
            "Which label fits the image: {all_but_last} or {last}?",
        ),
        "mnist": (
            "Which digit was drawn in this image?",
            "Select the digit that fits the image.",
            "What is the correct label of this handwritten digit?",
        ),
    },
    "evaluation": {
        "pope": (
            "Is there {noun} in the image?",
            "Does the image contain {noun}?",
            "Can {noun} be found anywhere in the image?",
            "Is {noun} present in the image?",
        ),
        "vsr": (
            "{caption} Is the statement true or false?",
            "Given the image, is this statement true or false? {caption}",
            "Decide whether the image makes this true or false: {caption}",
            "{caption} Judge the sentence: true or false?",
        ),
        "snli_ve": (
            "{hypothesis} Is the statement entailment, neutral or contradiction, given the image?",
            "Given the image, which is it: entailment, neutral or contradiction? {hypothesis}",
            "Judge the hypothesis against the image: {hypothesis} Entailment, neutral or contradiction?",
            "Hypothesis: {hypothesis} Label it entailment, neutral or contradiction.",
        ),
        "cifar10": (
            "Which of these is in the image: {all_but_last} or {last}?",
            "Classify the image. The options are {all_but_last} or {last}.",
            "Pick the category that fits the image: {all_but_last} or {last}.",
            "The image contains one of these, {all_but_last} or {last}. Which?",
        ),
        "mnist": (
            "Which digit is in the image?",
            "Classify the handwritten digit in the image.",
            "What digit does this image contain?",
            "Identify the number in the image, from 0 to 9.",
        ),
    },
}
"""By task; of MME, see above."""
WHOLE["tune"] = {
    "pope": _TUNED["existence"],
    "vsr": [text.replace("{claim} .", "{caption}") for text in wordings.TRUE_FALSE["tune"] if "{claim} ." in text],
    "snli_ve": [text.replace("{claim} .", "{hypothesis}") for text in wordings.ENTAIL["tune"] if "{claim} ." in text],
    "cifar10": [
        text.replace("{options}", "{all_but_last} or {last}") for text in wordings.QUESTIONS["tune"]["options"]
    ],
    "mnist": wordings.QUESTIONS["tune"]["digit"],
}

_TRUE_FALSE, _YES_NO = ("true", "false"), ("yes", "no")
_IF_YES = {"yes": "If it is so, say yes.", "no": "If it is not so, say no."}
FORMS: dict[str, dict[str, PromptForm]] = {
    "snli_ve": {
        "plain": PromptForm("{hypothesis} Is the statement {options}, given the image?"),
        "options-first": PromptForm("{options}: which is right, given the image? {hypothesis}"),
        "no-options": PromptForm("{hypothesis} Judge the statement, given the image."),
        "if-then": PromptForm(
            "{each} {hypothesis}",
            each={
                "entailment": "If the statement is right, say entailment.",
                "neutral": "If it is not right and not wrong, say neutral.",
                "contradiction": "If the statement is wrong, say contradiction.",
            },
        ),
    },
    "vsr": {
        "plain": PromptForm("{caption} Is the statement {options}?", options=_TRUE_FALSE),
        "options-first": PromptForm("{options}: which is right, given the image? {caption}", options=_TRUE_FALSE),
        "no-options": PromptForm("{caption} Judge the statement, given the image."),
        "if-then": PromptForm(
            "{each} {caption}",
            each={"true": "If the statement is right, say true.", "false": "If the statement is wrong, say false."},
            options=_TRUE_FALSE,
        ),
    },
    "mme": {
        "plain": PromptForm("{question} Please answer {options}.", options=_YES_NO, without=YES_OR_NO),
        "options-first": PromptForm("{options}: {question}", options=_YES_NO, without=YES_OR_NO),
        "no-options": PromptForm("{question}", without=YES_OR_NO),
        "if-then": PromptForm("{each} {question}", each=_IF_YES, options=_YES_NO, without=YES_OR_NO),
    },
    "pope": {
        "plain": PromptForm("{question}"),
        "options": PromptForm("{question} Please answer {options}.", options=_YES_NO),
        "options-first": PromptForm("{options}: {question}", options=_YES_NO),
        "if-then": PromptForm("{each} {question}", each=_IF_YES, options=_YES_NO),
    },
    "cifar10": {
        "plain": PromptForm("Which of these is in the image: {options}?"),
        "options-first": PromptForm("{options}: which of these is in the image?"),
        "no-options": PromptForm("Which object is in the image?"),
    },
    "mnist": {
        "plain": PromptForm("Which digit is in the image?"),
        "options": PromptForm("Which digit is in the image: {options}?"),
        "options-first": PromptForm("{options}: which digit is in the image?"),
    },
}
"""Forms of prompts by task, in words of the vocabulary; none generates free text, which the model cannot write."""
