"""Completion of a line as it is typed: commands, options, choices, and keys of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete
from prompt_toolkit.completion import CompleteEvent, Completer, Completion

from haptera.cli import output
from haptera.cli.key_names import asks_for_keys
from haptera.cli.shell.line_words import parted, quoted
from haptera.cli.shell.words import SHARED, group
from haptera.errors import HapteraError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from prompt_toolkit.document import Document

    from haptera.cli.shell.shell_session import ShellSession
    from haptera.client import Database

#: Keys that are offered at once: a few screens of a menu.
KEYS_MAX: Final = 50
#: Seconds that the look-up of keys may take, so that typing is never held up.
KEYS_TIMEOUT_S: Final = 0.3
#: Characters of a line that is completed. A longer one holds a value that was pasted.
LINE_LENGTH_MAX: Final = 10_000


class LineCompleter(Completer):
    """Completes the last word before the cursor."""

    def __init__(self, session: ShellSession) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Nothing: the keys are looked up by the loop that the prompt runs on."""
        return ()

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """The completions of the last word. Keys of an empty word are looked up only when they are asked for."""
        text = document.text_before_cursor
        if len(text) > LINE_LENGTH_MAX:
            return
        try:
            line = parted(text)
        except click.UsageError:
            return
        words = list(line.commands[-1])
        if not line.open and words and line.last_begins < len(text):
            words.pop()
        begins = line.last_begins - len(text)
        items = _offered(words, line.last)
        if asks_for_keys(items):
            if line.last or complete_event.completion_requested:
                for key in await _keys(self._session.store.database, line.last):
                    yield Completion(quoted(key), begins, display=output.shown(key))
            return
        for item in items:
            if item.value not in SHARED:
                yield Completion(item.value, begins, display_meta=output.shown(item.help or ""))


def _offered(words: list[str], last: str) -> list[CompletionItem]:
    """Completions of the word behind ``words``, as the commands themselves offer them."""
    if words and group.get_command(click.Context(group), words[0]) is None:
        return []  # click would offer the commands again
    completing = _Completing(group, {}, "", "")
    try:
        return completing.get_completions(words, last)
    except (click.ClickException, click.exceptions.Exit):
        return []


class _Completing(ShellComplete):
    """The completion of click without a shell of the system."""

    name = "haptera"
    source_template = ""


async def _keys(db: Database, beginning: str) -> list[str]:
    """The first keys that begin with a text; none where the store does not tell them in time."""
    options: dict[str, Any] = {"prefix": beginning} if beginning else {}
    try:
        async with db.scan(**options, limit=KEYS_MAX, keys_only=True, timeout=KEYS_TIMEOUT_S) as entries:
            # One that begins with a dash would be taken for an option.
            return [entry.key async for entry in entries if not entry.key.startswith("-")]
    except HapteraError:
        return []
