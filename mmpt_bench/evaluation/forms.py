"""Prompt forms: several ways to ask a task's questions, in any order of the labels, with everything else as it is."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OPTIONS, EACH = "options", "each"
"""Names in braces that stand for the labels, and for what a form says of each of them."""


@dataclass(frozen=True)
class PromptForm:
    """One way to ask a task's questions.

    mb.PromptForm("{hypothesis} Is the statement {options}, given the image?")
    """

    ask: str
    """The question. `{options}` are the labels in the order asked for, "a, b or c"; `{each}` what `each` says of them,
    in that order; any other name in braces is a column of the row."""
    first: str = ""
    """What is asked before it, in the same conversation: the reply is free text."""
    each: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Label, as `options` writes it -> a sentence: "If the image proves it, answer entailment."."""
    options: tuple[str, ...] = ()
    """The labels as this form writes them, in its own order; empty: the sample's choices."""
    without: str = ""
    """What is taken out of the row's texts: how the benchmark's own question asks for an answer."""

    @property
    def names_labels(self) -> bool:
        """Returns whether the order of the labels changes what is asked."""
        return bool({OPTIONS, EACH} & (_names(self.ask) | _names(self.first)))

    def labels(self, choices: Sequence[str], order: int = 0, orders: int = 1) -> tuple[str, ...]:
        """Returns the labels in one of `orders` orders: rotations of the form's own, evenly spaced."""
        own = self.options or tuple(choices)
        shift = order * len(own) // orders
        return (*own[shift:], *own[:shift])

    def written(self, text: str, row: Mapping[str, Any], labels: Sequence[str]) -> str:
        """Returns `ask` or `first` with a row's columns and the labels filled in.

        Raises:
            ValueError: it names a column that the row lacks, or says nothing of a label.
        """
        names = _names(text)
        if EACH in names and (silent := [label for label in labels if label not in self.each]):
            raise ValueError(f"the form says nothing of the label `{silent[0]}`: add it to `each`")
        known = {name: self._stripped(row[name]) for name in names if name in row}
        known |= {OPTIONS: in_words(labels), EACH: " ".join(self.each.get(label, "") for label in labels)}
        if unknown := sorted(names - set(known)):
            raise ValueError(f"the form names `{unknown[0]}`, and the row has no such column")
        return text.format_map(known)

    def _stripped(self, value: Any) -> Any:
        return value.replace(self.without, "") if self.without and isinstance(value, str) else value


def in_words(labels: Sequence[str]) -> str:
    """Returns labels as a list in a sentence: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))


def _names(text: str) -> set[str]:
    """Returns the names in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
