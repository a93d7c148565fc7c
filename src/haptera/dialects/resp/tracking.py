"""Client-side caching: a connection is told when the keys that it has read, or those with a prefix, change.

The changes come from watches of the connection, so that a user is told of keys that its grants of the time let it watch
and read, and of no others. A key that it may read and not watch is told as changed right behind the reply, so that no
client keeps a copy that could become old. The watches are of the shortest prefix that the grants cover, one for all
keys as a rule, and are opened when a key needs them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.change_feed import ChangeFeed
from haptera.dialects.resp.keyspace_channels import EVERYTHING, WatchedRange
from haptera.dialects.resp.reply_encoding import NULL, array_of_bulks, bulk, integer, push
from haptera.dialects.resp.steps import Judged, Many, Slow
from haptera.dialects.resp.subscriptions import RANGES_MAX, is_subscribed
from haptera.dialects.resp.tracked_keys import TrackedKeys
from haptera.errors import Code
from haptera.node.commands import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from haptera.dialects.resp.change_feed import Change
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command, Outcome, Step
    from haptera.dialects.resp.tracking_options import TrackingOptions
    from haptera.errors import Failure

#: The channel in which a connection of version 2 is told what another one may keep no longer.
CHANNEL: Final = b"__redis__:invalidate"
#: Own changes that are remembered, so that a connection with NOLOOP is not told of them: those of a deep pipeline.
OWN_CHANGES_MAX: Final = 4096


class Tracking:
    """The tracking of one connection, which is on."""

    def __init__(self, session: RespSession, options: TrackingOptions) -> None:
        self.options: TrackingOptions = options
        #: Whether the next command is an exception, by CLIENT CACHING.
        self.is_exception: bool = False
        #: Whether the connection that is to be told is gone.
        self.is_broken: bool = False
        self._session = session
        self._keys = TrackedKeys()
        self._kept = 0
        self._feeds: dict[WatchedRange, ChangeFeed] = {}
        self._own: dict[int, None] = {}
        self._of_transaction: list[str] = []
        self._missed = False

    # -- beginning and end ------------------------------------------------------------------------------------------

    def take(self, options: TrackingOptions) -> Failure | None:
        """Go on with other options, or tell why not. The prefixes of before stay."""
        prefixes = {**self.options.prefixes, **options.prefixes}
        for prefix in prefixes:
            about = WatchedRange(None, prefix)
            if about not in self._feeds and (refused := self._watch(about)) is not None:
                return refused
        self.options = replace(options, prefixes=prefixes)
        self.is_broken = False
        return None

    def stop(self) -> None:
        """End all watches, and track no key."""
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            feed.close()
        self._keys.clear()
        self._account()

    def leave(self) -> None:
        """The connection is gone, or reset."""
        turn_off(self._session)

    def note_other_user(self) -> None:
        """The connection logs in as another user, by whose grants all is to be judged."""
        self.stop()
        self._session.connection.call_soon(self._go_on)

    def _go_on(self) -> None:
        if tracking_of(self._session) is not self:
            return
        self._tell(None)
        refused = self.take(self.options)
        if refused is not None:
            self._session.connection.end(refused, linger=True)

    def _watch(self, about: WatchedRange) -> Failure | None:
        feed = ChangeFeed(self._session, self._take, lambda reason: self._lose(about, reason))
        refused = feed.open(operations.OpenWatch(key=about.key, prefix=about.prefix))
        if refused is None:
            self._feeds[about] = feed
        return refused

    # -- the commands -----------------------------------------------------------------------------------------------

    def wrap(self, command: Command, arguments: list[bytes], step: Step) -> Step:
        """Have the keys that a command reads tracked, and its own changes known."""
        name = command.name
        if name.startswith("client|") or name == "multi":
            return step
        if name == "exec":
            return self._with_end_of_transaction(step)
        options, is_exception = self.options, self.is_exception
        in_transaction = self._session.in_transaction
        if not in_transaction:
            self.is_exception = False
        skipped = options.broadcast or (not is_exception if options.opt_in else options.opt_out and is_exception)
        if skipped or "readonly" not in command.flags:
            return step
        keys = _texts(command.keys(arguments))
        if not keys or isinstance(step, bytes):
            return step
        self._begin(keys)
        if in_transaction:
            self._of_transaction += keys
            return step
        return _with_end(step, lambda: self._end(keys))

    def _with_end_of_transaction(self, step: Step) -> Step:
        if not isinstance(step, Slow):
            self.is_exception = False
            return step

        async def run() -> bytes:
            try:
                return await step.run()
            finally:
                self.is_exception = False
                keys, self._of_transaction = self._of_transaction, []
                self._end(keys)

        return Slow(run)

    def note_own(self, version: int) -> None:
        """A change of this version is the connection's own."""
        self._own[version] = None
        if len(self._own) > OWN_CHANGES_MAX:
            del self._own[next(iter(self._own))]

    def _begin(self, keys: Sequence[str]) -> None:
        self._keys.begin(keys)
        for key in keys:
            if not self._is_watched(key):
                self._keys.miss(key)

    def _end(self, keys: Iterable[str]) -> None:
        told = self._keys.end(keys)
        self._account()
        if told:  # behind the reply, which is written in this turn of the loop
            self._session.connection.call_soon(self._tell, told)

    def _is_watched(self, key: str) -> bool:
        """Whether a change of the key will be noticed; the watch that this takes is begun."""
        if EVERYTHING in self._feeds:
            return True
        for about in self._feeds:
            if key == about.key or (about.prefix is not None and key.startswith(about.prefix)):
                return True
        about_key = self._range_for(key)
        return about_key is not None and len(self._feeds) < RANGES_MAX and self._watch(about_key) is None

    def _range_for(self, key: str) -> WatchedRange | None:
        """The keys with the shortest prefix of a key that may all be watched, or the key alone."""
        permits = self._session.caller.submitter.permits()
        if permits is None:
            return EVERYTHING
        if not (permits.watch(key) and permits.read(key)):
            return None
        low, high = 0, len(key) + 1  # the length that is looked for is between them, the second one included
        while low < high:
            length = (low + high) // 2
            if permits.covers("watch", key[:length]) and permits.covers("read", key[:length]):
                high = length
            else:
                low = length + 1
        return WatchedRange(key, None) if low > len(key) else WatchedRange(None, key[:low])

    # -- what is told -----------------------------------------------------------------------------------------------

    def _take(self, changes: list[Change]) -> None:
        own = self._own if self.options.no_loop else {}
        keys = dict.fromkeys(change.key for change in changes if change.version not in own)
        told = list(keys) if self.options.broadcast else self._keys.change(keys)
        self._account()
        if told:
            self._tell(told)

    def _lose(self, about: WatchedRange, reason: Failure) -> None:
        """A watch has ended by itself: changes may be missed."""
        self._feeds.pop(about, None)
        if reason.code == Code.SHUTTING_DOWN:
            return
        self._keys.clear()
        self._account()
        self._tell(None)
        if self.options.broadcast:  # it would be told nothing any more
            self._session.connection.end(reason, linger=True)

    def _tell(self, keys: Sequence[str] | None) -> None:
        """Tell keys as changed; None for all that there are."""
        session, redirect = self._session, self.options.redirect
        target = session.state.sessions.get(redirect) if redirect else session
        if target is None or not is_told(target, session):
            self.is_broken = True
            if session.protocol == 3:
                session.push([bulk(b"tracking-redir-broken"), integer(redirect)])
            return
        if target is not session and target.connection.full:
            self._tell_all_later(target)
            return
        about = NULL[target.protocol] if keys is None else array_of_bulks([key.encode() for key in keys])
        if target.protocol == 3:
            target.push([bulk(b"invalidate"), about])
        elif redirect and is_subscribed(target):
            target.connection.write(push([bulk(b"message"), bulk(CHANNEL), about], 2))

    def _tell_all_later(self, target: RespSession) -> None:
        """The connection that is told has no room: once it has, tell it to keep nothing, in one message for all."""
        if self._missed:
            return
        self._missed = True

        def make_up() -> None:
            if not target.connection.full:
                target.at_room.remove(make_up)
                self._missed = False
                self._tell(None)

        target.at_room.append(make_up)

    def _account(self) -> None:
        self._session.keep(self._keys.size - self._kept)
        self._kept = self._keys.size


