"""The shell on a terminal: the prompt, and the turn from a typed line to its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition

from haptera.cli import output
from haptera.cli.endings import ended
from haptera.cli.exit_codes import DONE
from haptera.cli.shell.above_prompt import AbovePrompt
from haptera.cli.shell.completer import LineCompleter
from haptera.cli.shell.connection_notes import ConnectionNotes
from haptera.cli.shell.line_words import parted
from haptera.cli.shell.typed_lines import history_path, open_history
from haptera.cli.shell.watches import ShellWatches

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from haptera.cli.shell.shell_session import ShellSession

#: The share of a line of the terminal that the prompt may take. A longer one is left with the revision alone.
PROMPT_SHARE: Final = 0.4


class Interrupted(Exception):  # it is no error
    """Ctrl-C was typed at the prompt."""


def interact(session: ShellSession, *, typed: Input | None = None, screen: Output | None = None) -> int:
    """Take lines until Ctrl-D. ``typed`` and ``screen`` are the terminal, unless another is given.

    Returns:
        0: each command has said what became of it.
    """
    prompt = _prompt_session(session, typed, screen)
    above = AbovePrompt(lambda: prompt.app.is_running)
    session.watches = ShellWatches(session.store, above)
    notes = ConnectionNotes(session.store.database, above.write)
    output.to_standard_error(f"connected to {session.store.database.reached}; help lists the commands, Ctrl-D leaves")
    with notes.heard():
        while not session.left:
            try:
                text = session.store.run(prompt.prompt_async())
            except (Interrupted, KeyboardInterrupt):
                continue
            except EOFError:
                break
            finally:
                above.print()
            _carry_out(session, text)
        session.watches.end(None)
    return DONE


def _carry_out(session: ShellSession, text: str) -> None:
    def part() -> int:
        for words in filter(None, parted(text).commands):
            session.run(words)
            if session.left:
                break
        return DONE

    ended(part, [])


def _prompt_session(session: ShellSession, typed: Input | None, screen: Output | None) -> PromptSession[str]:
    return PromptSession(
        lambda: prompt_text(session, get_app().output.get_size().columns),
        completer=LineCompleter(session),
        history=open_history(history_path()),
        multiline=Condition(lambda: _is_open(get_app().current_buffer.text)),
        prompt_continuation="... ",
        interrupt_exception=Interrupted,
        complete_while_typing=True,
        input=typed,
        output=screen,
    )


def _is_open(text: str) -> bool:
    """Whether a line goes on behind Enter."""
    try:
        return bool(parted(text).open)
    except click.UsageError:
        return False


def prompt_text(session: ShellSession, columns: int) -> str:
    """The prompt: the user, the node and the revision of the last answer, as far as the terminal has room."""
    db = session.store.database
    node = short_node(db.reached or "")
    user = f"{session.user}@" if session.user else ""
    mark = " (multi)> " if session.transaction is not None else "> "
    revision = str(db.revision) if db.revision else ""  # that of the last answer which had one
    full = output.shown(f"{user}{node}") + (f":{revision}" if revision else "")
    return (full if len(full) + len(mark) <= columns * PROMPT_SHARE else revision) + mark


def short_node(url: str) -> str:
    """A node as short as one knows it: host and port, or the directory and the name of a socket."""
    rest = url.partition("://")[2]
    rest = rest.partition("?")[0].rpartition("@")[2]
    return "/".join(rest.split("/")[-2:]).lstrip("/") if "/" in rest else rest
