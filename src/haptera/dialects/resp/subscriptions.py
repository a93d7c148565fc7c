"""The channels and patterns of one connection, and the messages that changes of keys are in them.

Each range of keys that its channels are about is one watch of the connection, so the store judges what may be seen, by
the grants of the time. A channel of any other name is a subscription as well, in which no message ever comes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.change_feed import ChangeFeed
from haptera.dialects.resp.error_words import words_of
from haptera.dialects.resp.keyspace_channels import (
    EVERYTHING,
    KEYEVENT,
    KEYSPACE,
    events_of,
    range_of_channel,
    range_of_pattern,
)
from haptera.dialects.resp.redis_glob import PATTERN_COST_SHIFT, redis_glob
from haptera.dialects.resp.reply_encoding import array, bulk, error, integer, push
from haptera.errors import Code
from haptera.node.commands import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from haptera.dialects.resp.change_feed import Change
    from haptera.dialects.resp.keyspace_channels import WatchedRange
    from haptera.dialects.resp.redis_glob import RedisGlob
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command
    from haptera.errors import Failure

#: Channels and patterns of one connection, and bytes of the name of one: no key is longer.
SUBSCRIPTIONS_MAX: Final = 10_000
NAME_SIZE_MAX: Final = 8 * 1024
#: Ranges of keys that one connection watches for its channels: half of the watches that it may have.
RANGES_MAX: Final = 256
#: Bytes of the patterns of a connection together, but for those that are a prefix: each change is compared with them
#: all, in a few milliseconds at most.
PATTERNS_SIZE_MAX: Final = 512
#: Bytes of all patterns of a connection together: they are read in some tens of milliseconds.
PREFIXES_SIZE_MAX: Final = 64 * 1024
#: Bytes of a subscription in memory beside its name.
_OVERHEAD: Final = 256

_TOO_MANY: Final = error(f"ERR too many subscriptions: {SUBSCRIPTIONS_MAX} at most, of {RANGES_MAX} keys and prefixes")
_TOO_LONG: Final = error(f"ERR the name is too long: {NAME_SIZE_MAX} bytes at most")
_TOO_MANY_PREFIXES: Final = error(f"ERR the patterns are too long together: {PREFIXES_SIZE_MAX} bytes at most")
_TOO_MANY_PATTERNS: Final = error(f"ERR the patterns are too long together: {PATTERNS_SIZE_MAX} bytes at most")

#: Commands of a connection of version 2 that has subscriptions: its replies could not be told from messages.
_ALLOWED: Final = frozenset({"subscribe", "psubscribe", "unsubscribe", "punsubscribe", "ping", "quit", "reset"})


class SubscriberCounts:
    """How many connections of the node have each channel, and each pattern."""

    def __init__(self) -> None:
        self.channels: Counter[bytes] = Counter()
        self.patterns: Counter[bytes] = Counter()


class _Watched:
    """A range of keys that is watched, with the channels and patterns that are about it."""

    __slots__ = ("_ended", "_session", "channels", "feed", "patterns")

    feed: ChangeFeed

    def __init__(self, session: RespSession, ended: Callable[[Failure], None]) -> None:
        self.channels: set[bytes] = set()
        self.patterns: dict[bytes, RedisGlob] = {}
        self._session = session
        self._ended = ended

    def open(self, about: WatchedRange) -> Failure | None:
        """Begin the watch, or tell why it is refused."""
        self.feed = ChangeFeed(self._session, self._send, self._ended)
        return self.feed.open(operations.OpenWatch(key=about.key, prefix=about.prefix, with_previous=True))

    def _send(self, changes: list[Change]) -> None:
        """Write the messages that changes are, in the channels and patterns that are about the range."""
        messages: list[bytes] = []
        for change in changes:
            key = change.key.encode()
            for event in events_of(change):
                self._add_messages(messages, KEYSPACE + key, event)
                self._add_messages(messages, KEYEVENT + event, key)
        if messages:
            self._session.connection.write(b"".join(messages))

    def _add_messages(self, messages: list[bytes], channel: bytes, message: bytes) -> None:
        version = self._session.protocol
        if channel in self.channels:
            messages.append(push([bulk(b"message"), bulk(channel), bulk(message)], version))
        for pattern, glob in self.patterns.items():
            if glob.matches(channel):
                messages.append(push([bulk(b"pmessage"), bulk(pattern), bulk(channel), bulk(message)], version))


class Subscriptions:
    """The subscriptions of one connection."""

    def __init__(self, session: RespSession) -> None:
        self._session = session
        self._counts = session.state.subscribers
        self._channels: dict[bytes, WatchedRange | None] = {}
        self._patterns: dict[bytes, WatchedRange | None] = {}
        self._patterns_size = 0
        self._read_size = 0  # of all patterns, those that are a prefix among them
        self._watched: dict[WatchedRange, _Watched] = {}

    def __len__(self) -> int:
        return len(self._channels) + len(self._patterns)

    def gate(self, command: Command, arguments: list[bytes]) -> bytes | None:
        """Refuse a command of a connection of version 2 that has subscriptions; answer PING as a message."""
        if not len(self) or self._session.protocol == 3:
            return None
        if command.name == "ping":
            return array([bulk(b"pong"), bulk(arguments[1] if len(arguments) == 2 else b"")])
        if command.name in _ALLOWED:
            return None
        words = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        kind = "EXECABORT Transaction discarded because of:" if command.name == "exec" else "ERR"
        return error(f"{kind} Can't execute '{command.name}': {words}")

    # -- beginning and end ------------------------------------------------------------------------------------------

    def subscribe(self, names: Iterable[bytes], *, patterns: bool) -> bytes:
        """Add channels or patterns; a message for each, and the error for the first that is refused."""
        added = self._patterns if patterns else self._channels
        kind = b"psubscribe" if patterns else b"subscribe"
        replies = []
        for name in names:
            refused = None if name in added else self._add(name, added)
            replies.append(refused or self._told(kind, name))
            if refused is not None:
                break
        self._note()
        return b"".join(replies)

    def _add(self, name: bytes, added: dict[bytes, WatchedRange | None]) -> bytes | None:
        """Add a channel or a pattern, or return the error."""
        of_patterns = added is self._patterns
        if len(name) > NAME_SIZE_MAX:
            return _TOO_LONG
        if len(self) >= SUBSCRIPTIONS_MAX:
            return _TOO_MANY
        if of_patterns:
            self._session.spend(len(name) >> PATTERN_COST_SHIFT)
            if self._read_size + len(name) > PREFIXES_SIZE_MAX:
                return _TOO_MANY_PREFIXES
        glob = redis_glob(name) if of_patterns else None
        compared = 0 if glob is None or glob.all else len(name)
        if self._patterns_size + compared > PATTERNS_SIZE_MAX:
            return _TOO_MANY_PATTERNS
        about = range_of_pattern(name) if of_patterns else range_of_channel(name)
        if about is not None and EVERYTHING in self._watched:
            about = EVERYTHING  # of one watch the messages come in the order of the changes
        if about is not None:
            watched = self._watch(about)
            if isinstance(watched, bytes):
                return watched
            if glob is None:
                watched.channels.add(name)
            else:
                watched.patterns[name] = glob
        added[name] = about
        self._patterns_size += compared
        self._read_size += len(name) if of_patterns else 0
        (self._counts.patterns if of_patterns else self._counts.channels)[name] += 1
        self._session.keep(len(name) + _OVERHEAD)
        return None

    def _watch(self, about: WatchedRange) -> _Watched | bytes:
        watched = self._watched.get(about)
        if watched is not None:
            return watched
        if len(self._watched) >= RANGES_MAX:
            return _TOO_MANY
        watched = _Watched(self._session, self._ended)
        refused = watched.open(about)
        if refused is not None:
            return words_of(refused)
        self._watched[about] = watched
        return watched

    def note_other_user(self) -> None:
        """The connection logs in as another user, by whose grants all is to be judged."""
        for watched in self._watched.values():
            watched.feed.close()
        if self._watched:
            self._session.connection.call_soon(self._open_again)

    def _open_again(self) -> None:
        for about, watched in self._watched.items():
            refused = watched.open(about)
            if refused is not None:
                self._session.connection.end(refused, linger=True)
                return

    def unsubscribe(self, names: list[bytes], *, patterns: bool) -> bytes:
        """Remove channels or patterns, all of them where none is named; a message for each."""
        removed = self._patterns if patterns else self._channels
        kind = b"punsubscribe" if patterns else b"unsubscribe"
        replies = []
        for name in names or list(removed):
            if name in removed:
                self._remove(name, removed)
            replies.append(self._told(kind, name))
        self._note()
        return b"".join(replies) or self._told(kind, None)

    def _remove(self, name: bytes, removed: dict[bytes, WatchedRange | None]) -> None:
        about = removed.pop(name)
        of_patterns = removed is self._patterns
        if of_patterns:
            self._read_size -= len(name)
            if not redis_glob(name).all:
                self._patterns_size -= len(name)
        counts = self._counts.patterns if of_patterns else self._counts.channels
        counts[name] -= 1
        if not counts[name]:
            del counts[name]
        self._session.keep(-len(name) - _OVERHEAD)
        if about is None:
            return
        watched = self._watched[about]
        watched.channels.discard(name)
        watched.patterns.pop(name, None)
        if not watched.channels and not watched.patterns:
            del self._watched[about]
            watched.feed.close()

    def leave(self) -> None:
        """Remove all, and say nothing: the connection is gone, or reset."""
        for removed in (self._channels, self._patterns):
            for name in list(removed):
                self._remove(name, removed)
        self._note()

    def _note(self) -> None:
        self._session.caller.attributes["resp_subscriptions"] = len(self)

    def _told(self, kind: bytes, name: bytes | None) -> bytes:
        shown = self._session.null if name is None else bulk(name)
        return push([bulk(kind), shown, integer(len(self))], self._session.protocol)

    def _ended(self, reason: Failure) -> None:
        """A watch has ended by itself: messages would be missing, so the connection ends, as with Redis."""
        if reason.code != Code.SHUTTING_DOWN:
            self._session.connection.end(reason, linger=True)


def subscriptions_of(session: RespSession) -> Subscriptions:
    """The subscriptions of a connection, which has none at first."""
    found: Subscriptions | None = session.attributes.get("subscriptions")
    if found is not None:
        return found
    made = session.attributes["subscriptions"] = Subscriptions(session)
    session.gates += (made.gate,)
    session.on_other_user += (made.note_other_user,)

    def leave() -> None:
        made.leave()
        del session.attributes["subscriptions"]
        session.gates = tuple(gate for gate in session.gates if gate != made.gate)
        session.on_other_user = tuple(call for call in session.on_other_user if call != made.note_other_user)

    session.at_end.append(leave)
    return made


def is_subscribed(session: RespSession) -> bool:
    """Whether a connection has subscriptions."""
    return bool(session.attributes.get("subscriptions"))
