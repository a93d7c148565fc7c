"""Keyspace notifications: the channels that tell changes of keys, and the events that a change is.

A change of the key K with the event E is the message E in the channel ``__keyspace@0__:K``, and the message K in the
channel ``__keyevent@0__:E``. The events are those that the history of changes can tell: ``set`` for a value that was
written, ``expire`` and ``persist`` for an end that was given and taken, ``del`` and ``expired``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.dialects.resp.change_feed import DELETE, EXPIRE, PUT
from haptera.dialects.resp.redis_glob import redis_glob
from haptera.key_rules import is_key

if TYPE_CHECKING:
    from haptera.dialects.resp.change_feed import Change

KEYSPACE: Final = b"__keyspace@0__:"
KEYEVENT: Final = b"__keyevent@0__:"
#: The flags of these notifications, as Redis names them in the parameter notify-keyspace-events.
FLAGS: Final = "g$xKE"

_KEYSPACE_TEXT: Final = KEYSPACE.decode()
_KEYEVENT_TEXT: Final = KEYEVENT.decode()


class WatchedRange(NamedTuple):
    """The keys of which a channel tells changes: one key, or those with a prefix."""

    key: str | None
    prefix: str | None


EVERYTHING: Final = WatchedRange(None, "")


def range_of_channel(channel: bytes) -> WatchedRange | None:
    """The keys that a channel is about; None where it never tells any change."""
    if channel.startswith(KEYEVENT):
        return EVERYTHING
    if not channel.startswith(KEYSPACE):
        return None
    try:
        key = channel[len(KEYSPACE) :].decode()
    except UnicodeDecodeError:
        return None
    return WatchedRange(key, None) if is_key(key) else None


def range_of_pattern(pattern: bytes) -> WatchedRange | None:
    """The keys that the channels with a pattern are about; None where they never tell any change."""
    literal = redis_glob(pattern).prefix
    if literal is None:
        return None
    if literal.startswith(_KEYSPACE_TEXT):
        return WatchedRange(None, literal[len(KEYSPACE) :])
    may_match = literal.startswith(_KEYEVENT_TEXT) or any(
        each.startswith(literal) for each in (_KEYSPACE_TEXT, _KEYEVENT_TEXT)
    )
    return EVERYTHING if may_match else None


def events_of(change: Change) -> tuple[bytes, ...]:
    """The events that a change is, in their order."""
    if change.kind == DELETE:
        return (b"del",)
    if change.kind == EXPIRE:
        return (b"expired",)
    assert change.kind == PUT
    previous, ends = change.previous, change.expires_at_ms
    ended = None if previous is None else previous[2]
    if previous is not None and previous[0] == change.value and ends != ended:
        return (b"persist",) if ends is None else (b"expire",)
    return (b"set",) if ends is None or ends == ended else (b"set", b"expire")
