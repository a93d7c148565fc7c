"""All commands of the replicated state, and the sets of them that the state and the log know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.state import access_operations, node_operations, operations
from haptera.state.field_kinds import list_field
from haptera.state.operations import Operation, Read, Transact, Write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from haptera.state.field_kinds import KeysKind


def _commands(module: ModuleType) -> list[type[Operation]]:
    """Return the commands that a module defines, in its order."""
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, Operation)
        and each.__module__ == module.__name__
        and each.__struct_config__.tag is not None
    ]


#: Every command, in the order in which it is defined: a node describes its methods in the same.
OPERATIONS: Final = (*_commands(operations), *_commands(access_operations), *_commands(node_operations))

#: The commands that are logged.
WRITES: Final = tuple(each for each in OPERATIONS if issubclass(each, Write))

#: The changes that maintenance refuses; of the transacts it refuses those that may change something.
CLOSED: Final = frozenset(each for each in WRITES if not each.goes_on)

#: The changes that may be made by the holder of a lease alone: their ``fence`` is its token.
FENCED: Final = frozenset(each for each in WRITES if "fence" in each.__struct_fields__)


def method_of(command: type[Operation]) -> tuple[str, str]:
    """Return the part of the state that a command is for, and the name of its method."""
    part, _, name = str(command.__struct_config__.tag).partition(".")
    return part, name


def list_fields(commands: Iterable[type[Operation]]) -> dict[type[Operation], tuple[str, KeysKind]]:
    """Return the `list_field` of each command that has one."""
    fields = ((command, list_field(command)) for command in commands)
    return {command: field for command, field in fields if field is not None}


def frees(op: Write) -> bool:
    """Whether a change can only take something away: of a transact, whether each of its changes does."""
    if isinstance(op, Transact):
        return all(isinstance(each, Read) or each.frees for each in (*op.then, *op.otherwise))
    return op.frees


def reads_only(op: Operation) -> bool:
    """Whether it is a transact that can change nothing."""
    return isinstance(op, Transact) and not any(isinstance(each, Write) for each in op.then + op.otherwise)
