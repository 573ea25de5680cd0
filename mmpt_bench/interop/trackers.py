"""Logging to experiment trackers, off by default: W&B, trackio or TensorBoard beside what is recorded, never instead.

Each run is one run there, under the same name: loss, learning rate and gradient norm by step, then scores by task.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mmpt_bench.common.errors import MachineError, RequestError, unknown_name
from mmpt_bench.common.files import scrubbed

if TYPE_CHECKING:
    from mmpt_bench.records.recipe import Recipe
    from mmpt_bench.records.record import Record
    from mmpt_bench.runs.events import Reporter
    from mmpt_bench.runs.plan import Job

PROJECT = "mmpt-bench"
PACKAGES = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "tensorboard"}
"""Tracker -> the package that it needs, which is also its extra."""
ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables that send what trackio is told to another machine."""


class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Adds figures of a step."""
        ...

    def finish(self) -> None:
        """Closes the run; nothing is logged afterwards."""
        ...


def check_trackers(text: str, offline: bool = False) -> tuple[str, ...]:
    """Returns the trackers that a comma-separated option names, before anything is run.

    Raises:
        RequestError: a name that is none of the three; or no socket may be opened, and trackio is set up to do so.
        MachineError: its package is not installed; with the command that installs it.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in PACKAGES:
            raise unknown_name("tracker", name, PACKAGES)
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise MachineError(
                f"`--log-to {name}` needs the package `{PACKAGES[name]}`, which is not installed: "
                f"`pip install 'mmpt-bench[{name}]'`. Everything is recorded in the results folder without it."
            )
    set_up = [name for name in ELSEWHERE if os.environ.get(name)]
    if offline and "trackio" in names and set_up:
        raise RequestError(f"`--offline` opens no socket, and `{set_up[0]}` sends trackio's runs away: unset it.")
    return names


@contextmanager
def tracking(report: Reporter, names: Sequence[str], folder: Path, offline: bool) -> Iterator[Reporter]:
    """Yields a reporter that also logs to trackers; the one given where none is named.

    Args:
        report: is told everything first.
        names: of trackers, as `check_trackers` returns them.
        folder: the results folder; what a tracker writes on this machine goes to `tracking/` in it.
        offline: W&B may open no socket; what it wrote can be sent with `wandb sync`.
    """
    if not names:
        yield report
        return
    log = _Log(names, folder / "tracking", offline)
    try:
        yield dataclasses.replace(
            report,
            train_step=_both(report.train_step, log.train_step),
            finished=_both(report.finished, log.finished),
        )
    finally:
        log.close()


def _both(first: Callable[..., None], second: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        first(*arguments)
        second(*arguments)

    return call


class _Log:
    """The run under way in every tracker; the next run closes it.

    What trackers print goes to stderr: stdout is the board's, and with `--json` a program reads it.
    """

    def __init__(self, names: Sequence[str], folder: Path, offline: bool) -> None:
        self._names, self._folder, self._offline = names, folder, offline
        self._run, self._open = "", list[Tracker]()
        self._step = 0

    def train_step(self, job: Job, step: Any) -> None:
        self._turn_to(job.recipe.run_name, _config(job.recipe))
        self._step = step.step
        self._say({"train/loss": step.loss, "train/learning_rate": step.rate, "train/grad_norm": step.grad_norm,
                   "train/seconds": step.seconds})  # fmt: skip

    def finished(self, record: Record) -> None:
        """Logs a record's figures; a run that failed is closed without any."""
        self._turn_to(record.run, _config(record))
        if record.status == "ok":
            self._say({f"{record.task}/{name}": value for name, value in sorted(record.values.items())})

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            for tracker in self._open:
                tracker.finish()
        self._open, self._run = [], ""

    def _say(self, values: Mapping[str, float]) -> None:
        with redirect_stdout(sys.stderr):
            for tracker in self._open:
                tracker.log(values, self._step)

    def _turn_to(self, run: str, config: dict[str, Any]) -> None:
        if run != self._run:
            self.close()
            self._run, self._step = run, 0
            self._folder.mkdir(parents=True, exist_ok=True)
            with redirect_stdout(sys.stderr):
                self._open = [STARTERS[name](run, config, self._folder, self._offline) for name in self._names]


def _config(of: Recipe | Record) -> dict[str, Any]:
    names = ("method", "params", "seed", "backbone", "corpus", "budget", "dtype")
    plain = {name: getattr(of, name) for name in names}
    if dataclasses.is_dataclass(plain["budget"]) and not isinstance(plain["budget"], type):
        plain["budget"] = dataclasses.asdict(plain["budget"])
    config: dict[str, Any] = scrubbed(plain)
    return config


class _Module:
    """W&B, or trackio, which has its interface."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._module.log(dict(values), step=step)

    def finish(self) -> None:
        self._module.finish()


class _TensorBoard:
    """An event file a run."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        import json

        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("config", f"    {json.dumps(config, sort_keys=True)}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


def _wandb(run: str, config: dict[str, Any], folder: Path, offline: bool) -> Tracker:
    import wandb

    # Without a mode of ours, WANDB_MODE and a user's login decide.
    wandb.init(project=PROJECT, name=run, config=config, dir=str(folder), mode="offline" if offline else None)
    return _Module(wandb)


def _trackio(run: str, config: dict[str, Any], folder: Path, offline: bool) -> Tracker:
    import trackio

    trackio.init(project=PROJECT, name=run, config=config)
    return _Module(trackio)


def _tensorboard(run: str, config: dict[str, Any], folder: Path, offline: bool) -> Tracker:
    return _TensorBoard(folder / "tensorboard" / run, config)


STARTERS: dict[str, Callable[[str, dict[str, Any], Path, bool], Tracker]] = {
    "wandb": _wandb,
    "trackio": _trackio,
    "tensorboard": _tensorboard,
}