def is_told(target: RespSession, session: RespSession) -> bool:
    """Whether a connection is told what another one may keep no longer: it is not at its end, and of the same user,
    because the keys may be hidden to others.
    """
    own: bool = target.caller.submitter.user == session.caller.submitter.user
    return own and not target.connection.ending


def tracking_of(session: RespSession) -> Tracking | None:
    """The tracking of a connection; None while it is off."""
    found: Tracking | None = session.attributes.get("tracking")
    return found


def turn_on(session: RespSession, options: TrackingOptions) -> Failure | None:
    """Have a connection track keys, or tell why it may not."""
    tracking = tracking_of(session)
    if tracking is not None:
        return tracking.take(options)
    tracking = Tracking(session, replace(options, prefixes={}))
    refused = tracking.take(options)
    if refused is not None:
        tracking.stop()
        return refused
    session.attributes["tracking"] = tracking
    session.wraps += (tracking.wrap,)
    session.on_change += (tracking.note_own,)
    session.on_other_user += (tracking.note_other_user,)
    session.at_end.append(tracking.leave)
    return None


def turn_off(session: RespSession) -> None:
    """Have a connection track no keys. Nothing happens where it tracks none."""
    tracking = tracking_of(session)
    if tracking is None:
        return
    tracking.stop()
    del session.attributes["tracking"]
    session.wraps = tuple(wrap for wrap in session.wraps if wrap != tracking.wrap)
    session.on_change = tuple(note for note in session.on_change if note != tracking.note_own)
    session.on_other_user = tuple(call for call in session.on_other_user if call != tracking.note_other_user)
    if tracking.leave in session.at_end:
        session.at_end.remove(tracking.leave)


def _texts(keys: Iterable[bytes]) -> list[str]:
    """The keys as texts; what is no text is no key."""
    found = []
    for key in keys:
        try:
            found.append(key.decode())
        except UnicodeDecodeError:
            continue
    return found


def _with_end(step: Step, end: Callable[[], None]) -> Step:
    """A step of reads, with a function that is called when its reply is made."""
    if isinstance(step, Slow):
        slow = step

        async def run() -> bytes:
            try:
                return await slow.run()
            finally:
                end()

        return Slow(run)
    if isinstance(step, Many):
        shape_all = step.shape

        def shaped_all(outcomes: Sequence[Outcome], session: RespSession) -> bytes:
            end()
            return shape_all(outcomes, session)

        return Many(step.operations, shaped_all)
    if isinstance(step, bytes | Judged):
        end()
        return step
    op, shape = step

    def shaped(outcome: Outcome, session: RespSession) -> bytes:
        end()
        return shape(outcome, session)

    return op, shaped
