"""What share of small faults the tests notice: one fault put into the code at a time, and the tests that run over it.

    nice -n 15 python benchmarks/mutants.py --sample 300 --seed 1 --out mutants.jsonl
    nice -n 15 python benchmarks/mutants.py --again mutants.jsonl

A random sample of mutants (`mutations.py`) is drawn from `PACKAGES`, files in proportion to their lines; the same seed
draws the same sample of the same code, and a smaller sample is the beginning of a larger one. The tests of `TESTS` run
once with a tracer; then each mutant gets, quickest first, those that run over its statement. It is killed by the first
that fails, or by five times their time. `--again` repeats those that survived in an earlier run's file. Mutants that no
one can see are listed with a reason in equivalent_mutants.txt and left out of the share. Not used are the golden
results, tests over `LONGEST` seconds and slow ones.

Why not a known tool: mutmut 3 mutates neither what is outside functions nor what is in decorated classes and functions,
of which the frozen dataclasses, context managers and constants here consist; cosmic-ray starts Python anew for a
mutant, and an import of torch costs more than the tests. Here a mutant is tried in a fork of a process in which torch
is imported and the tests are collected: a function gets the changed code; what is outside functions is imported anew,
without mmpt_bench in memory. Programs that tests start read the changed file, in a copy of the checkout."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from py_compile import PycInvalidationMode
from types import CodeType, FunctionType
from typing import Any

import psutil
import pytest
from mutations import ROOT, Mutant, mutants_of, source_of

PACKAGES = ("stats", "evaluation", "records", "engine/training", "engine/inference")
TESTS = (*(f"tests/{package}" for package in PACKAGES), "tests/board/test_from_records.py", "tests/engine/forward")
OPTIONS = ("-o", "addopts=", "--import-mode=importlib", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
           "-m", "not slow and not gpu and not network and not lmms",
           "-k", "not as_many_trials and not search_of_its_own")  # fmt: skip
"""Searches of rates, the slowest tests, start programs of their own, which the tracer does not see."""
LONGEST = 8.0
"""Seconds of the processor, with the tracer, above which a test is not used."""
IDLE, MEMORY = 120, 24 * 2**30
"""Seconds without any work after which a test waits for ever, and bytes of address space that a mutant may ask for."""
LIBRARIES = {"torch", "transformers", "peft", "scipy", "statsmodels", "pandas", "PIL", "tokenizers", "hypothesis"}
Tried = tuple[Mutant, str]
"""A mutant, and "killed", "timeout", "survived" or "equivalent"."""


def sample(size: int, seed: int) -> list[Mutant]:
    """Returns `size` mutants without repetition, files in proportion to their lines."""
    rng = random.Random(seed)
    paths = [f"mmpt_bench/{p}/{f.name}" for p in PACKAGES for f in sorted((ROOT / "mmpt_bench" / p).glob("*.py"))]
    left = {path: rng.sample(all_of, len(all_of)) for path in paths if (all_of := mutants_of(path))}
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in left}
    chosen: list[Mutant] = []
    while len(chosen) < size and any(left.values()):
        (path,) = rng.choices(list(left), [lines[path] for path in left])
        if left[path]:
            chosen.append(left[path].pop())
    return chosen


@dataclass
class Baseline:
    """What the tests do without a mutant."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Of the processor, with those of processes that it started, of each test that passes."""
    over: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Test, or file of tests for what their fixtures do -> file of the package -> lines."""
    modules: list[str] = field(default_factory=list)
    """Of libraries, that the tests imported."""

    def tests(self, mutant: Mutant) -> list[str]:
        """Returns the tests that run over a mutant, quickest first; where none is known to, all that use its file."""
        first, last = mutant.lines
        on_line, on_file = set(), set()
        for where, of in self.over.items():
            lines = of.get(mutant.path, [])
            on_file |= {where} if lines else set()
            on_line |= {where} if any(first <= line <= last for line in lines) else set()
        wanted = on_line if mutant.inside and on_line else on_file
        chosen = [test for test in self.seconds if test in wanted or file_of(test) in wanted]
        chosen = [test for test in chosen if self.seconds[test] <= LONGEST]
        # Tests of a file stay together, because they share fixtures.
        least = {file_of(test): min(self.seconds[t] for t in chosen if file_of(t) == file_of(test)) for test in chosen}
        return sorted(chosen, key=lambda test: (least[file_of(test)], file_of(test), self.seconds[test]))


def file_of(test: str) -> str:
    """Returns the file of a test."""
    return test.partition("::")[0]


class Tracer:
    """A plugin of pytest that notes which lines of `PACKAGES` each test runs over, and how long it takes."""

    def __init__(self, tree: Path, leave: Path) -> None:
        self._roots = tuple(f"{tree}/mmpt_bench/{package}/" for package in PACKAGES)
        self._tree, self._leave, self._at, self._began, self.found = f"{tree}/", leave, "", 0.0, Baseline()
        self._lines: dict[tuple[str, str], set[int]] = defaultdict(set)

    def _call(self, frame: Any, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(self._roots):
            return None
        lines = self._lines[self._at, name.removeprefix(self._tree)]
        lines.add(frame.f_lineno)

        def line(frame: Any, event: str, arg: Any) -> Any:
            lines.add(frame.f_lineno)
            return line

        return line

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._at = file_of(nodeid)
        threading.settrace(self._call)
        sys.settrace(self._call)

    def pytest_runtest_call(self, item: Any) -> None:
        self._at, self._began = item.nodeid, sum(os.times()[:4])

    def pytest_runtest_teardown(self, item: Any) -> None:
        self._at = file_of(item.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            self.found.seconds[report.nodeid] = sum(os.times()[:4]) - self._began

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        for (at, path), lines in self._lines.items():
            self.found.over.setdefault(at, {})[path] = sorted(lines)
        self.found.modules = [name for name in sys.modules if name.partition(".")[0] in LIBRARIES]
        self._leave.write_text(json.dumps(vars(self.found)), encoding="utf-8")


def in_fork(work: Callable[[], int], limit: float) -> str:
    """Does work in a fork; returns "survived", "killed" where it does not return 0, or "timeout".

    `limit` is in seconds of the processor, so that a busy machine ends no test; one that only waits has `IDLE`.
    """
    child, done, status = os.fork(), 0, 0
    if not child:
        code = 3
        try:
            os.setsid()
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit + time.process_time()), resource.RLIM_INFINITY))
            code = work()
        finally:
            os._exit(code)
    try:
        worked, used = time.monotonic(), 0.0
        while not done and time.monotonic() - worked < IDLE:
            time.sleep(0.01)
            if (now := sum(psutil.Process(child).cpu_times()[:2])) > used:
                worked, used = time.monotonic(), now
            done, status = os.waitpid(child, os.WNOHANG)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
            if not done:
                os.waitpid(child, 0)
    if not done or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return "timeout"
    return "survived" if status == 0 else "killed"


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """Yields a copy of the checkout, as the working folder, whose compiled files are checked by their content."""
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        tree = Path(folder).resolve() / "tree"
        names = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, text=True)
        for name in names.split("\0"):
            if name and (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        if (ROOT.parent / "shared").exists():
            (tree.parent / "shared").symlink_to((ROOT.parent / "shared").resolve())
        # The checkout's history is left out: what asks for the commit gets one of the copy.
        for command in ("init -q", "add -A", "-c user.name=copy -c user.email=copy commit -qm copy"):
            subprocess.run(["git", *command.split()], cwd=tree, check=True)
        compileall.compile_dir(tree, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        os.environ |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "TMPDIR": folder}
        tempfile.tempdir = folder
        sys.path[:] = [str(tree), *(path for path in sys.path if Path(path).resolve() != ROOT)]
        os.chdir(tree)
        yield tree


def baseline_of(tree: Path, tests: list[str]) -> Baseline:
    """Returns what the tests do without a mutant, and imports the libraries that they use."""
    leave = tree.parent / "baseline.json"
    in_fork(lambda: pytest.main([*OPTIONS, *tests], [Tracer(tree, leave)]), 3600)
    found = Baseline(**json.loads(leave.read_text(encoding="utf-8")))
    for name in found.modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return found


@contextlib.contextmanager
def changed(mutant: Mutant) -> Iterator[str]:
    """Inside, the copy has the mutant in its file; yields its source."""
    at = Path(mutant.path)
    whole, source = at.read_text(encoding="utf-8"), source_of(mutant)
    at.write_text(source, encoding="utf-8")
    try:
        yield source
    finally:
        at.write_text(whole, encoding="utf-8")


def imported_anew(mutants: list[Mutant], known: Baseline) -> Iterator[Tried]:
    """Yields what becomes of mutants outside functions; mmpt_bench is not to be in memory yet."""
    for mutant in mutants:
        tests = known.tests(mutant)
        limit = 20 + 5 * sum(known.seconds[test] for test in tests)
        with changed(mutant):
            yield mutant, in_fork(lambda tests=tests: pytest.main([*OPTIONS, "-x", *tests]), limit)  # type: ignore[misc]


class Swap:
    """A plugin of pytest that, in place of running the tests, tries each mutant on those that run over it."""

    def __init__(self, mutants: list[Mutant], known: Baseline, tell: Callable[[Tried], None]) -> None:
        self._mutants, self._known, self._tell, self._failed = mutants, known, tell, False

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._failed |= report.failed

    def pytest_runtestloop(self, session: Any) -> bool:
        items = {item.nodeid: item for item in session.items}
        functions: dict[tuple[str, str], list[FunctionType]] = defaultdict(list)
        for each in gc.get_objects():
            if isinstance(each, FunctionType):
                functions[each.__code__.co_filename, each.__code__.co_qualname].append(each)
        gc.freeze()
        for mutant in self._mutants:
            tests = [items[test] for test in self._known.tests(mutant)]
            limit = 10 + 5 * sum(self._known.seconds[item.nodeid] for item in tests)
            with changed(mutant) as source:
                codes = dict(codes_of(compile(source, str(Path(mutant.path).resolve()), "exec")))

                def work(codes: dict[str, CodeType] = codes, tests: list[Any] = tests) -> int:
                    for name, code in codes.items():
                        for function in functions[code.co_filename, name]:
                            function.__code__ = code
                    for item, following in zip(tests, [*tests[1:], None], strict=True):
                        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                        if self._failed:
                            return 1
                    return 0

                self._tell((mutant, in_fork(work, limit)))
        return True


def codes_of(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    """Yields (qualified name, code) of a module's functions and methods, those within functions left out."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            is_function = bool(each.co_flags & 1)
            yield from [(each.co_qualname, each)] if is_function else codes_of(each)


