"""Every command that README and docs/ show is one that the command line understands."""

from __future__ import annotations

import click
import pytest

from mmpt_bench.cli.main import cli
from support.shown_commands import lines, pages

SHOWN = [(line, arguments) for page in pages() for line in lines(page) for arguments in line.ours]


def test_the_pages_show_commands_of_every_kind() -> None:
    shown = {arguments[0] for _, arguments in SHOWN if arguments}
    assert set(cli.commands) - shown == set()


@pytest.mark.parametrize(("line", "arguments"), SHOWN, ids=[f"{line.page}:{line.number}" for line, _ in SHOWN])
def test_a_shown_command_is_understood(line: object, arguments: list[str]) -> None:
    group: click.Command = cli
    context = click.Context(cli, info_name="mmpt-bench")
    while isinstance(group, click.Group):
        name, arguments = arguments[0], arguments[1:]
        command = group.get_command(context, name)
        assert command is not None, f"there is no command `{name}`"
        group = command
    try:
        group.make_context(name, list(arguments), parent=context)
    except click.BadParameter as error:
        # Placeholders such as DIR and FILE are no files.
        if "does not exist" not in error.format_message():
            raise
