"""Imported once by the process that commands are forked from which must not import torch."""

import atexit
import os
import sys

import mmpt_bench.api
import mmpt_bench.cli.main
import mmpt_bench.runs.estimate
import mmpt_bench.study.ablations.ablate  # noqa: F401
from mmpt_bench.embedded import suite

for name in suite.N_IMAGES:
    suite.source(name, "evaluation", suite.SHIFTED)


@atexit.register
def end_without_torch() -> None:
    """Ends the process with an exit code that no command has, where torch was imported."""
    if "torch" in sys.modules:
        print("torch was imported", file=sys.stderr, flush=True)
        os._exit(99)
