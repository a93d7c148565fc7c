"""The names of keys among the arguments of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.cli.parameter_type import ParameterType

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click
    from click.shell_completion import CompletionItem

#: The kind of a completion that stands for the keys of the store, which a shell with a connection looks up.
KEYS_OF_STORE: Final = "keys"


class KeyName(ParameterType[str]):
    """The name of a key, or its beginning. The store judges it; here it is only text that can be completed."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # no command that runs needs it

        return [CompletionItem(incomplete, type=KEYS_OF_STORE)]


KEY: Final = KeyName()


def asks_for_keys(items: Sequence[CompletionItem]) -> bool:
    """Whether completions stand for the keys of the store."""
    return any(item.type == KEYS_OF_STORE for item in items)
