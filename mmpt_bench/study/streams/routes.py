"""Which task's adapter a question goes to, where nobody says which task it is of: the nearest mean of frozen features.

A task is known by the mean feature of some of its training examples; a question's tasks are ranked by the distance of
its own feature to these means (nearest class mean, Mensink et al. 2013, doi:10.1109/TPAMI.2013.83). Features are the
untuned model's, so that no stage changes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmpt_bench.common.errors import Interrupted, UntrustedRecord
from mmpt_bench.common.files import loads, write_atomic
from mmpt_bench.data.examples import Corpus
from mmpt_bench.records.store import Store
from mmpt_bench.records.streams import FOLDER
from mmpt_bench.sources.prepared import Prepared

EXAMPLES = 100
"""Training examples that a task's mean is of."""


@dataclass(frozen=True)
class Routes:
    """The tasks of a stream, nearest first, for each question."""

    by_task: dict[str, tuple[str, list[list[str]]]]
    """Evaluated task -> (name of its samples file, the ranked tasks of each sample in the file's order)."""

    def of(self, task: str, samples: str, seen: tuple[str, ...]) -> list[str]:
        """Returns the task whose adapter each sample goes to, among those seen; UntrustedRecord for other samples."""
        known, ranked = self._known(task)
        if known != samples or not set(seen) & set(ranked[0]):
            raise UntrustedRecord(f"The routes of the stream are of other samples of `{task}`: run the stream again.")
        return [next(name for name in each if name in seen) for each in ranked]

    def accuracy(self, task: str) -> float:
        """Returns the share of a task's questions that go to its own adapter, after the last stage."""
        _, ranked = self._known(task)
        return sum(each[0] == task for each in ranked) / len(ranked)

    def _known(self, task: str) -> tuple[str, list[list[str]]]:
        known, ranked = self.by_task.get(task, ("", []))
        if not ranked:
            raise UntrustedRecord(f"The routes of the stream lack those of `{task}`: run the stream again.")
        return known, ranked


def _path(store: Store, name: str) -> Any:
    return store.path(FOLDER, "routes", f"{name}.json")


def read_routes(store: Store, name: str) -> Routes | None:
    """Returns the routes of a stream; None where there are none."""
    path = _path(store, name)
    if not path.is_file():
        return None
    try:
        value = loads(path.read_bytes())
        found = {
            task: (str(each["samples"]), [list(map(str, row)) for row in each["ranked"]])
            for task, each in value.items()
        }
        if not all(set(row) == set(ranked[0]) for _, ranked in found.values() for row in ranked):
            raise ValueError("a question has other tasks than the first")
        return Routes(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UntrustedRecord(f"`{FOLDER}/routes/{path.name}` is damaged: {error}. Remove it.") from error


def make_routes(
    store: Store,
    name: str,
    load: Callable[[], Any],
    corpora: Mapping[str, Corpus],
    prepared: Prepared,
    stopping: Callable[[], bool],
) -> None:
    """Ranks the tasks for every question and keeps it; does nothing where that is done.

    Args:
        load: returns the untuned backbone.

    Raises:
        Interrupted: `stopping` said so; nothing is kept.
    """
    wanted = {task: store.write_samples(item.samples) for task, item in prepared.tasks.items()}
    known = read_routes(store, name)
    if known is not None and {task: file for task, (file, _) in known.by_task.items()} == wanted:
        return
    import torch

    from mmpt_bench.engine.inference.predict import pooled_features

    means, backbone = [], load()
    for corpus in corpora.values():
        (examples,) = corpus.batches(0, 1, min(EXAMPLES, corpus.size))
        means.append(pooled_features(backbone, [(one.image, one.prompt) for one in examples]).mean(0))
    at, names = torch.stack(means), list(corpora)
    found = {}
    for task, item in prepared.tasks.items():
        features = pooled_features(backbone, [(one.image, one.question) for one in item.samples], stopping=stopping)
        if len(features) < len(item.samples):
            raise Interrupted("while questions were routed")
        order = torch.cdist(features, at).argsort(dim=1, stable=True)
        found[task] = {"samples": wanted[task], "ranked": [[names[i] for i in row] for row in order.tolist()]}
    write_atomic(_path(store, name), (json.dumps(found) + "\n").encode())
