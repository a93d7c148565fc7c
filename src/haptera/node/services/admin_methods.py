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

#: The methods that change something.
ADMIN_CHANGES: Final = frozenset(
    name
    for command in OPERATIONS
    for part, name in [method_of(command)]
    if part == _PART and issubclass(command, Write)
)

#: The field that the record of a change does not show.
_VERIFIER: Final = "verifier"


def target_of(op: Operation) -> tuple[str, dict[str, str | int]]:
    """Return the user, role or token that a change is about, and its other fields, for the audit log. Of a verifier it
    says whether there is one.
    """
    target, *others = op.__struct_fields__
    detail = {name: _shown(name, getattr(op, name)) for name in others}
    return getattr(op, target), {name: value for name, value in detail.items() if value is not None}


def _shown(name: str, value: Any) -> str | int | None:
    if name == _VERIFIER:
        return "none" if value is None else "given"
    if isinstance(value, list):
        return ",".join(value)
    return int(value) if isinstance(value, bool) else value
