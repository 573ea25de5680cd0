"""The options that `run`, `ablate` and `tune` share, as plain values, and the request that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.common.values import FieldError, given_values
from mmpt_bench.common.words import counted
from mmpt_bench.data.image_folders import image_folders
from mmpt_bench.data.rows import SHIFTED, WORLDS
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.evaluation.task import OFFICIAL
from mmpt_bench.methods import method_catalog
from mmpt_bench.records import answer_files
from mmpt_bench.records.adapter_kept import ALL, WAYS
from mmpt_bench.records.budget import EVAL_BATCH, EVERY, MOST, Budget
from mmpt_bench.records.store import Store, results_folder
from mmpt_bench.runs.bad_items import FAIL, SKIP
from mmpt_bench.runs.objectives import objective_of
from mmpt_bench.runs.option_texts import Names, column_names, comma_text, dataset_names, numbered_seeds, pairs
from mmpt_bench.runs.request import Request, parse_overrides
from mmpt_bench.runs.stages import begun_from, meta_tasks
from mmpt_bench.sources.corpora import TrainData, check_train_data
from mmpt_bench.sources.few_shot import checked_count
from mmpt_bench.sources.weights import DTYPES, EMBEDDED, HOW, loading_of, with_loading

FROZEN = "frozen"
"""The method that trains nothing: the baseline."""
DEVICES = ("cpu", "cuda", "mps", "xpu")


class Options(TypedDict, total=False):
    """What may be given; each name is that of the command line's option, with `_` for `-`."""

    seeds: int | str | Sequence[int]
    """One or more: 0, [0, 1, 2], "0,1,2", "0-7"."""
    set: Mapping[str, object] | Sequence[str]
    """Hyperparameters: {"lora.r": 8}, ["lora.r=8"]."""
    variants: Mapping[str, Sequence[Mapping[str, object]]]
    """Of `run` and `plan` alone: several sets of a method's hyperparameters, {"lora": [{"r": 2}, {"r": 16}]}; `set`
    is over all of them."""
    backbone: str
    """"embedded", a folder in Hugging Face form, or a name on the hub."""
    attn_implementation: str | None
    """As transformers names it: "sdpa", "eager", "flash_attention_2"."""
    min_pixels: int | None
    """Smaller images are made as large; of families that take images of any shape."""
    max_pixels: int | None
    """Larger images are made as small."""
    quantize: str | None
    """"int8" or "int4": the frozen weights of tower and language model."""
    device_map: str | None
    """"auto": the model is spread over all accelerators."""
    data: str | Path | None
    """Folder of real data in the hub's schema, or a file of rows."""
    images: Mapping[str, str | Path] | Sequence[str]
    """Collection -> folder, of images that data sets only name."""
    dataset: Mapping[str, str] | Sequence[str]
    """Task -> another data set of its form."""
    columns: Mapping[str, str] | Sequence[str]
    """Column of a task -> its name in the files: {"image": "img", "pope.answer": "label"}; "train.image" and the like
    are of the training data."""
    world: str
    """Of the embedded suite: "shifted", in which methods are tuned; "clean", without a shift; "strong", with more."""
    limit: int | None
    """The first so many questions of each task, and the others on their images."""
    parse: str
    """Parse rule: "official", "lmms-eval", "vlmevalkit"."""
    monitor: Names
    """Tasks whose dev part, 100 questions each, is looked at during training; a drop raises an alarm."""
    every: int
    """Steps between two looks."""
    stop_on_alarm: bool
    """An alarm ends the training, and the best values before it are kept."""
    init_from: str
    """A recorded run of the same method, whose adapter training begins with. Its steps count in the budget."""
    meta: str
    """"reptile", or "reptile:mnist,vsr": learn an initial value over the training splits of tasks."""
    few_shot: int
    """Of `run` and `plan` alone: so many solved examples, of the task's training split, before each question."""
    system: str
    """Of `run` and `plan` alone: a turn of the system before each question."""
    teacher: str
    """Of `run` and `plan` alone: a run on the same backbone, "full:KEY", or "backbone:NAME", whose word on each answer
    token is learnt too."""
    objective: str
    """What is learnt from it: "kd:0.5,temperature:2,divergence:forward,compute:steps"."""
    guard: bool
    """In half precision, ask again where two words are as good as equal."""
    train_data: str
    """"embedded", "vision-flan", a file or folder of conversations, or "task:NAME"."""
    train_images: str | Path | None
    decontaminate: bool
    """Leave out training tasks whose images or labels are evaluated."""
    steps: int
    batch_size: int
    max_length: int
    schedule: Literal["cosine", "constant"]
    """What the learning rate does after the warm-up."""
    warmup: float
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float
    max_grad_norm: float
    """Longest gradient, over all trained parameters; a longer one is shortened."""
    dtype: str
    """"float32", "bfloat16", "float16"."""
    device: str | None
    offline: bool
    """Open no socket."""
    gradient_checkpointing: bool
    """Compute layers again on the way back instead of keeping what they made: less memory, more time, no other key."""
    micro_batch: int | None
    """Most examples that a rank trains on in one pass, out of a batch: a matter of memory and speed."""
    eval_batch_size: int
    """Questions that are answered together: a matter of memory and speed, not of the scores."""
    gpus_per_unit: float | None
    """With `workers` on Ray or Slurm: GPUs that each run or trial asks for; on Ray a fraction below 1 too."""
    keep_adapters: str
    """Of `run`, `ablate` and `stream`: adapters that stay when all is recorded: "all", "best" of the seeds, "none"."""
    answers: str
    """Of `run`, `ablate` and `stream`: how a finished task's answers are kept: "jsonl", or "parquet" (zstd)."""
    on_bad_item: str
    """"fail": a task with an image that cannot be used is recorded as failed, and training on bad examples is refused.
    "skip": they are left out, for all methods alike."""
    out: str | Path
    """Folder of the results."""


