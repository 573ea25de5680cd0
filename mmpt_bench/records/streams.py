"""What a stream of tasks is: trainings, each a list of runs, one after the other; kept beside the records it is of.

results/streams/<name>.json    which runs belong together; no score
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from mmpt_bench.common.errors import UntrustedRecord
from mmpt_bench.common.files import loads, write_atomic
from mmpt_bench.common.values import FieldError, from_plain
from mmpt_bench.records.store import Store

FOLDER = "streams"


@dataclass(frozen=True)
class Training:
    """One method carried through the tasks of a stream by one strategy, at one seed and in one order."""

    label: str
    """The method, with the hyperparameters that are not its defaults."""
    strategy: str
    order: tuple[str, ...]
    """Names of tasks, as they were learnt."""
    seed: int
    runs: tuple[str, ...]
    """Name of the run after each stage; of joint training one alone."""

    @property
    def key(self) -> tuple[str, str, tuple[str, ...], int]:
        """Returns what tells it from the others."""
        return self.label, self.strategy, self.order, self.seed


@dataclass(frozen=True)
class Stream:
    """Trainings on the same tasks, backbone and budget, which are shown together."""

    name: str
    stream: tuple[str, ...]
    """Tasks that are learnt, in the order that was asked for."""
    tasks: tuple[str, ...]
    """Tasks that are evaluated after each stage: those of the stream, and others."""
    base: str
    """Run of the untuned model."""
    results: dict[str, str]
    """Task -> key of its result there: those of other runs count where data and questions are the same."""
    limit: int | None
    """Questions a task, where not all were asked."""
    trainings: tuple[Training, ...]
    command: str
    """Makes it, a line for each time that something was added."""

    def beside(self, known: Stream) -> Stream:
        """Returns it with the trainings of a known stream of the same name that are none of its own."""
        own = {each.key for each in self.trainings}
        kept = [each for each in known.trainings if each.key not in own]
        commands = [*known.command.splitlines(), *self.command.splitlines()]
        return dataclasses.replace(self, trainings=(*kept, *self.trainings), command="\n".join(dict.fromkeys(commands)))


def _checked(stream: Stream, name: str) -> Stream:
    """Returns a stream; ValueError where it is not that of its file, or its trainings are not of its tasks."""
    if stream.name != name:
        raise ValueError(f"it is called `{stream.name[:60]}` inside")
    for one in stream.trainings:
        if sorted(one.order) != sorted(stream.stream) or len(one.runs) not in (1, len(one.order)):
            raise ValueError(f"a training of `{one.label[:60]}` has not a run for each task")
    return stream


def write(store: Store, stream: Stream) -> Stream:
    """Keeps a stream's definition, with the trainings that it had before, and returns it."""
    for known in read_all(store):
        if known.name == stream.name:
            stream = stream.beside(known)
    text = json.dumps(dataclasses.asdict(stream), indent=1, ensure_ascii=False) + "\n"
    write_atomic(store.path(FOLDER, f"{stream.name}.json"), text.encode())
    return stream


def read_all(store: Store) -> list[Stream]:
    """Returns the streams of a results folder by name; UntrustedRecord for a file that is none."""
    folder, found = store.path(FOLDER), []
    for path in sorted(folder.glob("[!.]*.json")) if folder.is_dir() else []:
        try:
            found.append(_checked(from_plain(Stream, loads(path.read_bytes())), path.stem))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FieldError) as error:
            raise UntrustedRecord(
                f"`{FOLDER}/{path.name}` is damaged: {error}. Remove it and run the stream again: what is recorded is "
                "not redone."
            ) from error
    return found
