"""The words and patterns by which replies are read: yes and no, denials, asides."""

import re

TAG = r"(?:think|thinking|thoughts?|reasoning|reason|reflection|scratchpad|analysis)"
OPEN = rf"(?:<\|?(?:begin_of_)?{TAG}\|?>|\[{TAG}\]|◁{TAG}▷|<\|channel\|>analysis<\|message\|>)"
CLOSE = rf"(?:<\|?(?:/|end_of_){TAG}\|?>|\[/{TAG}\]|◁/{TAG}▷|<\|channel\|>final<\|message\|>)"
FLAGS = re.IGNORECASE | re.DOTALL
NEXT_TURN = (
    r"(?:<\|im_start\|>\s*user\b|<\|start_header_id\|>\s*user\b|<start_of_turn>\s*user\b|<\|user\|>|\[INST\]"
    r"|<\|(?:endoftext|im_end|eot_id|end_of_text|end)\|>|<(?:end_of_turn|end_of_utterance|eos)>"
    r"|(?:^|\n)\s*(?:#{2,3}\s*)?(?:[Uu]ser|[Hh]uman|Question|Instruction|Q) ?:|\b(?:USER|HUMAN) ?:)"
)
"""Where a reply ends, or a model goes on with a turn of the user's, in the marks of chat templates."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


YES = ("yes", "yess", "yeah", "yep", "yup")
NO = ("no", "nope", "nah")
TRUE = ("true", "correct", "accurate")
FALSE = ("false", "incorrect", "untrue", "inaccurate")
ELSEWHERE = {
    "yes": _words("是 是的 有 有的 对 对的 正确 真 存在 はい 네 예 да sí si oui ja sim sì vrai wahr verdadero vero"),
    "no": _words(
        "否 不 不是 没有 没 无 不对 错 错误 不正确 假 不存在 いいえ 아니요 아니오 нет"
        " non nein nee não nej faux falsch falso"
    ),
}
"""Yes and no in other languages; read where a reply begins with one."""
_SAID = r"(?:(?:the |this |that )?(?:statement|sentence|caption|claim|description|that|this)(?:'s| is))"
AT_THE_START = {
    "true": rf"(?:{_SAID}|you're|you are)?(?: ?exactly| ?absolutely)? ?right(?= ?[.,!:;]|$)",
    "false": rf"{_SAID}? ?(?:not (?:quite )?right|(?:plainly |simply )?wrong)(?= ?[.,!:;]|$)"
    r"|(?:the |this |that )?(?:statement|sentence|caption|claim|description|that|this) isn't right(?= ?[.,!:;]|$)",
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

FOR_PROGRAMS = (
    r"<answer>(.*?)(?:</answer>|$)",
    r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}",
    r"""["'](?:(?:final|predicted)[ _])?(?:answer|label|prediction|response|result|choice|class|category|digit"""
    r"""|verdict|relation)["']\s*[:=]\s*("[^"]*"?|'[^']*'?|[\w ]+)""",
)
NEGATION = (
    r"(?:\bnot\b|n't\b|\bcannot\b|\bnever\b|\bneither\b|\brather than\b|\binstead of\b|\bas opposed to\b"
    r"|\bother than\b|\bexcept\b|\bunlike\b|\bwithout\b|\brul(?:es?|ed|ing) out\b|\bexclud(?:es?|ed|ing)\b"
    r"|\babsence of\b|\bhardly\b|\bdoubt\b|\bno longer\b|\bfar from\b|\banything but\b|\bnon\b"
    r"|\b(?:wrong|incorrect) (?:answer|choice|option|label|class)\b|\b(?:wrong|false|incorrect) to\b|\bless likely\b"
    r"|\b(?:more|closer|nearer|better)\b[^.,;!?\n]*\bthan\b(?! not\b)(?: (?:to|like)\b)?)"
)
CERTAIN_GAP = _words(
    "think believe say see that this it the a an statement sentence caption claim description answer is be was to"
    " really entirely quite completely fully strictly actually necessarily exactly would so very appear appears seem"
    " seems look looks likely always simply just considered as in fact call either"
)
"""Words that may stand between a negation and what it denies for certain: "do not think that this is true"."""
WHOLLY = _words("entirely quite completely fully strictly")
"""Of these, not before "false": what is not entirely false is not true."""
AFTER_PREDICATE = _words(
    "that because since as for given based here in on at when if and but or so due with from according too though"
    " although while statement sentence claim caption description relation relationship label digit number instead"
    " indeed overall depending then would is was not by after all again nor rather than"
)
"""Words that may follow "true", "neutral" or "seven" where it is a verdict; "true art" and "one thing" are none."""
AFTER_LETTER = AFTER_PREDICATE | _words(
    "is has matches fits shows seems looks answers describes can could will must should"
)
"""Words that may follow "A" or "I" where it is an option; "a dog" and "I see" are none."""
COUNTED = _words("digit digits number numbers stroke strokes loop loops")
"""Nouns before which a number is no answer."""
CONFIDENCE = r"\b(?:confidence|certainty|score|probability|rating)\b(?: (?:is|of|level))*[\s:=]*$"
"""Stands before a number that is no answer."""
BEFORE_YES_OR_NO = _words(
    "so but and or then is are was were be say said answer therefore thus hence has have had see sees shows show with"
    " contains contain find detect definitely probably certainly absolutely clearly simply likely maybe perhaps just"
    " oh well hmm um hell option a with actually that not towards toward rather neither nor otherwise"
)
UNSURE = (
    r"(?:(?:not|n't)(?: \w+)? (?:sure|certain|clear|possible|able|know|tell|determine|say|enough|have access)"
    r"|cannot (?:be )?\w*(?:tell|determin|say|see clearly|identif|answer|verif|confirm)|unable to|unclear|unsure"
    r"|uncertain|unknown|(?:hard|difficult|impossible) to|not enough|no way to|as an ai\b|language model)"
)
NO_VERDICT = (
    r"(?:\bno (?:image|picture|photo|file)s? (?:\w+ ){0,3}(?:provided|attached|given|uploaded|included|available)\b"
    r"|\bno (?:way to|information|context|details?|idea|clue|data|answer)\b|^\W*(?:none|null|nan|n/a)\W*$"
    r"|\b(?:see|have|find|received?) no (?:image|picture|photo)\b"
    r"|\bif\b[^.;!?\n]*\b(?:otherwise|else) (?:it's )?(?:yes|no)\b"
    r"|\bi can help\b|\bi (?:can't|cannot|am unable to|'m unable to) (?:help|assist|identify)\b"
    r"|\bplease (?:upload|share|provide|attach)\b)"
)
DENIED_BEFORE = (
    r"(?:(?:\bnot|n't|\bcannot)(?: answer| reply)?|\bneither|\bnor"
    r"|(?:\bwrong|\bincorrect|(?:\bnot|n't) (?:correct|right|true|accurate|possible)) to (?:say|answer|reply|claim))"
)
DENIED_AFTER = (
    r"'?(?:(?: is| was| would be)(?: \w+ly)?(?: the| an?)? (?:wrong|incorrect)\b"
    r"| (?:is not|isn't|would not be|wouldn't be)(?: the| an?)?(?: right| correct)?(?: answer| reply|(?= ?[.,!;]|$)))"
)
"""What is said before or after a yes or a no that is denied: "it is wrong to answer yes", "yes is not the answer"."""
SOFT_YES = (
    r"\W*(?:i (?:\w+ly )?(?:think|believe|guess) so|certainly|absolutely|definitely|of course|sure|surely|indeed)\W*"
)
SOFT_NO = (
    r"(?:^(?:\w+ly |of course )?not\b"
    r"|\b(?:is|are|was|were)(?:n't| not)\b|\b(?:do|does|did|can|could)(?:n't| not) (?:\w+ly )?"
    r"(?:see|contain|show|have|appear|depict|include|find|detect|observe|look|seem|think so|believe so)\b"
    r"|\bcannot (?:see|find|detect)\b|\bnone\b|\bnothing (?:like|of|such)\b|\bnobody\b|\babsent\b|^neither\b"
    r"|\b(?:is|are|was|were|see|sees|has|have|had|contains?|shows?|find|detect) no\b)"
)
SAID_LAST = (
    r"(?:\b(?:answer|verdict|conclusion|prediction|label|relation(?:ship)?|option|choice|digit|class|category|number"
    r"|statement|sentence|caption|claim|description)(?: ?\([^)]*\))?"
    r"(?: to (?:the|this|your) question| (?:here|would|should|must|shown|that fits))*"
    r"(?:'s|\s*(?:\b(?:is|be)\b|[:=]|->))+"
    r"|\b(?:selected|chosen)\s*:|\bone that fits is\b|\b(?:most likely|best guess(?: is)?|in fact)\b"
    r"|\b(?:therefore|thus|hence|in conclusion|to conclude|in summary|overall)\b)"
)
TAKEN_BACK = (
    r"(?:\b(?:no,? )?wait\s*[,.!:-]|\bcorrection\b|\bsorry\b|\bscratch that\b|\bi mean\b|\bi meant\b|\bmisread\b"
    r"|\bon second (?:thoughts?|look)\b|\blooking again\b|\blet me correct\b|\bon reflection\b|\bactually,"
    r"|\bhold on\b|\bhmm\W+actually\b)"
)
TENTATIVE = (
    r"(?:\b(?:might|may|could)(?: also| even| well| perhaps)? (?:be|have been|look|seem|think|say)\b|\bpossibly\b"
    r"|\bresembl(?:es?|ing)\b|\bpart(?:ly|ially)\b|\bhalf\b)"
)
ASIDE = (
    r"\b(?:at first|initially)\b.*?(?:\bbut\b|\bhowever\b|[.;:])",
    r"\b(?:i first|first i)\b.*?(?:\bbut\b|[.;:])",
    r"(?:^|(?<=[.;!?\n] ))(?:although|though|while|even though|even if)\b[^.;,!?\n]*,",
    r"\b(?:al)?though (?:it|this|that|they) (?:could|might|may|looks?|resembles?|seems?)\b[^.;!?\n]*",
    r"\b(?:the )?other (?:options|choices|classes|labels|answers)\b[^.;!?\n]*",
    r"(?:^|(?<=[.;!?\n]))\s*(?:let me know|would you like|feel free|please let|if you(?:'d| would) like)\b"
    r"[^.;!?\n]*",
)
"""What is said beside the answer: first impressions, concessions, offers to go on."""
_IF = (
    r"(?:if|unless|provided|assuming|supposing|had(?= (?:it|the|there|this|that|he|she|they)\b))"
    r"(?! (?:i|i'm|i've|pressed|forced|asked|anything|so|not)\b)\b"
)
CONDITIONS = (
    rf"\b{_IF}[^.;!?\n]*?\b(?:would|could|might)(?:n't)?\b[^.;,!?\n]*",
    r"(?:^|(?<=[.;!?\n]))\s*(?:had|were|should) [^.;!?\n]*?\b(?:would|could|might)\b[^.;,!?\n]*",
    rf"\b(?:would|could|might)(?: only| also| then| even)? (?:be|have been|hold|apply|fit)\b[^.;,!?\n]*?,? ?\b{_IF}"
    r"[^.;,!?\n]*",
    rf"\b(?:only be |only )?(?:{'|'.join((*TRUE, *FALSE))}),? (?:only |just )?(?:if|when|provided|unless)"
    r" (?:an?|the|this|that|it|there|he|she|they|we|one|someone|all|any|his|her|its)\b[^.;,!?\n]*",
    r"\b[a-z]+ only (?:if|when|where) (?!i\b)[^.;,!?\n]*",
)
"""What is said under a condition, of which nobody says that it holds: "it would be true if the cat were here"."""
ALSO_DENIED = (
    r"\W*(?:too|as well|also|likewise|either|neither|similarly)\b",
    r"(?:\b(?:so|neither|nor|as) (?:is|does|are|can)|\bsame (?:goes|holds|is true|applies) (?:for|to)|\bditto"
    r"|\blikewise|\balso|\bsimilarly),? (?:an? |the |for )?$",
    r"(?:ruled out|excluded|rejected|eliminated|dismissed|wrong|incorrect|impossible|unlikely|\bnot\b|n't\b)",
)
"""What stands after a name, or before it, where the denial of another name is taken up again; and what denies."""
DENIED_LIST = (
    r"\b(?:ruled out|excluded|rejected|eliminated|dismissed|discarded|impossible|not|(?:wrong|incorrect)(?: \w+)?"
    r"|alternatives?(?: \w+)?|runner up|background|top [2-9]"
    r"|(?:second|next|other|another|also)(?: (?:best|choice|guess|option|possib\w+|candidate|answer|label|likely))+"
    r")\s*:[^.;!?\n]*$"
)
"""Stands before names that are not the answer: "Ruled out: entailment, contradiction", "Second guess: deer"."""
RESTART = (
    r"(?:[.;!?\n:()]|(?<!anything )\bbut\b|\byet\b"
    r"|(?:,|\s-+|—|–)\s*(?:it's|its|it is|this is|that is|they are|there (?:is|are)|so\b"
    r"|therefore|thus|hence|which|rather|instead|i think|i see|i believe|i'd say|my answer|the answer))"
)
FILLER = r"(?:so|it's|it is|this is|that is|that's|hence|a|an|the|just|simply|clearly|must be|is|my answer|final)"
