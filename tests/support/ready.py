"""Imported once by the process that commands are forked from: what most of them import and draw first."""

import pandas  # noqa: F401
import peft  # noqa: F401

import mmpt_bench.api
import mmpt_bench.cli.main
import mmpt_bench.engine.models.loading
import mmpt_bench.report.results
import mmpt_bench.runs.execute  # noqa: F401
from mmpt_bench.embedded import suite

for name in suite.N_IMAGES:
    suite.source(name, "evaluation", suite.SHIFTED)
