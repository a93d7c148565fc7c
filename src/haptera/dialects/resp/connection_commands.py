"""Commands of one connection: the login, the version of the protocol, the end, and signs of life."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.client_commands import INVALID_CLIENT_NAME
from haptera.dialects.resp.client_details import details_of, is_client_name
from haptera.dialects.resp.error_words import NOT_AN_INTEGER, SYNTAX, WRONG_PASSWORD, words_of, wrong_arity
from haptera.dialects.resp.redis_version import REDIS_VERSION
from haptera.dialects.resp.reply_encoding import (
    EMPTY_ARRAY,
    OK,
    PONG,
    array,
    bulk,
    error,
    integer,
    map_of,
    simple,
    text,
)
from haptera.dialects.resp.steps import Slow, command_row
from haptera.key_rules import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from haptera.dialects.resp.reply_encoding import Version
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command, Handler, Step

#: The user of an AUTH that names none, as in Redis. It is a user like each other one, and there if it was made.
DEFAULT_USER: Final = "default"

_RESET: Final = simple("RESET")
_NO_PASSWORDS: Final = error(
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
_HELLO_WITHOUT_LOGIN: Final = error(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> "
    "option can be used to authenticate the client and select the RESP protocol version at the same time"
)
_NO_SUCH_PROTOCOL: Final = error("NOPROTO unsupported protocol version")
_NO_PROTOCOL: Final = error("ERR Protocol version is not an integer or out of range")
_NO_SUCH_DATABASE: Final = error("ERR DB index is out of range")


def _ping(session: RespSession, arguments: list[bytes]) -> Step:
    if len(arguments) > 2:
        return wrong_arity("ping")
    return bulk(arguments[1]) if len(arguments) == 2 else PONG


def _echo(session: RespSession, arguments: list[bytes]) -> Step:
    return bulk(arguments[1])


def _select(session: RespSession, arguments: list[bytes]) -> Step:
    number = number_of(arguments[1])
    if number is None or not -(2**31) <= number < 2**31:
        return NOT_AN_INTEGER
    return OK if number == 0 else _NO_SUCH_DATABASE


def _quit(session: RespSession, arguments: list[bytes]) -> Step:
    session.close_when_answered()
    return OK


def _reset(session: RespSession, arguments: list[bytes]) -> Step:
    """Make the connection one that has just begun: its login, its version, its name and its subscriptions are gone."""
    session.leave()
    session.silence = None
    session.set_protocol(2)
    session.caller.identity = None
    session.caller.come_in(signed=False)
    session.forget_login()
    details = details_of(session.caller)
    details.name, details.version = b"", 2
    return _RESET


def _auth(session: RespSession, arguments: list[bytes]) -> Step:
    if len(arguments) > 3:
        return SYNTAX
    if len(arguments) == 2 and not session.caller.asks_for_logins:
        return _NO_PASSWORDS
    user = DEFAULT_USER.encode() if len(arguments) == 2 else arguments[1]
    return Slow(_logging_in(session, user, arguments[-1], lambda: OK))


def _logging_in(
    session: RespSession, user: bytes, password: bytes, done: Callable[[], bytes]
) -> Callable[[], Coroutine[Any, Any, bytes]]:
    async def log_in() -> bytes:
        caller = session.caller
        if not caller.asks_for_logins:
            return WRONG_PASSWORD  # there are no users
        try:
            names = user.decode(), password.decode()
        except UnicodeDecodeError:
            return WRONG_PASSWORD
        refused = await caller.authenticate(*names)
        return done() if refused is None else words_of(refused)

    return log_in


def _hello(session: RespSession, arguments: list[bytes]) -> Step:
    version: Version = session.protocol
    if len(arguments) > 1:
        asked = number_of(arguments[1])
        if asked is None:
            return _NO_PROTOCOL
        if asked not in {2, 3}:
            return _NO_SUCH_PROTOCOL
        version = 3 if asked == 3 else 2
    login: list[bytes] = []
    name: bytes | None = None
    at = 2
    while at < len(arguments):
        option, left = arguments[at].upper(), len(arguments) - at - 1
        if option == b"AUTH" and left >= 2:
            login = arguments[at + 1 : at + 3]
            at += 3
        elif option == b"SETNAME" and left >= 1:
            name = arguments[at + 1]
            if not is_client_name(name):
                return INVALID_CLIENT_NAME
            at += 2
        else:
            return error(f"ERR Syntax error in HELLO option '{arguments[at].decode(errors='surrogateescape')}'")

    def greet() -> bytes:
        details = details_of(session.caller)
        if name is not None:
            details.name = name
        details.version = version
        session.set_protocol(version)
        return _greeting(session)

    if login:
        return Slow(_logging_in(session, login[0], login[1], greet))
    return _HELLO_WITHOUT_LOGIN if session.caller.needs_login else greet()


def _greeting(session: RespSession) -> bytes:
    fields = {
        "server": text("redis"),
        "version": text(REDIS_VERSION),
        "proto": integer(session.protocol),
        "id": integer(session.caller.number),
        "mode": text("standalone"),
        "role": text("master"),
        "modules": EMPTY_ARRAY,
    }
    return map_of([(text(name), value) for name, value in fields.items()], session.protocol)


def _time(session: RespSession, arguments: list[bytes]) -> Step:
    now_ms = session.caller.facts.clock_ms()
    return array([text(str(now_ms // 1000)), text(str(now_ms % 1000 * 1000))])


_FREE: Final = "noscript loading stale fast no_auth allow_busy"
_PLAIN: Final = "loading stale fast"
_NO_KEYS: Final = (0, 0, 0)


def _row(name: str, arity: int, its_flags: str, since: str, summary: str, handler: Handler) -> Command:
    group = "server" if name == "time" else "connection"
    return command_row(name, arity, its_flags, since, summary, handler, group, _NO_KEYS)


def _alone(row: Command) -> Command:
    """The same command, handled when all before it are answered."""
    return replace(row, alone=True)


#: The rows of the table.
ROWS: Final = (
    _alone(_row("auth", -2, _FREE, "1.0.0", "Log in as a user: `default` where none is named.", _auth)),
    _row("echo", 2, _PLAIN, "1.0.0", "Give the text back.", _echo),
    _alone(_row("hello", -1, _FREE, "6.0.0", "Choose the version of the protocol, and log in.", _hello)),
    _row("ping", -1, "fast", "1.0.0", "Say that the server is there.", _ping),
    _alone(_row("quit", -1, _FREE, "1.0.0", "Close the connection behind the reply.", _quit)),
    _alone(_row("reset", 1, _FREE, "6.2.0", "Make the connection as it was when it began.", _reset)),
    _row("select", 2, _PLAIN, "1.0.0", "Choose a database; there is one, number 0.", _select),
    _row("time", 1, _PLAIN, "2.6.0", "Tell the time of the node: Unix seconds and microseconds.", _time),
)
