"""What `mmpt-bench report` does: check what was named, write the page, say what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mmpt_bench.common.errors import RequestError
from mmpt_bench.common.escaping import plain_text
from mmpt_bench.common.files import check_name, write_atomic
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.records.store import Store
from mmpt_bench.report.content import Content, gather
from mmpt_bench.report.write import LONG, Page, page

FILE = "report.html"


def report(out: Path, file: Path | None, images: Path | None, as_json: bool) -> int:
    """Writes the report of a results folder and says what is missing; returns the exit code.

    Raises:
        RequestError: there is no such results folder or folder of pictures, or `file` is none to write to.
    """
    if not out.is_dir():
        raise RequestError(
            f"There is no results folder `{out}`: `mmpt-bench run --method all --tasks all --out {out}` makes it; or "
            "name another one with `--out`."
        )
    if images is not None and not images.is_dir():
        raise RequestError(f"There is no folder `{images}` to read pictures from.")
    target = file if file is not None else out / FILE
    if target.is_dir():
        raise RequestError(f"`{target}` is a folder: name the file, as in `--file {target / FILE}`.")
    check_name(target.name)
    store = Store(out)
    content = gather(store, task_catalog.built_in_tasks(), images, lambda text: click.echo(text, err=True))
    made = page(content, store)
    write_atomic(target, made.data)
    if as_json:
        click.echo(json.dumps(_as_json(target, made, content), indent=1))
        return 0
    for gap in content.gaps:
        click.echo(f"Missing: {plain_text(gap.what, LONG)}\n  {plain_text(gap.command, LONG)}", err=True)
    if made.answers_left_out:
        click.echo(f"Left out for its size: the raw answers of {made.answers_left_out:,} records.", err=True)
    if made.figures_left_out:
        click.echo(f"Left out for its size: the figures {', '.join(made.figures_left_out)}.", err=True)
    click.echo(f"Written: {target} ({len(made.data) / 1000:,.0f} kB). Open it in a browser; it needs nothing else.")
    return 0


def _as_json(target: Path, made: Page, content: Content) -> dict[str, object]:
    return {
        "report": str(target),
        "bytes": len(made.data),
        "boards": [
            {"title": section.board.title, "track": section.board.track, "verdict": list(section.verdict)}
            for section in content.sections
        ],
        "missing": [{"what": gap.what, "command": gap.command} for gap in content.gaps],
        "answers_left_out": made.answers_left_out,
        "figures_left_out": list(made.figures_left_out),
    }
