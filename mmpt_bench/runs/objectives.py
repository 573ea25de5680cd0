"""What is added to the loss of a run: terms of its stage, its method and its teacher (`--teacher`, `--objective`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import RequestError, RunFailed, unknown_name
from mmpt_bench.methods.method import Method
from mmpt_bench.methods.method_catalog import method_of, named_method
from mmpt_bench.records.adapter_kept import check_kept
from mmpt_bench.records.recipe import Recipe
from mmpt_bench.records.recipe_file import read_recipe
from mmpt_bench.records.run_folder import RunFolder
from mmpt_bench.records.store import Store
from mmpt_bench.runs.stages import begin, load_trained
from mmpt_bench.sources.weights import backbone_fingerprint, check_backbone

if TYPE_CHECKING:
    from mmpt_bench.data.examples import Corpus
    from mmpt_bench.engine.adapters.attachment import Group, Handle
    from mmpt_bench.engine.models.backbone import Backbone
    from mmpt_bench.engine.training.objective import Term
    from mmpt_bench.engine.training.train import TrainingConfig
    from mmpt_bench.runs.request import Request

BACKBONE = "backbone:"
DIVERGENCES, COMPUTE = ("forward", "reverse", "jsd"), ("steps", "equal")
EXAMPLE = "kd:0.5,temperature:2"


@dataclass(frozen=True)
class Distillation:
    """What a student learns from its teacher beside the answers: fields of `Recipe.objective`."""

    kd: float
    """Weight of the divergence."""
    teacher: str
    """Name of a run on the same backbone, or `backbone:NAME`."""
    teacher_fingerprint: str = ""
    """Of another backbone; a run's name stands for all that decides it."""
    temperature: float = 1.0
    divergence: str = "forward"
    compute: str = "steps"
    """`steps`: as many as without a teacher; `equal`: fewer, so that its forward passes are paid for."""


def objective_of(text: str, teacher: str, request: Request) -> dict[str, Any]:
    """Returns what `--objective kd:0.5,temperature:2` and `--teacher full:RUN` say, as recipes hold it.

    Raises RequestError for one without the other, a part that there is not, a teacher that is not trained, or one of
    another backbone.
    """
    if not text and not teacher:
        return {}
    if not text or not teacher:
        missing = f"`--objective {EXAMPLE}`" if teacher else "`--teacher full:RUN`"
        raise RequestError(f"A teacher and what is learnt from it go together: add {missing}.")
    values = _parts(text)
    if teacher.startswith(BACKBONE):
        name = teacher.removeprefix(BACKBONE)
        check_backbone(name)
        values |= {"teacher": teacher, "teacher_fingerprint": backbone_fingerprint(name, request.offline)}
    else:
        values["teacher"] = _teacher_run(teacher, request).name
    return dataclasses.asdict(Distillation(**values))


def _parts(text: str) -> dict[str, Any]:
    known = ("kd", "temperature", "divergence", "compute")
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, colon, value = (each.strip() for each in part.partition(":"))
        if not name:
            raise RequestError(f"`--objective {text[:80]}`: a part is empty; write it as in `{EXAMPLE}`.")
        if name not in known:
            raise unknown_name("part of an objective", name[:40], known)
        if not colon or name in values:
            raise RequestError(f"`--objective {text[:80]}`: write each part once, as in `{EXAMPLE}`.")
        if name in ("divergence", "compute"):
            legal = DIVERGENCES if name == "divergence" else COMPUTE
            if value not in legal:
                raise unknown_name(name, value[:40], legal)
            values[name] = value
            continue
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = 0.0
        if not 0 < values[name] < 1e6:
            raise RequestError(f"`--objective {text[:80]}`: `{name}` is a number above 0, as in `{EXAMPLE}`.")
    if "kd" not in values:
        raise RequestError(f"`--objective {text[:80]}` has no weight of the divergence: write `{EXAMPLE}`.")
    return values