class SearchOptions(Options, total=False):
    """What a search of learning rates may be given beside that."""

    rounds: Sequence[int]
    """Seeds of each rate in each round; the better half of the rates goes on."""
    grid: tuple[float, float]
    """Lowest and highest rate, half decades, the same for every method."""
    structures: int
    """So many of the `structures` that a method declares are searched, each as a method of its own."""
    dev_tasks: Names
    """Tasks whose validation split the score is of, for data other than the embedded suite; without them the criterion
    is the loss on held-out training data."""
    also_test: bool
    """Score each model on test data too; no choice looks at it."""


def make_request(method: Names, tasks: Names, options: Options, is_run: bool = False) -> Request:
    """Returns the request that options stand for, checked before anything costly starts; `is_run` for `run` and `plan`.

    Raises:
        RequestError: an unknown name, field or folder, or a value that cannot be.
        TypeError: an option that there is not.
    """
    options = cast(Options, given_values(options, Options, ("method", "tasks")))
    if options.get("variants"):
        raise RequestError("`variants` are for `run`: `ablate` and `tune` vary a method in their own ways.")
    if (options.get("few_shot") or options.get("system")) and not is_run:
        raise RequestError("`--few-shot` and `--system` are for `run` alone: leave them out.")
    methods = method_catalog.find_methods(comma_text(method))
    found = task_catalog.find_tasks(comma_text(tasks))
    how: dict[str, object] = {name: options.get(name) for name in HOW}
    backbone, dtype = with_loading(options.get("backbone", EMBEDDED), how), options.get("dtype", "float32")
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    budget = _budget(options)
    _check_device(options.get("device"), backbone)
    data = _path(options.get("data"))
    if data is not None and not data.exists():
        raise RequestError(f"There is no folder or file `{data}` to read data from.")
    request = Request(
        methods=tuple(methods),
        overrides=parse_overrides(pairs(options.get("set", ())), methods),
        tasks=tuple(found),
        seeds=numbered_seeds(options.get("seeds", 0)),
        backbone=backbone,
        train=_train_data(options),
        budget=budget,
        dtype=dtype,
        out=results_folder(options.get("out")),
        data=data,
        images=image_folders(pairs(options.get("images", ()))),
        datasets=_datasets(options, found, data is None and backbone == EMBEDDED),
        columns=column_names(pairs(options.get("columns", ())), [entry.name for entry in found]),
        world=known_world(options.get("world", SHIFTED), data is None and backbone == EMBEDDED),
        limit=_limit(options),
        rule=options.get("parse", OFFICIAL),
        offline=options.get("offline", False),
        device=options.get("device"),
        few_shot=checked_count(options.get("few_shot", 0)),
        system=options.get("system", ""),
        monitor=_monitored(options),
        every=options.get("every", EVERY),
        stage=_departures(options, methods),
        guard=options.get("guard", True),
        eval_batch=_eval_batch(options),
        micro_batch=_micro_batch(options),
        gradient_checkpointing=options.get("gradient_checkpointing", False),
        on_bad_item=_one_of((FAIL, SKIP), options.get("on_bad_item", FAIL), "way with bad items"),
        keep_adapters=_one_of(WAYS, options.get("keep_adapters", ALL), "choice of adapters to keep"),
        answers=_one_of(answer_files.WAYS, options.get("answers", answer_files.JSONL), "form of answers"),
    )
    learnt = objective_of(options.get("objective", ""), options.get("teacher", ""), request)
    return dataclasses.replace(request, objective=learnt)


def _datasets(options: Options, tasks: Sequence[Entry], is_embedded: bool) -> dict[str, str]:
    """Returns task -> data set; RequestError for a task whose questions the embedded suite generates."""
    found = dataset_names(pairs(options.get("dataset", ())), [entry.name for entry in tasks])
    generated = [entry.name for entry in tasks if is_embedded and not entry.own and entry.name in found]
    if generated:
        raise RequestError(
            f"`--dataset {generated[0]}={found[generated[0]]}` is of real data, and the embedded suite generates its "
            "questions: give `--backbone`, or `--data`."
        )
    return found


