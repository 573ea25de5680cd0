"""The wordings of the language: data, in sets that never meet.

`pretrain` is many ways to ask for each skill (`primer`, the first of each, is what it begins with), `tune` others, and
`validation` others again, since what is selected by it (learning rates) must hold beyond the wordings that were tuned
on. Those of dev and evaluation are in prompts.py. A test holds each set apart from the others. Fields in braces
are filled by language.py.
"""

from __future__ import annotations

from collections.abc import Sequence

Wordings = dict[str, Sequence[str]]

YES_NO: Wordings = {
    "pretrain": (
        "is it true that {claim} ?",
        "tell me if {claim} .",
        "do you see that {claim} ?",
        "can we say that {claim} ?",
        "{claim} , yes or no ?",
        "please say yes or no : {claim} .",
        "is this right : {claim} ?",
        "{claim} . is it so ?",
        "would it be right to say that {claim} ?",
        "does the picture show that {claim} ?",
        "i think {claim} . am i right ?",
        "{claim} , is that right ?",
        "say if this is so : {claim} .",
        "from what you see , {claim} ?",
        "is it correct or not that {claim} ?",
        "judge this : {claim} .",
        "according to the picture , {claim} ?",
        "verify that {claim} , please .",
    ),
    "tune": (
        "would you say that {claim} ? answer yes or no .",
        "{claim} . is that so ? yes or no .",
        "look at the image . do you think {claim} ?",
        "check this : {claim} . answer with yes or no .",
        "yes or no , please : {claim} ?",
        "is it so that {claim} ? a yes or no .",
        "{claim} : is it what the image shows ?",
        "i say that {claim} . is that right ?",
    ),
    "validation": (
        "{claim} , do you think so ?",
        "have a look at the photo and tell me , yes or no : {claim} ?",
        "is it right to think that {claim} ?",
    ),
}
"""Frames for any claim, to be answered by yes or no."""
DIRECT: dict[str, Wordings] = {
    "pretrain": {
        "existence": (
            "is {noun} in the picture ?",
            "is there {noun} ?",
            "is there {noun} to be seen ?",
            "does the picture show {noun} ?",
            "does the picture have {noun} in it ?",
            "do you find {noun} ?",
            "can one see {noun} ?",
            "{noun} , is it there ?",
            "do you see {noun} anywhere ?",
            "is {noun} visible to you ?",
            "would you find {noun} on a list of all you see ?",
            "can we see {noun} appear ?",
        ),
        "count": (
            "{counted} ?",
            "{counted} to be seen ?",
            "is the number of {refs} {n} ?",
            "do you count {n} {refs} ?",
            "is {n} how many {refs} we see ?",
            "do we see a total of {n} {refs} ?",
            "{counted} in total ?",
            "in the picture , {counted} ?",
            "is {n} the number of {refs} in the picture ?",
            "exactly {n} {refs} , is that correct ?",
            "altogether , do you count {n} {refs} ?",
        ),
        "color": (
            "is the {ref} {color} ?",
            "is {color} the color of the {ref} ?",
            "does the {ref} look {color} ?",
            "has the {ref} the color {color} ?",
            "the {ref} , is it {color} ?",
            "is it {color} , the {ref} in the picture ?",
            "in the picture the {ref} is {color} , is it ?",
            "does the {ref} in the picture have the color {color} ?",
            "is the {ref} you see {color} or not ?",
            "is the color of the {ref} in the picture {color} ?",
            "the {ref} appears {color} , does it ?",
            "is it correct that the {ref} is {color} ?",
        ),
        "location": (
            "is the {ref} in the {cell} ?",
            "do you find the {ref} in the {cell} ?",
            "is {cell} the place of the {ref} ?",
            "in the picture , is the {ref} in the {cell} ?",
            "is the {ref} found in the {cell} ?",
        ),
        "relation": (
            "is the {a} {word} the {b} ?",
            "does the {a} stand {word} the {b} ?",
            "the {a} , is it {word} the {b} ?",
            "in the picture , is the {a} {word} the {b} ?",
            "do you find the {a} {word} the {b} ?",
            "is the position of the {a} {word} the {b} ?",
            "the {a} appears {word} the {b} , does it ?",
        ),
        "text": (
            "does the text say {said} ?",
            'is the text " {said} " ?',
            "do you read {said} ?",
            "is {said} what the text says ?",
            'does it say " {said} " ?',
            'is it " {said} " that is written in the picture ?',
            "do the letters read {said} ?",
            "is {said} how you spell the text ?",
        ),
        "sum": (
            "is the sum {said} ?",
            "is {said} the sum ?",
            "does the sum make {said} ?",
            "is the answer to the sum {said} ?",
            "is {said} the answer to the arithmetic question ?",
            "does the sum in the picture make {said} ?",
            "the sum , is it {said} ?",
            "does the sum equal {said} ?",
            "is the correct result {said} ?",
        ),
        "big": ("is this {noun} ?", "is it {noun} that we see ?", "would you call this {noun} ?"),
    },
    "tune": {
        "existence": (
            "do you see {noun} in this image ?",
            "can you see {noun} ?",
            "is {noun} shown here ?",
            "does this image show {noun} ?",
        ),
        "count": ("do you see {n} {refs} here ?", "{counted} here ?", "does this image show {n} {refs} ?"),
        "color": (
            "do you see that the {ref} is {color} ?",
            "is it a {color} {ref} that you see ?",
            "would you call the {ref} {color} ?",
        ),
        "location": ("can you see the {ref} in the {cell} ?", "does the {cell} show the {ref} ?"),
        "relation": (
            "can you see the {a} {word} the {b} ?",
            "do you see the {a} {word} the {b} ?",
            "is it {word} the {b} that the {a} is ?",
        ),
        "text": ("can you read {said} in the image ?", 'does this image say " {said} " ?'),
        "sum": ("do you think the sum is {said} ?", "would you say that the sum is {said} ?"),
        "big": ("do you see {noun} here ?", "can we call this {noun} ?"),
    },
    "validation": {
        "existence": ("would you find {noun} here ?", "{noun} : do you see it in the photo ?"),
        "count": ("the number of {refs} here , is it {n} ?", "would you count {n} {refs} ?"),
        "color": ("you see the {ref} : does it have the color {color} ?", "{color} : is that the color of the {ref} ?"),
        "location": ("would you find the {ref} in the {cell} ?",),
        "relation": ("would you find the {a} {word} the {b} ?", "{word} the {b} , is the {a} there ?"),
        "text": ("would you read {said} here ?",),
        "sum": ("{said} : is that the answer to the sum ?",),
        "big": ("{noun} : is it that ?",),
    },
}
"""Questions of a skill that do not say which words may answer them."""
TRUE_FALSE: Wordings = {
    "pretrain": (
        "claim : {claim} . true or false ?",
        "{claim} . is the claim true or false ?",
        "true or false : {claim} .",
        "say true or false : {claim} .",
        "{claim} , true or false ?",
        "{claim} . true or false ?",
        "is it true or false that {claim} ?",
        "{claim} . say if that is true or false .",
        "here is a claim : {claim} . is that true or false ?",
        "is the claim that {claim} true or false ?",
        "verify : {claim} . true or false ?",
        "according to the picture , is it true or false that {claim} ?",
        "label this claim true or false : {claim} .",
    ),
    "tune": (
        "look and decide , true or false : {claim} .",
        "{claim} . decide if this statement is true or false .",
        "is this sentence true or false ? {claim} .",
        "i say : {claim} . true or false , please .",
        "here is a statement : {claim} . true or false ?",
        "does the image make it true or false that {claim} ?",
    ),
    "validation": (
        "{claim} . would you call that true or false ?",
        "tell me if this is true or false : {claim} .",
    ),
}
ENTAIL: Wordings = {
    "pretrain": (
        "claim : {claim} . entailment , neutral or contradiction ?",
        "does the picture show that {claim} ? say entailment , neutral or contradiction .",
        "{claim} . is this entailment , neutral or contradiction ?",
        "{claim} . entailment , neutral or contradiction ?",
        "is it entailment , neutral or contradiction that {claim} ?",
        "given the picture , {claim} . say if it is entailment , neutral or contradiction .",
        "judge : {claim} . entailment , neutral or contradiction ?",
        "label this claim entailment , neutral or contradiction : {claim} .",
        "hypothesis : {claim} . say which it is , entailment , neutral or contradiction .",
    ),
    "tune": (
        "read the claim and look : {claim} . entailment , neutral or contradiction .",
        "what is right for this claim , entailment , neutral or contradiction ? {claim} .",
        "{claim} . decide : entailment , neutral or contradiction .",
        "here is a statement : {claim} . entailment , neutral or contradiction ?",
        "given what the image shows , is it entailment , neutral or contradiction to say that {claim} ?",
    ),
    "validation": (
        "{claim} . would you call that entailment , neutral or contradiction ?",
        "look at the photo and name it , entailment , neutral or contradiction : {claim} .",
    ),
}
QUESTIONS: dict[str, Wordings] = {
    "pretrain": {
        "color": ("what color is the {ref} ?", "what is the color of the {ref} ?", "name the color of the {ref} ."),
        "location": ("where is the {ref} ?", "in which place is the {ref} ?", "say where the {ref} is ."),
        "at": ("what is in the {cell} ?", "name the object in the {cell} .", "which object is in the {cell} ?"),
        "count": ("how many {refs} are there ?", "count the {refs} .", "what is the number of {refs} ?"),
        "relation": ("where is the {a} from the {b} ?", "how does the {a} stand to the {b} ?"),
        "size": ("is the {ref} small or big ?", "what size is the {ref} ?"),
        "texture": ("what texture has the {ref} ?", "is the {ref} plain , striped or dotted ?"),
        "caption": ("describe the picture .", "what is in the picture ?", "name all objects ."),
        "text": ("what letters are in the picture ?", "read the text .", "what does the text say ?"),
        "sum": ("what is the sum ?", "do the sum in the picture .", "what is the answer to the sum ?"),
        "options": (
            "is it a {options} ?",
            "choose one : {options} .",
            "{options} , which one do you see ?",
            "what is it , {options} ?",
            "which of these is it : {options} ?",
            "the options are {options} . say the right one .",
            "pick one : {options} .",
            "select one of these : {options} .",
        ),
        "big": (
            "what is the big object ?",
            "name the shape .",
            "which shape is this ?",
            "what is the class of it ?",
            "identify the shape .",
        ),
        "digit": (
            "which digit is this ?",
            "what number is it ?",
            "read the number .",
            "name the digit .",
            "which digit do you see ?",
            "what digit is written in the picture ?",
            "identify the digit .",
            "classify the number .",
        ),
    },
    "tune": {
        "color": ("tell me the color of the {ref} .", "the {ref} has which color ?"),
        "location": ("tell me where the {ref} is .", "the {ref} is in which place ?"),
        "at": ("tell me which object the {cell} has .", "the {cell} shows what ?"),
        "count": ("tell me how many {refs} you see .", "say the number of {refs} in the image ."),
        "relation": ("tell me where the {a} is from the {b} .", "say how the {a} is placed , from the {b} ."),
        "size": ("tell me the size of the {ref} .", "say the size of the {ref} ."),
        "texture": ("tell me the texture of the {ref} .", "say the texture of the {ref} ."),
        "caption": ("tell me what you see .", "say all that the image shows ."),
        "text": ("tell me what the text says .", "say the letters in the image ."),
        "sum": ("tell me the answer to the sum .", "say what the sum is ."),
        "options": ("say which it is , {options} .", "look at it and decide : {options} ?"),
        "big": ("tell me which shape you see .", "the image shows which class of object ?"),
        "digit": ("tell me which digit you see .", "the image shows which number ?"),
    },
    "validation": {
        "color": ("which color do you see on the {ref} ?",),
        "location": ("which place is the {ref} in ?",),
        "at": ("which object do you find in the {cell} ?",),
        "count": ("in total , how many {refs} do you see ?",),
        "relation": ("from the {b} , where do you see the {a} ?",),
        "size": ("which size has the {ref} ?",),
        "texture": ("which texture do you see on the {ref} ?",),
        "caption": ("which objects do you see ?",),
        "text": ("which letters do you read ?",),
        "sum": ("which number is the answer to the sum ?",),
        "options": ("which one would you say it is , {options} ?",),
        "big": ("which shape would you say it is ?",),
        "digit": ("which number do you read here ?",),
    },
}
for _forms in (YES_NO, TRUE_FALSE, ENTAIL):
    _forms["primer"] = _forms["pretrain"][:1]
