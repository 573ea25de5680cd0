"""A hook of mkdocs: the page of the command line is what `--help` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from mmpt_bench.cli.main import cli

PLACE = "<!-- every command's --help -->"
WIDTH = 78


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns the page with the help of each command in the place of a comment."""
    return markdown.replace(PLACE, "\n".join(_helps(cli, "mmpt-bench"))) if PLACE in markdown else markdown


def _helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name.rsplit(" ", 1)[-1], parent=parent, **settings)
    yield f"## {name}\n\n```\n{command.get_help(context)}\n```\n"
    for child in getattr(command, "commands", {}).values():
        yield from _helps(child, f"{name} {child.name}", context)