def _teacher_run(text: str, request: Request) -> RunFolder:
    """Returns the run that `full:RUN` or a run's whole name means; RequestError where it is no teacher."""
    store, (method, colon, key) = Store(request.out), text.partition(":")
    name = f"{method}-{key.removeprefix(f'{method}-')}" if colon else text
    if not name.strip("-") or Path(name).name != name or not (run := store.run(name)).is_trained:
        found = [one.name for one in store.runs() if one.is_trained]
        raise unknown_name("trained run", name[:80], found, f"A teacher is a run in {request.out.name}/.")
    check_kept(run)
    recipe = read_recipe(run.path("recipe.yaml"))
    if recipe.backbone_fingerprint != backbone_fingerprint(request.backbone, request.offline):
        raise RequestError(f"The teacher `{name}` is of another backbone, `{recipe.backbone}`: choose one of this one.")
    return run


def config_and_terms(
    store: Store, backbone: Backbone, request: Request, recipe: Recipe, told: tuple[Any, Sequence[Corpus], Handle]
) -> tuple[TrainingConfig, list[Term]]:
    """Returns what decides a training, with the steps in force, and what is added to its loss.

    Args:
        told: method, training data of the stages before, the attached adapter.

    Raises:
        RequestError: the teacher has another tokenizer.
        RunFailed: the method's groups are none.
        UntrustedRecord: the teacher's adapter is damaged, or its backbone's files changed.
    """
    from mmpt_bench.engine.training.train import TrainingConfig

    method, before, handle = told
    given = (groups_of(method, backbone), request.micro_batch, request.gradient_checkpointing)
    config = TrainingConfig(recipe.budget, method.learning_rate, recipe.seed, *given)
    terms = [*begin(store, backbone, recipe, before, handle), *terms_of_method(method)]
    if not recipe.objective:
        return config, terms
    from mmpt_bench.engine.models.quantized import n_values
    from mmpt_bench.engine.training.distillation import Distill, check_tokenizers, steps_at_equal_compute

    of = Distillation(**recipe.objective)
    teacher = _loaded(store, of, request)
    check_tokenizers(backbone, teacher)
    terms.append(Distill(of.kd, of.temperature, of.divergence, teacher, recipe.budget.max_length))  # type: ignore[arg-type]
    if of.compute == "steps":
        return config, terms
    own = list(backbone.model.parameters())
    sizes = [
        sum(map(n_values, each)) for each in (own, [p for p in own if p.requires_grad], teacher.model.parameters())
    ]
    budget = dataclasses.replace(recipe.budget, steps=steps_at_equal_compute(recipe.budget.steps, *sizes))
    return dataclasses.replace(config, budget=budget), terms


def groups_of(method: Any, backbone: Backbone) -> tuple[Group, ...]:
    """Returns the parameters with settings of their own; RunFailed where a user's method returns something else."""
    from mmpt_bench.engine.adapters.attachment import Group

    groups = method.groups(backbone.anatomy)
    if not isinstance(groups, tuple) or not all(isinstance(one, Group) for one in groups):
        raise RunFailed(f"`groups` of `{method.name}` returns no tuple of `mb.Group`")
    return groups


def terms_of_method(method: Any) -> list[Term]:
    """Returns the terms that a method adds by its `objective`."""
    if getattr(type(method), "objective", Method.objective) is Method.objective:
        return []
    from mmpt_bench.engine.training.objective import OfMethod

    return [OfMethod(method)]


def _loaded(store: Store, of: Distillation, request: Request) -> Backbone:
    """Returns the teacher: a backbone of its own with its adapter on, which nothing of the student's reaches."""
    from mmpt_bench.common.errors import UntrustedRecord
    from mmpt_bench.engine.models.backbone import load_backbone

    other = of.teacher.removeprefix(BACKBONE) if of.teacher.startswith(BACKBONE) else ""
    teacher = load_backbone(other or request.backbone, request.dtype, request.device, request.offline)
    if other:
        if teacher.fingerprint != of.teacher_fingerprint:
            raise UntrustedRecord(f"The files of the teacher `{other}` changed while the run was planned.")
        return teacher
    run = store.run(of.teacher)
    recipe = read_recipe(run.path("recipe.yaml"))
    texts = {name: str(value) for name, value in recipe.params.items()}
    load_trained(run, method_of(named_method(recipe.method), texts).attach(teacher, 0))
    return teacher
