"""The ITEMs of a watch, and how far one has come: what makes a watch that is continued on another connection one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from haptera.client.calls.methods import Count, Milliseconds, Revision
from haptera.errors import Code, RemoteProtocolError, ServerError, failure


class Before(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The entry of before; its value is None where it has no room beside the new one."""

    value: bytes | None
    version: Revision
    expires_at_ms: Milliseconds | None = None


class Happened(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One event as it is on the wire. Its version is the revision of the change, or of the entry for kind 0."""

    kind: Count
    key: str
    value: bytes | None
    version: Revision
    previous: Before | None = None
    expires_at_ms: Milliseconds | None = None


class WatchItem(msgspec.Struct, array_like=True, frozen=True):
    """Some events. They reach ``revision``, of which there is ``more`` in the next ITEM or not."""

    revision: Revision
    events: list[Happened]
    more: bool = False


decode_item: Callable[[bytes], WatchItem] = msgspec.msgpack.Decoder(WatchItem).decode


def of_another_server(revision: int) -> ServerError:
    """Return the error of changes that cannot be read on from a revision, because a server with others answers now."""
    message = "another server answers now, and its revisions are of another history"
    return failure(Code.REVISION_COMPACTED, {"revision": revision}, message=message).exception()


class WatchPosition:
    """How far a watch has come.

    ``seen`` is the newest revision of which everything was given, None before the first mark, and ``server_id`` names
    the server whose revision it is. ``synced`` turns true when the entries that were there at the beginning have been
    given, for a watch with ``initial``.
    """

    __slots__ = ("_initial", "_options", "_part", "_part_count", "_skip", "begun", "seen", "server_id", "synced")

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._initial = bool(options.get("initial"))
        self._part = 0  # the revision of which a part was given, and how many of its events
        self._part_count = 0
        self._skip = 0  # events of that revision that come once more, on a further connection
        self.begun: bool = False  # whether anything was given
        self.seen: int | None = None
        self.server_id: bytes | None = None
        self.synced: bool = not self._initial

    @property
    def resumable(self) -> bool:
        """Whether the watch can go on where it was lost.

        In the middle of the present entries it cannot, because the rest would be of another revision.
        """
        return self.synced or not self.begun

    def check_server(self, server_id: bytes | None) -> None:
        """Raise ``RevisionCompacted`` where the watch cannot go on at this server: its revisions are of another history
        than the ones that were given.
        """
        if self.seen is not None and server_id != self.server_id:
            raise of_another_server(self.seen + 1)

    def options(self) -> dict[str, Any]:
        """The options of a request that goes on from here."""
        if self.seen is None:
            return self._options
        self._skip = self._part_count if self._part > self.seen else 0
        options = {name: option for name, option in self._options.items() if name != "initial"}
        return {**options, "start_revision": self.seen + 1}

    def take(self, item: WatchItem, server_id: bytes | None) -> list[Happened]:
        """The events of an ITEM of this server that were not given before.

        Raises ``RemoteProtocolError`` for one out of order.
        """
        self.server_id = server_id
        if not self.synced:
            self.begun = True
            if not item.events:
                self.synced = True
                self.seen = item.revision
            return item.events
        events = []
        for event in item.events:
            if not (self.seen or 0) < event.version <= item.revision or event.version < self._part:
                raise RemoteProtocolError(Code.MALFORMED_FRAME, "the server's events are not in their order")
            if event.version != self._part:
                self._part, self._part_count, self._skip = event.version, 0, 0
            if self._skip:
                self._skip -= 1
                continue
            self._part_count += 1
            events.append(event)
        self.begun = True
        self.seen = max(self.seen or 0, item.revision - 1 if item.more else item.revision)
        return events
