"""What is lost when commands are killed: SIGKILL at random times, then a comparison with a run that nobody disturbed.

    python benchmarks/soak.py --kills 1000
    nice python benchmarks/soak.py --kills 10000 --seed 1

`run`, `tune`, `ablate`, `leaderboard` and `report` run one after the other in one results folder. Each is killed at a
random time and given again, until it ends by itself; then the folder must equal, byte for byte, that of an undisturbed
round, and the next round begins. Printed are kills by command, what differs, what is missing and what is left over.

Commands run in forked children of a process that has torch, the model and the suite in memory, so that a kill costs no
start-up. To make rounds short, the suite is small and figures are drawn once; a checkpoint is written after each step.
Clocks and memory meters stand still, so that their columns need no exception from the comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mmpt_bench.embedded import mixture, suite
from mmpt_bench.engine.inference import predict
from mmpt_bench.engine.models import backbone as backbones
from mmpt_bench.engine.training import checkpoint, memory, train
from mmpt_bench.figures import draw
from mmpt_bench.records import store
from mmpt_bench.records.rate_trials import TRIALS
from mmpt_bench.runs import session, training
from mmpt_bench.study.searches import rounds

SIZE = ("--steps", "3", "--batch-size", "2")
COMMANDS = (
    ("run", "--method", "frozen,lora,projector", "--tasks", "mme,mnist", *SIZE),
    ("tune", "--method", "lora,projector", "--rounds", "1", "--grid", "1e-3,3e-3", *SIZE),
    ("ablate", "--prompt-len", "2,3", "--tasks", "mnist", *SIZE),
    ("leaderboard", "--publish"),
    ("report",),
)
BATCH = 4
"""Questions answered together: few, so that kills find tasks half answered."""
NOT_COMPARED = ("lock", "mmpt-bench.log")
"""Files whose content is no result: who held a lock last, and what happened when."""
clock = time.monotonic


def main() -> None:
    """Runs the rounds and prints what was found; exits with 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.pop(store.VARIABLE, None)
    _make_small()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        sys.exit(_soak(Path(folder), options.kills, random.Random(options.seed)))


def _make_small() -> None:
    """Puts the small suite, the kept figures and the standing clocks in the place of the usual ones."""
    torch.set_num_threads(1)
    mixture.CORPUS_SIZE, mixture.VALIDATION_SIZE = 32, 8
    suite.N_IMAGES.update(mme=1, pope=2, vsr=2, snli_ve=2, cifar10=10, mnist=16)
    options = predict.InferenceOptions
    predict.InferenceOptions = lambda size, *others: options(BATCH, *others)
    backbones.load_backbone = functools.cache(backbones.load_backbone)
    render, drawn = draw.render, {}

    def once(figure: Any, form: Any, text: Any = "paths") -> bytes:
        key = (figure.name, figure.title, figure.csv, form, text)
        if key not in drawn:
            drawn[key] = render(figure, form, text)
        return drawn[key]

    draw.render = once
    checkpoint.CHECKPOINT_SECONDS, checkpoint.CHECKPOINT_SHARE = -1.0, 1e9
    training.STEPS_A_WRITE = 1
    training.uuid = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex="0" * 32))
    time.perf_counter = lambda: 1.0
    memory.PeakMemory.note = lambda self: 2**30
    # A training in several sittings has no costs of one process.
    train._Training._process_costs = memory.CpuClock.others = lambda self: None
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    still = SimpleNamespace(UTC=datetime.UTC, datetime=SimpleNamespace(now=lambda zone: now))
    session.datetime = rounds.datetime = still