def _budget(options: Options) -> Budget:
    """Returns what every method is given alike; RequestError for values that cannot be."""
    fields = {field.name for field in dataclasses.fields(Budget)}
    given: dict[str, Any] = {name: value for name, value in options.items() if name in fields}
    try:
        return Budget(**given)
    except FieldError as error:
        raise RequestError(str(error).replace(f"`{error.field}`", f"`--{error.field.replace('_', '-')}`", 1)) from error


def _one_of(known: Sequence[str], given: str, what: str) -> str:
    if given not in known:
        raise unknown_name(what, str(given)[:40], known)
    return given


def _monitored(options: Options) -> tuple[Entry, ...]:
    """Returns the tasks that are looked at during training; RequestError for a time between looks that is none."""
    every, steps = options.get("every", EVERY), options.get("steps", Budget().steps)
    text = comma_text(options.get("monitor", ""))
    if not text:
        return ()
    found = tuple(task_catalog.find_tasks(text))
    if not 1 <= every <= steps:
        raise RequestError(f"`--every {every}`: a number from 1 to the {counted(steps, 'step')} of a training.")
    return found


def _departures(options: Options, methods: Sequence[Entry]) -> dict[str, Any]:
    """Returns how trainings depart from the usual (`Recipe.stage`); RequestError where they cannot."""
    found: dict[str, Any] = {}
    if options.get("stop_on_alarm", False):
        if not (monitored := _monitored(options)):
            raise RequestError("`--stop-on-alarm` is about the alarms of `--monitor`: name tasks there.")
        found |= {"stop": [entry.name for entry in monitored], "every": options.get("every", EVERY)}
    if text := options.get("meta", ""):
        if options.get("train_data", EMBEDDED) != EMBEDDED:
            raise RequestError("`--meta` names what is trained on: leave out `--train-data`.")
        found["meta"] = meta_tasks(text)
    if name := options.get("init_from", ""):
        trained = [entry for entry in methods if entry.name != FROZEN]
        if len(trained) != 1:
            raise RequestError(
                f"`--init-from {name[:80]}` is the adapter of one method: name that one with `--method`."
            )
        fields = parse_overrides(pairs(options.get("set", ())), methods).get(trained[0].name, {})
        method = method_catalog.method_of(trained[0], fields)
        found |= begun_from(Store(results_folder(options.get("out"))), name, method)
    return found


def _check_device(device: str | None, backbone: str) -> None:
    """Refuses a name that is no device (RequestError), and a device that is not here (MachineError)."""
    if device is not None and "device_map" in loading_of(backbone)[1]:
        raise RequestError(f"`--device-map` chooses the devices: leave out `--device {device[:60]}`.")
    if device is None or device == "cpu":
        return
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not number.isdigit()) or device.endswith(":"):
        raise unknown_name("device", device[:60], DEVICES, "An NVIDIA GPU is `cuda`, the second one `cuda:1`.")
    from mmpt_bench.engine.models.devices import check_device

    check_device(device)


def _limit(options: Options) -> int | None:
    if (limit := options.get("limit")) is not None and limit < 1:
        raise RequestError(f"`--limit {limit}`: 1 or more.")
    return limit


def _eval_batch(options: Options) -> int:
    size = options.get("eval_batch_size", EVAL_BATCH)
    if not 1 <= size <= MOST:
        raise RequestError(f"`--eval-batch-size` is {str(size)[:40]}: a number from 1 to {MOST:,}.")
    return size


def _micro_batch(options: Options) -> int | None:
    size = options.get("micro_batch")
    if size is not None and size < 1:
        raise RequestError(f"`--micro-batch` is {str(size)[:40]}: 1 or more.")
    return size


def known_world(name: str, is_embedded: bool) -> str:
    """Returns the world that is evaluated; RequestError for one that is not, or where the suite is another."""
    if name not in WORLDS:
        raise unknown_name("world", name, WORLDS)
    if name != SHIFTED and not is_embedded:
        raise RequestError(f"`--world {name}` is for the embedded suite: leave out `--data`, and `--backbone` too.")
    return name


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def _train_data(options: Options) -> TrainData:
    """Returns what to train on; raises RequestError for options that can be no training data."""
    source = options.get("train_data", EMBEDDED)
    names = dict(text.partition("=")[::2] for text in pairs(options.get("dataset", ())))
    wanted = TrainData(
        source=source,
        images=_path(options.get("train_images")),
        decontaminated=options.get("decontaminate", False),
        data=_path(options.get("data")),
        embedded=options.get("backbone", EMBEDDED) == EMBEDDED and options.get("data") is None,
        collections=tuple(image_folders(pairs(options.get("images", ()))).items()),
        dataset=names.get(source.removeprefix("task:"), ""),
        columns=_train_columns(options),
        offline=options.get("offline", False),
    )
    check_train_data(wanted)
    return wanted


def _train_columns(options: Options) -> tuple[tuple[str, str], ...]:
    texts = pairs(options.get("columns", ()))
    tasks = [text.partition("=")[0].rpartition(".")[0] for whole in texts for text in whole.split(",")]
    return tuple((column, own) for _, column, own in column_names(texts, tasks, train=True))
