"""Writes `commands.md`, beside this file, from what the commands themselves answer to `--help`.

Comes in: the click commands. Goes out: a page with a section for each of them, in the order of `dermalert --help`.

    python docs/commands.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from dermalert.cli import commands

PAGE = Path(__file__).with_suffix(".md")
WIDTH = 100
LEAD = """\
# Commands

<!-- Made by `python docs/commands.py`. Change the help in src/dermalert/cli.py, then run that. -->

What each command answers to `--help`. The same from Python: [Python](api.md).

| Exit status | Means |
| ---: | --- |
| 0 | done |
| 1 | failed; one line on stderr says why and what to do: [Errors](refused.md#errors-and-exit-status) |
| 2 | wrong usage: an unknown command or option, a missing argument |

Progress goes to stderr, results to stdout or to the named file.
"""


def page() -> str:
    """The whole page."""
    sections = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in _helps(commands, "dermalert", None)]
    return "\n".join([LEAD, *sections])


def _helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """Each command's full name and help, a group before its own commands."""
    context = command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, **command.context_settings
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from _helps(found, below, context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
