"""Administration that the program asks for in which a node is embedded. It is recorded as that of a connection is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from haptera.errors import Failure
from haptera.node.services.admin import administer
from haptera.node.services.admin_methods import ADMIN_CHANGES, ADMIN_METHODS, ADMIN_SERVICE
from haptera.node.services.maintenance import maintain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node.node import Node

_SERVER: Final = "server"
_OF_SERVER: Final = ("maintenance",)


class Called(Protocol):
    """The method of a call."""

    service: str
    name: str


def is_administration(method: Called) -> bool:
    """Whether a call begins, ends or tells maintenance, or changes users, roles, grants or tokens."""
    names = ADMIN_CHANGES if method.service == ADMIN_SERVICE else _OF_SERVER if method.service == _SERVER else ()
    return method.name in names


async def administer_embedded(node: Node, method: Called, argument: Sequence[Any]) -> Any:
    """Do administration, and give its result array, the map of maintenance, or a failure. It goes on where its caller
    is cancelled.
    """
    if method.service != ADMIN_SERVICE:
        return await maintain(node, argument)
    op: Any = ADMIN_METHODS[method.name].convert(argument)
    return op if isinstance(op, Failure) else await administer(node, method.name, op)
