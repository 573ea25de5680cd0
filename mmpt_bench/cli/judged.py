"""`mmpt-bench judged`: how often judges say what literal scores and people say."""

from __future__ import annotations

from pathlib import Path

import click

from mmpt_bench.cli.options import JSON, OUT, print_json


@click.command()
@click.option("--human", type=click.Path(path_type=Path), help='JSON lines {"key": KEY, "grade": NUMBER} of people.')
@OUT
@JSON
def judged(human: Path | None, out: Path, as_json: bool) -> None:
    """Say how often the judges of tasks agree with the literal scores beside them, and with people.

    What a judge said of each answer is in the results folder's `judged/`, with its key. Copy that file, write a
    `"grade"` into lines, and give it as `--human`. Agreement does not say which of the two is right.

    \b
    mmpt-bench judged
    mmpt-bench judged --human graded.jsonl
    """
    from mmpt_bench import api
    from mmpt_bench.cli.streams import console, echo
    from mmpt_bench.common.escaping import rich_text

    found = api.judged(out, human)
    if as_json:
        print_json(found.lines)
        return
    from rich.table import Table

    table = Table(title="Judges beside other verdicts", title_justify="left", box=None, pad_edge=False)
    for name in ("Task, method", "Judge, beside", "Judge\nright", "Other\nright", "Agree", "Kappa", "n", "Unread"):
        table.add_column(name, justify="left" if "," in name else "right", no_wrap="," not in name)
    for row in found.rows:
        shares = ["–" if x is None else f"{x:.1%}" for x in (row.judge_right, row.other_right, row.agree)]
        kappa = "–" if row.kappa is None else f"{row.kappa:.2f}"
        what = f"{rich_text(row.task)}\n{rich_text(f'{row.method}, seed {row.seed}')}"
        beside = f"{rich_text(row.judge)}\n{rich_text(row.beside)}"
        table.add_row(what, beside, *shares, kappa, f"{row.n:,}", f"{row.unread:,}")
    console().print(table)
    echo("Right: half of the scale or more. Unread: verdicts that could not be read; they are in no mean.")
