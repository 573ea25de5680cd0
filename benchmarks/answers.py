"""How many bytes answers take as JSON lines and as Parquet (`--answers parquet`), and how long reading them takes.

    python benchmarks/answers.py               50,000 answers
    python benchmarks/answers.py --n 9000      fewer

Answers are drawn, to yes-or-no questions, two an image; log-probabilities have the digits of float32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from mmpt_bench.data.samples import Prediction
from mmpt_bench.records.run_folder import RunFolder

TASK, KEY = "drawn", "0123456789abcdef"


def drawn(n: int) -> list[Prediction]:
    """Returns answers with random log-probabilities."""
    found = np.log(np.random.default_rng(0).dirichlet([1, 1], n)).astype(np.float32)
    said = ["yes" if yes > no else "no" for yes, no in found]
    return [Prediction(f"{i // 2}-{i % 2}", f"{a.title()}.", a, a, tuple(map(float, row)))
            for i, (a, row) in enumerate(zip(said, found, strict=True))]  # fmt: skip


def main() -> None:
    """Prints bytes and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    given = parser.parse_args()
    sizes, seconds = [], []
    with tempfile.TemporaryDirectory() as root:
        run = RunFolder(Path(root), "run")
        run.append_predictions(TASK, KEY, drawn(given.n))
        for _ in ("lines", "Parquet"):
            sizes.append(run.answers_written(TASK, KEY)[0])
            began = time.perf_counter()
            run.predictions(TASK, KEY)
            seconds.append(time.perf_counter() - began)
            run.pack_answers(TASK, KEY)
    lines, packed = sizes
    print(f"{given.n:,} answers: {lines:,} bytes as lines, {packed:,} as Parquet, {lines / packed:.1f} times fewer")
    print(f"read in {seconds[0]:.1f} s as lines, in {seconds[1]:.1f} s as Parquet")


if __name__ == "__main__":
    main()
