"""SUBSCRIBE, PSUBSCRIBE, UNSUBSCRIBE, PUNSUBSCRIBE and PUBSUB.

There is no PUBLISH: each message is a change of a key, and the changes are kept, so that no one else can make one up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.error_words import SYNTAX, words_of
from haptera.dialects.resp.help_lines import command_of_parts, part
from haptera.dialects.resp.redis_glob import PATTERN_SIZE_MAX, redis_glob
from haptera.dialects.resp.reply_encoding import EMPTY_ARRAY, ZERO, array, array_of_bulks, bulk, integer
from haptera.dialects.resp.steps import Command, flags
from haptera.dialects.resp.subscriptions import subscriptions_of

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Step


def _subscribe(session: RespSession, arguments: list[bytes]) -> Step:
    """SUBSCRIBE channel [channel ...]"""
    return subscriptions_of(session).subscribe(arguments[1:], patterns=False)


def _psubscribe(session: RespSession, arguments: list[bytes]) -> Step:
    """PSUBSCRIBE pattern [pattern ...]"""
    return subscriptions_of(session).subscribe(arguments[1:], patterns=True)


def _unsubscribe(session: RespSession, arguments: list[bytes]) -> Step:
    """UNSUBSCRIBE [channel ...]"""
    return subscriptions_of(session).unsubscribe(arguments[1:], patterns=False)


def _punsubscribe(session: RespSession, arguments: list[bytes]) -> Step:
    """PUNSUBSCRIBE [pattern ...]"""
    return subscriptions_of(session).unsubscribe(arguments[1:], patterns=True)


def _of_all(handler: Handler) -> Handler:
    """A handler that tells about the subscriptions of all: that takes the permission `metrics`, as all facts of the
    node as a whole do.
    """

    def judged(session: RespSession, arguments: list[bytes]) -> Step:
        refused = session.caller.submitter.lacks("metrics")
        return handler(session, arguments) if refused is None else words_of(refused)

    return judged


def _channels(session: RespSession, arguments: list[bytes]) -> Step:
    """PUBSUB CHANNELS [pattern]"""
    channels = list(session.state.subscribers.channels)
    if len(arguments) == 2:
        return array_of_bulks(channels)
    if len(arguments) > 3 or len(arguments[2]) > PATTERN_SIZE_MAX:
        return SYNTAX
    matches = redis_glob(arguments[2]).matches
    return array_of_bulks([channel for channel in channels if matches(channel)])


def _numsub(session: RespSession, arguments: list[bytes]) -> Step:
    """PUBSUB NUMSUB [channel ...]"""
    channels = session.state.subscribers.channels
    return array([part for name in arguments[2:] for part in (bulk(name), integer(channels.get(name, 0)))])


def _numpat(session: RespSession, arguments: list[bytes]) -> Step:
    """PUBSUB NUMPAT"""
    return integer(len(session.state.subscribers.patterns))


def _shard_channels(session: RespSession, arguments: list[bytes]) -> Step:
    """PUBSUB SHARDCHANNELS [pattern]: there are no shards, and so none of their channels."""
    return EMPTY_ARRAY


def _shard_numsub(session: RespSession, arguments: list[bytes]) -> Step:
    """PUBSUB SHARDNUMSUB [channel ...]"""
    return array([part for name in arguments[2:] for part in (bulk(name), ZERO)])


def _row(name: str, arity: int, summary: str, handler: Handler) -> Command:
    return Command(
        name=name,
        arity=arity,
        flags=flags("pubsub noscript loading stale"),
        group="pubsub",
        since="2.0.0",
        summary=summary,
        handler=handler,
        alone=True,  # its messages stand behind the replies of before
    )


_ASKING: Final = "pubsub loading stale"

ROWS: Final = (
    _row("subscribe", -2, "Have the messages of channels.", _subscribe),
    _row("psubscribe", -2, "Have the messages of the channels with a pattern.", _psubscribe),
    _row("unsubscribe", -1, "Have the messages of channels no more.", _unsubscribe),
    _row("punsubscribe", -1, "Have the messages of patterns no more.", _punsubscribe),
    command_of_parts(
        "pubsub",
        -2,
        "2.8.0",
        "Tell about the subscriptions of all connections.",
        [
            part("pubsub|channels", -2, _ASKING, "2.8.0", "List channels with subscribers.", _of_all(_channels)),
            part("pubsub|numpat", 2, _ASKING, "2.8.0", "Count patterns with subscribers.", _of_all(_numpat)),
            part("pubsub|numsub", -2, _ASKING, "2.8.0", "Count the subscribers of channels.", _of_all(_numsub)),
            part("pubsub|shardchannels", -2, _ASKING, "7.0.0", "List the channels of shards: none.", _shard_channels),
            part("pubsub|shardnumsub", -2, _ASKING, "7.0.0", "Count the subscribers of shards: none.", _shard_numsub),
        ],
    ),
)
