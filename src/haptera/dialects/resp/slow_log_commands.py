"""SLOWLOG and LATENCY, which exporters and tools ask when they begin.

A node records its slow commands in the audit log (``audit_slow``), with their users, and keeps no list of them beside
that. So both say that there is nothing in theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.error_words import NOT_AN_INTEGER, wrong_arity
from haptera.dialects.resp.help_lines import command_of_parts, part
from haptera.dialects.resp.reply_encoding import EMPTY_ARRAY, OK, ZERO, error, map_of
from haptera.key_rules import number_of

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command, Step

_COUNT: Final = error("ERR count should be greater than or equal to -1")


def _get(session: RespSession, arguments: list[bytes]) -> Step:
    """SLOWLOG GET [count]"""
    if len(arguments) > 3:
        return wrong_arity("slowlog|get")
    if len(arguments) == 3:
        count = number_of(arguments[2])
        if count is None:
            return NOT_AN_INTEGER
        if count < -1:
            return _COUNT
    return EMPTY_ARRAY


def _length(session: RespSession, arguments: list[bytes]) -> Step:
    """SLOWLOG LEN"""
    return ZERO


def _forget(session: RespSession, arguments: list[bytes]) -> Step:
    """SLOWLOG RESET"""
    return OK


def _none(session: RespSession, arguments: list[bytes]) -> Step:
    """LATENCY LATEST, HISTORY event"""
    return EMPTY_ARRAY


def _forget_events(session: RespSession, arguments: list[bytes]) -> Step:
    """LATENCY RESET [event ...]: the number of the events that were forgotten"""
    return ZERO


def _histogram(session: RespSession, arguments: list[bytes]) -> Step:
    """LATENCY HISTOGRAM [command ...]"""
    return map_of([], session.protocol)


_FLAGS: Final = "admin loading stale"
_LATENCY_FLAGS: Final = "admin noscript loading stale"

ROWS: Final[tuple[Command, ...]] = (
    command_of_parts(
        "slowlog",
        -2,
        "2.2.12",
        "Slow commands are in the audit log; there is no list of them here.",
        [
            part("slowlog|get", -2, _FLAGS, "2.2.12", "List slow commands: none are kept.", _get),
            part("slowlog|len", 2, _FLAGS, "2.2.12", "Count the slow commands that are kept: none.", _length),
            part("slowlog|reset", 2, _FLAGS, "2.2.12", "Forget slow commands, of which none are kept.", _forget),
        ],
    ),
    command_of_parts(
        "latency",
        -2,
        "2.8.13",
        "Waits are in the metrics; there are no events of them here.",
        [
            part("latency|histogram", -2, _LATENCY_FLAGS, "7.0.0", "Show times of commands: none.", _histogram),
            part("latency|history", 3, _LATENCY_FLAGS, "2.8.13", "List the waits of an event: none.", _none),
            part("latency|latest", 2, _LATENCY_FLAGS, "2.8.13", "List the newest waits: none.", _none),
            part(
                "latency|reset", -2, _LATENCY_FLAGS, "2.8.13", "Forget waits, of which none are kept.", _forget_events
            ),
        ],
    ),
)
