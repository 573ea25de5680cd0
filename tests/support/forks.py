"""Runs commands in forks of a process that has made their imports: of a short command's time they are the most.

`python forks.py MODULE` imports the module, then takes a JSON object a line and answers with an exit code a line.
"""

import importlib
import json
import os
import runpy
import signal
import sys


def main() -> None:
    """Forks a process for each line, which runs that command and ends as it does."""
    importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(words: list[str], cwd: str, environment: dict[str, str], files: list[str], seconds: int) -> None:
    """Runs one command, its standard output and error going to files."""
    signal.alarm(seconds)
    for path, number in zip((os.devnull, *files), range(3), strict=True):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["mmpt-bench", *words]
    runpy.run_module("mmpt_bench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