for _table in (DIRECT, QUESTIONS):
    _table["primer"] = {skill: forms[:1] for skill, forms in _table["pretrain"].items()}
SENTENCES = {
    "color": "the {ref} is {short} .",
    "location": "the {ref} is in the {short} .",
    "at": "in the {cell} is {short} .",
    "count": "there {counted} .",
    "relation": "the {a} is {short} the {b} .",
    "size": "the {ref} is {short} .",
    "texture": "the {ref} is {short} .",
    "caption": "{short} .",
    "text": "{short} .",
    "sum": "{short} .",
    "options": "{short} .",
    "big": "{short} .",
    "digit": "{short} .",
}
"""How pre-training answers, most of the time."""
SHORT_CUES = ("in short , ", "in a word : ", "answer with a word . ")
"""What tells the base, in pre-training, that the answer is to be a word."""
HEADS = ("look : ", "tell me : ", "have a look . ", "a question : ", "in what you see , ", "now , ")
"""What pre-training may put before a yes-or-no question."""
TAILS = (
    " yes or no ?",
    " say yes or no .",
    " a yes or a no will do .",
    " answer by yes or by no .",
    " which is it , yes or no ?",
)
"""What pre-training may put after one."""
SYNONYMS = ("image", "photo")
"""What pre-training now and then calls the picture."""
