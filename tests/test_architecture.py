"""The layout of the code, read from the code: who may import whom, where torch is, how large things may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from support.paths import ROOT
from support.tree import PAGE, with_tree

ENGINE = ROOT / "mmpt_bench"
ORDER = ("common", "data", "stats", "evaluation", "records", "embedded", "sources", "engine", "methods", "runs",
         "board", "study", "figures", "report", "interop", "cli")  # fmt: skip
"""Packages from the ground up."""
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "data": {"common"},
    "stats": {"common"},
    "evaluation": {"common", "data", "stats"},
    "records": {"common", "data", "stats", "evaluation"},
    "embedded": {"common", "data", "evaluation"},
    "sources": {"common", "data", "stats", "evaluation", "records", "embedded"},
    "engine": {"common", "data", "stats", "evaluation", "records", "embedded", "sources"},
    "methods": {"common", "data", "evaluation", "records", "sources", "engine"},
    "runs": {"common", "data", "stats", "evaluation", "records", "sources", "engine", "methods"},
    "board": {"common", "data", "stats", "evaluation", "records"},
    "study": {"common", "data", "stats", "evaluation", "records", "sources", "engine", "methods", "runs", "board"},
    "figures": {"common", "data", "stats", "evaluation", "records", "board", "study"},
    "report": {"common", "data", "stats", "evaluation", "records", "sources", "methods", "board", "study", "figures"},
    "interop": set(ORDER) - {"cli", "report", "figures"},
    "cli": {*ORDER, "api"},
    # One file each, beside the packages.
    "api": {*ORDER, "analysis", "continual"} - {"cli"},
    "continual": set(ORDER) - {"cli"},
    "analysis": set(ORDER) - {"cli"},
    "peft": {"engine"},
    "mmpt": {"common", "engine", "methods"},
}
"""Package -> the packages that it may import, at whatever level of its files."""
HEAVY = ("torch", "transformers", "peft")
WITH_TORCH = {"mmpt_bench.interop.lmms_eval", "mmpt_bench.peft"}
"""Modules outside `engine` that may import torch: the bridge to lmms-eval, and the one that makes PEFT know MMPT."""
MOST_LINES, MOST_IN_FUNCTION, MOST_LOOSE, MIN_ALONE = 350, 60, 10, 40
ENTRANCES = {"mmpt_bench.__main__", "mmpt_bench.peft"}
"""Files that are short because they only open the way to others."""
STARTS_PROCESSES = {
    "mmpt_bench.common.locks": "a process that tries one lock, for `doctor --out`",
    "mmpt_bench.records.environment": "git, which is asked for the commit",
    "mmpt_bench.cli.measuring": "one process after the other, each with memory of its own to measure",
    "mmpt_bench.engine.pretraining.pretrain": "torch's own launcher, for the embedded backbone",
}
"""Modules outside `runs.workers` that start processes, and why. Ray, Slurm and torchrun schedule; nothing else does."""
CHANGES_GRADIENTS = {
    "mmpt_bench.engine.training.masters": "gives gradients of rounded values to float32 ones",
    "mmpt_bench.engine.training.objective": "divides by the answer tokens of all ranks",
    "mmpt_bench.engine.training.parallel": "makes DDP's averages sums",
    "mmpt_bench.engine.training.sharded": "makes averages of `fully_shard` sums",
}
"""Modules that change a gradient, and why. DDP and `fully_shard` alone add up those of ranks."""
SHARE_A_TRAINING = {"mmpt_bench.engine.training.parallel", "mmpt_bench.engine.training.sharded"}
"""Modules that may add up what ranks have."""
PROCESSES = re.compile(
    r"(subprocess|multiprocessing|asyncio|sched|joblib|dask|ray|submitit|torch\.multiprocessing)(\..*)?"
    r"|torch\.distributed\.(run|launch|launcher|elastic)(\..*)?|concurrent\.futures(\.process|\.ProcessPoolExecutor)?"
    r"|os\.(fork|forkpty|popen|system|spawn\w+|exec\w+|posix_spawnp?)"
)
COLLECTIVES = {"all_reduce", "all_reduce_coalesced", "reduce_scatter", "reduce_scatter_tensor", "all_gather",
               "all_gather_into_tensor", "ReduceOp"}  # fmt: skip
IN_PLACE = {"add_", "sub_", "mul_", "div_", "copy_"}


def files() -> dict[str, Path]:
    found = {}
    for path in sorted(ENGINE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = files()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> tuple[tuple[str, bool], ...]:
    """Returns (module, whether at the file's beginning) of every import of a file, lazy and for types alone too."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[tuple[str, bool]]:
    tree = parsed(path)
    beginning = set(map(id, tree.body))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from ((name, id(node) in beginning) for name in names)


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def graph() -> dict[str, set[str]]:
    return {name: {each for each, _ in imported(path) if each in FILES} - {name} for name, path in FILES.items()}


def test_a_module_imports_only_packages_below_its_own() -> None:
    wrong = {
        name: sorted(above)
        for name, path in FILES.items()
        if (own := package(name)) in MAY_IMPORT
        and (above := {package(each) for each, _ in imported(path) if each.startswith("mmpt_bench.")}
             - {own} - MAY_IMPORT[own])
    }  # fmt: skip
    assert wrong == {}


def test_every_package_has_a_row_in_the_table() -> None:
    there = {path.name for path in ENGINE.iterdir() if (path / "__init__.py").is_file()}
    assert there == set(ORDER)


def test_no_module_reaches_itself() -> None:
    reach = graph()
    for start in reach:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for each in reach[todo.pop()]:
                assert each != start, f"{start} imports itself by a circle"
                if each not in seen:
                    seen.add(each)
                    todo.append(each)


def test_torch_is_at_the_beginning_of_engine_files_alone() -> None:
    heavy = [
        (name, each)
        for name, path in FILES.items()
        if package(name) != "engine" and name not in WITH_TORCH
        for each, at_beginning in imported(path)
        if at_beginning and each.split(".")[0] in HEAVY
    ]
    assert heavy == []


def test_what_is_outside_the_engine_imports_without_torch() -> None:
    names = [name for name in FILES if package(name) != "engine" and name not in WITH_TORCH and "__main__" not in name]
    code = (
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        "assert not {'torch', 'transformers', 'peft', 'datasets', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("folder", ["tasks", "baselines"])
def test_tasks_and_baselines_import_without_torch(folder: str) -> None:
    names = sorted(path.stem for path in (ROOT / folder).glob("*.py"))
    code = (
        f"import importlib.util, sys\nfor name in {names!r}:\n"
        f"    spec = importlib.util.spec_from_file_location(name, f'{folder}/{{name}}.py')\n"
        "    module = importlib.util.module_from_spec(spec)\n"
        "    sys.modules[name] = module\n    spec.loader.exec_module(module)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_module_imports_a_task_or_a_baseline() -> None:
    for path in FILES.values():
        for name, _ in imported(path):
            assert not name.startswith(("tasks", "baselines", "mmpt_bench.tasks", "mmpt_bench.baselines"))


def test_how_scenes_are_made_is_known_to_the_suite_and_to_pretraining_alone() -> None:
    for name, path in FILES.items():
        if not name.startswith(("mmpt_bench.embedded", "mmpt_bench.engine.pretraining")):
            reached = {each for each, _ in imported(path)}
            assert not {"mmpt_bench.embedded.world", "mmpt_bench.embedded.language"} & reached


def test_few_files_stand_loose() -> None:
    assert len(list(ENGINE.glob("*.py"))) <= MOST_LOOSE


def test_files_and_functions_stay_short() -> None:
    assert [name for name, of in FILES.items() if len(of.read_text(encoding="utf-8").splitlines()) > MOST_LINES] == []
    functions = [
        (name, node)
        for name, path in FILES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [(name, of.name) for name, of in functions if (of.end_lineno or 0) - of.lineno >= MOST_IN_FUNCTION]
    assert long == []


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    there = {name for name, path in FILES.items() if path.name == "__init__.py"}
    beside = {f"mmpt_bench.{name}" for name in ("tasks", "baselines", "examples", "results")}
    assert set(listed) == there | beside


def test_a_short_file_serves_more_than_one_other() -> None:
    importers: dict[str, set[str]] = {name: set() for name in FILES}
    for name, reached in graph().items():
        for each in reached:
            importers[each].add(name)
    short = {name for name, path in FILES.items() if len(path.read_text(encoding="utf-8").splitlines()) < MIN_ALONE}
    alone = {
        name
        for name in short - ENTRANCES
        if FILES[name].name != "__init__.py" and package(name) != "cli" and len(importers[name]) == 1
    }
    assert not alone, "a file that one other imports, and shorter than this, belongs in that other"


def test_the_tree_in_the_documentation_is_the_one_on_disk() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tree(page) == page, "run `PYTHONPATH=tests python tests/support/tree.py`"


def test_tests_mirror_the_packages() -> None:
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")} - {"."}
    packages = {path.parent.relative_to(ENGINE).as_posix() for path in FILES.values()}
    assert folders <= packages
    assert {path.name for path in tests.glob("test_*.py")} == {
        "test_api.py", "test_architecture.py", "test_docs.py", "test_examples.py", "test_first_hour.py",
        "test_reliability.py", "test_results.py",
    }  # fmt: skip
    asking = [path for path in tests.rglob("*.py") if "Path(__file__)" in path.read_text(encoding="utf-8")]
    assert set(asking) == {tests / "support" / "paths.py", tests / "test_architecture.py"}, "the only home of paths"


def named(tree: ast.AST) -> set[str]:
    """Returns what code imports, and every dotted name in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    return found


def starts_processes(tree: ast.AST) -> bool:
    return any(PROCESSES.fullmatch(name) for name in named(tree))


def adds_up_tensors(tree: ast.AST) -> bool:
    return any(name.rpartition(".")[2] in COLLECTIVES for name in named(tree))


def changes_gradients(tree: ast.AST) -> bool:
    """Returns whether code changes a gradient; one that is set to None is dropped, not changed."""
    targets: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            targets += node.targets
        elif isinstance(node, ast.AugAssign):
            targets.append(node.target)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in IN_PLACE:
            targets.append(node.func.value)
    return any(getattr(part, "attr", "") == "grad" for each in targets for part in ast.walk(each))


def test_no_scheduler_of_processes_and_no_average_of_gradients_is_written_by_hand() -> None:
    trees = {name: parsed(path) for name, path in FILES.items()}
    start = {name for name, tree in trees.items() if starts_processes(tree)}
    assert {name for name in start if not name.startswith("mmpt_bench.runs.workers.")} == set(STARTS_PROCESSES)
    assert {name for name, tree in trees.items() if changes_gradients(tree)} == set(CHANGES_GRADIENTS)
    assert {name for name, tree in trees.items() if adds_up_tensors(tree)} <= SHARE_A_TRAINING


@pytest.mark.parametrize(
    ("finds", "code"),
    [
        (starts_processes, "from torch import multiprocessing"),
        (starts_processes, "def f():\n    from concurrent.futures import ProcessPoolExecutor"),
        (starts_processes, "import os\nif os.fork(): pass"),
        (adds_up_tensors, "import torch.distributed as d\nd.all_reduce(p.grad)"),
        (adds_up_tensors, "from torch.distributed import reduce_scatter_tensor"),
        (changes_gradients, "p.grad /= world_size"),
        (changes_gradients, "p.grad.div_(n)"),
        (changes_gradients, "p.grad = sum(all) / n"),
        (changes_gradients, "p.grad.data[:] = mean"),
    ],
)
def test_what_is_written_by_hand_is_found(finds: Callable[[ast.AST], bool], code: str) -> None:
    assert finds(ast.parse(code))
    usual = (
        "from concurrent.futures import ThreadPoolExecutor\np.grad = None\nx = p.grad.add(1)\nfunctools.reduce(f, x)"
    )
    assert not finds(ast.parse(usual))
