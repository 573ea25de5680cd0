"""Proof that the parts of a family's models are where they were found: a stranger's `--family` file passes it too."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from mmpt_bench.common.checking import CheckResult, outcome, require
from mmpt_bench.common.errors import RequestError
from mmpt_bench.engine.adapters.trial import (
    NEW_TOKENS,
    QUESTIONS,
    answers_shared_and_alone,
    batch_of,
    noise_pictures,
    replies,
)
from mmpt_bench.engine.models.backbone import Backbone, load_backbone
from mmpt_bench.engine.prompts.hooks import attach_prompts
from mmpt_bench.engine.prompts.plan import PromptPlan

PLANS = {
    "visual prompts": PromptPlan(visual=4),
    "visual prompts that enter the decoder": PromptPlan(visual=4, interaction="output"),
    "textual prompts": PromptPlan(text=3),
    "a key-value prefix": PromptPlan(keys=3),
}


def check_backbone(name: str) -> list[CheckResult]:
    """Returns what `check_family` does of a backbone's folder."""
    return check_family(load_backbone(name))


def check_family(backbone: Backbone) -> list[CheckResult]:
    """Returns what the anatomy of a small backbone passes; the backbone stays as it is."""
    checks: dict[str, Any] = {
        "exactly the vision weights that are read get a gradient": _reached,
        "answers do not depend on batch, padding or cache": _in_any_batch,
        "questions that share an image are answered as when asked alone": answers_shared_and_alone,
    }
    checks |= {f"answers do not depend on the batch with {name}": plan for name, plan in PLANS.items()}
    results = []
    for name, check in checks.items():
        own = dataclasses.replace(backbone, model=copy.deepcopy(backbone.model))
        if isinstance(check, PromptPlan):
            results.append(outcome(name, lambda check=check, own=own: _with_prompts(own, check)))  # type: ignore[misc]
        else:
            results.append(outcome(name, lambda check=check, own=own: check(own)))  # type: ignore[misc]
    return results


def _reached(backbone: Backbone) -> str:
    model, anatomy = backbone.model, backbone.anatomy
    with backbone.computing():
        model.requires_grad_(True)(**batch_of(backbone)).loss.backward()
    named = {name: p for name, p in model.named_parameters() if name.startswith(f"{anatomy.vision}.")}
    found = {name for name, p in named.items() if p.grad is not None and not name.startswith(f"{anatomy.projector}.")}
    differing = sorted(found ^ set(anatomy.vision_used_names))
    require(not differing, f"{len(differing)} parameters differ, first `{differing[0] if differing else ''}`")
    projector = model.get_submodule(anatomy.projector)
    require(any(p.grad is not None for p in projector.parameters()), f"`{anatomy.projector}` gets no gradient")
    return f"{len(found)} parameters of `{anatomy.vision}`, and `{anatomy.projector}`"


def _in_any_batch(backbone: Backbone) -> str:
    pictures, prompts = noise_pictures(backbone), [backbone.prompt_text(question) for question in QUESTIONS]
    together = replies(backbone, pictures, prompts)
    alone = [replies(backbone, [picture], [text])[0] for picture, text in zip(pictures, prompts, strict=True)]
    require(together == alone, "a left-padded batch answers otherwise than its examples one by one")
    uncached = replies(backbone, pictures, prompts, use_cache=False)
    require(together == uncached, "answers with and without a cache differ")
    return f"{len(alone)} replies of {NEW_TOKENS} tokens agree"


def _with_prompts(backbone: Backbone, plan: PromptPlan) -> str:
    try:
        attachment = attach_prompts(backbone, plan, 0)
    except RequestError as error:
        return f"not applicable: {error}"
    try:
        return _in_any_batch(backbone)
    finally:
        attachment.remove()
