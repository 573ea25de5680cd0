"""`--keep-adapters best|none`: a run's adapter is let go of when every task that was asked of it is recorded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from mmpt_bench.common.errors import BenchError, UntrustedRecord
from mmpt_bench.common.locks import Held
from mmpt_bench.common.words import counted
from mmpt_bench.records.adapter_kept import ALL, BEST, is_kept, let_go
from mmpt_bench.records.record import Record
from mmpt_bench.records.store import Store
from mmpt_bench.runs.events import Reporter
from mmpt_bench.runs.plan import Plan
from mmpt_bench.stats.intervals import chance_centred

Do = Callable[[Sequence[Plan], Store, Reporter, Callable[[], bool]], Iterator[Record]]
"""As `execute`."""
WAIT_SECONDS = 60.0
"""For a run that another process holds when all is done."""


def keeping(do: Do) -> Do:
    """Returns what does the same, and keeps the adapters that the plans' request says: all, or fewer."""

    def done(plans: Sequence[Plan], store: Store, report: Reporter, stopping: Callable[[], bool]) -> Iterator[Record]:
        if not plans or plans[0].request.keep_adapters == ALL:
            yield from do(plans, store, report, stopping)
            return
        kept = _Kept(plans, store)
        damaged = None
        try:
            for record in do(plans, store, report, stopping):
                kept.after(record)
                yield record
        except UntrustedRecord as error:  # It is raised when all other runs are done.
            damaged = error
        for text in kept.at_end():
            report.said(text)
        if damaged is not None:
            raise damaged

    return done


@dataclasses.dataclass
class _Run:
    """A run that trains, and what was asked of it."""

    variant: str
    seed: int
    keys: set[str]
    """Of all results that the command asks for."""
    left: set[str]
    """Of those that were not recorded when it was planned, and are not yet."""


class _Kept:
    """The adapters of a command's runs."""

    def __init__(self, plans: Sequence[Plan], store: Store) -> None:
        self._way, self._store = plans[0].request.keep_adapters, store
        self._runs: dict[str, _Run] = {}
        self._variants: dict[str, list[str]] = {}
        for plan in plans:
            for job in (job for job in plan.jobs if job.method.trains):
                recipe, tasks = job.recipe, plan.prepared.tasks
                key = {name: item.eval_key(recipe.train_key) for name, item in tasks.items()}
                if recipe.run_name not in self._runs:
                    self._runs[recipe.run_name] = _Run(recipe.variant_key, recipe.seed, set(), set())
                    self._variants.setdefault(recipe.variant_key, []).append(recipe.run_name)
                run = self._runs[recipe.run_name]
                run.keys |= set(key.values())
                run.left |= {key[name] for name in job.todo}
        # A stage needs the adapters of those before it.
        self._is_stream = any(job.recipe.stage.get("after") for plan in plans for job in plan.jobs)
        self._ready: set[str] = set()
        self._scores: dict[str, float | None] = {}
        self._n_gone = 0

    def after(self, record: Record) -> None:
        """Lets go of what is not to stay when a record was made; the run that it is of may still be held."""
        ready, run = self._ready - {record.run}, self._runs.get(record.run)
        if self._is_stream or run is None:
            return
        if record.status == "ok":
            run.left.discard(record.eval_key)
        for variant in {self._runs[name].variant for name in ready}:
            whole = {name for name in self._variants[variant] if not self._runs[name].left} - {record.run}
            self._ready -= whole - {name for name, _ in self._let_go(whole)}
        if not run.left:
            self._ready.add(record.run)

    def at_end(self) -> list[str]:
        """Lets go of all that is not to stay, and returns what is to be said."""
        left = [each for names in self._variants.values() for each in self._let_go(names, WAIT_SECONDS)]
        said = [
            f"The adapter of `{name}` stays: {error}"
            + (" The same command lets go of it." if isinstance(error, Held) else "")
            for name, error in left
        ]
        if self._n_gone:
            gone = counted(self._n_gone, "adapter is", "adapters are")
            said.append(f"{gone} not kept (`--keep-adapters {self._way}`); records keep the hashes.")
        return said

    def _let_go(self, names: Iterable[str], wait_seconds: float = 0.0) -> list[tuple[str, BenchError]]:
        """Lets go of the adapters of whole runs of one variant, but for the best.

        Returns those that others hold, or that are damaged, which stay as they are, with what is said.
        """
        scores: dict[str, float] = {}
        left: list[tuple[str, BenchError]] = []
        kept = set()
        for name in names:
            try:
                score, is_there = self._score(name), is_kept(self._store.run(name))
            except UntrustedRecord as error:
                left.append((name, error))
                continue
            if score is not None:
                scores[name] = score
                kept |= {name} if is_there else set()
        stays = None
        if self._way == BEST:
            stays = max(kept, key=lambda name: (scores[name], -self._runs[name].seed), default=None)
        for name in (name for name in scores if name != stays):
            try:
                with self._store.run(name).lock(wait_seconds):
                    self._n_gone += is_kept(self._store.run(name))
                    let_go(self._store.run(name))
            except Held as error:
                left.append((name, error))
        return left

    def _score(self, name: str) -> float | None:
        """Returns the overall score of a run on the command's tasks; None where one of them is not recorded."""
        if self._scores.get(name) is None:
            found = {record.eval_key: record for record in self._store.run(name).records() if record.status == "ok"}
            keys = self._runs[name].keys
            self._scores[name] = overall([found[key] for key in sorted(keys)]) if keys <= found.keys() else None
        return self._scores[name]


def overall(records: Sequence[Record]) -> float:
    """Returns the mean over results of the chance-corrected score, or of the score itself where chance has none.

    A score that is undefined makes it the lowest there is.
    """
    if any(record.score is None for record in records):
        return -math.inf
    return math.fsum(map(_corrected, records)) / len(records)


def _corrected(record: Record) -> float:
    assert record.score is not None
    if record.chance is None or record.ceiling is None or record.ceiling <= record.chance:
        return record.score
    return chance_centred(record.score, record.chance, record.ceiling)
