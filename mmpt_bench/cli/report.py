"""`mmpt-bench report`: the page, and what is missing from it."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from mmpt_bench.cli.options import JSON, OUT, print_json
from mmpt_bench.cli.streams import echo
from mmpt_bench.common.words import counted


@click.command()
@OUT
@click.option("--file", type=click.Path(path_type=Path), help="File to write; by default report.html in that folder.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of real data, as `run --data` takes it, for questions and images; generated ones are drawn.",
)
@JSON
@click.option("-q", "--quiet", is_flag=True, help="Print where the page is, and errors, alone.")
def report(out: Path, file: Path | None, images: Path | None, as_json: bool, quiet: bool) -> None:
    """Write one HTML file with everything that is recorded: verdict, board, figures, costs, samples, data audit.

    It needs no network and nothing beside it. Where something is missing, it says so, and the command that gets it.
    """
    from mmpt_bench import api
    from mmpt_bench.common.escaping import plain_text
    from mmpt_bench.report.write import LONG

    made = api.write_report(out, file, images, lambda text: None if quiet else click.echo(text, err=True))
    content, page = made.content, made.page
    if as_json:
        print_json(made.as_plain())
        return
    for gap in () if quiet else content.gaps:
        command = plain_text(gap.command, LONG).replace(
            f"--out {shlex.quote(out.name)}", f"--out {shlex.quote(str(out))}"
        )
        echo(f"Missing: {plain_text(gap.what, LONG)}", err=True)
        click.echo(f"  {command}", err=True)
    if page.answers_left_out and not quiet:
        click.echo(f"Left out for its size: the raw answers of {counted(page.answers_left_out, 'record')}.", err=True)
    if page.figures_left_out and not quiet:
        click.echo(f"Left out for its size: the figures {', '.join(page.figures_left_out)}.", err=True)
    click.echo(f"Written: {made.path} ({len(page.data) / 1000:,.0f} kB). Open it in a browser; it needs nothing else.")
