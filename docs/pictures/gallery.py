"""Images of the embedded suite for people: both worlds, and items of every task with question, answer and replies.

    python docs/pictures/gallery.py docs/pictures results

The replies are those that the results folder has of these very items: of `frozen`, and of `mmpt` and `full` at their
first seed. Records of another version of the suite are of other items: then there are none.
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_bench.board.rescoring import answers_of
from mmpt_bench.embedded import suite, world
from mmpt_bench.embedded.shifted import shift
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.counting import choices_from
from mmpt_bench.evaluation.task import Task
from mmpt_bench.methods import method_catalog
from mmpt_bench.records.store import Store
from mmpt_bench.sources import task_rows

SHOWN = ("frozen", "mmpt", "full")
"""Methods whose answers the items show."""
STYLE: Any = {"svg.hashsalt": "mmpt-bench", "font.size": 8}


def draw_worlds(path: Path) -> None:
    """Writes scenes of every kind, in the clean world above and in the shifted one below."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rng = np.random.default_rng(11)
    scenes = [world.random_scene(rng, (n,)) for n in (1, 2, 3, 4, 4)]
    scenes += [world.random_text(rng, False), world.random_text(rng, True), world.random_big(rng)]
    scenes += [world.random_digit(rng, "validation", suite.HASTE)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.4), layout="constrained")
        axes = figure.subplots(2, len(scenes))
        for row, name in enumerate(("clean: pre-training", "shifted: tuning and evaluation")):
            axes[row][0].set_title(name, loc="left", fontsize=9)
            for axis, scene in zip(axes[row], scenes, strict=True):
                clean = world.draw(scene)
                axis.imshow(shift(clean, scene.seed) if row else clean, interpolation="nearest")
                axis.axis("off")
        figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_items(path: Path, results: Path, per_task: int = 3) -> None:
    """Writes items of every task, each with its question, its answer and what recorded models answered."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    entries = task_catalog.task_entries()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 2.9 * per_task + 0.3), layout="constrained")
        axes = figure.subplots(per_task, len(suite.N_IMAGES))
        for column, name in enumerate(suite.N_IMAGES):
            task = task_catalog.load_task(entries[name])
            samples = task_rows.samples(task, suite.source(name))
            said = recorded_answers(results, task)
            # Not a third of the questions apart: POPE's strategies ask the same ones there.
            for row, place in enumerate(k * (len(samples) // per_task + 7) for k in range(per_task)):
                axis, sample = axes[row][column], samples[place]
                axis.imshow(sample.image.open(), interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                lines = [*textwrap.wrap(sample.question, 30)[:5], f"→ {sample.answer}"]
                for method, answers in said.items():
                    choice = answers[sample.id]
                    lines.append(f"{method}: {choice or 'unreadable'} {'✓' if choice == sample.answer else '✗'}")
                axis.set_xlabel("\n".join(lines), fontsize=6.5)
                if row == 0:
                    axis.set_title(f"like {task.title}", fontsize=9)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def recorded_answers(results: Path, task: Task) -> dict[str, dict[str, str | None]]:
    """Returns method -> sample -> answer under the task's own decoding, of each of `SHOWN` that is recorded."""
    store, found = Store(results), {}
    wanted = task.name, suite.fingerprint(task.name), "ok"
    records = [each for each in store.records() if (each.task, each.data_fingerprint, each.status) == wanted]
    for name in SHOWN:
        defaults = dataclasses.asdict(method_catalog.load_method(method_catalog.method_entries()[name])())
        del defaults["learning_rate"]
        ours = [each for each in records if each.method == name and defaults.items() <= each.params.items()]
        if ours:
            record = min(ours, key=lambda each: each.seed)
            samples = store.read_samples(record.samples)
            answers = choices_from(samples, answers_of(record))
            found[name] = {sample.id: answer for sample, answer in zip(samples, answers, strict=True)}
    return found


if __name__ == "__main__":
    folder, results = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    draw_worlds(folder / "worlds.png")
    draw_items(folder / "items.png", results)
