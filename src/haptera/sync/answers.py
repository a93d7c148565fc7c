# Generated from client/calls/backup_pieces.py, client/calls/scan.py, client/calls/streamed_answer.py,
# client/watches/cache.py, client/watches/watch.py by tools/generate_sync.py (make generate). Do not edit.
"""The answers of a store that come part by part, and its watches and copies, for threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from haptera.client import Callback, Entry, Event
from haptera.sync.facade import Arriving, Facade, Items

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client import Backup as AsyncBackup
    from haptera.client import Cache as AsyncCache
    from haptera.client import Scan as AsyncScan
    from haptera.client import Watch as AsyncWatch


class Scan(Arriving["AsyncScan", Entry]):
    """The entries of a range in key order, all as they were at one revision (spec/protocol.md, section 7).

    ``for entry in db.scan(...)``. A loop that is left early ends the scan at the server as soon as the object is
    dropped; ``with db.scan(...) as rows`` or `aclose` end it at a known place. May be iterated once.
    """

    __slots__ = ()

    def _arrive(self) -> list[Entry]:
        found = self._run(self._inner.next_entries)
        if not found:
            raise StopIteration
        return found

    def __iter__(self) -> Self:
        return self

    @property
    def revision(self) -> int | None:
        """The revision of the store that all of it is of; None before the end."""
        return self._inner.revision

    def aclose(self) -> None:
        """End the scan, at the server too. Harmless after the end."""
        self._taken()
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def __next__(self) -> Entry:
        return super().__next__()

    def next_entries(self) -> list[Entry]:
        """Wait for the next entries that arrive together: a page of them.

        Returns:
            The entries; none at the end.
        """
        return self._taken() or self._run(self._inner.next_entries)

    @property
    def count(self) -> int | None:
        """The number of entries; None before the end."""
        return self._inner.count

    @property
    def last_key(self) -> str | None:
        """The key of the last entry; None before the end, and where there was none."""
        return self._inner.last_key

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class Backup(Facade["AsyncBackup"]):
    """The bytes of a backup in their order, in pieces of at most 256 KiB (spec/protocol.md, section 7.2).

    ``for piece in db.backup()``. All pieces together are the backup; a part of them is none, and is refused when it is
    restored. A loop that is left early ends the backup at the server as soon as the object is dropped; ``with
    db.backup() as pieces`` or `aclose` end it at a known place. May be iterated once.
    """

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    @property
    def revision(self) -> int | None:
        """The revision of the store that all of it is of; None before the end."""
        return self._inner.revision

    def aclose(self) -> None:
        """End the call, at the server too. Harmless after the end."""
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def __next__(self) -> bytes:
        try:
            return self._run(self._inner.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    @property
    def index(self) -> int | None:
        """The index of the last entry of the log in the backup; None before the end."""
        return self._inner.index

    @property
    def size(self) -> int | None:
        """The bytes of the backup; None before the end."""
        return self._inner.size

    @property
    def master_key(self) -> str | None:
        """Where the node has the master key from, without which the backup cannot be restored; None before the end.

        ``generated`` is the key that the node has made itself: it lies beside the data and needs a copy elsewhere.
        """
        return self._inner.master_key

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class Watch(Arriving["AsyncWatch", Event]):
    """The changes of some keys, each once and in the order of their revisions (spec/protocol.md, section 7).

    ``for event in db.watch(...)``. It begins with the first event that is waited for, or, as ``with db.watch(...) as
    events``, before the block. It goes on over lost connections from where it was, until it is closed: a loop that is
    left early ends it as soon as the object is dropped, `aclose` at a known place. A wait that is interrupted, or whose
    time is over, ends the stream at the server, and the next wait goes on from there. An error that ends it is raised
    by each later wait too: it never looks as if there were no more changes. One thread reads it at a time, and another
    may close it.
    """

    __slots__ = ()

    def _arrive(self) -> list[Event]:
        try:
            return self._run(self._inner.next_events)
        except StopAsyncIteration:
            raise StopIteration from None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return super().__next__()

    def next_events(self, *, timeout: float | None = None) -> list[Event]:
        """Wait for the next events that arrive together. There may be none: the node has said how far it is.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Returns:
            The events.

        Raises:
            TimeoutError: None have arrived in that time. The next wait goes on from there.
        """
        return self._taken() or self._run(lambda: self._inner.next_events(timeout=timeout))

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change has arrived; None before the watch has begun. Progress marks raise
        it although nothing has changed.
        """
        return self._inner.revision

    @property
    def server_id(self) -> bytes | None:
        """The server whose revisions they are, by its id of 16 bytes; None before the watch has begun.

        The same revision of another server is another change.
        """
        return self._inner.server_id

    @property
    def ready(self) -> bool:
        """Whether the next event has arrived."""
        return bool(self._arrived) or self._inner.ready

    def aclose(self) -> None:
        """End the watch, at the server too. A loop over it in another thread ends without an error."""
        self._taken()
        self._run(self._inner.aclose)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    def close(self) -> None:
        """As `aclose`, by the name that ``contextlib.closing`` knows."""
        self.aclose()


class Cache(Facade["AsyncCache"]):
    """The entries of a prefix as they were a moment ago. Made by `Database.cached`, for ``with``.

    ``get(key)``, ``key in cache``, ``len(cache)`` and iterating over the keys never wait. The copy is whole: it is the
    store of some revision, and later revisions follow in their order. A connection that is lost is made again; where
    the node does not have the changes since then, or another server answers, the entries are read again, and what
    differs is told as changes.
    """

    __slots__ = ()

    def get(self, key: str) -> Entry | None:
        """Look a key up.

        Args:
            key: Its name.

        Returns:
            The entry, or None if there is none.

        Raises:
            ConnectionLost: The copy is older than ``max_staleness`` seconds.
            WrongLoop: This process was forked from the one that keeps the copy.
        """
        return self._inner.get(key)

    def __contains__(self, key: object) -> bool:
        return self._inner.__contains__(key)

    def __len__(self) -> int:
        return self._inner.__len__()

    def __iter__(self) -> Iterator[str]:
        return iter(self._on_loop(lambda: list(self._inner)))

    @property
    def fresh_at(self) -> float:
        """Unix time in seconds of the latest moment of which it is known that each change from before it is here. A
        copy that was never whole has had none, and this is 0.
        """
        return self._inner.fresh_at

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change is here; None while the entries are read again."""
        return self._inner.revision

    def on_change(self, callback: Callback) -> None:
        """Have ``callback`` called with each change, after the copy has it.

        Args:
            callback: It is called in the thread of the loop, must not wait, and makes no calls to the store. An error
                that it raises is logged.
        """
        self._inner.on_change(callback)

    def changes(self) -> Items[Event]:
        """Iterate over the changes from this call on.

        A reader that is slow is told the last change of each key alone, and nothing of a key that has come and gone.

        Returns:
            An iterator of events. It ends with ``ConnectionLost`` when the copy is closed, or with the refusal that has
            ended it.
        """
        return Items(self._on_loop(self._inner.changes), self)

    def __enter__(self) -> Self:
        self._run(self._inner.__aenter__, undo=lambda _: self._inner.__aexit__(None, None, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(lambda: self._inner.__aexit__(kind, error, traceback))

    @property
    def ended(self) -> bool:
        """Whether the copy is not kept any more."""
        return self._inner.ended

    @property
    def error(self) -> BaseException | None:
        """Why the copy is not kept at this moment: the loss of the connection, or a refusal that has ended it."""
        return self._inner.error
