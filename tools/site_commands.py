"""Makes the page of the site with the help of every command, from the commands themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from haptera.cli.main import group
from haptera.cli.shell.examples import example_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Columns of the help: what a page shows on a screen of usual size without being moved.
COLUMNS: Final = 88
NAME: Final = "haptera"

INTRODUCTION: Final = """# Commands

Each command with the text that `--help` prints, and an example. [The command line](docs/command-line.md) explains how a
command finds its store, proves who calls and what it ends with.
"""


def stage(target: Path) -> None:
    """Write the page of the commands below ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "commands.md").write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page: a section for each command, in the order of ``haptera --help``."""
    return "\n".join([INTRODUCTION, *_sections(group, None, NAME)])


def _sections(command: click.Command, parent: click.Context | None, path: str) -> Iterator[str]:
    name = path.rpartition(" ")[2]
    context = click.Context(command, parent, name, terminal_width=COLUMNS, **command.context_settings)
    level = "#" * (path.count(" ") + 2)
    yield f"{level} `{path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    example = example_of(path.split(" ")[1:]) if parent is not None else None
    if example is not None:
        yield f"For example:\n\n```sh\nhaptera {example}\n```\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None, f"{path} lists {each}, and has no such command"
            if not found.hidden:
                yield from _sections(found, context, f"{path} {each}")
