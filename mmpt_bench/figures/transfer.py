"""A transfer: the target's dev score over all steps, one line for each beginning, a panel for each method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpt_bench.figures import style
from mmpt_bench.figures.figure_data import Drawn
from mmpt_bench.study.streams.transfer import OWN, TransferRow

COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":")


def draw(name: str, rows: Sequence[TransferRow], source: str) -> Drawn:
    """Returns the figure of a transfer.

    Args:
        name: of the transfer.
        rows: of it, by method.
        source: suite and date of what is shown.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    inits = list(dict.fromkeys(row.init for row in rows))
    called = {init: "its own values" if init == OWN else init for init in inits}
    looks: dict[str, dict[str, Any]] = {
        init: {"color": COLORS[k % len(COLORS)], "linestyle": LINES[k % len(LINES)]} for k, init in enumerate(inits)
    }
    legend = style.Legend([(called[init], style.line_entry(**looks[init])) for init in inits], 2.8 * len(methods))
    figure, axes = style.panels(len(methods), (2.4, 1.9), left=0.6, below=0.5, gap=0.5, legend=legend.height)
    lines: list[dict[str, Any]] = []
    for number, (panel, method) in enumerate(zip(axes, methods, strict=True)):
        for row in [row for row in rows if row.method == method]:
            panel.fill_between(
                row.steps, 100 * row.band[:, 0], 100 * row.band[:, 1], color=looks[row.init]["color"], alpha=0.12,
                linewidth=0,
            )  # fmt: skip
            panel.plot(row.steps, 100 * row.curve, linewidth=1.4, **looks[row.init])
            lines += [
                {"method": method, "begins_with": row.init, "steps": steps, "score": float(score),
                 "interval_low": float(low), "interval_high": float(high)}
                for steps, score, (low, high) in zip(row.steps, row.curve, row.band, strict=True)
            ]  # fmt: skip
        panel.set_title(style.safe(method))
        panel.set_xlabel("Optimiser steps in total")
        if number == 0:
            panel.set_ylabel("Dev score (%)")
    legend.draw(figure)
    ends = "; ".join(f"{row.method} from {called[row.init]} {100 * row.curve[-1]:.1f} %" for row in rows)
    return Drawn(
        "stream", f"transfer-{style.file_name(name)}", "Steps to a score",
        "Mean over seeds, with 95 % intervals over seeds and questions. Lines begin after the steps on other tasks.",
        f"Dev score over all steps. At the end: {ends}.", figure, source, style.table(lines),
    )  # fmt: skip
