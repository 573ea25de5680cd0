"""Looks at a held-out probe during a training (`--monitor TASKS --every N`); a drop raises an alarm, which may end it.

Each look is an exact test against the first one. An alarm needs p <= level / looks, counting all looks at all tasks of
the training, so that the chance of any false alarm in it is at most the level, however the looks depend on each other
(Bonferroni).
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import append_jsonl, jsonl, read_jsonl, write_atomic
from mmpt_bench.data.samples import Sample
from mmpt_bench.evaluation.open_answers import is_right
from mmpt_bench.records.run_folder import BEST, RunFolder
from mmpt_bench.sources.prepared import PreparedTask
from mmpt_bench.stats.differences import drop_p

if TYPE_CHECKING:
    from mmpt_bench.engine.adapters.attachment import Handle
    from mmpt_bench.engine.models.backbone import Backbone

FILE = "monitor.jsonl"
"""In a run's folder: a line a look and task."""
LEVEL = 0.05
"""Chance of a false alarm in a whole training, at most."""
LOOK = {"step": int, "task": str, "score": float, "before": float, "alarm": bool}
"""What a line holds, beside the number and the letters of right answers."""
MOST = 100
"""Questions of a task that are asked at each look, each about another image."""


def probe_of(tasks: Mapping[str, PreparedTask]) -> dict[str, tuple[Any, list[Sample]]]:
    """Returns the questions of each look: the first of each image, `MOST` of a task."""
    found = {}
    for name, item in tasks.items():
        by_image: dict[str, Sample] = {}
        for sample in item.samples:
            by_image.setdefault(sample.image.key, sample)
        found[name] = (item.task, list(by_image.values())[:MOST])
    return found


def read_looks(folder: RunFolder) -> list[dict[str, Any]]:
    """Returns the looks of a run's training; UntrustedRecord for a line that is none."""
    rows = read_jsonl(folder.path(FILE))
    for number, row in enumerate(rows, start=1):
        right = row.get("right")
        fits = isinstance(right, str) and 0 < len(right) == row.get("n") and set(right) <= {"0", "1"}
        if not fits or any(type(row.get(name)) is not kind for name, kind in LOOK.items()):
            raise UntrustedRecord(
                f"Line {number} of `{FILE}` in `{folder.name}` is no look at a probe. Delete that folder to train anew."
            )
    return rows


def is_alarm(p: float, looks: int) -> bool:
    """Returns whether a drop is more than noise explains, with so many looks in the training."""
    return p <= LEVEL / looks


class Monitor:
    """The looks of one training."""

    def __init__(
        self,
        backbone: Backbone,
        tasks: Mapping[str, PreparedTask],
        folder: RunFolder,
        every: int,
        steps: int,
        say: Callable[[str], None],
        stops: Handle | None = None,
    ) -> None:
        """Looks every `every` of `steps` steps; an alarm goes back to the best values of `stops`, where it is given."""
        self._backbone, self._probe, self._folder = backbone, probe_of(tasks), folder
        self._every, self._say = every, say
        self._looks = max(1, steps // every) * len(self._probe)
        self._before: dict[str, list[bool]] = {}
        self._scores: dict[str, list[tuple[float, int]]] = {}
        self._stops = stops
        self.alarms: list[str] = []

    @property
    def is_over(self) -> bool:
        """Returns whether an alarm ends the training."""
        return self._stops is not None and bool(self.alarms)

    def begin(self, done: int) -> None:
        """Looks before the first step of this sitting, or reads the looks up to the step that a checkpoint holds.

        A training that was not looked at from its beginning is held against where looking began.
        """
        path = self._folder.path(FILE)
        kept = [row for row in read_looks(self._folder) if row["step"] <= done] if done else []
        if {row["task"] for row in kept} != set(self._probe):
            kept = []
        write_atomic(path, jsonl(*kept))
        for row in kept:
            self._before.setdefault(row["task"], [letter == "1" for letter in row["right"]])
            self._scores.setdefault(row["task"], []).append((row["score"], row["step"]))
            if row["alarm"]:
                self.alarms.append(_told(row))
        if not kept:
            self._look(done)

    def after(self, step: int) -> None:
        """Looks where it is time."""
        if step % self._every == 0:
            self._look(step)

    def _look(self, step: int) -> None:
        from mmpt_bench.engine.inference.predict import predict

        model = self._backbone.model
        training = model.training
        model.eval()
        try:
            for name, (task, samples) in self._probe.items():
                made = {each.id: each for batch in predict(self._backbone, task, samples) for each in batch}
                right = [is_right(one, made[one.id].ranked if one.choices else made[one.id].parsed) for one in samples]
                self._keep(step, name, right)
        finally:
            model.train(training)
        if self._stops is not None and not self.alarms and self._best() == step:
            folder = self._folder.path(BEST)
            shutil.rmtree(folder, ignore_errors=True)
            self._stops.save(folder)

    def _best(self, before: float = float("inf")) -> int:
        """Returns the look with the highest mean score of the tasks, the last of equal ones.

        The first look, at which nothing is learnt yet, is the best only where there is no other.
        """
        seen: dict[int, list[float]] = {}
        for score, step in itertools.chain.from_iterable(self._scores.values()):
            seen.setdefault(step, []).append(score)
        first, *others = (step for step in sorted(seen) if step < before)
        return max(others, key=lambda step: (sum(seen[step]) / len(seen[step]), step)) if others else first

    def finish(self, step: int) -> None:
        """Ends a training after `step`, and says what the looks saw.

        After an alarm that ends it, the best values before are put back.
        """
        for name, scores in self._scores.items():
            (first, _), (last, end), (lowest, at) = scores[0], scores[-1], min(scores)
            told = f"{len(scores)} looks: {first:.0%} first, {last:.0%} at step {end}, lowest {lowest:.0%} at step {at}"
            raised = sum(f"probe of {name} " in alarm for alarm in self.alarms)
            self._say(f"Probe of {name}, {told}; {raised or 'no'} alarm{'s' * (raised > 1)} ({self._folder.name}).")
        if self.is_over and self._stops is not None:
            from mmpt_bench.engine.adapters.saved import read_adapter

            self._stops.load(read_adapter(self._folder.path(BEST)))
            self.alarms.append(f"training stopped at step {step}; the adapter is that of step {self._best(step)}")

    def _keep(self, step: int, name: str, right: list[bool]) -> None:
        is_first = name not in self._before
        before = self._before.setdefault(name, right)
        p = drop_p(before, right)
        row = {
            "step": step, "task": name, "n": len(right), "score": sum(right) / len(right),
            "before": sum(before) / len(before), "p": p, "alarm": not is_first and is_alarm(p, self._looks),
            "right": "".join("1" if each else "0" for each in right),
        }  # fmt: skip
        append_jsonl(self._folder.path(FILE), row)
        self._scores.setdefault(name, []).append((sum(right) / len(right), step))
        if row["alarm"]:
            self.alarms.append(_told(row))
            self._say(f"ALARM: {self.alarms[-1]}.")


def _told(row: Mapping[str, Any]) -> str:
    score, before = (f"{100 * row[name]:.0f} %" for name in ("score", "before"))
    return f"on the probe of {row['task']} the score fell from {before} to {score} by step {row['step']}"
