"""How a training departs from the usual one: the adapter that it begins with, what its strategy adds, Reptile."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError, RunFailed, UntrustedRecord, unknown_name
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.hashing import bytes_sha256, content_key, derive, file_sha256
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.adapter_kept import FISHER, check_kept, not_kept
from mmpt_bench.records.keys import RATE
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.run_folder import ADAPTER, TENSORS, RunFolder
from mmpt_bench.records.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from mmpt_bench.data.examples import Corpus
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.models.backbone import Backbone
    from mmpt_bench.engine.training.objective import Term

SEQUENTIAL, REPLAY, EWC, LWF, NEW, JOINT = "sequential", "replay", "ewc", "lwf", "new-adapter", "joint"
NUMBERS = {SEQUENTIAL: None, REPLAY: 0.1, EWC: 1e4, LWF: 10.0, NEW: None, JOINT: None}
"""Strategies, and the default of the number that some take: share replayed, weight of the penalty or divergence."""
SHA256 = "sha256"
"""In its header: of its values."""
REPTILE = "reptile"
INNER_STEPS = 5
"""Of Reptile: optimiser steps on one task, after which the values move towards what they became."""


@dataclass(frozen=True)
class Strategy:
    """How a model goes on from one task of a stream to the next."""

    kind: str
    number: float | None = None

    @classmethod
    def of(cls, text: str) -> Strategy:
        """Returns what a text names: "sequential", "replay:0.1"; RequestError for one that is none."""
        kind, colon, number = text.strip().partition(":")
        if kind not in NUMBERS:
            raise unknown_name("strategy", kind[:40], NUMBERS)
        default = NUMBERS[kind]
        if default is None:
            if colon:
                raise RequestError(f"`{text[:60]}`: `{kind}` takes no number.")
            return cls(kind)
        try:
            value = float(number) if colon else default
        except ValueError:
            value = -1.0
        if not 0 < value < (1.0 if kind == REPLAY else 1e9):
            what = "a share above 0 and below 1" if kind == REPLAY else "a weight above 0"
            raise RequestError(f"`{text[:60]}`: write {what}, as in `{kind}:{default:g}`.")
        # As it is written: digits that its name lacks would make two of one.
        return cls(kind, float(f"{value:g}"))

    def __str__(self) -> str:
        """Returns it as it is written, with its number."""
        return self.kind if self.number is None else f"{self.kind}:{self.number:g}"


def begin(store: Store, backbone: Backbone, recipe: Recipe, before: Sequence[Corpus], handle: Handle) -> Sequence[Term]:
    """Gives an attached adapter the values of the stage before, and returns what its strategy adds to the loss.

    Args:
        before: training data of the stages before, in order.

    Raises:
        RunFailed: the stage before was not trained.
        UntrustedRecord: an adapter is damaged.
    """
    if "from" in recipe.stage:
        load_trained(_trained(store, recipe.stage["from"]), handle)
    if "order" not in recipe.stage:
        return ()
    runs = [_trained(store, name) for name in recipe.stage["after"]]
    strategy = Strategy.of(recipe.stage["strategy"])
    terms: list[Term] = []
    if strategy.kind == EWC:
        from mmpt_bench.engine.training.objective import Ewc

        stages = [_values_and_fisher(run, backbone, of, recipe, handle) for run, of in zip(runs, before, strict=True)]
        terms.append(Ewc(strategy.number or 0.0, stages))
    values = load_trained(runs[-1], handle)
    if strategy.kind == LWF:
        from mmpt_bench.engine.training.objective import Lwf

        terms.append(Lwf(strategy.number or 0.0, handle, values))
    return terms


def _trained(store: Store, name: str) -> RunFolder:
    run = store.run(name)
    if run.training() is None:
        raise RunFailed(f"the run before it, `{name}`, is not trained")
    return run


def begun_from(store: Store, name: str, method: Any) -> dict[str, Any]:
    """Returns a recipe's `stage` for a training that begins with the adapter of a recorded run.

    Raises:
        RequestError: there is no such trained run, or its adapter is of another method or shape.
    """
    run = store.run(name)
    if not run.is_trained:
        raise RequestError(
            f"`--init-from {name[:80]}`: `{store.root}` has no trained run of that name; `ls runs` lists them."
        )
    check_kept(run)
    recipe = run.read_recipe()
    own = {field: value for field, value in dataclasses.asdict(method).items() if field != RATE}
    its = {field: value for field, value in recipe.params.items() if field != RATE}
    if recipe.method != method.name or own != its:
        told = [f"{field}={its.get(field)}" for field in own if its.get(field) != own[field]]
        of = f"{recipe.method} ({', '.join(told)})" if told else recipe.method
        raise RequestError(
            f"`--init-from {name[:80]}` is an adapter of {of[:100]}: "
            "the training needs the same method and hyperparameters."
        )
    return begins_with(recipe, _steps_up_to(store, recipe))


def meta_tasks(text: str) -> list[str]:
    """Returns the tasks of "reptile:mnist,vsr"; RequestError for another algorithm, or fewer than two tasks."""
    kind, _, names = text.partition(":")
    if kind != REPTILE:
        raise unknown_name("way to learn initial values", kind[:40], (REPTILE,))
    found = sorted({entry.name for entry in task_catalog.find_tasks(names or "all")})
    if len(found) < 2:
        raise RequestError(f"`--meta {text[:80]}`: Reptile learns from two tasks or more.")
    return found


def begins_with(recipe: Recipe, steps: int) -> dict[str, Any]:
    """Returns a recipe's `stage` for a training that begins with the adapter of another recipe, trained for `steps`."""
    of = [recipe.corpus, recipe.params[RATE], recipe.budget.batch_size]
    whose = {"variant": recipe.variant_key, "seed": recipe.seed}
    return {"from": recipe.run_name, "of": of, **whose, "steps": steps}