def equivalents() -> dict[str, str]:
    """Returns label -> reason of the mutants that change nothing that anyone can see."""
    lines = (ROOT / "benchmarks" / "equivalent_mutants.txt").read_text(encoding="utf-8").splitlines()
    whole = [line for line in lines if line and not line.startswith("#")]
    return dict(zip(whole[::2], whole[1::2], strict=True))


def table(tried: list[Tried]) -> str:
    """Returns the counts by package, the share killed of those that are not equivalent, and its 95 % interval."""
    from scipy.stats import binomtest

    rows = ["| Package | Mutants | Killed | Survived | Equivalent | Share killed |", "|---|--:|--:|--:|--:|--:|"]
    for name in (*PACKAGES, "all"):
        of = Counter(outcome for mutant, outcome in tried if name == "all" or f"/{name}/" in mutant.path)
        killed, survived, share = of["killed"] + of["timeout"], of["survived"], "n/a"
        if killed + survived:
            found = binomtest(killed, killed + survived).proportion_ci(method="wilson")
            share = f"{killed / (killed + survived):.1%} ({found.low:.1%} to {found.high:.1%})"
        rows.append(f"| {name} | {of.total()} | {killed} | {survived} | {of['equivalent']} | {share} |")
    return "\n".join(rows)


def main() -> None:
    """Draws the sample, tries each mutant and prints those that survive and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=300, help="number of mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="those whose label holds this text")
    parser.add_argument("--again", type=Path, help="an earlier run's file: the mutants that survived there")
    parser.add_argument("--out", type=Path, help="file for a line a mutant")
    parser.add_argument("--tests", nargs="*", help="files of tests, in place of those that mirror the packages")
    asked = parser.parse_args()
    mutants = [mutant for mutant in sample(asked.sample, asked.seed) if asked.only in mutant.label]
    if asked.again:
        earlier = [json.loads(line) for line in asked.again.read_text(encoding="utf-8").splitlines()]
        survived = {each["label"] for each in earlier if each["outcome"] == "survived"}
        mutants = [mutant for mutant in mutants if mutant.label in survived]
    out, began, tried = asked.out and asked.out.resolve(), time.monotonic(), list[Tried]()

    def tell(one: Tried) -> None:
        tried.append(one)
        mutant, outcome = one
        if out:
            with out.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"label": mutant.label, "line": mutant.lines[0], "outcome": outcome}) + "\n")
        if outcome == "survived":
            print(f"{mutant.label}  (line {mutant.lines[0]})", flush=True)
        print(f"{len(tried)} of {len(mutants)}, {time.monotonic() - began:.0f} s: {outcome}", file=sys.stderr)

    listed, tests = equivalents(), asked.tests or list(TESTS)
    tried += [(mutant, "equivalent") for mutant in mutants if mutant.label in listed]
    left = [mutant for mutant in mutants if mutant.label not in listed]
    with copied() as tree:
        known = baseline_of(tree, tests)
        print(f"{len(known.seconds)} tests, {time.monotonic() - began:.0f} s", file=sys.stderr)
        for one in imported_anew([mutant for mutant in left if not mutant.inside], known):
            tell(one)
        swap = Swap([mutant for mutant in left if mutant.inside], known, tell)
        pytest.main([*OPTIONS, "-q", "-s", "--no-header", "--no-summary", *tests], [swap])
    print(table(tried))


if __name__ == "__main__":
    main()
