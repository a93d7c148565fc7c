"""The details of a connection that its client has told, or that a list of connections shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from haptera.node.frontend import DialectCaller

#: Where the details are among the attributes of a caller.
_PLACE: Final = "resp_client"

#: Bytes of a name, and of those of a library and its version. They are shown in lists; Redis has no bound of its own.
NAME_SIZE_MAX: Final = 1024


class ClientDetails:
    """The details that the client of one connection has told. A name is empty where it has told none; ``version`` is
    that of the protocol.
    """

    __slots__ = ("began_ms", "library", "library_version", "name", "version")

    def __init__(self, began_ms: int) -> None:
        self.began_ms: int = began_ms
        self.name: bytes = b""
        self.library: bytes = b""
        self.library_version: bytes = b""
        self.version: int = 2


def details_of(caller: DialectCaller) -> ClientDetails:
    """Return the details of a caller, which begin with the first look at them."""
    found = caller.attributes.get(_PLACE)
    if found is None:
        found = caller.attributes[_PLACE] = ClientDetails(caller.facts.clock_ms())
    assert isinstance(found, ClientDetails)
    return found


def known_details(caller: DialectCaller) -> ClientDetails | None:
    """Return the details of a caller, or None of one that speaks another protocol."""
    found = caller.attributes.get(_PLACE)
    return found if isinstance(found, ClientDetails) else None


def is_client_name(name: bytes) -> bool:
    """Whether a text may name a client: printable ASCII without a space, so that a list of clients can be parsed."""
    return len(name) <= NAME_SIZE_MAX and all(33 <= byte <= 126 for byte in name)
