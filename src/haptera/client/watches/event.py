"""One change of a key, as watches and histories tell it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from haptera.client.calls.entry import Entry, short
from haptera.errors import Code, RemoteProtocolError

EventKind = Literal["present", "put", "delete", "expire", "synced"]

_KINDS: Final[tuple[EventKind, ...]] = ("present", "put", "delete", "expire")


class Event(msgspec.Struct, frozen=True):
    """One change of a key.

    ``kind`` is ``"put"``, ``"delete"`` or ``"expire"``. A watch with ``initial`` begins with ``"present"`` for each
    entry that is there, and then once ``"synced"``, with an empty key: all that was there has been given. A history has
    ``"present"`` for an entry that is older than the changes that the node keeps. ``value`` is the new value, None
    where there is none. ``version`` is the store's revision of the change, for ``"present"`` that of the entry.
    ``previous`` is the entry of before, if a watch was asked for it and there was one. Where ``previous_omitted`` is
    true its value is left out and empty here, because both values together are more than 8 MiB;
    ``get(key, at_revision=version - 1)`` reads it. ``expires_at`` is Unix time in seconds, or None for a key that does
    not expire. In a history ``time`` is that of the change in Unix seconds, and ``user`` the name of the user, empty
    without authentication.
    """

    kind: EventKind
    key: str
    value: bytes | None
    version: int
    previous: Entry | None = None
    expires_at: float | None = None
    time: float | None = None
    user: str | None = None
    previous_omitted: bool = False

    def __repr__(self) -> str:
        shown = [repr(self.kind), f"key={self.key!r}"]
        if self.value is not None:
            shown.append(f"value={short(self.value)}")
        shown.append(f"version={self.version}")
        shown += [
            f"{name}={value!r}"
            for name in ("previous", "expires_at", "time", "user")
            if (value := getattr(self, name)) is not None
        ]
        return f"Event({', '.join(shown)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("event", repr(self))]

    @property
    def text(self) -> str:
        """The value as text, empty where there is none; raises ``UnicodeDecodeError`` if it is not UTF-8."""
        return (self.value or b"").decode()


def kind_of(number: int) -> EventKind:
    """The kind of an event of the wire. Raises ``RemoteProtocolError`` for one that is not known."""
    if number >= len(_KINDS):
        raise RemoteProtocolError(Code.MALFORMED_FRAME, f"the server's event is of the unknown kind {number}")
    return _KINDS[number]
