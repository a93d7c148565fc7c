"""The methods of the kv service, each with its argument."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from haptera.kv_groups import HISTORY, KV_GROUPS, LEASES
from haptera.node.services.method_arguments import Argument
from haptera.node.services.transact_argument import TransactArgument
from haptera.state import OPERATIONS, Operation, Write, method_of, operations

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

#: The service of the store, and the parts of the state that its commands are for.
SERVICE: Final = "kv"
_PARTS: Final = frozenset({"kv", "leases"})

_GROUPS: Final = frozenset(KV_GROUPS)
_COMMANDS: Final[dict[str, type[Operation]]] = {
    name: command
    for command in OPERATIONS
    for part, name in [method_of(command)]
    if part in _PARTS and not (issubclass(command, Write) and command.of_node)
}


def methods_with(capabilities: Set[str]) -> Mapping[str, Argument[Operation] | TransactArgument]:
    """The argument of each method that a connection with these capabilities has. A request for another name is 3002."""
    return METHODS if capabilities >= _GROUPS else _methods(_GROUPS.intersection(capabilities))


@cache  # for each choice among a few groups
def _methods(groups: frozenset[str]) -> dict[str, Argument[Operation] | TransactArgument]:
    had = {name: command for name, command in _COMMANDS.items() if command.group is None or command.group in groups}
    plain = {name: Argument(command, groups) for name, command in had.items() if command is not operations.Transact}
    methods: dict[str, Argument[Operation] | TransactArgument] = dict(plain)
    if len(plain) < len(had):
        present = groups - {HISTORY}  # the operations of a transact are of the store as it is then
        parts = {name: Argument(had[name], present) for name in plain if had[name].of_one_key}
        methods["transact"] = TransactArgument(parts, with_leases=LEASES in groups)
    return methods


#: All methods.
METHODS: Final = _methods(_GROUPS)