def _soak(folder: Path, kills: int, chance: random.Random) -> int:
    for words in COMMANDS:
        # Fills the caches that the children inherit.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            _command(words, folder / "warm", in_child=False)
    lengths = [_until_end(words, folder / "undisturbed") for words in COMMANDS]
    expected = _content(folder / "undisturbed")
    if not any(name.endswith("adapter_model.safetensors") for name in expected):
        raise RuntimeError(f"an undisturbed round leaves no adapter in {store.DEFAULT}/: there is nothing to compare")
    took = ", ".join(f"{words[0]} {seconds:.1f} s" for words, seconds in zip(COMMANDS, lengths, strict=True))
    print(f"undisturbed: {len(expected)} files; {took}", flush=True)
    killed: Counter[str] = Counter()
    faults: list[str] = []
    rounds, began, told = 0, clock(), 0
    while killed.total() < kills:
        place = folder / f"round-{rounds}"
        try:
            for words, seconds in zip(COMMANDS, lengths, strict=True):
                killed[words[0]] += _killed_until_done(words, place, seconds, chance, kills - killed.total())
        except RuntimeError as error:
            faults.append(f"round {rounds}: {error}")
        else:
            found = [f"round {rounds}: {fault}" for fault in _differences(expected, _content(place))]
            print(*found, sep="\n", end="\n" * bool(found), flush=True)
            faults += found
        shutil.rmtree(place)
        rounds += 1
        if killed.total() >= told + 100 or killed.total() >= kills:
            told = killed.total()
            print(f"{told} kills, {rounds} rounds, {len(faults)} faults, {clock() - began:.0f} s", flush=True)
    print("kills: " + ", ".join(f"{name} {n}" for name, n in killed.items()))
    print("\n".join(faults) or "nothing lost, nothing differs, nothing left over")
    return bool(faults)


def _killed_until_done(words: tuple[str, ...], place: Path, seconds: float, chance: random.Random, allowed: int) -> int:
    """Gives a command again and again until it ends by itself; returns how often it was killed."""
    kills = 0
    while True:
        child = _start(words, place)
        if kills < allowed:
            # On a busy machine a command takes longer than it took undisturbed.
            time.sleep(seconds * chance.random() ** 2 * 1.05**kills)
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            kills += 1
        elif os.WEXITSTATUS(status) == 0:
            return kills
        else:
            last = (place / "said").read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"`{words[0]}` ended with {os.WEXITSTATUS(status)} after {kills} kills:\n{last}")


def _until_end(words: tuple[str, ...], place: Path) -> float:
    """Runs a command undisturbed and returns how long it takes when it has a core of its own, in seconds."""
    _, status, used = os.wait4(_start(words, place), 0)
    if status:
        raise RuntimeError(f"`{' '.join(words)}` fails undisturbed:\n{(place / 'said').read_text()[-3000:]}")
    return used.ru_utime + used.ru_stime


def _start(words: tuple[str, ...], place: Path) -> int:
    """Returns the process that runs a command in `place`."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = _command(words, place)
    finally:
        os._exit(code)


def _command(words: tuple[str, ...], place: Path, in_child: bool = True) -> int:
    """Runs a command line in `place`, its output in the file `said`, and returns its exit code."""
    place.mkdir(exist_ok=True)
    os.chdir(place)
    if in_child:
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(said, 1)
        os.dup2(said, 2)
    from mmpt_bench.cli import main as command_line

    sys.argv = ["mmpt-bench", *words]
    try:
        command_line.main()
    except SystemExit as end:
        sys.stdout.flush()
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def _content(place: Path) -> dict[str, str]:
    """Returns the checksum of every file of the results folder by its path."""
    root, found = place / store.DEFAULT, {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = b"" if path.name in NOT_COMPARED else path.read_bytes()
            if path.name == TRIALS:
                # A search that goes on after a kill may begin its next round before another ends its first.
                content = b"".join(sorted(content.splitlines(keepends=True)))
            found[str(path.relative_to(root))] = hashlib.sha256(content).hexdigest()
    return found


def _differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    lost = [f"lost: {name}" for name in expected.keys() - found.keys()]
    left = [f"left over: {name}" for name in found.keys() - expected.keys()]
    other = [f"differs: {name}" for name in expected.keys() & found.keys() if expected[name] != found[name]]
    return sorted([*lost, *left, *other])


if __name__ == "__main__":
    main()
