"""The command line. stdout carries data, stderr everything else; names are checked before torch is imported."""

from __future__ import annotations

import errno
import re
import sys
from typing import NoReturn

import click

from mmpt_bench.cli.ablate import ablate
from mmpt_bench.cli.check import check
from mmpt_bench.cli.compare import compare
from mmpt_bench.cli.data import data
from mmpt_bench.cli.doctor import doctor
from mmpt_bench.cli.explain import explain
from mmpt_bench.cli.export import export
from mmpt_bench.cli.figures import figures
from mmpt_bench.cli.judged import judged
from mmpt_bench.cli.leaderboard import leaderboard
from mmpt_bench.cli.listings import ls, show
from mmpt_bench.cli.merge import merge
from mmpt_bench.cli.new import new
from mmpt_bench.cli.pretrain import pretrain
from mmpt_bench.cli.prompts import prompts
from mmpt_bench.cli.protocol import protocol
from mmpt_bench.cli.report import report
from mmpt_bench.cli.run import run
from mmpt_bench.cli.score import score
from mmpt_bench.cli.stream import stream
from mmpt_bench.cli.streams import echo, open_streams
from mmpt_bench.cli.transfer import transfer
from mmpt_bench.cli.tune import tune
from mmpt_bench.cli.verify import verify
from mmpt_bench.common.errors import BenchError, MachineError, RequestError
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.files import scrub
from mmpt_bench.common.version import VERSION


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="mmpt-bench")
def cli() -> None:
    """Tells how to adapt a multimodal LLM: methods trained alike, scored alike, with their uncertainty.

    \b
    mmpt-bench run --method mmpt --tasks mme,pope   does tuning help?
    mmpt-bench run --method all --tasks all --seeds 0-5
    mmpt-bench run --smoke                          everything once, in seconds
    mmpt-bench ls methods                           what there is to run
    mmpt-bench doctor                               is this machine ready?

    \b
    Completion of commands and options, as click has it:
    eval "$(_MMPT_BENCH_COMPLETE=bash_source mmpt-bench)"    in ~/.bashrc
    eval "$(_MMPT_BENCH_COMPLETE=zsh_source mmpt-bench)"     in ~/.zshrc
    """


COMMANDS = (
    ablate, check, compare, data, doctor, explain, export, figures, judged, leaderboard, ls, merge, new, pretrain,
    prompts, protocol, report, run, score, show, stream, transfer, tune, verify,
)  # fmt: skip
SUMMARIES = {
    "ablate": "Vary settings of a method; see what changes.",
    "check": "Test a task's or a method's file.",
    "compare": "Say which of some methods is better.",
    "data": "Look at the data before anything runs.",
    "doctor": "Say whether this machine is ready.",
    "explain": "Draw and score where a run looks.",
    "export": "Print a run's results for the hub.",
    "figures": "Draw every figure that can be drawn.",
    "judged": "Hold judges to literal scores, people.",
    "leaderboard": "Rebuild and print the leaderboard.",
    "ls": "List tasks, methods, backbones or runs.",
    "merge": "Make one results folder of several.",
    "new": "Write an experiment, task or method file.",
    "pretrain": "Rebuild or probe the embedded model.",
    "prompts": "Compare forms of prompts on a task.",
    "protocol": "Ask and score as a paper's authors do.",
    "report": "Write one HTML page with everything.",
    "run": "Train, evaluate, say whether tuning helped.",
    "score": "Score answers made elsewhere.",
    "show": "Show a task, method, backbone or run.",
    "stream": "Learn tasks in turn; say what is lost.",
    "transfer": "Learn a task from what others taught.",
    "tune": "Search each method's learning rate.",
    "verify": "Check that results are what they say.",
}
"""What the list of commands says of each, on a line of its own."""
for command in COMMANDS:
    command.short_help = SUMMARIES[command.name or ""]
    cli.add_command(command)


LONG_VALUE = 80
"""Characters of a value, between backticks, that a message shows."""
SHORT, LONG = 200, 4000
"""Characters of a message on one line, and of any."""


def main() -> None:
    """Runs the command line and exits with the code that errors.py lists."""
    open_streams()
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except BenchError as error:
        _end(error)
    except OSError as error:
        _end(_of_machine(error))
    except (MemoryError, RuntimeError) as error:
        _end(_of_memory(error))
    sys.exit(code if isinstance(code, int) else 0)


def _end(error: BenchError) -> NoReturn:
    parts = str(error).split("`")
    parts[1::2] = [shortened(part) for part in parts[1::2]]
    text = f"error: {plain_text('`'.join(parts), LONG)}"
    what, hint = (text, "") if len(text) <= SHORT else parted(text)
    echo(what, err=True)
    if hint:
        echo(f"  {hint}", err=True)
    sys.exit(error.exit_code)


def shortened(value: str) -> str:
    """Returns a value with its middle left out where it is long: of a path, the end tells most."""
    half = LONG_VALUE // 2
    return value if len(value) <= LONG_VALUE else f"{value[: half - 1]}…{value[-half:]}"


def parted(text: str) -> tuple[str, str]:
    """Returns (the first sentence of a message: what is wrong; the rest: what to do)."""
    for end in re.finditer(r"[.?!] (?=[A-Z`])", text):
        if text.count("`", 0, end.start()) % 2 == 0:
            return text[: end.start() + 1], text[end.end() :]
    return text, ""


def _of_memory(error: Exception) -> BenchError:
    """Returns what is said where memory ran out and nothing better is known of it; raises every other error again."""
    if not isinstance(error, MemoryError) and "torch" not in sys.modules:
        raise error
    from mmpt_bench.engine.training.memory import shortage

    if (why := shortage(error)) is None:
        raise error
    return MachineError(f"Out of memory: {why}. What is recorded is kept.")


def _of_machine(error: OSError) -> BenchError:
    """Returns what is said of a file that cannot be opened, read or written where nothing better is known of it."""
    where = f"`{scrub(str(error.filename))}`" if error.filename else "A file or connection"
    if error.errno == errno.ENAMETOOLONG:
        return RequestError(f"{where} is too long to be the name of a file or folder.")
    return MachineError(f"{where} cannot be used: {error.strerror or error}. What is recorded is kept.")


if __name__ == "__main__":
    main()
