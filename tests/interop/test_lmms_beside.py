"""The benchmark beside lmms-eval runs, and finds equal replies, with each of its classes. Run by `bash .ci/lmms`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.lmms
VIDEO = ("torchvision",)
NEEDS = {
    "midsize": ("decord",), "smolvlm": VIDEO, "internvl": VIDEO, "llava_onevision": ("decord", *VIDEO),
    "qwen2_5_vl": ("decord", *VIDEO, "qwen_vl_utils"), "qwen3_vl": ("decord", *VIDEO, "qwen_vl_utils"),
}  # fmt: skip
"""What lmms-eval's class for a family imports, beside its core."""


@pytest.mark.parametrize("backbone", NEEDS)
def test_replies_of_both_are_equal_and_ours_cost_less(backbone: str, tmp_path: Path) -> None:
    missing = [name for name in ("lmms_eval", *NEEDS[backbone]) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; benchmarks/beside_lmms_eval.py says how")
    words = f"--backbone {backbone} --tasks mme --scale 0.1 --json out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "beside_lmms_eval.py"), *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    # It ends with another status where a reply differs.
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["layout"], row["questions"]) == ("MME", 4)
    assert f"| MME | 4 | {row['ours']:.2f} |" in done.stdout
    # Two questions share an image: about half of the work is left.
    assert row["ours"] > 1
    assert row["kept"] > 1
