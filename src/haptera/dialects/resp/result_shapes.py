"""Replies of the results that many commands have in common: a function for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.bounds import REPLY_SIZE_MAX
from haptera.dialects.resp.error_words import ANSWER_TOO_LARGE, words_of
from haptera.dialects.resp.reply_encoding import BULK_HEADS, OK, ONE, ZERO, array, bulk_or_null
from haptera.errors import Code, Failure
from haptera.key_rules import VALUE_SIZE_MAX

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Outcome

_KEY_NOT_FOUND: Final = int(Code.KEY_NOT_FOUND)
_KEY_EXISTS: Final = int(Code.KEY_EXISTS)
#: Failures that say no more than that a condition does not hold.
_UNMET: Final = frozenset({_KEY_NOT_FOUND, _KEY_EXISTS})


def value(result: Outcome, session: RespSession) -> bytes:
    """The value of the entry that the result begins with, or null where the key is missing."""
    if type(result) is tuple:
        found = result[0]
        return b"$%d\r\n%b\r\n" % (len(found), found)
    return missing(result, session)


def values_in_a_row(results: list[Outcome]) -> bytes | None:
    """The replies that `value` makes of the results, if all are short values."""
    try:
        found = [result[0] for result in results]  # type: ignore[index]  # a failure has none
        heads = list(map(BULK_HEADS.__getitem__, map(len, found)))
    except (TypeError, IndexError):
        return None
    parts = [b""] * (2 * len(found) + 1)
    parts[:-1:2] = heads
    parts[1::2] = found
    return b"\r\n".join(parts)


def missing(result: Outcome, session: RespSession) -> bytes:
    """Null for a missing key; each other failure is an error."""
    assert isinstance(result, Failure)
    return session.null if result.code == _KEY_NOT_FOUND else words_of(result)


def done(result: Outcome, session: RespSession) -> bytes:
    """OK for a change that was made."""
    return OK if type(result) is tuple else failed(result)


def done_if_met(result: Outcome, session: RespSession) -> bytes:
    """OK for a change that was made, null for one whose condition does not hold."""
    if type(result) is tuple:
        return OK
    return session.null if is_unmet(result) else failed(result)


def one_if_met(result: Outcome, session: RespSession) -> bytes:
    """1 for a change that was made, 0 for one whose condition does not hold."""
    if type(result) is tuple:
        return ONE
    return ZERO if is_unmet(result) else failed(result)


def one_if_changed(result: Outcome, session: RespSession) -> bytes:
    """1 for a change that was made, 0 for one of a missing key."""
    if type(result) is tuple:
        return ZERO if result[0] is False else ONE
    return ZERO if is_unmet(result) else failed(result)


def one_unless_exists(result: Outcome, session: RespSession) -> bytes:
    """1 for a change that was made, 0 where another key is in its way."""
    if type(result) is tuple:
        return ONE
    assert isinstance(result, Failure)
    return ZERO if result.code == _KEY_EXISTS else words_of(result)


def one_if_true(result: Outcome, session: RespSession) -> bytes:
    """1 or 0, as the result's first field says."""
    if type(result) is tuple:
        return ONE if result[0] else ZERO
    return failed(result)


def number(result: Outcome, session: RespSession) -> bytes:
    """The number that is the result's first field."""
    return b":%d\r\n" % result[0] if type(result) is tuple else failed(result)


def previous(result: Outcome, session: RespSession) -> bytes:
    """The value of before a change, which is the result's last field; null where there was none."""
    if type(result) is tuple:
        entry = result[-1]
        return session.null if entry is None else bulk_or_null(entry[0], session.protocol)
    return session.null if is_unmet(result) else failed(result)


def values(result: Outcome, session: RespSession) -> bytes:
    """The values of several keys, null for each missing one."""
    if type(result) is tuple:
        version = session.protocol
        size = sum(len(entry[0]) for entry in result[0] if entry is not None)
        if size > REPLY_SIZE_MAX or (size > VALUE_SIZE_MAX and not session.has_room(size)):
            return ANSWER_TOO_LARGE
        return array([bulk_or_null(None if entry is None else entry[0], version) for entry in result[0]])
    return failed(result)


def is_unmet(result: Outcome) -> bool:
    """Whether a change was not made because its key is missing, or is there."""
    return isinstance(result, Failure) and result.code in _UNMET


def failed(result: Outcome) -> bytes:
    """The error for a failure."""
    assert isinstance(result, Failure)
    return words_of(result)
