"""The methods of the kv service, each with its argument."""

from __future__ import annotations

from typing import Final

from haptera.node.services.method_arguments import Argument
from haptera.node.services.transact_argument import TransactArgument
from haptera.state import OPERATIONS, Operation, method_of, operations

#: The service of the store, and the part of the state that its commands are for.
SERVICE: Final = "kv"

_PLAIN: Final = {
    name: (command, Argument(command))
    for command in OPERATIONS
    for part, name in [method_of(command)]
    if part == SERVICE and command is not operations.Transact
}

#: The argument of each method. A request for a name that is not here is 3002.
METHODS: Final[dict[str, Argument[Operation] | TransactArgument]] = {
    **{name: argument for name, (_, argument) in _PLAIN.items()},
    "transact": TransactArgument(
        {name: argument for name, (command, argument) in _PLAIN.items() if command.of_one_key}
    ),
}
