"""The parts of CLIENT about client-side caching: TRACKING, CACHING, TRACKINGINFO and GETREDIR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.error_words import SYNTAX, words_of
from haptera.dialects.resp.reply_encoding import OK, array_of_bulks, bulk, error, integer, map_of, set_of
from haptera.dialects.resp.steps import Command, flags
from haptera.dialects.resp.tracking import is_told, tracking_of, turn_off, turn_on
from haptera.dialects.resp.tracking_options import check_tracking_options, read_tracking_options

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Step

_NO_SUCH_CLIENT: Final = error("ERR The client ID you want redirect to does not exist")
_NOT_TRACKING: Final = error(
    "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
)
_NOT_OPT_IN: Final = error("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
_NOT_OPT_OUT: Final = error("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")


def _tracking(session: RespSession, arguments: list[bytes]) -> Step:
    """CLIENT TRACKING ON|OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]"""
    options = read_tracking_options(arguments[3:])
    if options.redirect and not _may_be_told(session, options.redirect):
        return _NO_SUCH_CLIENT
    switch = arguments[2].upper()
    if switch == b"OFF":
        turn_off(session)
        return OK
    if switch != b"ON":
        return SYNTAX
    tracking = tracking_of(session)
    check_tracking_options(options, None if tracking is None else tracking.options)
    refused = turn_on(session, options)
    return OK if refused is None else words_of(refused)


def _may_be_told(session: RespSession, number: int) -> bool:
    """Whether a connection is there that may be told what this one may keep no longer."""
    other = session.state.sessions.get(number)
    return other is not None and is_told(other, session)


def _caching(session: RespSession, arguments: list[bytes]) -> Step:
    """CLIENT CACHING YES|NO"""
    tracking = tracking_of(session)
    if tracking is None:
        return _NOT_TRACKING
    answer = arguments[2].upper()
    if answer == b"YES":
        if not tracking.options.opt_in:
            return _NOT_OPT_IN
    elif answer == b"NO":
        if not tracking.options.opt_out:
            return _NOT_OPT_OUT
    else:
        return SYNTAX
    tracking.is_exception = True
    return OK


def _getredir(session: RespSession, arguments: list[bytes]) -> Step:
    """CLIENT GETREDIR: 0 for the connection itself, -1 while tracking is off"""
    tracking = tracking_of(session)
    return integer(-1 if tracking is None else tracking.options.redirect)


def _trackinginfo(session: RespSession, arguments: list[bytes]) -> Step:
    """CLIENT TRACKINGINFO"""
    tracking, version = tracking_of(session), session.protocol
    words, redirect, prefixes = ["off"], -1, []
    if tracking is not None:
        options = tracking.options
        redirect, prefixes = options.redirect, [prefix.encode() for prefix in options.prefixes]
        shown = {
            "on": True,
            "bcast": options.broadcast,
            "optin": options.opt_in,
            "caching-yes": options.opt_in and tracking.is_exception,
            "optout": options.opt_out,
            "caching-no": options.opt_out and tracking.is_exception,
            "noloop": options.no_loop,
            "broken_redirect": tracking.is_broken,
        }
        words = [word for word, holds in shown.items() if holds]
    pairs = [
        (bulk(b"flags"), set_of([bulk(word.encode()) for word in words], version)),
        (bulk(b"redirect"), integer(redirect)),
        (bulk(b"prefixes"), array_of_bulks(prefixes)),
    ]
    return map_of(pairs, version)


def _row(name: str, arity: int, since: str, summary: str, handler: Handler) -> Command:
    return Command(
        name=f"client|{name}",
        arity=arity,
        flags=flags("noscript loading stale"),
        group="connection",
        since=since,
        summary=summary,
        handler=handler,
        alone=True,  # the reads before it are not tracked, and those behind it are
    )


PARTS: Final = (
    _row("tracking", -3, "6.0.0", "Tell this connection which keys that it has read have changed.", _tracking),
    _row("caching", 3, "6.0.0", "Make the next command an exception from tracking.", _caching),
    _row("trackinginfo", 2, "6.2.0", "Tell how this connection tracks keys.", _trackinginfo),
    _row("getredir", 2, "6.0.0", "Tell which connection is told about changes of keys.", _getredir),
)
