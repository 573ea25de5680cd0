"""mmpt-bench: decide how to adapt a multimodal LLM, on numbers that can be believed.

    import mmpt_bench as mb
    results = mb.run(method="mmpt", tasks=["mme", "pope"])
    results.leaderboard()

The names below are the public ones. They are looked up when they are asked for, so that importing costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.version import VERSION as __version__

if TYPE_CHECKING:
    from mmpt_bench.api import (
        Results,
        ablate,
        check,
        compare,
        explain,
        judged,
        leaderboard,
        load_results,
        merge,
        new,
        plan,
        prompts,
        protocol,
        prune,
        read_experiment,
        reruns,
        run,
        score,
        stream,
        transfer,
        tune,
        verify,
        write_figures,
        write_report,
    )
    from mmpt_bench.common.errors import BenchError, MachineError, RequestError, RunFailed, UntrustedRecord
    from mmpt_bench.data.dataset import Dataset, Official, Pin, RawForm
    from mmpt_bench.data.image_folders import ImageFolder
    from mmpt_bench.data.images import LazyImage
    from mmpt_bench.data.rows import Rows, read_choice, read_image, read_label, read_text, read_texts, read_wording
    from mmpt_bench.data.samples import Prediction, Sample
    from mmpt_bench.evaluation.captions import cider
    from mmpt_bench.evaluation.forms import PromptForm
    from mmpt_bench.evaluation.functions import FunctionMetric, MeanOf, WholeOf
    from mmpt_bench.evaluation.judge import Judge
    from mmpt_bench.evaluation.metrics import Accuracy, Declared, Metric, MMEMetric, POPEMetric
    from mmpt_bench.evaluation.open_answers import anls, exact_match, normalized, read_open
    from mmpt_bench.evaluation.parsing import yes_no
    from mmpt_bench.evaluation.replies import read_reply, reply_reader
    from mmpt_bench.evaluation.task import Task
    from mmpt_bench.methods.method import Method
    from mmpt_bench.mmpt import MMPT
    from mmpt_bench.runs.events import Reporter
    from mmpt_bench.runs.options import Options

_HOMES = {
    "api": "Results ablate check compare explain judged leaderboard load_results merge new plan prompts "
    "protocol prune read_experiment reruns run score stream transfer tune verify write_figures write_report",
    "common.errors": "BenchError MachineError RequestError RunFailed UntrustedRecord",
    "data.dataset": "Dataset Official Pin RawForm",
    "data.image_folders": "ImageFolder",
    "data.images": "LazyImage",
    "data.rows": "Rows read_choice read_image read_label read_text read_texts read_wording",
    "data.samples": "Prediction Sample",
    "evaluation.captions": "cider",
    "evaluation.forms": "PromptForm",
    "evaluation.functions": "FunctionMetric MeanOf WholeOf",
    "evaluation.judge": "Judge",
    "evaluation.metrics": "Accuracy Declared MMEMetric Metric POPEMetric",
    "evaluation.open_answers": "anls exact_match normalized read_open",
    "evaluation.parsing": "yes_no",
    "evaluation.replies": "read_reply reply_reader",
    "evaluation.task": "Task",
    "methods.method": "Method",
    "mmpt": "MMPT",
    "runs.events": "Reporter",
    "runs.options": "Options",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
