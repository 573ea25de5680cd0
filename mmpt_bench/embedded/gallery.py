"""Pictures of the embedded suite for people: both worlds, and items of every task with question and answer.

python -m mmpt_bench.embedded.gallery docs/pictures
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_bench import registry, source
from mmpt_bench.embedded import suite, world

STYLE: Any = {"svg.hashsalt": "mmpt-bench", "font.size": 8}


def draw_worlds(path: Path) -> None:
    """Writes scenes of every kind, in the clean world above and in the shifted one below."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rng = np.random.default_rng(11)
    scenes = [world.random_scene(rng, (n,)) for n in (1, 2, 3, 4, 4)]
    scenes += [world.random_text(rng, False), world.random_text(rng, True), world.random_big(rng)]
    scenes += [world.random_digit(rng, "validation")]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.4), layout="constrained")
        axes = figure.subplots(2, len(scenes))
        for row, name in enumerate(("clean: pre-training", "shifted: tuning and evaluation")):
            axes[row][0].set_title(name, loc="left", fontsize=9)
            for axis, scene in zip(axes[row], scenes, strict=True):
                clean = world.draw(scene)
                axis.imshow(world.shift(clean, scene.seed) if row else clean, interpolation="nearest")
                axis.axis("off")
        figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_items(path: Path, per_task: int = 3) -> None:
    """Writes items of every task, each with its question and its answer."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    entries = registry.task_entries()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 2.1 * per_task + 0.3), layout="constrained")
        axes = figure.subplots(per_task, len(suite.PICTURES))
        for column, name in enumerate(suite.PICTURES):
            task = registry.load_task(entries[name])
            samples = source.samples(task, suite.source(name))
            # Not a third of the questions apart: POPE's strategies ask the same ones there.
            chosen = [samples[row * (len(samples) // per_task + 7)] for row in range(per_task)]
            for row, sample in enumerate(chosen):
                axis = axes[row][column]
                axis.imshow(sample.image.open(), interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                asked = "\n".join(textwrap.wrap(sample.question, 30)[:5])
                axis.set_xlabel(f"{asked}\n→ {sample.answer}", fontsize=6.5)
                if row == 0:
                    axis.set_title(f"like {task.title}", fontsize=9)
        figure.savefig(path, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    draw_worlds(folder / "worlds.png")
    draw_items(folder / "items.png")
