"""The calls of a database that tell changes: watches, and the history of a key."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, ClassVar, TypeVar

from haptera.client.calls.argument_checks import checked_int, checked_timeout, plain_key, text_option, watch_options
from haptera.client.calls.calling import Calling
from haptera.client.calls.methods import Method
from haptera.client.watches.cache import PROGRESS_INTERVAL_S, STALENESS_MIN_S, Cache
from haptera.client.watches.event import Event  # noqa: TC001  # who reads a public signature finds its types here
from haptera.client.watches.key_history import Past, changes
from haptera.client.watches.watch import Watch
from haptera.client.watches.watched import WatchPosition, of_another_server
from haptera.key_rules import VERSION_MAX
from haptera.peer import DEFAULT, Timeout

R = TypeVar("R")


class ChangeMethods:
    """The methods of the service ``kv`` that tell changes, each with the shape of its answer."""

    watch: Method[Any] = Method(object)
    history: ClassVar[Method[Past]] = Method(Past)


class ChangeCalls(Calling):
    """The calls that tell changes."""

    def watch(
        self,
        key: str | None = None,
        *,
        prefix: str | None = None,
        start_revision: int | None = None,
        initial: bool = False,
        previous: bool = False,
        progress_interval: float | None = None,
        timeout: Timeout = DEFAULT,
    ) -> Watch:
        """Follow the changes of one key, of the keys with a prefix, or of all keys.

        Every change is given once, in the order of the revisions. A connection that is lost is made again, and the
        watch goes on behind the last change that was given, so long as the node still keeps the changes since then
        (``--history-events`` and ``--history-bytes`` of ``haptera serve``); ``RevisionCompacted`` says that it does
        not, or that another server answers now, whose revisions are of another history. A watch with ``initial`` that
        is lost before the present entries are all given raises ``ConnectionLost``, because the rest would be of another
        revision.

        A reader that is slow holds up no one: the node keeps its place. One that takes nothing for 60 seconds loses its
        stream, and goes on from where it was when it reads again. So does one whose wait was cancelled.

            >>> async with db.watch(prefix="door/") as events:
            ...     _ = await db.set("door/front", "open")
            ...     event = await anext(events)
            >>> event.kind, event.key, event.text
            ('put', 'door/front', 'open')

        Args:
            key: The key. Without one, and without ``prefix``, every key.
            prefix: The beginning of the keys.
            start_revision: The first revision whose changes are given; 1 above the present one unless given.
            initial: Whether to begin with the entries that are there, as events of the kind ``"present"`` and then one
                ``"synced"``, behind which every change since comes.
            previous: Whether each event has the entry of before.
            progress_interval: Seconds, at least 1, after which the node says how far it is where nothing has changed;
                `Watch.revision` shows it. Never unless given.
            timeout: Seconds that the beginning may take.

        Returns:
            An asynchronous iterator of events.

        Raises:
            RevisionCompacted: The changes from ``start_revision`` on are not kept any more, or it is above the next
                revision, or the watch would go on at another server than it has begun at.
        """
        options = watch_options(key, prefix, start_revision, initial, previous, progress_interval)
        begin = self._timeout if timeout is DEFAULT else checked_timeout(timeout)
        position = WatchPosition(options)
        return Watch(lambda: self._channel.watch(position, begin), position)

    def cached(self, *, prefix: str, max_staleness: float | None = None, timeout: Timeout = DEFAULT) -> Cache:
        """Keep the entries with a prefix in this process: ``async with db.cached(prefix="flags/") as cache``.

        A watch keeps the copy, so ``cache.get(key)`` is a look-up in a dict. The copy takes the memory of its entries.
        Twice a second it asks the store for its revision, and so knows its age.

            >>> _ = await db.set("flags/dark", "on")
            >>> async with db.cached(prefix="flags/") as cache:
            ...     entry = cache.get("flags/dark")
            >>> entry.text
            'on'

        Args:
            prefix: The beginning of the keys; ``""``: every key.
            max_staleness: Seconds, at least 3: the age of a copy that is not read any more. Unless given, it is read
                however old it is; `Cache.fresh_at` says how old.
            timeout: Seconds that the beginning of a watch may take, and each question for the age.

        Returns:
            The copy, which is whole when ``async with`` has entered it.

        Raises:
            ConnectionLost: The store cannot be reached, on entering.
        """
        text_option("prefix", prefix)
        if max_staleness is not None and not max_staleness >= STALENESS_MIN_S:
            raise ValueError(f"max_staleness is at least {STALENESS_MIN_S:.0f} seconds, not {max_staleness}")

        def begin() -> Watch:
            return self.watch(prefix=prefix, initial=True, progress_interval=PROGRESS_INTERVAL_S, timeout=timeout)

        async def ask() -> tuple[bytes | None, int]:
            await self._database.get_many([], timeout=timeout)
            return self._channel.server_id, self._channel.revision

        return Cache(begin, ask, lambda: self._channel.closed, max_staleness)

    def history(
        self, key: str, *, after: int = 0, limit: int | None = None, timeout: Timeout = DEFAULT
    ) -> AsyncGenerator[Event, None]:
        """Iterate over the versions of a key that the node still has, oldest first.

        The node keeps the last changes of all keys (``--history-events`` and ``--history-bytes`` of ``haptera serve``).
        An entry that was written before them is the first, as a change of the kind ``"present"``, without a time.

            >>> for state in ("off", "on"):
            ...     _ = await db.set("lamp", state)
            >>> [change.text async for change in db.history("lamp")]
            ['off', 'on']

        Args:
            key: Its name.
            after: Only versions above this one.
            limit: The largest number of versions.
            timeout: Seconds for each page of them.

        Returns:
            An asynchronous iterator of changes.

        Raises:
            RevisionCompacted: The history was overtaken while it was read, or another server answers the next page.
        """
        name = plain_key(key)
        after = checked_int("after", after, 0, VERSION_MAX)
        if limit is not None:
            checked_int("limit", limit, 0, VERSION_MAX)

        server_id: bytes | None = None

        async def page(after: int, limit: int | None) -> Past:
            nonlocal server_id
            options = {"after": after} if limit is None else {"after": after, "limit": limit}
            past = await self._call(ChangeMethods.history, (name, options), timeout)
            answered_by = self._channel.server_id
            if server_id not in {None, answered_by}:
                raise of_another_server(after + 1)
            server_id = answered_by
            return past

        return changes(name, page, after, limit)
