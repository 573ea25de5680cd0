"""One task's result of one run: a line of records.jsonl, with everything needed to rerun and to rescore it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mmpt_bench.common.errors import shown
from mmpt_bench.common.words import counted
from mmpt_bench.records import keys

LATER: dict[str, Any] = {
    **{"changed": None, "guard": True, "answers_bytes": 0, "answers_sha256": "", "notes": ""},
    **{"n_read_otherwise": None, "n_reasoning": None, "n_unfinished": None, "threads": "", "optimizer_state": ""},
    **{"own_process": False, "cpu_seconds": None, "resident_bytes": None},
    **{"others_cpu_seconds": None, "eval_others_cpu_seconds": None, "stage": {}, "objective": {}},
    **{"adapter_sha256": "", "attempt": "", "gradient_checkpointing": False, "asking": {}, "shots": ()},
    **{"adapter_kept": True},
    **{"declared": {}, "question_values": "", "n_unjudged": None},
}
"""Fields that records of earlier versions lack, and what is taken for them there."""


IDLE = 0.05
"""Share of a machine's cores that others may keep busy while something is timed."""


def asked_with(asking: Mapping[str, Any]) -> str:
    """Returns what a record's `asking` says, for people: "2 solved examples before each question"; or nothing.

    "judged by model (01234567)" stands there too.
    """
    k, system = asking.get("few_shot", 0), str(asking.get("system", ""))
    parts = [f"{counted(k, 'solved example')}"] if k else []
    parts += [f"the system's text {shown(system)}"] if system else []
    told = [f"{' and '.join(parts)} before each question"] if parts else []
    if judge := asking.get("judge"):
        scale = "" if judge["most"] == 1 else f" from 0 to {judge['most']}"
        told.append(f"judged{scale} by {judge['model'][:40]} ({judge['fingerprint'][:8]})")
    return ", ".join(told)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What was run: the parts of its recipe, and whose it is."""

    eval_key: str
    train_key: str
    track: str
    suite: str
    """"embedded", or "real": never ranked together."""
    run: str
    """Name of the run's folder."""
    method: str
    params: dict[str, Any]
    seed: int
    backbone: str
    backbone_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    budget: dict[str, Any]
    """Fields of `Budget`; empty where it is not known."""
    dtype: str
    """"float32", or a half precision as `keys.precision` calls it."""
    learning_rate_source: str
    """How it was chosen: "searched: 5 rates on ...", "set by the user", "documented default, not searched"."""
    world_size: int = 1
    """Ranks that shared the training, in its last sitting; no part of a key: it is the same run."""
    method_fingerprint: str = ""
    """Of the method's file, where it is a user's own."""
    stage: dict[str, Any] = dataclasses.field(default_factory=dict)
    """As of a `Recipe`: empty for an ordinary training."""
    objective: dict[str, Any] = dataclasses.field(default_factory=dict)
    """As of a `Recipe`: empty for what has no teacher."""
    notes: str = ""
    """What must be said beside its scores: an adapter's other base, what of it is not read."""
    changed: dict[str, Any] | None = None
    """Hyperparameters that are not the method's defaults; a learning rate only where the user set it. None in records
    that do not say so."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked, and how the replies were read."""

    task: str
    """Empty for a training that failed; that of a task which failed alone stands here."""
    task_version: int = 0
    dataset: str = ""
    data_fingerprint: str = ""
    split: str = ""
    decode: str = ""
    limit: int | None = None
    samples: str = ""
    """Name of the file in results/samples/ that lists id, group, image and right answer of each sample."""
    parse_rule: str = "official"
    """Name of the rule that replies were read by."""
    guard: bool = True
    """False where close calls of half precision were not asked again."""
    asking: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How questions are asked and judged, part of the setting: "few_shot", how many solved examples; "system", a text;
    "judge", as `Judge.setting`. Empty for nothing."""
    declared: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of a task from a user's own file, or that a judge scores: `evaluation/declared.Declaration`."""
    shots: tuple[str, ...] = ()
    """Ids of the solved examples, of the task's training split, in their order."""
    replies_key: str = ""
    """What the replies are kept under in the run's folder, where it is not `eval_key`: replies that another parse rule
    reads anew."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What came out: scores, and the answers that they are made from."""

    headline: str = ""
    """Name of the figure that the leaderboard shows."""
    score: float | None = None
    """The headline figure, under the task's own decoding."""
    strict: float | None = None
    """The headline figure of the parsed replies."""
    constrained: float | None = None
    """The headline figure of the best-ranked legal answers."""
    interval: tuple[float, float] | None = None
    """95 % interval of `score` from resampling images: of this checkpoint, not of the method."""
    ceiling: float | None = None
    chance: float | None = None
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    """Every figure of the task under its own decoding."""
    n: int = 0
    n_pictures: int = 0
    n_unparsed: int = 0
    """Replies in which a person reads no legal answer."""
    n_read_otherwise: int | None = None
    """Replies in which a person reads another answer than the parse rule, or one of the two reads none."""
    n_reasoning: int | None = None
    """Replies with reasoning in tags, which is cut off before they are read."""
    n_unfinished: int | None = None
    """Those whose reasoning does not end: they give no answer."""
    degenerate: bool = False
    """More than 99 % of the answers are the same one, on a task where the right ones are not."""
    answers_bytes: int = 0
    """How much of the run's file of answers there was when the record was made."""
    answers_sha256: str = ""
    """SHA-256 of that part; empty in records that do not keep it."""
    parsed_choices: str = ""
    """A character a sample, in the order of the samples file: the choice's index, `-` where unreadable."""
    ranked_choices: str = ""
    """The same for the best-ranked legal answer."""
    question_values: str = ""
    """JSON, by score of a task that declares its scores: a value a question, in the order of the samples file, null
    for a verdict that could not be read; or one number of the whole set."""
    n_unjudged: int | None = None
    """Replies on which the judge gave no verdict that could be read: they are in no mean."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What it cost, and on what."""

    trainable: int = 0
    total: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    peak_bytes: int = 0
    """Peak resident memory (CPU) or allocated memory (accelerator) of the process during training."""
    own_process: bool = False
    """The training was the first thing that its process computed, in one sitting: its peak is not that of another."""
    resident_bytes: int | None = None
    """What the process held when the training began: the model and the data, loaded."""
    cpu_seconds: float | None = None
    """Of the processor in training, user and system, over all threads of the process."""
    others_cpu_seconds: float | None = None
    """Of all other processes of the machine meanwhile; None where the system does not tell."""
    eval_others_cpu_seconds: float | None = None
    """The same during the evaluation."""
    adapter_bytes: int = 0
    adapter_sha256: str = ""
    """SHA-256 of the adapter's tensors; empty where nothing was trained, and in older records."""
    adapter_kept: bool = True
    """False where its tensors were removed after the evaluation (`--keep-adapters`)."""
    attempt: str = ""
    """Names the training that made the adapter: two trainings of one run are two attempts. Empty as above."""
    threads: str = ""
    """How many threads the training computed with, as "1", or "1, 4" of two sittings; empty where it is not known.
    Those of the evaluation stand in `environment`."""
    optimizer_state: str = ""
    """Precision of the optimizer's moments; empty where nothing was trained, and in older records."""
    gradient_checkpointing: bool = False
    """Layers were computed again on the way back, in the last sitting: its time and memory are of that."""
    final_loss: float | None = None
    time: str = ""
    """UTC, ISO 8601 with milliseconds, when the record was written."""
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Commit, versions, device, processor, threads: recorded, never part of a key."""


@dataclass(frozen=True, kw_only=True)
class Record(Identity, Asked, Scores, Costs):
    """A result, or a failure with its reason. Its fields, in one flat line, are those of the four groups."""

    status: Literal["ok", "failed"]
    reason: str
    """Why it failed; empty where it did not."""

    @property
    def is_memory_own(self) -> bool:
        """Returns whether peak memory is that of this training, and comparable with that of others."""
        return self._is_plain and self.own_process and self.resident_bytes is not None and self.peak_bytes > 0

    @property
    def _is_plain(self) -> bool:
        """Returns whether one process trained, and kept what layers made: what it cost is that of the method."""
        return self.world_size == 1 and not self.gradient_checkpointing

    @property
    def is_timed(self) -> bool:
        """Returns whether the training had a process and an idle machine to itself, so that its times compare."""
        return (
            self._is_plain
            and self.own_process
            and self.cpu_seconds is not None
            and self._idle(self.others_cpu_seconds, self.train_seconds)
        )

    @property
    def is_evaluation_timed(self) -> bool:
        """Returns whether the evaluation had an idle machine to itself."""
        return self._idle(self.eval_others_cpu_seconds, self.eval_seconds)

    def _idle(self, others: float | None, seconds: float) -> bool:
        cores = self.environment.get("cores") or 1
        return others is not None and seconds > 0 and others <= IDLE * cores * seconds

    @property
    def row(self) -> dict[str, Any]:
        """Returns its fields as one line of JSON holds them, without later ones that say nothing."""
        plain = dataclasses.asdict(self)
        return {name: value for name, value in plain.items() if name not in LATER or value != LATER[name]}

    @property
    def own_budget(self) -> dict[str, Any]:
        """Returns the budget's fields, without the steps of the run that the training began from."""
        steps = self.stage.get("steps", 0)
        return self.budget | {"steps": self.budget["steps"] - steps} if steps and self.budget else self.budget

    @property
    def variant_key(self) -> str:
        """Names the training without its seed: what seeds are averaged over."""
        return keys.variant_key(self, self.budget)

    @property
    def setting_key(self) -> str:
        """Names the setting that its own fields make; `track` says which one it was recorded under."""
        backbone, corpus = self.backbone_fingerprint, self.corpus_fingerprint
        return keys.setting_key(backbone, corpus, self.budget, self.dtype, self.suite, self.asking)
