"""Every key that names something by its content: a training, a result, replies, a setting, a variant.

A key holds what decides a number and nothing else. Commit, versions, device and threads are recorded, not hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.hashing import content_key
from mmpt_bench.evaluation.task import OFFICIAL

RATE = "learning_rate"
FAILED = "failed"
MIXED = "-mixed"
"""After a half precision in recipes and records: float32 parameters and optimizer, products in half precision. A bare
"bfloat16" is of versions that trained most methods in bfloat16 throughout; the two never meet."""
UNKNOWN = "unknown"
"""Training data, by name and fingerprint, of an adapter that does not say what it was trained on."""


def precision(dtype: str) -> str:
    """Returns what recipes and records call the precision that `--dtype` names: "float32", or "bfloat16-mixed"."""
    return dtype if dtype == "float32" else dtype + MIXED


def option(precision: str) -> str:
    """Returns the `--dtype` of a recipe's or record's precision; that of older versions has the same."""
    return precision.removesuffix(MIXED)


def earlier_params(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what hyperparameters that a record, recipe or adapter lacks were, where that is not today's default."""
    # Visual prompts stood in front of the sequence before there was a field that says where.
    is_earlier = method == "mmpt" and bool(params.get("interaction")) and "interaction_place" not in params
    return {"interaction_place": "front"} if is_earlier else {}


def hashed_params(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters as keys hold them: without later ones where they are what was fixed before."""
    fixed = {"interaction_place": "front" if params.get("interaction") else "image"} if method == "mmpt" else {}
    return {name: value for name, value in params.items() if name not in fixed or value != fixed[name]}


def check_precision(dtype: str) -> None:
    """Refuses to train in float16 (RequestError): small gradients are 0 there, and the loss is not scaled."""
    if dtype == "float16":
        raise RequestError(
            "Nothing is trained in float16: small gradients would become 0, and the loss is not scaled. Train with "
            "`--dtype bfloat16` or `float32`; what is trained already may be evaluated in float16."
        )


def train_key(recipe: Mapping[str, Any]) -> str:
    """Names a training by all fields of its recipe but the backbone's name, which the fingerprint stands for.

    `world_size` is hashed as the constant 1: a run that ranks share is the same run.
    """
    params = hashed_params(recipe["method"], recipe["params"])
    hashed = {"params": params, "world_size": 1}
    left_out = {"backbone", *(name for name in ("stage", "objective") if not recipe.get(name))}
    return content_key({name: value for name, value in recipe.items() if name not in left_out} | hashed)


def asked(
    task: tuple[str, int], fingerprint: str, split: str, decode: str, new_tokens: int, limit: int | None, *more: str
) -> list[Any]:
    """Returns what names the replies to a task, whatever was trained and whatever rule reads them.

    Args:
        task: its name and version.
        fingerprint: of its rows.
        split: of its data.
        decode: "generate" or "rank".
        new_tokens: longest reply.
        limit: questions, where not all are asked.
        more: what else sets replies apart: a user's own task file, close calls that are not asked again.
    """
    return [*task, fingerprint, split, decode, new_tokens, limit, *more]


def replies_key(training: str, what: list[Any]) -> str:
    """Names the replies of a training (its `train_key`) to what was asked."""
    return content_key([training, *what])


def eval_key(training: str, what: list[Any], rule: str) -> str:
    """Names the result of a training on a task under a parse rule."""
    return content_key([training, *what, *([] if rule == OFFICIAL else [f"parse rule {rule}"])])


def failure_key(training: str, task: str = "", asking: Mapping[str, Any] | None = None) -> str:
    """Names the failure of a training, or of a task of it; `asking` is that of its record."""
    return content_key([training, FAILED, *([task] if task else []), *([asking] if asking else [])])


def setting_key(
    backbone: str, corpus: str, budget: Mapping[str, Any], dtype: str, suite: str, asking: Mapping[str, Any]
) -> str:
    """Names a setting: runs are ranked together only where these agree (fingerprints for backbone and corpus).

    `asking` is that of a record: what stands before every question. Nothing usual stands in it, nor in the key.
    """
    return content_key([backbone, corpus, budget, dtype, suite, *([asking] if asking else [])], 8)


def variant_key(of: Any, budget: Mapping[str, Any]) -> str:
    """Names a training without its seed, of a recipe or a record: what seeds are averaged over."""
    params = hashed_params(of.method, of.params)
    # The constant 1 stands for `world_size`, as in `train_key`.
    parts = [of.backbone_fingerprint, of.corpus_fingerprint, of.method, params, budget, of.dtype, 1]
    of_objective = [of.objective] if of.objective else []
    return content_key([*parts, of.method_fingerprint, *of_departures(of.stage, of.seed), *of_objective])


def of_departures(stage: Mapping[str, Any], seed: int) -> list[Any]:
    """Returns what of a recipe's `stage` tells variants apart: not the runs before it of the same seed."""
    if "order" not in stage:
        left_out = ("from", "seed") if stage.get("seed") == seed else ()
        return [{name: value for name, value in stage.items() if name not in left_out}] if stage else []
    rest = {name: value for name, value in stage.items() if name not in ("strategy", "order", "after")}
    return [[stage["strategy"], stage["order"], *([rest] if rest else [])]]


def without_rate(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns hyperparameters without the learning rate: what one search of rates is for."""
    return {name: value for name, value in params.items() if name != RATE}
