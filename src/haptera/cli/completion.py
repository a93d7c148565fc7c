"""``haptera completion``"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from haptera.cli import output
from haptera.cli.exit_codes import DONE

#: The variable by which the scripts ask `haptera` for completions.
VARIABLE = "_HAPTERA_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Write the script with which SHELL completes the commands and options of haptera.

    \b
      bash  echo 'eval "$(haptera completion bash)"' >> ~/.bashrc
      zsh   echo 'eval "$(haptera completion zsh)"' >> ~/.zshrc, behind compinit
      fish  haptera completion fish > ~/.config/fish/completions/haptera.fish

    It needs bash 4.4 or later. `haptera shell` completes keys, too.
    """  # noqa: D301  # the sign of click for lines that stay as they are
    kind = get_completion_class(shell)
    assert kind is not None
    completing = kind(context.find_root().command, {}, "haptera", VARIABLE)
    output.line(completing.source_template % completing.source_vars())
    return DONE
