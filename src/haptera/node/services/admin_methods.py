"""The methods of the admin service, each with its argument: the commands and the reads of the part ``access``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from haptera.node.services.method_arguments import Argument
from haptera.state import OPERATIONS, Operation, Write, method_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The service, and the part of the state that its commands are for.
ADMIN_SERVICE: Final = "admin"
_PART: Final = "access"

#: All methods.
ADMIN_METHODS: Final[Mapping[str, Argument[Operation]]] = {
    name: Argument(command)
    for command in OPERATIONS
    for part, name in [method_of(command)]
    if part == _PART and not (issubclass(command, Write) and command.of_node)
}

#: The fields that the record of a change does not have.
_SECRET: Final = frozenset({"verifier"})


def target_of(op: Operation) -> dict[str, Any]:
    """The fields of a change by their names, for a record of it: without a verifier, which is secret."""
    return {name: getattr(op, name) for name in op.__struct_fields__ if name not in _SECRET}
