"""What the command line costs before it does anything, beside importing the two packages that it is made of.

    python benchmarks/startup.py

User and system CPU time of whole processes, taken in turns; medians. The first of each is not counted.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

BASE = ("-c", "import click, rich")
COMMANDS = {"--help": ("-m", "mmpt_bench", "--help"), "ls": ("-m", "mmpt_bench", "ls")}


def cpu_seconds(*words: str) -> float:
    """Returns the user and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(rounds: int) -> list[dict[str, float | str]]:
    """Prints the ratios, and returns them."""
    seconds: dict[str, list[float]] = {name: [] for name in ("base", *COMMANDS)}
    for number in range(rounds + 1):
        for name, words in (("base", BASE), *COMMANDS.items()):
            taken = cpu_seconds(*words)
            if number:
                seconds[name].append(taken)
    rows: list[dict[str, float | str]] = []
    print("\n| command | CPU s | of `import click, rich` |\n|---|---|---|")
    for name in COMMANDS:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["base"], strict=True))
        middle = statistics.median(seconds[name])
        rows.append({"command": name, "cpu_seconds": middle, "ratio": ratio})
        print(f"| mmpt-bench {name} | {middle:.3f} | {ratio:.2f} |", flush=True)
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    table(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
