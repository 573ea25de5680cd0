"""Proof that a method is one: an outsider's file passes these checks or learns which one it fails.

The checks run on copies of a small backbone.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmpt_bench.common.checking import CheckResult, outcome, require
from mmpt_bench.common.errors import RunFailed
from mmpt_bench.common.hashing import canonical_json
from mmpt_bench.engine.adapters.saved import CONFIG_FILE, TENSOR_FILE, read_adapter
from mmpt_bench.engine.adapters.trial import (
    NEW_TOKENS,
    QUESTIONS,
    answers_shared_and_alone,
    attached,
    logits_of,
    noise_pictures,
    replies,
    snapshot,
    train_as_run,
    train_briefly,
)
from mmpt_bench.engine.models.backbone import Backbone
from mmpt_bench.engine.training.reached import LEAST

UNTRAINED = "not applicable: the method trains nothing"


def check_method(method_class: type, backbone: Backbone) -> list[CheckResult]:
    """Returns what a method with its default hyperparameters passes on a backbone, which stays as it is.

    Every check works on a copy of the model, so a method that does not clean up spoils no other check.
    """
    results = [outcome("the class has the interface of an adapter", lambda: _interface(method_class))]
    if not results[0].ok:
        return results
    method = method_class()
    for name, check in _METHOD_CHECKS.items():
        own = dataclasses.replace(backbone, model=copy.deepcopy(backbone.model))
        results.append(outcome(name, lambda check=check, own=own: check(method, own)))  # type: ignore[misc]
    return results


def _interface(method_class: type) -> str:
    named = {f.name for f in dataclasses.fields(method_class)} if dataclasses.is_dataclass(method_class) else set()
    require(bool(named), "it is not a dataclass")
    require(method_class.__dataclass_params__.frozen, "the dataclass is not frozen")  # type: ignore[attr-defined]
    require({"learning_rate", "train_projector"} <= named, "`learning_rate` and `train_projector` must be fields")
    method: Any = method_class()
    require(bool(re.fullmatch(r"[a-z_][a-z0-9_-]*", method.name)), f"`{method.name}` is no name for a method")
    require(bool(re.fullmatch(r"#[0-9A-Fa-f]{6}", method.color)), f"`{method.color}` is no colour such as #0072B2")
    low, high = method.lr_range
    require(low <= method.learning_rate <= high, f"learning rate {method.learning_rate} is outside {low} to {high}")
    values = json.loads(canonical_json(dataclasses.asdict(method)))
    require(method_class(**values) == method, "its hyperparameters do not survive JSON")
    return f"{len(named)} hyperparameters"


def _count(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle:
        built = handle.size
        open_ids = {id(p) for p in backbone.model.parameters() if p.requires_grad}
        require(open_ids == {id(p) for p in handle.trainable.values()}, "`trainable` is not what requires a gradient")
    closed = method.count(backbone.anatomy)
    require(built == closed, f"`count` says {closed} and {built} parameters are trained")
    return f"{built} parameters"


def _same_seed(method: Any, backbone: Backbone) -> str:
    states, generator = [], torch.get_rng_state()
    for moved in (0, 1):
        torch.manual_seed(moved)
        before = torch.get_rng_state()
        with attached(method, backbone, seed=5) as handle:
            states.append(handle.state())
        require(torch.equal(before, torch.get_rng_state()), "`attach` moves torch's global random state")
    torch.set_rng_state(generator)
    differing = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    require(not differing, f"two attachments at one seed differ in `{differing[0] if differing else ''}`")
    return "bit for bit"


def _frozen_stays(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle:
        if not handle.trainable:
            return UNTRAINED
        own = {id(p) for p in handle.trainable.values()}
        before = {n: p.detach().clone() for n, p in backbone.model.named_parameters() if id(p) not in own}
        train_briefly(method, backbone, handle, steps=1)
        now = dict(backbone.model.named_parameters())
        moved = [name for name, value in before.items() if not torch.equal(value, now[name])]
    require(not moved, f"a step changed {len(moved)} frozen parameters, first `{moved[0] if moved else ''}`")
    return f"{len(before)} tensors unchanged"


def _gradients(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle:
        if not handle.trainable:
            return UNTRAINED
        try:
            train_as_run(method, backbone, handle, LEAST)
        except RunFailed as error:
            require(False, str(error))
    return f"every parameter within {LEAST} steps of a training"


def _terms(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle:
        if not handle.trainable:
            return UNTRAINED
        try:
            found = train_as_run(method, backbone, handle, 2)
        except RunFailed as error:
            require(False, str(error))
    names = [sorted(step) for step in found]
    require(names[0] == names[-1], f"`objective` adds {names[0]} in one step and {names[-1]} in another")
    require(all(math.isfinite(v) for step in found for v in step.values()), "a term of `objective` is not finite")
    return f"terms {', '.join(names[0])}" if names[0] else "not applicable: it adds no term"


def _groups(method: Any, backbone: Backbone) -> str:
    groups = method.groups(backbone.anatomy)
    with attached(method, backbone) as handle:
        for one in groups:
            found = [name for name in handle.trainable if name.startswith(one.prefix)]
            require(bool(found), f"no trained parameter's name begins with `{one.prefix}`, which `groups` names")
            require(one.rate > 0 and (one.weight_decay or 0) >= 0, f"`{one.prefix}` has a rate or decay that cannot be")
    return f"{len(groups)} with settings of their own" if groups else "not applicable: one group"


def _learns(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle:
        if not handle.trainable:
            return UNTRAINED
        losses = train_briefly(method, backbone, handle, steps=10)
    require(losses[-1] < losses[0], f"ten steps on one batch took the loss from {losses[0]:.4f} to {losses[-1]:.4f}")
    return f"loss {losses[0]:.4f} to {losses[-1]:.4f} in ten steps"


def _restores(method: Any, backbone: Backbone) -> str:
    logits = logits_of(backbone)
    before, values = snapshot(backbone), {k: v.clone() for k, v in backbone.model.state_dict().items()}
    with attached(method, backbone) as handle:
        train_briefly(method, backbone, handle, steps=2)
    after, now = snapshot(backbone), backbone.model.state_dict()
    for kind in before:
        require(before[kind] == after[kind], f"`remove` does not restore the model's {kind}")
    require(list(values) == list(now), "`remove` leaves other names in the state_dict")
    changed = [name for name in values if not torch.equal(values[name], now[name])]
    require(not changed, f"`remove` leaves {len(changed)} tensors changed, first `{changed[0] if changed else ''}`")
    require(torch.equal(logits, logits_of(backbone)), "the base answers otherwise after `remove`")
    return "bit for bit"


def _round_trip(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone, seed=1) as handle:
        train_briefly(method, backbone, handle, steps=2)
        state, wanted = handle.state(), logits_of(backbone)
    with attached(method, backbone, seed=2) as handle:
        handle.load(state)
        require(torch.equal(wanted, logits_of(backbone)), "a state loaded into a fresh attachment answers otherwise")
    return "same logits, bit for bit"


def _place_in_batch(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle:
        train_briefly(method, backbone, handle, steps=2)
        pictures, prompts = noise_pictures(backbone), [backbone.prompt_text(question) for question in QUESTIONS]
        together = replies(backbone, pictures, prompts)
        turned = replies(backbone, pictures[::-1], prompts[::-1])[::-1]
        alone = [replies(backbone, [picture], [text])[0] for picture, text in zip(pictures, prompts, strict=True)]
        uncached = replies(backbone, pictures, prompts, use_cache=False)
    require(together == alone, "a left-padded batch answers otherwise than its examples one by one")
    require(together == turned, "an answer depends on its place in the batch")
    require(together == uncached, "answers with and without a cache differ")
    return f"{len(alone)} replies of {NEW_TOKENS} tokens agree"


def _shares(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle:
        train_briefly(method, backbone, handle, steps=2)
        return answers_shared_and_alone(backbone)


def _saves(method: Any, backbone: Backbone) -> str:
    with attached(method, backbone) as handle, tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "adapter"
        handle.save(folder)
        for file in (CONFIG_FILE, TENSOR_FILE):
            require((folder / file).is_file(), f"`save` writes no {file}")
        json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        read, state = read_adapter(folder, backbone), handle.state()
        require(read.keys() == state.keys(), "the saved names are not those of `state`")
        require(all(torch.equal(read[name], state[name]) for name in state), "saved values differ")
        return f"{(folder / TENSOR_FILE).stat().st_size} bytes"


_METHOD_CHECKS: dict[str, Callable[[Any, Any], str]] = {
    "the parameter count equals the closed form": _count,
    "the same seed gives the same start": _same_seed,
    "frozen weights stay bit-identical": _frozen_stays,
    "every trainable parameter gets a gradient": _gradients,
    "terms that it adds to the loss are finite and keep their names": _terms,
    "groups with settings of their own hold trained parameters": _groups,
    "ten steps lower the loss": _learns,
    "remove restores the base bit for bit": _restores,
    "a saved state answers the same": _round_trip,
    "answers do not depend on batch, padding or cache": _place_in_batch,
    "questions that share an image are answered as when asked alone": _shares,
    "save writes a readable adapter": _saves,
}