def _steps_up_to(store: Store, recipe: Recipe) -> int:
    """Returns the steps that an adapter has been trained for, with those of the runs before it."""
    before = [store.run(name).read_recipe() for name in recipe.stage.get("after", ())]
    return recipe.budget.steps + recipe.stage.get("steps", 0) + sum(each.budget.steps for each in before)


class Reptile:
    """Reptile (Nichol, Achiam and Schulman 2018, arXiv:1803.02999), on top of an ordinary training.

    After every `INNER_STEPS` optimiser steps, which are on one task, the values become old + e (new - old); e falls
    linearly from 1 to 0 over the training, as in the authors' runs. The optimizer's moments go on.
    """

    def __init__(self, handle: Handle, steps: int) -> None:
        """`handle` holds the first values, which `steps` optimiser steps will move."""
        self._handle, self._steps, self._old = handle, steps, handle.state()

    def after(self, step: int) -> None:
        """Moves the values where a task has had its steps."""
        if step % INNER_STEPS and step != self._steps:
            return
        share = 1 - (step - 1) // INNER_STEPS * INNER_STEPS / self._steps
        new = self._handle.state()
        self._old = {name: old + share * (new[name] - old) for name, old in self._old.items()}
        self._handle.load(self._old)


def load_trained(run: RunFolder, handle: Handle, known: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """Puts a run's adapter into an attached one and returns its values.

    Args:
        known: the run's `training()`, where it was read before.

    Raises:
        RequestError: it was not kept.
        UntrustedRecord: its bytes have changed.
    """
    from mmpt_bench.engine.adapters.saved import read_adapter

    known, tensors = known or run.training(), run.path(ADAPTER, TENSORS)
    if told := not_kept(run, known):
        raise RequestError(told)
    if known is None or not tensors.is_file() or file_sha256(tensors) != known["sha256"]:
        raise UntrustedRecord(f"The adapter in `{run.name}` is damaged. Delete that folder to train it again.")
    values = read_adapter(run.path(ADAPTER))
    handle.load(values)
    return values


@contextmanager
def attached(backbone: Backbone, method: Any, seed: int, run: RunFolder) -> Iterator[None]:
    """Inside, a method is in the backbone with what was trained in a run, if it trains; then it is taken out again."""
    handle = method.attach(backbone, derive(seed, "init"))
    try:
        if handle.trainable:
            load_trained(run, handle)
        yield
    finally:
        handle.remove()


def _values_and_fisher(
    run: RunFolder, backbone: Backbone, corpus: Corpus, recipe: Recipe, handle: Handle
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns a stage's values and its Fisher information, which is kept in the run's folder."""
    from safetensors.torch import save

    from mmpt_bench.engine.training.objective import FISHER_EXAMPLES, fisher

    values, path = load_trained(run, handle), run.path(FISHER)
    if path.is_file():
        known = _kept_fisher(path, values)
    else:
        n = min(FISHER_EXAMPLES, recipe.budget.steps * recipe.budget.batch_size)
        found = fisher(backbone, handle, corpus, recipe.seed, recipe.budget.max_length, n)
        known = found
        write_atomic(path, save(found, {SHA256: _digest(found)}))
    return values, known


def _kept_fisher(path: Path, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a Fisher information that was kept; UntrustedRecord for one that is damaged, or of other values."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        found = load_file(path)
        with safe_open(path, "pt") as file:
            sha256 = (file.metadata() or {}).get(SHA256, "")
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)[:80]) from error
    if {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in values.items()}:
        raise _damaged(path, "it is of other values than the adapter's")
    # Those of earlier versions have no checksum.
    if sha256 not in ("", _digest(found)):
        raise _damaged(path, "its values have changed")
    return found


def _damaged(path: Path, why: str) -> UntrustedRecord:
    return UntrustedRecord(f"`{path.name}` in `{path.parent.name}` is damaged: {why}. Delete it: it is made anew.")


def _digest(values: Mapping[str, Tensor]) -> str:
    return content_key([[name, bytes_sha256(values[name].numpy().tobytes())] for name in sorted(values)])
