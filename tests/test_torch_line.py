"""What must not import torch does not, and imports point one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = [
    "errors",
    "hashing",
    "task",
    "metrics",
    "parse",
    "stats",
    "resample",
    "claims",
    "budget",
    "recipe",
    "recipe_file",
    "registry",
    "store",
    "files",
    "lock",
    "source",
    "tables",
    "pixels",
    "rates",
    "tuning",
    "corpus",
    "scoring",
    "plan",
    "run",
    "leaderboard",
    "ranking",
    "render",
    "terminal",
    "sheet",
    "commands",
    "listings",
    "doctor",
    "progress",
    "machine",
    "weights",
    "cli",
    "cli_data",
    "data_check",
    "joined",
    "conversations",
    "answers",
    "answer_files",
    "matching",
    "score",
    "scorecard",
    "backbone",
    "chat",
    "contamination",
    "encoded",
    "families",
    "loaded",
    "loading",
    "peft_baseline",
    "peft_hook",
    "mmpt",
    "adapter",
    "artifacts",
    "ablate",
    "ablation",
    "ablation_board",
    "ablation_files",
    "assemble",
    "axes",
    "cli_options",
    "cli_study",
    "compare",
    "contrast",
    "curves",
    "draw",
    "figures",
    "figures.differences",
    "figures.pareto",
    "figures.style",
    "leaderboard_latex",
    "model_card",
    "planned",
    "trackers",
]
BELOW = {
    "train",
    "loss",
    "reference",
    "kv_cache",
    "shared",
    "pictures",
    "predict",
    "prompts",
    "hooks",
    "rows",
    "packed",
    "peft_methods",
    "attach",
    "anatomy",
    "checks",
    "probe",
    "tune",
}


def test_modules_above_the_line_import_without_torch() -> None:
    names = ", ".join(f"mmpt_bench.{name}" for name in ABOVE)
    code = f"import {names}, sys; assert not {{'torch', 'transformers', 'datasets', 'matplotlib'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("folder", ["tasks", "baselines"])
def test_tasks_and_baselines_import_without_torch(folder: str) -> None:
    files = sorted(path.stem for path in (ROOT / folder).glob("*.py"))
    code = (
        f"import importlib.util, sys\nfor name in {files!r}:\n"
        f"    spec = importlib.util.spec_from_file_location(name, f'{folder}/{{name}}.py')\n"
        "    module = importlib.util.module_from_spec(spec)\n"
        "    sys.modules[name] = module\n    spec.loader.exec_module(module)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _module_level_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def _file(name: str) -> Path:
    path = ROOT / "mmpt_bench" / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("name", ABOVE)
def test_nothing_above_the_line_imports_what_is_below(name: str) -> None:
    imported = _module_level_imports(_file(name))
    assert not {f"mmpt_bench.{module}" for module in BELOW} & imported


def test_no_engine_module_imports_a_task_or_a_baseline() -> None:
    for path in (ROOT / "mmpt_bench").glob("*.py"):
        for name in _module_level_imports(path):
            assert not name.startswith(("tasks", "baselines", "mmpt_bench.tasks", "mmpt_bench.baselines"))


def test_only_the_embedded_room_knows_how_the_scenes_are_made() -> None:
    for path in (ROOT / "mmpt_bench").glob("*.py"):
        text = path.read_text()
        assert "embedded.world" not in text
        assert "embedded.language" not in text
